//! VirtualService: how requests to a host are routed.

use std::collections::BTreeMap;
use std::time::Duration;

use super::destination::{Destination, Percent, RouteDestination};
use super::string_match::StringMatch;

message! {
    pub struct VirtualService {
        hosts: Vec<String>,
        gateways: Vec<String>,
        http: Vec<HttpRoute>,
        tls: Vec<TlsRoute>,
        tcp: Vec<TcpRoute>,
        export_to: Vec<String>,
    }
}

message! {
    pub struct HttpRoute {
        name: String,
        r#match: Vec<HttpMatchRequest>,
        route: Vec<HttpRouteDestination>,
        redirect: Option<HttpRedirect>,
        direct_response: Option<HttpDirectResponse>,
        delegate: Option<Delegate>,
        rewrite: Option<HttpRewrite>,
        timeout: Option<Duration>,
        retries: Option<HttpRetry>,
        fault: Option<HttpFaultInjection>,
        mirror: Option<Destination>,
        mirrors: Vec<HttpMirrorPolicy>,
        /// Deprecated; `mirror_percentage` wins.
        mirror_percent: Option<u32>,
        mirror_percentage: Option<Percent>,
        cors_policy: Option<CorsPolicy>,
        headers: Option<Headers>,
    }
}

message! {
    pub struct HttpMatchRequest {
        name: String,
        uri: Option<StringMatch>,
        scheme: Option<StringMatch>,
        method: Option<StringMatch>,
        authority: Option<StringMatch>,
        headers: BTreeMap<String, StringMatch>,
        port: u32,
        source_labels: BTreeMap<String, String>,
        gateways: Vec<String>,
        query_params: BTreeMap<String, StringMatch>,
        ignore_uri_case: bool,
        without_headers: BTreeMap<String, StringMatch>,
        source_namespace: String,
        stat_prefix: String,
    }
}

message! {
    pub struct HttpRouteDestination {
        destination: Option<Destination>,
        weight: i32,
        headers: Option<Headers>,
    }
}

message! {
    pub struct Headers {
        request: Option<HeaderOperations>,
        response: Option<HeaderOperations>,
    }
}

message! {
    pub struct HeaderOperations {
        set: BTreeMap<String, String>,
        add: BTreeMap<String, String>,
        remove: Vec<String>,
    }
}

message! {
    pub struct HttpRedirect {
        uri: String,
        authority: String,
        scheme: String,
        /// 0: 301.
        redirect_code: u32,
        prefix_rewrite: String,
    } oneof {
        redirect_port: RedirectPort,
    }
}

oneof! {
    pub enum RedirectPort {
        Port(u32) = "port",
        DerivePort(RedirectPortSelection) = "derivePort",
    }
}

enumeration! {
    pub enum RedirectPortSelection {
        FromProtocolDefault = "FROM_PROTOCOL_DEFAULT",
        FromRequestPort = "FROM_REQUEST_PORT",
    }
}

message! {
    pub struct HttpDirectResponse {
        status: u32,
        body: Option<HttpBody>,
    }
}

message! {
    pub struct HttpBody {
    } oneof {
        specifier: BodySpecifier,
    }
}

oneof! {
    pub enum BodySpecifier {
        String(String) = "string",
        /// Base64, as in the document.
        Bytes(String) = "bytes",
    }
}

message! {
    pub struct Delegate {
        name: String,
        namespace: String,
    }
}

message! {
    pub struct HttpRewrite {
        uri: String,
        authority: String,
        uri_regex_rewrite: Option<RegexRewrite>,
    }
}

message! {
    pub struct RegexRewrite {
        r#match: String,
        rewrite: String,
    }
}

message! {
    pub struct HttpRetry {
        attempts: i32,
        per_try_timeout: Option<Duration>,
        retry_on: String,
        retry_remote_localities: Option<bool>,
        retry_ignore_previous_hosts: Option<bool>,
        backoff: Option<Duration>,
    }
}

message! {
    pub struct HttpFaultInjection {
        delay: Option<Delay>,
        abort: Option<Abort>,
    }
}

message! {
    pub struct Delay {
        /// Deprecated; `percentage` wins.
        percent: i32,
        percentage: Option<Percent>,
    } oneof {
        http_delay_type: DelayType,
    }
}

oneof! {
    pub enum DelayType {
        FixedDelay(Duration) = "fixedDelay",
        ExponentialDelay(Duration) = "exponentialDelay",
    }
}

message! {
    pub struct Abort {
        percentage: Option<Percent>,
    } oneof {
        error_type: AbortType,
    }
}

oneof! {
    pub enum AbortType {
        HttpStatus(i32) = "httpStatus",
        GrpcStatus(String) = "grpcStatus",
        Http2Error(String) = "http2Error",
    }
}

message! {
    pub struct HttpMirrorPolicy {
        destination: Option<Destination>,
        percentage: Option<Percent>,
    }
}

message! {
    pub struct CorsPolicy {
        /// Deprecated.
        allow_origin: Vec<String>,
        allow_origins: Vec<StringMatch>,
        allow_methods: Vec<String>,
        allow_headers: Vec<String>,
        expose_headers: Vec<String>,
        max_age: Option<Duration>,
        allow_credentials: Option<bool>,
        unmatched_preflights: UnmatchedPreflights,
    }
}

enumeration! {
    pub enum UnmatchedPreflights {
        Unspecified = "UNSPECIFIED",
        Forward = "FORWARD",
        Ignore = "IGNORE",
    }
}

message! {
    pub struct TlsRoute {
        r#match: Vec<TlsMatchAttributes>,
        route: Vec<RouteDestination>,
    }
}

message! {
    pub struct TlsMatchAttributes {
        sni_hosts: Vec<String>,
        destination_subnets: Vec<String>,
        port: u32,
        source_labels: BTreeMap<String, String>,
        gateways: Vec<String>,
        source_namespace: String,
    }
}

message! {
    pub struct TcpRoute {
        r#match: Vec<L4MatchAttributes>,
        route: Vec<RouteDestination>,
    }
}

message! {
    pub struct L4MatchAttributes {
        destination_subnets: Vec<String>,
        port: u32,
        /// Without effect, as in Istio.
        source_subnet: String,
        source_labels: BTreeMap<String, String>,
        gateways: Vec<String>,
        source_namespace: String,
    }
}
