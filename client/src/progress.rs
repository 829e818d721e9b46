//! Progress for people: bars on a terminal, a line a layer elsewhere.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use longshore_runtime::image::Descriptor;
use longshore_runtime::name::Digest;
use longshore_runtime::progress::{LayerEvent, Progress};

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

/// For `copy`.
pub const COPY: Words = Words { waiting: "Waiting", moving: "Copying", exists: "Already exists", complete: "Copied" };

/// Progress on standard error: bars if that is a terminal, lines if not, nothing when `quiet`.
pub fn reporter(words: Words, quiet: bool) -> Arc<dyn Progress> {
    if quiet {
        Arc::new(Silent)
    } else if std::io::stderr().is_terminal() {
        let target = ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND);
        Arc::new(Bars { words, drawing: MultiProgress::with_draw_target(target), bars: Mutex::default() })
    } else {
        Arc::new(Lines { words })
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
