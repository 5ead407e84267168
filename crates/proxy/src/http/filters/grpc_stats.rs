//! Counts the messages of gRPC streams for `istio.stats`.

use std::sync::Arc;

use envoy_api::grpc_stats as wire;
use prost_types::Any;

use super::{Flow, Hooks, RequestCall};
use crate::parse::Context;
use crate::parse::compat::Message as _;

#[derive(Debug)]
pub struct Config;

fields! {
    wire::FilterConfig {
        read: per_method_stat_specifier;
        ignore: emit_filter_state = "the counts always reach istio.stats",
            enable_upstream_stats = "statistics by method are refused",
            replace_dots_in_grpc_service_name = "statistics by method are refused";
    }
}

impl Config {
    pub fn parse(context: &mut Context, any: &Any) -> Option<Config> {
        use wire::filter_config::PerMethodStatSpecifier as Wire;
        let message = context.open::<wire::FilterConfig>(any)?;
        message.check(context);
        match &message.per_method_stat_specifier {
            None | Some(Wire::StatsForAllMethods(false)) => {}
            Some(Wire::StatsForAllMethods(true)) => {
                context.error_at("stats_for_all_methods", "is not supported");
            }
            Some(Wire::IndividualMethodStatsAllowlist(list)) => {
                if !list.services.is_empty() {
                    context.error_at("individual_method_stats_allowlist", "is not supported");
                }
            }
        }
        Some(Config)
    }
}

/// Where a length-prefixed stream stands.
#[derive(Debug, Default)]
struct Frames {
    /// Bytes of the five-byte prefix that were seen.
    prefix: usize,
    length: u32,
    /// Bytes of the message still to come.
    left: u64,
    count: u64,
}

impl Frames {
    fn push(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.left > 0 {
                let step = usize::try_from(self.left)
                    .unwrap_or(usize::MAX)
                    .min(data.len());
                self.left -= step as u64;
                data = &data[step..];
                continue;
            }
            if self.prefix > 0 {
                self.length = (self.length << 8) | u32::from(data[0]);
            }
            self.prefix += 1;
            data = &data[1..];
            if self.prefix == 5 {
                self.count += 1;
                self.left = self.length.into();
                self.prefix = 0;
                self.length = 0;
            }
        }
    }
}

#[derive(Debug)]
pub struct Filter {
    request: Frames,
    response: Frames,
    grpc: bool,
}

impl Filter {
    pub fn new(_config: &Arc<Config>) -> Filter {
        Filter {
            request: Frames::default(),
            response: Frames::default(),
            grpc: false,
        }
    }

    /// Messages of request and response so far.
    pub fn messages(&self) -> (u64, u64) {
        (self.request.count, self.response.count)
    }
}

impl Hooks for Filter {
    fn request_headers(&mut self, _name: &str, call: &mut RequestCall<'_, '_>) -> Flow {
        self.grpc = call.head.is_grpc();
        Flow::Continue
    }

    fn request_data(&mut self, data: &[u8]) {
        if self.grpc {
            self.request.push(data);
        }
    }

    fn response_data(&mut self, data: &[u8]) {
        if self.grpc {
            self.response.push(data);
        }
    }

    fn wants_data(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_messages_in_any_pieces() {
        let bytes = [0, 0, 0, 0, 3, 1, 2, 3, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 9, 9];
        for size in [1, 2, 3, 7, bytes.len()] {
            let mut frames = Frames::default();
            bytes.chunks(size).for_each(|chunk| frames.push(chunk));
            assert_eq!(frames.count, 3, "in pieces of {size}");
        }
    }
}
