//! `update`: other limits for a container that runs.

use oci_spec::runtime::LinuxResources;

use super::state::Status;
use super::{Runtime, not_running};
use crate::cgroup;
use crate::error::{Error, Result};

/// The longest resources document.
const RESOURCES_LIMIT_BYTES: usize = 1 << 20;

impl Runtime {
    /// Changes the limits that `resources` has; device rules stay as they are.
    pub fn update(&self, id: &str, mut resources: LinuxResources) -> Result<()> {
        let container = self.take(id)?;
        if matches!(container.status()?, Status::Stopped | Status::Creating) {
            return Err(not_running(id));
        }
        resources.set_devices(None);
        cgroup::update(&container.record.cgroups, container.record.unit.as_ref(), &resources)
    }

    /// The same with the specification's document (`linux.resources`) in JSON.
    pub fn update_from_json(&self, id: &str, text: &[u8]) -> Result<()> {
        if text.len() > RESOURCES_LIMIT_BYTES {
            return Err(Error::invalid("resources", format!("the document is longer than {RESOURCES_LIMIT_BYTES} bytes")));
        }
        // The types take a list for an object, too.
        let fields: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(text).map_err(|error| Error::invalid("resources", error))?;
        self.update(id, serde_json::from_value(fields.into()).map_err(|error| Error::invalid("resources", error))?)
    }
}
