//! `-v host:container[:options]`.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use oci_spec::runtime::{Mount, MountBuilder};

use crate::error::{Error, Result};

/// A directory or file of the host that the container sees.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Volume {
    /// On the host, absolute.
    pub source: PathBuf,
    /// In the container, absolute.
    pub destination: PathBuf,
    /// Nothing below it can be written, mounts included.
    pub read_only: bool,
}

impl FromStr for Volume {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = |why: &str| Error::invalid(format!("volume {text:?}"), why);
        let mut parts = text.split(':');
        let (Some(source), Some(destination), options, None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(invalid("it must be HOST-PATH:CONTAINER-PATH or HOST-PATH:CONTAINER-PATH:ro"));
        };
        let mut read_only = false;
        for option in options.into_iter().flat_map(|options| options.split(',')) {
            match option {
                "ro" => read_only = true,
                "rw" => read_only = false,
                _ => return Err(invalid("the options are ro and rw")),
            }
        }
        if !destination.starts_with('/') {
            return Err(invalid("the path in the container must be absolute"));
        }
        let source = match source.chars().next() {
            Some('/') => PathBuf::from(source),
            Some('.') => std::env::current_dir().map_err(|error| Error::io("find the working directory", error))?.join(source),
            _ => return Err(invalid("named volumes are not supported; a host path starts with / or .")),
        };
        Ok(Self { source, destination: Path::new(destination).to_owned(), read_only })
    }
}

/// A filesystem in memory that the container has for itself.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Tmpfs {
    /// In the container, absolute.
    destination: PathBuf,
    /// Beside docker's `nosuid,nodev,noexec`, or against them.
    options: Vec<String>,
}

impl Tmpfs {
    pub(super) fn mount(&self) -> Result<Mount> {
        let defaults = ["nosuid", "nodev", "noexec"].map(str::to_owned);
        MountBuilder::default()
            .destination(self.destination.clone())
            .typ("tmpfs")
            .source("tmpfs")
            .options(defaults.into_iter().chain(self.options.iter().cloned()).collect::<Vec<_>>())
            .build()
            .map_err(|error| super::build_error(&error))
    }
}

impl FromStr for Tmpfs {
    type Err = Error;

    /// `PATH[:OPTIONS]`, as docker has it.
    fn from_str(text: &str) -> Result<Self> {
        let (destination, options) = text.split_once(':').unwrap_or((text, ""));
        if !destination.starts_with('/') || destination == "/" {
            return Err(Error::invalid(format!("tmpfs {text:?}"), "it must be PATH or PATH:OPTIONS, and the path absolute"));
        }
        let options = options.split(',').filter(|option| !option.is_empty()).map(str::to_owned).collect();
        Ok(Self { destination: destination.into(), options })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_parsed_as_docker_writes_them() {
        let volume: Volume = "/a:/b:ro".parse().unwrap();
        assert_eq!(volume, Volume { source: "/a".into(), destination: "/b".into(), read_only: true });
        assert!(!"/a:/b".parse::<Volume>().unwrap().read_only);
        assert!("./a:/b".parse::<Volume>().unwrap().source.is_absolute());
        for bad in ["/a", "a:/b", "/a:b", "/a:/b:x", "/a:/b:ro:rw", ""] {
            assert!(bad.parse::<Volume>().is_err(), "{bad}");
        }
    }
}
