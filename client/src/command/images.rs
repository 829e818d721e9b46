//! `rbox images`

use std::cmp::Reverse;
use std::process::ExitCode;

use clap::Args;
use longshore_runtime::Store;
use longshore_runtime::name::Reference;
use longshore_runtime::store::Image;
use serde_json::{Value, json};

use super::Global;
use super::format::{List, ListFormat};
use super::images_filter::{Filter, is_named, wanted, wanted_name};
use crate::error::Result;
use crate::stderr::say;
use crate::text;

/// List images in the local store
#[derive(Debug, Args)]
pub(super) struct Images {
    /// As docker's; here no image is hidden
    #[arg(short, long)]
    all: bool,
    /// Only those that fit: dangling=true, label=NAME[=VALUE], reference=PATTERN, before=IMAGE, since=IMAGE or until=TIME;
    /// of one kind any (but all labels), of several all
    #[arg(short, long, value_name = "KIND=VALUE", value_parser = Filter::parse)]
    filter: Vec<Filter>,
    /// Print only image IDs
    #[arg(short, long)]
    quiet: bool,
    /// Do not shorten image IDs
    #[arg(long)]
    no_trunc: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    #[command(flatten)]
    format: ListFormat,
    /// Only images of this repository, or with this name and tag; a pattern as */app:1.* too
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,
}

/// One line: an image under one of its names.
struct Row {
    repository: String,
    tag: String,
    digest: String,
    id: String,
    created: Option<String>,
    bytes: u64,
}

const NONE: &str = "<none>";

/// What docker has no number for, either, but in `system df --verbose`.
const UNKNOWN: &str = "N/A";

/// docker's fields and their headings.
const HEADINGS: [(&str, &str); 11] = [
    ("Containers", "CONTAINERS"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedSince", "CREATED"),
    ("Digest", "DIGEST"),
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("SharedSize", "SHARED SIZE"),
    ("Size", "SIZE"),
    ("Tag", "TAG"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("VirtualSize", "VIRTUAL SIZE"),
];

impl Images {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let store = global.store()?;
        let filters: Vec<Filter> = self.filter.iter().map(|filter| filter.clone().resolved(&store)).collect::<Result<_>>()?;
        let mut rows = Vec::new();
        for image in store.images()? {
            match image {
                Ok(image) if wanted(&filters, &image) => rows.extend(self.rows(&store, &image, &filters)),
                Ok(_) => {}
                Err(e) => say(format_args!("rbox: skipped a damaged image: {}", text::printable(&e.to_string()))),
            }
        }
        // Newest first, as docker lists them. Not by their texts: these may be of several zones.
        rows.sort_by_cached_key(|row| Reverse(row.created.as_deref().and_then(text::parse_rfc3339)));
        if self.quiet {
            rows.dedup_by(|a, b| a.id == b.id);
        }
        let default = match (self.quiet, self.digests) {
            (true, _) => "{{.ID}}",
            (_, true) => "table {{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
            _ => "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
        };
        self.format.print(&List { headings: &HEADINGS, default }, rows.iter().map(row))
    }

    /// One for each name that is asked for.
    fn rows(&self, store: &Store, image: &Image, filters: &[Filter]) -> Vec<Row> {
        let id = if self.no_trunc { image.id().as_str() } else { image.id().short() };
        let row = |repository: String, tag: String| Row {
            repository,
            tag,
            digest: image.raw.digest.to_string(),
            id: id.to_owned(),
            created: image.config.created.clone(),
            bytes: image.unpacked_bytes(store),
        };
        let tag = |name: &Reference| name.tag().map_or(NONE, |tag| tag.as_str()).to_owned();
        if image.names.is_empty() {
            return if self.name.is_none() { vec![row(NONE.into(), NONE.into())] } else { Vec::new() };
        }
        let asked = |name: &&Reference| self.name.as_ref().is_none_or(|text| is_named(name, text)) && wanted_name(filters, name);
        image.names.iter().filter(asked).map(|name| row(name.familiar_name(), tag(name))).collect()
    }
}

/// docker's keys.
fn row(row: &Row) -> Value {
    let size = text::size(row.bytes);
    json!({
        "Containers": UNKNOWN,
        "CreatedAt": row.created.as_deref().map_or_else(|| UNKNOWN.into(), text::date),
        "CreatedSince": text::age(row.created.as_deref()),
        "Digest": row.digest,
        "ID": row.id,
        "Repository": row.repository,
        "SharedSize": UNKNOWN,
        "Size": size,
        "Tag": row.tag,
        "UniqueSize": UNKNOWN,
        "VirtualSize": size,
    })
}
