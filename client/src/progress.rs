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
    /// What is done with bytes that have arrived.
    unpacking: &'static str,
    /// What moves bytes, as an event.
    event: &'static str,
    exists: &'static str,
    complete: &'static str,
}

/// For `pull`.
pub const PULL: Words = Words {
    waiting: "Waiting",
    moving: "Downloading",
    unpacking: "Extracting",
    event: "extracting",
    exists: "Already exists",
    complete: "Pull complete",
};

/// For `load`.
pub const LOAD: Words = Words { moving: "Loading", complete: "Load complete", ..PULL };

/// For `push`.
pub const PUSH: Words = Words {
    waiting: "Preparing",
    moving: "Pushing",
    unpacking: "Pushing",
    event: "uploading",
    exists: "Layer already exists",
    complete: "Pushed",
};

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
        Form::Json => Arc::new(Json { words, layers: Mutex::default() }),
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
            LayerEvent::Started { .. } | LayerEvent::Arrived(_) | LayerEvent::Moved(_) => return,
        };
        // A closed standard error is no reason to stop a transfer.
        let _ = writeln!(std::io::stderr(), "{}: {words}", digest.short());
    }
}

/// How far a layer is, in bytes.
#[derive(Clone, Copy, Default)]
struct Course {
    total: u64,
    arrived: u64,
    moved: u64,
    /// It is fetched: all of it arrives before all of it has moved.
    fetched: bool,
}

impl Course {
    fn take(&mut self, event: LayerEvent) {
        match event {
            LayerEvent::Started { total_bytes, resumed_bytes } => {
                *self = Self { total: total_bytes, arrived: resumed_bytes, moved: 0, fetched: resumed_bytes > 0 };
            }
            LayerEvent::Arrived(bytes) => {
                // What came wrong comes again.
                self.arrived = self.arrived.saturating_add(bytes).min(self.total);
                self.fetched = true;
            }
            LayerEvent::Moved(bytes) => self.moved = self.moved.saturating_add(bytes).min(self.total),
            LayerEvent::Complete => self.moved = self.total,
            LayerEvent::Exists | LayerEvent::Waiting => {}
        }
    }

    fn is_arriving(&self) -> bool {
        self.fetched && self.arrived < self.total
    }
}

/// How often a layer that moves is told of as JSON, in either way.
const JSON_INTERVAL: Duration = Duration::from_millis(250);

/// Lines of JSON: `layer` its digest, `event`, and how many `bytes` of how many in `total` are there.
struct Json {
    words: Words,
    layers: Mutex<HashMap<Digest, Told>>,
}

#[derive(Default)]
struct Told {
    course: Course,
    arrived: Option<Instant>,
    moved: Option<Instant>,
}

impl Json {
    /// The line for an event, if it is time for one.
    fn line(&self, digest: &Digest, event: LayerEvent, now: Instant) -> Option<String> {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        let layer = layers.entry(digest.clone()).or_default();
        layer.course.take(event);
        let is_time = |told: &mut Option<Instant>| {
            let is_time = told.is_none_or(|told| now.duration_since(told) >= JSON_INTERVAL);
            *told = if is_time { Some(now) } else { *told };
            is_time
        };
        let (name, bytes) = match event {
            LayerEvent::Exists => ("exists", 0),
            LayerEvent::Waiting => ("waiting", 0),
            LayerEvent::Started { resumed_bytes: 0, .. } => ("started", 0),
            LayerEvent::Started { resumed_bytes, .. } => ("resumed", resumed_bytes),
            LayerEvent::Arrived(_) => is_time(&mut layer.arrived).then_some(("downloading", layer.course.arrived))?,
            LayerEvent::Moved(_) => is_time(&mut layer.moved).then_some((self.words.event, layer.course.moved))?,
            LayerEvent::Complete => ("complete", layer.course.total),
        };
        let line = json!({ "layer": digest.as_str(), "event": name, "bytes": bytes, "total": layer.course.total });
        Some(line.to_string())
    }
}

impl Progress for Json {
    fn layers(&self, layers: &[Descriptor]) {
        let mut known = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        for layer in layers {
            known.entry(layer.digest.clone()).or_default().course.total = layer.size;
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
    bars: Mutex<HashMap<Digest, (ProgressBar, Course)>>,
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
                (bar, Course::default())
            });
        }
    }

    fn layer(&self, digest: &Digest, event: LayerEvent) {
        // Drawn after the lock is let go.
        let (bar, was_arriving, course) = {
            let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
            let Some((bar, course)) = bars.get_mut(digest) else { return };
            let was_arriving = course.is_arriving();
            course.take(event);
            (bar.clone(), was_arriving, *course)
        };
        let finish = |words: &'static str| {
            bar.set_style(style("{prefix}: {msg}"));
            bar.finish_with_message(words);
        };
        match event {
            LayerEvent::Exists => finish(self.words.exists),
            LayerEvent::Waiting => bar.set_message(self.words.waiting),
            LayerEvent::Started { total_bytes, resumed_bytes } => {
                bar.set_style(style("{prefix}: {msg} [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec} {eta}"));
                bar.set_length(total_bytes);
                // Not fetched just now: that is no speed.
                bar.set_position(resumed_bytes);
                bar.reset_eta();
                bar.set_message(if resumed_bytes > 0 { "Resuming" } else { self.words.moving });
                bar.enable_steady_tick(Duration::from_millis(250));
            }
            // One bar after the other, for what takes longer at the time.
            LayerEvent::Arrived(_) if course.is_arriving() => bar.set_position(course.arrived),
            LayerEvent::Arrived(_) if was_arriving || course.moved == 0 => {
                bar.set_message(self.words.unpacking);
                bar.set_position(course.moved);
                bar.reset_eta();
            }
            LayerEvent::Moved(_) if !course.is_arriving() => bar.set_position(course.moved),
            LayerEvent::Arrived(_) | LayerEvent::Moved(_) => {}
            LayerEvent::Complete => finish(self.words.complete),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_counts_bytes_and_is_not_told_of_each_of_them() {
        let (json, digest, start) = (Json { words: PULL, layers: Mutex::default() }, Digest::of(b"x"), Instant::now());
        let mut told = Vec::new();
        let mut tell = |event, later_ms| told.extend(json.line(&digest, event, start + Duration::from_millis(later_ms)));
        tell(LayerEvent::Waiting, 0);
        tell(LayerEvent::Started { total_bytes: 100, resumed_bytes: 10 }, 0);
        tell(LayerEvent::Arrived(20), 1);
        tell(LayerEvent::Arrived(20), 2);
        tell(LayerEvent::Moved(5), 2);
        tell(LayerEvent::Arrived(500), 300);
        tell(LayerEvent::Moved(20), 301);
        tell(LayerEvent::Complete, 302);
        let event =
            |name: &str, bytes: u64, total: u64| json!({"layer": digest.as_str(), "event": name, "bytes": bytes, "total": total});
        let told: Vec<serde_json::Value> = told.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let expected = [
            event("waiting", 0, 0),
            event("resumed", 10, 100),
            event("downloading", 30, 100),
            event("extracting", 5, 100),
            event("downloading", 100, 100),
            event("extracting", 25, 100),
            event("complete", 100, 100),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_bar_shows_the_download_and_then_what_is_left_to_unpack() {
        let digest = Digest::of(b"x");
        let drawing = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
        let bars = Bars { words: PULL, drawing, bars: Mutex::default() };
        bars.layers(&[Descriptor { digest: digest.clone(), size: 100, media_type: String::new(), platform: None }]);
        let tell = |event| {
            bars.layer(&digest, event);
            let bars = bars.bars.lock().unwrap();
            (bars[&digest].0.message(), bars[&digest].0.position())
        };
        assert_eq!(tell(LayerEvent::Started { total_bytes: 100, resumed_bytes: 0 }), ("Downloading".into(), 0));
        assert_eq!(tell(LayerEvent::Arrived(60)), ("Downloading".into(), 60));
        assert_eq!(tell(LayerEvent::Moved(30)), ("Downloading".into(), 60));
        assert_eq!(tell(LayerEvent::Arrived(40)), ("Extracting".into(), 30));
        assert_eq!(tell(LayerEvent::Moved(30)), ("Extracting".into(), 60));
        assert_eq!(tell(LayerEvent::Complete).0, "Pull complete");
    }
}
