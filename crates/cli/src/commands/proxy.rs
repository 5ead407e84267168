//! `stolos proxy`: a proxy as a process. With a role it has an agent beside it (pilot-agent's
//! flags and environment); with `-c` it runs alone from an Envoy bootstrap.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::Scope;
use super::process::{run_until_signal, start_logging};
use crate::exit::CliError;

#[derive(Debug, Args)]
pub struct Proxy {
    /// An Envoy bootstrap, YAML or JSON.
    #[arg(
        short,
        long = "config-path",
        value_name = "FILE",
        conflicts_with = "words"
    )]
    config: Option<PathBuf>,
    /// Worker threads; the machine's processors where not given.
    #[arg(long, requires = "config", value_name = "COUNT")]
    concurrency: Option<u32>,
    /// Check the bootstrap and end: `validate`, or `serve`.
    #[arg(long, requires = "config", default_value = "serve")]
    mode: Mode,
    /// What gets logged with -c.
    #[arg(long, default_value = "info", env = "STOLOS_LOG")]
    log_level: String,
    /// `sidecar` or `router`, then pilot-agent's flags.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ROLE FLAGS"
    )]
    words: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    Serve,
    Validate,
}

pub fn run(arguments: Proxy, _scope: &Scope) -> Result<ExitCode, CliError> {
    if let Some(path) = &arguments.config {
        return alone(path, &arguments);
    }
    let role = match arguments.words.first().map(String::as_str) {
        Some("sidecar") => agent::options::Role::Sidecar,
        Some("router") => agent::options::Role::Router,
        Some(other) => {
            let text = format!("{other:?} is no role: `proxy sidecar`, `proxy router`, `proxy -c`");
            return Err(CliError::usage(text));
        }
        None => {
            return Err(CliError::usage(
                "which proxy? `proxy sidecar`, `proxy router`, or `proxy -c BOOTSTRAP`",
            ));
        }
    };
    let level = flag(&arguments.words, "log_output_level").unwrap_or(&arguments.log_level);
    let as_json = flag(&arguments.words, "log_as_json").is_some_and(|value| value != "false");
    start_logging(level, as_json)?;
    let environment: BTreeMap<String, String> = std::env::vars().collect();
    let options = agent::options::Options::parse(role, &arguments.words[1..], &environment)
        .map_err(|error| CliError::usage(error.to_string()))?;
    run_until_signal(|watch| agent::run(options, watch))
}

/// The value of one of pilot-agent's flags that concern this program's own log: `--name VALUE`,
/// `--name=VALUE`; empty for a flag without one.
fn flag<'a>(words: &'a [String], name: &str) -> Option<&'a str> {
    let text = |word: &'a String| word.strip_prefix("--");
    let at = words
        .iter()
        .position(|word| text(word).is_some_and(|word| word.split('=').next() == Some(name)))?;
    match words[at].split_once('=') {
        Some((_, value)) => Some(value),
        None => Some(
            words
                .get(at + 1)
                .filter(|next| !next.starts_with('-'))
                .map_or("", |v| v),
        ),
    }
}

fn alone(path: &Path, arguments: &Proxy) -> Result<ExitCode, CliError> {
    let bootstrap = read_bootstrap(path)?;
    if arguments.mode == Mode::Validate {
        proxy::validate(&bootstrap).map_err(|error| CliError::Input(error.to_string()))?;
        println!("configuration {} OK", path.display());
        return Ok(ExitCode::SUCCESS);
    }
    start_logging(&arguments.log_level, false)?;
    let concurrency = arguments.concurrency.map(|count| count as usize);
    let options = proxy::Options {
        concurrency,
        ..Default::default()
    };
    run_until_signal(|watch| async move {
        // The proxy starts threads of its own and keeps this one until it has drained.
        let (done, ended) = tokio::sync::oneshot::channel();
        std::thread::Builder::new()
            .name("proxy".into())
            .spawn(move || {
                let _ = done.send(proxy::run(bootstrap, options, watch));
            })
            .map_err(|error| error.to_string())?;
        match ended.await {
            Ok(outcome) => outcome.map_err(|error| error.to_string()),
            Err(_) => Err("the proxy's main thread ended early".to_owned()),
        }
    })
}

fn read_bootstrap(path: &Path) -> Result<envoy_api::bootstrap::Bootstrap, CliError> {
    let failed = |reason: String| CliError::Input(format!("{}: {reason}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let loaded = mesh_api::parse::yaml::load(&text, &mesh_api::parse::yaml::Limits::default());
    if let Some(error) = loaded.errors.first() {
        let place = format!(
            "{}:{}:{}",
            path.display(),
            error.span.line,
            error.span.column
        );
        return Err(CliError::Input(format!("{place}: {}", error.message)));
    }
    match loaded.documents.as_slice() {
        [document] => envoy_api::json::from_json(document.to_json())
            .map_err(|error| failed(error.to_string())),
        all => Err(failed(format!(
            "holds {} documents, not one bootstrap",
            all.len()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pilot_agents_log_flags() {
        let words = [
            "sidecar",
            "--log_output_level",
            "default:debug",
            "--log_as_json",
        ];
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        for (name, want, why) in [
            ("log_output_level", Some("default:debug"), "the next word"),
            ("log_as_json", Some(""), "a flag alone"),
            ("domain", None, "not there"),
        ] {
            assert_eq!(flag(&words, name), want, "{why}");
        }
        let words = ["--log_output_level=default:info".to_owned()];
        assert_eq!(
            flag(&words, "log_output_level"),
            Some("default:info"),
            "with ="
        );
    }
}
