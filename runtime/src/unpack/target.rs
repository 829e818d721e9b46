//! What the entries of an archive become: the operations that both forms of a layer have, and how an
//! entry's parents are found in either.

use rustix::fs::FileType;

use super::metadata::Metadata;
use super::sparse::Run;
use super::{Limits, invalid_entry};
use crate::error::Result;

/// Components and symbolic links walked for one path; the kernel gives up after 40 links.
const WALK_STEPS: usize = 1024;

/// A layer being written.
pub(super) trait Target {
    /// A directory to create entries in. Good until something is removed.
    type Directory;
    /// A file to write data to.
    type File;

    /// The layer's root.
    fn root(&self) -> Result<Self::Directory>;

    /// The directory above; of the root, the root.
    fn above(&self, directory: Self::Directory) -> Result<Self::Directory>;

    /// What `name` is, not following it.
    fn look(&self, directory: &Self::Directory, name: &[u8]) -> Result<Found<Self::Directory>>;

    /// Makes a directory the archive does not list, where nothing or a whiteout is.
    fn make_implied(&mut self, directory: &Self::Directory, name: &[u8], over_whiteout: bool) -> Result<Self::Directory>;

    /// The directory `path` names (cleaned components joined by `/`), made with all its parents where
    /// missing; symbolic links are resolved inside the layer.
    fn parent(&mut self, path: &[u8]) -> Result<Self::Directory>
    where
        Self: Sized,
    {
        walk(self, path, true)?.ok_or_else(|| invalid_entry(path, "it is no directory"))
    }

    /// The same if it exists.
    fn existing_parent(&mut self, path: &[u8]) -> Result<Option<Self::Directory>>
    where
        Self: Sized,
    {
        walk(self, path, false)
    }

    /// The metadata of the layer's root.
    fn set_root(&mut self, metadata: Metadata) -> Result<()>;

    /// Marks a directory as hiding everything below it.
    fn set_opaque(&mut self, directory: &Self::Directory) -> Result<()>;

    /// Makes a whiteout of `name`, unless this layer has an entry there: whiteouts speak of lower layers
    /// only, and a directory both whited out and present is an opaque one.
    fn whiteout(&mut self, directory: &Self::Directory, name: &[u8]) -> Result<()>;

    /// Makes a directory the archive lists, or updates the one that is there. One that takes the place
    /// of something else is opaque: that already hid what lower layers have.
    fn make_directory(&mut self, place: &Place<Self::Directory>, metadata: Metadata) -> Result<()>;

    /// Begins a file of `size` bytes, holes included; what is at the place goes.
    fn create_file(
        &mut self,
        place: &Place<Self::Directory>,
        metadata: &Metadata,
        size: u64,
        runs: Option<&[Run]>,
    ) -> Result<Self::File>;

    /// Writes data of a file; gives how much of it was written.
    fn write(&mut self, file: &Self::File, data: &[u8], offset: u64) -> rustix::io::Result<usize>;

    /// All data is written; a file with holes may not have its whole size yet.
    fn finish_file(
        &mut self,
        file: Self::File,
        place: &Place<Self::Directory>,
        metadata: &Metadata,
        size: Option<u64>,
    ) -> Result<()>;

    /// Makes `place` a further name of what `name` in `from` is, which is no directory; false if it was
    /// where the link now stands. What is at the place goes.
    fn hard_link(&mut self, place: &Place<Self::Directory>, from: &Self::Directory, name: &[u8]) -> Result<bool>;

    /// Makes a symbolic link; what is at the place goes.
    fn symlink(&mut self, place: &Place<Self::Directory>, metadata: &Metadata, target: &[u8]) -> Result<()>;

    /// Makes a device node or FIFO; what is at the place goes.
    fn device(&mut self, place: &Place<Self::Directory>, metadata: &Metadata, kind: FileType, number: (u32, u32)) -> Result<()>;
}

/// Where an entry goes.
pub(super) struct Place<D> {
    pub(super) parent: D,
    pub(super) name: Vec<u8>,
    /// The cleaned path, for messages.
    pub(super) path: Vec<u8>,
}

/// What a name in a directory is.
pub(super) enum Found<D> {
    Nothing,
    Directory(D),
    Symlink(Vec<u8>),
    Whiteout,
    Other,
}

/// Component by component: makes what is missing, resolves symbolic links with the layer as the root.
pub(super) fn walk<T: Target>(target: &mut T, path: &[u8], create: bool) -> Result<Option<T::Directory>> {
    let mut here = target.root()?;
    let mut ahead: Vec<Vec<u8>> = components(path).rev().map(<[u8]>::to_vec).collect();
    let mut steps = 0;
    while let Some(name) = ahead.pop() {
        steps += 1;
        if steps > WALK_STEPS {
            return Err(invalid_entry(path, "its parents are a maze of symbolic links"));
        }
        if name == b".." {
            here = target.above(here)?;
            continue;
        }
        here = match target.look(&here, &name)? {
            Found::Directory(directory) => directory,
            Found::Nothing if create => target.make_implied(&here, &name, false)?,
            Found::Whiteout if create => target.make_implied(&here, &name, true)?,
            Found::Nothing => return Ok(None),
            Found::Symlink(link) => {
                ahead.extend(components(&link).rev().map(<[u8]>::to_vec));
                if link.starts_with(b"/") { target.root()? } else { here }
            }
            Found::Whiteout | Found::Other => return Err(invalid_entry(path, "one of its parents is no directory")),
        };
    }
    Ok(Some(here))
}

/// A path's components without empty ones and `.`; `..` stays.
pub(super) fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b"."))
}

/// The path of a name in a directory.
pub(super) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

/// A path's parent and last component.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// Refuses paths over the limits.
pub(super) fn check_path(path: &[u8], limits: &Limits) -> Result<()> {
    if path.len() > limits.path_bytes {
        return Err(invalid_entry(&path[..80.min(path.len())], format_args!("its path exceeds {} bytes", limits.path_bytes)));
    }
    if components(path).count() > limits.path_depth {
        let limit = limits.path_depth;
        return Err(invalid_entry(&path[..80.min(path.len())], format_args!("its path has more than {limit} components")));
    }
    Ok(())
}
