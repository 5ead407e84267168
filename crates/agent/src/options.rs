//! What an agent is told: pilot-agent's environment and flags, with Istio's defaults.

mod pod_files;
mod proxy_config;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use pki::{SpiffeId, TrustDomain};
pub use proxy_config::ProxyConfig;
use serde_json::Value;

use crate::AgentError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Sidecar,
    /// A gateway.
    Router,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Our proxy, in this process.
    Stolos,
    /// A real Envoy as a child.
    Envoy { path: PathBuf },
}

#[derive(Clone, Debug)]
pub struct Options {
    pub role: Role,
    pub engine: Engine,
    pub pod: Pod,
    pub id: SpiffeId,
    pub dns_domain: String,
    pub proxy_config: ProxyConfig,
    pub discovery: Server,
    pub authority: Server,
    pub certificate_ttl: Duration,
    pub paths: Paths,
    pub ports: Ports,
    pub dns: Dns,
    /// Original probes of the application by path (ISTIO_KUBE_APP_PROBERS).
    pub app_probers: BTreeMap<String, Value>,
    /// prometheus.io annotations of the application (ISTIO_PROMETHEUS_ANNOTATIONS).
    pub prometheus_annotations: BTreeMap<String, String>,
    /// Node metadata from ISTIO_META_* and ISTIO_METAJSON_*.
    pub metadata: BTreeMap<String, Value>,
    pub log_level: String,
    pub component_log_level: String,
    /// SO_MARK of the proxy's own connections, where capture exempts by mark. Only Envoy's are
    /// marked so far, not the agent's own: no setting gives this yet.
    pub socket_mark: Option<u32>,
    pub exit_on_zero_active_connections: bool,
    pub minimum_drain_duration: Duration,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    pub name: String,
    pub namespace: String,
    pub service_account: String,
    pub ips: Vec<IpAddr>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

/// A server of the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// `HOST:PORT`, resolved at each connection.
    pub address: String,
    /// The DNS name that its certificate must have.
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Folder of the bootstrap file and of the XDS socket.
    pub config: PathBuf,
    pub token: PathBuf,
    /// Roots that the control plane's certificate must chain to.
    pub root_certificate: PathBuf,
    pub sds_socket: PathBuf,
    pub resolv_conf: PathBuf,
}

impl Paths {
    pub fn xds_socket(&self) -> PathBuf {
        self.config.join("XDS")
    }
}

/// Fixed in a pod; tests in one process choose others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    pub admin: u16,
    pub status: u16,
    pub readiness: u16,
    pub prometheus: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    pub is_on: bool,
    pub address: String,
    pub forward_timeout: Duration,
    pub forward_to_all: bool,
}

const FLAGS: [(&str, &str); 19] = [
    ("domain", ""),
    ("serviceCluster", ""),
    ("proxyLogLevel", "warning"),
    ("proxyComponentLogLevel", "misc:error"),
    ("log_output_level", "default:info"),
    ("log_as_json", "false"),
    ("concurrency", ""),
    ("meshConfig", ""),
    ("outlierLogPath", ""),
    ("stsPort", "0"),
    ("tokenManagerPlugin", ""),
    ("templateFile", ""),
    ("configPath", ""),
    ("token", "./var/run/secrets/tokens/istio-token"),
    ("rootCert", "./var/run/secrets/istio/root-cert.pem"),
    ("sdsSocket", "./var/run/secrets/workload-spiffe-uds/socket"),
    ("podInfo", "./etc/istio/pod"),
    ("resolvConf", "/etc/resolv.conf"),
    ("discoverySan", ""),
];

/// Flags of pilot-agent that must not be given a value other than none.
const REFUSED: [&str; 5] = [
    "meshConfig",
    "outlierLogPath",
    "stsPort",
    "tokenManagerPlugin",
    "templateFile",
];

impl Options {
    /// From `stolos proxy ROLE FLAG…` and the environment.
    pub fn parse(
        role: Role,
        arguments: &[String],
        environment: &BTreeMap<String, String>,
    ) -> Result<Options, AgentError> {
        let flags = flags(arguments)?;
        let env = Environment(environment);
        let mut proxy_config = ProxyConfig::parse(env.or("PROXY_CONFIG", "{}"))?;
        if let Some(count) = flags["concurrency"].parse().ok().filter(|count| *count > 0) {
            proxy_config.concurrency = Some(count);
        }
        for (name, value) in proxy_config.metadata_environment() {
            tracing::debug!(name, value, "from proxyMetadata");
        }
        let env = env.with(&proxy_config.proxy_metadata);
        let env = Environment(&env);
        let pod = pod(&env, &flags)?;
        let trust_domain = TrustDomain::sanitized(env.or("TRUST_DOMAIN", "cluster.local"))?;
        let discovery = env
            .or("DISCOVERY_ADDRESS", &proxy_config.discovery_address)
            .to_string();
        let san = &flags["discoverySan"];
        let authority = env.or("CA_ADDR", &discovery).to_string();
        let dns_domain = match flags["domain"].as_str() {
            "" => format!("{}.svc.cluster.local", pod.namespace),
            domain => domain.to_string(),
        };
        if !flags["serviceCluster"].is_empty() {
            proxy_config.service_cluster = flags["serviceCluster"].clone();
        }
        let config_path = match flags["configPath"].as_str() {
            "" => proxy_config.config_path.clone(),
            path => path.to_string(),
        };
        Ok(Options {
            role,
            engine: engine(&env, &proxy_config)?,
            id: SpiffeId::new(trust_domain, &pod.namespace, &pod.service_account)?,
            pod,
            dns_domain,
            discovery: Server::new("discovery address", discovery, san)?,
            authority: Server::new("CA_ADDR", authority, env.or("CA_SNI", san))?,
            certificate_ttl: env.duration("SECRET_TTL", Duration::from_secs(24 * 3600))?,
            paths: Paths {
                config: config_path.into(),
                token: flags["token"].as_str().into(),
                root_certificate: env.or("XDS_ROOT_CA", &flags["rootCert"]).into(),
                sds_socket: env
                    .or("WORKLOAD_IDENTITY_SOCKET", &flags["sdsSocket"])
                    .into(),
                resolv_conf: flags["resolvConf"].as_str().into(),
            },
            ports: ports(&env, &proxy_config)?,
            dns: dns(&env)?,
            app_probers: env.json("ISTIO_KUBE_APP_PROBERS")?,
            prometheus_annotations: env.json("ISTIO_PROMETHEUS_ANNOTATIONS")?,
            metadata: env.metadata()?,
            log_level: flags["proxyLogLevel"].clone(),
            component_log_level: flags["proxyComponentLogLevel"].clone(),
            socket_mark: None,
            exit_on_zero_active_connections: env.is_on("EXIT_ON_ZERO_ACTIVE_CONNECTIONS")?,
            minimum_drain_duration: env
                .duration("MINIMUM_DRAIN_DURATION", Duration::from_secs(5))?,
            proxy_config,
        })
    }

    /// `TYPE~IP~POD.NAMESPACE~DOMAIN`.
    pub fn node_id(&self) -> String {
        let role = match self.role {
            Role::Sidecar => "sidecar",
            Role::Router => "router",
        };
        let ip = self
            .pod
            .ips
            .first()
            .map(IpAddr::to_string)
            .unwrap_or_default();
        let Pod {
            name, namespace, ..
        } = &self.pod;
        format!("{role}~{ip}~{name}.{namespace}~{}", self.dns_domain)
    }
}

impl Server {
    /// Where the address is an IP and no name is given, the control plane's usual name is expected.
    fn new(setting: &str, address: String, name: &str) -> Result<Server, AgentError> {
        let Some((host, port)) = address.rsplit_once(':') else {
            return Err(AgentError::setting(
                setting,
                format!("{address:?} has no port"),
            ));
        };
        if port.parse::<u16>().is_err() {
            return Err(AgentError::setting(
                setting,
                format!("{address:?} has no port number"),
            ));
        }
        let is_ip = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        let name = match name {
            "" if is_ip => "istiod.istio-system.svc",
            "" => host,
            name => name,
        };
        Ok(Server {
            name: name.to_string(),
            address,
        })
    }
}

fn flags(arguments: &[String]) -> Result<BTreeMap<&'static str, String>, AgentError> {
    let mut flags: BTreeMap<_, _> = FLAGS
        .iter()
        .map(|(name, default)| (*name, default.to_string()))
        .collect();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let error = |reason: &str| AgentError::setting(argument, reason);
        let text = argument
            .strip_prefix("--")
            .ok_or_else(|| error("is no flag"))?;
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_string())),
            None => (text, None),
        };
        let (known, default) = FLAGS
            .iter()
            .find(|(known, _)| *known == name)
            .ok_or_else(|| error("no such flag"))?;
        let value = match value {
            Some(value) => value,
            None if *default == "false" => "true".to_string(),
            None => rest.next().ok_or_else(|| error("needs a value"))?.clone(),
        };
        if REFUSED.contains(&name) && !value.is_empty() && value != *default {
            return Err(AgentError::NotSupported(format!("--{name}")));
        }
        flags.insert(known, value);
    }
    Ok(flags)
}

fn ports(env: &Environment<'_>, config: &ProxyConfig) -> Result<Ports, AgentError> {
    Ok(Ports {
        admin: config.proxy_admin_port,
        status: config.status_port,
        readiness: env.number("ENVOY_STATUS_PORT", 15021)?,
        prometheus: env.number("ENVOY_PROMETHEUS_PORT", 15090)?,
    })
}

fn dns(env: &Environment<'_>) -> Result<Dns, AgentError> {
    Ok(Dns {
        is_on: env.is_on("ISTIO_META_DNS_CAPTURE")? || env.is_on("ISTIO_META_ENABLE_DNS_SERVER")?,
        address: env.or("DNS_PROXY_ADDR", "localhost:15053").to_string(),
        forward_timeout: env.duration("DNS_FORWARD_TIMEOUT", Duration::from_secs(5))?,
        forward_to_all: env.is_on("DNS_FORWARD_PARALLEL")?,
    })
}

fn engine(env: &Environment<'_>, config: &ProxyConfig) -> Result<Engine, AgentError> {
    match env.or("STOLOS_PROXY", "stolos") {
        "stolos" => Ok(Engine::Stolos),
        "envoy" => Ok(Engine::Envoy {
            path: env.or("STOLOS_ENVOY_PATH", &config.binary_path).into(),
        }),
        other => {
            let reason = format!("{other:?} is neither \"stolos\" nor \"envoy\"");
            Err(AgentError::setting("STOLOS_PROXY", reason))
        }
    }
}

fn pod(env: &Environment<'_>, flags: &BTreeMap<&'static str, String>) -> Result<Pod, AgentError> {
    let mut ips = Vec::new();
    for text in [env.or("INSTANCE_IP", ""), env.or("INSTANCE_IPS", "")]
        .join(",")
        .split(',')
    {
        let text = text.trim();
        if text.is_empty() {
            continue;
        }
        let reason = || AgentError::setting("INSTANCE_IP", format!("{text:?} is no IP address"));
        let ip = text.parse().map_err(|_| reason())?;
        if !ips.contains(&ip) {
            ips.push(ip);
        }
    }
    if ips.is_empty() {
        return Err(AgentError::setting("INSTANCE_IP", "is not set"));
    }
    let folder = PathBuf::from(&flags["podInfo"]);
    let mut labels = pod_files::read(&folder.join("labels"))?;
    if let Some(Value::Object(more)) = env.metadata()?.get("LABELS") {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        labels.extend(more.iter().map(|(name, value)| (name.clone(), text(value))));
    }
    Ok(Pod {
        name: env.required("POD_NAME")?.to_string(),
        namespace: env.required("POD_NAMESPACE")?.to_string(),
        service_account: env.or("SERVICE_ACCOUNT", "default").to_string(),
        ips,
        labels,
        annotations: pod_files::read(&folder.join("annotations"))?,
    })
}

struct Environment<'a>(&'a BTreeMap<String, String>);

impl Environment<'_> {
    fn or<'b>(&'b self, name: &str, default: &'b str) -> &'b str {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|text| !text.is_empty())
            .unwrap_or(default)
    }

    fn required(&self, name: &str) -> Result<&str, AgentError> {
        match self.or(name, "") {
            "" => Err(AgentError::setting(name, "is not set")),
            text => Ok(text),
        }
    }

    fn is_on(&self, name: &str) -> Result<bool, AgentError> {
        match self.or(name, "false") {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            text => Err(AgentError::setting(
                name,
                format!("{text:?} is neither true nor false"),
            )),
        }
    }

    fn optional_number<N: std::str::FromStr>(&self, name: &str) -> Result<Option<N>, AgentError> {
        let text = self.or(name, "");
        if text.is_empty() {
            return Ok(None);
        }
        let error = |_| AgentError::setting(name, format!("{text:?} is not a number in range"));
        text.parse().map(Some).map_err(error)
    }

    fn number<N: std::str::FromStr>(&self, name: &str, default: N) -> Result<N, AgentError> {
        Ok(self.optional_number(name)?.unwrap_or(default))
    }

    fn duration(&self, name: &str, default: Duration) -> Result<Duration, AgentError> {
        match self.or(name, "") {
            "" => Ok(default),
            text => proxy_config::duration(text)
                .ok_or_else(|| AgentError::setting(name, format!("{text:?} is no duration"))),
        }
    }

    fn json<T: serde::de::DeserializeOwned + Default>(&self, name: &str) -> Result<T, AgentError> {
        match self.or(name, "") {
            "" => Ok(T::default()),
            text => serde_json::from_str(text)
                .map_err(|error| AgentError::setting(name, error.to_string())),
        }
    }

    /// proxyMetadata stands in the environment of the container too; here for a bare process.
    fn with(&self, more: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut all = more.clone();
        all.extend(self.0.clone());
        all
    }

    fn metadata(&self) -> Result<BTreeMap<String, Value>, AgentError> {
        let mut metadata = BTreeMap::new();
        for (name, text) in self.0 {
            if let Some(key) = name.strip_prefix("ISTIO_META_") {
                metadata.insert(key.to_string(), Value::String(text.clone()));
            } else if let Some(key) = name.strip_prefix("ISTIO_METAJSON_") {
                let value = serde_json::from_str(text)
                    .map_err(|error| AgentError::setting(name, error.to_string()))?;
                match (value, metadata.get_mut(key)) {
                    (Value::Object(more), Some(Value::Object(there))) => there.extend(more),
                    (value, _) => {
                        metadata.insert(key.to_string(), value);
                    }
                }
            }
        }
        Ok(metadata)
    }
}

#[cfg(test)]
mod tests;
