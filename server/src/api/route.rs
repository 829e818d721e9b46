//! From a path to an endpoint. The path is taken apart from the right: what stands before the last
//! words is the repository's name, whatever it reads like.

use http::{Method, Uri};
use longshore_runtime::name::{Digest, RepoName};

use super::query::percent_decode;
use crate::access::SessionName;
use crate::error::{Error, Result};
use crate::limits::PATH_LIMIT_BYTES;
use crate::meta::ManifestName;
use crate::operation::EndpointKind;

/// An endpoint of the API, its names parsed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// `/v2/` (end-1).
    Base,
    /// `/v2/token`: where access tokens are made.
    Token,
    /// `/v2/_catalog`.
    Catalog,
    /// `/v2/<name>/tags/list` (end-8).
    Tags(RepoName),
    /// `/v2/<name>/blobs/<digest>` (end-2, end-10).
    Blob(RepoName, Digest),
    /// `/v2/<name>/blobs/uploads/` (end-4, end-11).
    Uploads(RepoName),
    /// `/v2/<name>/blobs/uploads/<id>` (end-5, end-6, end-13).
    Upload(RepoName, SessionName),
    /// `/v2/<name>/referrers/<digest>` (end-12).
    Referrers(RepoName, Digest),
    /// `/v2/<name>/manifests/<reference>` (end-3, end-7, end-9).
    Manifest(RepoName, ManifestName),
}

impl Endpoint {
    /// # Errors
    /// [`Error::NoEndpoint`]; an error of a name or digest that does not follow its grammar.
    pub(super) fn parse(method: &Method, uri: &Uri) -> Result<Self> {
        let nowhere = || Error::NoEndpoint(uri.path().chars().take(256).collect());
        if uri.path().len() + uri.query().map_or(0, str::len) > PATH_LIMIT_BYTES {
            return Err(nowhere());
        }
        let path = percent_decode(uri.path()).ok_or_else(nowhere)?;
        let rest = match path.strip_prefix("/v2") {
            Some("" | "/") => return Ok(Self::Base),
            Some("/token") => return Ok(Self::Token),
            Some("/_catalog") => return Ok(Self::Catalog),
            Some(rest) => rest.strip_prefix('/').ok_or_else(nowhere)?,
            None => return Err(nowhere()),
        };
        let (before, last) = rest.rsplit_once('/').ok_or_else(nowhere)?;
        let (name, middle) = before.rsplit_once('/').ok_or_else(nowhere)?;
        match (middle, last) {
            ("tags", "list") => Ok(Self::Tags(name.parse()?)),
            ("referrers", subject) => Ok(Self::Referrers(name.parse()?, subject.parse()?)),
            ("manifests", reference) => {
                let repo = name.parse()?;
                Ok(Self::Manifest(repo, manifest_name(method, reference)?))
            }
            // Without the final slash: "uploads" is no digest.
            ("blobs", "uploads") => Ok(Self::Uploads(name.parse()?)),
            ("blobs", digest) => Ok(Self::Blob(name.parse()?, digest.parse()?)),
            ("uploads", id) => {
                let repo = name.strip_suffix("/blobs").ok_or_else(nowhere)?.parse()?;
                if id.is_empty() { Ok(Self::Uploads(repo)) } else { Ok(Self::Upload(repo, id.parse()?)) }
            }
            _ => Err(nowhere()),
        }
    }

    /// What the log and the metrics call it.
    pub(super) fn kind(&self) -> EndpointKind {
        match self {
            Self::Base => EndpointKind::Base,
            Self::Token => EndpointKind::Token,
            Self::Catalog => EndpointKind::Catalog,
            Self::Tags(_) => EndpointKind::Tags,
            Self::Blob(..) => EndpointKind::Blob,
            Self::Uploads(_) | Self::Upload(..) => EndpointKind::Upload,
            Self::Manifest(..) => EndpointKind::Manifest,
            Self::Referrers(..) => EndpointKind::Referrers,
        }
    }

    /// The methods it answers to, as the `Allow` header lists them.
    pub(super) fn methods(&self) -> &'static str {
        match self {
            Self::Base => "GET, HEAD",
            Self::Token => "GET, POST",
            Self::Catalog | Self::Tags(_) | Self::Referrers(..) => "GET",
            Self::Blob(..) => "GET, HEAD, DELETE",
            Self::Uploads(_) => "POST",
            Self::Upload(..) => "GET, PATCH, PUT, DELETE",
            Self::Manifest(..) => "GET, HEAD, PUT, DELETE",
        }
    }
}

/// A reference with a colon is meant as a digest: no tag has one. What can be no tag is simply not
/// there, unless it is to be made.
fn manifest_name(method: &Method, reference: &str) -> Result<ManifestName> {
    if reference.contains(':') {
        return Ok(ManifestName::Digest(reference.parse()?));
    }
    match reference.parse() {
        Ok(tag) => Ok(ManifestName::Tag(tag)),
        Err(e) if *method == Method::PUT => Err(Error::ManifestInvalid(e.to_string())),
        Err(_) => Err(Error::ManifestUnknown(reference.chars().take(160).collect())),
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const ID: &str = "0123456789abcdef0123456789abcdef";

    fn parse(path: &str) -> Result<Endpoint> {
        Endpoint::parse(&Method::GET, &path.parse().map_err(|_| Error::NoEndpoint(path.into()))?)
    }

    fn repo(name: &str) -> RepoName {
        name.parse().unwrap()
    }

    #[test]
    fn every_endpoint_is_found() {
        let digest: Digest = format!("sha256:{HEX}").parse().unwrap();
        assert_eq!(parse("/v2/").unwrap(), Endpoint::Base);
        assert_eq!(parse("/v2").unwrap(), Endpoint::Base);
        assert_eq!(parse("/v2/token?service=x").unwrap(), Endpoint::Token);
        assert_eq!(parse("/v2/_catalog?n=1").unwrap(), Endpoint::Catalog);
        assert_eq!(parse("/v2/a/b/tags/list").unwrap(), Endpoint::Tags(repo("a/b")));
        assert_eq!(parse(&format!("/v2/a/blobs/{digest}")).unwrap(), Endpoint::Blob(repo("a"), digest.clone()));
        assert_eq!(parse(&format!("/v2/a/blobs/sha256%3A{HEX}")).unwrap(), Endpoint::Blob(repo("a"), digest.clone()));
        assert_eq!(parse("/v2/a/blobs/uploads/").unwrap(), Endpoint::Uploads(repo("a")));
        assert_eq!(parse("/v2/a/blobs/uploads").unwrap(), Endpoint::Uploads(repo("a")));
        assert_eq!(parse(&format!("/v2/a/blobs/uploads/{ID}")).unwrap(), Endpoint::Upload(repo("a"), ID.parse().unwrap()));
        assert_eq!(parse(&format!("/v2/a/referrers/{digest}")).unwrap(), Endpoint::Referrers(repo("a"), digest.clone()));
        let by_tag = ManifestName::Tag("v1".parse().unwrap());
        assert_eq!(parse("/v2/a/manifests/v1").unwrap(), Endpoint::Manifest(repo("a"), by_tag));
        let by_digest = ManifestName::Digest(digest.clone());
        assert_eq!(parse(&format!("/v2/a/manifests/{digest}")).unwrap(), Endpoint::Manifest(repo("a"), by_digest));
    }

    #[test]
    fn a_repository_may_be_named_like_an_endpoint() {
        assert_eq!(parse("/v2/team/blobs/tags/list").unwrap(), Endpoint::Tags(repo("team/blobs")));
        assert_eq!(parse("/v2/team/blobs/uploads/tags/list").unwrap(), Endpoint::Tags(repo("team/blobs/uploads")));
        assert_eq!(parse("/v2/team/manifests/blobs/uploads/").unwrap(), Endpoint::Uploads(repo("team/manifests")));
        let tag = ManifestName::Tag("list".parse().unwrap());
        assert_eq!(parse("/v2/a/tags/manifests/list").unwrap(), Endpoint::Manifest(repo("a/tags"), tag));
        let blob = parse(&format!("/v2/blobs/blobs/sha256:{HEX}")).unwrap();
        assert!(matches!(blob, Endpoint::Blob(name, _) if name == repo("blobs")));
    }

    #[test]
    fn path_tricks_lead_nowhere() {
        let long = format!("/v2/{}/tags/list", "a".repeat(300));
        let longer = format!("/v2/{}/tags/list", "a/".repeat(40_000));
        for path in [
            "/",
            "/v1/",
            "/v2x",
            "/v2//",
            "/v2/a",
            "/v2/a/b",
            "/v2/a/tags/lists",
            "/v2//tags/list",
            "/v2/a//tags/list",
            "/v2/../tags/list",
            "/v2/a/../b/tags/list",
            "/v2/%2e%2e/tags/list",
            "/v2/a/%2e/tags/list",
            "/v2/a%2f..%2fb/tags/list",
            "/v2/a%00/tags/list",
            "/v2/a%/tags/list",
            "/v2/a%2/tags/list",
            "/v2/a%zz/tags/list",
            "/v2/a%ff/tags/list",
            "/v2/a%252e/tags/list",
            "/v2/A/tags/list",
            "/v2/a/blobs/../../../etc/passwd",
            "/v2/a/blobs/sha256:../../x",
            "/v2/a/blobs/md5:d41d8cd98f00b204e9800998ecf8427e",
            "/v2/a/manifests/",
            "/v2/a/manifests/..",
            "/v2/a/manifests/%2e%2e",
            "/v2/a/blobs/uploads/../x",
            "/v2/a/blobs/uploads/x",
            "/v2/a/referrers/v1",
            "/v2/a/uploads/",
            "/v2/_catalog/",
            &long,
            &longer,
        ] {
            let error = parse(path).expect_err(path);
            let status = error.status().0;
            assert!(status == StatusCode::BAD_REQUEST || status == StatusCode::NOT_FOUND, "{path}: {status}");
        }
    }

    #[test]
    fn what_is_no_tag_is_not_found_but_cannot_be_pushed_either() {
        let uri: Uri = "/v2/a/manifests/.bad".parse().unwrap();
        assert_eq!(Endpoint::parse(&Method::GET, &uri).unwrap_err().status().0, StatusCode::NOT_FOUND);
        assert_eq!(Endpoint::parse(&Method::PUT, &uri).unwrap_err().status().0, StatusCode::BAD_REQUEST);
    }

    proptest! {
        #[test]
        fn no_path_panics(path in "/v2/[a-z/%.:0-9_-]{0,80}") {
            if let Ok(uri) = path.parse::<Uri>() {
                let _ = Endpoint::parse(&Method::GET, &uri);
            }
        }

        #[test]
        fn any_repository_is_split_from_any_endpoint(
            name in "(blobs|tags|uploads|manifests|list|[a-z0-9]{1,5})(/(blobs|tags|uploads|manifests|list|[a-z0-9]{1,5})){0,4}"
        ) {
            let expected = repo(&name);
            prop_assert_eq!(parse(&format!("/v2/{name}/tags/list")).unwrap(), Endpoint::Tags(expected.clone()));
            prop_assert_eq!(parse(&format!("/v2/{name}/blobs/uploads/")).unwrap(), Endpoint::Uploads(expected.clone()));
            let upload = parse(&format!("/v2/{name}/blobs/uploads/{ID}")).unwrap();
            prop_assert_eq!(upload, Endpoint::Upload(expected.clone(), ID.parse().unwrap()));
            let blob = parse(&format!("/v2/{name}/blobs/sha256:{HEX}")).unwrap();
            prop_assert!(matches!(blob, Endpoint::Blob(name, _) if name == expected));
            let manifest = parse(&format!("/v2/{name}/manifests/list")).unwrap();
            prop_assert!(matches!(manifest, Endpoint::Manifest(name, _) if name == expected));
        }
    }
}
