//! `rbox history`

use std::process::ExitCode;

use clap::{ArgAction, Args};
use longshore_runtime::Store;
use longshore_runtime::image::HistoryEntry;
use longshore_runtime::store::Image;
use serde_json::{Value, json};

use super::Global;
use super::format::{List, ListFormat};
use crate::config::name_here;
use crate::error::Result;
use crate::text;

/// Show the steps by which an image was made
#[derive(Debug, Args)]
pub(super) struct History {
    #[command(flatten)]
    format: ListFormat,
    /// Sizes and times for people
    #[arg(short = 'H', long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true")]
    human: bool,
    /// Do not shorten IDs and commands
    #[arg(long)]
    no_trunc: bool,
    /// Print only image IDs
    #[arg(short, long)]
    quiet: bool,
    /// A name or an image ID
    image: String,
}

/// Characters of a step that are shown.
const STEP_LIMIT: usize = 45;

/// The image that a step other than the last left: nobody knows it any more.
const MISSING: &str = "<missing>";

struct Row {
    id: String,
    entry: HistoryEntry,
    bytes: u64,
}

/// docker's fields and their headings.
const HEADINGS: [(&str, &str); 6] = [
    ("Comment", "COMMENT"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("CreatedSince", "CREATED"),
    ("ID", "IMAGE"),
    ("Size", "SIZE"),
];

impl History {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let store = global.store()?;
        let rows = self.rows(&store, &store.get(&name_here(&store, &self.image)?)?)?;
        let default = match (self.quiet, self.human) {
            (true, _) => "{{.ID}}",
            (_, true) => "table {{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
            _ => "table {{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
        };
        self.format.print(&List { headings: &HEADINGS, default }, rows.iter().map(|row| self.row(row)))
    }

    /// The steps, the last first. Those that are said to have changed files have the layers, in turn.
    fn rows(&self, store: &Store, image: &Image) -> Result<Vec<Row>> {
        let mut layers = image.diff_ids().iter();
        let mut rows: Vec<Row> = store
            .history(image)?
            .into_iter()
            .map(|entry| {
                let layer = if entry.empty_layer { None } else { layers.next() };
                let bytes = layer.and_then(|diff_id| store.layer_info(diff_id).ok()).map_or(0, |info| info.unpacked_bytes);
                Row { id: MISSING.into(), entry, bytes }
            })
            .collect();
        if let Some(last) = rows.last_mut() {
            last.id = if self.no_trunc { image.id().to_string() } else { image.id().short().to_owned() };
        }
        rows.reverse();
        Ok(rows)
    }

    fn step(&self, row: &Row) -> String {
        let step = row.entry.created_by.replace('\t', " ");
        if self.no_trunc { step } else { text::shorten(&step, STEP_LIMIT) }
    }

    fn size(&self, row: &Row) -> String {
        if self.human { text::size(row.bytes) } else { row.bytes.to_string() }
    }

    /// docker's keys.
    fn row(&self, row: &Row) -> Value {
        let created = row.entry.created.as_deref();
        json!({
            "Comment": row.entry.comment,
            "CreatedAt": created.unwrap_or("N/A"),
            "CreatedBy": self.step(row),
            "CreatedSince": text::age(created),
            "ID": row.id,
            "Size": self.size(row),
        })
    }
}
