//! All values at one moment, by name, for text, JSON and Prometheus.

use std::collections::BTreeMap;

use super::Kind;
use super::histogram::{Histogram, Recorded};
use super::tags::StatsConfig;

/// A name and its labels.
type Labelled = (&'static str, Vec<(&'static str, String)>);

#[derive(Debug, Default)]
pub struct Snapshot {
    /// By Envoy's full name.
    pub samples: BTreeMap<String, Sample>,
    /// Statistics that carry their labels themselves (istio.stats).
    pub families: BTreeMap<Labelled, Family>,
}

#[derive(Debug, Clone)]
pub struct Sample {
    pub kind: Kind,
    pub value: Value,
}

#[derive(Debug, Clone)]
pub enum Value {
    Number(u64),
    Histogram(Recorded),
}

/// One labelled series.
#[derive(Debug, Clone)]
pub struct Family {
    /// Without Envoy's `istiocustom.`.
    pub name: &'static str,
    pub labels: Vec<(&'static str, String)>,
    pub sample: Sample,
}

impl Sample {
    /// Something was counted or recorded.
    pub fn is_used(&self) -> bool {
        match &self.value {
            Value::Number(value) => *value != 0,
            Value::Histogram(recorded) => recorded.count > 0,
        }
    }
}

impl Snapshot {
    pub fn add(&mut self, name: &str, kind: Kind, value: u64) {
        match self.samples.get_mut(name) {
            Some(Sample {
                value: Value::Number(sum),
                ..
            }) => *sum = sum.wrapping_add(value),
            _ => {
                let value = Value::Number(value);
                self.samples.insert(name.to_owned(), Sample { kind, value });
            }
        }
    }

    pub fn histogram(&mut self, name: &str, histogram: Option<&Histogram>) {
        let recorded = histogram.map(Histogram::read).unwrap_or_default();
        match self.samples.get_mut(name) {
            Some(Sample {
                value: Value::Histogram(sum),
                ..
            }) => sum.merge(&recorded),
            _ => {
                let value = Value::Histogram(recorded);
                self.samples.insert(
                    name.to_owned(),
                    Sample {
                        kind: Kind::Histogram,
                        value,
                    },
                );
            }
        }
    }

    /// Adds a labelled series, or its value to the one that is there (one filter per listener,
    /// one series per proxy).
    pub fn family(&mut self, family: Family) {
        let key = (family.name, family.labels.clone());
        match self.families.entry(key) {
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(family);
            }
            std::collections::btree_map::Entry::Occupied(mut place) => {
                match (&mut place.get_mut().sample.value, family.sample.value) {
                    (Value::Number(sum), Value::Number(value)) => *sum += value,
                    (Value::Histogram(sum), Value::Histogram(value)) => sum.merge(&value),
                    _ => {}
                }
            }
        }
    }

    /// Drops what the inclusion list leaves out.
    pub fn retain(&mut self, config: &StatsConfig) {
        self.samples.retain(|name, _| config.includes(name));
    }
}
