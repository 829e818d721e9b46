//! What refers to an image in the same layout: signatures, SBOMs.

use serde::Deserialize;

use super::{Origin, Tagged};
use crate::error::Result;
use crate::name::{Digest, Tag};
use crate::source::{HeldBytes, Referring, referring_tags};

/// Entries of a layout that are looked into.
const LOOKS_LIMIT: usize = 1000;

impl Origin {
    /// What is listed without a name and says that the subject is its own, or is listed under a tag made of its digest.
    pub(super) fn listed_referrers(&self, subject: &Digest) -> Result<Vec<Referring>> {
        let tags = referring_tags(subject);
        let tag_of = |entry: &Tagged| -> Option<Tag> {
            let name = entry.annotations.name.as_deref()?;
            tags.iter().find(|tag| tag.as_str() == name).cloned()
        };
        let (mut found, mut held) = (Vec::new(), HeldBytes::default());
        for entry in self.listed.iter().filter(|entry| entry.descriptor.digest != *subject).take(LOOKS_LIMIT) {
            let tag = tag_of(entry);
            if tag.is_none() && entry.annotations.name.is_some() {
                continue;
            }
            // Others list what is not here.
            let Ok(manifest) = self.manifest(&entry.descriptor) else { continue };
            if tag.is_some() || subject_of(&manifest.bytes).as_ref() == Some(subject) {
                held.add(manifest.bytes.len(), format_args!("manifest {subject}"))?;
                found.push(Referring { manifest, tag });
            }
        }
        Ok(found)
    }
}

/// What a manifest refers to (image-spec manifest.md, `subject`).
fn subject_of(manifest: &[u8]) -> Option<Digest> {
    #[derive(Deserialize)]
    struct Shape {
        subject: Option<Subject>,
    }
    #[derive(Deserialize)]
    struct Subject {
        digest: Digest,
    }
    Some(serde_json::from_slice::<Shape>(manifest).ok()?.subject?.digest)
}
