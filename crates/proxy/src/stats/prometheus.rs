//! Prometheus' text format with Envoy's names: `envoy_` and the name without tags.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::Kind;
use super::histogram::Recorded;
use super::snapshot::{Sample, Snapshot, Value};
use super::tags::StatsConfig;

/// One series below a metric's name.
type Series = (String, Sample);

/// All statistics; `used_only` leaves out what never counted.
pub fn render(
    snapshot: &Snapshot,
    config: &StatsConfig,
    used_only: bool,
    keep: impl Fn(&str) -> bool,
) -> String {
    // As Envoy: counters, gauges, histograms, each sorted by name.
    let mut metrics: BTreeMap<(&'static str, String), Vec<Series>> = BTreeMap::new();
    for (name, sample) in &snapshot.samples {
        if (used_only && !sample.is_used()) || !keep(name) {
            continue;
        }
        let (cut, tags) = config.extract(name);
        let metric = format!("envoy_{}", sanitized(&cut));
        let labels = tags
            .iter()
            .map(|(name, value)| (sanitized(name), value.as_str()));
        metrics
            .entry((kind(sample.kind), metric))
            .or_default()
            .push((label_text(labels), sample.clone()));
    }
    for family in snapshot.families.values() {
        if used_only && !family.sample.is_used() || !keep(family.name) {
            continue;
        }
        let labels = family
            .labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.as_str()));
        metrics
            .entry((kind(family.sample.kind), family.name.to_owned()))
            .or_default()
            .push((label_text(labels), family.sample.clone()));
    }
    let mut out = String::with_capacity(metrics.len() * 128);
    for ((kind, metric), mut series) in metrics {
        let _ = writeln!(out, "# TYPE {metric} {kind}");
        series.sort_by(|a, b| a.0.cmp(&b.0));
        for (labels, sample) in series {
            match &sample.value {
                Value::Number(value) => {
                    let _ = writeln!(out, "{metric}{{{labels}}} {value}");
                }
                Value::Histogram(recorded) => {
                    histogram(
                        &mut out,
                        &metric,
                        &labels,
                        (recorded, config.buckets(&metric)),
                    );
                }
            }
        }
    }
    out
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    }
}

fn histogram(out: &mut String, metric: &str, labels: &str, data: (&Recorded, &[f64])) {
    let (recorded, buckets) = data;
    let comma = if labels.is_empty() { "" } else { "," };
    for bound in buckets {
        let count = recorded.at_most(*bound);
        let _ = writeln!(
            out,
            "{metric}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}"
        );
    }
    let count = recorded.count;
    let _ = writeln!(out, "{metric}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
    let _ = writeln!(out, "{metric}_sum{{{labels}}} {}", recorded.sum);
    let _ = writeln!(out, "{metric}_count{{{labels}}} {count}");
}

fn label_text<'a>(labels: impl Iterator<Item = (String, &'a str)>) -> String {
    let mut out = String::new();
    for (name, value) in labels {
        if !out.is_empty() {
            out.push(',');
        }
        let _ = write!(out, "{name}=\"{}\"", escaped(value));
    }
    out
}

fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for one in value.chars() {
        match one {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            one => out.push(one),
        }
    }
    out
}

/// Letters, digits and `_`; a digit first gets one in front.
fn sanitized(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 1);
    for one in name.chars() {
        if out.is_empty() && one.is_ascii_digit() {
            out.push('_');
        }
        out.push(if one.is_ascii_alphanumeric() || one == '_' {
            one
        } else {
            '_'
        });
    }
    out
}
