//! `rbox images`

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use longshore_runtime::Store;
use longshore_runtime::name::Reference;
use longshore_runtime::store::Image;
use serde_json::json;

use super::{Format, Global, json_lines, print};
use crate::error::Result;
use crate::text;

/// List images in the local store
#[derive(Debug, Args)]
pub(super) struct Images {
    /// Print only image IDs
    #[arg(short, long)]
    quiet: bool,
    /// Do not shorten image IDs
    #[arg(long)]
    no_trunc: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Only images of this repository, or with this name and tag
    #[arg(value_name = "NAME[:TAG]")]
    filter: Option<String>,
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

impl Images {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let store = global.store()?;
        let filter = self
            .filter
            .as_deref()
            .map(|text| Ok::<_, longshore_runtime::Error>((text, text.parse::<Reference>()?)))
            .transpose()?;
        let mut rows = Vec::new();
        for image in store.images()? {
            match image {
                Ok(image) => rows.extend(self.rows(&store, &image, filter.as_ref())),
                Err(e) => eprintln!("rbox: skipped a damaged image: {}", text::printable(&e.to_string())),
            }
        }
        // Newest first, as docker lists them; RFC 3339 sorts as text.
        rows.sort_by(|a, b| b.created.cmp(&a.created));
        print(|out| match (self.quiet, self.format) {
            (true, _) => {
                let mut ids: Vec<&String> = rows.iter().map(|row| &row.id).collect();
                ids.dedup();
                ids.iter().try_for_each(|id| writeln!(out, "{id}"))
            }
            (_, Format::Json) => json_lines(out, rows.iter().map(json)),
            (_, Format::Table) => self.table(out, &rows),
        })?;
        Ok(ExitCode::SUCCESS)
    }

    fn rows(&self, store: &Store, image: &Image, filter: Option<&(&str, Reference)>) -> Vec<Row> {
        let id = if self.no_trunc { image.id().as_str() } else { image.id().short() };
        let row = |repository: String, tag: String| Row {
            repository,
            tag,
            digest: image.raw.digest.to_string(),
            id: id.to_owned(),
            created: image.config.created.clone(),
            bytes: image.unpacked_bytes(store),
        };
        let wanted = |name: &&Reference| {
            filter.is_none_or(|(text, filter)| {
                let tag_given = text.rsplit('/').next().is_some_and(|last| last.contains(':'));
                name.name() == filter.name() && (!tag_given || name.tag() == filter.tag())
            })
        };
        let tag = |name: &Reference| name.tag().map_or(NONE, |tag| tag.as_str()).to_owned();
        if image.names.is_empty() && filter.is_none() {
            return vec![row(NONE.into(), NONE.into())];
        }
        image.names.iter().filter(wanted).map(|name| row(name.familiar_name(), tag(name))).collect()
    }

    fn table(&self, out: &mut impl Write, rows: &[Row]) -> std::io::Result<()> {
        let cells = |row: &Row| {
            let mut cells = vec![row.repository.clone(), row.tag.clone()];
            if self.digests {
                cells.push(row.digest.clone());
            }
            cells.extend([row.id.clone(), text::age(row.created.as_deref()), text::size(row.bytes)]);
            cells
        };
        let mut headings = vec!["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"];
        if self.digests {
            headings.insert(2, "DIGEST");
        }
        text::table(out, &headings, &rows.iter().map(cells).collect::<Vec<_>>())
    }
}

fn json(row: &Row) -> serde_json::Value {
    json!({
        "Repository": row.repository,
        "Tag": row.tag,
        "Digest": row.digest,
        "ID": row.id,
        "CreatedAt": row.created,
        "CreatedSince": text::age(row.created.as_deref()),
        "Size": text::size(row.bytes),
    })
}
