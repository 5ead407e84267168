//! What the engine tells the statistics: guards that count while they live, and the end of a
//! stream. One place, so that the request path has one line for each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::tables::{Cluster, Http, Listener, TcpProxy};
use super::{Group, Single, Stats, locked};
use crate::http::request::Protocol;
use crate::stream_info::{ResponseFlags, StreamInfo};

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A connection of a listener, from accept to close.
pub struct ListenerConnection(Arc<Group<Listener>>, Instant);

impl ListenerConnection {
    pub fn begin(stats: &Arc<Group<Listener>>) -> ListenerConnection {
        stats.inc(Listener::CxTotal);
        stats.inc(Listener::CxActive);
        ListenerConnection(stats.clone(), Instant::now())
    }
}

impl Drop for ListenerConnection {
    fn drop(&mut self) {
        self.0.dec(Listener::CxActive);
        self.0.inc(Listener::CxDestroy);
        self.0
            .record(Listener::CxLengthMs, millis(self.1.elapsed()));
    }
}

/// A connection that speaks HTTP.
pub struct HttpConnection {
    stats: Arc<Group<Http>>,
    http2: bool,
    tls: bool,
    started: Instant,
}

impl HttpConnection {
    pub fn begin(stats: &Arc<Group<Http>>, http2: bool, tls: bool) -> HttpConnection {
        stats.inc(Http::CxTotal);
        stats.inc(Http::CxActive);
        let (total, active) = HttpConnection::of(http2);
        stats.inc(total);
        stats.inc(active);
        if tls {
            stats.inc(Http::CxSslTotal);
            stats.inc(Http::CxSslActive);
        }
        HttpConnection {
            stats: stats.clone(),
            http2,
            tls,
            started: Instant::now(),
        }
    }

    fn of(http2: bool) -> (Http, Http) {
        if http2 {
            (Http::CxHttp2Total, Http::CxHttp2Active)
        } else {
            (Http::CxHttp1Total, Http::CxHttp1Active)
        }
    }
}

impl Drop for HttpConnection {
    fn drop(&mut self) {
        self.stats.dec(Http::CxActive);
        self.stats.dec(HttpConnection::of(self.http2).1);
        if self.tls {
            self.stats.dec(Http::CxSslActive);
        }
        self.stats.inc(Http::CxDestroy);
        self.stats
            .record(Http::CxLengthMs, millis(self.started.elapsed()));
    }
}

/// A request came.
pub fn request_begins(stats: &Group<Http>, protocol: Protocol) {
    stats.inc(Http::RqTotal);
    stats.inc(Http::RqActive);
    stats.inc(match protocol {
        Protocol::Http10 | Protocol::Http11 => Http::RqHttp1Total,
        Protocol::Http2 => Http::RqHttp2Total,
    });
}

/// The stream is over and its record complete.
pub fn request_ends(stats: &Group<Http>, stream: &StreamInfo) {
    stats.dec(Http::RqActive);
    if let Some(code) = stream.response_code {
        stats.inc(Http::RqCompleted);
        stats.inc(match code {
            ..200 => Http::Rq1xx,
            200..300 => Http::Rq2xx,
            300..400 => Http::Rq3xx,
            400..500 => Http::Rq4xx,
            500.. => Http::Rq5xx,
        });
    }
    let bytes = &stream.bytes;
    stats.add(Http::CxRxBytesTotal, bytes.received + bytes.request_headers);
    stats.add(Http::CxTxBytesTotal, bytes.sent + bytes.response_headers);
    if let Some(total) = stream.durations.total {
        stats.record(Http::RqTime, millis(total));
    }
    let flags = stream.response_flags;
    for (flag, stat) in [
        (ResponseFlags::NO_ROUTE_FOUND, Http::NoRoute),
        (ResponseFlags::NO_CLUSTER_FOUND, Http::NoCluster),
        (ResponseFlags::STREAM_IDLE_TIMEOUT, Http::RqIdleTimeout),
        (ResponseFlags::DOWNSTREAM_REMOTE_RESET, Http::RqRxReset),
    ] {
        if flags.contains(flag) {
            stats.inc(stat);
        }
    }
    if stream.response_code_details.as_deref() == Some("direct_response") {
        stats.inc(Http::DirectResponse);
    }
    if stream.upgraded {
        stats.inc(Http::CxUpgradesTotal);
    }
    if stream.upstream.cluster.is_some() {
        stats.inc(Http::RouterRqTotal);
    }
}

/// A connection of the TCP proxy.
pub struct TcpConnection(Arc<Group<TcpProxy>>);

impl TcpConnection {
    pub fn begin(stats: &Arc<Group<TcpProxy>>) -> TcpConnection {
        stats.inc(TcpProxy::CxTotal);
        TcpConnection(stats.clone())
    }

    /// The connection is over and its record complete.
    pub fn end(self, stream: &StreamInfo) {
        self.0.add(TcpProxy::CxRxBytesTotal, stream.bytes.received);
        self.0.add(TcpProxy::CxTxBytesTotal, stream.bytes.sent);
        if stream
            .response_flags
            .contains(ResponseFlags::NO_CLUSTER_FOUND)
        {
            self.0.inc(TcpProxy::CxNoRoute);
        }
        match stream.connection_termination_details.as_deref() {
            Some("idle_timeout") => self.0.inc(TcpProxy::IdleTimeout),
            Some("duration_timeout") => self.0.inc(TcpProxy::MaxDuration),
            _ => {}
        }
    }
}

/// A request or connection to an upstream that is under way.
#[derive(Debug)]
pub struct Active(Arc<Group<Cluster>>, Cluster);

impl Active {
    pub fn request(stats: &Arc<Group<Cluster>>) -> Active {
        stats.inc(Cluster::RqTotal);
        stats.inc(Cluster::RqActive);
        Active(stats.clone(), Cluster::RqActive)
    }

    pub fn connection(stats: &Arc<Group<Cluster>>, http: Option<Protocol>) -> Active {
        stats.inc(Cluster::CxTotal);
        stats.inc(Cluster::CxActive);
        match http {
            Some(Protocol::Http2) => stats.inc(Cluster::CxHttp2Total),
            Some(Protocol::Http10 | Protocol::Http11) => stats.inc(Cluster::CxHttp1Total),
            None => {}
        }
        Active(stats.clone(), Cluster::CxActive)
    }

    pub fn pending(stats: &Arc<Group<Cluster>>) -> Active {
        stats.inc(Cluster::RqPendingTotal);
        stats.inc(Cluster::RqPendingActive);
        Active(stats.clone(), Cluster::RqPendingActive)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.dec(self.1);
        if self.1 == Cluster::CxActive {
            self.0.inc(Cluster::CxDestroy);
        }
    }
}

/// `upstream_rq_200` and such of one cluster, made when first seen.
#[derive(Debug)]
pub struct ResponseCodes {
    stats: Arc<Stats>,
    prefix: String,
    codes: Mutex<BTreeMap<u16, Arc<Single>>>,
    included: bool,
}

impl ResponseCodes {
    pub fn new(stats: &Arc<Stats>, prefix: &str) -> ResponseCodes {
        let included = stats.config().includes(&format!("{prefix}upstream_rq_200"));
        let codes = Mutex::default();
        ResponseCodes {
            stats: stats.clone(),
            prefix: prefix.to_owned(),
            codes,
            included,
        }
    }

    fn count(&self, code: u16) {
        if !self.included {
            return;
        }
        let mut codes = locked(&self.codes);
        let counter = codes.entry(code).or_insert_with(|| {
            self.stats
                .counter(&format!("{}upstream_rq_{code}", self.prefix))
        });
        counter.add(1);
    }
}

/// An upstream answered.
pub fn upstream_response(stats: &Group<Cluster>, codes: &ResponseCodes, status: u16) {
    stats.inc(Cluster::RqCompleted);
    stats.inc(match status {
        ..200 => Cluster::Rq1xx,
        200..300 => Cluster::Rq2xx,
        300..400 => Cluster::Rq3xx,
        400..500 => Cluster::Rq4xx,
        500.. => Cluster::Rq5xx,
    });
    codes.count(status);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_count_while_they_live() {
        let stats = Arc::new(Stats::new(2));
        let group = stats.group::<Http>("http.a.");
        let again = stats.group::<Http>("http.a.");
        assert!(Arc::ptr_eq(&group, &again), "one set for each prefix");
        let guard = HttpConnection::begin(&group, true, false);
        assert_eq!(
            (group.value(Http::CxActive), group.value(Http::CxHttp2Total)),
            (1, 1)
        );
        drop(guard);
        assert_eq!(
            (group.value(Http::CxActive), group.value(Http::CxDestroy)),
            (0, 1)
        );
        let codes = ResponseCodes::new(&stats, "cluster.c.");
        let cluster = stats.group::<Cluster>("cluster.c.");
        upstream_response(&cluster, &codes, 404);
        let snapshot = stats.snapshot();
        for name in ["cluster.c.upstream_rq_404", "cluster.c.upstream_rq_4xx"] {
            assert!(snapshot.samples[name].is_used(), "{name}");
        }
        drop((cluster, codes));
        assert!(
            !stats
                .snapshot()
                .samples
                .contains_key("cluster.c.upstream_rq_4xx"),
            "gone"
        );
    }
}
