//! Artifacts that refer to an image: a signature, an SBOM, a report (image-spec manifest.md#guidelines-for-artifact-usage,
//! distribution-spec, "Pushing Manifests with Subject").

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use longshore_runtime::error::Attempt;
use longshore_runtime::image::media_type;
use longshore_runtime::name::{Algorithm, Digest, Reference};
use longshore_runtime::parallel::Cancel;
use longshore_runtime::source::BlobRead;
use longshore_runtime::{Error as RuntimeError, RawManifest};
use serde_json::{Map, Value, json};

use crate::error::Result;
use crate::registry::{Content, Repository};

/// What a file is if nobody says.
const FILE_TYPE: &str = "application/octet-stream";

/// The descriptor of no content (image-spec manifest.md#guidance-for-an-empty-descriptor).
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
const EMPTY: &[u8] = b"{}";

/// The annotation of a layer that has a file's name.
const TITLE: &str = "org.opencontainers.image.title";

/// Files of one artifact.
const FILES_LIMIT: usize = 100;

/// `FILE[:MEDIA-TYPE]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    path: PathBuf,
    media_type: String,
}

impl FromStr for Attachment {
    type Err = RuntimeError;

    fn from_str(text: &str) -> Result<Self, RuntimeError> {
        let (path, media_type) = match text.rsplit_once(':') {
            Some((path, kind)) if is_media_type(kind) => (path, kind),
            _ => (text, FILE_TYPE),
        };
        if path.is_empty() {
            return Err(RuntimeError::Name { what: "attachment", input: text.into(), why: "it reads FILE[:MEDIA-TYPE]" });
        }
        Ok(Self { path: path.into(), media_type: media_type.into() })
    }
}

/// Whether a text is a media type (RFC 6838 section 4.2).
pub fn is_media_type(text: &str) -> bool {
    let restricted = |name: &str| {
        name.len() <= 127
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
    };
    text.split_once('/').is_some_and(|(kind, subtype)| restricted(kind) && restricted(subtype))
}

/// What is attached to an image.
#[derive(Debug)]
pub struct Artifact<'a> {
    /// What it is, a media type.
    pub artifact_type: &'a str,
    /// What it is made of.
    pub files: &'a [Attachment],
    /// What is said of it.
    pub annotations: &'a [(String, String)],
}

/// What became of it.
#[derive(Debug)]
pub struct Attached {
    /// The artifact's digest.
    pub digest: Digest,
    /// What it refers to.
    pub subject: Digest,
    /// The registry keeps no list of what refers to an image: it is under this tag.
    pub listed_under: Option<String>,
}

/// Pushes an artifact that refers to what `image` names.
pub fn attach(repository: &Repository, image: &Reference, artifact: &Artifact<'_>) -> Result<Attached> {
    if artifact.files.len() > FILES_LIMIT {
        return Err(RuntimeError::invalid("artifact", format_args!("it has more than {FILES_LIMIT} files")).into());
    }
    let subject = repository.get_manifest(image)?;
    let mut layers: Vec<Value> = artifact.files.iter().map(|file| push_file(repository, file)).collect::<Result<_>>()?;
    let empty = push_bytes(repository, EMPTY_TYPE, EMPTY)?;
    if layers.is_empty() {
        layers.push(empty.clone());
    }
    let annotations: Map<String, Value> =
        artifact.annotations.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "artifactType": artifact.artifact_type,
        "config": empty,
        "layers": layers,
        "subject": { "mediaType": subject.media_type, "digest": subject.digest, "size": subject.bytes.len() },
    });
    if !annotations.is_empty() {
        manifest["annotations"] = Value::Object(annotations);
    }
    let bytes = manifest.to_string().into_bytes();
    let raw = RawManifest { media_type: media_type::OCI_MANIFEST.into(), digest: Digest::of(&bytes), bytes };
    let listed_under = repository.put_referrer(&raw, &subject.digest)?;
    Ok(Attached { digest: raw.digest, subject: subject.digest, listed_under })
}

fn push_file(repository: &Repository, file: &Attachment) -> Result<Value> {
    let attempted = || format!("read {}", file.path.display());
    let open = || File::open(&file.path).attempt(attempted);
    let mut hasher = Algorithm::Sha256.hasher();
    let mut size = 0;
    let (mut reader, mut buffer) = (open()?, vec![0; 256 << 10]);
    loop {
        match reader.read(&mut buffer).attempt(attempted)? {
            0 => break,
            bytes => {
                hasher.update(&buffer[..bytes]);
                size += bytes as u64;
            }
        }
    }
    let digest = hasher.finish();
    // The file may grow meanwhile: no more is sent than was hashed, and less is noticed.
    put(repository, &digest, size, &|offset| {
        let mut file = open()?;
        file.seek(SeekFrom::Start(offset)).attempt(attempted)?;
        Ok(file.take(size - offset))
    })?;
    let name = file.path.file_name().unwrap_or(Path::new("file").as_os_str()).to_string_lossy();
    Ok(json!({ "mediaType": file.media_type, "digest": digest, "size": size, "annotations": { TITLE: name } }))
}

fn push_bytes(repository: &Repository, media_type: &str, bytes: &'static [u8]) -> Result<Value> {
    let digest = Digest::of(bytes);
    put(repository, &digest, bytes.len() as u64, &|offset| Ok(bytes.get(offset as usize..).unwrap_or_default()))?;
    Ok(json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() }))
}

fn put<R: BlobRead + 'static>(
    repository: &Repository,
    digest: &Digest,
    size: u64,
    open: &dyn Fn(u64) -> Result<R>,
) -> Result<()> {
    let cancel = Cancel::default();
    if !repository.has_blob(digest, &cancel)? {
        repository.put_blob(&Content { digest, size, open, mount_from: None }, |_| {}, &cancel)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_media_type_is_told_from_a_path() {
        let parse = |text: &str| text.parse::<Attachment>().map(|file| (file.path.display().to_string(), file.media_type));
        for (text, path, kind) in [
            ("sbom.json", "sbom.json", FILE_TYPE),
            ("sbom.json:application/spdx+json", "sbom.json", "application/spdx+json"),
            ("a:b", "a:b", FILE_TYPE),
            ("dir:/etc/x", "dir:/etc/x", FILE_TYPE),
            ("a:b:text/plain", "a:b", "text/plain"),
            ("a:text/", "a:text/", FILE_TYPE),
            ("a:b/c/d", "a:b/c/d", FILE_TYPE),
        ] {
            assert_eq!(parse(text).unwrap(), (path.into(), kind.into()), "{text}");
        }
        assert!(parse("").is_err() && parse(":text/plain").is_err());
    }

    proptest! {
        #[test]
        fn parsing_an_attachment_never_panics(text in "\\PC{0,40}", likely in "[a-z:/+. ]{0,20}") {
            for text in [text, likely] {
                if let Ok(file) = text.parse::<Attachment>() {
                    prop_assert!(is_media_type(&file.media_type) && text.starts_with(&file.path.display().to_string()));
                }
            }
        }
    }
}
