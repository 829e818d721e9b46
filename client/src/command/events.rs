//! `rbox events`

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;
use longshore_runtime::Error;
use longshore_runtime::events::{Event, EventQuery};
use longshore_runtime::lifecycle::rfc3339;
use serde_json::json;

use super::Global;
use super::format::ListFormat;
use super::label::{Wanted, all_fit, joined};
use super::logs::parse_time;
use crate::error::Result;
use crate::text::printable;

/// Show what happens to containers, images, networks and volumes
///
/// These are the types container, image, network and volume. Without --until it goes on until it is interrupted. The store keeps the last ones, about 2 MB of them.
#[derive(Debug, Args)]
pub(super) struct Events {
    /// Also those since this time (2026-01-31, 2026-01-31T12:00, 2026-01-31T12:00:00Z), or for so long (1h30m)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<SystemTime>,
    /// Only those before this time
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<SystemTime>,
    /// Only those that fit: container=, event=, image=, label=, network=, volume=, type= or scope=; of
    /// one kind any (but all labels), of several all
    #[arg(short, long, value_name = "KIND=VALUE", value_parser = Filter::parse)]
    filter: Vec<Filter>,
    #[command(flatten)]
    format: ListFormat,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Filter {
    Container(String),
    Event(String),
    Image(String),
    Label(Wanted),
    Network(String),
    Volume(String),
    Type(String),
    Scope(String),
}

impl Filter {
    fn parse(text: &str) -> std::result::Result<Self, String> {
        let (kind, value) = text.split_once('=').ok_or("KIND=VALUE")?;
        let value = value.to_owned();
        Ok(match kind {
            "container" => Self::Container(value),
            "event" => Self::Event(value),
            "image" => Self::Image(value),
            "label" => Self::Label(Wanted::parse(&value, true)?),
            "network" => Self::Network(value),
            "volume" => Self::Volume(value),
            "type" => Self::Type(value),
            "scope" => Self::Scope(value),
            _ => return Err("the kinds are container, event, image, label, network, volume, type and scope".into()),
        })
    }

    fn fits(&self, event: &Event) -> bool {
        let attribute = |name: &str| event.actor.attributes.get(name).map(String::as_str);
        let is = |kind: &str, text: &str| {
            let is_id = !text.is_empty() && event.actor.id.starts_with(text);
            event.kind == kind && (is_id || attribute("name") == Some(text))
        };
        match self {
            Self::Container(text) => is("container", text),
            Self::Network(text) => is("network", text),
            Self::Volume(text) => is("volume", text),
            // docker's `health_status: healthy` is a health_status, too.
            Self::Event(text) => event.action == *text || event.action.split_once(": ").is_some_and(|(action, _)| action == text),
            // By its name, with or without the tag, and an image by its ID, too.
            Self::Image(text) => {
                let names = match event.kind.as_str() {
                    "image" => [Some(event.actor.id.as_str()), attribute("name")],
                    "container" => [attribute("image"), None],
                    _ => return false,
                };
                let untagged = |name: &str| name.rsplit_once(':').is_some_and(|(name, tag)| name == text && !tag.contains('/'));
                let fits = |name: &str| name == text || untagged(name);
                names.into_iter().flatten().any(fits)
            }
            Self::Label(wanted) => wanted.fits(attribute),
            Self::Type(text) => event.kind == *text,
            Self::Scope(text) => event.scope == *text,
        }
    }
}

impl Events {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        // As with docker: an end that is past means all that was before it.
        let past = self.until.is_some_and(|until| until <= SystemTime::now());
        let since = self.since.or_else(|| past.then_some(SystemTime::UNIX_EPOCH));
        let mut out = io::stdout().lock();
        global.store()?.events(EventQuery { since, until: self.until }, &mut |event| {
            if !self.wants(&event) {
                return Ok(true);
            }
            let line = self.format.line(&json!(event))?.unwrap_or_else(|| line(&event));
            let written = writeln!(out, "{line}");
            match written.and_then(|()| out.flush()) {
                Ok(()) => Ok(true),
                // The reader has what it wanted.
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
                Err(e) => Err(Error::io("write events", e)),
            }
        })?;
        Ok(ExitCode::SUCCESS)
    }

    fn wants(&self, event: &Event) -> bool {
        all_fit(&self.filter, |one| matches!(one, Filter::Label(_)), |one| one.fits(event))
    }
}

/// docker's line: `TIME TYPE ACTION ID (NAME=VALUE, ...)`.
fn line(event: &Event) -> String {
    let (kind, action, id) = (&event.kind, &event.action, &event.actor.id);
    printable(&format!("{} {kind} {action} {id} ({})", rfc3339(event.when()), joined(&event.actor.attributes, ", ")))
}
