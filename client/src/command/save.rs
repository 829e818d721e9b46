//! `rbox save`

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use longshore_runtime::name::Reference;
use longshore_runtime::store::{Image, Lease};
use longshore_runtime::{Error, Store, save};

use super::Global;
use crate::config::name_here;
use crate::error::Result;

/// Bytes given to the archive's file or reader at a time.
const BUFFER_BYTES: usize = 256 << 10;

/// Write images to an archive, which docker, podman and skopeo read, too
///
/// An image given by its name has that name in the archive; one given by its ID has none.
#[derive(Debug, Args)]
pub(super) struct Save {
    /// A file, in place of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Names or image IDs
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

impl Save {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        if self.output.is_none() && io::stdout().is_terminal() {
            return Err(Error::invalid("save", "an archive is nothing for a terminal: use --output, or redirect it").into());
        }
        let store = global.store()?;
        let lease = store.lease()?;
        let images = find(&store, &lease, &self.images)?;
        match &self.output {
            Some(path) => write_file(path, |file| Ok(save::save(&store, &images, file)?))?,
            None => save::save(&store, &images, BufWriter::with_capacity(BUFFER_BYTES, io::stdout().lock()))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The images, each once, with the names by which they were asked for.
fn find(store: &Store, lease: &Lease, wanted: &[String]) -> Result<Vec<(Image, Vec<Reference>)>> {
    let mut images: Vec<(Image, Vec<Reference>)> = Vec::new();
    for text in wanted {
        let text = &name_here(store, text)?;
        let image = store.find_leased(text, lease)?.map_or_else(|| store.get(text), Ok)?;
        let name = text.parse::<Reference>().ok().filter(|name| name.digest().is_none() && image.names.contains(name));
        match images.iter_mut().find(|(other, _)| other.raw.digest == image.raw.digest) {
            Some((_, names)) => names.extend(name.filter(|name| !names.contains(name))),
            None => images.push((image, Vec::from_iter(name))),
        }
    }
    Ok(images)
}

/// A file that appears when it is whole.
fn write_file(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    let failed = |e| Error::io(format!("write {}", path.display()), e);
    let mut scratch = path.file_name().map_or_else(OsString::new, OsString::from);
    scratch.push(format!(".{}.tmp", std::process::id()));
    let scratch = path.with_file_name(scratch);
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, File::create_new(&scratch).map_err(failed)?);
    let written =
        write(&mut out).and_then(|()| Ok(out.flush().and_then(|()| std::fs::rename(&scratch, path)).map_err(failed)?));
    if written.is_err() {
        // Half an archive is of no use to anybody.
        let _ = std::fs::remove_file(&scratch);
    }
    written
}
