//! Errors and warnings: for people on standard error, for engines in a log file.
//!
//! The file is opened for each line, so that it never has the number of a descriptor that is the
//! container's to inherit.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::SystemTime;

use clap::ValueEnum;
use longshore_runtime::lifecycle::rfc3339;
use serde_json::json;

/// What a line in the log file looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// `time="..." level=error msg="..."`
    Text,
    /// `{"level":"error","msg":"...","time":"..."}`
    Json,
}

/// Where lines go.
#[derive(Debug)]
pub(crate) struct Log {
    file: Option<PathBuf>,
    format: Format,
}

impl Log {
    pub(crate) fn new(file: Option<PathBuf>, format: Format) -> Self {
        Self { file, format }
    }

    /// The error this program ends with.
    pub(crate) fn error(&self, text: &str) {
        self.write("error", text);
        say(&format!("roci: {text}"));
    }

    /// What went wrong without being an error.
    pub(crate) fn warning(&self, text: &str) {
        self.write("warning", text);
        say(&format!("warning: {text}"));
    }

    /// What somebody who looks for a mistake wants to know.
    pub(crate) fn debug(&self, text: &str) {
        self.write("debug", text);
        if self.file.is_none() {
            say(&format!("level=debug msg={text:?}"));
        }
    }

    fn write(&self, level: &str, text: &str) {
        let Some(path) = &self.file else { return };
        let time = rfc3339(SystemTime::now());
        let line = match self.format {
            Format::Json => format!("{}\n", json!({ "level": level, "msg": text, "time": time })),
            Format::Text => format!("time={time:?} level={level} msg={text:?}\n"),
        };
        let written = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o644)
            .open(path)
            .and_then(|mut log| log.write_all(line.as_bytes()));
        if let Err(error) = written {
            say(&format!("warning: write log {path:?}: {error}"));
        }
    }
}

fn say(text: &str) {
    // A closed standard error must not change what this program does.
    let _ = writeln!(std::io::stderr(), "{text}");
}
