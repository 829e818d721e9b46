//! The requirements and their checks, one file a group.

mod capabilities;
mod cgroups;
mod command_line;
mod errors;
mod exec;
mod hooks;
mod lifecycle;
mod linux;
mod mounts;
mod namespaces;
mod paths;
mod process;
mod seccomp;
mod state;
mod terminal;

use super::Requirement;

/// Every group, in the order in which it is judged.
pub(super) const TABLES: [&[Requirement]; 15] = [
    lifecycle::TABLE,
    state::TABLE,
    namespaces::TABLE,
    mounts::TABLE,
    paths::TABLE,
    process::TABLE,
    capabilities::TABLE,
    terminal::TABLE,
    exec::TABLE,
    hooks::TABLE,
    seccomp::TABLE,
    cgroups::TABLE,
    linux::TABLE,
    errors::TABLE,
    command_line::TABLE,
];
