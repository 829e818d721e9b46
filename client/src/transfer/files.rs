//! Image layouts and archives as the place where images go.

use longshore_runtime::RawManifest;
use longshore_runtime::image::Descriptor;
use longshore_runtime::layout::{DockerArchive, Layout, LayoutArchive};
use longshore_runtime::parallel::Cancel;

use super::{Destination, Manifest, Moving, Plan};
use crate::error::Result;
use crate::registry::Sent;
use crate::signature::layers;

/// A name in an image layout, or none.
#[derive(Debug)]
pub struct InLayout<'a> {
    /// The layout.
    pub layout: &'a Layout,
    /// The name.
    pub name: Option<&'a str>,
}

impl Destination for InLayout<'_> {
    fn has_blob(&self, blob: &Descriptor, _: &Cancel<'_>) -> Result<bool> {
        Ok(self.layout.has_blob(blob))
    }

    fn put_blob(&self, moving: &Moving<'_>) -> Result<Sent> {
        self.layout.put_blob(moving.blob, moving.fetching)?;
        Ok(Sent::Uploaded)
    }

    fn has_manifest(&self, manifest: &Manifest) -> Result<bool> {
        match &manifest.tag {
            Some(tag) => {
                let existing = self.layout.find(tag.as_str())?;
                Ok(existing.is_some() && layers::with(existing.as_ref(), &manifest.raw, tag.as_str())?.is_none())
            }
            None => Ok(self.layout.lists(&manifest.raw.digest)?),
        }
    }

    fn put_manifest(&self, manifest: &Manifest) -> Result<()> {
        Ok(self.layout.put_manifest(&manifest.raw)?)
    }

    fn finish(&self, plan: &Plan) -> Result<()> {
        self.layout.put_manifest(&plan.root)?;
        for manifest in plan.listed() {
            self.list(&manifest.raw, manifest.name())?;
        }
        self.list(&plan.root, self.name)
    }
}

impl InLayout<'_> {
    /// Lists a manifest; under a tag that is added to, together with what is there.
    fn list(&self, manifest: &RawManifest, name: Option<&str>) -> Result<()> {
        match name.and_then(|name| name.parse().ok()).filter(layers::is_added_to) {
            Some(tag) => self.layout.replace_named(tag.as_str(), |existing| layers::with(existing, manifest, tag.as_str())),
            None => Ok(self.layout.list(manifest, name)?),
        }
    }
}

impl Destination for LayoutArchive {
    fn put_blob(&self, moving: &Moving<'_>) -> Result<Sent> {
        Self::put_blob(self, moving.blob, moving.fetching)?;
        Ok(Sent::Uploaded)
    }

    fn finish(&self, _: &Plan) -> Result<()> {
        Ok(Self::finish(self)?)
    }
}

impl Destination for DockerArchive {
    fn put_blob(&self, moving: &Moving<'_>) -> Result<Sent> {
        Self::put_blob(self, moving.blob, moving.fetching)?;
        Ok(Sent::Uploaded)
    }

    fn finish(&self, _: &Plan) -> Result<()> {
        Ok(Self::finish(self)?)
    }
}
