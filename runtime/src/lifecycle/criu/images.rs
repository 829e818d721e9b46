//! A directory of images: what criu wrote of a container, and `descriptors.json`, which runc's, crun's and this
//! runtime have in common.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use super::message::{Field, Value, fields, without};
use crate::error::{Attempt, Error, Result};
use crate::files::read_bounded;

/// What the container's standard input, output and error were when it was made, as links of
/// `/proc/PID/fd` name them.
const DESCRIPTORS: &str = "descriptors.json";

/// The largest `descriptors.json` that is read.
const DESCRIPTORS_LIMIT_BYTES: u64 = 64 << 10;

/// The largest image of one process's registers and the like.
const CORE_LIMIT_BYTES: u64 = 16 << 20;

/// What criu always writes of processes that can be restored. Its memory alone (`--pre-dump`) has no
/// process tree.
const COMPLETE: [&str; 2] = ["inventory.img", "pstree.img"];

/// The first eight bytes of a process's image; its length follows, and then one message.
const CORE_MAGIC: [u8; 8] = [0x19, 0x43, 0x56, 0x54, 0x47, 0x38, 0x05, 0x55];

/// Fields of that message: of the process's first thread, and there the signal its parent's end sends it.
const THREAD: u64 = 5;
const PARENT_DEATH_SIGNAL: u64 = 8;

/// What images begin with says what they are of.
const MAGIC_BYTES: usize = CORE_MAGIC.len();

/// The largest list of processes, or of pages.
const LIST_LIMIT_BYTES: u64 = 256 << 20;

/// Of a range: its pages are in that file, and not in an earlier image or nowhere.
const PRESENT: u64 = 4;

/// A directory that is there.
#[derive(Debug)]
pub(crate) struct Images {
    /// Absolute.
    pub(super) path: PathBuf,
    pub(super) directory: File,
}

impl Images {
    /// Makes the directory, for its owner alone: it holds a container's memory.
    pub(crate) fn make(path: &Path) -> Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).attempt(|| format!("create directory {path:?}"))?;
        Self::open(path)
    }

    pub(crate) fn open(path: &Path) -> Result<Self> {
        let attempted = || format!("open directory {path:?}");
        let path = path.canonicalize().attempt(attempted)?;
        let directory = File::open(&path).attempt(attempted)?;
        if !directory.metadata().attempt(attempted)?.is_dir() {
            return Err(Error::io(attempted(), rustix::io::Errno::NOTDIR));
        }
        Ok(Self { path, directory })
    }

    /// Images of a container that can be restored, as far as can be told before it is tried; and what the
    /// container's standard descriptors were.
    pub(crate) fn complete(path: &Path) -> Result<(Self, Vec<String>)> {
        let images = Self::open(path)?;
        let what = || format!("checkpoint {:?}", images.path);
        if let Some(missing) = COMPLETE.iter().find(|name| !images.path.join(name).is_file()) {
            let why = if *missing == COMPLETE[1] {
                format!(
                    "it has no {missing}: it is of a --pre-dump, or incomplete; a checkpoint without --pre-dump has to follow"
                )
            } else {
                format!("it has no {missing}: criu did not write it, or not to its end")
            };
            return Err(Error::invalid(what(), why));
        }
        images.check_pages()?;
        let text = read_bounded(&images.path.join(DESCRIPTORS), DESCRIPTORS_LIMIT_BYTES)?;
        let descriptors =
            serde_json::from_slice(&text).map_err(|error| Error::invalid(what(), format!("its {DESCRIPTORS}: {error}")))?;
        Ok((images, descriptors))
    }

    /// Whether all pages of all processes are there: criu 3.17 itself would wait forever for the others. What earlier
    /// checkpoints have left in the directory is nobody's.
    fn check_pages(&self) -> Result<()> {
        let what = || format!("checkpoint {:?}", self.path);
        let damaged = |name: &str| Error::invalid(what(), format!("its {name} is damaged"));
        let read = |name: &str| read_bounded(&self.path.join(name), LIST_LIMIT_BYTES);
        let mut files: BTreeMap<u64, u64> = BTreeMap::new();
        for pid in processes(&read(COMPLETE[1])?).ok_or_else(|| damaged(COMPLETE[1]))? {
            let name = format!("pagemap-{pid}.img");
            if !self.path.join(&name).exists() {
                // One that has ended and was not waited for.
                continue;
            }
            let (file, pages) = pages(&read(&name)?).ok_or_else(|| damaged(&name))?;
            *files.entry(file).or_default() += pages;
        }
        let page_bytes = rustix::param::page_size() as u64;
        for (file, pages) in files {
            let name = format!("pages-{file}.img");
            let length = self.path.join(&name).metadata().map_or(0, |metadata| metadata.len());
            if length / page_bytes < pages {
                return Err(Error::invalid(
                    what(),
                    format!("its {name} has {length} bytes and not {pages} pages: it is incomplete"),
                ));
            }
        }
        Ok(())
    }

    /// Absolute.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes down what the container's standard descriptors are.
    pub(crate) fn write_descriptors(&self, descriptors: &[String]) -> Result<()> {
        let path = self.path.join(DESCRIPTORS);
        let text = serde_json::to_vec(descriptors).map_err(|error| Error::invalid(DESCRIPTORS, error))?;
        std::fs::write(&path, text).attempt(|| format!("write {path:?}"))
    }

    /// Has the process that was `pid` in the container restored without the signal it would get at its
    /// parent's end: a container that was in the foreground can go on in the background.
    pub(crate) fn untie(&self, pid: i32) -> Result<()> {
        let path = self.path.join(format!("core-{pid}.img"));
        let image = read_bounded(&path, CORE_LIMIT_BYTES)?;
        let Some(changed) = untied(&image) else { return Ok(()) };
        // In place, and not longer than it was: what is cut off is nobody's.
        let file = File::options().write(true).open(&path).attempt(|| format!("open {path:?}"))?;
        file.write_all_at(&changed, 0).and_then(|()| file.set_len(changed.len() as u64)).attempt(|| format!("write {path:?}"))
    }
}

/// The messages of an image that is a list of them, each after its length; `None` if it is damaged.
fn messages(image: &[u8]) -> Option<Vec<Vec<Field<'_>>>> {
    let mut rest = image.get(MAGIC_BYTES..)?;
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let (length, behind) = rest.split_first_chunk()?;
        let (message, behind) = behind.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        messages.push(fields(message)?);
        rest = behind;
    }
    Some(messages)
}

fn number(message: &[Field<'_>], wanted: u64) -> Option<u64> {
    message.iter().find_map(|field| match field.value {
        Value::Number(number) if field.number == wanted => Some(number),
        _ => None,
    })
}

/// The processes of a tree, by their numbers.
fn processes(image: &[u8]) -> Option<Vec<u64>> {
    messages(image)?.iter().map(|process| number(process, 1)).collect()
}

/// Of a list of a process's pages: the number of the file with them, and how many have to be in it.
fn pages(image: &[u8]) -> Option<(u64, u64)> {
    let messages = messages(image)?;
    let (head, ranges) = messages.split_first()?;
    let mut pages = 0_u64;
    for range in ranges {
        // Before there were flags, pages were in an earlier image or in the file.
        let present = number(range, 4).map_or(number(range, 3) != Some(1), |flags| flags & PRESENT != 0);
        pages = pages.checked_add(if present { number(range, 2)? } else { 0 })?;
    }
    Some((number(head, 1)?, pages))
}

/// The image of a process without that signal; `None` if there is none.
fn untied(image: &[u8]) -> Option<Vec<u8>> {
    let length = u32::from_le_bytes(image.strip_prefix(&CORE_MAGIC)?.get(..4)?.try_into().ok()?);
    let message = image.get(12..12 + length as usize)?;
    let changed = without(message, THREAD, PARENT_DEATH_SIGNAL)?;
    let changed = changed.as_bytes();
    Some([&CORE_MAGIC, &(changed.len() as u32).to_le_bytes()[..], changed, &image[12 + length as usize..]].concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::message::Message;
    use super::*;

    proptest! {
        #[test]
        fn no_image_is_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..96), length: u8) {
            let framed = [&CORE_MAGIC[..], &u32::from(length).to_le_bytes(), &bytes].concat();
            for image in [&bytes, &framed] {
                let _ = (untied(image), processes(image), pages(image));
            }
        }
    }

    fn image(tied: bool) -> Vec<u8> {
        let mut thread = Message::default();
        thread.number(7, 1);
        if tied {
            thread.number(8, 9);
        }
        let mut core = Message::default();
        core.number(1, 1).message(5, &thread);
        [&CORE_MAGIC, &(core.as_bytes().len() as u32).to_le_bytes()[..], core.as_bytes()].concat()
    }

    #[test]
    fn the_signal_at_the_parent_s_end_is_taken_out_and_nothing_else() {
        assert_eq!(untied(&image(true)), Some(image(false)));
        assert_eq!(untied(&image(false)), None);
        let whole = image(true);
        for length in 0..whole.len() {
            assert_eq!(untied(&whole[..length]), None, "{length}");
        }
    }

    #[test]
    fn pages_that_have_to_be_in_the_file_are_counted() {
        let mut image = CORE_MAGIC.to_vec();
        let mut add = |fields: &[(u32, u64)]| {
            let mut message = Message::default();
            for (field, value) in fields {
                message.number(*field, *value);
            }
            image.extend((message.as_bytes().len() as u32).to_le_bytes());
            image.extend(message.as_bytes());
        };
        add(&[(1, 7)]);
        add(&[(1, 0x1000), (2, 3), (4, 4)]);
        add(&[(1, 0x9000), (2, 5), (4, 1)]);
        add(&[(1, 0xf000), (2, 10)]);
        add(&[(1, 0xff000), (2, 100), (3, 1)]);
        assert_eq!(pages(&image), Some((7, 13)));
        assert_eq!(pages(&image[..image.len() - 1]), None);
        assert_eq!((pages(&image[..8]), pages(&image[..7]), pages(&image[1..])), (None, None, None));
        assert_eq!(processes(&image).unwrap(), [7, 0x1000, 0x9000, 0xf000, 0xff000]);
    }

    #[test]
    fn a_directory_without_a_whole_checkpoint_says_what_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let refusal = || Images::complete(directory.path()).unwrap_err().to_string();
        assert!(refusal().contains("inventory.img"), "{}", refusal());
        std::fs::write(directory.path().join("inventory.img"), "").unwrap();
        assert!(refusal().contains("--pre-dump"), "{}", refusal());
        std::fs::write(directory.path().join("pstree.img"), "short").unwrap();
        assert!(refusal().contains("pstree.img is damaged"), "{}", refusal());
        std::fs::write(directory.path().join("pstree.img"), "no tree.").unwrap();
        assert!(refusal().contains("descriptors.json"), "{}", refusal());
        for bad in ["", "{}", "[1]", "[\"pipe:[1]\""] {
            std::fs::write(directory.path().join("descriptors.json"), bad).unwrap();
            assert!(refusal().contains("descriptors.json"), "{}", refusal());
        }
        std::fs::write(directory.path().join("descriptors.json"), "[\"pipe:[1]\"]").unwrap();
        assert_eq!(Images::complete(directory.path()).unwrap().1, ["pipe:[1]"]);
    }
}
