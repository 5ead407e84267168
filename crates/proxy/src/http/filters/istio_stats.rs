//! `istio.stats` on HTTP: reports a stream when it has ended.

use std::sync::Arc;

use envoy_api::istio::stats as wire;
use prost_types::Any;

use super::{Flow, Hooks, RequestCall};
use crate::http::request::RequestHead;
use crate::parse::Context;
use crate::parse::network_filter::open_either;
use crate::stats::istio::{HttpFacts, IstioStats};
use crate::stream_info::StreamInfo;

#[derive(Debug)]
pub struct Config(Arc<IstioStats>);

impl Config {
    pub fn parse(context: &mut Context, any: &Any) -> Option<Config> {
        let message = open_either::<wire::PluginConfig>(context, any)?;
        IstioStats::parse(context, &message).map(Config)
    }
}

#[derive(Debug)]
pub struct Filter {
    config: Arc<Config>,
    grpc: bool,
    /// The authority before the route rewrote it.
    authority: Vec<u8>,
}

impl Filter {
    pub fn new(config: &Arc<Config>) -> Filter {
        Filter {
            config: config.clone(),
            grpc: false,
            authority: Vec::new(),
        }
    }

    /// Messages are those of request and response.
    pub fn report(
        &mut self,
        _head: Option<&RequestHead>,
        stream: &StreamInfo,
        (inbound, messages): (bool, (u64, u64)),
    ) {
        let facts = HttpFacts {
            inbound,
            authority: &self.authority,
            grpc: self.grpc,
            request_messages: messages.0,
            response_messages: messages.1,
        };
        self.config.0.http_end(stream, &facts);
    }
}

impl Hooks for Filter {
    fn request_headers(&mut self, _name: &str, call: &mut RequestCall<'_, '_>) -> Flow {
        self.grpc = call.head.is_grpc();
        if self.config.0.host_header_fallback {
            self.authority = call.head.authority.to_vec();
        }
        Flow::Continue
    }
}
