//! `/stats`: text, JSON and Prometheus.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{Answer, JSON, Picture, Query, TEXT};
use crate::stats::{Kind, Recorded, Sample, Snapshot, Value as Stat};

/// RE2 search, as in Envoy (not a full match); an old-style name is a search too.
struct Filter(Option<regex::Regex>);

impl Filter {
    fn of(query: &Query) -> Result<Filter, String> {
        let Some(text) = query.get("filter").filter(|text| !text.is_empty()) else {
            return Ok(Filter(None));
        };
        let built = regex::RegexBuilder::new(text).size_limit(1 << 20).build();
        built
            .map(|regex| Filter(Some(regex)))
            .map_err(|error| format!("Invalid regex: {error}"))
    }

    fn keeps(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|regex| regex.is_match(name))
    }
}

pub fn answer(query: &Query, picture: &Picture) -> Answer {
    let filter = match Filter::of(query) {
        Ok(filter) => filter,
        Err(error) => return Answer::failed(400, error),
    };
    match query.get("format").map(String::as_str) {
        Some("prometheus") => prometheus(query, picture),
        Some("json") => json_answer(query, &filter, &super::system::snapshot(picture)),
        None | Some("text") => text_answer(query, &filter, &super::system::snapshot(picture)),
        Some(_) => Answer::failed(
            400,
            "usage: /stats?format=json  or /stats?format=prometheus \n\n",
        ),
    }
}

pub fn prometheus(query: &Query, picture: &Picture) -> Answer {
    let filter = match Filter::of(query) {
        Ok(filter) => filter,
        Err(error) => return Answer::failed(400, error),
    };
    let stats = &picture.environment.stats;
    let used_only = query.contains_key("usedonly");
    let body = crate::stats::prometheus::render(
        &super::system::snapshot(picture),
        stats.config(),
        used_only,
        |name| filter.keeps(name),
    );
    Answer {
        status: 200,
        content_type: TEXT,
        body,
    }
}

/// Whether `usedonly`, `type` and `filter` leave a statistic in.
fn is_shown(query: &Query, filter: &Filter, name: &str, sample: &Sample) -> bool {
    let kind = match query.get("type").map(String::as_str) {
        Some("Counters") => sample.kind == Kind::Counter,
        Some("Gauges") => sample.kind == Kind::Gauge,
        Some("Histograms") => sample.kind == Kind::Histogram,
        _ => true,
    };
    // A gauge that went back to zero was used; we cannot tell, and show it.
    let used = sample.kind == Kind::Gauge || sample.is_used();
    kind && (used || !query.contains_key("usedonly")) && filter.keeps(name)
}

/// Envoy's name of a labelled series, for the formats without labels.
fn flat_name(family: &crate::stats::Family) -> String {
    let mut name = format!("istiocustom.{}", family.name);
    for (label, value) in &family.labels {
        name.push_str(&format!(".{label}.{value}"));
    }
    name
}

/// All statistics by their name.
fn named(snapshot: &Snapshot) -> Vec<(String, &Sample)> {
    let plain = snapshot
        .samples
        .iter()
        .map(|(name, sample)| (name.clone(), sample));
    let labelled = snapshot
        .families
        .values()
        .map(|one| (flat_name(one), &one.sample));
    let mut all: Vec<(String, &Sample)> = plain.chain(labelled).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn text_answer(query: &Query, filter: &Filter, snapshot: &Snapshot) -> Answer {
    let mut out = String::new();
    let mut histograms = String::new();
    for (name, sample) in named(snapshot) {
        if !is_shown(query, filter, &name, sample) {
            continue;
        }
        match &sample.value {
            Stat::Number(value) => {
                let _ = writeln!(out, "{name}: {value}");
            }
            Stat::Histogram(recorded) => {
                let _ = writeln!(histograms, "{name}: {}", quantiles_text(recorded));
            }
        }
    }
    Answer::text(out + &histograms)
}

const QUANTILES: [f64; 10] = [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1.0];

/// `P0(nan,1) P25(nan,1.025) …`: interval (which we do not keep) and total.
fn quantiles_text(recorded: &Recorded) -> String {
    if recorded.count == 0 {
        return "No recorded values".to_owned();
    }
    let parts = QUANTILES.iter().map(|quantile| {
        let value = recorded.quantile(*quantile).unwrap_or(f64::NAN);
        format!("P{}(nan,{})", quantile * 100.0, rounded(value))
    });
    parts.collect::<Vec<_>>().join(" ")
}

/// Six significant digits without trailing zeros, as C++ streams print.
fn rounded(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return "0".to_owned();
    }
    let digits = (5 - value.abs().log10().floor() as i32).clamp(0, 12) as usize;
    let text = format!("{value:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

fn json_answer(query: &Query, filter: &Filter, snapshot: &Snapshot) -> Answer {
    let mut stats: Vec<Value> = Vec::new();
    let mut computed: Vec<Value> = Vec::new();
    for (name, sample) in named(snapshot) {
        if !is_shown(query, filter, &name, sample) {
            continue;
        }
        match &sample.value {
            Stat::Number(value) => stats.push(json!({ "name": name, "value": value })),
            Stat::Histogram(recorded) => {
                let values = QUANTILES.iter().map(|quantile| {
                    let value = recorded.quantile(*quantile);
                    json!({ "cumulative": value, "interval": Value::Null })
                });
                computed.push(json!({ "name": name, "values": values.collect::<Vec<_>>() }));
            }
        }
    }
    if !computed.is_empty() {
        let supported: Vec<Value> = QUANTILES
            .iter()
            .map(|quantile| number(quantile * 100.0))
            .collect();
        stats.push(json!({ "histograms": {
            "supported_quantiles": supported,
            "computed_quantiles": computed,
        }}));
    }
    let body = json!({ "stats": stats }).to_string();
    Answer {
        status: 200,
        content_type: JSON,
        body,
    }
}

fn number(value: f64) -> Value {
    if value.fract() == 0.0 {
        json!(value as u64)
    } else {
        json!(value)
    }
}
