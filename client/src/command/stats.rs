//! `rbox stats`

use std::collections::HashMap;
use std::io::{ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use longshore_runtime::Error;
use longshore_runtime::container::{Container, Containers, Phase, Sample};
use serde_json::{Value, json};

use super::Global;
use super::format::{List, ListFormat};
use super::ps::ID_DIGITS;
use crate::error::Result;
use crate::stderr::say;
use crate::text::{self, printable};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Between the first two: the use of processors is the difference of both.
const FIRST_INTERVAL: Duration = Duration::from_millis(250);

/// Clears a terminal and goes to its first line.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Show what running containers use, as it changes
#[derive(Debug, Args)]
pub(super) struct Stats {
    /// Those that do not run, too
    #[arg(short, long)]
    all: bool,
    /// Look once
    #[arg(long)]
    no_stream: bool,
    /// Do not shorten IDs
    #[arg(long)]
    no_trunc: bool,
    #[command(flatten)]
    format: ListFormat,
    /// Names or IDs [default: all]
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// docker's fields and their headings.
const HEADINGS: [(&str, &str); 9] = [
    ("BlockIO", "BLOCK I/O"),
    ("CPUPerc", "CPU %"),
    ("Container", "CONTAINER"),
    ("ID", "CONTAINER ID"),
    ("MemPerc", "MEM %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("Name", "NAME"),
    ("NetIO", "NET I/O"),
    ("PIDs", "PIDS"),
];

/// docker's columns.
const TABLE: &str = "table {{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}";

/// A container and what it uses; nothing if it does not run.
struct Row {
    /// What it was asked for by, or its ID.
    called: String,
    container: Container,
    used: Option<(f64, Sample)>,
}

impl Stats {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let containers = global.containers()?;
        let mut before: HashMap<String, Sample> = HashMap::new();
        for (_, container) in self.chosen(&containers)? {
            before.extend(containers.sample(&container).ok().map(|sample| (container.config.id, sample)));
        }
        std::thread::sleep(FIRST_INTERVAL);
        loop {
            let mut rows = Vec::new();
            let mut now = HashMap::new();
            for (called, container) in self.chosen(&containers)? {
                let used = match containers.sample(&container) {
                    Ok(sample) => {
                        let percent = before.get(&container.config.id).map_or(0.0, |earlier| sample.cpu_percent(earlier));
                        now.insert(container.config.id.clone(), sample);
                        Some((percent, sample))
                    }
                    // It does not run, or not any more.
                    Err(Error::Busy { .. } | Error::NotFound { .. }) => None,
                    Err(e) => {
                        say(format_args!("rbox: {}: {}", container.config.name, printable(&e.to_string())));
                        None
                    }
                };
                rows.push(Row { called, container, used });
            }
            before = now;
            if !self.show(&rows)? || self.no_stream {
                return Ok(ExitCode::SUCCESS);
            }
            std::thread::sleep(INTERVAL);
        }
    }

    fn chosen(&self, containers: &Containers) -> Result<Vec<(String, Container)>> {
        if !self.containers.is_empty() {
            let get = |name: &String| Ok((name.clone(), containers.get(name)?));
            return self.containers.iter().map(get).collect();
        }
        let list = if self.all { containers.list()? } else { containers.list_live()? };
        let list = list.into_iter().filter_map(std::result::Result::ok);
        let list = list.filter(|container| self.all || container.status.phase == Phase::Running);
        Ok(list.map(|container| (self.id(&container).to_owned(), container)).collect())
    }

    fn id<'a>(&self, container: &'a Container) -> &'a str {
        if self.no_trunc { &container.config.id } else { &container.config.id[..ID_DIGITS] }
    }

    /// False if nobody reads any more.
    fn show(&self, rows: &[Row]) -> Result<bool> {
        let text = self.format.text(&List { headings: &HEADINGS, default: TABLE }, rows.iter().map(|row| self.row(row)))?;
        let refreshes = self.format.is_table() && !self.no_stream && std::io::stdout().is_terminal();
        let mut stdout = std::io::stdout().lock();
        let clear = if refreshes { CLEAR } else { "" };
        match write!(stdout, "{clear}{text}").and_then(|()| stdout.flush()) {
            Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(e) => Err(Error::io("write to standard output", e).into()),
            Ok(()) => Ok(true),
        }
    }

    /// docker's keys.
    fn row(&self, row: &Row) -> Value {
        let config = &row.container.config;
        let [cpu, memory, memory_share, network, block, tasks] = match &row.used {
            Some((percent, used)) => [
                format!("{percent:.2}%"),
                format!("{} / {}", text::binary_size(used.memory_bytes), text::binary_size(used.memory_limit_bytes)),
                format!("{:.2}%", used.memory_percent()),
                format!("{} / {}", text::size(used.received_bytes), text::size(used.sent_bytes)),
                format!("{} / {}", text::size(used.read_bytes), text::size(used.written_bytes)),
                used.tasks.to_string(),
            ],
            None => ["--", "-- / --", "--", "--", "--", "--"].map(str::to_owned),
        };
        json!({
            "BlockIO": block,
            "CPUPerc": cpu,
            "Container": row.called,
            "ID": self.id(&row.container),
            "MemPerc": memory_share,
            "MemUsage": memory,
            "Name": config.name,
            "NetIO": network,
            "PIDs": tasks,
        })
    }
}
