//! What a container sees that is not its image's, as flags of `rrun`.

use std::str::FromStr;

use clap::Args;
use longshore_runtime::container::Containers;
use longshore_runtime::spec::RunOptions;
use longshore_runtime::volume::{Mounted, Source, Tmpfs, Volume, parse_mount};
use longshore_runtime::{Error, Store};

use crate::error::Result;

#[derive(Debug, Args)]
pub(super) struct MountFlags {
    /// Show a volume, or a directory or file of this machine, inside the container; without SOURCE a volume without
    /// a name. OPTIONS: ro, rw, nocopy, z, Z, and for paths of this machine [r]private, [r]slave, [r]shared
    #[arg(short, long = "volume", value_name = "[SOURCE:]PATH[:OPTIONS]")]
    volumes: Vec<Volume>,
    /// The same by docker's keys: type=volume, bind or tmpfs, source, target, readonly, ...
    #[arg(long = "mount", value_name = "KEY=VALUE,...", value_parser = parse_mount)]
    mounts: Vec<Mounted>,
    /// A file system in memory, with options of mount
    #[arg(long, value_name = "PATH[:OPTIONS]")]
    tmpfs: Vec<Tmpfs>,
    /// The volumes and paths of this machine that another container has
    #[arg(long, value_name = "CONTAINER[:ro]")]
    volumes_from: Vec<From>,
}

/// A container to have the volumes of.
#[derive(Debug, Clone)]
struct From {
    container: String,
    read_only: bool,
}

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (container, mode) = text.split_once(':').unwrap_or((text, ""));
        if !mode.split(',').all(|word| matches!(word, "" | "ro" | "rw" | "z" | "Z")) {
            return Err("the options are ro, rw, z and Z".into());
        }
        Ok(Self { container: container.to_owned(), read_only: mode.split(',').any(|word| word == "ro") })
    }
}

impl MountFlags {
    /// Puts them into `options`. What is said of a place here goes before what another container has there.
    pub(super) fn apply(self, store: &Store, options: &mut RunOptions) -> Result<()> {
        let (mut volumes, mut tmpfs) = (self.volumes, self.tmpfs);
        for mounted in self.mounts {
            match mounted {
                Mounted::Volume(volume) => volumes.push(volume),
                Mounted::Tmpfs(one) => tmpfs.push(one),
            }
        }
        for from in &self.volumes_from {
            for mut volume in from.volumes(store)? {
                let place = &volume.destination;
                if volumes.iter().any(|own| own.destination == *place) || tmpfs.iter().any(|own| own.destination() == place) {
                    continue;
                }
                volume.read_only |= from.read_only;
                // It goes with the container it was made for, not with this one.
                if let Source::Volume { anonymous, .. } = &mut volume.source {
                    *anonymous = false;
                }
                volumes.push(volume);
            }
        }
        options.volumes = volumes;
        options.tmpfs = tmpfs;
        Ok(())
    }
}

impl From {
    fn volumes(&self, store: &Store) -> Result<Vec<Volume>> {
        let container = Containers::open(store)?.look_up(&self.container)?;
        let container = container.ok_or_else(|| Error::NotFound {
            what: format!("container {:?} of --volumes-from", self.container),
            hint: "`rbox ps --all` shows those there are".into(),
        })?;
        Ok(container.config.options.volumes)
    }
}
