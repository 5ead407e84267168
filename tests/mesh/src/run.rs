//! Runs the calls of a case against one proxy and writes down what happened, comparably.

use crate::bootstrap;
use crate::call::{Call, Protocol, Record};
use crate::case::Case;
use crate::certificates::Certificates;
use crate::client::{self, Kept};
use crate::compare::{contains, counts};
use crate::http1::shown;
use crate::normal;
use crate::proxy_process::{Kind, ProxyProcess, admin_get, free_port};
use crate::upstream::Upstreams;
use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const LOG_WAIT: Duration = Duration::from_secs(3);
const UNTIL_WAIT: Duration = Duration::from_secs(15);

/// What a case gave with one proxy: per call its comparable result and what was wrong at once.
pub struct Outcome {
    pub results: Vec<Value>,
    pub faults: Vec<String>,
}

pub struct Setting<'a> {
    pub case: &'a Case,
    pub upstreams: &'a Upstreams,
    pub certificates: &'a Certificates,
    pub folder: &'a Path,
}

impl Setting<'_> {
    /// The names under which the case's configuration finds ports and files.
    pub fn places(&self, kind: Kind) -> Result<BTreeMap<String, String>> {
        let mut places = BTreeMap::new();
        for (name, port) in &self.upstreams.ports {
            places.insert(format!("upstream.{name}"), port.to_string());
        }
        let mut listeners = BTreeSet::new();
        for name in ["http", "https", "tcp"] {
            if self.case.config.get(name).is_some() {
                listeners.insert(name.to_owned());
            }
        }
        let text = self.case.config.to_string();
        for part in text.split("${port.").skip(1) {
            listeners.extend(part.split('}').next().map(str::to_owned));
        }
        for name in listeners {
            places.insert(format!("port.{name}"), free_port()?.to_string());
        }
        places.insert("admin".to_owned(), free_port()?.to_string());
        let log = self.log_file(kind).display().to_string();
        places.insert("access_log".to_owned(), log);
        let types = "type.googleapis.com/envoy.extensions";
        places.insert("t".to_owned(), types.to_owned());
        places.insert(
            "certs".to_owned(),
            self.certificates.folder().display().to_string(),
        );
        Ok(places)
    }

    fn log_file(&self, kind: Kind) -> PathBuf {
        self.folder.join(format!("{}-access.log", kind.name()))
    }

    pub async fn run(&self, kind: Kind) -> Result<Outcome> {
        let concurrency = self.case.calls.concurrency.unwrap_or(1);
        let mut attempts = 0;
        let (process, places) = loop {
            let places = self.places(kind)?;
            let bootstrap = bootstrap::expand(&self.case.config, &places)?;
            attempts += 1;
            match ProxyProcess::start(kind, &bootstrap, self.folder, concurrency).await {
                Ok(process) => break (process, places),
                Err(error) if attempts < 3 && format!("{error:#}").contains("in use") => {}
                Err(error) => return Err(error),
            }
        };
        let ports = places.iter().filter_map(|(name, place)| {
            let name = name
                .strip_prefix("upstream.")
                .or_else(|| name.strip_prefix("port."))?;
            Some((place.parse().ok()?, format!("<{name}>")))
        });
        let mut steps = Steps {
            setting: self,
            process,
            ports: ports.collect(),
            places,
            log: Log {
                file: self.log_file(kind),
                offset: 0,
            },
            kept: BTreeMap::new(),
            faults: Vec::new(),
        };
        let mut results = Vec::new();
        for call in &self.case.calls.calls {
            let mut result = steps.step(call).await;
            normal::replace(&mut result, &steps.ports);
            results.push(result);
            if !steps.process.alive() {
                steps
                    .faults
                    .push(format!("{}: died: {}", call.name, steps.process.said()));
                break;
            }
        }
        Ok(Outcome {
            results,
            faults: steps.faults,
        })
    }
}

struct Steps<'a> {
    setting: &'a Setting<'a>,
    process: ProxyProcess,
    ports: BTreeMap<u16, String>,
    places: BTreeMap<String, String>,
    log: Log,
    kept: BTreeMap<String, Option<Kept>>,
    faults: Vec<String>,
}

impl Steps<'_> {
    async fn step(&mut self, call: &Call) -> Value {
        if let Some(path) = &call.admin {
            return self.admin(call, path).await;
        }
        if !call.stats.is_empty() {
            return self.stats(call).await;
        }
        let begun = Instant::now();
        self.setting.upstreams.script.begin(&call.upstream);
        let results = if call.until.is_null() {
            self.perform(call).await
        } else {
            self.perform_until(call).await
        };
        let took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        if let Some([least, most]) = call.took_ms
            && !(least..=most).contains(&took)
        {
            self.faults.push(format!(
                "{}: took {took} ms, not {least} to {most}",
                call.name
            ));
        }
        let lines = call.log.unwrap_or(match call.protocol {
            Protocol::Tcp => 0,
            _ => results.len(),
        });
        let log = self.log.lines(lines).await;
        let result = self.record(call, results, log);
        if call.until.is_null() {
            self.check_shares(call, &result);
        }
        result
    }

    fn port(&self, call: &Call) -> u16 {
        let configured = &self.setting.case.config;
        let default = if configured.get("http").is_some() {
            "http"
        } else {
            "tcp"
        };
        let name = call.to.as_deref().unwrap_or(default);
        self.places
            .get(&format!("port.{name}"))
            .and_then(|port| port.parse().ok())
            .unwrap_or(0)
    }

    async fn perform(&mut self, call: &Call) -> Vec<Value> {
        let (port, certificates) = (self.port(call), self.setting.certificates);
        let count = call.repeat.unwrap_or(1);
        if call.parallel {
            return parallel(call, port, certificates, count).await;
        }
        let mut results = Vec::new();
        for _ in 0..count {
            let mut none = None;
            let kept = match &call.keep {
                Some(name) => self.kept.entry(name.clone()).or_default(),
                None => &mut none,
            };
            results.push(client::perform(call, port, certificates, kept).await);
        }
        results
    }

    /// One result: the first that contains `until`; the attempts before leave no trace.
    async fn perform_until(&mut self, call: &Call) -> Vec<Value> {
        let begun = Instant::now();
        loop {
            self.setting.upstreams.script.begin(&call.upstream);
            let mut results = self.perform(call).await;
            let mut shown = results.pop().unwrap_or(Value::Null);
            let mut fits = contains(&self.with_upstream(&shown), &call.until);
            // What goes beside the answer (a mirrored request) may come a moment after it.
            for _ in 0..20 {
                if fits || call.until.get("upstream").is_none() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
                fits = contains(&self.with_upstream(&shown), &call.until);
            }
            let log = self.log.lines(call.log.unwrap_or(1)).await;
            if fits {
                // The lines were read here: they must not be waited for again.
                self.log.give_back(&log);
                return vec![shown];
            }
            if begun.elapsed() > UNTIL_WAIT {
                let text = format!("{}: not within {UNTIL_WAIT:?}: {}", call.name, call.until);
                self.faults.push(text);
                self.log.give_back(&log);
                shown["late"] = Value::Bool(true);
                return vec![shown];
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn with_upstream(&self, result: &Value) -> Value {
        let mut whole = result.clone();
        if let Some(map) = whole.as_object_mut() {
            let saw = self.setting.upstreams.script.saw();
            map.insert("upstream".to_owned(), Value::Array(saw));
        }
        normal::replace(&mut whole, &self.ports);
        whole
    }

    fn record(&self, call: &Call, mut results: Vec<Value>, log: Vec<Value>) -> Value {
        let saw = self.setting.upstreams.script.saw();
        let at = || saw.iter().filter_map(|request| request["at"].as_str());
        match call.record {
            Record::Each if results.len() == 1 => {
                let mut result = results.remove(0);
                if let Some(map) = result.as_object_mut() {
                    map.insert("upstream".to_owned(), Value::Array(saw.clone()));
                    map.insert("log".to_owned(), Value::Array(log));
                }
                result
            }
            Record::Each => json!({"results": results, "upstream": saw, "log": log}),
            Record::Counts => {
                let statuses: Vec<String> = results
                    .iter()
                    .map(|result| match result["status"].as_u64() {
                        Some(status) => status.to_string(),
                        None => result["failed"].as_str().unwrap_or("none").to_owned(),
                    })
                    .collect();
                let flags = log.iter().filter_map(|line| line["flags"].as_str());
                json!({
                    "status": counts(statuses.iter().map(String::as_str)),
                    "at": counts(at()),
                    "flags": counts(flags),
                })
            }
            Record::Cycle => json!({"cycle": turned(&at().collect::<Vec<_>>())}),
        }
    }

    fn check_shares(&mut self, call: &Call, result: &Value) {
        let total = call.repeat.unwrap_or(1) as f64;
        for (name, [least, most]) in &call.within {
            let found = result["at"]
                .get(name)
                .or_else(|| result["status"].get(name));
            let share = found.and_then(Value::as_f64).unwrap_or(0.0) / total;
            if share < *least || share > *most {
                let text = format!(
                    "{}: {name} got {share:.3}, not {least} to {most}",
                    call.name
                );
                self.faults.push(text);
            }
        }
    }

    async fn admin(&mut self, call: &Call, path: &str) -> Value {
        let begun = Instant::now();
        loop {
            let mut result = match admin_get(self.process.admin, path).await {
                Ok((status, kind, body)) => {
                    let mut result = json!({"status": status, "content_type": kind});
                    let parsed: Value =
                        serde_json::from_slice(&body).unwrap_or_else(|_| shown(&body));
                    if call.select.is_empty() && parsed.is_object() {
                        let keys: Vec<_> =
                            parsed.as_object().into_iter().flat_map(Map::keys).collect();
                        result["keys"] = json!(keys);
                    }
                    for pointer in &call.select {
                        let found = parsed.pointer(pointer);
                        result[pointer.as_str()] = found.cloned().unwrap_or(Value::Null);
                    }
                    result
                }
                Err(error) => json!({"failed": format!("{error:#}")}),
            };
            normal::replace(&mut result, &self.ports);
            if call.until.is_null() || contains(&result, &call.until) {
                return result;
            }
            if begun.elapsed() > UNTIL_WAIT {
                self.faults.push(format!(
                    "{}: {} never came: {result}",
                    call.name, call.until
                ));
                return result;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Counters and gauges by name, once they stand still.
    async fn stats(&mut self, call: &Call) -> Value {
        let mut last = Value::Null;
        for _ in 0..50 {
            let now = match self.read_stats(call).await {
                Ok(now) => now,
                Err(error) => json!({"failed": format!("{error:#}")}),
            };
            if now == last {
                break;
            }
            last = now;
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        last
    }

    async fn read_stats(&self, call: &Call) -> Result<Value> {
        let (_, _, body) = admin_get(self.process.admin, "/stats?format=json").await?;
        let parsed: Value = serde_json::from_slice(&body).context("/stats?format=json")?;
        let all = parsed["stats"].as_array().context("no stats")?;
        let value = |name: &str| {
            let found = all.iter().find(|stat| stat["name"] == name);
            found.map_or(Value::Null, |stat| stat["value"].clone())
        };
        Ok(call
            .stats
            .iter()
            .map(|name| (name.clone(), value(name)))
            .collect::<Map<_, _>>()
            .into())
    }
}

async fn parallel(call: &Call, port: u16, certificates: &Certificates, count: usize) -> Vec<Value> {
    let calls = (0..count).map(|_| async {
        let mut none = None;
        client::perform(call, port, certificates, &mut none).await
    });
    let mut pending: Vec<_> = calls.map(Box::pin).collect();
    let mut results = Vec::new();
    std::future::poll_fn(|context| {
        pending.retain_mut(|future| match future.as_mut().poll(context) {
            std::task::Poll::Ready(result) => {
                results.push(result);
                false
            }
            std::task::Poll::Pending => true,
        });
        if pending.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    results
}

/// The order from the first occurrence of the smallest name, in whole rounds.
fn turned(order: &[&str]) -> Vec<String> {
    let names: BTreeSet<&str> = order.iter().copied().collect();
    let first = order
        .iter()
        .position(|name| Some(name) == names.first())
        .unwrap_or(0);
    let keep = order.len().saturating_sub(names.len());
    order[first..]
        .iter()
        .take(keep)
        .map(|name| (*name).to_owned())
        .collect()
}

/// The access log file, read as it grows.
struct Log {
    file: PathBuf,
    offset: usize,
}

impl Log {
    async fn lines(&mut self, count: usize) -> Vec<Value> {
        let begun = Instant::now();
        loop {
            let text = std::fs::read(&self.file).unwrap_or_default();
            let new = text.get(self.offset..).unwrap_or_default();
            let whole = new
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |end| end + 1);
            let lines = String::from_utf8_lossy(&new[..whole]).into_owned();
            if lines.lines().count() >= count || begun.elapsed() > LOG_WAIT {
                self.offset += whole;
                return lines.lines().map(words).collect();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn give_back(&mut self, lines: &[Value]) {
        let text = std::fs::read(&self.file).unwrap_or_default();
        for _ in lines {
            let before = text
                .get(..self.offset.saturating_sub(1))
                .unwrap_or_default();
            self.offset = before
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |end| end + 1);
        }
    }
}

/// `key=value` words as a map; JSON as it is; any other line as it is.
fn words(line: &str) -> Value {
    if line.starts_with('{')
        && let Ok(value) = serde_json::from_str(line)
    {
        return value;
    }
    let pairs: Option<Map<String, Value>> = line
        .split(' ')
        .map(|word| {
            word.split_once('=')
                .map(|(key, value)| (key.to_owned(), json!(value)))
        })
        .collect();
    pairs.map_or_else(|| json!(line), Value::Object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_begins_with_the_smallest_name() {
        for (order, want) in [
            (&["b", "c", "a", "b", "c", "a"][..], &["a", "b", "c"][..]),
            (&["a", "b", "a", "b"], &["a", "b"]),
        ] {
            assert_eq!(turned(order), want);
        }
    }

    #[test]
    fn log_lines_of_words_become_maps() {
        assert_eq!(words("a=1 b=x=y"), json!({"a": "1", "b": "x=y"}));
        assert_eq!(words("plain text"), json!("plain text"));
        assert_eq!(words("{\"a\":1}"), json!({"a": 1}));
    }
}
