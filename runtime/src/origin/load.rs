//! All images of one archive: an image layout's, or those that `docker save` or `podman save` wrote.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::archive::{Archive, MAGIC_BYTES, is_compressed};
use super::docker;
use super::{Blobs, LAYOUT, Origin, Tagged, TaggedIndex, read_index};
use crate::error::{Attempt, Result};
use crate::files::unnamed_file;
use crate::image::parse_own;
use crate::name::{Algorithm, Reference};
use crate::unpack;

/// Where an archive is.
#[derive(Debug)]
pub enum Input {
    /// In a file.
    File(PathBuf),
    /// It comes by standard input.
    Stdin,
}

/// Opens an archive, compressed or not, and gives each of its images with its names. What cannot be read where it is
/// is written to an unnamed file below `scratch`.
///
/// An archive that is an image layout as well as docker's, as docker writes since version 25, is read as the
/// layout, whose blobs are what was pulled.
pub fn each_in_archive(input: &Input, scratch: &Path, mut each: impl FnMut(Origin, Vec<Reference>) -> Result<()>) -> Result<()> {
    let archive = Arc::new(open(input, scratch)?);
    if !archive.has(LAYOUT) {
        return docker::list(&archive)?.iter().try_for_each(|image| {
            let names = image.names().map(|name| name.parse()).collect::<Result<_>>()?;
            each(Origin::converted(&archive, image, scratch)?, names)
        });
    }
    let index: TaggedIndex = parse_own("index.json", &read_index(&archive)?)?;
    let mut groups: Vec<(&Tagged, Vec<Reference>)> = Vec::new();
    for entry in &index.manifests {
        let name = name(entry).transpose()?;
        match groups.iter_mut().find(|(other, _)| other.descriptor.digest == entry.descriptor.digest) {
            Some((_, names)) => names.extend(name),
            None => groups.push((entry, Vec::from_iter(name))),
        }
    }
    groups
        .into_iter()
        .try_for_each(|(entry, names)| each(Origin::rooted(&entry.descriptor, Blobs::Archive(Arc::clone(&archive)))?, names))
}

/// What an entry of a layout is called: a tag alone, as some write it, is no name.
fn name(entry: &Tagged) -> Option<Result<Reference>> {
    let annotations = &entry.annotations;
    let full = annotations.name.as_ref().filter(|name| name.contains([':', '/']));
    annotations.reference.as_ref().or(full).map(|name| name.parse())
}

fn open(input: &Input, scratch: &Path) -> Result<Archive> {
    let (mut file, name) = match input {
        Input::File(path) => {
            let name = path.display().to_string();
            (File::open(path).attempt(|| format!("open {name}"))?, name)
        }
        // A redirected file is a file.
        Input::Stdin => {
            (rustix::io::dup(rustix::stdio::stdin()).attempt(|| "open standard input")?.into(), "standard input".into())
        }
    };
    let is_file = file.metadata().attempt(|| format!("inspect {name}"))?.is_file();
    let mut magic = Vec::with_capacity(MAGIC_BYTES);
    file.by_ref().take(MAGIC_BYTES as u64).read_to_end(&mut magic).attempt(|| format!("read {name}"))?;
    if is_file && !is_compressed(&magic) {
        return Archive::of_file(file, name);
    }
    let mut plain = unnamed_file(scratch)?;
    let algorithms = (Algorithm::Sha256, Algorithm::Sha256);
    unpack::inflate(magic.chain(file), algorithms, &unpack::Options::default(), &mut plain)?;
    Archive::of_file(plain, name)
}
