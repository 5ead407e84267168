//! From Envoy's messages to our own validated configuration. Every message is destructured by
//! name; what is not performed is refused with its path, and both decisions feed `compat`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prost_types::Any;

#[macro_use]
pub mod compat;
pub mod address;
pub mod bootstrap;
pub mod cluster;
pub mod config_source;
pub mod endpoint;
pub mod http_connection_manager;
pub mod http_options;
pub mod listener;
pub mod metadata;
pub mod network_filter;
pub mod tcp_proxy;
pub mod tls;

/// One thing that is wrong with a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Field names from the resource down, as in the protobuf JSON but in snake case.
    pub path: String,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            return write!(out, "{}", self.message);
        }
        write!(out, "{}: {}", self.path, self.message)
    }
}

/// Why a resource was refused: all problems, not the first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// What it is and its name, for example `cluster 'outbound|80||a'`.
    pub resource: String,
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.resource)?;
        for (index, problem) in self.problems.iter().enumerate() {
            write!(out, "{} {problem}", if index == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}

/// Deeper nesting than this is refused instead of followed.
const MAX_DEPTH: usize = 64;
/// After this many problems the rest says nothing new.
const MAX_PROBLEMS: usize = 64;

/// What parsed configuration is connected to: where logs are written, where statistics are kept,
/// who this proxy is. The default serves tests and simulation: nothing is opened until used.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    pub sinks: Arc<crate::access_log::Sinks>,
    pub stats: Arc<crate::stats::Stats>,
    pub node: Arc<envoy_api::core::Node>,
}

impl Environment {
    /// The environment of a process with this bootstrap; statistics have a row for each core.
    pub fn new(bootstrap: &envoy_api::bootstrap::Bootstrap) -> Environment {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        Environment {
            sinks: Arc::default(),
            stats: Arc::new(crate::stats::Stats::new(workers)),
            node: Arc::new(bootstrap.node.clone().unwrap_or_default()),
        }
    }
}

/// The position inside the resource being parsed and what was found wrong so far.
#[derive(Debug, Default)]
pub struct Context {
    environment: Environment,
    path: String,
    depth: usize,
    problems: Vec<Problem>,
}

impl Context {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn within(environment: &Environment) -> Self {
        Self {
            environment: environment.clone(),
            ..Self::default()
        }
    }

    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Runs `parse` one field deeper.
    pub fn field<T>(&mut self, name: &str, parse: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        if length > 0 && !name.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(name.strip_prefix("r#").unwrap_or(name));
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        self.path.truncate(length);
        parsed
    }

    /// True (with a problem recorded) when the nesting is too deep to follow.
    pub fn too_deep(&mut self) -> bool {
        let deep = self.depth > MAX_DEPTH;
        if deep {
            self.error("nested too deep");
        }
        deep
    }

    /// Runs `parse` for each member of a repeated field; members that fail are left out.
    pub fn each<M, T>(
        &mut self,
        name: &str,
        members: &[M],
        mut parse: impl FnMut(&mut Self, &M) -> Option<T>,
    ) -> Vec<T> {
        let mut parsed = Vec::with_capacity(members.len());
        for (index, member) in members.iter().enumerate() {
            let place = format!("{name}[{index}]");
            if let Some(one) = self.field(&place, |context| parse(context, member)) {
                parsed.push(one);
            }
        }
        parsed
    }

    /// Runs `parse` on an optional message field.
    pub fn optional<M, T>(
        &mut self,
        name: &str,
        message: Option<&M>,
        parse: impl FnOnce(&mut Self, &M) -> Option<T>,
    ) -> Option<T> {
        message.and_then(|message| self.field(name, |context| parse(context, message)))
    }

    /// Runs `parse` on a message field that must be there.
    pub fn required<M, T>(
        &mut self,
        name: &str,
        message: Option<&M>,
        parse: impl FnOnce(&mut Self, &M) -> Option<T>,
    ) -> Option<T> {
        if message.is_none() {
            self.error_at(name, "is required");
        }
        self.optional(name, message, parse)
    }

    pub fn error(&mut self, message: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem {
                path: self.path.clone(),
                message: message.into(),
            });
        }
    }

    pub fn error_at(&mut self, name: &str, message: impl Into<String>) {
        self.field(name, |context| context.error(message));
    }

    /// Refuses a field that is set and that we do not perform.
    pub fn unsupported<T: Default + PartialEq>(&mut self, name: &str, value: &T) {
        if *value != T::default() {
            self.error_at(name, "is not supported");
        }
    }

    /// Unpacks an `Any` of exactly this message type.
    pub fn open<M: prost::Name + Default>(&mut self, any: &Any) -> Option<M> {
        match envoy_api::any::unpack::<M>(any) {
            Ok(message) => Some(message),
            Err(error) => {
                self.error(error.to_string());
                None
            }
        }
    }

    /// A duration; `None` when absent or wrong. Zero is kept.
    pub fn duration(
        &mut self,
        name: &str,
        value: Option<&prost_types::Duration>,
    ) -> Option<Duration> {
        let value = value?;
        if value.seconds < 0 || value.nanos < 0 || value.nanos > 999_999_999 {
            self.error_at(name, "must be a positive duration");
            return None;
        }
        Some(Duration::new(
            value.seconds.unsigned_abs(),
            value.nanos.unsigned_abs(),
        ))
    }

    /// A duration with a default where zero means "never".
    pub fn timeout(
        &mut self,
        name: &str,
        value: Option<&prost_types::Duration>,
        default: Option<Duration>,
    ) -> Option<Duration> {
        match self.duration(name, value) {
            None => default,
            Some(duration) => (!duration.is_zero()).then_some(duration),
        }
    }

    /// A protobuf enum's value by number.
    pub fn enumeration<E: TryFrom<i32>>(&mut self, name: &str, value: i32) -> Option<E> {
        let parsed = E::try_from(value).ok();
        if parsed.is_none() {
            self.error_at(name, format!("unknown enum value {value}"));
        }
        parsed
    }

    pub fn non_empty(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            self.error_at(name, "must not be empty");
        }
    }

    pub fn has_problems(&self) -> bool {
        !self.problems.is_empty()
    }

    /// The end of a resource: its value, or all that is wrong with it.
    pub fn finish<T>(self, resource: String, value: Option<T>) -> Result<T, ConfigError> {
        match value {
            Some(value) if self.problems.is_empty() => Ok(value),
            _ => {
                let mut problems = self.problems;
                if problems.is_empty() {
                    let message = "cannot be parsed".to_owned();
                    problems.push(Problem {
                        path: String::new(),
                        message,
                    });
                }
                Err(ConfigError { resource, problems })
            }
        }
    }
}
