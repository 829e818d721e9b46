//! What the registry has to know of a manifest: its kind and what it refers to (image-spec
//! manifest.md, image-index.md; Docker "Image Manifest V 2, Schema 2"). The bytes themselves are
//! kept and served as received.

use std::collections::BTreeMap;
use std::fmt::{self, Formatter};
use std::marker::PhantomData;

use longshore_runtime::name::Digest;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use crate::error::{Error, Result};
use crate::limits::MEDIA_TYPE_LIMIT_BYTES;
use crate::meta::{References, Referrer};

const IMAGE_TYPES: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];
const INDEX_TYPES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];

/// A manifest's kind and what it refers to.
#[derive(Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The media type it is served with.
    pub media_type: String,
    /// What must be in the repository: an image's config and layers, except those that are fetched
    /// from elsewhere, or an index's children; and what it is a referrer of.
    pub references: References,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: Option<u32>,
    media_type: Option<String>,
    config: Option<Object<Descriptor>>,
    layers: Option<Vec<Object<Descriptor>>>,
    manifests: Option<Vec<Object<Descriptor>>>,
    fs_layers: Option<serde::de::IgnoredAny>,
    subject: Option<Object<Descriptor>>,
    artifact_type: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    #[serde(default)]
    urls: Option<Vec<String>>,
}

impl Descriptor {
    /// Layers that licences keep out of registries; a client fetches them from their `urls`
    /// (image-spec layer.md#non-distributable-layers).
    fn is_elsewhere(&self) -> bool {
        let foreign = self.media_type.contains(".nondistributable.") || self.media_type.contains(".foreign.");
        foreign && self.urls.as_ref().is_some_and(|urls| !urls.is_empty())
    }
}

/// What is written as a JSON object. An array of the same values, which serde would take for a struct,
/// is nothing that another reader knows.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members(PhantomData)).map(Self)
    }
}

struct Members<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
    type Value = T;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members))
    }
}

impl Manifest {
    /// Reads a manifest of at most `descriptor_limit` descriptors. `content_type` is the request's
    /// header, without parameters.
    ///
    /// # Errors
    /// [`Error::ManifestInvalid`] when it is no JSON object of a known kind, could be read as two
    /// kinds (CVE-2021-41190), or its `mediaType` and the header disagree.
    pub fn parse(bytes: &[u8], content_type: Option<&str>, descriptor_limit: usize) -> Result<Self> {
        let invalid = |why: String| Error::ManifestInvalid(why);
        let Object(document): Object<Document> = serde_json::from_slice(bytes).map_err(|e| invalid(e.to_string()))?;
        let media_type = match (content_type, document.media_type.as_deref()) {
            (Some(header), Some(body)) if header != body => {
                return Err(invalid(format!("Content-Type is {header:?}, but its mediaType is {body:?}")));
            }
            (_, Some(media_type)) | (Some(media_type), None) => media_type,
            (None, None) => return Err(invalid("neither Content-Type nor mediaType says what it is".into())),
        };
        if [Some(media_type), document.artifact_type.as_deref()].iter().flatten().any(|t| t.len() > MEDIA_TYPE_LIMIT_BYTES) {
            return Err(invalid(format!("a type in it is longer than {MEDIA_TYPE_LIMIT_BYTES} bytes")));
        }
        if document.schema_version != Some(2) {
            return Err(invalid("its schemaVersion must be 2".into()));
        }
        let media_type = media_type.to_owned();
        let references = if IMAGE_TYPES.contains(&media_type.as_str()) {
            image(document)?
        } else if INDEX_TYPES.contains(&media_type.as_str()) {
            index(document)?
        } else {
            return Err(invalid(format!("media type {media_type:?} is no image manifest or index")));
        };
        if references.blobs.len() + references.manifests.len() > descriptor_limit {
            return Err(invalid(format!("it has more than {descriptor_limit} descriptors")));
        }
        Ok(Self { media_type, references })
    }
}

fn image(document: Document) -> Result<References> {
    if document.manifests.is_some() || document.fs_layers.is_some() {
        return Err(Error::ManifestInvalid("an image manifest must not have manifests or fsLayers".into()));
    }
    let (Some(Object(config)), Some(layers)) = (document.config, document.layers) else {
        return Err(Error::ManifestInvalid("an image manifest must have config and layers".into()));
    };
    // What an artifact is, its config says where the manifest does not (distribution-spec,
    // "Listing Referrers").
    let artifact_type = document.artifact_type.filter(|text| !text.is_empty()).or(Some(config.media_type.clone()));
    let referrer = referrer(document.subject, artifact_type, document.annotations);
    let here = layers.into_iter().map(|Object(layer)| layer).filter(|layer| !layer.is_elsewhere());
    let blobs = std::iter::once(config).chain(here).map(|descriptor| descriptor.digest).collect();
    Ok(References { blobs, manifests: Vec::new(), referrer })
}

fn index(document: Document) -> Result<References> {
    if document.config.is_some() || document.layers.is_some() || document.fs_layers.is_some() {
        return Err(Error::ManifestInvalid("an index must not have config, layers or fsLayers".into()));
    }
    let Some(children) = document.manifests else {
        return Err(Error::ManifestInvalid("an index must have manifests".into()));
    };
    let referrer = referrer(document.subject, document.artifact_type, document.annotations);
    let manifests = children.into_iter().map(|Object(descriptor)| descriptor.digest).collect();
    Ok(References { blobs: Vec::new(), manifests, referrer })
}

fn referrer(
    subject: Option<Object<Descriptor>>,
    artifact_type: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
) -> Option<Referrer> {
    let artifact_type = artifact_type.filter(|text| !text.is_empty());
    subject.map(|Object(subject)| Referrer {
        subject: subject.digest,
        artifact_type,
        annotations: annotations.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Manifest> {
        Manifest::parse(bytes, content_type, 10)
    }

    const OCI: &str = IMAGE_TYPES[0];
    const INDEX: &str = INDEX_TYPES[0];

    fn descriptor(content: &str, extra: &str) -> String {
        format!(r#"{{"mediaType":"a/b","digest":"{}","size":1{extra}}}"#, Digest::of(content.as_bytes()))
    }

    fn image(extra: &str) -> String {
        let (config, layer) = (descriptor("c", ""), descriptor("l", ""));
        format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]{extra}}}"#)
    }

    #[test]
    fn an_image_needs_its_config_and_layers() {
        let parsed = parse(image("").as_bytes(), Some(OCI)).unwrap();
        assert_eq!(parsed.references.blobs, [Digest::of(b"c"), Digest::of(b"l")]);
        assert!(parsed.references.manifests.is_empty());
    }

    #[test]
    fn a_foreign_layer_with_urls_need_not_be_here() {
        let digest = Digest::of(b"l");
        let layer = |urls: &str| {
            format!(
                r#"{{"schemaVersion":2,"config":{},"layers":[{{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","digest":"{digest}","size":1{urls}}}]}}"#,
                descriptor("c", "")
            )
        };
        let with = parse(layer(r#","urls":["https://x/"]"#).as_bytes(), Some(OCI)).unwrap();
        assert_eq!(with.references.blobs, [Digest::of(b"c")]);
        let without = parse(layer("").as_bytes(), Some(OCI)).unwrap();
        assert_eq!(without.references.blobs.len(), 2);
    }

    #[test]
    fn a_referrer_says_of_what_and_what_it_is() {
        let of = |text: &str, kind| parse(text.as_bytes(), Some(kind)).unwrap().references.referrer;
        assert_eq!(of(&image(""), OCI), None);
        let subject = format!(r#","subject":{}"#, descriptor("s", ""));
        let plain = of(&image(&subject), OCI).unwrap();
        assert_eq!((plain.subject, plain.artifact_type.as_deref()), (Digest::of(b"s"), Some("a/b")), "the config's type");
        let typed = of(&image(&format!(r#"{subject},"artifactType":"x/y","annotations":{{"k":"v"}}"#)), OCI).unwrap();
        assert_eq!(typed.artifact_type.as_deref(), Some("x/y"));
        assert_eq!(typed.annotations["k"], "v");
        let index = of(&format!(r#"{{"schemaVersion":2,"manifests":[]{subject}}}"#), INDEX).unwrap();
        assert_eq!(index.artifact_type, None);
        let bad = image(r#","subject":{"digest":"sha256:ab"}"#);
        assert!(parse(bad.as_bytes(), Some(OCI)).is_err());
    }

    #[test]
    fn a_manifest_readable_as_image_and_index_is_refused() {
        let both = image(r#","manifests":[]"#);
        assert!(parse(both.as_bytes(), Some(OCI)).is_err());
        assert!(parse(both.as_bytes(), Some(INDEX)).is_err());
        assert!(parse(image(r#","layers":[]"#).as_bytes(), Some(OCI)).is_err(), "duplicate key");
        assert!(parse(image(r#","fsLayers":[]"#).as_bytes(), Some(OCI)).is_err());
    }

    #[test]
    fn fields_in_an_array_are_no_object() {
        let digest = Digest::of(b"x");
        let descriptor = format!(r#"["a/b","{digest}",null]"#);
        let document = format!(r#"[2,"{OCI}",{descriptor},[{descriptor}],null,null,null,null,null]"#);
        let config = format!(r#"{{"schemaVersion":2,"config":{descriptor},"layers":[]}}"#);
        let layer = image("").replace(r#""layers":["#, &format!(r#""layers":[{descriptor},"#));
        for bad in [document, config, layer, image(&format!(r#","subject":{descriptor}"#))] {
            assert!(parse(bad.as_bytes(), Some(OCI)).is_err(), "{bad}");
        }
    }

    #[test]
    fn content_type_and_media_type_must_agree_and_be_known() {
        let typed = image(&format!(r#","mediaType":"{OCI}""#));
        assert!(parse(typed.as_bytes(), Some(OCI)).is_ok());
        assert!(parse(typed.as_bytes(), None).is_ok());
        assert!(parse(typed.as_bytes(), Some(IMAGE_TYPES[1])).is_err());
        assert!(parse(image("").as_bytes(), None).is_err());
        assert!(parse(image("").as_bytes(), Some("text/plain")).is_err());
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        for bad in ["", "[]", "{}", "null", r#"{"schemaVersion":1}"#, r#"{"schemaVersion":2}"#, "{\"schemaVersion\":2,"] {
            assert!(parse(bad.as_bytes(), Some(OCI)).is_err(), "{bad}");
            assert!(parse(bad.as_bytes(), Some(INDEX)).is_err(), "{bad}");
        }
        let unknown = r#"{"schemaVersion":2,"config":{"digest":"md5:d41d8cd98f00b204e9800998ecf8427e"},"layers":[]}"#;
        assert!(parse(unknown.as_bytes(), Some(OCI)).is_err(), "unknown digest algorithm");
    }
}
