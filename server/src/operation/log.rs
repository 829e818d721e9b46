//! The log: one line an event on standard error, for people or as JSON.
//!
//! What clients send may stand in a line: whatever could drive a terminal or begin a line of its own
//! is escaped. Lines are written by a thread of their own, many at a time; when standard error
//! is not taken off the server's hands they are lost and counted, and the server goes on.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use crate::config::{self, Format};
use crate::limits::{LOG_BATCH_BYTES, LOG_QUEUE_BYTES, LOG_TEXT_LIMIT_BYTES};

static QUEUE: OnceLock<Sender<Entry>> = OnceLock::new();
/// Bytes of lines in the queue.
static QUEUED_BYTES: AtomicUsize = AtomicUsize::new(0);
/// Lines that found no room in it.
static LOST: AtomicU64 = AtomicU64::new(0);

enum Entry {
    Line(Vec<u8>),
    /// Answered when everything before it has been written.
    Flush(SyncSender<()>),
}

/// Begins to log. Only the first call does anything.
pub fn start(settings: &config::Log) {
    let level = match settings.level {
        config::Level::Error => Level::ERROR,
        config::Level::Warn => Level::WARN,
        config::Level::Info => Level::INFO,
        config::Level::Debug => Level::DEBUG,
    };
    let format = settings.format;
    let (queue, entries) = channel();
    if QUEUE.set(queue).is_err() {
        return;
    }
    std::thread::spawn(move || write_all(&entries, format));
    let lines = Lines { format };
    tracing_subscriber::fmt().with_max_level(level).event_format(lines).with_writer(ToQueue).init();
}

/// Waits until what was logged is written, a second at most.
pub fn flush() {
    let (answer, answered) = sync_channel(1);
    if let Some(queue) = QUEUE.get()
        && queue.send(Entry::Flush(answer)).is_ok()
    {
        let _ = answered.recv_timeout(Duration::from_secs(1));
    }
}

/// Lines that were lost so far.
pub(super) fn lost() -> u64 {
    LOST.load(Relaxed)
}

fn write_all(entries: &Receiver<Entry>, format: Format) {
    let mut told = 0;
    while let Ok(first) = entries.recv() {
        let (mut batch, mut flushed) = (Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(entry) = next {
            match entry {
                Entry::Line(line) => batch.extend_from_slice(&line),
                Entry::Flush(answer) => flushed.push(answer),
            }
            next = (batch.len() < LOG_BATCH_BYTES).then(|| entries.try_recv().ok()).flatten();
        }
        QUEUED_BYTES.fetch_sub(batch.len(), Relaxed);
        let lost = lost();
        if lost > told {
            let lines = lost - told;
            let _ = match format {
                Format::Text => writeln!(batch, "{lines} log lines were lost: nobody took them in time"),
                Format::Json => writeln!(batch, "{{\"level\":\"error\",\"message\":\"log lines were lost\",\"lines\":{lines}}}"),
            };
            told = lost;
        }
        // Nobody there to read it: there is nowhere to say so.
        let _ = io::stderr().write_all(&batch);
        for answer in flushed {
            // Whoever asked may have given up waiting.
            let _ = answer.try_send(());
        }
    }
}

struct ToQueue;

impl<'a> MakeWriter<'a> for ToQueue {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

/// The subscriber writes an event's whole line at once.
impl io::Write for ToQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if QUEUED_BYTES.fetch_add(line.len(), Relaxed) > LOG_QUEUE_BYTES {
            QUEUED_BYTES.fetch_sub(line.len(), Relaxed);
            LOST.fetch_add(1, Relaxed);
        } else if let Some(queue) = QUEUE.get() {
            // The thread that takes it lasts as long as the process.
            let _ = queue.send(Entry::Line(line.to_vec()));
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes a line of an event.
struct Lines {
    format: Format,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>, N: for<'a> FormatFields<'a> + 'static> FormatEvent<S, N> for Lines {
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut line = Line { format: self.format, text: String::new(), message: String::new() };
        event.record(&mut line);
        let level = *event.metadata().level();
        // An event that is nothing but fields is called by its target.
        let message = if line.message.is_empty() { event.metadata().target() } else { &line.message };
        let mut text = match self.format {
            Format::Text => format!("{time} {level:5} {}", Escaped(message)),
            Format::Json => {
                let level = level.as_str().to_lowercase();
                format!("{{\"time\":\"{time}\",\"level\":\"{level}\",\"message\":{}", json(message))
            }
        };
        text.push_str(&line.text);
        if self.format == Format::Json {
            text.push('}');
        }
        writeln!(out, "{text}")
    }
}

/// The fields of an event, as they stand in its line.
struct Line {
    format: Format,
    text: String,
    message: String,
}

impl Line {
    fn text(&mut self, field: &Field, value: &str) {
        let value = cut(value);
        if field.name() == "message" {
            value.clone_into(&mut self.message);
            return;
        }
        // Writing to memory cannot fail.
        let _ = match self.format {
            Format::Json => write!(self.text, ",\"{}\":{}", field.name(), json(value)),
            Format::Text => {
                let bare = !value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\' | b'='));
                match bare {
                    true => write!(self.text, " {}={value}", field.name()),
                    false => write!(self.text, " {}={value:?}", field.name()),
                }
            }
        };
    }

    fn plain(&mut self, field: &Field, value: &dyn fmt::Display) {
        let _ = match self.format {
            Format::Json => write!(self.text, ",\"{}\":{value}", field.name()),
            Format::Text => write!(self.text, " {}={value}", field.name()),
        };
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, &value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.plain(field, &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, &value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, &format!("{value:?}"));
    }
}

/// As much of it as one line may hold.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(LOG_TEXT_LIMIT_BYTES)]
}

/// A JSON string in ASCII: a terminal that shows it must not be driven by it either, and JSON alone
/// would let DEL, C1 controls and changes of direction through.
fn json(text: &str) -> String {
    let mut escaped = String::new();
    for c in Value::from(text).to_string().chars() {
        if c == '\x7f' || !c.is_ascii() {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to memory cannot fail.
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// A text in which whatever is not meant to be seen is escaped.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Quotes are no danger outside of quotes.
        self.0.chars().try_for_each(|c| if matches!(c, '"' | '\'') { f.write_char(c) } else { write!(f, "{}", c.escape_debug()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes what a test logs, in place of standard error.
    #[derive(Clone, Default)]
    struct Kept(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format, log: impl FnOnce()) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = tracing_subscriber::fmt().event_format(Lines { format }).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, log);
        String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
    }

    /// Newlines, terminal escapes (7 and 8 bits), a change of direction, quotes, a backslash.
    const HOSTILE: &str = "a\nb\x1b[2Jc\u{9b}31md\u{202e}e\"f\\g\x7f\r\0";

    fn harmless(line: &str) -> bool {
        line.ends_with('\n') && line.trim_end_matches('\n').chars().all(|c| c == ' ' || c.is_ascii_graphic())
    }

    #[test]
    fn untrusted_text_neither_drives_a_terminal_nor_begins_a_line() {
        for format in [Format::Text, Format::Json] {
            let line = logged(format, || tracing::warn!(path = HOSTILE, id = %HOSTILE, "said {HOSTILE}"));
            assert!(harmless(&line), "{line:?}");
        }
    }

    #[test]
    fn a_json_line_reads_back_as_it_was_logged() {
        let line = logged(Format::Json, || {
            tracing::error!(path = HOSTILE, status = 500, took = 3_u128, user = None::<&str>, ok = true, "said {HOSTILE}");
        });
        let document: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(document["path"], HOSTILE);
        assert_eq!(document["message"], format!("said {HOSTILE}"));
        assert_eq!((&document["level"], &document["status"], &document["took"]), (&"error".into(), &500.into(), &3.into()));
        assert_eq!((document.get("user"), &document["ok"]), (None, &true.into()));
        assert!(document["time"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn a_text_line_is_read_by_eye_and_by_cut() {
        let line = logged(Format::Text, || tracing::warn!(target: "request", path = "/v2/", user = "a b", empty = "", n = 1));
        assert!(line.contains(" WARN  request path=/v2/ user=\"a b\" empty=\"\" n=1"), "{line}");
        let line = logged(Format::Text, || tracing::info!("it's \"fine\""));
        assert!(line.contains(" INFO  it's \"fine\"\n"), "{line}");
    }

    #[test]
    fn a_long_line_is_cut() {
        let long = "ä".repeat(LOG_TEXT_LIMIT_BYTES);
        let line = logged(Format::Text, || tracing::info!(long));
        assert!(line.len() < LOG_TEXT_LIMIT_BYTES + 100, "{}", line.len());
    }
}
