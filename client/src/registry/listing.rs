//! What a repository lists: its tags (end-8), and what refers to a manifest (end-12), page by page.
//!
//! Both are asked of the registry itself: a mirror has what it happens to have.

use std::collections::{BTreeMap, BTreeSet};

use longshore_runtime::image::{Descriptor, media_type};
use longshore_runtime::name::{Digest, MANIFEST_LIMIT_BYTES, Tag};
use longshore_runtime::parallel::Cancel;
use reqwest::Url;
use serde::Deserialize;

use super::Repository;
use super::host::{Host, broken_off};
use super::http::Answer;
use super::scope::Action;
use crate::error::{Error, Result};

/// Tags asked for at a time. A registry may give fewer.
const PAGE_TAGS: usize = 1000;

/// Pages followed one after another.
const PAGES_LIMIT: usize = 10_000;

/// Pages in a row that bring nothing new. Some come empty where a registry leaves out what one may not see.
const IDLE_PAGES_LIMIT: usize = 100;

/// Tags of one repository, and referrers of one manifest, that are read.
const ENTRIES_LIMIT: usize = 1_000_000;

/// What refers to a manifest: a signature, an SBOM (distribution-spec, "Listing Referrers").
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    /// Its own manifest.
    #[serde(flatten)]
    pub descriptor: Descriptor,
    /// What it is; empty if nobody says.
    #[serde(default)]
    pub artifact_type: String,
    /// What its maker says of it.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

impl Repository {
    /// All tags, each once, in the registry's order.
    pub fn tags(&self) -> Result<Vec<Tag>> {
        self.first_tags(usize::MAX)
    }

    /// The same, of the first of them.
    pub fn first_tags(&self, limit: usize) -> Result<Vec<Tag>> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default)]
            tags: Option<Vec<Tag>>,
        }
        let attempted = || "list tags".to_owned();
        let host = self.registry();
        let (mut tags, mut seen) = (Vec::new(), BTreeSet::new());
        let first = format!("{}/tags/list?n={PAGE_TAGS}", host.base);
        each_page(host, Action::Pull, first, &attempted, |body| {
            let page: Page = serde_json::from_slice(body)?;
            tags.extend(page.tags.into_iter().flatten().filter(|tag| seen.insert(tag.clone())));
            Ok(if tags.len() >= limit { Read::Enough } else { Read::Entries(tags.len()) })
        })?;
        tags.truncate(limit);
        Ok(tags)
    }

    /// What refers to a manifest, whether the registry lists it or keeps it under the tag made of the digest
    /// (distribution-spec, "Referrers Tag Schema").
    pub fn referrers(&self, subject: &Digest) -> Result<Vec<Referrer>> {
        let attempted = || format!("list what refers to {subject}");
        let (mut referrers, mut seen) = (Vec::new(), BTreeSet::new());
        let first = format!("{}/referrers/{subject}", self.registry().base);
        let listed = each_page(self.registry(), Action::Pull, first, &attempted, |body| {
            referrers.extend(parse_referrers(body)?.into_iter().filter(|one| seen.insert(one.descriptor.digest.to_string())));
            Ok(Read::Entries(referrers.len()))
        });
        match listed {
            Err(Error::Refused { answer, .. }) if answer.status == 404 => self.tagged_referrers(subject),
            other => other.map(|()| referrers),
        }
    }

    fn tagged_referrers(&self, subject: &Digest) -> Result<Vec<Referrer>> {
        let broken = |e| {
            let why = format!("it is not the JSON expected: {e}");
            self.registry().broken(&format!("list what refers to {subject}"), why)
        };
        self.referrers_index(subject)?.map_or(Ok(Vec::new()), |body| parse_referrers(&body).map_err(broken))
    }

    /// The list that clients keep where the registry keeps none.
    pub(super) fn referrers_index(&self, subject: &Digest) -> Result<Option<Vec<u8>>> {
        let attempted = || format!("list what refers to {subject}");
        let host = self.registry();
        let url = format!("{}/manifests/{}", host.base, referrers_tag(subject));
        host.retrying(&self.cancel, || {
            let build = |client: &reqwest::Client| client.get(&url).header("accept", media_type::OCI_INDEX);
            let mut answer = host.send(Action::Pull, &self.cancel, attempted, build)?;
            if answer.status() == 404 {
                return Ok(None);
            }
            host.expect(&mut answer, &[200], attempted)?;
            page_body(host, &mut answer, &attempted).map(Some)
        })
    }
}

/// How far a list is read.
pub(super) enum Read {
    /// So many entries have been read.
    Entries(usize),
    /// No more are wanted.
    Enough,
}

/// Reads a list from its first page to its last. `read` takes a page and says how far it is by now.
pub(super) fn each_page(
    host: &Host,
    action: Action<'_>,
    first: String,
    attempted: &dyn Fn() -> String,
    mut read: impl FnMut(&[u8]) -> serde_json::Result<Read>,
) -> Result<()> {
    let cancel = Cancel::default();
    let (mut url, mut known, mut idle) = (first, 0, 0);
    for _ in 0..PAGES_LIMIT {
        let (body, next) = host.retrying(&cancel, || {
            let mut answer = host.send(action, &cancel, attempted, |client| client.get(&url))?;
            host.expect(&mut answer, &[200], attempted)?;
            let next = next_page(host, &answer, attempted)?;
            Ok((page_body(host, &mut answer, attempted)?, next))
        })?;
        let so_far = read(&body).map_err(|e| host.broken(&attempted(), format!("it is not the JSON expected: {e}")))?;
        match (next, so_far) {
            (None, _) | (_, Read::Enough) => return Ok(()),
            (Some(next), _) if next == url => return Err(host.broken(&attempted(), "a page of its list is its own next".into())),
            (Some(next), Read::Entries(entries)) if entries <= ENTRIES_LIMIT => {
                idle = if entries > known { 0 } else { idle + 1 };
                (url, known) = (next, entries);
            }
            _ => break,
        }
        if idle > IDLE_PAGES_LIMIT {
            return Err(host.broken(&attempted(), "its list goes on and on without anything new".into()));
        }
    }
    Err(host.broken(&attempted(), "it lists more than anybody has".into()))
}

/// The tag under which what refers to a digest is listed where the registry keeps no list.
pub fn referrers_tag(subject: &Digest) -> String {
    format!("{}-{}", subject.algorithm().as_str(), subject.hex().get(..64).unwrap_or_default())
}

fn parse_referrers(index: &[u8]) -> serde_json::Result<Vec<Referrer>> {
    #[derive(Deserialize)]
    struct Index {
        #[serde(default)]
        manifests: Option<Vec<Referrer>>,
    }
    Ok(serde_json::from_slice::<Index>(index)?.manifests.unwrap_or_default())
}

fn page_body(host: &Host, answer: &mut Answer<'_>, attempted: &dyn Fn() -> String) -> Result<Vec<u8>> {
    let body = answer.body(MANIFEST_LIMIT_BYTES).map_err(|e| broken_off(&host.endpoint.host, &e))?;
    if body.len() > MANIFEST_LIMIT_BYTES {
        return Err(host.broken(&attempted(), "a page of its list is longer than 4 MiB".into()));
    }
    Ok(body)
}

/// Where the next page is, if there is one: at this very host, which gets the credentials.
fn next_page(host: &Host, answer: &Answer<'_>, attempted: &dyn Fn() -> String) -> Result<Option<String>> {
    let Some(target) = answer.header("link").and_then(parse_next) else { return Ok(None) };
    let broken = |why: String| host.broken(&attempted(), why);
    let base = Url::parse(&format!("{}/", host.base)).map_err(|e| broken(e.to_string()))?;
    let url = base.join(&target).map_err(|e| broken(format!("its Link is no URL: {e}")))?;
    if host.is_own(&url) { Ok(Some(url.into())) } else { Err(broken("its Link leads to another host".into())) }
}

/// The target of a `Link` with the relation `next` (RFC 8288).
fn parse_next(header: &str) -> Option<String> {
    let mut rest = header;
    loop {
        let (_, after) = rest.split_once('<')?;
        let (target, parameters) = after.split_once('>')?;
        let end = parameters.find('<').unwrap_or(parameters.len());
        let is_next = parameters[..end].split([';', ',']).any(|parameter| {
            let value = parameter.trim().split_once('=').filter(|(name, _)| name.trim().eq_ignore_ascii_case("rel"));
            value
                .is_some_and(|(_, value)| value.trim().trim_matches('"').split(' ').any(|word| word.eq_ignore_ascii_case("next")))
        });
        if is_next {
            return Some(target.to_owned());
        }
        rest = &parameters[end..];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_next_page_is_found_among_links() {
        let next = |header| parse_next(header);
        let target = Some("/v2/a/tags/list?last=b&n=2".to_owned());
        assert_eq!(next("</v2/a/tags/list?last=b&n=2>; rel=\"next\""), target);
        assert_eq!(next("<x>; rel=prev, </v2/a/tags/list?last=b&n=2>;title=\"a\";REL=next"), target);
        assert_eq!(next("</v2/a/tags/list?last=b&n=2>; rel=\"last next\""), target);
        for none in ["", "<x>", "<x>; rel=\"prev\"", "x; rel=next", "<x; rel=next", "<x>; nexter; rel=nextest"] {
            assert_eq!(next(none), None, "{none}");
        }
    }

    #[test]
    fn referrers_are_read_with_what_is_said_of_them() {
        let digest = Digest::of(b"x");
        let entry = format!(r#"{{"mediaType":"m","digest":"{digest}","size":3,"artifactType":"t","annotations":{{"a":"b"}}}}"#);
        let [referrer] = &parse_referrers(format!(r#"{{"manifests":[{entry}]}}"#).as_bytes()).unwrap()[..] else { panic!() };
        assert_eq!((referrer.descriptor.digest.clone(), referrer.artifact_type.as_str()), (digest, "t"));
        assert_eq!(referrer.annotations["a"], "b");
        assert!(parse_referrers(br#"{"manifests":null}"#).unwrap().is_empty());
        assert!(parse_referrers(b"<html>").is_err());
        assert_eq!(referrers_tag(&Digest::of(b"")).len(), "sha256-".len() + 64);
    }

    proptest! {
        #[test]
        fn reading_lists_never_panics(text in "\\PC{0,60}", likely in "[<>;,=\" relnxt]{0,40}", bytes in any::<Vec<u8>>()) {
            let _ = (parse_next(&text), parse_next(&likely), parse_referrers(&bytes));
        }
    }
}
