//! What a load measured, as its JSON says.
//!
//! A view of the JSON of `rconform load` with the parts a page and a comparison need. It asks for little
//! and takes what else is there, so that summaries of other versions can be read. The document of two
//! registries measured in turn has their summaries in `rounds`, a pair each, and the ratios in `figures`.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::plot::figure;

/// What one document of `rconform load` holds.
#[derive(Debug, Clone)]
pub struct Loads {
    /// The load; two where two registries took turns.
    pub loads: Vec<Measured>,
    /// Of two registries that took turns: their figures' ratios over the rounds.
    pub ratios: Vec<Spread>,
}

/// A figure of two registries that took turns, over all rounds.
#[derive(Debug, Clone, Deserialize)]
pub struct Spread {
    /// What it is, its unit included.
    pub name: String,
    /// The median of the first registry.
    pub first: f64,
    /// The median of the second.
    pub second: f64,
    /// Second to first, the median over the rounds.
    pub ratio: f64,
    /// The smallest of these ratios.
    pub ratio_min: f64,
    /// The largest.
    pub ratio_max: f64,
}

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
    /// Manifests that referred to another one before.
    #[serde(default)]
    pub existing_referrers: u64,
    /// How long each connection paused between requests.
    #[serde(default)]
    pub think_ms: f64,
    /// What an open load asked of the registry.
    #[serde(default)]
    pub offered: Option<Offered>,
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

/// What an open load asked of a registry.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Offered {
    /// Requests a second that were to start.
    pub per_second: f64,
    /// Requests a second that did.
    #[serde(default)]
    pub started_per_second: f64,
    /// Whether what was offered was asked.
    #[serde(default = "yes")]
    pub reached: bool,
}

fn yes() -> bool {
    true
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

/// The document of two registries that took turns.
#[derive(Deserialize)]
struct Versus {
    rounds: Vec<[Measured; 2]>,
    #[serde(default)]
    figures: Vec<Spread>,
}

impl Loads {
    /// Reads a document. Of two registries that took turns, the round with the middle throughput stands
    /// for each, with the failures of all rounds.
    ///
    /// # Errors
    /// When a field is missing or has another type.
    pub fn read(document: &Value) -> serde_json::Result<Self> {
        let measured_at = document["measured_at"].as_str().unwrap_or_default();
        let (mut loads, ratios) = if document.get("rounds").is_some() {
            let Versus { rounds, figures } = Versus::deserialize(document)?;
            let middle = |place: usize| middle(rounds.iter().map(|round| round[place].clone()).collect());
            ([0, 1].into_iter().filter_map(middle).collect(), figures)
        } else {
            (vec![Measured::deserialize(document)?], Vec::new())
        };
        for load in loads.iter_mut().filter(|load| load.measured_at.is_empty()) {
            measured_at.clone_into(&mut load.measured_at);
        }
        Ok(Self { loads, ratios })
    }
}

/// The round with the middle throughput; what went wrong in any of them is not lost.
fn middle(mut rounds: Vec<Measured>) -> Option<Measured> {
    let failures = rounds.iter().map(|round| round.failures).sum();
    let first_failure = rounds.iter().find_map(|round| round.first_failure.clone());
    let generator_was_the_limit = rounds.iter().any(|round| round.generator_was_the_limit);
    rounds.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    let middle = (!rounds.is_empty()).then(|| rounds.swap_remove(rounds.len() / 2))?;
    Some(Measured { failures, first_failure, generator_was_the_limit, ..middle })
}

impl Measured {
    /// What was done, in a few words.
    pub fn title(&self) -> String {
        let connections =
            if self.connections == 1 { "1 connection".to_owned() } else { format!("{} connections", self.connections) };
        let kind = if self.kind.is_empty() { "load" } else { &self.kind };
        let rate =
            self.offered.map_or(String::new(), |offered| format!(", {} requests a second offered", figure(offered.per_second)));
        format!("{kind} over {connections}{rate}")
    }

    /// Whether the same was asked of both registries.
    pub fn is_comparable(&self, other: &Self) -> bool {
        let settings = |load: &Self| {
            let before = [load.connections, load.size_bytes, load.existing_tags, load.existing_referrers];
            (load.kind.clone(), before, load.think_ms, load.offered.map(|offered| offered.per_second))
        };
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
        let loads = Loads::read(&load("http://a/", 5.0)).unwrap().loads;
        assert_eq!(loads[0].quantiles(), [(0.5, 0.9), (0.99, 3.0), (1.0, 9.5)]);
        assert_eq!(loads[0].timeline, []);
        assert!(loads[0].figures().iter().any(|f| f.to_string() == "latency, p50: 0.9 ms"), "{:?}", loads[0].figures());
    }

    #[test]
    fn a_distribution_is_preferred_and_what_cannot_be_drawn_left_out() {
        let mut document = load("http://a/", 5.0);
        document["latency_distribution"] = json!([[0.9, 2.0], [0.5, 1.0], [7.0, 1.0], [0.99, -1.0]]);
        document["timeline"] = json!([[0.5, 10], [1.0, 11.5]]);
        let loads = Loads::read(&document).unwrap().loads;
        assert_eq!(loads[0].quantiles(), [(0.5, 1.0), (0.9, 2.0)]);
        assert_eq!(loads[0].timeline, [(0.5, 10.0), (1.0, 11.5)]);
    }

    #[test]
    fn registries_that_took_turns_are_shown_by_their_middle_rounds_and_no_failure_is_lost() {
        let mut rounds: Vec<_> =
            [(1.0, 4.0), (9.0, 3.0), (5.0, 2.0)].map(|(a, b)| [load("http://a/", a), load("http://a/", b)]).to_vec();
        rounds[0][0]["failures"] = 3.into();
        rounds[0][0]["first_failure"] = "gone".into();
        let figure = json!({"name": "requests/s", "first": 5.0, "second": 3.0, "ratio": 0.6, "ratio_min": 0.3, "ratio_max": 4.0});
        let found = Loads::read(&json!({"measured_at": "then", "rounds": rounds, "figures": [figure]})).unwrap();
        let [a, b] = &found.loads[..] else { panic!("{found:?}") };
        assert_eq!((a.per_second, a.failures, a.first_failure.as_deref()), (5.0, 3, Some("gone")));
        assert_eq!((b.per_second, b.failures, b.measured_at.as_str()), (3.0, 0, "then"));
        assert_eq!((found.ratios[0].name.as_str(), found.ratios[0].ratio_max), ("requests/s", 4.0));
        assert!(Loads::read(&json!({"rounds": []})).unwrap().loads.is_empty());
    }

    #[test]
    fn what_was_offered_is_part_of_what_was_asked() {
        let mut open = load("http://a/", 5.0);
        open["offered"] = json!({"per_second": 5000.0, "started_per_second": 4000.0, "reached": false, "not_started": 9});
        let (open, closed) = (Loads::read(&open).unwrap().loads, Loads::read(&load("http://a/", 5.0)).unwrap().loads);
        assert!(!open[0].is_comparable(&closed[0]));
        assert!(open[0].title().ends_with("5,000 requests a second offered"), "{}", open[0].title());
    }

    #[test]
    fn what_looks_like_a_load_and_lacks_a_number_is_an_error_that_names_it() {
        let error = Loads::read(&json!({"latency_ms": {}, "registry": "http://a/", "requests": 1})).unwrap_err();
        assert!(error.to_string().contains("per_second"), "{error}");
    }
}
