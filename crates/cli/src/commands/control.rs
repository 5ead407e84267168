//! `stolos control`: a control plane as a process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::Scope;
use super::process::{run_until_signal, start_logging};
use crate::exit::CliError;

#[derive(Debug, Args)]
pub struct Control {
    /// Holds the authority, the applied objects and the published root certificate.
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
    /// A directory of Istio configuration, watched.
    #[arg(long, value_name = "DIR")]
    config_dir: Option<PathBuf>,
    /// The registry file of the local platform, watched.
    #[arg(long, value_name = "FILE")]
    registry: Option<PathBuf>,
    /// A MeshConfig, watched.
    #[arg(long, value_name = "FILE")]
    mesh_config: Option<PathBuf>,
    /// Discovery and certificates, TLS.
    #[arg(long, default_value = "127.0.0.1:15012")]
    xds_address: SocketAddr,
    /// Metrics, readiness, debug: plain HTTP, for this machine.
    #[arg(long, default_value = "127.0.0.1:15014")]
    monitoring_address: SocketAddr,
    /// The API of `stolos apply`; STATE/control.sock where not given.
    #[arg(long, value_name = "PATH")]
    admin_socket: Option<PathBuf>,
    /// A plugged-in authority's signing certificate, with what leads to its root (PEM).
    #[arg(long, requires = "ca_key", value_name = "FILE")]
    ca_cert: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long, requires = "ca_cert", value_name = "FILE")]
    ca_key: Option<PathBuf>,
    /// Its roots; the last certificate of --ca-cert where not given.
    #[arg(long, value_name = "FILE")]
    root_cert: Option<PathBuf>,
    /// Names under which proxies reach this server; may be given several times.
    #[arg(long, default_value = "istiod.istio-system.svc", value_name = "NAME")]
    discovery_name: Vec<String>,
    /// What gets logged: error, warn, info, debug, trace, or a filter by module.
    #[arg(long, default_value = "info", env = "STOLOS_LOG")]
    log_level: String,
    /// Log as JSON.
    #[arg(long)]
    log_as_json: bool,
}

pub fn run(arguments: Control, _scope: &Scope) -> Result<ExitCode, CliError> {
    start_logging(&arguments.log_level, arguments.log_as_json)?;
    let mut options = control::Options::new(arguments.state_dir);
    if let Some(socket) = arguments.admin_socket {
        options.admin_socket = socket;
    }
    options.config_dir = arguments.config_dir;
    options.registry = arguments.registry;
    options.mesh_config = arguments.mesh_config;
    options.xds_address = arguments.xds_address;
    options.monitoring_address = arguments.monitoring_address;
    options.ca_cert = arguments.ca_cert;
    options.ca_key = arguments.ca_key;
    options.root_cert = arguments.root_cert;
    options.discovery_names = arguments.discovery_name;
    run_until_signal(|watch| control::run(options, watch))
}
