//! What a container's root filesystem is made of: layers, changes, and the files its host gives it.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::monitor::HIGH_FD;
use super::store::Containers;
use crate::erofs::Shared;
use crate::error::{Attempt, Result};
use crate::launch::Rootfs;
use crate::name::Digest;
use crate::network::attach::Attached;
use crate::spec::{ETC_FILES, NamespaceMode, RunOptions};
use crate::store::Store;
use crate::unpack;

/// Makes, in `dir`, the directories that hold a container's changes.
pub(super) fn make_directories(store: &Store, dir: &Path, diff_ids: &[Digest], layers: &mut Shared) -> Result<()> {
    let upper = make(dir, "upper")?;
    make(dir, "work")?;
    match diff_ids.last() {
        // The root directory of an overlay is the upper one: it must look like the image's.
        Some(top) => {
            let top = layers.open(&store.layer_path(top))?;
            unpack::adopt_directory(&[top.as_fd()], Path::new(""), open(&upper)?.as_fd()).map(drop)
        }
        None => make(dir, "empty").map(drop),
    }
}

/// The image's layers under the directory for the container's changes, in `dir`. With `ephemeral` those go
/// when the container ends.
pub(super) fn overlay(store: &Store, dir: &Path, diff_ids: &[Digest], userxattr: bool, ephemeral: bool) -> Rootfs {
    let mut lower: Vec<PathBuf> = diff_ids.iter().rev().map(|diff_id| store.layer_path(diff_id)).collect();
    if lower.is_empty() {
        lower.push(dir.join("empty"));
    }
    Rootfs::Overlay { lower, upper: dir.join("upper"), work: dir.join("work"), userxattr, ephemeral }
}

/// Finds the namespaces of other containers that one is to share; those must run. What is given holds them until it has
/// joined them.
pub(super) fn find_namespaces(store: &Store, options: &mut RunOptions) -> Result<Vec<OwnedFd>> {
    let mut held = Vec::new();
    for (kind, mode) in options.isolation.modes() {
        if let NamespaceMode::Container(id) = mode {
            let containers = Containers::open(store)?;
            let container = containers.load(id)?;
            let namespace = containers.namespace(container.running()?, kind)?;
            // Out of the way of the descriptors the container is to have.
            let high = rustix::io::fcntl_dupfd_cloexec(namespace, HIGH_FD).attempt(|| "duplicate a file descriptor")?;
            *mode = NamespaceMode::Path(format!("/proc/self/fd/{}", high.as_raw_fd()).into());
            held.push(high);
        }
    }
    Ok(held)
}

/// Writes the files of `/etc` that a container gets from its host into `dir`, and has it join its network.
pub(super) fn enter_network(dir: &Path, attached: &Attached, options: &mut RunOptions) -> Result<()> {
    options.network_namespace = attached.path();
    if let Some((directory, hostname)) = &attached.shared {
        options.etc_directory = Some(directory.clone());
        options.hostname.get_or_insert_with(|| hostname.clone());
        return Ok(());
    }
    options.etc_directory = Some(dir.to_owned());
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(dir)
        .attempt(|| format!("create directory {}", dir.display()))?;
    let [hosts, resolv_conf] = attached.etc(options)?;
    for (name, text) in ETC_FILES.iter().zip([hosts, format!("{}\n", options.hostname()?), resolv_conf]) {
        let path = dir.join(name);
        std::fs::write(&path, text).attempt(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn make(dir: &Path, name: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    std::fs::DirBuilder::new().mode(0o755).create(&path).attempt(|| format!("create directory {}", path.display()))?;
    Ok(path)
}

fn open(path: &Path) -> Result<std::fs::File> {
    std::fs::File::open(path).attempt(|| format!("open directory {}", path.display()))
}
