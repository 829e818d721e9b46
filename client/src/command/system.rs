//! `rbox system`

use std::collections::BTreeSet;
use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use longshore_runtime::Store;
use longshore_runtime::container::Containers;
use longshore_runtime::name::Digest;
use longshore_runtime::store::LayerForm;
use longshore_runtime::volume::Volumes;
use serde_json::json;

use super::format::{List, ListFormat};
use super::{Global, Own, print};
use crate::error::Result;
use crate::stderr::say;
use crate::text;

/// Manage what Longshore keeps on this machine
#[derive(Debug, Args)]
pub(super) struct System {
    #[command(subcommand)]
    verb: SystemVerb,
}

#[derive(Debug, Subcommand)]
enum SystemVerb {
    Check(super::check::Check),
    Df(Df),
    Info(super::info::Info),
    Events(super::events::Events),
    Convert(Convert),
    /// Remove all that nothing needs: stopped containers, images without a name, downloads that stopped
    Prune(super::prune::PruneSystem),
    Boot(super::boot::Boot),
    GenerateSystemd(super::boot::GenerateSystemd),
    GenerateMan(super::documents::GenerateMan),
}

/// Show disk usage
#[derive(Debug, Args)]
struct Df {
    #[command(flatten)]
    format: ListFormat,
}

/// Change the form of unpacked layers
///
/// A layer is a directory, or one EROFS image: quicker to pull and to remove, for root on Linux 6.15 or later.
/// New layers are images where that works; LONGSHORE_LAYERS=directory or erofs decides it. Layers in use stay
/// as they are.
#[derive(Debug, Args)]
struct Convert {
    /// The form all layers get
    #[arg(long, value_enum, value_name = "FORM")]
    to: Form,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    Directory,
    Erofs,
}

impl System {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        match self.verb {
            SystemVerb::Check(check) => check.execute(global),
            SystemVerb::Df(df) => df.execute(global),
            SystemVerb::Info(info) => info.execute(global),
            SystemVerb::Events(events) => events.execute(global),
            SystemVerb::Convert(convert) => convert.execute(global),
            SystemVerb::Prune(prune) => prune.execute(global),
            SystemVerb::Boot(boot) => boot.execute(global),
            SystemVerb::GenerateSystemd(generate) => generate.execute(global),
            SystemVerb::GenerateMan(generate) => generate.execute(),
        }
    }
}

impl Convert {
    fn execute(self, global: &Global) -> Result<ExitCode> {
        let Own { store, unpack, .. } = global.own_store()?;
        let to = match self.to {
            Form::Directory => LayerForm::Directory,
            Form::Erofs => LayerForm::Erofs,
        };
        let done = store.convert(to, &unpack, |diff_id| {
            // A reader that is gone is no reason to stop.
            let _ = print(|out| writeln!(out, "Converted: {diff_id}"));
        })?;
        if done.in_use.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        for diff_id in &done.in_use {
            say(format_args!("rbox: layer {diff_id} is in use and stays as it is"));
        }
        Ok(ExitCode::FAILURE)
    }
}

struct Row {
    kind: &'static str,
    total: usize,
    active: usize,
    bytes: u64,
    reclaimable_bytes: u64,
}

impl Row {
    fn new(kind: &'static str) -> Self {
        Self { kind, total: 0, active: 0, bytes: 0, reclaimable_bytes: 0 }
    }

    fn add(&mut self, bytes: u64, active: bool) {
        self.total += 1;
        self.bytes += bytes;
        match active {
            true => self.active += 1,
            false => self.reclaimable_bytes += bytes,
        }
    }
}

impl Df {
    fn execute(self, global: &Global) -> Result<ExitCode> {
        let rows = usage(&global.store()?)?;
        let reclaimable = |row: &Row| {
            let percent = (row.reclaimable_bytes * 100).checked_div(row.bytes).unwrap_or_default();
            format!("{} ({percent}%)", text::size(row.reclaimable_bytes))
        };
        let default = "table {{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}";
        let row = |row: &Row| {
            json!({
                "Active": row.active.to_string(),
                "Bytes": row.bytes,
                "Reclaimable": reclaimable(row),
                "ReclaimableBytes": row.reclaimable_bytes,
                "Size": text::size(row.bytes),
                "TotalCount": row.total.to_string(),
                "Type": row.kind,
            })
        };
        self.format.print(&List { headings: &HEADINGS, default }, rows.iter().map(row))
    }
}

/// docker's fields and their headings, and exact numbers.
const HEADINGS: [(&str, &str); 7] = [
    ("Active", "ACTIVE"),
    ("Bytes", "BYTES"),
    ("Reclaimable", "RECLAIMABLE"),
    ("ReclaimableBytes", "RECLAIMABLE BYTES"),
    ("Size", "SIZE"),
    ("TotalCount", "TOTAL"),
    ("Type", "TYPE"),
];

/// Together all that the store takes on disk. Images count their unpacked layers and their blobs, each once; downloads
/// are what stopped pulls left to be resumed; the rest is what nothing needs and a few notes.
fn usage(store: &Store) -> Result<Vec<Row>> {
    let in_use: BTreeSet<Digest> = store.in_use()?.into_iter().collect();
    let images: Vec<_> = store.images()?.into_iter().flatten().collect();
    let (mut used, mut all) = (BTreeSet::new(), BTreeSet::new());
    let mut active = 0;
    for image in &images {
        let parts = || image.blobs().chain(image.diff_ids()).cloned();
        all.extend(parts());
        if in_use.contains(&image.raw.digest) {
            active += 1;
            used.extend(parts());
        }
    }
    let bytes = |digests: &BTreeSet<Digest>| digests.iter().map(|digest| store.disk_bytes(digest)).sum();
    let (total_bytes, used_bytes): (u64, u64) = (bytes(&all), bytes(&used));
    let images_row =
        Row { kind: "Images", total: images.len(), active, bytes: total_bytes, reclaimable_bytes: total_bytes - used_bytes };
    let containers = Containers::open(store)?;
    let mut containers_row = Row::new("Containers");
    for container in containers.list()?.into_iter().flatten() {
        containers_row.add(containers.disk_bytes(&container.config.id), container.status.is_live());
    }
    let volumes = Volumes::of(store);
    let used = volumes.in_use()?;
    let mut volumes_row = Row::new("Local Volumes");
    for info in volumes.list()?.into_iter().flatten() {
        volumes_row.add(volumes.disk_bytes(&info.name), used.contains(&info.name));
    }
    let mut downloads_row = Row::new("Downloads");
    store.partial_downloads()?.into_iter().for_each(|bytes| downloads_row.add(bytes, false));
    let mut rest_row = Row::new("Other");
    store.leftovers()?.into_iter().for_each(|leftover| rest_row.add(leftover.bytes, false));
    let mut rows = vec![images_row, containers_row, volumes_row, downloads_row];
    rest_row.bytes = store.total_bytes().saturating_sub(rows.iter().map(|row| row.bytes).sum());
    rows.push(rest_row);
    Ok(rows)
}
