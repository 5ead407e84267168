//! Call -> Decision on parsed configuration, without a socket: which listener, filter chain,
//! virtual host, route and cluster a call reaches, or why it reaches nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use crate::http::filters::{FilterContext, Flow};
use crate::http::request::{RequestHead, Scheme};
use crate::listener::chain_match;
use crate::parse::http_connection_manager::{HttpConnectionManager, RouteSource};
use crate::parse::listener::{FilterChain, Listener, ListenerFilterKind};
use crate::parse::network_filter::{NetworkFilter, Terminal};
use crate::parse::tls::CertificateSource;
use crate::route::{Action, RouteTable, Selection};
use crate::stream_info::{Connection, StreamInfo, TlsPeer};

/// The configuration that a proxy would have.
#[derive(Debug, Default, Clone)]
pub struct Configuration {
    pub listeners: Vec<Arc<Listener>>,
    /// By RDS name.
    pub routes: BTreeMap<String, Arc<RouteTable>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// To the workload, through the listener `virtualInbound`.
    Inbound,
    /// From the workload, or to a gateway.
    Outbound,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
    Tcp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    Plaintext,
    Tls,
    Mutual,
}

/// What is sent where.
#[derive(Debug, Clone)]
pub struct Call {
    pub destination: SocketAddr,
    pub source: SocketAddr,
    pub mode: Mode,
    pub protocol: Protocol,
    pub tls: Tls,
    /// The host, where it is empty and the call uses TLS.
    pub server_name: String,
    /// `None`: what Istio's clients offer for the protocol.
    pub application_protocols: Option<Vec<Vec<u8>>>,
    /// The client certificate's URI names (mutual TLS).
    pub identity: Vec<String>,
    pub request: RequestHead,
    /// Name of the secret that marks a chain as the mesh's own mTLS.
    pub mesh_secret: String,
    pub random: u64,
}

impl Call {
    pub fn http(destination: SocketAddr, host: &str, path: &str) -> Call {
        Call {
            destination,
            source: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)), 40_000),
            mode: Mode::Outbound,
            protocol: Protocol::Http1,
            tls: Tls::Plaintext,
            server_name: String::new(),
            application_protocols: None,
            identity: Vec::new(),
            request: RequestHead::new("GET", host, path),
            mesh_secret: "default".to_owned(),
            random: 0,
        }
    }

    fn server_name(&self) -> String {
        if !self.server_name.is_empty() || self.tls == Tls::Plaintext {
            return self.server_name.clone();
        }
        String::from_utf8_lossy(&self.request.authority).into_owned()
    }

    /// ALPN as offered, or what the HTTP inspector would find.
    fn protocols(&self, tls_seen: bool, http_seen: bool) -> Vec<Vec<u8>> {
        let list = |names: &[&str]| names.iter().map(|name| name.as_bytes().to_vec()).collect();
        match (self.tls, self.protocol) {
            (Tls::Plaintext, Protocol::Http1) if http_seen => list(&["http/1.1"]),
            (Tls::Plaintext, Protocol::Http2) if http_seen => list(&["h2c"]),
            (Tls::Plaintext, _) => Vec::new(),
            _ if !tls_seen => Vec::new(),
            (Tls::Mutual, protocol) => self.application_protocols.clone().unwrap_or_else(|| {
                list(match protocol {
                    Protocol::Http1 => &["istio-http/1.1"],
                    Protocol::Http2 => &["istio-h2"],
                    Protocol::Tcp => &["istio"],
                })
            }),
            (Tls::Tls, protocol) => self.application_protocols.clone().unwrap_or_else(|| {
                list(match protocol {
                    Protocol::Http1 => &["http/1.1"],
                    Protocol::Http2 => &["h2"],
                    Protocol::Tcp => &[],
                })
            }),
        }
    }
}

/// How far a call got, and what became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    pub listener: Option<String>,
    pub filter_chain: Option<String>,
    /// RDS name; `None` for inline routes.
    pub route_configuration: Option<String>,
    pub virtual_host: Option<String>,
    pub route: Option<String>,
    pub cluster: Option<String>,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Outcome {
    #[default]
    Forwarded,
    NoListener,
    NoFilterChain,
    /// The chain wants TLS and the call is plain text.
    InvalidTls,
    /// One of chain and call uses the mesh's mTLS.
    InvalidMutualTls,
    /// The chain speaks HTTP and the call does not, or in TLS that nobody terminates.
    ProtocolError,
    NoRouteConfiguration,
    NoVirtualHost,
    TlsRequired,
    NoRoute,
    Redirected {
        location: String,
    },
    Answered {
        status: u16,
    },
    /// A filter or the network RBAC refused.
    Denied {
        details: String,
    },
    Closed,
}

impl Configuration {
    pub fn decide(&self, call: &Call) -> Decision {
        let mut decision = Decision::default();
        decision.outcome = match self.walk(call, &mut decision) {
            Ok(()) => Outcome::Forwarded,
            Err(outcome) => outcome,
        };
        decision
    }

    fn walk(&self, call: &Call, decision: &mut Decision) -> Result<(), Outcome> {
        let listener = self.listener(call).ok_or(Outcome::NoListener)?;
        decision.listener = Some(listener.name.to_string());
        let connection = connection(listener, call);
        let chain = chain(listener, &connection).ok_or(Outcome::NoFilterChain)?;
        decision.filter_chain = Some(chain.name.to_string());
        check_tls(chain, call)?;
        let mut stream = StreamInfo::new(Rc::new(connection), None);
        for filter in &chain.filters {
            if let NetworkFilter::Rbac(rbac) = filter {
                let verdict = rbac.check(&mut stream);
                if !verdict.allowed {
                    return Err(Outcome::Denied {
                        details: verdict.details(),
                    });
                }
            }
        }
        match &chain.terminal {
            Terminal::Tcp(tcp) => {
                decision.cluster = Some(tcp.clusters.pick(call.random).to_string());
                Ok(())
            }
            Terminal::Http(http) => self.http(call, (http, chain), &mut stream, decision),
            Terminal::DirectResponse(_) | Terminal::Close => Err(Outcome::Closed),
        }
    }

    /// Exactly this address, else the wildcard with this port, else the virtual listener.
    fn listener(&self, call: &Call) -> Option<&Arc<Listener>> {
        let named = |name: &str| self.listeners.iter().find(|one| &*one.name == name);
        if call.mode == Mode::Inbound {
            return named("virtualInbound");
        }
        let bound = |address: SocketAddr| {
            self.listeners.iter().find(|one| {
                one.addresses
                    .iter()
                    .any(|bound| bound.socket() == Some(address))
            })
        };
        let port = call.destination.port();
        let wildcards = [
            SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port),
            SocketAddr::new(IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), port),
        ];
        bound(call.destination)
            .or_else(|| wildcards.into_iter().find_map(bound))
            .or_else(|| named("virtualOutbound"))
    }

    fn http(
        &self,
        call: &Call,
        (http, chain): (&Arc<HttpConnectionManager>, &FilterChain),
        stream: &mut StreamInfo,
        decision: &mut Decision,
    ) -> Result<(), Outcome> {
        let terminated = call.tls == Tls::Plaintext || chain.tls.is_some();
        if call.protocol == Protocol::Tcp || !terminated {
            return Err(Outcome::ProtocolError);
        }
        let table = match &http.routes {
            RouteSource::Inline(table) => table,
            RouteSource::Rds { name, .. } => {
                decision.route_configuration = Some(name.to_string());
                self.routes
                    .get(&**name)
                    .ok_or(Outcome::NoRouteConfiguration)?
            }
        };
        let mut head = call.request.clone();
        if call.tls != Tls::Plaintext {
            head.scheme = Scheme::Https;
        }
        let selected = match table.select(&head, stream, call.random) {
            Selection::NoVirtualHost => return Err(Outcome::NoVirtualHost),
            Selection::NoRoute(host) => {
                decision.virtual_host = Some(host.name.to_string());
                return Err(Outcome::NoRoute);
            }
            Selection::TlsRequired { .. } => {
                decision.virtual_host = table.virtual_host(&head).map(|host| host.name.to_string());
                return Err(Outcome::TlsRequired);
            }
            Selection::Route(selected) => selected,
        };
        decision.virtual_host = Some(selected.virtual_host.name.to_string());
        decision.route = Some(selected.route.name.to_string());
        decision.cluster = selected.cluster.as_ref().map(ToString::to_string);
        let direction = crate::parse::listener::Direction::Unspecified;
        let mut context = FilterContext::new(call.random, direction);
        context.route = Some(&selected);
        let mut stack = http.filters.start(Some(&selected));
        if let Flow::Reply(reply) = stack.on_request_headers(&mut head, stream, &mut context) {
            return Err(if reply.status == 403 {
                Outcome::Denied {
                    details: reply.details.into_owned(),
                }
            } else {
                Outcome::Answered {
                    status: reply.status,
                }
            });
        }
        match &selected.route.action {
            Action::Forward(_) => Ok(()),
            Action::Redirect(redirect) => {
                let location = redirect.location(&head, &selected.route.criteria);
                let location = String::from_utf8_lossy(&location).into_owned();
                Err(Outcome::Redirected { location })
            }
            Action::Direct(direct) => Err(Outcome::Answered {
                status: direct.status,
            }),
            Action::None => Err(Outcome::NoRoute),
        }
    }
}

/// The connection as the listener filters would describe it.
fn connection(listener: &Listener, call: &Call) -> Connection {
    let runs = |wanted: fn(&ListenerFilterKind) -> bool| {
        listener.filters.iter().any(|filter| {
            let disabled = filter
                .disabled
                .as_ref()
                .is_some_and(|when| when.holds(call.destination.port()));
            wanted(&filter.kind) && !disabled
        })
    };
    let tls_seen = runs(|kind| matches!(kind, ListenerFilterKind::TlsInspector { .. }));
    let http_seen = runs(|kind| matches!(kind, ListenerFilterKind::HttpInspector));
    let mut connection = Connection::plain(0, call.destination, call.source);
    connection.application_protocols = call.protocols(tls_seen, http_seen);
    if call.tls != Tls::Plaintext && tls_seen {
        connection.transport_protocol = "tls";
        connection.requested_server_name = Some(call.server_name().into());
    }
    if call.tls == Tls::Mutual {
        connection.tls = Some(Arc::new(TlsPeer {
            verified: true,
            uri_sans: call.identity.clone(),
            ..TlsPeer::default()
        }));
    }
    connection
}

fn chain<'a>(listener: &'a Listener, connection: &Connection) -> Option<&'a Arc<FilterChain>> {
    let criteria = listener.filter_chains.iter().map(|chain| &chain.criteria);
    match chain_match::find(criteria, &chain_match::Facts::of(connection)) {
        Some(at) => listener.filter_chains.get(at),
        None => listener.default_filter_chain.as_ref(),
    }
}

fn check_tls(chain: &FilterChain, call: &Call) -> Result<(), Outcome> {
    let Some(tls) = &chain.tls else {
        // Nobody terminates: what is in the TLS is none of our business.
        return Ok(());
    };
    if call.tls == Tls::Plaintext {
        return Err(Outcome::InvalidTls);
    }
    let of_mesh = tls.context.certificates.iter().any(|one| match one {
        CertificateSource::Sds(sds) => *sds.name == *call.mesh_secret,
        CertificateSource::Inline(_) => false,
    });
    let mutual = tls.require_client_certificate && of_mesh;
    if mutual != (call.tls == Tls::Mutual) {
        return Err(Outcome::InvalidMutualTls);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::Environment;

    fn any(message: &str) -> String {
        format!("type.googleapis.com/envoy.extensions.{message}")
    }

    fn configuration() -> Configuration {
        let http = |routes: serde_json::Value| {
            serde_json::json!({
                "name": "http",
                "typedConfig": {
                    "@type": any(
                        "filters.network.http_connection_manager.v3.HttpConnectionManager"),
                    "statPrefix": "a",
                    "routeConfig": {"name": "inline", "virtualHosts": [routes]},
                    "httpFilters": [{"name": "envoy.filters.http.router", "typedConfig": {
                        "@type": any("filters.http.router.v3.Router")}}]
                }
            })
        };
        let listener = serde_json::json!({
            "name": "0.0.0.0_80",
            "address": {"socketAddress": {"address": "0.0.0.0", "portValue": 80}},
            "listenerFilters": [
                {"name": "tls", "typedConfig": {
                    "@type": any("filters.listener.tls_inspector.v3.TlsInspector")}},
                {"name": "http", "typedConfig": {
                    "@type": any("filters.listener.http_inspector.v3.HttpInspector")}}
            ],
            "filterChains": [{
                "name": "http",
                "filterChainMatch": {"transportProtocol": "raw_buffer",
                    "applicationProtocols": ["http/1.1", "h2c"]},
                "filters": [http(serde_json::json!({
                    "name": "reviews", "domains": ["reviews", "reviews.default"], "routes": [
                        {"name": "v2", "match": {"prefix": "/", "headers": [
                            {"name": "end-user", "stringMatch": {"exact": "jason"}}]},
                         "route": {"cluster": "v2"}},
                        {"name": "old", "match": {"path": "/old"},
                         "redirect": {"pathRedirect": "/new"}},
                        {"name": "v1", "match": {"prefix": "/api"}, "route": {"cluster": "v1"}},
                    ]
                }))]
            }],
            "defaultFilterChain": {"name": "passthrough", "filters": [{
                "name": "tcp", "typedConfig": {
                    "@type": any("filters.network.tcp_proxy.v3.TcpProxy"),
                    "statPrefix": "p", "cluster": "PassthroughCluster"}}]}
        });
        let message = envoy_api::json::from_json(listener).expect("a listener");
        let parsed = crate::parse::listener::listener(&message, &Environment::default());
        Configuration {
            listeners: vec![Arc::new(parsed.expect("parses"))],
            routes: BTreeMap::new(),
        }
    }

    #[test]
    fn decides() {
        let configuration = configuration();
        let to = |port| SocketAddr::from(([10, 1, 2, 3], port));
        let jason = |call: &mut Call| call.request.headers.append("end-user", b"jason");
        let tls = |call: &mut Call| call.tls = Tls::Tls;
        let tcp = |call: &mut Call| call.protocol = Protocol::Tcp;
        let plain = |_: &mut Call| {};
        type Change<'a> = &'a dyn Fn(&mut Call);
        type Case<'a> = (u16, &'a str, &'a str, Change<'a>, Option<&'a str>, Outcome);
        let cases: [Case; 8] = [
            (
                80,
                "reviews",
                "/api/x",
                &plain,
                Some("v1"),
                Outcome::Forwarded,
            ),
            (
                80,
                "reviews.default",
                "/",
                &jason,
                Some("v2"),
                Outcome::Forwarded,
            ),
            (80, "reviews", "/", &plain, None, Outcome::NoRoute),
            (80, "ratings", "/", &plain, None, Outcome::NoVirtualHost),
            (
                80,
                "reviews",
                "/old?a",
                &plain,
                None,
                Outcome::Redirected {
                    location: "http://reviews/new?a".into(),
                },
            ),
            (
                80,
                "reviews",
                "/",
                &tls,
                Some("PassthroughCluster"),
                Outcome::Forwarded,
            ),
            (
                80,
                "reviews",
                "/",
                &tcp,
                Some("PassthroughCluster"),
                Outcome::Forwarded,
            ),
            (81, "reviews", "/", &plain, None, Outcome::NoListener),
        ];
        for (port, host, path, change, cluster, outcome) in cases {
            let mut call = Call::http(to(port), host, path);
            change(&mut call);
            let decision = configuration.decide(&call);
            assert_eq!(
                decision.cluster.as_deref(),
                cluster,
                "{host}{path}: {decision:?}"
            );
            assert_eq!(decision.outcome, outcome, "{host}{path}");
        }
    }
}
