//! Counting, and the counts as text (Prometheus text exposition format 0.0.4).
//!
//! Whatever is counted while requests are served is one addition to an atomic number, found by
//! index: no lock, no look-up, and no label a client could make up.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::{Method, StatusCode};

use super::requests::EndpointKind;

/// Upper bounds of the duration histogram's buckets, in microseconds.
const BUCKETS_US: [u64; 16] = [
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    5_000_000,
    30_000_000,
    120_000_000,
    600_000_000,
];
const METHODS: [&str; 7] = ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "other"];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// A number that goes up, or up and down.
#[derive(Debug, Default)]
pub(super) struct Number(AtomicU64);

impl Number {
    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    /// Adds one and gives the number before.
    pub(super) fn enter(&self) -> u64 {
        self.0.fetch_add(1, Relaxed)
    }

    pub(super) fn leave(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Everything that is counted.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    requests: [[Requests; METHODS.len()]; EndpointKind::ALL.len()],
    pub(super) in_progress: Number,
    pub(super) refused: Number,
    pub(super) received_bytes: Number,
    pub(super) sent_bytes: Number,
    pub(super) storage_errors: Number,
    pub(super) connections: Number,
    pub(super) connections_accepted: Number,
    pub(super) handshakes_failed: Number,
}

/// The requests of one method to one kind of endpoint.
#[derive(Debug, Default)]
struct Requests {
    by_class: [Number; CLASSES.len()],
    /// Each request in the first bucket it fits in; the last is for what fits in none.
    by_duration: [Number; BUCKETS_US.len() + 1],
    duration_sum_us: Number,
}

impl Metrics {
    /// Counts a request that has been answered whole.
    pub(super) fn finished(&self, method: &Method, endpoint: EndpointKind, status: StatusCode, took: Duration) {
        let method = METHODS.iter().position(|name| *name == method.as_str()).unwrap_or(METHODS.len() - 1);
        let requests = &self.requests[endpoint as usize][method];
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1;
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        requests.by_class[class].add(1);
        requests.by_duration[BUCKETS_US.partition_point(|bound| *bound < took_us)].add(1);
        requests.duration_sum_us.add(took_us);
    }

    fn requests(&self) -> impl Iterator<Item = (String, &Requests)> {
        self.requests.iter().zip(EndpointKind::ALL).flat_map(|(by_method, endpoint)| {
            let labelled = move |(requests, method)| (format!("method=\"{method}\",endpoint=\"{}\"", endpoint.name()), requests);
            by_method.iter().zip(METHODS).map(labelled)
        })
    }

    /// Everything that was counted, in the exposition format.
    pub(super) fn write(&self, page: &mut Page) {
        page.family("rhub_requests_total", "counter", "Requests answered, by method, endpoint and class of status.");
        for (labels, requests) in self.requests() {
            for (count, class) in requests.by_class.iter().zip(CLASSES).filter(|(count, _)| count.get() > 0) {
                page.sample("rhub_requests_total", &format!("{labels},status=\"{class}\""), count.get());
            }
        }
        let name = "rhub_request_duration_seconds";
        page.family(name, "histogram", "From a request's headers to its answer's last byte.");
        for (labels, requests) in self.requests() {
            requests.write_durations(page, name, &labels);
        }
        for (name, kind, help, number) in [
            ("rhub_requests_in_progress", "gauge", "Requests being worked on.", &self.in_progress),
            ("rhub_requests_refused_total", "counter", "Requests refused because limits.requests was reached.", &self.refused),
            ("rhub_received_bytes_total", "counter", "Bytes of request bodies.", &self.received_bytes),
            ("rhub_sent_bytes_total", "counter", "Bytes of response bodies.", &self.sent_bytes),
            ("rhub_storage_errors_total", "counter", "Requests that failed in the server.", &self.storage_errors),
            ("rhub_connections", "gauge", "Open connections.", &self.connections),
            ("rhub_connections_total", "counter", "Connections accepted.", &self.connections_accepted),
            (
                "rhub_handshakes_failed_total",
                "counter",
                "Connections that ended in their TLS handshake.",
                &self.handshakes_failed,
            ),
        ] {
            page.number(name, kind, help, number.get());
        }
    }
}

impl Requests {
    fn write_durations(&self, page: &mut Page, name: &str, labels: &str) {
        let mut count = 0;
        let buckets: Vec<u64> = self.by_duration.iter().map(Number::get).collect();
        if buckets.iter().all(|bucket| *bucket == 0) {
            return;
        }
        for (bucket, bound_us) in buckets.iter().zip(BUCKETS_US.map(Some).into_iter().chain([None])) {
            count += bucket;
            let bound = bound_us.map_or("+Inf".into(), |bound_us| seconds(bound_us).to_string());
            page.sample(&format!("{name}_bucket"), &format!("{labels},le=\"{bound}\""), count);
        }
        page.sample(&format!("{name}_sum"), labels, seconds(self.duration_sum_us.get()));
        page.sample(&format!("{name}_count"), labels, count);
    }
}

/// Good to the microsecond for the first 285 years.
#[expect(clippy::cast_precision_loss, reason = "a measured time")]
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

/// A page in the exposition format. Names, labels and help are this program's own words: there is
/// nothing to escape in them.
#[derive(Debug, Default)]
pub(super) struct Page(String);

impl Page {
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    pub(super) fn sample(&mut self, name: &str, labels: &str, value: impl fmt::Display) {
        match labels {
            "" => self.line(format_args!("{name} {value}")),
            _ => self.line(format_args!("{name}{{{labels}}} {value}")),
        }
    }

    /// A family of one sample.
    pub(super) fn number(&mut self, name: &str, kind: &str, help: &str, value: impl fmt::Display) {
        self.family(name, kind, help);
        self.sample(name, "", value);
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        // Writing to memory cannot fail.
        let _ = writeln!(self.0, "{line}");
    }
}
