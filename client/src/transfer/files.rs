//! Image layouts and archives as the place where images go.

use longshore_runtime::image::Descriptor;
use longshore_runtime::layout::{DockerArchive, Layout, LayoutArchive};
use longshore_runtime::parallel::Cancel;

use super::{Destination, Manifest, Moving, Plan};
use crate::error::Result;
use crate::registry::Sent;

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
        self.layout.put_blob(
            moving.blob,
            &|offset| moving.open(offset, moving.cancel),
            &|event| moving.report(event),
            moving.cancel,
        )?;
        Ok(Sent::Uploaded)
    }

    fn put_manifest(&self, manifest: &Manifest) -> Result<()> {
        Ok(self.layout.put_manifest(&manifest.raw)?)
    }

    fn finish(&self, plan: &Plan) -> Result<()> {
        self.layout.put_manifest(&plan.root)?;
        for manifest in plan.listed() {
            self.layout.list(&manifest.raw, manifest.name())?;
        }
        Ok(self.layout.list(&plan.root, self.name)?)
    }
}

impl Destination for LayoutArchive {
    fn has_blob(&self, _: &Descriptor, _: &Cancel<'_>) -> Result<bool> {
        Ok(false)
    }

    fn put_blob(&self, moving: &Moving<'_>) -> Result<Sent> {
        Self::put_blob(self, moving.blob, &|offset| moving.open(offset, moving.cancel), &|event| moving.report(event))?;
        Ok(Sent::Uploaded)
    }

    /// They are there since it was made.
    fn put_manifest(&self, _: &Manifest) -> Result<()> {
        Ok(())
    }

    fn finish(&self, _: &Plan) -> Result<()> {
        Ok(Self::finish(self)?)
    }
}

impl Destination for DockerArchive {
    fn has_blob(&self, _: &Descriptor, _: &Cancel<'_>) -> Result<bool> {
        Ok(false)
    }

    fn put_blob(&self, moving: &Moving<'_>) -> Result<Sent> {
        Self::put_blob(self, moving.blob, &|offset| moving.open(offset, moving.cancel), &|event| moving.report(event))?;
        Ok(Sent::Uploaded)
    }

    /// It has a form of its own.
    fn put_manifest(&self, _: &Manifest) -> Result<()> {
        Ok(())
    }

    fn finish(&self, _: &Plan) -> Result<()> {
        Ok(Self::finish(self)?)
    }
}
