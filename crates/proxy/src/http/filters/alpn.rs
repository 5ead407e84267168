//! `istio.alpn`: which protocols are offered to an upstream with mTLS.

use std::sync::Arc;

use envoy_api::istio::alpn as wire;
use prost_types::Any;

use super::{Flow, Hooks, RequestCall};
use crate::http::request::Protocol;
use crate::parse::Context;
use crate::parse::cluster::{Cluster, UpstreamProtocol};
use crate::parse::compat::Message as _;
use crate::parse::metadata;
use crate::parse::network_filter::open_either;

type Offer = Arc<[Vec<u8>]>;

#[derive(Debug, Default)]
pub struct Config {
    http10: Option<Offer>,
    http11: Option<Offer>,
    http2: Option<Offer>,
}

fields! {
    wire::FilterConfig { read: alpn_override; }
    wire::filter_config::AlpnOverride { read: upstream_protocol, alpn_override; }
}

impl Config {
    pub fn parse(context: &mut Context, any: &Any) -> Option<Config> {
        use wire::filter_config::Protocol as Wire;
        let message = open_either::<wire::FilterConfig>(context, any)?;
        message.check(context);
        let mut config = Config::default();
        context.each("alpn_override", &message.alpn_override, |context, one| {
            one.check(context);
            let names = one
                .alpn_override
                .iter()
                .map(|name| name.clone().into_bytes());
            let offer: Offer = names.collect::<Vec<_>>().into();
            match context.enumeration("upstream_protocol", one.upstream_protocol)? {
                Wire::Http10 => config.http10 = Some(offer),
                Wire::Http11 => config.http11 = Some(offer),
                Wire::Http2 => config.http2 = Some(offer),
            }
            Some(())
        });
        Some(config)
    }

    fn offer(&self, protocol: Protocol) -> Option<&Offer> {
        match protocol {
            Protocol::Http10 => self.http10.as_ref(),
            Protocol::Http11 => self.http11.as_ref(),
            Protocol::Http2 => self.http2.as_ref(),
        }
    }
}

#[derive(Debug)]
pub struct Filter {
    config: Arc<Config>,
}

impl Filter {
    pub fn new(config: &Arc<Config>) -> Filter {
        Filter {
            config: config.clone(),
        }
    }
}

/// The protocol that the cluster will speak for this request.
fn upstream_protocol(cluster: &Cluster, downstream: Protocol) -> Protocol {
    match &cluster.protocol {
        UpstreamProtocol::Http1(_) => Protocol::Http11,
        UpstreamProtocol::Http2(_) => Protocol::Http2,
        UpstreamProtocol::Downstream { .. } => downstream,
        UpstreamProtocol::Auto { .. } => Protocol::Http11,
    }
}

impl Hooks for Filter {
    fn request_headers(&mut self, _name: &str, call: &mut RequestCall<'_, '_>) -> Flow {
        let Some(cluster) = call.context.cluster else {
            return Flow::Continue;
        };
        let setting = metadata::find(&cluster.metadata, "istio", &["alpn_override"]);
        if setting.and_then(metadata::as_str) == Some("false") {
            return Flow::Continue;
        }
        let protocol = upstream_protocol(cluster, call.head.protocol);
        if let Some(offer) = self.config.offer(protocol) {
            call.stream.upstream_alpn = Some(offer.clone());
        }
        Flow::Continue
    }
}
