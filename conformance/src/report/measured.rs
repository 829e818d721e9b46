//! What a load measured, as its JSON says.
//!
//! A view of the JSON of `rconform load` with the parts a page and a comparison need. It asks for little
//! and takes what else is there, so that summaries of other versions can be read.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::plot::figure;
use crate::limits::JSON_NESTING;

/// A load on one registry.
#[derive(Debug, Clone, Deserialize)]
pub struct Measured {
    /// The registry, by its base URL.
    pub registry: String,
    /// What was asked for.
    #[serde(default, deserialize_with = "name")]
    pub kind: String,
    /// Connections asking at the same time.
    #[serde(default)]
    pub connections: u64,
    /// The size of blobs, in bytes.
    #[serde(default)]
    pub size_bytes: u64,
    /// Tags there were before.
    #[serde(default)]
    pub existing_tags: u64,
    /// Requests that succeeded.
    pub requests: u64,
    /// Requests that did not.
    #[serde(default)]
    pub failures: u64,
    /// What was wrong with the first of them.
    #[serde(default)]
    pub first_failure: Option<String>,
    /// From the first request to the last answer.
    #[serde(default)]
    pub seconds: f64,
    /// Requests that succeeded.
    pub per_second: f64,
    /// Content moved, in units of 10^6 bytes.
    #[serde(default)]
    pub megabytes_per_second: f64,
    /// Latencies in milliseconds by name: `mean`, `p50`, `p999`, `max`.
    pub latency_ms: BTreeMap<String, f64>,
    /// Quantiles from 0 to 1, and the latency in milliseconds that such a part of the requests did not exceed.
    #[serde(default)]
    pub latency_distribution: Vec<(f64, f64)>,
    /// Seconds since the beginning, and the requests a second around then.
    #[serde(default)]
    pub timeline: Vec<(f64, f64)>,
    /// Of the registry's process.
    #[serde(default)]
    pub server: Option<Server>,
    /// Time of the processor the generator used.
    #[serde(default)]
    pub generator_cpu_s: f64,
    /// Whether the generator had no time left: then the registry can do more.
    #[serde(default)]
    pub generator_was_the_limit: bool,
    /// When it was measured, as in `2026-11-25T22:43:30Z`.
    #[serde(default)]
    pub measured_at: String,
}

/// What the registry's process used.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Server {
    /// User and system time of all threads.
    pub cpu_s: f64,
    /// The most memory resident, in bytes.
    pub peak_bytes: u64,
}

/// A summary with the time it was made at beside its own fields.
#[derive(Debug, Serialize)]
pub struct Dated<'a, T> {
    /// As in `2026-11-25T22:43:30Z`.
    pub measured_at: String,
    /// The summary.
    #[serde(flatten)]
    pub summary: &'a T,
}

/// One number of a load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure {
    /// What it is.
    pub name: &'static str,
    /// Its unit; empty for a plain count.
    pub unit: &'static str,
    /// The number.
    pub value: f64,
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, figure(self.value))?;
        if self.unit.is_empty() { Ok(()) } else { write!(f, " {}", self.unit) }
    }
}

/// The latencies shown: name in the JSON, name for people, quantile.
const LATENCIES: [(&str, &str, Option<f64>); 7] = [
    ("mean", "latency, mean", None),
    ("p50", "latency, p50", Some(0.5)),
    ("p90", "latency, p90", Some(0.9)),
    ("p99", "latency, p99", Some(0.99)),
    ("p999", "latency, p99.9", Some(0.999)),
    ("p9999", "latency, p99.99", Some(0.9999)),
    ("max", "latency, max", Some(1.0)),
];

impl Measured {
    /// The loads of a document: one, or those of a run that alternated between registries. Such a run
    /// may hold each registry several times, a round each; the round with the middle throughput stands
    /// for them.
    ///
    /// # Errors
    /// When what looks like a load lacks a field, or has one of another type.
    pub fn all_of(document: &Value) -> serde_json::Result<Vec<Self>> {
        let mut found = Vec::new();
        collect(document, JSON_NESTING, &mut found)?;
        let mut rounds: Vec<Vec<Self>> = Vec::new();
        for load in found {
            match rounds.iter_mut().find(|rounds| rounds[0].registry == load.registry && rounds[0].is_comparable(&load)) {
                Some(rounds) => rounds.push(load),
                None => rounds.push(vec![load]),
            }
        }
        let middle = |mut rounds: Vec<Self>| {
            rounds.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
            rounds.swap_remove(rounds.len() / 2)
        };
        Ok(rounds.into_iter().map(middle).collect())
    }

    /// What was done, in a few words.
    pub fn title(&self) -> String {
        let connections =
            if self.connections == 1 { "1 connection".to_owned() } else { format!("{} connections", self.connections) };
        format!("{} over {connections}", if self.kind.is_empty() { "load" } else { &self.kind })
    }

    /// Whether the same was asked of both registries.
    pub fn is_comparable(&self, other: &Self) -> bool {
        let settings = |load: &Self| (load.kind.clone(), load.connections, load.size_bytes, load.existing_tags);
        settings(self) == settings(other)
    }

    /// Its numbers, in the order in which they are shown; those it does not have are left out.
    pub fn figures(&self) -> Vec<Figure> {
        let figure = |name, unit, value| Figure { name, unit, value };
        let mut figures = vec![
            figure("requests", "", self.requests as f64),
            figure("failures", "", self.failures as f64),
            figure("throughput", "/s", self.per_second),
            figure("content", "MB/s", self.megabytes_per_second),
        ];
        let latency = |(key, name, _): &(&str, &'static str, _)| Some(figure(name, "ms", *self.latency_ms.get(*key)?));
        figures.extend(LATENCIES.iter().filter_map(latency));
        if let Some(server) = self.server {
            figures.push(figure("registry's processor time", "s", server.cpu_s));
            figures.push(figure("registry's peak memory", "MiB", server.peak_bytes as f64 / f64::from(1 << 20)));
        }
        figures.push(figure("generator's processor time", "s", self.generator_cpu_s));
        figures
    }

    /// Quantiles from 0 to 1 with their latency in milliseconds, in rising order: the distribution, or
    /// the few percentiles there are.
    pub fn quantiles(&self) -> Vec<(f64, f64)> {
        let mut points = self.latency_distribution.clone();
        if points.is_empty() {
            let point = |(key, _, quantile): &(&str, _, Option<f64>)| Some(((*quantile)?, *self.latency_ms.get(*key)?));
            points = LATENCIES.iter().filter_map(point).collect();
        }
        points.retain(|(quantile, ms)| (0.0..=1.0).contains(quantile) && ms.is_finite() && *ms >= 0.0);
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points
    }
}

/// Every load within `value`, however it is nested, up to `depth` levels.
fn collect(value: &Value, depth: usize, found: &mut Vec<Measured>) -> serde_json::Result<()> {
    match value {
        Value::Object(fields) if fields.contains_key("latency_ms") => found.push(Measured::deserialize(value)?),
        _ if depth == 0 => {}
        Value::Object(fields) => fields.values().try_for_each(|value| collect(value, depth - 1, found))?,
        Value::Array(values) => values.iter().try_for_each(|value| collect(value, depth - 1, found))?,
        _ => {}
    }
    Ok(())
}

/// A name, or the JSON of what is more than a name.
fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(name) => name,
        Value::Null => String::new(),
        other => other.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn load(registry: &str, per_second: f64) -> Value {
        let latency = json!({"mean": 1.0, "p50": 0.9, "p99": 3.0, "max": 9.5});
        json!({"registry": registry, "kind": "blob-get", "requests": 10, "per_second": per_second, "latency_ms": latency})
    }

    #[test]
    fn a_summary_without_the_newer_fields_is_read_and_drawn_by_its_percentiles() {
        let loads = Measured::all_of(&load("http://a/", 5.0)).unwrap();
        assert_eq!(loads[0].quantiles(), [(0.5, 0.9), (0.99, 3.0), (1.0, 9.5)]);
        assert_eq!(loads[0].timeline, []);
        assert!(loads[0].figures().iter().any(|f| f.to_string() == "latency, p50: 0.9 ms"), "{:?}", loads[0].figures());
    }

    #[test]
    fn a_distribution_is_preferred_and_what_cannot_be_drawn_left_out() {
        let mut document = load("http://a/", 5.0);
        document["latency_distribution"] = json!([[0.9, 2.0], [0.5, 1.0], [7.0, 1.0], [0.99, -1.0]]);
        document["timeline"] = json!([[0.5, 10], [1.0, 11.5]]);
        let loads = Measured::all_of(&document).unwrap();
        assert_eq!(loads[0].quantiles(), [(0.5, 1.0), (0.9, 2.0)]);
        assert_eq!(loads[0].timeline, [(0.5, 10.0), (1.0, 11.5)]);
    }

    #[test]
    fn two_registries_in_one_document_are_two_loads_each_by_its_middle_round() {
        let rounds = |registry, per_second: [f64; 3]| per_second.map(|per_second| load(registry, per_second));
        let document = json!({"ratio": 2.0, "a": rounds("http://a/", [1.0, 9.0, 5.0]), "b": {"rounds": rounds("http://b/", [4.0, 3.0, 2.0])}});
        let loads = Measured::all_of(&document).unwrap();
        let found: Vec<_> = loads.iter().map(|load| (load.registry.as_str(), load.per_second)).collect();
        assert_eq!(found, [("http://a/", 5.0), ("http://b/", 3.0)]);
    }

    #[test]
    fn what_looks_like_a_load_and_lacks_a_number_is_an_error_that_names_it() {
        let error = Measured::all_of(&json!({"latency_ms": {}, "registry": "http://a/", "requests": 1})).unwrap_err();
        assert!(error.to_string().contains("per_second"), "{error}");
    }
}
