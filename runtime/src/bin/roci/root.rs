//! Where the state of containers is kept unless told otherwise.

use std::path::PathBuf;

use longshore_runtime::error::Result;
use longshore_runtime::userns;

/// `/run/roci`; for an ordinary user, in a user namespace too, `$XDG_RUNTIME_DIR/roci`, and without that
/// variable a directory of the user's own in `/tmp`.
pub(crate) fn default() -> Result<PathBuf> {
    let of_user = std::env::var_os("XDG_RUNTIME_DIR").filter(|directory| !directory.is_empty()).map(PathBuf::from);
    let ordinary = !rustix::process::geteuid().is_root();
    match of_user {
        Some(directory) if ordinary || !userns::in_first()? => Ok(directory.join("roci")),
        None if ordinary => Ok(PathBuf::from(format!("/tmp/roci-{}", rustix::process::geteuid().as_raw()))),
        _ => Ok("/run/roci".into()),
    }
}
