//! What the supervisor and a pod's first process say to each other: JSON, one message a line,
//! over the socket that the latter has as its standard input.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Supervisor to pod.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Order {
    Setup(Box<Setup>),
    Start(Box<Container>),
    Signal { container: String, signal: i32 },
}

/// Pod to supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The namespaces exist: the other end of the pod's link can be moved in.
    Created,
    /// The file systems and the network stand.
    Ready,
    Failed {
        message: String,
    },
    /// `pid` as seen inside the pod.
    Started {
        container: String,
        pid: i32,
    },
    Exited {
        container: String,
        exit: Exit,
    },
}

/// How a container's first process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    Code(i32),
    Signal(i32),
    /// It never started.
    NotStarted(String),
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Code(127) => f.write_str("exit code 127, its command was not found"),
            Exit::Code(code) => write!(f, "exit code {code}"),
            Exit::Signal(number) => write!(f, "signal {number}"),
            Exit::NotStarted(why) => write!(f, "not started: {why}"),
        }
    }
}

/// The pod's own view of the machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Setup {
    pub hostname: String,
    pub ip: Ipv4Addr,
    /// An existing, empty directory of the host's, over which the pod mounts its root.
    pub root: PathBuf,
    /// Directories of the host's that the pod must not see (our own state: keys and tokens).
    pub hidden: Vec<PathBuf>,
    /// Files of the host's to show, target path first: our binary, Envoy.
    pub programs: Vec<(PathBuf, PathBuf)>,
    /// Files to write, by absolute path: resolv.conf, hosts, hostname.
    pub files: BTreeMap<PathBuf, String>,
    pub volumes: Vec<Volume>,
    /// Where the containers' logs go (a directory of the host's).
    pub logs: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub name: String,
    pub owner: u32,
    pub mode: u32,
    /// Relative path to content; empty for an emptyDir.
    pub files: BTreeMap<String, VolumeFile>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeFile {
    /// Base64 of the content.
    pub content: String,
    pub mode: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Privilege {
    /// What sets up capture needs.
    Full,
    Default,
}

/// One container's process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    pub name: String,
    pub command: Vec<String>,
    pub env: Vec<(String, String)>,
    pub directory: Option<PathBuf>,
    pub user: Option<u32>,
    pub group: Option<u32>,
    pub privilege: Privilege,
    pub mounts: Vec<Mount>,
    /// Its output is not kept (probes).
    pub quiet: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub volume: String,
    pub path: PathBuf,
    pub sub_path: String,
    pub read_only: bool,
}

/// Where a pod finds our binary, and where volumes stand before they are mounted.
pub const STOLOS_IN_POD: &str = "/run/stolos/stolos";
pub const ENVOY_IN_POD: &str = "/run/stolos/envoy";
pub const VOLUMES_IN_POD: &str = "/run/stolos/volumes";
/// The address that every pod's default route goes to; each link's node end has it.
pub const LINK_GATEWAY: &str = "169.254.1.1";
