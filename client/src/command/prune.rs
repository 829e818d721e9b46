//! `rbox container prune`, `rbox image prune` and `rbox system prune`

use std::collections::BTreeSet;
use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;
use longshore_runtime::Store;
use longshore_runtime::container::{Container, Containers};
use longshore_runtime::name::Reference;
use longshore_runtime::network::Definition;
use longshore_runtime::store::Image;
use longshore_runtime::volume::{Info, Volumes};

use super::label::Wanted;
use super::logs::parse_time;
use super::network::remove_unused;
use super::{Global, print};
use crate::error::Result;
use crate::stderr::say;
use crate::text::{self, printable};

#[derive(Debug, Args)]
pub(super) struct Prune {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only those that fit: until=TIME (made before then), label=NAME[=VALUE], label!=NAME[=VALUE]; all must fit
    #[arg(long, value_name = "KIND=VALUE", value_parser = Filter::parse)]
    filter: Vec<Filter>,
}

#[derive(Debug, Args)]
pub(super) struct PruneSystem {
    /// Volumes that nobody gave a name and no container has, too
    #[arg(long)]
    volumes: bool,
    #[command(flatten)]
    images: PruneImages,
}

#[derive(Debug, Args)]
pub(super) struct PruneImages {
    /// Those with names that no container needs, too
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    prune: Prune,
}

#[derive(Debug, Clone)]
enum Filter {
    Until(SystemTime),
    Label(Wanted),
}

impl Filter {
    fn parse(text: &str) -> std::result::Result<Self, String> {
        match text.split_once('=') {
            Some(("until", time)) => parse_time(time).map(Self::Until),
            Some((kind @ ("label" | "label!"), rest)) => Wanted::parse(rest, kind == "label").map(Self::Label),
            _ => Err("the kinds are until=TIME, label=NAME[=VALUE] and label!=NAME[=VALUE]".into()),
        }
    }

    fn fits<'a>(&self, created: Option<&str>, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        match self {
            Self::Until(until) => created.and_then(text::parse_rfc3339).is_some_and(|created| created < *until),
            Self::Label(wanted) => wanted.fits(label),
        }
    }
}

/// What was removed.
#[derive(Default)]
struct Reclaimed {
    lines: Vec<String>,
    bytes: u64,
}

impl Reclaimed {
    /// What was removed, under a title if it is anything.
    fn titled(title: &str, mut lines: Vec<String>, bytes: u64) -> Self {
        if !lines.is_empty() {
            lines.insert(0, title.into());
            lines.push(String::new());
        }
        Self { lines, bytes }
    }

    fn add(&mut self, other: Self) {
        self.lines.extend(other.lines);
        self.bytes += other.bytes;
    }

    fn show(&self) -> Result<()> {
        print(|out| {
            self.lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
            writeln!(out, "Total reclaimed space: {}", text::size(self.bytes))
        })
    }
}

impl PruneImages {
    /// `rbox image prune`.
    pub(super) fn unused_images(self, global: &Global) -> Result<ExitCode> {
        let Self { all, prune } = self;
        let what = if all { "all images without at least one container associated to them" } else { "all dangling images" };
        if prune.agreed(&format!("This will remove {what}."))? {
            prune.images(&global.own_store()?.store, all)?.show()?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl PruneSystem {
    /// `rbox system prune`: containers, then what only they needed.
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let Self { volumes, images: PruneImages { all, prune } } = self;
        let what = [
            Some("all stopped containers"),
            Some("all networks not used by at least one container"),
            volumes.then_some("all anonymous volumes not used by at least one container"),
            Some(if all { "all images no container needs" } else { "all dangling images" }),
            Some("all downloads that stopped"),
            Some("all that nothing needs"),
        ];
        let what: String = what.into_iter().flatten().map(|what| format!("\n  - {what}")).collect();
        if !prune.agreed(&format!("This will remove:{what}\n"))? {
            return Ok(ExitCode::SUCCESS);
        }
        let store = global.own_store()?.store;
        let mut reclaimed = prune.containers(&store)?;
        reclaimed.add(prune.unused_networks(&store)?);
        if volumes {
            reclaimed.add(prune.anonymous_volumes(&store)?);
        }
        reclaimed.add(prune.images(&store, all)?);
        reclaimed.bytes += store.discard_partial_downloads()?;
        let leftovers = store.discard_leftovers()?;
        reclaimed.bytes += leftovers.iter().map(|leftover| leftover.bytes).sum::<u64>();
        let lines = leftovers.iter().map(|leftover| printable(&leftover.path.display().to_string())).collect();
        reclaimed.add(Reclaimed::titled("Deleted Leftovers:", lines, 0));
        reclaimed.show()?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Whether the user wants that: as docker asks.
pub(super) fn confirmed(what: &str) -> Result<bool> {
    print(|out| write!(out, "WARNING! {what}\nAre you sure you want to continue? [y/N] "))?;
    let mut answer = String::new();
    // No answer is none.
    let _ = io::stdin().lock().read_line(&mut answer);
    if !io::stdin().is_terminal() {
        print(|out| writeln!(out))?;
    }
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

impl Prune {
    fn agreed(&self, what: &str) -> Result<bool> {
        Ok(self.force || confirmed(what)?)
    }

    /// `rbox container prune`.
    pub(super) fn stopped_containers(&self, global: &Global) -> Result<ExitCode> {
        if self.agreed("This will remove all stopped containers.")? {
            self.containers(&global.own_store()?.store)?.show()?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// `rbox network prune`.
    pub(super) fn networks(&self, global: &Global) -> Result<ExitCode> {
        if !self.agreed("This will remove all custom networks not used by at least one container.")? {
            return Ok(ExitCode::SUCCESS);
        }
        let removed = self.unused_networks(&global.own_store()?.store)?.lines;
        print(|out| removed.iter().try_for_each(|line| writeln!(out, "{line}")))?;
        Ok(ExitCode::SUCCESS)
    }

    fn unused_networks(&self, store: &Store) -> Result<Reclaimed> {
        let wanted = |network: &Definition| {
            let label = |name: &str| network.labels.get(name).map(String::as_str);
            self.filter.iter().all(|filter| filter.fits(Some(&network.created), label))
        };
        Ok(Reclaimed::titled("Deleted Networks:", remove_unused(&Containers::open(store)?, wanted)?, 0))
    }

    fn anonymous_volumes(&self, store: &Store) -> Result<Reclaimed> {
        let wanted = |volume: &Info| {
            let label = |name: &str| volume.labels.get(name).map(String::as_str);
            volume.is_anonymous() && self.filter.iter().all(|filter| filter.fits(Some(&volume.created), label))
        };
        let (names, bytes) = Volumes::of(store).prune(&wanted)?;
        Ok(Reclaimed::titled("Deleted Volumes:", names, bytes))
    }

    fn containers(&self, store: &Store) -> Result<Reclaimed> {
        let containers = Containers::open(store)?;
        let wanted = |one: &Container| {
            let labels = one.config.labels();
            self.filter.iter().all(|filter| filter.fits(Some(&one.config.created), |name| labels.get(name).copied()))
        };
        let mut reclaimed = Reclaimed::default();
        for container in containers.list()?.into_iter().flatten().filter(|one| !one.status.is_live() && wanted(one)) {
            let id = &container.config.id;
            let bytes = containers.disk_bytes(id);
            match containers.remove(id, false) {
                Ok(()) => {
                    reclaimed.lines.push(id.clone());
                    reclaimed.bytes += bytes;
                }
                // Somebody has removed it, or started it.
                Err(longshore_runtime::Error::NotFound { .. } | longshore_runtime::Error::Busy { .. }) => {}
                Err(error) => say(format_args!("rbox: {}", printable(&error.to_string()))),
            }
        }
        Ok(Reclaimed::titled("Deleted Containers:", reclaimed.lines, reclaimed.bytes))
    }

    /// Images without a name, with `all` those with names, too, as far as nobody needs them.
    fn images(&self, store: &Store, all: bool) -> Result<Reclaimed> {
        let in_use: BTreeSet<_> = store.in_use()?.into_iter().collect();
        let wanted = |image: &Image| {
            let labels = &image.config.config.labels;
            let fits =
                |filter: &Filter| filter.fits(image.config.created.as_deref(), |name| labels.get(name).map(String::as_str));
            (all || image.names.is_empty()) && !in_use.contains(&image.raw.digest) && self.filter.iter().all(fits)
        };
        let mut reclaimed = Reclaimed::default();
        for image in store.images()?.into_iter().flatten().filter(wanted) {
            let parts: BTreeSet<_> = image.blobs().chain(image.diff_ids()).cloned().collect();
            let bytes = |store: &Store| parts.iter().map(|digest| store.disk_bytes(digest)).sum::<u64>();
            let before = bytes(store);
            match store.remove(image.raw.digest.as_str(), true).or_else(|_| store.remove(image.id().as_str(), true)) {
                Ok(removed) => {
                    reclaimed
                        .lines
                        .extend(removed.untagged.iter().map(|name| format!("untagged: {}", Reference::familiar(name))));
                    reclaimed.lines.extend(removed.deleted.iter().map(|id| format!("deleted: {id}")));
                    reclaimed.bytes += before.saturating_sub(bytes(store));
                }
                Err(error) => say(format_args!("rbox: {}", printable(&error.to_string()))),
            }
        }
        Ok(Reclaimed::titled("Deleted Images:", reclaimed.lines, reclaimed.bytes))
    }
}
