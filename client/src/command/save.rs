//! `rbox save`

use std::io::{self, BufWriter, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use longshore_runtime::files::{Order, Replacing};
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
    /// A file, a pipe or a device, in place of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Names or image IDs
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

impl Save {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        // Standard output has other names, `/dev/stdout`; what these lead to cannot always be opened anew.
        let output = self.output.filter(|path| !is_stdout(path));
        if output.is_none() && io::stdout().is_terminal() {
            return Err(Error::invalid("save", "an archive is nothing for a terminal: use --output, or redirect it").into());
        }
        let store = global.store()?;
        let lease = store.lease()?;
        let images = find(&store, &lease, &self.images)?;
        match &output {
            Some(path) => {
                let file = Replacing::create(path, Order::First)?;
                save::save(&store, &images, BufWriter::with_capacity(BUFFER_BYTES, file.file()))?;
                file.finish()?;
            }
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

fn is_stdout(path: &Path) -> bool {
    let (named, stdout) = (rustix::fs::stat(path), rustix::fs::fstat(io::stdout()));
    named.is_ok_and(|named| stdout.is_ok_and(|stdout| (stdout.st_dev, stdout.st_ino) == (named.st_dev, named.st_ino)))
}
