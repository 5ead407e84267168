//! Network filters of a chain, by the type of their configuration; the last one is terminal.

use std::sync::Arc;

use bytes::Bytes;
use envoy_api::envoy::extensions::filters::network as filters;
use envoy_api::istio;
use envoy_api::listener::{self, filter::ConfigType};
use prost_types::Any;

use super::Context;
use super::compat::Message as _;
use super::http_connection_manager::HttpConnectionManager;
use super::tcp_proxy::TcpProxy;
use crate::network::rbac::NetworkRbac;
use crate::stats::istio::IstioStats;

pub const METADATA_EXCHANGE: &str = "envoy.tcp.metadataexchange.config.MetadataExchange";

#[derive(Debug, Clone)]
pub enum NetworkFilter {
    Rbac(Arc<NetworkRbac>),
    /// Istio's TCP metadata exchange (ALPN `istio-peer-exchange`), downstream side.
    MetadataExchange,
    IstioStats(Arc<IstioStats>),
    ConnectionLimit {
        stat_prefix: Arc<str>,
        max_connections: u64,
        delay: std::time::Duration,
    },
}

#[derive(Debug, Clone)]
pub enum Terminal {
    Http(Arc<HttpConnectionManager>),
    Tcp(Arc<TcpProxy>),
    /// Write these bytes and close.
    DirectResponse(Bytes),
    /// No filter at all: the connection is closed.
    Close,
}

fields! {
    filters::connection_limit::v3::ConnectionLimit {
        read: stat_prefix, max_connections, delay;
        reject: runtime_enabled;
    }
    filters::direct_response::v3::Config { read: response; }
    istio::MetadataExchange {
        read: protocol;
        ignore: enable_discovery = "peers are known from what they send";
    }
}

/// The configuration's message name, looking through a TypedStruct.
pub fn config_name(any: &Any) -> &str {
    envoy_api::any::message_name(&any.type_url)
}

/// A message that Istio sends either typed or as a TypedStruct.
pub fn open_either<M>(context: &mut Context, any: &Any) -> Option<M>
where
    M: prost::Message + prost::Name + Default,
{
    let Some((type_url, fields)) = typed_struct(context, any) else {
        return context.open::<M>(any);
    };
    if envoy_api::any::message_name(&type_url) != M::full_name() {
        context.error(format!("holds {type_url}, not {}", M::full_name()));
        return None;
    }
    let json = super::metadata::struct_to_json(&fields.unwrap_or_default());
    match envoy_api::json::from_json::<M>(json) {
        Ok(message) => Some(message),
        Err(error) => {
            context.error(error.to_string());
            None
        }
    }
}

/// The type that counts: the one inside a TypedStruct, else the Any's.
pub fn inner_type(context: &mut Context, any: &Any) -> String {
    match typed_struct(context, any) {
        Some((type_url, _)) => envoy_api::any::message_name(&type_url).to_owned(),
        None => config_name(any).to_owned(),
    }
}

fn typed_struct(context: &mut Context, any: &Any) -> Option<(String, Option<prost_types::Struct>)> {
    use envoy_api::typed_struct::{Udpa, Xds};
    match config_name(any) {
        "udpa.type.v1.TypedStruct" => {
            let Udpa { type_url, value } = context.open::<Udpa>(any)?;
            Some((type_url, value))
        }
        "xds.type.v3.TypedStruct" => {
            let Xds { type_url, value } = context.open::<Xds>(any)?;
            Some((type_url, value))
        }
        _ => None,
    }
}

enum Parsed {
    Filter(NetworkFilter),
    Terminal(Terminal),
}

/// The chain's filters and the one that ends it.
pub fn parse_chain(
    context: &mut Context,
    filters: &[listener::Filter],
) -> (Vec<NetworkFilter>, Option<Terminal>) {
    let mut list = Vec::new();
    let mut terminal = None;
    for (index, message) in filters.iter().enumerate() {
        let last = index + 1 == filters.len();
        context.field(&format!("filters[{index}]"), |context| {
            message.check(context);
            match filter(context, message) {
                Some(Parsed::Filter(one)) => {
                    if last {
                        context.error(format!(
                            "Error: non-terminal filter named {} of type {} is the last filter in \
                             a network filter chain.",
                            message.name, message.name
                        ));
                    }
                    list.push(one);
                }
                Some(Parsed::Terminal(one)) => {
                    if !last {
                        context.error(format!(
                            "Error: terminal filter named {} of type {} must be the last filter \
                             in a network filter chain.",
                            message.name, message.name
                        ));
                    }
                    terminal = Some(one);
                }
                None => {}
            }
        });
    }
    if filters.is_empty() {
        terminal = Some(Terminal::Close);
    }
    (list, terminal)
}

// tidy: long function: one arm for each kind of filter.
fn filter(context: &mut Context, message: &listener::Filter) -> Option<Parsed> {
    let any = match &message.config_type {
        Some(ConfigType::TypedConfig(any)) => any,
        Some(ConfigType::ConfigDiscovery(_)) => {
            context.error_at("config_discovery", "is not supported");
            return None;
        }
        None => {
            context.error_at("typed_config", "is required");
            return None;
        }
    };
    context.field("typed_config", |context| {
        let kind = inner_type(context, any);
        match kind.as_str() {
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager" => {
                let one = context.open(any)?;
                let parsed = super::http_connection_manager::parse(context, &one)?;
                Some(Parsed::Terminal(Terminal::Http(Arc::new(parsed))))
            }
            "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy" => {
                let one = context.open(any)?;
                let parsed = super::tcp_proxy::parse(context, &one)?;
                Some(Parsed::Terminal(Terminal::Tcp(Arc::new(parsed))))
            }
            "envoy.extensions.filters.network.rbac.v3.RBAC" => {
                let one = context.open(any)?;
                let parsed = NetworkRbac::parse(context, &one)?;
                Some(Parsed::Filter(NetworkFilter::Rbac(Arc::new(parsed))))
            }
            "envoy.extensions.filters.network.direct_response.v3.Config" => {
                let one = context.open::<filters::direct_response::v3::Config>(any)?;
                let source =
                    context.optional("response", one.response.as_ref(), super::tls::data_source);
                let bytes = source
                    .and_then(|source| source.read().ok())
                    .unwrap_or_default();
                Some(Parsed::Terminal(Terminal::DirectResponse(bytes)))
            }
            "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit" => {
                let one = context.open::<filters::connection_limit::v3::ConnectionLimit>(any)?;
                one.check(context);
                if one.max_connections.is_none_or(|most| most == 0) {
                    context.error_at("max_connections", "must be at least 1");
                }
                let delay = context
                    .duration("delay", one.delay.as_ref())
                    .unwrap_or_default();
                Some(Parsed::Filter(NetworkFilter::ConnectionLimit {
                    stat_prefix: one.stat_prefix.as_str().into(),
                    max_connections: one.max_connections.unwrap_or(u64::MAX),
                    delay,
                }))
            }
            METADATA_EXCHANGE => {
                let one = open_either::<istio::MetadataExchange>(context, any)?;
                one.check(context);
                if !matches!(one.protocol.as_str(), "istio-peer-exchange" | "mx-protocol") {
                    context.error_at("protocol", "must be istio-peer-exchange");
                }
                Some(Parsed::Filter(NetworkFilter::MetadataExchange))
            }
            "stats.PluginConfig" => {
                let one = open_either::<istio::stats::PluginConfig>(context, any)?;
                let parsed = IstioStats::parse(context, &one)?;
                Some(Parsed::Filter(NetworkFilter::IstioStats(parsed)))
            }
            other => {
                context.error(format!("network filter '{other}' is not supported"));
                None
            }
        }
    })
}
