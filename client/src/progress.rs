//! Progress: bars on a terminal, a line a layer elsewhere, or lines of JSON for programs.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use longshore_runtime::image::Descriptor;
use longshore_runtime::name::Digest;
use longshore_runtime::progress::{LayerEvent, Progress};
use serde_json::json;

/// Times a second that bars are drawn.
const DRAWS_PER_SECOND: u8 = 15;

/// The words docker uses for either direction.
#[derive(Debug, Clone, Copy)]
pub struct Words {
    waiting: &'static str,
    moving: &'static str,
    exists: &'static str,
    complete: &'static str,
}

/// For `pull`.
pub const PULL: Words = Words { waiting: "Waiting", moving: "Pulling", exists: "Already exists", complete: "Pull complete" };

/// For `load`.
pub const LOAD: Words = Words { waiting: "Waiting", moving: "Loading", exists: "Already exists", complete: "Load complete" };

/// For `push`.
pub const PUSH: Words = Words { waiting: "Preparing", moving: "Pushing", exists: "Layer already exists", complete: "Pushed" };

/// How progress is shown, on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Form {
    /// Bars on a terminal, else lines
    #[default]
    Auto,
    /// A line when something begins or ends
    Plain,
    /// A line of JSON for each event
    Json,
    /// Nothing
    Quiet,
}

/// Progress on standard error: bars if that is a terminal, lines if not, nothing when `quiet`.
pub fn reporter(words: Words, quiet: bool) -> Arc<dyn Progress> {
    reporter_as(words, if quiet { Form::Quiet } else { Form::Auto })
}

/// Progress on standard error in this form.
pub fn reporter_as(words: Words, form: Form) -> Arc<dyn Progress> {
    match form {
        Form::Quiet => Arc::new(Silent),
        Form::Json => Arc::new(Json::default()),
        Form::Auto if std::io::stderr().is_terminal() => {
            let target = ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND);
            Arc::new(Bars { words, drawing: MultiProgress::with_draw_target(target), bars: Mutex::default() })
        }
        Form::Auto | Form::Plain => Arc::new(Lines { words }),
    }
}

struct Silent;

impl Progress for Silent {
    fn layers(&self, _: &[Descriptor]) {}
    fn layer(&self, _: &Digest, _: LayerEvent) {}
}

struct Lines {
    words: Words,
}

impl Progress for Lines {
    fn layers(&self, _: &[Descriptor]) {}

    fn layer(&self, digest: &Digest, event: LayerEvent) {
        let words = match event {
            LayerEvent::Exists => self.words.exists,
            LayerEvent::Waiting => self.words.waiting,
            LayerEvent::Started { resumed_bytes: 1.., .. } => "Resuming",
            LayerEvent::Complete => self.words.complete,
            LayerEvent::Started { .. } | LayerEvent::Moved(_) => return,
        };
        // A closed standard error is no reason to stop a transfer.
        let _ = writeln!(std::io::stderr(), "{}: {words}", digest.short());
    }
}

/// How often a layer that moves is told of as JSON.
const JSON_INTERVAL: Duration = Duration::from_millis(250);

/// Lines of JSON: `layer` its digest, `event`, and how many `bytes` of how many in `total` are there.
#[derive(Default)]
struct Json {
    layers: Mutex<HashMap<Digest, Moving>>,
}

#[derive(Default)]
struct Moving {
    bytes: u64,
    total_bytes: u64,
    told: Option<Instant>,
}

impl Json {
    /// The line for an event, if it is time for one.
    fn line(&self, digest: &Digest, event: LayerEvent, now: Instant) -> Option<String> {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        let layer = layers.entry(digest.clone()).or_default();
        let name = match event {
            LayerEvent::Exists => "exists",
            LayerEvent::Waiting => "waiting",
            LayerEvent::Started { total_bytes, resumed_bytes } => {
                *layer = Moving { bytes: resumed_bytes, total_bytes, told: Some(now) };
                if resumed_bytes > 0 { "resumed" } else { "started" }
            }
            LayerEvent::Moved(bytes) => {
                layer.bytes = layer.bytes.saturating_add(bytes).min(layer.total_bytes);
                if layer.told.is_some_and(|told| now.duration_since(told) < JSON_INTERVAL) {
                    return None;
                }
                layer.told = Some(now);
                "moved"
            }
            LayerEvent::Complete => {
                layer.bytes = layer.total_bytes;
                "complete"
            }
        };
        let line = json!({ "layer": digest.as_str(), "event": name, "bytes": layer.bytes, "total": layer.total_bytes });
        Some(line.to_string())
    }
}

impl Progress for Json {
    fn layers(&self, layers: &[Descriptor]) {
        let mut known = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        for layer in layers {
            known.entry(layer.digest.clone()).or_default().total_bytes = layer.size;
        }
    }

    fn layer(&self, digest: &Digest, event: LayerEvent) {
        if let Some(line) = self.line(digest, event, Instant::now()) {
            // A closed standard error is no reason to stop a transfer.
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }
}

struct Bars {
    words: Words,
    drawing: MultiProgress,
    bars: Mutex<HashMap<Digest, ProgressBar>>,
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

impl Progress for Bars {
    fn layers(&self, layers: &[Descriptor]) {
        let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        for layer in layers {
            bars.entry(layer.digest.clone()).or_insert_with(|| {
                let bar = self.drawing.add(ProgressBar::new(layer.size));
                bar.set_style(style("{prefix}: {msg}"));
                bar.set_prefix(layer.digest.short().to_owned());
                bar.set_message(self.words.waiting);
                bar.tick();
                bar
            });
        }
    }

    fn layer(&self, digest: &Digest, event: LayerEvent) {
        let Some(bar) = self.bars.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned() else { return };
        let finish = |words: &'static str| {
            bar.set_style(style("{prefix}: {msg}"));
            bar.finish_with_message(words);
        };
        match event {
            LayerEvent::Exists => finish(self.words.exists),
            LayerEvent::Waiting => bar.set_message(self.words.waiting),
            LayerEvent::Started { total_bytes, resumed_bytes } => {
                bar.set_style(style("{prefix}: {msg} [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec} {eta}"));
                bar.set_message(self.words.moving);
                bar.set_length(total_bytes);
                bar.reset_elapsed();
                bar.enable_steady_tick(Duration::from_millis(250));
                if resumed_bytes > 0 {
                    bar.set_message("Resuming");
                }
            }
            LayerEvent::Moved(bytes) => bar.inc(bytes),
            LayerEvent::Complete => finish(self.words.complete),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_counts_bytes_and_is_not_told_of_each_of_them() {
        let (json, digest, start) = (Json::default(), Digest::of(b"x"), Instant::now());
        let mut told = Vec::new();
        let mut tell = |event, later_ms| told.extend(json.line(&digest, event, start + Duration::from_millis(later_ms)));
        tell(LayerEvent::Waiting, 0);
        tell(LayerEvent::Started { total_bytes: 100, resumed_bytes: 10 }, 0);
        tell(LayerEvent::Moved(20), 1);
        tell(LayerEvent::Moved(20), 300);
        tell(LayerEvent::Moved(500), 301);
        tell(LayerEvent::Complete, 302);
        let event =
            |name: &str, bytes: u64, total: u64| json!({"layer": digest.as_str(), "event": name, "bytes": bytes, "total": total});
        let told: Vec<serde_json::Value> = told.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(
            told,
            [event("waiting", 0, 0), event("resumed", 10, 100), event("moved", 50, 100), event("complete", 100, 100)]
        );
    }
}
