//! Logs to standard error, as text or JSON lines, with Istio's `scope:level` selection.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub json: bool,
    /// `LEVEL`, `default:LEVEL,SCOPE:LEVEL…` (Istio) or tracing's `target=level`.
    pub level: String,
}

#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    #[error("log level {text:?}: {reason}")]
    Level { text: String, reason: String },
    #[error("logging is already set up in this process")]
    AlreadySet,
}

/// Sets the process's subscriber. Only `main` calls this.
pub fn init(options: &Options) -> Result<(), LoggingError> {
    let filter = filter(&options.level)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_timer(MicrosecondTime);
    let done = if options.json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder
            .with_ansi(std::io::stderr().is_terminal())
            .try_init()
    };
    done.map_err(|_| LoggingError::AlreadySet)
}

fn filter(text: &str) -> Result<EnvFilter, LoggingError> {
    let error = |reason: String| LoggingError::Level {
        text: text.to_string(),
        reason,
    };
    let directives = directives(text).map_err(error)?;
    EnvFilter::try_new(directives).map_err(|reason| error(reason.to_string()))
}

fn directives(text: &str) -> Result<String, String> {
    let mut directives = Vec::new();
    for part in text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (scope, name) = match part.split_once(['=', ':']) {
            // `a::b=debug` is tracing's own form: let it through.
            Some((_, rest)) if rest.starts_with(':') => {
                directives.push(part.to_string());
                continue;
            }
            Some((scope, name)) => (scope, name),
            None => ("default", part),
        };
        let level = level(name).ok_or_else(|| {
            format!("{name:?} is no level (none, fatal, error, warn, info, debug, trace)")
        })?;
        match scope {
            "default" | "all" => directives.push(level.to_string()),
            scope => directives.push(format!("{scope}={level}")),
        }
    }
    Ok(if directives.is_empty() {
        "info".to_string()
    } else {
        directives.join(",")
    })
}

fn level(name: &str) -> Option<&'static str> {
    Some(match name {
        "none" | "off" => "off",
        "fatal" | "critical" | "error" => "error",
        "warn" | "warning" => "warn",
        "info" => "info",
        "debug" => "debug",
        "trace" => "trace",
        _ => return None,
    })
}

struct MicrosecondTime;

impl tracing_subscriber::fmt::time::FormatTime for MicrosecondTime {
    fn format_time(
        &self,
        writer: &mut tracing_subscriber::fmt::format::Writer<'_>,
    ) -> std::fmt::Result {
        write!(writer, "{:.6}", jiff::Timestamp::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        for (input, want, why) in [
            ("", Ok("info"), "the default"),
            ("debug", Ok("debug"), "a bare level"),
            ("default:info", Ok("info"), "Istio's default scope"),
            (
                "default:warn,dns:debug",
                Ok("warn,dns=debug"),
                "Istio's scopes",
            ),
            ("h2=off,info", Ok("h2=off,info"), "tracing's form"),
            (
                "proxy::http=trace",
                Ok("proxy::http=trace"),
                "a module path",
            ),
            ("loud", Err(()), "no such level"),
        ] {
            let got = directives(input);
            assert_eq!(got.as_deref().map_err(|_| ()), want, "{why}");
            if got.is_ok() {
                assert!(filter(input).is_ok(), "{why}");
            }
        }
    }
}
