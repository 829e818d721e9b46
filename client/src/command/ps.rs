//! `rbox ps`

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use longshore_runtime::container::{Container, HealthStatus, Phase};
use longshore_runtime::network::Endpoint;
use longshore_runtime::spec::command;
use longshore_runtime::volume::{Source, Volume};
use serde_json::json;

use super::inspect_network::networks;
use super::label::{Wanted, all_fit, joined};
use super::{Format, Global, json_lines, port, print};
use crate::error::Result;
use crate::text::{self, printable};

/// List containers
#[derive(Debug, Args)]
pub(super) struct Ps {
    /// Those that do not run, too
    #[arg(short, long)]
    all: bool,
    /// Only those that fit: id=, name=, status=, exited=CODE, ancestor=IMAGE, network=, label=NAME[=VALUE] or health=; of
    /// one kind any (but all labels), of several all
    #[arg(short, long, value_name = "KIND=VALUE", value_parser = Filter::parse)]
    filter: Vec<Filter>,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
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
}

/// Characters of a command that are shown.
const COMMAND_LIMIT: usize = 20;

/// Digits of an ID that are shown.
pub(super) const ID_DIGITS: usize = 12;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Filter {
    Id(String),
    Name(String),
    Status(String),
    Exited(u8),
    Ancestor(String),
    Network(String),
    Label(Wanted),
    Health(String),
}

impl Filter {
    fn parse(text: &str) -> std::result::Result<Self, String> {
        let (kind, value) = text.split_once('=').ok_or("KIND=VALUE")?;
        let value = value.to_owned();
        const STATES: [&str; 7] = ["created", "restarting", "running", "removing", "paused", "exited", "dead"];
        Ok(match kind {
            "id" => Self::Id(value),
            "name" => Self::Name(value),
            "status" if STATES.contains(&value.as_str()) => Self::Status(value),
            "status" => return Err(format!("a status is one of {}", STATES.join(", "))),
            "exited" => Self::Exited(value.parse().map_err(|_| "an exit code is a number from 0 to 255")?),
            "ancestor" => Self::Ancestor(value),
            "network" => Self::Network(value),
            "label" => Self::Label(Wanted::parse(&value, true)?),
            "health" if ["none", "starting", "healthy", "unhealthy"].contains(&value.as_str()) => Self::Health(value),
            "health" => return Err("a health is one of none, starting, healthy, unhealthy".into()),
            _ => return Err("the kinds are id, name, status, exited, ancestor, network, label and health".into()),
        })
    }

    fn fits(&self, Row { container, paused, health }: &Row) -> bool {
        let config = &container.config;
        match self {
            Self::Label(wanted) => wanted.fits(|name| config.labels().get(name).copied()),
            Self::Health(wanted) => health.map_or("none", HealthStatus::name) == wanted,
            Self::Id(part) => config.id.contains(part.as_str()),
            Self::Name(part) => {
                let (from_start, part) = part.strip_prefix('^').map_or((false, part.as_str()), |part| (true, part));
                let (to_end, part) = part.strip_suffix('$').map_or((false, part), |part| (true, part));
                let part = part.strip_prefix('/').unwrap_or(part);
                match (from_start, to_end) {
                    (true, true) => config.name == part,
                    (true, false) => config.name.starts_with(part),
                    (false, true) => config.name.ends_with(part),
                    (false, false) => config.name.contains(part),
                }
            }
            Self::Network(network) => {
                let by_id = |endpoint: &Endpoint| network.len() >= ID_DIGITS && endpoint.network_id.starts_with(network.as_str());
                networks(&config.options).contains(network) || container.status.endpoints.iter().any(by_id)
            }
            Self::Status(status) => state(container, *paused) == status,
            Self::Exited(code) => container.status.phase == Phase::Exited && container.status.exit_code == *code,
            Self::Ancestor(image) => {
                let id = config.image_id.hex();
                config.image == *image
                    || config.image.strip_suffix(":latest") == Some(image)
                    || image.len() >= ID_DIGITS && id.starts_with(image.strip_prefix("sha256:").unwrap_or(image))
            }
        }
    }
}

impl Ps {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let mut rows: Vec<Row> = Vec::new();
        let containers = global.containers()?;
        for container in containers.list()? {
            match container {
                Ok(container) => rows.push(Row {
                    paused: containers.is_paused(&container),
                    health: containers.health(&container).map(|health| health.status),
                    container,
                }),
                Err(e) => eprintln!("rbox: skipped a damaged container: {}", printable(&e.to_string())),
            }
        }
        let last = if self.latest { Some(1) } else { self.last };
        // Who asks for a status, or for the last ones, means those that do not run, too.
        let asked = |filter: &Filter| matches!(filter, Filter::Status(_) | Filter::Exited(_));
        let all = self.all || last.is_some() || self.filter.iter().any(asked);
        rows.retain(|row| (all || row.container.status.is_up()) && self.wants(row));
        rows.truncate(last.unwrap_or(usize::MAX));
        print(|out| match (self.quiet, self.format) {
            (true, _) => rows.iter().try_for_each(|row| writeln!(out, "{}", self.id(&row.container))),
            (_, Format::Json) => json_lines(out, rows.iter().map(|row| self.json(row))),
            (_, Format::Table) => {
                let cells = |row: &Row| {
                    let one = &row.container;
                    let (created, status) = (text::age(Some(&one.config.created)), row.status());
                    let (image, name) = (one.config.image.clone(), one.config.name.clone());
                    vec![self.id(one).to_owned(), image, self.command(one), created, status, port::column(one), name]
                };
                let headings = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"];
                text::table(out, &headings, &rows.iter().map(cells).collect::<Vec<_>>())
            }
        })?;
        Ok(ExitCode::SUCCESS)
    }

    fn wants(&self, row: &Row) -> bool {
        all_fit(&self.filter, |one| matches!(one, Filter::Label(_)), |one| one.fits(row))
    }

    fn id<'a>(&self, container: &'a Container) -> &'a str {
        if self.no_trunc { &container.config.id } else { &container.config.id[..ID_DIGITS] }
    }

    /// In quotes, cut as docker cuts it.
    fn command(&self, container: &Container) -> String {
        let words = command(&container.config.image_config, &container.config.options).unwrap_or_default().join(" ");
        if self.no_trunc || words.chars().count() <= COMMAND_LIMIT {
            return format!("{words:?}");
        }
        let cut: String = words.chars().take(COMMAND_LIMIT - 1).collect();
        format!("{:?}", format!("{cut}…"))
    }

    /// docker's keys.
    fn json(&self, row: &Row) -> serde_json::Value {
        let container = &row.container;
        let config = &container.config;
        json!({
            "Command": self.command(container),
            "CreatedAt": config.created,
            "ID": self.id(container),
            "Image": config.image,
            "Labels": joined(container.config.labels(), ","),
            "LocalVolumes": config.options.volumes.iter().filter_map(Volume::volume).count().to_string(),
            "Mounts": config.options.volumes.iter().map(mounted).collect::<Vec<_>>().join(","),
            "Names": config.name,
            "Networks": networks(&config.options).join(","),
            "Ports": port::column(container),
            "RunningFor": text::age(Some(&config.created)),
            "Size": "0B",
            "State": state(container, row.paused),
            "Status": row.status(),
        })
    }
}

/// What is mounted: a volume's name, or a path of this machine.
fn mounted(volume: &Volume) -> String {
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
struct Row {
    container: Container,
    paused: bool,
    health: Option<HealthStatus>,
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
