//! The table of commands: one variant, one file.
// tidy: table

mod analyze;
mod apply;
mod capture;
mod completion;
mod control;
mod delete;
mod describe;
mod down;
mod exec;
mod get;
mod logs;
pub mod process;
mod proxy;
mod proxy_config;
mod rollout;
mod scale;
mod status;
mod up;
mod version;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::exit::CliError;

/// Stolos: a service mesh in one binary.
#[derive(Debug, Parser)]
#[command(name = "stolos", version, disable_help_subcommand = true)]
pub struct Cli {
    /// The mesh, where several run on this machine.
    #[arg(long, global = true, value_name = "NAME")]
    mesh: Option<String>,
    /// The namespace.
    #[arg(
        short,
        long,
        global = true,
        value_name = "NAMESPACE",
        default_value = "default"
    )]
    namespace: String,
    #[command(subcommand)]
    command: Command,
}

/// What every command may ask for.
pub struct Scope {
    pub mesh: Option<String>,
    pub namespace: String,
}

macro_rules! commands {
    ($($(#[$meta:meta])* $variant:ident $module:ident::$arguments:ident,)*) => {
        #[derive(Debug, Subcommand)]
        #[expect(clippy::large_enum_variant, reason = "there is one, once")]
        enum Command {
            $($(#[$meta])* $variant($module::$arguments),)*
        }

        impl Cli {
            /// Runs the command.
            pub fn run(self) -> Result<ExitCode, CliError> {
                let scope = Scope { mesh: self.mesh, namespace: self.namespace };
                if !self.command.serves() {
                    local::end_when_nobody_reads();
                }
                match self.command {
                    $(Command::$variant(arguments) => $module::run(arguments, &scope),)*
                }
            }
        }
    };
}

impl Command {
    /// Whether it goes on when its output is closed.
    fn serves(&self) -> bool {
        matches!(
            self,
            Command::Up(_) | Command::Control(_) | Command::Proxy(_) | Command::Capture(_)
        )
    }
}

commands! {
    /// Start a mesh from a directory, or make the running one match it.
    Up up::Up,
    /// Stop a mesh.
    Down down::Down,
    /// Apply Istio configuration.
    Apply apply::Apply,
    /// Show objects.
    Get get::Get,
    /// Delete objects.
    Delete delete::Delete,
    /// Show one object with its status.
    Describe describe::Describe,
    /// Show each proxy and whether it has the newest configuration.
    #[command(visible_alias = "ps")]
    Status status::Status,
    /// Show what a proxy runs with.
    #[command(visible_alias = "pc")]
    ProxyConfig proxy_config::ProxyConfig,
    /// Check configuration for mistakes that validation alone does not see.
    Analyze analyze::Analyze,
    /// Print a pod's logs.
    Logs logs::Logs,
    /// Run a command in a pod.
    Exec exec::Exec,
    /// Replace a workload's pods one by one, or wait until that is done.
    Rollout rollout::Rollout,
    /// Change how many pods a workload has.
    Scale scale::Scale,
    /// Print versions.
    Version version::Version,
    /// Print a shell's completion script.
    Completion completion::Completion,
    /// Run a control plane.
    Control control::Control,
    /// Run a proxy: `sidecar`, `router`, or from an Envoy bootstrap with `-c`.
    Proxy proxy::Proxy,
    /// Set up the capture of a pod's traffic (the flags of istio-iptables).
    Capture capture::Capture,
}
