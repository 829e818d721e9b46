//! Unpacked layers in the store: a directory or an EROFS image each, behind the same few questions.
//!
//! Both forms may be there for a moment, or because a conversion was killed; then the image counts.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::{Lease, Store};
use crate::error::{Attempt, Error, Result};
use crate::name::Digest;
use crate::{erofs, files};

/// What users ask for a form with.
const VARIABLE: &str = "LONGSHORE_LAYERS";

/// The longest `layer.json`.
const INFO_LIMIT_BYTES: u64 = erofs::NOTE_BYTES as u64;

/// What an unpacked layer is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerForm {
    /// A directory: everywhere.
    Directory,
    /// One EROFS image: as root, on Linux 6.15 or later.
    Erofs,
}

impl FromStr for LayerForm {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "directory" => Ok(Self::Directory),
            "erofs" => Ok(Self::Erofs),
            _ => Err(Error::Name { what: "form of layers", input: text.into(), why: "it must be directory or erofs" }),
        }
    }
}

impl LayerForm {
    /// The form that `$LONGSHORE_LAYERS` asks for.
    ///
    /// # Errors
    ///
    /// [`Error::Name`] when it names none.
    pub fn from_environment() -> Result<Option<Self>> {
        let asked = std::env::var_os(VARIABLE).filter(|value| !value.is_empty());
        asked.map(|value| value.to_string_lossy().parse()).transpose()
    }

    /// The form new layers get: the one asked for; if none is, an image where those can be used, found out by
    /// using one in the lease's scratch directory, and a directory elsewhere.
    ///
    /// # Errors
    ///
    /// What stands in the way of images if they are asked for.
    pub(crate) fn choose(asked: Option<Self>, lease: &Lease, rootless: bool) -> Result<Self> {
        match asked {
            Some(Self::Directory) => Ok(Self::Directory),
            Some(Self::Erofs) => Self::check_erofs(lease, rootless).map(|()| Self::Erofs),
            None if Self::check_erofs(lease, rootless).is_ok() => Ok(Self::Erofs),
            None => Ok(Self::Directory),
        }
    }

    /// Whether layers can be images here.
    ///
    /// # Errors
    ///
    /// What stands in the way.
    pub(super) fn check_erofs(lease: &Lease, rootless: bool) -> Result<()> {
        if rootless {
            return Err(Error::invalid("EROFS as the form of layers", "only root can mount it; use directories"));
        }
        let scratch = lease.scratch().join("probe");
        files::make_private_dir(&scratch)?;
        let probed = erofs::probe(&scratch);
        crate::launch::remove_tree(&scratch)?;
        probed
    }
}

/// What is remembered of an unpacked layer: in `layer.json` beside a directory, in front of an image's superblock.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct LayerInfo {
    /// Bytes of all regular files together.
    pub unpacked_bytes: u64,
    /// Archive entries.
    pub entries: u64,
}

impl LayerInfo {
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(std::io::Error::from).attempt(|| "describe a layer")
    }
}

impl Store {
    /// Where an unpacked layer's files are, or would be: a directory or an EROFS image, for
    /// [`erofs::open_layer`].
    pub fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        match self.layer_form(diff_id) {
            Some(LayerForm::Erofs) => self.layer_place(diff_id, LayerForm::Erofs),
            _ => self.layer_place(diff_id, LayerForm::Directory).join("fs"),
        }
    }

    /// Whether a layer is there, unpacked.
    pub fn has_layer(&self, diff_id: &Digest) -> bool {
        self.layer_form(diff_id).is_some()
    }

    /// In which form a layer is there.
    pub fn layer_form(&self, diff_id: &Digest) -> Option<LayerForm> {
        [LayerForm::Erofs, LayerForm::Directory].into_iter().find(|form| self.layer_place(diff_id, *form).exists())
    }

    /// What is remembered of an unpacked layer.
    pub fn layer_info(&self, diff_id: &Digest) -> Result<LayerInfo> {
        let bytes = if self.layer_form(diff_id) == Some(LayerForm::Erofs) {
            read_note(&self.layer_place(diff_id, LayerForm::Erofs))?
        } else {
            files::read_bounded(&self.layer_place(diff_id, LayerForm::Directory).join("layer.json"), INFO_LIMIT_BYTES)?
        };
        crate::image::parse_own("layer.json", &bytes)
    }

    /// What is renamed when a layer comes and goes.
    pub(super) fn layer_place(&self, diff_id: &Digest, form: LayerForm) -> PathBuf {
        let directory = self.named("layers", diff_id);
        match form {
            LayerForm::Directory => directory,
            LayerForm::Erofs => directory.with_extension("erofs"),
        }
    }
}

/// The text in front of an image's superblock.
fn read_note(image: &Path) -> Result<Vec<u8>> {
    use std::os::unix::fs::FileExt as _;
    let mut note = vec![0; erofs::NOTE_BYTES];
    std::fs::File::open(image)
        .and_then(|file| file.read_exact_at(&mut note, 0))
        .attempt(|| format!("read {}", image.display()))?;
    note.truncate(note.iter().position(|&byte| byte == 0).unwrap_or(note.len()));
    Ok(note)
}
