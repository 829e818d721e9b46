//! The runtimes judged in tests: where they are, and what is known to be wrong with them.

// Each test program uses its part of this.
#![allow(dead_code, unreachable_pub)]

use std::path::PathBuf;

use crate::needs;

/// What Debian's runc 1.1.5 does otherwise; docs/conformance-runtime.md says how.
pub const RUNC_FAILS: &[&str] = &[
    "lifecycle-delete-created",
    "namespaces-join-user",
    "mounts-rootfs-propagation-shared",
    "mounts-rootfs-propagation-unbindable",
    "process-rlimits-duplicate",
    "hooks-poststart",
    "hooks-order",
    "hooks-state-status",
    "hooks-fail-start-container",
    "hooks-fail-poststart",
    "hooks-fail-poststop",
    "errors-version",
];

/// What Debian's crun 1.8.1 does otherwise.
pub const CRUN_FAILS: &[&str] = &[
    "lifecycle-delete-created",
    "namespaces-duplicate",
    "mounts-flags-undone",
    "mounts-propagation-shared",
    "mounts-propagation-unbindable",
    "mounts-propagation-private",
    "process-cwd-relative",
    "process-rlimits-duplicate",
    "exec-env",
    "exec-no-new-privileges",
    "hooks-order",
    "hooks-start-awaited",
    "hooks-state",
    "hooks-state-status",
    "hooks-fail-start-container",
];

/// Where somebody else's runtime is installed.
pub fn peer(program: &str) -> Option<PathBuf> {
    needs::installed(program).then_some(())?;
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths).map(|directory| directory.join(program)).find(|path| path.is_file())
}
