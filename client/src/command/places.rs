//! The places that `copy` and `push` name: opened to be read from.

use std::time::Duration;

use longshore_runtime::name::{Digest, Reference};
use longshore_runtime::origin::{Location, Origin};
use longshore_runtime::parallel::Cancel;
use longshore_runtime::source::{BlobReader, Referring, Resolved};
use longshore_runtime::store::Lease;
use longshore_runtime::{RawManifest, Source, Store, image::Descriptor};

use super::Global;
use crate::config::{Registries, image_name, name_here};
use crate::credentials::Credentials;
use crate::error::Result;
use crate::registry::Repository;

/// What an image that has no name of its own is called while it travels.
const NAMELESS: &str = "localhost/image";

/// An image that is to be read.
pub(super) enum Place {
    /// In a registry, by its name there.
    Remote(Box<Repository>, Reference),
    /// In the store or a file.
    Files {
        origin: Box<Origin>,
        reference: Reference,
        /// Keeps what is in the store there.
        _lease: Option<Lease>,
    },
}

impl Place {
    /// Opens it. A bare name is one in a registry.
    pub(super) fn open(global: &Global, location: &Location, credentials: Option<Credentials>) -> Result<Self> {
        let remote = |reference: Reference| {
            let repository = Repository::with_credentials(&Registries::load()?, &reference, credentials)?;
            Ok(Self::Remote(Box::new(repository), reference))
        };
        match location {
            Location::Registry(reference) => remote(reference.clone()),
            Location::Name(name) => remote(image_name(name)?),
            Location::OciLayout(..) | Location::OciArchive(..) => {
                let origin = Box::new(open_files(None, location)?);
                Ok(Self::Files { origin, reference: NAMELESS.parse()?, _lease: None })
            }
            Location::Store(_) | Location::DockerArchive(..) => {
                let store = global.store()?;
                let lease = store.lease()?;
                let origin = Box::new(open_files(Some((&store, &lease)), location)?);
                Ok(Self::Files { origin, reference: NAMELESS.parse()?, _lease: Some(lease) })
            }
        }
    }

    /// What holds it.
    pub(super) fn source(&self) -> &dyn Source {
        match self {
            Self::Remote(repository, _) => &**repository,
            Self::Files { origin, .. } => &**origin,
        }
    }

    /// What the source is asked for.
    pub(super) fn reference(&self) -> &Reference {
        match self {
            Self::Remote(_, reference) | Self::Files { reference, .. } => reference,
        }
    }
}

/// What is no registry's. Only what is in the store, and a docker archive, need the store and a lease of it.
pub(super) fn open_files(store: Option<(&Store, &Lease)>, location: &Location) -> Result<Origin> {
    let needed = || longshore_runtime::Error::invalid("image location", "it is in a registry: `rbox copy` reads from there");
    Ok(match location {
        Location::Store(name) | Location::Name(name) => {
            let (store, lease) = store.ok_or_else(needed)?;
            let name = &name_here(store, name)?;
            let image = store.find_leased(name, lease)?.map_or_else(|| store.get(name), Ok)?;
            Origin::from_store(store, &image)
        }
        Location::OciLayout(dir, tag) => Origin::from_layout(dir, tag.as_deref())?,
        Location::OciArchive(file, tag) => Origin::from_oci_archive(file, tag.as_deref())?,
        Location::DockerArchive(file, name) => {
            let (_, lease) = store.ok_or_else(needed)?;
            Origin::from_docker_archive(file, name.as_deref(), &lease.scratch())?
        }
        Location::Registry(_) => return Err(needed().into()),
    })
}

/// A source that is asked for another name than its image is to have.
pub(super) struct Renamed<'a> {
    pub(super) source: &'a dyn Source,
    pub(super) reference: &'a Reference,
}

impl Renamed<'_> {
    fn of(&self, asked: &Reference) -> Reference {
        asked.digest().map_or_else(|| self.reference.clone(), |digest| self.reference.with_digest(digest.clone()))
    }
}

impl Source for Renamed<'_> {
    fn manifest(&self, reference: &Reference) -> longshore_runtime::Result<RawManifest> {
        self.source.manifest(&self.of(reference))
    }

    fn resolve(&self, reference: &Reference) -> longshore_runtime::Result<Option<Resolved>> {
        self.source.resolve(&self.of(reference))
    }

    fn blob<'a>(
        &'a self,
        reference: &Reference,
        blob: &Descriptor,
        offset: u64,
        cancel: &'a Cancel<'a>,
    ) -> longshore_runtime::Result<BlobReader<'a>> {
        self.source.blob(&self.of(reference), blob, offset, cancel)
    }

    fn blob_range<'a>(
        &'a self,
        reference: &Reference,
        blob: &Descriptor,
        range: std::ops::Range<u64>,
        cancel: &'a Cancel<'a>,
    ) -> longshore_runtime::Result<Option<BlobReader<'a>>> {
        self.source.blob_range(&self.of(reference), blob, range, cancel)
    }

    fn referrers(&self, reference: &Reference, subject: &Digest) -> longshore_runtime::Result<Vec<Referring>> {
        self.source.referrers(&self.of(reference), subject)
    }

    fn latency(&self) -> Duration {
        self.source.latency()
    }

    fn distrust(&self, blob: &Digest) -> bool {
        self.source.distrust(blob)
    }
}
