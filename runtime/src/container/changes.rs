//! What a container has changed of its image's files.

use super::store::{Container, Containers};
use crate::difference::{Change, Layer, Same, compare};
use crate::error::Result;
use crate::spec::ETC_FILES;

/// What is mounted over: what lies there in the container's own directory only holds a mount.
const MOUNTED: [&str; 3] = ["dev", "proc", "sys"];

impl Containers {
    /// What a container has added, changed and deleted since it was made, sorted by path. While it runs, what can be seen.
    ///
    /// Call it in the user namespace that the container's files belong to.
    pub fn changes(&self, container: &Container) -> Result<Vec<Change>> {
        let image: Vec<Layer> =
            self.layer_paths(&container.config).iter().map(|path| Layer::open(path)).collect::<Result<_>>()?;
        let own = Layer::open(&self.directory(&container.config.id).join("upper"))?;
        let all: Vec<Layer> = std::iter::once(own).chain(image.iter().cloned()).collect();
        compare(&image, &all, Same::Layer, &is_mounted)
    }
}

fn is_mounted(path: &[u8]) -> bool {
    MOUNTED.iter().any(|name| name.as_bytes() == path)
        || path.strip_prefix(b"etc/").is_some_and(|name| ETC_FILES.iter().any(|file| file.as_bytes() == name))
}
