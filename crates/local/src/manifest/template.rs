//! What a pod is to run, before it has a name and an address, and how it becomes a process's
//! command and environment then (Kubernetes' rules for `$(VAR)`, `valueFrom` and `args`).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::init::protocol::{Container, Mount, Privilege, Volume};
use crate::manifest::local_mesh::ProxyChoice;

/// A pod template whose references are resolved.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PodTemplate {
    pub namespace: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub service_account: String,
    pub hostname: String,
    pub subdomain: String,
    pub containers: Vec<ContainerTemplate>,
    #[serde(serialize_with = "volumes_as_json")]
    pub volumes: Vec<Volume>,
    pub grace: Duration,
    pub restart: RestartPolicy,
    pub proxy: ProxyRole,
}

fn volumes_as_json<S: serde::Serializer>(
    list: &[Volume],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    list.serialize(serializer)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

/// What the mesh adds to a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyRole {
    None,
    Sidecar(ProxyChoice),
    Router(ProxyChoice),
}

impl ProxyRole {
    pub fn choice(self) -> Option<ProxyChoice> {
        match self {
            ProxyRole::None => None,
            ProxyRole::Sidecar(choice) | ProxyRole::Router(choice) => Some(choice),
        }
    }
}

impl Serialize for ProxyRole {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{self:?}"))
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ContainerTemplate {
    pub name: String,
    pub image: String,
    /// Program and arguments, `$(VAR)` not yet replaced.
    pub command: Vec<String>,
    pub env: Vec<(String, EnvValue)>,
    pub directory: Option<PathBuf>,
    pub user: Option<u32>,
    pub group: Option<u32>,
    pub mounts: Vec<Mount>,
    pub ports: Vec<PortTemplate>,
    pub readiness: Option<ProbeTemplate>,
    pub liveness: Option<ProbeTemplate>,
    pub startup: Option<ProbeTemplate>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum EnvValue {
    /// `$(VAR)` is replaced in it.
    Text(String),
    /// From a ConfigMap or Secret: taken as it is.
    Literal(String),
    Field(Field),
}

/// What `fieldRef` can ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Field {
    Name,
    Namespace,
    Uid,
    PodIp,
    HostIp,
    NodeName,
    ServiceAccount,
    Label(String),
    Annotation(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PortTemplate {
    pub name: String,
    pub port: u16,
    pub protocol: String,
}

/// A probe with its defaults filled in and its port resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProbeTemplate {
    pub action: ProbeAction,
    pub initial_delay: Duration,
    pub period: Duration,
    pub timeout: Duration,
    pub successes: u32,
    pub failures: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum ProbeAction {
    Http {
        port: u16,
        path: String,
        headers: Vec<(String, String)>,
    },
    Tcp {
        port: u16,
    },
    Grpc {
        port: u16,
        service: String,
    },
    Exec {
        command: Vec<String>,
    },
}

/// What distinguishes one pod from the others of its template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    pub uid: String,
    pub ip: Ipv4Addr,
}

/// The name under which the one node of a local mesh is known.
pub const NODE_NAME: &str = "local";
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl PodTemplate {
    /// The container's process in the pod `identity`.
    pub fn process(&self, container: &ContainerTemplate, identity: &Identity) -> Container {
        let env = self.environment(container, identity);
        let command = container
            .command
            .iter()
            .map(|word| expand(word, &env))
            .collect();
        Container {
            name: container.name.clone(),
            command,
            env,
            directory: container.directory.clone(),
            user: container.user,
            group: container.group,
            privilege: Privilege::Default,
            mounts: container.mounts.clone(),
            quiet: false,
        }
    }

    /// The pod's host name: its own name unless the template sets one.
    pub fn host_name(&self, identity: &Identity) -> String {
        if self.hostname.is_empty() {
            identity.name.clone()
        } else {
            self.hostname.clone()
        }
    }

    fn environment(
        &self,
        container: &ContainerTemplate,
        identity: &Identity,
    ) -> Vec<(String, String)> {
        let mut env = vec![
            ("PATH".to_owned(), SEARCH_PATH.to_owned()),
            ("HOME".to_owned(), "/root".to_owned()),
            ("HOSTNAME".to_owned(), self.host_name(identity)),
        ];
        for (name, value) in &container.env {
            let value = match value {
                EnvValue::Text(text) => expand(text, &env),
                EnvValue::Literal(text) => text.clone(),
                EnvValue::Field(field) => self.field(field, identity),
            };
            env.retain(|(known, _)| known != name);
            env.push((name.clone(), value));
        }
        env
    }

    fn field(&self, field: &Field, identity: &Identity) -> String {
        let of = |map: &BTreeMap<String, String>, key: &str| map.get(key).cloned();
        match field {
            Field::Name => identity.name.clone(),
            Field::Namespace => self.namespace.clone(),
            Field::Uid => identity.uid.clone(),
            Field::PodIp => identity.ip.to_string(),
            Field::HostIp => crate::network::NODE_ADDRESS.to_string(),
            Field::NodeName => NODE_NAME.to_owned(),
            Field::ServiceAccount => self.service_account.clone(),
            Field::Label(key) => of(&self.labels, key).unwrap_or_default(),
            Field::Annotation(key) => of(&self.annotations, key).unwrap_or_default(),
        }
    }
}

/// Replaces `$(NAME)` by what stands before it; `$$` is `$`, an unknown name stays as it is.
pub fn expand(text: &str, env: &[(String, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let name = after
            .strip_prefix('(')
            .and_then(|inner| inner.split_once(')'));
        match name {
            Some((name, tail)) => {
                match env.iter().rev().find(|(known, _)| known == name) {
                    Some((_, value)) => out.push_str(value),
                    None => {
                        out.push_str("$(");
                        out.push_str(name);
                        out.push(')');
                    }
                }
                rest = tail;
            }
            None => {
                out.push('$');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expands_as_kubernetes_does() {
        let env = [
            ("A".to_owned(), "1".to_owned()),
            ("B".to_owned(), "two".to_owned()),
        ];
        for (text, want, why) in [
            ("x$(A)y", "x1y", "a known name"),
            ("$(A)$(B)", "1two", "several"),
            ("$(C)", "$(C)", "an unknown name stays"),
            ("$$(A)", "$(A)", "an escaped dollar"),
            ("$A ${A}", "$A ${A}", "the shell's forms are not ours"),
            ("$(A", "$(A", "not closed"),
            ("100$", "100$", "at the end"),
        ] {
            assert_eq!(expand(text, &env), want, "{text}: {why}");
        }
    }
}
