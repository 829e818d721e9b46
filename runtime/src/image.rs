//! Manifests, indexes and configurations, read leniently from raw bytes.
//!
//! **Invariant: a document is never re-serialised.** These types are views for reading; what is
//! stored and sent on are the bytes as received.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::name::{Digest, Platform};

/// Overlayfs refuses more lower directories than this, so an image with more layers cannot run.
pub const LAYERS_LIMIT: usize = 500;

/// Entries an index may have.
pub const INDEX_LIMIT: usize = 4096;

/// The longest image configuration accepted, in bytes.
pub const CONFIG_LIMIT_BYTES: u64 = 8 << 20;

/// Media types of documents this crate understands.
pub mod media_type {
    /// image-spec manifest.md.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// image-spec image-index.md.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// image-spec config.md.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// image-spec layer.md, gzip.
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// image-spec layer.md, zstd.
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker image manifest version 2, schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

    /// All of them that a manifest request accepts, best first.
    pub const MANIFESTS: [&str; 4] = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST];
}

/// What a manifest says of one blob (image-spec descriptor.md).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The blob's media type.
    #[serde(default)]
    pub media_type: String,
    /// The blob's digest.
    pub digest: Digest,
    /// The blob's length in bytes.
    pub size: u64,
    /// In an index: what the manifest is made for.
    #[serde(default)]
    pub platform: Option<Platform>,
}

impl Descriptor {
    /// Whether registries hold no copy of this layer by its licence (image-spec
    /// layer.md#non-distributable-layers). Such a layer is neither pushed nor fetched from `urls`.
    pub fn is_foreign(&self) -> bool {
        self.media_type.contains(".nondistributable.") || self.media_type.contains(".foreign.")
    }
}

/// An image manifest (image-spec manifest.md, or Docker schema 2).
#[derive(Debug, Clone, Deserialize)]
pub struct Manifest {
    /// The image configuration.
    pub config: Descriptor,
    /// The layers, bottom first.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub layers: Vec<Descriptor>,
}

/// An index of manifests (image-spec image-index.md, or a Docker manifest list).
#[derive(Debug, Clone, Deserialize)]
pub struct Index {
    /// The manifests, in order of preference.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub manifests: Vec<Descriptor>,
}

impl Index {
    /// The first manifest made for `platform`.
    pub fn choose(&self, platform: &Platform) -> Option<&Descriptor> {
        self.manifests.iter().find(|entry| entry.platform.as_ref().is_some_and(|offered| platform.accepts(offered)))
    }

    /// The platforms on offer, for an error message.
    pub fn platforms(&self) -> String {
        let names: Vec<String> =
            self.manifests.iter().filter_map(|entry| entry.platform.as_ref()).take(16).map(ToString::to_string).collect();
        if names.is_empty() { "none that is named".into() } else { names.join(", ") }
    }
}

/// A manifest or an index.
#[derive(Debug, Clone)]
pub enum Document {
    /// One image.
    Image(Manifest),
    /// Several, to choose from.
    Index(Index),
}

impl Document {
    /// Reads a manifest or an index.
    ///
    /// `served_as` is the media type the bytes came under, empty when there was none. A document that
    /// can be read as both kinds, or whose own `mediaType` contradicts `served_as`, is refused
    /// (CVE-2021-41190).
    pub fn parse(served_as: &str, bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Shape<'a> {
            #[serde(default)]
            schema_version: u8,
            #[serde(default)]
            media_type: String,
            #[serde(borrow)]
            config: Option<&'a serde_json::value::RawValue>,
            #[serde(borrow)]
            layers: Option<&'a serde_json::value::RawValue>,
            #[serde(borrow)]
            manifests: Option<&'a serde_json::value::RawValue>,
        }
        let invalid = |why: &str| Error::invalid("manifest", why);
        let shape: Shape<'_> = parse_json("manifest", bytes)?;
        if shape.schema_version != 2 {
            return Err(invalid("its schemaVersion is not 2; Docker's schema 1 is not supported: push the image anew"));
        }
        let is_generic = |media: &str| media.is_empty() || media == "application/json" || media == "application/octet-stream";
        if !shape.media_type.is_empty() && !is_generic(served_as) && shape.media_type != served_as {
            return Err(invalid("its mediaType is not the Content-Type it was served under"));
        }
        let media = if shape.media_type.is_empty() { served_as } else { &shape.media_type };
        let says_index = matches!(media, media_type::OCI_INDEX | media_type::DOCKER_LIST);
        let says_image = matches!(media, media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST);
        match (shape.manifests.is_some(), shape.config.is_some() || shape.layers.is_some()) {
            (true, true) => Err(invalid("it can be read both as an image and as an index")),
            (true, false) if says_image => Err(invalid("it says it is an image and reads as an index")),
            (false, true) if says_index => Err(invalid("it says it is an index and reads as an image")),
            (true, false) => {
                let index: Index = parse_json("index", bytes)?;
                if index.manifests.len() > INDEX_LIMIT {
                    return Err(invalid("it lists more than 4096 manifests"));
                }
                Ok(Self::Index(index))
            }
            (false, true) => {
                let manifest: Manifest = parse_json("manifest", bytes)?;
                if manifest.layers.len() > LAYERS_LIMIT {
                    return Err(invalid("it has more than 500 layers"));
                }
                Ok(Self::Image(manifest))
            }
            (false, false) if says_index => Ok(Self::Index(Index { manifests: Vec::new() })),
            (false, false) => Err(invalid("it has neither a config nor manifests")),
        }
    }
}

/// An image configuration (image-spec config.md), as far as it is used.
#[derive(Debug, Clone, Deserialize)]
pub struct ImageConfig {
    /// When the image was made, RFC 3339.
    #[serde(default)]
    pub created: Option<String>,
    /// Who made it.
    #[serde(default)]
    pub author: Option<String>,
    /// What it runs on; flattened as in the document.
    #[serde(flatten)]
    pub platform: Platform,
    /// How to run it.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: ContainerConfig,
    /// What it is made of.
    pub rootfs: RootFs,
}

impl ImageConfig {
    /// Reads a configuration.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let config: Self = parse_json("image configuration", bytes)?;
        if config.rootfs.diff_ids.len() > LAYERS_LIMIT {
            return Err(Error::invalid("image configuration", "it has more than 500 DiffIDs"));
        }
        Ok(config)
    }
}

/// The DiffIDs of the layers (image-spec config.md, `rootfs`).
#[derive(Debug, Clone, Deserialize)]
pub struct RootFs {
    /// Digests of the uncompressed layers, bottom first.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub diff_ids: Vec<Digest>,
}

/// One step by which an image was made (image-spec config.md, `history`).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct HistoryEntry {
    /// When, RFC 3339.
    pub created: Option<String>,
    /// The command.
    #[serde(deserialize_with = "null_is_default")]
    pub created_by: String,
    /// What its maker says of it.
    #[serde(deserialize_with = "null_is_default")]
    pub comment: String,
    /// It changed no file: no layer belongs to it.
    #[serde(deserialize_with = "null_is_default")]
    pub empty_layer: bool,
}

/// Reads the steps in a configuration, the first one first.
pub fn parse_history(config: &[u8]) -> Result<Vec<HistoryEntry>> {
    #[derive(Deserialize)]
    struct Steps {
        #[serde(default, deserialize_with = "null_is_empty")]
        history: Vec<HistoryEntry>,
    }
    Ok(parse_json::<Steps>("image configuration", config)?.history)
}

/// Defaults for containers of an image (image-spec config.md, `config`).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    /// `user`, `uid`, `user:group`, ...
    #[serde(deserialize_with = "null_is_default")]
    pub user: String,
    /// `NAME=value` each.
    #[serde(deserialize_with = "null_is_empty")]
    pub env: Vec<String>,
    /// The program and its first arguments.
    #[serde(deserialize_with = "null_is_empty")]
    pub entrypoint: Vec<String>,
    /// The arguments, or the whole command without an entrypoint.
    #[serde(deserialize_with = "null_is_empty")]
    pub cmd: Vec<String>,
    /// Where the command starts.
    #[serde(deserialize_with = "null_is_default")]
    pub working_dir: String,
    /// The signal that asks the command to end; SIGTERM if empty.
    #[serde(deserialize_with = "null_is_default")]
    pub stop_signal: String,
    /// Where data is that is not to be kept in the container's own changes: the keys of an object whose values mean
    /// nothing.
    #[serde(deserialize_with = "null_is_default")]
    pub volumes: BTreeMap<String, Declared>,
    /// `PORT/PROTOCOL` each: where it listens.
    #[serde(deserialize_with = "null_is_default")]
    pub exposed_ports: BTreeMap<String, Declared>,
    /// What people say of it.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How its health is looked at; docker's, not the image-spec's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
}

/// How a container's health is looked at, with docker's keys. What is 0 or empty is as docker has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `CMD` and a command, or `CMD-SHELL` and one for the shell; `NONE` for none.
    #[serde(deserialize_with = "null_is_empty")]
    pub test: Vec<String>,
    /// From the end of a command to the next, in nanoseconds.
    #[serde(rename = "Interval")]
    pub interval_ns: i64,
    /// How long a command may take, in nanoseconds.
    #[serde(rename = "Timeout")]
    pub timeout_ns: i64,
    /// For how long failures do not count until a first success, in nanoseconds.
    #[serde(rename = "StartPeriod")]
    pub start_period_ns: i64,
    /// In place of the interval during that time, in nanoseconds.
    #[serde(rename = "StartInterval")]
    pub start_interval_ns: i64,
    /// How many must fail one after the other.
    pub retries: u32,
}

impl Healthcheck {
    /// This where it says something, and else what the image says; `None` for no checks.
    #[must_use]
    pub fn over(self, image: Option<&Self>) -> Option<Self> {
        let image = image.cloned().unwrap_or_default();
        let or = |own: i64, image: i64| if own == 0 { image } else { own };
        let all = Self {
            test: if self.test.is_empty() { image.test } else { self.test },
            interval_ns: or(self.interval_ns, image.interval_ns),
            timeout_ns: or(self.timeout_ns, image.timeout_ns),
            start_period_ns: or(self.start_period_ns, image.start_period_ns),
            start_interval_ns: or(self.start_interval_ns, image.start_interval_ns),
            retries: if self.retries == 0 { image.retries } else { self.retries },
        };
        (!all.command().is_empty()).then_some(all)
    }

    /// The command; empty if there is none.
    pub fn command(&self) -> Vec<String> {
        match self.test.split_first() {
            Some((kind, command)) if kind == "CMD" => command.to_vec(),
            Some((kind, command)) if kind == "CMD-SHELL" => vec!["/bin/sh".into(), "-c".into(), command.concat()],
            _ => Vec::new(),
        }
    }

    /// How long it is from the end of a command to the next.
    pub fn interval(&self) -> Duration {
        or_default(self.interval_ns, Duration::from_secs(30))
    }

    /// How long a command may take.
    pub fn timeout(&self) -> Duration {
        or_default(self.timeout_ns, Duration::from_secs(30))
    }

    /// For how long failures do not count.
    pub fn start_period(&self) -> Duration {
        or_default(self.start_period_ns, Duration::ZERO)
    }

    /// How long it is to the next during that time.
    pub fn start_interval(&self) -> Duration {
        or_default(self.start_interval_ns, Duration::from_secs(5))
    }

    /// How many must fail one after the other.
    pub fn retries(&self) -> u32 {
        /// docker's.
        const DEFAULT: u32 = 3;
        if self.retries == 0 { DEFAULT } else { self.retries }
    }
}

fn or_default(ns: i64, default: Duration) -> Duration {
    u64::try_from(ns).ok().filter(|ns| *ns > 0).map_or(default, Duration::from_nanos)
}

/// That something is declared; what stands there means nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Declared {}

impl<'de> Deserialize<'de> for Declared {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self {})
    }
}

fn null_is_empty<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    null_is_default(deserializer)
}

fn null_is_default<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

fn parse_json<'a, T: Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| Error::invalid(what, format_args!("it is not the JSON expected: {e}")))
}

/// Reads a document this crate wrote itself.
pub(crate) fn parse_own<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T> {
    parse_json(what, bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest() -> Digest {
        Digest::of(b"x")
    }

    fn image() -> String {
        let d = digest();
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"c","digest":"{d}","size":1}},"layers":[{{"digest":"{d}","size":1}}]}}"#
        )
    }

    #[test]
    fn cve_2021_41190_a_document_readable_as_image_and_as_index_is_refused() {
        let both = image().replace("\"layers\"", "\"manifests\":[],\"layers\"");
        assert!(Document::parse("", both.as_bytes()).is_err());
        let d = digest();
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{{"digest":"{d}","size":1}}]}}"#);
        assert!(Document::parse(media_type::OCI_MANIFEST, index.as_bytes()).is_err());
        assert!(Document::parse(media_type::OCI_INDEX, image().as_bytes()).is_err());
        let lies = image().replacen('{', &format!(r#"{{"mediaType":"{}","#, media_type::OCI_MANIFEST), 1);
        assert!(Document::parse(media_type::DOCKER_MANIFEST, lies.as_bytes()).is_err());
        assert!(Document::parse(media_type::OCI_MANIFEST, lies.as_bytes()).is_ok());
    }

    #[test]
    fn null_lists_are_empty_lists() {
        let config =
            br#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Cmd":null,"User":null},"rootfs":{"diff_ids":null}}"#;
        assert!(ImageConfig::parse(config).unwrap().config.env.is_empty());
        assert!(ImageConfig::parse(br#"{"architecture":"amd64","os":"linux","config":null,"rootfs":{}}"#).is_ok());
    }

    #[test]
    fn a_health_check_is_the_image_s_but_for_what_is_asked_for() {
        let config = br#"{"architecture":"amd64","os":"linux","rootfs":{},"config":{"Labels":{"a":"b"},
            "Healthcheck":{"Test":["CMD","look","twice"],"Interval":5000000000,"Retries":7}}}"#;
        let config = ImageConfig::parse(config).unwrap().config;
        assert_eq!(config.labels["a"], "b");
        let image = config.healthcheck.as_ref();
        let own = Healthcheck { timeout_ns: 1_000_000, retries: 2, ..Healthcheck::default() };
        let both = own.over(image).unwrap();
        assert_eq!((both.command(), both.retries()), (vec!["look".to_owned(), "twice".to_owned()], 2));
        assert_eq!((both.interval(), both.timeout()), (Duration::from_secs(5), Duration::from_millis(1)));
        assert_eq!((both.start_period(), both.start_interval()), (Duration::ZERO, Duration::from_secs(5)));
        let test = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        assert_eq!(Healthcheck { test: test(&["NONE"]), ..Healthcheck::default() }.over(image), None);
        assert_eq!(Healthcheck::default().over(None), None);
        let shell = Healthcheck { test: test(&["CMD-SHELL", "a b"]), ..Healthcheck::default() };
        assert_eq!(shell.over(image).unwrap().command(), ["/bin/sh", "-c", "a b"]);
    }

    #[test]
    fn the_platform_is_chosen_from_an_index() {
        let d = digest();
        let entry = |arch: &str| format!(r#"{{"digest":"{d}","size":1,"platform":{{"os":"linux","architecture":"{arch}"}}}}"#);
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{},{}]}}"#, entry("s390x"), entry("arm64"));
        let Document::Index(index) = Document::parse(media_type::OCI_INDEX, index.as_bytes()).unwrap() else { panic!() };
        assert!(index.choose(&"linux/arm64/v8".parse().unwrap()).is_some());
        assert!(index.choose(&"linux/amd64".parse().unwrap()).is_none());
        assert_eq!(index.platforms(), "linux/s390x, linux/arm64");
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..200) {
            let _ = Document::parse("", &bytes);
            let _ = ImageConfig::parse(&bytes);
            let image = image();
            let _ = Document::parse("", &image.as_bytes()[..cut.min(image.len())]);
        }
    }
}
