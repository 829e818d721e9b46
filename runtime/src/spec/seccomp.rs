//! Which system calls a container may make.

use oci_spec::runtime::{Capabilities, LinuxSeccomp};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::seccomp;

/// Where the rules come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seccomp {
    /// Docker's.
    #[default]
    Builtin,
    /// There are none.
    Unconfined,
    /// A document in docker's form.
    Profile(String),
}

impl Seccomp {
    /// A profile of one's own.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Invalid`] when it is none.
    pub fn profile(text: String) -> Result<Self> {
        seccomp::check(&text)?;
        Ok(Self::Profile(text))
    }

    /// For a container with this bounding set.
    pub(super) fn rules(&self, bounding: &Capabilities) -> Result<Option<LinuxSeccomp>> {
        match self {
            Self::Builtin => seccomp::default_profile(bounding).map(Some),
            Self::Unconfined => Ok(None),
            Self::Profile(text) => seccomp::own_profile(text, bounding).map(Some),
        }
    }
}
