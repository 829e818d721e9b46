//! A bundle: a directory with a configuration and, most of the time, a root filesystem (runtime-spec
//! bundle.md).

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use oci_spec::runtime::Spec;

use super::clock::rfc3339;
use super::create::has_terminal;
use super::handover::standard_descriptors;
use super::state::{Record, process_stat};
use crate::cgroup::{Member, Unit};
use crate::error::{Attempt, Error, Result};
use crate::files::read_bounded;
use crate::spec::parse_spec;
use crate::userns;

/// The largest `config.json` accepted.
const CONFIG_LIMIT_BYTES: u64 = 4 << 20;

/// A bundle, read.
#[derive(Debug)]
pub(super) struct Bundle {
    /// Absolute.
    pub(super) path: PathBuf,
    /// The configuration as it stands in the bundle.
    pub(super) text: Vec<u8>,
    pub(super) spec: Spec,
    /// Absolute.
    pub(super) rootfs: PathBuf,
}

impl Bundle {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let path = path.canonicalize().attempt(|| format!("open bundle {path:?}"))?;
        let config = path.join("config.json");
        let text = read_bounded(&config, CONFIG_LIMIT_BYTES)?;
        let spec = parse(&config, &text, &path)?;
        let root = spec.root().as_ref().ok_or_else(|| Error::invalid(format!("{config:?}"), "it has no \"root\""))?;
        let rootfs = path.join(root.path());
        Ok(Self { path, text, spec, rootfs })
    }

    /// Moves an ordinary user's process into the user namespace in which it can make the container.
    pub(super) fn enter(mut self) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            userns::enter_rootless_for(&mut self.spec)?;
        }
        Ok(self)
    }

    /// What is remembered of a container made of it, whose first process is `pid`: a child of this process, whose
    /// entry stays until it is waited for.
    pub(super) fn record(&self, id: &str, pid: i32, cgroups: Vec<Member>, unit: Option<Unit>) -> Record {
        Record {
            id: id.to_owned(),
            pid,
            start_time_ticks: process_stat(pid).map_or(0, |stat| stat.start_time_ticks),
            bundle: self.path.clone(),
            rootfs: self.rootfs.clone(),
            created: rfc3339(SystemTime::now()),
            owner: rustix::process::getuid().as_raw(),
            annotations: self.spec.annotations().clone().unwrap_or_default(),
            cgroups,
            unit,
            mount: None,
            descriptors: if has_terminal(&self.spec) { Vec::new() } else { standard_descriptors() },
        }
    }
}

/// A configuration from its text. Only the first version of the specification is known.
pub(super) fn parse(path: &Path, text: &[u8], bundle: &Path) -> Result<Spec> {
    let spec = parse_spec(text, bundle).map_err(|error| Error::invalid(format!("{path:?}"), error))?;
    if !spec.version().starts_with("1.") {
        return Err(Error::invalid(format!("{path:?}"), format!("ociVersion {:?}: only 1.x is known", spec.version())));
    }
    Ok(spec)
}
