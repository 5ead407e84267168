//! `istio.stats`: Istio's standard metrics with exactly its labels. One instance per filter
//! configuration; series live in per-worker maps and are summed on scrape.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use envoy_api::istio::stats as wire;

use super::histogram::{Histogram, Recorded};
use super::snapshot::{Family, Sample, Snapshot, Value};
use super::{Kind, Readable, WORKER, locked};
use crate::parse::Context;
use crate::parse::compat::Message as _;
use crate::stream_info::StreamInfo;

mod labels;

pub use labels::{LABELS, Labels};

/// Series of one filter; more are counted under no labels at all.
const MAX_SERIES: usize = 20_000;

macro_rules! metrics {
    ($($variant:ident $name:literal $kind:ident $http_only:literal,)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Metric { $($variant,)* }

        impl Metric {
            const TABLE: &'static [(&'static str, Kind, bool)] =
                &[$(($name, Kind::$kind, $http_only),)*];
        }
    };
}

metrics! {
    Requests "istio_requests_total" Counter true,
    RequestDuration "istio_request_duration_milliseconds" Histogram true,
    RequestBytes "istio_request_bytes" Histogram true,
    ResponseBytes "istio_response_bytes" Histogram true,
    RequestMessages "istio_request_messages_total" Counter true,
    ResponseMessages "istio_response_messages_total" Counter true,
    TcpOpened "istio_tcp_connections_opened_total" Counter false,
    TcpClosed "istio_tcp_connections_closed_total" Counter false,
    TcpSent "istio_tcp_sent_bytes_total" Counter false,
    TcpReceived "istio_tcp_received_bytes_total" Counter false,
}

/// Which end of a call this proxy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reporter {
    Source,
    Destination,
    Waypoint,
}

#[derive(Debug)]
pub struct IstioStats {
    pub host_header_fallback: bool,
    /// How often a TCP connection's bytes are reported; also gRPC message counts.
    pub reporting_interval: Duration,
    reporter: Option<Reporter>,
    overrides: Overrides,
    own: labels::Own,
    store: Arc<SeriesStore>,
}

type Overrides = Arc<[Override]>;

/// Labels, and what the filter's configuration changes about them.
type Key = (Labels, Overrides);

/// The series of one worker.
type Row = Mutex<HashMap<Key, Arc<Series>>>;

/// The series of all filters of a process, one map for each worker.
#[derive(Debug)]
pub struct SeriesStore {
    rows: Box<[Row]>,
}

impl SeriesStore {
    pub(super) fn new(workers: usize) -> SeriesStore {
        SeriesStore {
            rows: (0..workers.max(1)).map(|_| Mutex::default()).collect(),
        }
    }

    fn series(&self, labels: Labels, overrides: &Overrides) -> Arc<Series> {
        let mut row = locked(&self.rows[WORKER.get() % self.rows.len()]);
        let key = (labels, overrides.clone());
        if let Some(series) = row.get(&key) {
            return series.clone();
        }
        let key = if row.len() >= MAX_SERIES {
            (Labels::default(), key.1)
        } else {
            key
        };
        row.entry(key)
            .or_insert_with(|| Arc::new(Series::new()))
            .clone()
    }
}

/// A Telemetry override that we perform: a metric dropped, or labels of it removed.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Override {
    /// Empty: all metrics.
    metric: String,
    drop: bool,
    remove: Vec<String>,
}

/// Values of one set of labels.
#[derive(Debug)]
struct Series {
    counters: [AtomicU64; Metric::TABLE.len()],
    histograms: [std::sync::OnceLock<Histogram>; 3],
}

impl Series {
    fn new() -> Series {
        Series {
            counters: Default::default(),
            histograms: Default::default(),
        }
    }

    fn histogram(&self, metric: Metric) -> Option<&std::sync::OnceLock<Histogram>> {
        match metric {
            Metric::RequestDuration => self.histograms.first(),
            Metric::RequestBytes => self.histograms.get(1),
            Metric::ResponseBytes => self.histograms.get(2),
            _ => None,
        }
    }
}

fields! {
    wire::PluginConfig {
        read: disable_host_header_fallback, tcp_reporting_duration, metrics, reporter;
        reject: definitions;
        ignore: rotation_interval = "series live as long as the filter",
            graceful_deletion_interval = "series live as long as the filter";
    }
    wire::MetricConfig {
        read: name, tags_to_remove, drop;
        reject: dimensions, r#match;
    }
}

const METRIC_PREFIX: &str = "istio_";

impl IstioStats {
    pub fn parse(context: &mut Context, message: &wire::PluginConfig) -> Option<Arc<IstioStats>> {
        message.check(context);
        let overrides = context.each("metrics", &message.metrics, |context, one| {
            one.check(context);
            let metric = one.name.trim_start_matches(METRIC_PREFIX).to_owned();
            Some(Override {
                metric,
                drop: one.drop,
                remove: one.tags_to_remove.clone(),
            })
        });
        let interval = message.tcp_reporting_duration.as_ref();
        let reporting_interval = context
            .duration("tcp_reporting_duration", interval)
            .filter(|one| !one.is_zero())
            .unwrap_or(Duration::from_secs(15));
        let environment = context.environment().clone();
        let stats = Arc::new(IstioStats {
            host_header_fallback: !message.disable_host_header_fallback,
            reporting_interval,
            reporter: (message.reporter == wire::Reporter::ServerGateway as i32)
                .then_some(Reporter::Waypoint),
            overrides: overrides.into(),
            own: labels::Own::of(&environment.node),
            store: environment.stats.istio(),
        });
        Some(stats)
    }

    /// The end of an HTTP stream.
    pub fn http_end(&self, stream: &StreamInfo, facts: &HttpFacts<'_>) {
        let series = self.series(self.labels(stream, Some(facts), facts.inbound));
        self.count(&series, Metric::Requests, 1);
        let millis = stream.durations.total.map_or(0, |total| total.as_millis());
        self.record(
            &series,
            Metric::RequestDuration,
            u64::try_from(millis).unwrap_or(u64::MAX),
        );
        let bytes = &stream.bytes;
        self.record(
            &series,
            Metric::RequestBytes,
            bytes.received + bytes.request_headers,
        );
        let sent = bytes.sent + bytes.response_headers + bytes.response_trailers;
        self.record(&series, Metric::ResponseBytes, sent);
        if facts.grpc {
            self.count(&series, Metric::RequestMessages, facts.request_messages);
            self.count(&series, Metric::ResponseMessages, facts.response_messages);
        }
    }

    /// What a TCP connection did since the last report.
    pub fn tcp_report(&self, stream: &StreamInfo, report: TcpReport) {
        let series = self.series(self.labels(stream, None, report.inbound));
        self.count(&series, Metric::TcpOpened, u64::from(report.opened));
        self.count(&series, Metric::TcpReceived, report.received);
        self.count(&series, Metric::TcpSent, report.sent);
        self.count(&series, Metric::TcpClosed, u64::from(report.closed));
    }

    fn labels(&self, stream: &StreamInfo, http: Option<&HttpFacts<'_>>, inbound: bool) -> Labels {
        let reporter = self.reporter.unwrap_or(if inbound {
            Reporter::Destination
        } else {
            Reporter::Source
        });
        labels::build(
            &self.own,
            stream,
            http,
            (reporter, self.host_header_fallback),
        )
    }

    fn series(&self, labels: Labels) -> Arc<Series> {
        self.store.series(labels, &self.overrides)
    }

    fn is_dropped(&self, metric: Metric) -> bool {
        let name = Metric::TABLE[metric as usize].0;
        self.overrides
            .iter()
            .any(|one| one.drop && one.concerns(name))
    }

    fn count(&self, series: &Series, metric: Metric, count: u64) {
        if count > 0 && !self.is_dropped(metric) {
            series.counters[metric as usize].fetch_add(count, Ordering::Relaxed);
        }
    }

    fn record(&self, series: &Series, metric: Metric, value: u64) {
        if self.is_dropped(metric) {
            return;
        }
        if let Some(cell) = series.histogram(metric) {
            cell.get_or_init(|| Histogram::new(1)).record(0, value);
        }
    }
}

/// The labels of a metric as text, without those removed for it.
fn label_list(metric: usize, (labels, overrides): &Key) -> Vec<(&'static str, String)> {
    let (name, _, http_only) = Metric::TABLE[metric];
    let removed = |label: &str| {
        overrides
            .iter()
            .any(|one| one.concerns(name) && one.remove.iter().any(|remove| remove == label))
    };
    let http_label = |label: &str| matches!(label, "response_code" | "grpc_response_status");
    LABELS
        .iter()
        .zip(labels.values())
        .filter(|(label, _)| !removed(label) && (http_only || !http_label(label)))
        .map(|(label, value)| (*label, value.to_string()))
        .collect()
}

impl Override {
    fn concerns(&self, metric: &str) -> bool {
        let bare = metric.trim_start_matches(METRIC_PREFIX);
        self.metric.is_empty()
            || self.metric == bare
            || bare.strip_suffix("_total") == Some(&self.metric)
    }
}

/// What only HTTP knows.
#[derive(Debug, Clone, Copy, Default)]
pub struct HttpFacts<'a> {
    pub inbound: bool,
    pub authority: &'a [u8],
    pub grpc: bool,
    pub request_messages: u64,
    pub response_messages: u64,
}

/// Differences since the last report of a connection.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpReport {
    pub inbound: bool,
    pub opened: bool,
    pub closed: bool,
    pub sent: u64,
    pub received: u64,
}

impl Readable for SeriesStore {
    fn any(self: Arc<Self>) -> Arc<dyn std::any::Any + Send + Sync> {
        self
    }

    fn read(&self, snapshot: &mut Snapshot) {
        let mut sums: HashMap<Key, Vec<(u64, Recorded)>> = HashMap::new();
        for row in &self.rows {
            for (key, series) in locked(row).iter() {
                let sum = sums
                    .entry(key.clone())
                    .or_insert_with(|| vec![Default::default(); Metric::TABLE.len()]);
                for (index, cell) in series.counters.iter().enumerate() {
                    sum[index].0 += cell.load(Ordering::Relaxed);
                }
                for (cell, metric) in series.histograms.iter().zip([
                    Metric::RequestDuration,
                    Metric::RequestBytes,
                    Metric::ResponseBytes,
                ]) {
                    if let Some(histogram) = cell.get() {
                        sum[metric as usize].1.merge(&histogram.read());
                    }
                }
            }
        }
        for (key, sum) in sums {
            for (index, (count, recorded)) in sum.into_iter().enumerate() {
                let (name, kind, _) = Metric::TABLE[index];
                let value = match kind {
                    Kind::Histogram if recorded.count > 0 => Value::Histogram(recorded),
                    Kind::Counter | Kind::Gauge if count > 0 => Value::Number(count),
                    _ => continue,
                };
                let labels = label_list(index, &key);
                snapshot.family(Family {
                    name,
                    labels,
                    sample: Sample { kind, value },
                });
            }
        }
    }

    fn reset_counters(&self) {
        self.rows.iter().for_each(|row| locked(row).clear());
    }
}
