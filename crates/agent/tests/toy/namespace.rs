//! Runs a test in a network namespace of its own, and gives it a second one to talk to.
#![allow(clippy::unwrap_used, dead_code)]

use std::fs::File;
use std::process::{Child, Command};

use nix::sched::{CloneFlags, setns};

/// Re-runs one test of this file inside a new network namespace; true in the inner process.
pub fn in_namespace(test: &str) -> bool {
    if std::env::var_os("STOLOS_INNER").is_some() {
        let up = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        assert!(up.unwrap().success());
        return true;
    }
    let able = Command::new("unshare").args(["-n", "true"]).status();
    if !able.is_ok_and(|status| status.success()) {
        assert!(
            std::env::var_os("CI").is_none(),
            "no network namespaces (root is needed)"
        );
        println!("not run: no network namespaces (root is needed)");
        return false;
    }
    let this = std::env::current_exe().unwrap();
    let status = Command::new("unshare")
        .arg("-n")
        .arg(this)
        .args(["--exact", test, "--nocapture"])
        .env("STOLOS_INNER", "1")
        .status()
        .unwrap();
    assert!(status.success(), "{test} in its namespace");
    false
}

pub const HERE: [u8; 4] = [10, 77, 0, 1];
pub const THERE: [u8; 4] = [10, 77, 0, 2];

/// Another namespace, at the other end of a cable; the default route leads there.
pub struct Peer {
    child: Child,
    network: File,
}

impl Peer {
    pub fn start() -> Peer {
        let child = Command::new("unshare")
            .args(["-n", "sleep", "600"])
            .spawn()
            .unwrap();
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let path = format!("/proc/{}/ns/net", child.id());
        // unshare(1) needs a moment before its namespace is the new one.
        while std::fs::read_link(&path).unwrap() == own {
            std::thread::yield_now();
        }
        let peer = Peer {
            network: File::open(path).unwrap(),
            child,
        };
        let id = peer.child.id().to_string();
        ip(&[
            "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", &id,
        ]);
        ip(&["addr", "add", "10.77.0.1/24", "dev", "eth0"]);
        ip(&["link", "set", "eth0", "up"]);
        peer.run(|| {
            ip(&["addr", "add", "10.77.0.2/24", "dev", "eth0"]);
            ip(&["link", "set", "eth0", "up"]);
            ip(&["link", "set", "lo", "up"]);
        });
        ip(&["route", "add", "default", "via", "10.77.0.2"]);
        peer
    }

    /// Sockets made inside belong to the other namespace.
    pub fn run<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.network, CloneFlags::CLONE_NEWNET).unwrap();
                inside()
            });
            thread.join().unwrap()
        })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().unwrap();
    assert!(status.success(), "ip {arguments:?}");
}
