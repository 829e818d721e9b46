//! One file out of an image that need not be here: its layers are read from the top down, as they stream by, until one
//! has the file. Nothing is kept of them.
//!
//! Whiteouts, opaque directories, symbolic and hard links mean what they mean in a container. `..` in the target of a
//! symbolic link is resolved by name.

use std::fs::File;
use std::io::Write;

use crate::error::{Attempt, Error, Result};
use crate::image::Descriptor;
use crate::name::Reference;
use crate::parallel::Cancel;
use crate::source::{BlobReader, Source};
use crate::store::Store;
use crate::unpack::{Found, ImagePath, Reading, Remembered, Search};

/// How many symbolic links are followed for one path, as by the kernel.
const LINKS_LIMIT: usize = 40;

/// An image's layers, wherever they are.
pub struct Layers<'a> {
    /// Where those are looked for first.
    pub store: &'a Store,
    /// Where the others are.
    pub source: &'a dyn Source,
    /// The image's name there.
    pub image: &'a Reference,
    /// The layers, bottom first.
    pub layers: &'a [Descriptor],
}

impl Layers<'_> {
    /// Writes a file's content to `out`. Symbolic links are followed.
    ///
    /// A layer that was read to its end is compared with its digest. That in which the file is found is so only where it
    /// is to be read as a `whole`: what was written before an error is not to be believed, then.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] where there is no such file, [`Error::Invalid`] where it is no file.
    pub fn cat(&self, path: &str, whole: bool, out: &mut dyn Write) -> Result<()> {
        let mut wanted = ImagePath::new(path.as_bytes());
        let mut names: Vec<Option<Remembered>> = self.layers.iter().map(|_| None).collect();
        for _ in 0..=LINKS_LIMIT {
            match self.search(&mut Search::new(wanted), whole, out, &mut names)? {
                Some(elsewhere) => wanted = elsewhere,
                None => return Ok(()),
            }
        }
        Err(self.invalid(path, "too many symbolic links lead to it"))
    }

    /// Looks through all layers, from the top down; gives the path to look for instead if it is a symbolic link.
    fn search(
        &self,
        search: &mut Search,
        whole: bool,
        out: &mut dyn Write,
        names: &mut [Option<Remembered>],
    ) -> Result<Option<ImagePath>> {
        if search.path().is_root() {
            return Err(self.invalid("/", "it is a directory"));
        }
        for (at, layer) in self.layers.iter().enumerate().rev() {
            let found = match names[at].as_ref().and_then(|names| search.known(names)) {
                Some(known) => known,
                None => {
                    let mut own = Remembered::new(names.iter().flatten().map(Remembered::len).sum());
                    let found = self.read(layer, search, whole, out, Some(&mut own))?;
                    names[at] = Some(own);
                    found
                }
            };
            match self.follow(layer, found, whole, out)? {
                Found::Written => return Ok(None),
                Found::Elsewhere(path) => return Ok(Some(path)),
                Found::Other(what) => return Err(self.invalid(&search.path().to_string(), &format!("it is {what}"))),
                Found::Nothing { hidden: true } => break,
                Found::Linked(_) | Found::Nothing { hidden: false } => {}
            }
        }
        let hint = "paths begin at the image's root: /etc/os-release, for example".into();
        Err(Error::NotFound { what: format!("file {} in image {}", search.path(), self.image.familiar()), hint })
    }

    /// What a hard link is a further name of is in the same layer.
    fn follow(&self, layer: &Descriptor, mut found: Found, whole: bool, out: &mut dyn Write) -> Result<Found> {
        for _ in 0..=LINKS_LIMIT {
            let Found::Linked(path) = found else { return Ok(found) };
            let mut search = Search::new(path);
            found = self.read(layer, &mut search, whole, out, None)?;
            if let Found::Nothing { .. } = found {
                let why = format!("it is a hard link to {}, which its layer does not have", search.path());
                return Err(self.invalid("of that name", &why));
            }
        }
        Err(self.invalid("of that name", "too many hard links lead to it"))
    }

    fn read(
        &self,
        layer: &Descriptor,
        search: &mut Search,
        whole: bool,
        out: &mut dyn Write,
        names: Option<&mut Remembered>,
    ) -> Result<Found> {
        let cancel = Cancel::default();
        let reading = Reading { blob: &layer.digest, whole, cancel: &cancel };
        search.layer(self.open(layer, &cancel)?, reading, out, names)
    }

    fn open<'a>(&'a self, layer: &Descriptor, cancel: &'a Cancel<'a>) -> Result<BlobReader<'a>> {
        let path = self.store.blob_path(&layer.digest);
        if self.store.has_blob(&layer.digest) {
            return Ok(Box::new(File::open(&path).attempt(|| format!("open {}", path.display()))?));
        }
        if layer.is_foreign() {
            let why = "its licence keeps it out of registries; it cannot be fetched";
            return Err(Error::invalid(format_args!("layer {}", layer.digest), why));
        }
        self.source.blob(self.image, layer, 0, cancel)
    }

    fn invalid(&self, path: &str, why: &str) -> Error {
        Error::invalid(format_args!("file {path} in image {}", self.image.familiar()), why)
    }
}
