//! HTTP filters: THE table, the chain of a connection manager, the stack of a stream. The engine
//! runs the stack's hooks and never looks inside.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use envoy_api::hcm::{self, http_filter::ConfigType};
use envoy_api::{route as wire_route, router};
use prost_types::Any;
use smallvec::SmallVec;

use crate::http::request::{RequestHead, ResponseHead};
use crate::parse::Context;
use crate::parse::cluster::Cluster;
use crate::parse::compat::{Message as _, MessageSupport};
use crate::parse::listener::Direction;
use crate::parse::network_filter::{config_name, inner_type};
use crate::route::Selected;
use crate::stream_info::{ResponseFlags, StreamInfo};

pub mod alpn;
pub mod cors;
pub mod fault;
pub mod grpc_stats;
pub mod header_mutation;
pub mod istio_stats;
pub mod local_ratelimit;
pub mod metadata_exchange;
pub mod rbac;

/// What a hook wants.
#[derive(Debug)]
pub enum Flow {
    Continue,
    Reply(LocalReply),
    /// Call `resume` after this long; nothing is read meanwhile.
    Wait(Duration),
}

/// A response made here.
#[derive(Debug, Clone)]
pub struct LocalReply {
    pub status: u16,
    pub body: Bytes,
    pub headers: Vec<(Cow<'static, str>, Vec<u8>)>,
    pub details: Cow<'static, str>,
    pub flags: ResponseFlags,
    /// gRPC's status where it is not the one that follows from `status`.
    pub grpc_status: Option<u32>,
}

impl LocalReply {
    pub fn new(status: u16, details: impl Into<Cow<'static, str>>) -> LocalReply {
        LocalReply {
            status,
            body: Bytes::new(),
            headers: Vec::new(),
            details: details.into(),
            flags: ResponseFlags::NONE,
            grpc_status: None,
        }
    }
}

/// What filters may look at beside the heads and the record of the stream.
pub struct FilterContext<'a> {
    pub route: Option<&'a Selected>,
    /// The cluster that the route chose, where it exists.
    pub cluster: Option<&'a Cluster>,
    /// Of the listener.
    pub direction: Direction,
    /// Any number; draws are derived from it.
    pub random: u64,
    /// Set by a filter that changed what routing looks at: the route is selected anew.
    pub clear_route: bool,
    /// The message (request or response) ends with its head.
    pub end_stream: bool,
}

impl<'a> FilterContext<'a> {
    pub fn new(random: u64, direction: Direction) -> FilterContext<'a> {
        FilterContext {
            route: None,
            cluster: None,
            direction,
            random,
            clear_route: false,
            end_stream: false,
        }
    }

    /// The next random number (SplitMix64).
    pub fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The settings of a filter for the route.
    pub fn settings(&self, name: &str) -> Option<&'a Override> {
        self.route.and_then(|route| route.overrides().find(name))
    }
}

/// THE table: a variant, the type URL's message name, the module. A module has `Config::parse`,
/// and `Filter::new(&Arc<Config>)` with the hooks that it needs.
macro_rules! filters {
    ($($variant:ident $message:literal $module:ident;)*) => {
        #[derive(Debug, Clone)]
        enum Config { $($variant(Arc<$module::Config>),)* }

        #[derive(Debug)]
        enum Filter { $($variant($module::Filter),)* }

        /// Message names of all filters.
        pub const FILTERS: &[(&str, &str)] = &[$((stringify!($module), $message),)*];

        impl Config {
            fn parse(context: &mut Context, kind: &str, any: &Any) -> Option<Config> {
                match kind {
                    $($message => {
                        let parsed = $module::Config::parse(context, any);
                        parsed.map(|one| Config::$variant(Arc::new(one)))
                    })*
                    other => {
                        context.error(format!("HTTP filter '{other}' is not supported"));
                        None
                    }
                }
            }

            fn start(&self) -> Filter {
                match self {
                    $(Config::$variant(one) => Filter::$variant($module::Filter::new(one)),)*
                }
            }
        }

        impl Filter {
            fn request_headers(&mut self, name: &str, call: &mut RequestCall<'_, '_>) -> Flow {
                match self { $(Filter::$variant(one) => one.request_headers(name, call),)* }
            }

            fn response_headers(&mut self, call: &mut ResponseCall<'_, '_>) {
                match self { $(Filter::$variant(one) => one.response_headers(call),)* }
            }

            fn request_data(&mut self, data: &[u8]) {
                match self { $(Filter::$variant(one) => one.request_data(data),)* }
            }

            fn response_data(&mut self, data: &[u8]) {
                match self { $(Filter::$variant(one) => one.response_data(data),)* }
            }

            fn resume(&mut self, call: &mut RequestCall<'_, '_>) -> Flow {
                match self { $(Filter::$variant(one) => one.resume(call),)* }
            }

            fn wants_data(&self) -> bool {
                match self { $(Filter::$variant(one) => one.wants_data(),)* }
            }
        }
    };
}

filters! {
    Cors "envoy.extensions.filters.http.cors.v3.Cors" cors;
    Fault "envoy.extensions.filters.http.fault.v3.HTTPFault" fault;
    Rbac "envoy.extensions.filters.http.rbac.v3.RBAC" rbac;
    LocalRateLimit
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
        local_ratelimit;
    GrpcStats "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig" grpc_stats;
    HeaderMutation
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"
        header_mutation;
    MetadataExchange "io.istio.http.peer_metadata.Config" metadata_exchange;
    Alpn "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig" alpn;
    IstioStats "stats.PluginConfig" istio_stats;
}

/// The arguments of a request hook.
pub struct RequestCall<'c, 'a> {
    pub head: &'c mut RequestHead,
    pub stream: &'c mut StreamInfo,
    pub context: &'c mut FilterContext<'a>,
}

/// The arguments of a response hook.
pub struct ResponseCall<'c, 'a> {
    pub head: &'c mut ResponseHead,
    pub stream: &'c mut StreamInfo,
    pub context: &'c mut FilterContext<'a>,
}

/// Hooks that a filter does not need.
pub(crate) trait Hooks {
    fn request_headers(&mut self, _name: &str, _call: &mut RequestCall<'_, '_>) -> Flow {
        Flow::Continue
    }
    fn resume(&mut self, _call: &mut RequestCall<'_, '_>) -> Flow {
        Flow::Continue
    }
    fn response_headers(&mut self, _call: &mut ResponseCall<'_, '_>) {}
    fn request_data(&mut self, _data: &[u8]) {}
    fn response_data(&mut self, _data: &[u8]) {}
    /// Whether the data hooks do anything.
    fn wants_data(&self) -> bool {
        false
    }
}

/// The filters of a connection manager; the router's settings are its end.
#[derive(Debug)]
pub struct FilterChain {
    members: Vec<Member>,
    pub router: Router,
}

#[derive(Debug)]
struct Member {
    name: Arc<str>,
    config: Config,
    /// Runs only for routes that enable it.
    disabled: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Router {
    /// Neither read nor write `x-envoy-*` headers.
    pub suppress_envoy_headers: bool,
}

fields! {
    hcm::HttpFilter { read: name, is_optional, disabled, config_type; }
    router::Router {
        read: suppress_envoy_headers, upstream_http_filters;
        reject: respect_expected_rq_timeout, strict_check_headers, upstream_log,
            upstream_log_options;
        ignore: dynamic_stats = "all statistics are fixed",
            start_child_span = "spans are not reported",
            suppress_grpc_request_failure_code_stats = "statistics by code are kept",
            reject_connect_request_early_data = "data before a CONNECT's answer is held";
    }
    wire_route::FilterConfig { read: config, is_optional, disabled; }
}

const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";

impl FilterChain {
    pub fn parse(context: &mut Context, messages: &[hcm::HttpFilter]) -> Option<FilterChain> {
        let mut members = Vec::with_capacity(messages.len());
        let mut router = None;
        for (index, message) in messages.iter().enumerate() {
            context.field(&format!("http_filters[{index}]"), |context| {
                message.check(context);
                context.non_empty("name", &message.name);
                let Some(any) = typed_config(context, message) else {
                    return;
                };
                let last = index + 1 == messages.len();
                if config_name(any) == ROUTER {
                    if !last {
                        context.error(format!(
                            "Error: terminal filter named {} of type {} must be the last filter \
                             in a http filter chain.",
                            message.name, message.name
                        ));
                    }
                    router = parse_router(context, any);
                    return;
                }
                if last {
                    context.error(format!(
                        "Error: non-terminal filter named {} of type {} is the last filter in a \
                         http filter chain.",
                        message.name, message.name
                    ));
                }
                members.extend(member(context, message, any));
            });
        }
        if messages.is_empty() {
            context.error_at("http_filters", "must end with the router");
        }
        Some(FilterChain {
            members,
            router: router?,
        })
    }

    /// The filters of one stream.
    pub fn start(&self, route: Option<&Selected>) -> FilterStack {
        let mut slots = SmallVec::new();
        for member in &self.members {
            let setting = route.and_then(|route| route.overrides().find(&member.name));
            let disabled = match setting {
                Some(Override::Disabled) => true,
                Some(_) => false,
                None => member.disabled,
            };
            if !disabled {
                slots.push(Slot {
                    name: member.name.clone(),
                    filter: member.config.start(),
                });
            }
        }
        let wants_data = slots.iter().any(|slot: &Slot| slot.filter.wants_data());
        FilterStack {
            slots,
            next: 0,
            wants_data,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|member| &*member.name)
    }
}

fn typed_config<'a>(context: &mut Context, message: &'a hcm::HttpFilter) -> Option<&'a Any> {
    match &message.config_type {
        Some(ConfigType::TypedConfig(any)) => Some(any),
        Some(ConfigType::ConfigDiscovery(_)) => {
            context.error_at("config_discovery", "is not supported");
            None
        }
        None => {
            context.error_at("typed_config", "is required");
            None
        }
    }
}

fn member(context: &mut Context, message: &hcm::HttpFilter, any: &Any) -> Option<Member> {
    let config = context.field("typed_config", |context| {
        let kind = inner_type(context, any);
        let known = FILTERS.iter().any(|(_, name)| *name == kind);
        // Optional filters that are not known are passed over, as in Envoy.
        if message.is_optional && !known {
            return None;
        }
        Config::parse(context, &kind, any)
    })?;
    Some(Member {
        name: message.name.as_str().into(),
        config,
        disabled: message.disabled,
    })
}

fn parse_router(context: &mut Context, any: &Any) -> Option<Router> {
    context.field("typed_config", |context| {
        let message = context.open::<router::Router>(any)?;
        message.check(context);
        for (index, filter) in message.upstream_http_filters.iter().enumerate() {
            if filter.name != "envoy.filters.http.upstream_codec" {
                let place = format!("upstream_http_filters[{index}]");
                context.error_at(&place, format!("'{}' is not supported", filter.name));
            }
        }
        Some(Router {
            suppress_envoy_headers: message.suppress_envoy_headers,
        })
    })
}

/// The filters of one stream and how far the request got.
#[derive(Debug)]
pub struct FilterStack {
    slots: SmallVec<[Slot; 8]>,
    next: usize,
    wants_data: bool,
}

#[derive(Debug)]
struct Slot {
    name: Arc<str>,
    filter: Filter,
}

impl FilterStack {
    /// Runs the request through the filters, from where it stopped.
    pub fn on_request_headers(
        &mut self,
        head: &mut RequestHead,
        stream: &mut StreamInfo,
        context: &mut FilterContext<'_>,
    ) -> Flow {
        let mut call = RequestCall {
            head,
            stream,
            context,
        };
        while let Some(slot) = self.slots.get_mut(self.next) {
            match slot.filter.request_headers(&slot.name, &mut call) {
                Flow::Continue => self.next += 1,
                Flow::Wait(duration) => return Flow::Wait(duration),
                Flow::Reply(reply) => return Flow::Reply(reply),
            }
        }
        Flow::Continue
    }

    /// After `Flow::Wait`: the filter that waited goes on, then the others.
    pub fn resume(
        &mut self,
        head: &mut RequestHead,
        stream: &mut StreamInfo,
        context: &mut FilterContext<'_>,
    ) -> Flow {
        if let Some(slot) = self.slots.get_mut(self.next) {
            let mut call = RequestCall {
                head,
                stream,
                context,
            };
            match slot.filter.resume(&mut call) {
                Flow::Continue => self.next += 1,
                other => return other,
            }
        }
        self.on_request_headers(head, stream, context)
    }

    /// Runs the response (also a local reply) through the filters, last one first.
    pub fn on_response_headers(
        &mut self,
        head: &mut ResponseHead,
        stream: &mut StreamInfo,
        context: &mut FilterContext<'_>,
    ) {
        let mut call = ResponseCall {
            head,
            stream,
            context,
        };
        for slot in self.slots.iter_mut().rev() {
            slot.filter.response_headers(&mut call);
        }
    }

    /// Whether `on_request_data` and `on_response_data` must be called.
    pub fn wants_data(&self) -> bool {
        self.wants_data
    }

    pub fn on_request_data(&mut self, data: &[u8]) {
        self.slots
            .iter_mut()
            .for_each(|slot| slot.filter.request_data(data));
    }

    pub fn on_response_data(&mut self, data: &[u8]) {
        self.slots
            .iter_mut()
            .for_each(|slot| slot.filter.response_data(data));
    }

    /// The stream is over and its record complete: metrics are reported.
    pub fn on_end(&mut self, head: Option<&RequestHead>, stream: &StreamInfo, inbound: bool) {
        let messages = self.slots.iter().find_map(|slot| match &slot.filter {
            Filter::GrpcStats(one) => Some(one.messages()),
            _ => None,
        });
        for slot in &mut self.slots {
            match &mut slot.filter {
                Filter::IstioStats(one) => {
                    one.report(head, stream, (inbound, messages.unwrap_or_default()));
                }
                Filter::Fault(one) => one.end(),
                _ => {}
            }
        }
    }
}

/// A filter's settings for a route.
#[derive(Debug, Clone)]
pub enum Override {
    Disabled,
    /// Enabled with the chain's settings.
    Enabled,
    Cors(Arc<cors::Policy>),
    Fault(Arc<fault::Config>),
    Rbac(Arc<rbac::PerRoute>),
    HeaderMutation(Arc<header_mutation::Config>),
    LocalRateLimit(Arc<local_ratelimit::Config>),
}

/// Settings by filter name, all levels merged: the most specific one is in force.
#[derive(Debug, Clone, Default)]
pub struct Overrides(Arc<[(Arc<str>, Override)]>);

impl Overrides {
    pub fn find(&self, name: &str) -> Option<&Override> {
        self.0
            .iter()
            .find(|(key, _)| **key == *name)
            .map(|(_, value)| value)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A level's `typed_per_filter_config` over what it inherits.
    pub fn parse(
        context: &mut Context,
        inherited: &Overrides,
        messages: &BTreeMap<String, Any>,
    ) -> Overrides {
        if messages.is_empty() {
            return inherited.clone();
        }
        let mut own: Vec<(Arc<str>, Override)> = Vec::with_capacity(messages.len());
        for (name, any) in messages {
            let place = format!("typed_per_filter_config[{name}]");
            if let Some(parsed) = context.field(&place, |context| Override::parse(context, any)) {
                own.push((name.as_str().into(), parsed));
            }
        }
        let missing = inherited
            .0
            .iter()
            .filter(|(name, _)| !messages.contains_key(&**name));
        own.extend(missing.cloned());
        Overrides(own.into())
    }
}

impl Override {
    fn parse(context: &mut Context, any: &Any) -> Option<Override> {
        if config_name(any) == "envoy.config.route.v3.FilterConfig" {
            let message = context.open::<wire_route::FilterConfig>(any)?;
            message.check(context);
            if message.disabled {
                return Some(Override::Disabled);
            }
            return match &message.config {
                None => Some(Override::Enabled),
                Some(inner) => Override::parse_known(context, inner, message.is_optional),
            };
        }
        Override::parse_known(context, any, false)
    }

    fn parse_known(context: &mut Context, any: &Any, optional: bool) -> Option<Override> {
        match inner_type(context, any).as_str() {
            "google.protobuf.Empty" => Some(Override::Enabled),
            "envoy.extensions.filters.http.cors.v3.CorsPolicy" => {
                cors::Policy::parse(context, any).map(|one| Override::Cors(Arc::new(one)))
            }
            "envoy.extensions.filters.http.fault.v3.HTTPFault" => {
                fault::Config::parse(context, any).map(|one| Override::Fault(Arc::new(one)))
            }
            "envoy.extensions.filters.http.rbac.v3.RBACPerRoute" => {
                rbac::PerRoute::parse(context, any).map(|one| Override::Rbac(Arc::new(one)))
            }
            "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute" => {
                header_mutation::Config::parse_per_route(context, any)
                    .map(|one| Override::HeaderMutation(Arc::new(one)))
            }
            "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit" => {
                local_ratelimit::Config::parse(context, any)
                    .map(|one| Override::LocalRateLimit(Arc::new(one)))
            }
            other => {
                if !optional {
                    context.error(format!("settings '{other}' of a route are not supported"));
                }
                None
            }
        }
    }
}

pub(crate) fn all_compat_rows() -> Vec<MessageSupport> {
    [
        compat_rows(),
        alpn::compat_rows(),
        cors::compat_rows(),
        fault::compat_rows(),
        grpc_stats::compat_rows(),
        header_mutation::compat_rows(),
        local_ratelimit::compat_rows(),
        metadata_exchange::compat_rows(),
        rbac::compat_rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
