//! `-v [SOURCE:]PATH[:OPTIONS]`, `--tmpfs PATH[:OPTIONS]`, and what becomes of them.

use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::store::check_name;
use crate::error::{Error, Result};

/// A directory or file of the host, or a volume, that the container sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// What is seen.
    pub source: Source,
    /// In the container, absolute.
    pub destination: PathBuf,
    /// Nothing below it can be written, mounts included.
    pub read_only: bool,
    /// With `read_only`: what is mounted below it can be written.
    #[serde(default)]
    pub writable_below: bool,
    /// What is mounted below a host path is not seen.
    #[serde(default)]
    pub non_recursive: bool,
    /// How mounts made below it later travel.
    #[serde(default)]
    pub propagation: Propagation,
    /// An empty volume is not filled from the image.
    #[serde(default)]
    pub no_copy: bool,
    /// For a volume that is made.
    #[serde(default)]
    pub labels: Vec<String>,
}

/// What a [`Volume`] shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Source {
    /// A path of the host, absolute.
    Host(PathBuf),
    /// A volume of the store.
    Volume {
        /// Its name; empty until one is made up for it.
        volume: String,
        /// Nobody gave it a name: it goes with its container.
        #[serde(default)]
        anonymous: bool,
    },
}

impl Default for Source {
    fn default() -> Self {
        Self::Volume { volume: String::new(), anonymous: true }
    }
}

impl From<&Path> for Source {
    fn from(path: &Path) -> Self {
        Self::Host(path.to_owned())
    }
}

impl From<PathBuf> for Source {
    fn from(path: PathBuf) -> Self {
        Self::Host(path)
    }
}

impl From<&str> for Source {
    fn from(path: &str) -> Self {
        Self::Host(path.into())
    }
}

/// How mounts travel between the host and a bind mount (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// Neither way.
    Private,
    /// Neither way, nor with what is mounted below.
    #[default]
    RPrivate,
    /// From the host.
    Slave,
    /// From the host, also to what is mounted below.
    RSlave,
    /// Both ways.
    Shared,
    /// Both ways, also with what is mounted below.
    RShared,
}

impl Propagation {
    const ALL: [Self; 6] = [Self::Private, Self::RPrivate, Self::Slave, Self::RSlave, Self::Shared, Self::RShared];

    /// The word of mount(8).
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::RPrivate => "rprivate",
            Self::Slave => "slave",
            Self::RSlave => "rslave",
            Self::Shared => "shared",
            Self::RShared => "rshared",
        }
    }

    /// The opposite of [`Propagation::as_str`].
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == word)
    }
}

impl Volume {
    /// The name of the volume that is shown, if it is one.
    #[must_use]
    pub fn volume(&self) -> Option<&str> {
        match &self.source {
            Source::Volume { volume, .. } => Some(volume),
            Source::Host(_) => None,
        }
    }

    /// Whether it is a volume that nobody gave a name.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        matches!(self.source, Source::Volume { anonymous: true, .. })
    }

    /// As `-v` takes it, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        let source = match &self.source {
            Source::Host(path) => path.display().to_string(),
            Source::Volume { volume, .. } => volume.clone(),
        };
        let mode = self.mode();
        let colon = if mode.is_empty() { "" } else { ":" };
        format!("{source}:{}{colon}{mode}", self.destination.display())
    }

    /// The options of `-v` that are not the default ones.
    #[must_use]
    pub fn mode(&self) -> String {
        let mut words = Vec::new();
        words.extend(self.read_only.then_some("ro"));
        words.extend(self.no_copy.then_some("nocopy"));
        words.extend((self.propagation != Propagation::default()).then(|| self.propagation.as_str()));
        words.join(",")
    }

    /// Sets what the options of `-v` say.
    fn apply(&mut self, options: &str) -> std::result::Result<(), String> {
        let bind = matches!(self.source, Source::Host(_));
        let (mut mode, mut label, mut travels) = (false, false, false);
        let once = |seen: &mut bool, option: &str| match std::mem::replace(seen, true) {
            true => Err(format!("option {option:?} comes after another of its kind")),
            false => Ok(()),
        };
        for option in options.split(',') {
            match (option, Propagation::from_word(option)) {
                ("ro" | "rw", _) => {
                    once(&mut mode, option)?;
                    self.read_only = option == "ro";
                }
                // Labels of SELinux, where there is any.
                ("z" | "Z", _) => once(&mut label, option)?,
                // What docker's file sharing on other systems is told.
                ("consistent" | "cached" | "delegated" | "default", _) => {}
                ("nocopy", _) if bind => return Err("nocopy is for volumes; a host path is never filled".into()),
                ("nocopy", _) => self.no_copy = true,
                (_, Some(_)) if !bind => return Err(format!("{option} is for host paths; mounts do not travel to a volume")),
                (_, Some(propagation)) => {
                    once(&mut travels, option)?;
                    self.propagation = propagation;
                }
                _ => {
                    return Err(format!("option {option:?} is none of ro, rw, z, Z, nocopy, [r]private, [r]slave and [r]shared"));
                }
            }
        }
        Ok(())
    }
}

/// A destination without `.`, `..` and what is doubled.
///
/// # Errors
///
/// Why it cannot be one.
pub(super) fn destination(text: &str) -> std::result::Result<PathBuf, String> {
    if !text.starts_with('/') {
        return Err(format!("the path in the container must be absolute, and {text:?} is not"));
    }
    let mut clean = PathBuf::from("/");
    for component in Path::new(text).components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    if clean == Path::new("/") {
        return Err("the container's root cannot be one".into());
    }
    Ok(clean)
}

/// A host path as it was given: absolute, or from here.
pub(super) fn host_path(text: &str) -> Result<PathBuf> {
    std::path::absolute(text).map_err(|error| Error::io("find the working directory", error))
}

impl FromStr for Volume {
    type Err = Error;

    /// `[SOURCE:]PATH[:OPTIONS]`, as docker has it: without a source a volume without a name, and a source that
    /// does not begin with `/` or `.` is the name of a volume.
    fn from_str(text: &str) -> Result<Self> {
        let invalid = |why: String| Error::invalid(format!("volume {text:?}"), why);
        let parts: Vec<&str> = text.split(':').collect();
        let (source, path, options) = match parts[..] {
            [path] => (None, path, None),
            [source, path] => (Some(source), path, None),
            [source, path, options] => (Some(source), path, Some(options)),
            _ => return Err(invalid("it must be PATH, VOLUME:PATH or HOST-PATH:PATH, with :OPTIONS or without".into())),
        };
        let source = match source {
            None => Source::default(),
            Some(host) if host.starts_with(['/', '.']) => Source::Host(host_path(host)?),
            Some(name) => {
                check_name(name)?;
                Source::Volume { volume: name.to_owned(), anonymous: false }
            }
        };
        let mut volume = Self { source, destination: destination(path).map_err(invalid)?, ..Self::default() };
        options.map_or(Ok(()), |options| volume.apply(options)).map_err(invalid)?;
        Ok(volume)
    }
}

/// A filesystem in memory that the container has for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    /// In the container, absolute.
    pub(crate) destination: PathBuf,
    /// Beside docker's `nosuid,nodev,noexec`, or against them.
    pub(crate) options: Vec<String>,
}

impl Tmpfs {
    /// In the container, absolute.
    #[must_use]
    pub fn destination(&self) -> &Path {
        &self.destination
    }

    /// Its options beside the default ones, as fstab has them.
    #[must_use]
    pub fn options(&self) -> String {
        self.options.join(",")
    }
}

impl FromStr for Tmpfs {
    type Err = Error;

    /// `PATH[:OPTIONS]`, as docker has it.
    fn from_str(text: &str) -> Result<Self> {
        let (path, options) = text.split_once(':').unwrap_or((text, ""));
        let destination = destination(path).map_err(|why| Error::invalid(format!("tmpfs {text:?}"), why))?;
        let options = options.split(',').filter(|option| !option.is_empty()).map(str::to_owned).collect();
        Ok(Self { destination, options })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Volume {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn volumes_are_parsed_as_docker_writes_them() {
        let bind = Volume { source: "/a".into(), destination: "/b".into(), ..Volume::default() };
        assert_eq!(parse("/a:/b"), bind);
        assert_eq!(parse("/a:/x/..//b/:ro,z"), Volume { read_only: true, ..bind.clone() });
        assert_eq!(parse("/a:/b:rw,rslave"), Volume { propagation: Propagation::RSlave, ..bind });
        assert!(matches!(parse("./a:/b").source, Source::Host(path) if path.is_absolute() && path.ends_with("a")));
        let named = Volume {
            source: Source::Volume { volume: "data".into(), anonymous: false },
            destination: "/b".into(),
            ..Volume::default()
        };
        assert_eq!(parse("data:/b"), named);
        assert_eq!(parse("data:/b:nocopy,ro"), Volume { read_only: true, no_copy: true, ..named });
        assert_eq!(parse("/b"), Volume { destination: "/b".into(), ..Volume::default() });
        for bad in [
            "",
            ":",
            "/b:ro",
            "a",
            "data",
            "a:/b",
            "a:b",
            "/a:b:ro",
            "data:b",
            "data:/",
            "/a:/b:x",
            "/a:/b:",
            "/a:/b:ro,rw",
            "/a:/b:z,Z",
            "/",
            "/a:/b:ro:rw",
            "/a:/b:nocopy",
            "data:/b:rshared",
            "/a:/b:shared,slave",
            "../x:/",
            "-x:/b",
            "a/b:/c",
            "data:/b:U",
        ] {
            assert!(bad.parse::<Volume>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_older_containers_recorded_is_still_read() {
        let old = r#"{"source":"/a","destination":"/b","read_only":true}"#;
        let volume: Volume = serde_json::from_str(old).unwrap();
        assert_eq!(volume, parse("/a:/b:ro"));
        for text in ["/a:/b:rshared", "data:/b:nocopy", "/b"] {
            let json = serde_json::to_string(&parse(text)).unwrap();
            assert_eq!(serde_json::from_str::<Volume>(&json).unwrap(), parse(text), "{json}");
        }
    }

    #[test]
    fn a_tmpfs_has_a_path_of_its_own() {
        let tmpfs: Tmpfs = "/run:size=1m,exec".parse().unwrap();
        assert_eq!((tmpfs.destination(), &*tmpfs.options()), (Path::new("/run"), "size=1m,exec"));
        for bad in ["", "run", "/", "/x/.."] {
            assert!(bad.parse::<Tmpfs>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_described_as_it_was_meant(text in "[a-c/.:,ro]{0,12}") {
            if let Ok(volume) = text.parse::<Volume>() && !volume.is_anonymous() {
                prop_assert_eq!(parse(&volume.describe()), volume);
            }
        }
    }
}
