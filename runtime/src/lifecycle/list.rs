//! `list`: the containers below the runtime's root.

use std::io::ErrorKind;

use super::Runtime;
use super::state::State;
use crate::error::{Attempt, Error, Result};
use crate::warning::warn;

impl Runtime {
    /// The states of all containers, by name. One that cannot be read is warned of and left out.
    pub fn list(&self) -> Result<Vec<State>> {
        let entries = match std::fs::read_dir(&self.root) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.attempt(|| format!("list directory {:?}", self.root))?,
        };
        let mut states = Vec::new();
        for entry in entries {
            let name = entry.attempt(|| format!("list directory {:?}", self.root))?.file_name();
            let Some(id) = name.to_str() else { continue };
            match self.state(id) {
                Ok(state) => states.push(state),
                // No container's name, or one that came or went this moment.
                Err(Error::Name { .. } | Error::NotFound { .. }) => {}
                Err(error) => warn(&error.to_string()),
            }
        }
        states.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(states)
    }
}
