//! Keeps the names of STRICT_DNS and LOGICAL_DNS clusters resolved, on the main thread, with the
//! system's resolver.
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc;

use super::endpoints::Resolved;
use crate::parse::cluster::{Dns, DnsFamily};

/// Resolves all names now and then again at the refresh rate, until the receiver is gone. A name
/// that stops resolving keeps its last addresses.
pub async fn keep_resolved(
    names: Vec<(String, u16)>,
    settings: Dns,
    logical: bool,
    sender: mpsc::Sender<Resolved>,
) {
    let mut known = Resolved::new();
    let mut back_off = settings.failure_refresh_base;
    loop {
        let mut failed = false;
        for (host, port) in &names {
            match lookup(host, *port, &settings).await {
                Some(mut addresses) => {
                    if logical {
                        addresses.truncate(1);
                    }
                    known.insert((host.clone(), *port), addresses);
                }
                None => failed = true,
            }
        }
        if sender.send(known.clone()).await.is_err() {
            return;
        }
        let pause = if failed {
            back_off
        } else {
            settings.refresh_rate
        };
        back_off = match failed {
            true => (back_off * 2).min(settings.failure_refresh_max),
            false => settings.failure_refresh_base,
        };
        tokio::select! {
            () = tokio::time::sleep(pause.max(Duration::from_millis(100))) => {}
            () = sender.closed() => return,
        }
    }
}

async fn lookup(host: &str, port: u16, settings: &Dns) -> Option<Vec<SocketAddr>> {
    let found = tokio::time::timeout(
        Duration::from_secs(5),
        tokio::net::lookup_host((host, port)),
    );
    let all: Vec<SocketAddr> = match found.await {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => {
            tracing::debug!(host, %error, "name does not resolve");
            return None;
        }
        Err(_) => return None,
    };
    let mut addresses = by_family(all, settings.family);
    addresses.sort();
    addresses.dedup();
    (!addresses.is_empty()).then_some(addresses)
}

fn by_family(all: Vec<SocketAddr>, family: DnsFamily) -> Vec<SocketAddr> {
    let (v4, v6): (Vec<_>, Vec<_>) = all.into_iter().partition(SocketAddr::is_ipv4);
    match family {
        DnsFamily::V4Only => v4,
        DnsFamily::V6Only => v6,
        DnsFamily::V4Preferred if v4.is_empty() => v6,
        DnsFamily::V4Preferred => v4,
        DnsFamily::Auto if v6.is_empty() => v4,
        DnsFamily::Auto => v6,
        DnsFamily::All => [v4, v6].concat(),
    }
}
