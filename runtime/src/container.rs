//! A container of an image in the store: layers, changes and configuration brought together, run, and
//! nothing left.

use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::error::{Attempt, Result};
use crate::launch::{self, Exit, Guard, Launch, Rootfs};
use crate::name::Digest;
use crate::spec::{ETC_FILES, RunOptions, default_spec, etc_files};
use crate::store::{Image, Lease, Store};
use crate::{erofs, unpack};

/// Runs a container in the foreground and removes it when it ends.
///
/// `lease` must hold the image's layers ([`Store::find_leased`]); its ID is the container's ID, its
/// scratch directory the container's. Call it while this process has one thread. Should the process be
/// killed, a guard process ends the container and removes what it left.
pub fn run(store: &Store, lease: &Lease, image: &Image, mut options: RunOptions, stdin: bool) -> Result<Exit> {
    let dir = lease.scratch();
    let guard = Guard::start(std::slice::from_ref(&dir))?;
    lease.id().clone_into(&mut options.id);
    let ended = launch(store, &dir, &guard, image, options, stdin);
    let removed = launch::remove_tree(&dir);
    guard.dismiss();
    let exit = ended?;
    removed?;
    Ok(exit)
}

fn launch(store: &Store, dir: &Path, guard: &Guard, image: &Image, mut options: RunOptions, stdin: bool) -> Result<Exit> {
    write_etc(&dir.join("etc"), &options)?;
    options.etc_directory = Some(dir.join("etc"));
    let root = overlay(store, dir, image.diff_ids(), options.rootless.is_some())?.mount()?;
    let spec = default_spec(&image.config.config, root.as_fd(), &options)?;
    launch::run(Launch { id: &options.id, spec: &spec, root, stdin, guard: Some(guard), bundle: Path::new("") })
}

/// The image's layers under an empty directory for the container's changes.
fn overlay(store: &Store, dir: &Path, diff_ids: &[Digest], userxattr: bool) -> Result<Rootfs> {
    let make = |name: &str| {
        let path = dir.join(name);
        std::fs::DirBuilder::new().mode(0o755).create(&path).attempt(|| format!("create directory {}", path.display()))?;
        Ok::<PathBuf, crate::Error>(path)
    };
    let (upper, work) = (make("upper")?, make("work")?);
    let mut lower: Vec<PathBuf> = diff_ids.iter().rev().map(|diff_id| store.layer_path(diff_id)).collect();
    match lower.first() {
        // The root directory of an overlay is the upper one: it must look like the image's.
        Some(top) => {
            let top = erofs::open_layer(top)?;
            unpack::adopt_directory(&[top.as_fd()], Path::new(""), open(&upper)?.as_fd())?;
        }
        None => lower.push(make("empty")?),
    }
    Ok(Rootfs::Overlay { lower, upper, work, userxattr, ephemeral: true })
}

fn open(path: &Path) -> Result<std::fs::File> {
    std::fs::File::open(path).attempt(|| format!("open directory {}", path.display()))
}

/// The files of `/etc` that a container gets from its host.
fn write_etc(dir: &Path, options: &RunOptions) -> Result<()> {
    std::fs::DirBuilder::new().mode(0o755).create(dir).attempt(|| format!("create directory {}", dir.display()))?;
    for (name, text) in ETC_FILES.iter().zip(etc_files(&options.hostname()?, options.network)?) {
        let path = dir.join(name);
        std::fs::write(&path, text).attempt(|| format!("write {}", path.display()))?;
    }
    Ok(())
}
