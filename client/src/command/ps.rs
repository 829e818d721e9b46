//! `rbox ps`

use std::process::ExitCode;

use clap::Args;
use longshore_runtime::container::{Container, HealthStatus, Phase, Sizes};
use longshore_runtime::spec::command;
use longshore_runtime::volume::{Source, Volume};
use serde_json::{Value, json};

use super::format::{List, ListFormat};
use super::inspect_network::networks;
use super::label::joined;
use super::ps_filter::{Filter, wanted};
use super::{Global, port};
use crate::error::Result;
use crate::stderr::say;
use crate::text::{self, printable};

/// List containers
#[derive(Debug, Args)]
pub(super) struct Ps {
    /// Those that do not run, too
    #[arg(short, long)]
    all: bool,
    /// Only those that fit: id=, name=, status=, exited=CODE, ancestor=IMAGE, network=, label=NAME[=VALUE], health=,
    /// volume=, publish=PORT, expose=PORT, before=CONTAINER or since=CONTAINER; of one kind any (but all labels), of
    /// several all
    #[arg(short, long, value_name = "KIND=VALUE", value_parser = Filter::parse)]
    filter: Vec<Filter>,
    #[command(flatten)]
    format: ListFormat,
    /// Only the newest so many, running or not
    #[arg(short = 'n', long, value_name = "NUMBER")]
    last: Option<usize>,
    /// Only the newest, running or not
    #[arg(short, long)]
    latest: bool,
    /// Do not shorten IDs and commands
    #[arg(long)]
    no_trunc: bool,
    /// Print only IDs
    #[arg(short, long)]
    quiet: bool,
    /// Show how much each has written, and with its image
    #[arg(short, long)]
    size: bool,
}

/// Characters of a command that are shown.
const COMMAND_LIMIT: usize = 20;

/// Characters of a volume's name or a path that are shown.
const MOUNT_LIMIT: usize = 15;

/// Digits of an ID that are shown.
pub(super) const ID_DIGITS: usize = 12;

/// docker's fields and their headings.
const HEADINGS: [(&str, &str); 14] = [
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Labels", "LABELS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Mounts", "MOUNTS"),
    ("Names", "NAMES"),
    ("Networks", "NETWORKS"),
    ("Ports", "PORTS"),
    ("RunningFor", "CREATED"),
    ("Size", "SIZE"),
    ("State", "STATE"),
    ("Status", "STATUS"),
];

/// docker's columns.
const TABLE: &str = "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";

impl Ps {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let containers = global.containers()?;
        let filters: Vec<Filter> =
            self.filter.iter().map(|filter| filter.clone().resolved(&containers)).collect::<Result<_>>()?;
        let last = if self.latest { Some(1) } else { self.last };
        // Who asks for a status, or for the last ones, means those that do not run, too.
        let all = self.all || last.is_some() || filters.iter().any(Filter::is_about_all);
        let mut rows: Vec<Row> = Vec::new();
        for container in if all { containers.list()? } else { containers.list_live()? } {
            match container {
                Ok(container) if all || container.status.is_up() => rows.push(Row {
                    paused: containers.is_paused(&container),
                    health: containers.health(&container).map(|health| health.status),
                    container,
                }),
                Ok(_) => {}
                Err(e) => say(format_args!("rbox: skipped a damaged container: {}", printable(&e.to_string()))),
            }
        }
        rows.retain(|row| wanted(&filters, row));
        rows.truncate(last.unwrap_or(usize::MAX));
        let default = match (self.quiet, self.size) {
            (true, _) => "{{.ID}}".to_owned(),
            (_, true) => format!("{TABLE}\t{{{{.Size}}}}"),
            _ => TABLE.to_owned(),
        };
        // To look at all files of all containers takes its time.
        let sized = self.size || self.format.names("Size");
        let size = |row: &Row| if sized { size(containers.sizes(&row.container)) } else { "0B".into() };
        self.format.print(&List { headings: &HEADINGS, default: &default }, rows.iter().map(|row| self.row(row, &size(row))))
    }

    /// In quotes, cut as docker cuts it. An argument with a space is in quotes of its own.
    fn command(&self, container: &Container) -> String {
        let words = command(&container.config.image_config, &container.config.options).unwrap_or_default();
        let quoted = |(index, word): (usize, &String)| match index > 0 && word.contains(' ') {
            true => format!("'{word}'"),
            false => word.clone(),
        };
        let line = words.iter().enumerate().map(quoted).collect::<Vec<_>>().join(" ");
        format!("{:?}", self.cut(line, COMMAND_LIMIT))
    }

    fn cut(&self, text: String, limit: usize) -> String {
        if self.no_trunc { text } else { text::shorten(&text, limit) }
    }

    /// docker's keys.
    fn row(&self, row: &Row, size: &str) -> Value {
        let container = &row.container;
        let config = &container.config;
        let mounts = config.options.volumes.iter().map(|volume| self.cut(mounted(volume), MOUNT_LIMIT));
        json!({
            "Command": self.command(container),
            "CreatedAt": text::date(&config.created),
            "ID": if self.no_trunc { &config.id } else { &config.id[..ID_DIGITS] },
            "Image": config.image,
            "Label": config.labels(),
            "Labels": joined(config.labels(), ","),
            "LocalVolumes": config.options.volumes.iter().filter_map(Volume::volume).count().to_string(),
            "Mounts": mounts.collect::<Vec<_>>().join(","),
            "Names": config.name,
            "Networks": networks(&config.options).join(","),
            "Ports": port::column(container),
            "RunningFor": text::age(Some(&config.created)),
            "Size": size,
            "State": state(container, row.paused),
            "Status": row.status(),
        })
    }
}

/// docker's column: what was written, and all there is.
fn size(sizes: Sizes) -> String {
    format!("{} (virtual {})", text::size(sizes.written_bytes), text::size(sizes.all_bytes))
}

/// What is mounted: a volume's name, or a path of this machine.
pub(super) fn mounted(volume: &Volume) -> String {
    match &volume.source {
        Source::Host(path) => path.display().to_string(),
        Source::Volume { volume, .. } => volume.clone(),
    }
}

/// docker's word for where a container stands.
pub(super) fn state(container: &Container, paused: bool) -> &'static str {
    match container.status.phase {
        Phase::Created | Phase::Starting => "created",
        Phase::Running if paused => "paused",
        Phase::Running => "running",
        Phase::Restarting => "restarting",
        Phase::Exited => "exited",
    }
}

/// A container, and what is not in its own files.
pub(super) struct Row {
    pub(super) container: Container,
    pub(super) paused: bool,
    pub(super) health: Option<HealthStatus>,
}

impl Row {
    fn status(&self) -> String {
        let status = &self.container.status;
        match (status.phase, self.health) {
            (Phase::Created | Phase::Starting, _) => "Created".into(),
            (Phase::Running, _) if self.paused => format!("Up {} (Paused)", text::since(&status.started)),
            (Phase::Running, Some(HealthStatus::Starting)) => format!("Up {} (health: starting)", text::since(&status.started)),
            (Phase::Running, Some(health)) => format!("Up {} ({})", text::since(&status.started), health.name()),
            (Phase::Running, None) => format!("Up {}", text::since(&status.started)),
            (Phase::Restarting, _) => format!("Restarting ({}) {}", status.exit_code, text::age(Some(&status.finished))),
            (Phase::Exited, _) => format!("Exited ({}) {}", status.exit_code, text::age(Some(&status.finished))),
        }
    }
}
