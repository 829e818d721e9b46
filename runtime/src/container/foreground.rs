//! A container in the foreground: run, and nothing left.

use std::os::fd::AsFd;
use std::path::Path;

use super::prepare;
use crate::erofs::Shared;
use crate::error::Result;
use crate::launch::{self, Exit, Guard, Launch};
use crate::network::attach::{Attached, Request, attach};
use crate::network::{self, Networks};
use crate::spec::{RunOptions, default_spec};
use crate::store::{Image, Lease, Store};
use crate::volume::{self, Mounting, Volumes};

/// Runs a container in the foreground and removes it when it ends.
///
/// `lease` must hold the image's layers ([`Store::find_leased`]); its ID is the container's ID, its
/// scratch directory the container's. Call it while this process has one thread. Should the process be
/// killed, a guard process ends the container and removes what it left.
pub fn run(store: &Store, lease: &Lease, image: &Image, mut options: RunOptions, stdin: bool) -> Result<Exit> {
    let dir = lease.scratch();
    let guard = Guard::start(std::slice::from_ref(&dir))?;
    lease.id().clone_into(&mut options.id);
    let exposed = &image.config.config.exposed_ports;
    let attached = attach(&Request { store, id: lease.id(), name: "", directory: &dir, options: &options, exposed });
    let endpoints = attached.as_ref().map_or_else(|_| Vec::new(), |attached| attached.endpoints.clone());
    let ended = attached.and_then(|attached| launch(store, lease, &guard, image, options, stdin, attached));
    network::end(&dir);
    let released = Networks::new(store).release_endpoints(&endpoints);
    let removed = launch::remove_tree(&dir);
    guard.dismiss();
    let exit = ended?;
    released?;
    removed?;
    Ok(exit)
}

fn launch(
    store: &Store,
    lease: &Lease,
    guard: &Guard,
    image: &Image,
    mut options: RunOptions,
    stdin: bool,
    mut attached: Attached,
) -> Result<Exit> {
    let dir = &lease.scratch();
    volume::complete(&mut options, &image.config.config)?;
    let _namespaces = prepare::find_namespaces(store, &mut options)?;
    prepare::enter_network(&dir.join("etc"), &attached, &mut options)?;
    let mut name_server = attached.name_server(store, &options)?;
    let mut layers = Shared::new();
    prepare::make_directories(store, dir, image.diff_ids(), &mut layers)?;
    let overlay = prepare::overlay(store, dir, image.diff_ids(), options.rootless.is_some(), true);
    let root = overlay.mount_by(&mut |path| layers.open(path))?;
    layers.enter();
    if !options.volumes.is_empty() {
        let volumes = Volumes::of(store);
        volumes.borrow(&options.volumes, lease)?;
        let private = dir.join("volumes");
        let mounting = Mounting { root: root.as_fd(), private: Some(&private), fill: true, rootless: options.rootless };
        volumes.mount(&mut options.volumes, &mounting)?;
    }
    let spec = default_spec(&image.config.config, root.as_fd(), &options)?;
    let launch = Launch { id: &options.id, spec: &spec, root, stdin, guard: Some(guard), bundle: Path::new("") };
    launch::run_served(launch, name_server.as_mut())
}
