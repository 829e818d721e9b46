//! `rbox rmi`

use std::io::Write;
use std::process::ExitCode;

use clap::Args;

use super::{Global, print};
use crate::config::name_here;
use crate::error::Result;
use crate::stderr::say;
use crate::text::printable;

/// Remove images
///
/// A name is removed; with its last name goes the image, and with that every layer no other image needs.
#[derive(Debug, Args)]
pub(super) struct Rmi {
    /// Remove all names of an image given by its ID, and images in use
    #[arg(short, long)]
    force: bool,
    /// Names or image IDs
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

impl Rmi {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let store = global.own_store()?.store;
        let mut code = ExitCode::SUCCESS;
        for image in &self.images {
            match name_here(&store, image).and_then(|name| Ok(store.remove(&name, self.force)?)) {
                Ok(removed) => print(|out| {
                    removed.untagged.iter().try_for_each(|name| writeln!(out, "Untagged: {}", name.familiar()))?;
                    removed.deleted.iter().try_for_each(|id| writeln!(out, "Deleted: {id}"))
                })?,
                // The others are removed all the same, as docker does.
                Err(e) => {
                    say(format_args!("rbox: {}", printable(&e.to_string())));
                    code = ExitCode::FAILURE;
                }
            }
        }
        Ok(code)
    }
}
