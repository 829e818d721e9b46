//! Where configuration files are, this project's and those of others.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The longest configuration file read, in bytes.
const FILE_LIMIT_BYTES: u64 = 1 << 20;

/// By which tests have a directory of their own instead of `/etc`.
const ETC_VARIABLE: &str = "LONGSHORE_TEST_ETC";

/// The path a variable holds, if it is set to anything.
pub(crate) fn set(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Where the machine's configuration is.
pub(super) fn etc() -> PathBuf {
    set(ETC_VARIABLE).unwrap_or_else(|| "/etc".into())
}

/// Where the user's own is.
pub(crate) fn config_home() -> Option<PathBuf> {
    set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")))
}

/// docker's file of a user.
pub(crate) fn docker_config() -> Option<PathBuf> {
    let directory = set("DOCKER_CONFIG").or_else(|| set("HOME").map(|home| home.join(".docker")));
    Some(directory?.join("config.json"))
}

/// The configuration file that counts: that which `variable` names, else the user's own, else the machine's.
pub(crate) fn find_file(variable: &str, name: &str) -> Option<PathBuf> {
    let usual = [config_home(), Some(etc())].into_iter().flatten().map(|dir| dir.join("longshore").join(name));
    set(variable).or_else(|| usual.into_iter().find(|path| path.exists()))
}

/// A configuration file's bytes.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    Ok(longshore_runtime::files::read_bounded(path, FILE_LIMIT_BYTES)?)
}

/// A configuration file's text.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read(path)?).map_err(|e| bad(path, e))
}

/// The names in a directory, sorted; none if there is no such directory.
pub(super) fn names_in(directory: &Path, limit: usize) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(directory) {
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => return Ok(Vec::new()),
        other => other.map_err(|e| bad(directory, e))?,
    };
    let names = entries.map(|entry| Ok(entry.map_err(|e| bad(directory, e))?.file_name()));
    // What is no text is none of the names looked for.
    let mut names: Vec<String> =
        names.filter_map(|name| name.map(|name| name.into_string().ok()).transpose()).collect::<Result<_>>()?;
    if names.len() > limit {
        return Err(bad(directory, format_args!("there are more than {limit} files in it")));
    }
    names.sort();
    Ok(names)
}

/// A file of configuration is unusable.
pub(super) fn bad(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::Config { path: path.display().to_string(), why: why.to_string() }
}
