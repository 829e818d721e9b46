//! `rbox events`

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;
use longshore_runtime::Error;
use longshore_runtime::events::{Event, EventQuery};
use longshore_runtime::lifecycle::rfc3339;

use super::logs::parse_time;
use super::{Format, Global};
use crate::error::Result;
use crate::text::printable;

/// Show what happens to containers
///
/// Without --until it goes on until it is interrupted. The store keeps the last ones, about 2 MB of them.
#[derive(Debug, Args)]
pub(super) struct Events {
    /// Also those since this time (2026-01-31T12:00:00Z), or for so long (1h30m)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<SystemTime>,
    /// Only those before this time
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<SystemTime>,
    /// Only those that fit: container=, event=, image=, label=, type= or scope=; of one kind any, of several all
    #[arg(short, long, value_name = "KIND=VALUE", value_parser = Filter::parse)]
    filter: Vec<Filter>,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Filter {
    kind: Kind,
    value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Container,
    Event,
    Image,
    Label,
    Type,
    Scope,
}

impl Filter {
    fn parse(text: &str) -> std::result::Result<Self, String> {
        let (kind, value) = text.split_once('=').ok_or("KIND=VALUE")?;
        let kind = match kind {
            "container" => Kind::Container,
            "event" => Kind::Event,
            "image" => Kind::Image,
            "label" => Kind::Label,
            "type" => Kind::Type,
            "scope" => Kind::Scope,
            _ => return Err("the kinds are container, event, image, label, type and scope".into()),
        };
        Ok(Self { kind, value: value.to_owned() })
    }

    fn fits(&self, event: &Event) -> bool {
        let (value, attributes) = (self.value.as_str(), &event.actor.attributes);
        let attribute = |name: &str| attributes.get(name).map(String::as_str);
        match self.kind {
            Kind::Container => {
                event.kind == "container"
                    && (!value.is_empty() && event.actor.id.starts_with(value) || attribute("name") == Some(value))
            }
            // docker's `health_status: healthy` is a health_status, too.
            Kind::Event => event.action == value || event.action.split_once(": ").is_some_and(|(action, _)| action == value),
            Kind::Image => {
                let image = attribute("image").unwrap_or_default();
                image == value || image.rsplit_once(':').is_some_and(|(name, _)| name == value)
            }
            Kind::Label => match value.split_once('=') {
                Some((name, value)) => attribute(name) == Some(value),
                None => attribute(value).is_some(),
            },
            Kind::Type => event.kind == value,
            Kind::Scope => event.scope == value,
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
            let written = match self.format {
                Format::Json => {
                    serde_json::to_writer(&mut out, &event).map_err(io::Error::from).and_then(|()| out.write_all(b"\n"))
                }
                Format::Table => writeln!(out, "{}", line(&event)),
            };
            match written.and_then(|()| out.flush()) {
                Ok(()) => Ok(true),
                // The reader has what it wanted.
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
                Err(e) => Err(Error::io("write events", e)),
            }
        })?;
        Ok(ExitCode::SUCCESS)
    }

    /// Of each kind of filter that was given one must fit.
    fn wants(&self, event: &Event) -> bool {
        let fits = |kind| self.filter.iter().any(|other| other.kind == kind && other.fits(event));
        self.filter.iter().all(|one| fits(one.kind))
    }
}

/// docker's line: `TIME TYPE ACTION ID (NAME=VALUE, ...)`.
fn line(event: &Event) -> String {
    let attributes: Vec<String> = event.actor.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let (kind, action, id) = (&event.kind, &event.action, &event.actor.id);
    printable(&format!("{} {kind} {action} {id} ({})", rfc3339(event.when()), attributes.join(", ")))
}
