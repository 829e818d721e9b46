//! `rbox cat`

use std::io::{self, IsTerminal, Seek, Write};
use std::process::ExitCode;

use clap::Args;
use longshore_runtime::error::Attempt;
use longshore_runtime::image::{Descriptor, Document};
use longshore_runtime::name::{Platform, Reference};
use longshore_runtime::peek::Layers;
use longshore_runtime::{Error, Store, files};

use super::Global;
use crate::config::{Registries, image_name};
use crate::error::Result;
use crate::policy::Policy;
use crate::registry::Repository;
use crate::{signature, text};

/// A line that is longer than this is made harmless in pieces.
const LINE_LIMIT_BYTES: usize = 64 << 10;

/// Print a file of an image, without pulling it
///
/// Its layers are read from the top down, until one has the file; symbolic links are followed. An image in the local store
/// is read there.
#[derive(Debug, Args)]
pub(super) struct Cat {
    /// Which image of a multi-platform one, OS/ARCH[/VARIANT] [default: this machine's]
    #[arg(long)]
    platform: Option<Platform>,
    /// Read the layer that has the file to its end, and print nothing unless it is what its digest promises
    #[arg(long)]
    verify: bool,
    /// NAME[:TAG|@DIGEST]
    #[arg(value_name = "IMAGE", value_parser = image_name)]
    image: Reference,
    /// The file, from the image's root
    path: String,
}

impl Cat {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let store = global.store()?;
        let repository = Repository::new(&Registries::load()?, &self.image)?;
        let layers = self.layers(&store, &repository)?;
        let image = Layers { store: &store, source: &repository, image: &self.image, layers: &layers };
        if self.verify {
            let mut whole = files::unnamed_file(&store.root().join("scratch"))?;
            image.cat(&self.path, true, &mut whole)?;
            whole.rewind().attempt(|| "read the file that was fetched")?;
            return show(|out| io::copy(&mut whole, out).map(drop).attempt(|| "write to standard output"));
        }
        show(|out| image.cat(&self.path, false, out))
    }

    /// The image's layers: those of the store if it has the image for the platform that is asked for.
    fn layers(&self, store: &Store, repository: &Repository) -> Result<Vec<Descriptor>> {
        let fits = |platform: &Platform| self.platform.as_ref().is_none_or(|wanted| wanted.accepts(platform));
        if let Some(image) = store.find(&self.image.to_string())?.filter(|image| fits(&image.config.platform)) {
            return Ok(image.manifest.layers);
        }
        let policy = Policy::load()?;
        let rule = policy.rule(&self.image)?;
        let resolved = repository.pinned_manifest(&self.image)?;
        let platform = self.platform.clone().unwrap_or_else(Platform::host);
        let chosen = repository.choose(&self.image, &resolved, &platform)?;
        signature::approve(repository, rule, &self.image, [&resolved.digest, &chosen.digest])?;
        match Document::parse(&chosen.media_type, &chosen.bytes)? {
            Document::Image(manifest) => Ok(manifest.layers),
            Document::Index(_) => {
                let what = format!("image {}", self.image.familiar());
                Err(Error::invalid(what, "its index names another index").into())
            }
        }
    }
}

/// Gives standard output to `write`. To a terminal goes what it does not obey; to anything else what is there.
fn show(write: impl FnOnce(&mut dyn Write) -> std::result::Result<(), Error>) -> Result<ExitCode> {
    let stdout = io::stdout().lock();
    let mut out: Box<dyn Write> = match stdout.is_terminal() {
        true => Box::new(Harmless { out: stdout, line: Vec::new() }),
        false => Box::new(io::BufWriter::new(stdout)),
    };
    match write(&mut *out).and_then(|()| out.flush().attempt(|| "write to standard output")) {
        // Who closed the pipe has what it wanted.
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        other => other.map(|()| ExitCode::SUCCESS).map_err(Into::into),
    }
}

/// Writes lines as text that a terminal shows and does not obey.
struct Harmless<W: Write> {
    out: W,
    line: Vec<u8>,
}

impl<W: Write> Write for Harmless<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.line.len() > LINE_LIMIT_BYTES {
                self.flush()?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let line = std::mem::take(&mut self.line);
        self.out.write_all(text::printable_lines(&String::from_utf8_lossy(&line)).as_bytes())?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_nothing_it_would_obey() {
        let mut out = Harmless { out: Vec::new(), line: Vec::new() };
        for piece in [&b"a\x1b[31"[..], b"mb\tc\n", b"\xff gr\xc3", b"\xb6\xc3\x9fe"] {
            out.write_all(piece).unwrap();
        }
        out.flush().unwrap();
        assert_eq!(String::from_utf8(out.out).unwrap(), "a\\u{1b}[31mb\tc\n\u{fffd} größe");
    }
}
