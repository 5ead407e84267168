//! A metrics registry with Prometheus' text format: counters, gauges, histograms, with labels.
//! One registry per process part, passed by value; recording is a relaxed atomic operation.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The content type of `Registry::encode`.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Label combinations per family; what comes later is counted under the label value `overflow`.
const SERIES_LIMIT: usize = 10_000;

#[derive(Clone, Debug, Default)]
pub struct Registry {
    families: Arc<Mutex<BTreeMap<String, Entry>>>,
}

#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicI64>);

#[derive(Clone, Debug)]
pub struct Histogram(Arc<Buckets>);

/// Metrics of one name that differ by label values.
#[derive(Clone, Debug)]
pub struct Family<M> {
    labels: &'static [&'static str],
    template: M,
    series: Arc<Mutex<BTreeMap<Vec<String>, M>>>,
}

#[derive(Debug)]
struct Entry {
    help: &'static str,
    family: AnyFamily,
}

#[derive(Clone, Debug)]
enum AnyFamily {
    Counter(Family<Counter>),
    Gauge(Family<Gauge>),
    Histogram(Family<Histogram>),
}

#[derive(Debug)]
struct Buckets {
    bounds: Arc<[f64]>,
    counts: Vec<AtomicU64>,
    sum_bits: AtomicU64,
}

impl Registry {
    pub fn new() -> Registry {
        Registry::default()
    }

    pub fn counter(&self, name: &str, help: &'static str) -> Counter {
        self.counters(name, help, &[]).with(&[])
    }

    pub fn gauge(&self, name: &str, help: &'static str) -> Gauge {
        self.gauges(name, help, &[]).with(&[])
    }

    pub fn histogram(&self, name: &str, help: &'static str, bounds: &[f64]) -> Histogram {
        self.histograms(name, help, &[], bounds).with(&[])
    }

    pub fn counters(
        &self,
        name: &str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Family<Counter> {
        let family = Family::new(labels, Counter::default());
        match self.register(name, help, AnyFamily::Counter(family)) {
            AnyFamily::Counter(family) => family,
            _ => panic!("BUG: metric {name} is registered as another kind"),
        }
    }

    pub fn gauges(
        &self,
        name: &str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Family<Gauge> {
        let family = Family::new(labels, Gauge::default());
        match self.register(name, help, AnyFamily::Gauge(family)) {
            AnyFamily::Gauge(family) => family,
            _ => panic!("BUG: metric {name} is registered as another kind"),
        }
    }

    pub fn histograms(
        &self,
        name: &str,
        help: &'static str,
        labels: &'static [&'static str],
        bounds: &[f64],
    ) -> Family<Histogram> {
        let family = Family::new(labels, Histogram::new(bounds.into()));
        match self.register(name, help, AnyFamily::Histogram(family)) {
            AnyFamily::Histogram(family) => family,
            _ => panic!("BUG: metric {name} is registered as another kind"),
        }
    }

    /// All metrics in Prometheus' text format, in the order of their names.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        for (name, entry) in lock(&self.families).iter() {
            let kind = entry.family.kind();
            let help = entry.help.replace('\\', "\\\\").replace('\n', "\\n");
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            entry.family.encode(name, &mut text);
        }
        text
    }

    fn register(&self, name: &str, help: &'static str, family: AnyFamily) -> AnyFamily {
        assert!(is_metric_name(name), "BUG: {name:?} is no metric name");
        let mut families = lock(&self.families);
        families
            .entry(name.to_string())
            .or_insert(Entry { help, family })
            .family
            .clone()
    }
}

impl<M: Clone + Fresh> Family<M> {
    fn new(labels: &'static [&'static str], template: M) -> Family<M> {
        Family {
            labels,
            template,
            series: Arc::default(),
        }
    }

    /// The metric for these label values, in the order of the family's labels.
    pub fn with(&self, values: &[&str]) -> M {
        assert_eq!(
            values.len(),
            self.labels.len(),
            "BUG: one value for each of {:?}",
            self.labels
        );
        let mut series = lock(&self.series);
        let mut key: Vec<String> = values.iter().map(|value| value.to_string()).collect();
        if !series.contains_key(&key) && series.len() >= SERIES_LIMIT {
            key.fill("overflow".to_string());
        }
        series
            .entry(key)
            .or_insert_with(|| self.template.fresh())
            .clone()
    }

    /// Forgets one combination, for what no longer exists.
    pub fn remove(&self, values: &[&str]) {
        lock(&self.series).retain(|key, _| key.as_slice() != values);
    }

    fn each(&self, mut visit: impl FnMut(&str, &M)) {
        for (values, metric) in lock(&self.series).iter() {
            let mut labels = String::new();
            for (label, value) in self.labels.iter().zip(values) {
                if !labels.is_empty() {
                    labels.push(',');
                }
                let _ = write!(labels, "{label}=\"{}\"", escape_label(value));
            }
            visit(&labels, metric);
        }
    }
}

/// A new metric of the same shape; for the metrics of this module only.
pub trait Fresh {
    fn fresh(&self) -> Self;
}

impl Fresh for Counter {
    fn fresh(&self) -> Counter {
        Counter::default()
    }
}

impl Fresh for Gauge {
    fn fresh(&self) -> Gauge {
        Gauge::default()
    }
}

impl Fresh for Histogram {
    fn fresh(&self) -> Histogram {
        Histogram::new(self.0.bounds.clone())
    }
}

impl Counter {
    pub fn increment(&self) {
        self.add(1);
    }

    pub fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Gauge {
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub fn add(&self, by: i64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    pub fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Histogram {
    fn new(bounds: Arc<[f64]>) -> Histogram {
        assert!(bounds.is_sorted(), "BUG: histogram bounds are not in order");
        // One more for what is above the last bound.
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram(Arc::new(Buckets {
            bounds,
            counts,
            sum_bits: AtomicU64::new(0),
        }))
    }

    pub fn observe(&self, value: f64) {
        let bucket = self.0.bounds.partition_point(|bound| *bound < value);
        self.0.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let add = |bits| Some((f64::from_bits(bits) + value).to_bits());
        // The closure always returns Some, so this cannot fail.
        let _ = self
            .0
            .sum_bits
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    pub fn count(&self) -> u64 {
        self.0
            .counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }

    pub fn sum(&self) -> f64 {
        f64::from_bits(self.0.sum_bits.load(Ordering::Relaxed))
    }
}

impl AnyFamily {
    fn kind(&self) -> &'static str {
        match self {
            AnyFamily::Counter(_) => "counter",
            AnyFamily::Gauge(_) => "gauge",
            AnyFamily::Histogram(_) => "histogram",
        }
    }

    fn encode(&self, name: &str, text: &mut String) {
        match self {
            AnyFamily::Counter(family) => {
                family.each(|labels, metric| line(text, name, labels, metric.value()));
            }
            AnyFamily::Gauge(family) => {
                family.each(|labels, metric| line(text, name, labels, metric.value()));
            }
            AnyFamily::Histogram(family) => {
                family.each(|labels, metric| encode_histogram(text, name, labels, &metric.0));
            }
        }
    }
}

fn encode_histogram(text: &mut String, name: &str, labels: &str, buckets: &Buckets) {
    let comma = if labels.is_empty() { "" } else { "," };
    let bounds = buckets
        .bounds
        .iter()
        .map(f64::to_string)
        .chain(["+Inf".to_string()]);
    let mut total = 0;
    for (bound, count) in bounds.zip(&buckets.counts) {
        total += count.load(Ordering::Relaxed);
        let labels = format!("{labels}{comma}le=\"{bound}\"");
        line(text, &format!("{name}_bucket"), &labels, total);
    }
    let sum = f64::from_bits(buckets.sum_bits.load(Ordering::Relaxed));
    line(text, &format!("{name}_sum"), labels, sum);
    line(text, &format!("{name}_count"), labels, total);
}

fn line(text: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = match labels {
        "" => writeln!(text, "{name} {value}"),
        labels => writeln!(text, "{name}{{{labels}}} {value}"),
    };
}

/// Escapes a label value as the text format wants it.
pub fn escape_label(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

fn is_metric_name(name: &str) -> bool {
    let part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
    !name.is_empty() && name.bytes().all(part) && !name.as_bytes()[0].is_ascii_digit()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_format() {
        let registry = Registry::new();
        registry.counter("b_total", "Things.").add(3);
        registry.gauge("a", "Line\nbreak \\.").set(-2);
        let family = registry.counters("c_total", "By path.", &["path", "code"]);
        family.with(&["/a\"b\\c\nd", "200"]).increment();
        family.with(&["/gone", "404"]).increment();
        family.remove(&["/gone", "404"]);
        let times = registry.histogram("h_seconds", "Times.", &[0.1, 1.0]);
        for value in [0.05, 0.1, 0.5, 7.0] {
            times.observe(value);
        }
        let want = "\
# HELP a Line\\nbreak \\\\.\n# TYPE a gauge\na -2
# HELP b_total Things.\n# TYPE b_total counter\nb_total 3
# HELP c_total By path.\n# TYPE c_total counter
c_total{path=\"/a\\\"b\\\\c\\nd\",code=\"200\"} 1
# HELP h_seconds Times.\n# TYPE h_seconds histogram
h_seconds_bucket{le=\"0.1\"} 2
h_seconds_bucket{le=\"1\"} 3
h_seconds_bucket{le=\"+Inf\"} 4
h_seconds_sum 7.65
h_seconds_count 4
";
        assert_eq!(registry.encode(), want);
    }

    #[test]
    fn the_same_name_is_the_same_metric() {
        let registry = Registry::new();
        registry.counter("n_total", "N.").increment();
        registry.clone().counter("n_total", "N.").increment();
        assert_eq!(registry.counter("n_total", "N.").value(), 2);
    }

    #[test]
    fn series_are_bounded() {
        let family = Registry::new().counters("n_total", "N.", &["id"]);
        for id in 0..SERIES_LIMIT + 5 {
            family.with(&[&id.to_string()]).increment();
        }
        assert_eq!(family.with(&["overflow"]).value(), 5);
    }
}
