//! `rbox history`

use std::io::Write;
use std::process::ExitCode;

use clap::{ArgAction, Args};
use longshore_runtime::Store;
use longshore_runtime::image::HistoryEntry;
use longshore_runtime::store::Image;
use serde_json::json;

use super::{Format, Global, json_lines, print};
use crate::error::Result;
use crate::text;

/// Show the steps by which an image was made
#[derive(Debug, Args)]
pub(super) struct History {
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
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

impl History {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let store = global.store()?;
        let rows = self.rows(&store, &store.get(&self.image)?)?;
        let headings = ["IMAGE", if self.human { "CREATED" } else { "CREATED AT" }, "CREATED BY", "SIZE", "COMMENT"];
        print(|out| match (self.quiet, self.format) {
            (true, _) => rows.iter().try_for_each(|row| writeln!(out, "{}", row.id)),
            (_, Format::Json) => json_lines(out, rows.iter().map(|row| self.json(row))),
            (_, Format::Table) => text::table(out, &headings, &rows.iter().map(|row| self.cells(row)).collect::<Vec<_>>()),
        })?;
        Ok(ExitCode::SUCCESS)
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

    fn cells(&self, row: &Row) -> Vec<String> {
        let created = row.entry.created.as_deref();
        let created = if self.human { text::age(created) } else { created.unwrap_or("N/A").to_owned() };
        vec![row.id.clone(), created, self.step(row), self.size(row), row.entry.comment.clone()]
    }

    /// docker's keys.
    fn json(&self, row: &Row) -> serde_json::Value {
        let created = row.entry.created.as_deref();
        json!({
            "Comment": row.entry.comment,
            "CreatedAt": created,
            "CreatedBy": self.step(row),
            "CreatedSince": text::age(created),
            "ID": row.id,
            "Size": self.size(row),
        })
    }
}
