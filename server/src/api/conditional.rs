//! Preconditions (RFC 9110 section 13). The entity tag of a blob or manifest is its digest, in quotes;
//! a tag's is the digest of the manifest it points at. Nothing here has a date: conditions by date
//! are ignored, as a server without one has to.

use axum::body::Body;
use http::header::{ETAG, HeaderName, IF_MATCH, IF_NONE_MATCH, IF_RANGE};
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode};
use longshore_runtime::name::Digest;

use super::response::{CONTENT_DIGEST, empty, value};
use crate::error::{Error, Result};

/// The answer to a request for what is there now, if its preconditions already give one.
///
/// # Errors
/// [`Error::Precondition`].
pub(super) fn answer(parts: &Parts, current: &Digest) -> Result<Option<Response<Body>>> {
    match judge(&parts.method, &parts.headers, Some(current)) {
        Verdict::Proceed => Ok(None),
        Verdict::Failed => Err(Error::Precondition),
        Verdict::NotModified => {
            let mut response = empty(StatusCode::NOT_MODIFIED);
            response.headers_mut().insert(ETAG, value(format_args!("\"{current}\"")));
            response.headers_mut().insert(CONTENT_DIGEST, value(current));
            Ok(Some(response))
        }
    }
}

/// What the preconditions of a request leave to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// What the request asks.
    Proceed,
    /// Only to say that the client has it already: 304.
    NotModified,
    /// Nothing: 412.
    Failed,
}

/// Judges a request by what is there now; `None` when nothing is. The order is that of RFC 9110
/// section 13.2.2.
pub(super) fn judge(method: &Method, headers: &HeaderMap, current: Option<&Digest>) -> Verdict {
    if headers.contains_key(IF_MATCH) && !any_matches(headers, &IF_MATCH, current, Comparison::Strong) {
        return Verdict::Failed;
    }
    if headers.contains_key(IF_NONE_MATCH) && any_matches(headers, &IF_NONE_MATCH, current, Comparison::Weak) {
        return if matches!(*method, Method::GET | Method::HEAD) { Verdict::NotModified } else { Verdict::Failed };
    }
    Verdict::Proceed
}

/// Whether a `Range` is to be heeded: there is no `If-Range`, or it names what is there. Else the whole
/// is served.
pub(super) fn range_applies(headers: &HeaderMap, current: &Digest) -> bool {
    let condition = headers.get(IF_RANGE);
    condition.is_none_or(|value| value.to_str().is_ok_and(|entry| names(entry.trim(), current, Comparison::Strong)))
}

/// Whether a tag marked as weak (`W/`) counts as the one it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

fn any_matches(headers: &HeaderMap, header: &HeaderName, current: Option<&Digest>, comparison: Comparison) -> bool {
    let Some(current) = current else { return false };
    let values = headers.get_all(header).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(entries).any(|entry| entry == "*" || names(entry, current, comparison))
}

/// The members of a list of entity tags, which may have commas within their quotes.
fn entries(list: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let separates = move |c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    };
    list.split(separates).map(str::trim)
}

/// Whether an entity tag is the digest's. Without quotes it is taken too: clients of registries send
/// it so.
fn names(entry: &str, digest: &Digest, comparison: Comparison) -> bool {
    let (weak, tag) = entry.strip_prefix("W/").map_or((false, entry), |tag| (true, tag));
    let opaque = tag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(tag);
    (!weak || comparison == Comparison::Weak) && opaque == digest.as_str()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn what_the_client_has_is_not_sent_again() {
        let (here, other) = (Digest::of(b"here"), Digest::of(b"other"));
        let get = |condition: &str| judge(&Method::GET, &headers(&[(IF_NONE_MATCH, condition)]), Some(&here));
        for same in
            [format!("\"{here}\""), format!("W/\"{here}\""), format!("\"{other}\" , \"{here}\""), here.to_string(), "*".into()]
        {
            assert_eq!(get(&same), Verdict::NotModified, "{same}");
        }
        for another in [format!("\"{other}\""), format!("\"a,{here},b\""), format!("\"{here}"), String::new(), "\"".into()] {
            assert_eq!(get(&another), Verdict::Proceed, "{another}");
        }
        let absent = judge(&Method::GET, &headers(&[(IF_NONE_MATCH, "*")]), None);
        assert_eq!(absent, Verdict::Proceed, "nothing is there to be the same");
    }

    #[test]
    fn a_list_may_stand_on_several_lines() {
        let (here, other) = (Digest::of(b"here"), Digest::of(b"other"));
        let mut lines = HeaderMap::new();
        lines.append(IF_NONE_MATCH, HeaderValue::from_str(&format!("\"{other}\"")).unwrap());
        assert_eq!(judge(&Method::HEAD, &lines, Some(&here)), Verdict::Proceed);
        lines.append(IF_NONE_MATCH, HeaderValue::from_str(&format!("\"{here}\"")).unwrap());
        assert_eq!(judge(&Method::HEAD, &lines, Some(&here)), Verdict::NotModified);
    }

    #[test]
    fn a_write_can_be_bound_to_what_it_replaces() {
        let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
        let put = |name: HeaderName, condition: &str, current| judge(&Method::PUT, &headers(&[(name, condition)]), current);
        let (old_tag, weak) = (format!("\"{old}\""), format!("W/\"{old}\""));
        assert_eq!(put(IF_MATCH, &old_tag, Some(&old)), Verdict::Proceed);
        assert_eq!(put(IF_MATCH, "*", Some(&new)), Verdict::Proceed);
        for (condition, current) in
            [(old_tag.as_str(), Some(&new)), (&old_tag, None), ("*", None), (&weak, Some(&old)), ("", Some(&old))]
        {
            assert_eq!(put(IF_MATCH, condition, current), Verdict::Failed, "{condition} {current:?}");
        }
        assert_eq!(put(IF_NONE_MATCH, "*", None), Verdict::Proceed, "create, do not overwrite");
        assert_eq!(put(IF_NONE_MATCH, "*", Some(&old)), Verdict::Failed);
        assert_eq!(put(IF_NONE_MATCH, &old_tag, Some(&old)), Verdict::Failed);
    }

    #[test]
    fn if_match_is_looked_at_first() {
        let here = Digest::of(b"here");
        let both = headers(&[(IF_MATCH, "\"other\""), (IF_NONE_MATCH, "*")]);
        assert_eq!(judge(&Method::GET, &both, Some(&here)), Verdict::Failed);
    }

    #[test]
    fn a_range_of_something_else_is_not_served() {
        let (here, other) = (Digest::of(b"here"), Digest::of(b"other"));
        let applies = |condition: &str| range_applies(&headers(&[(IF_RANGE, condition)]), &here);
        assert!(range_applies(&HeaderMap::new(), &here));
        assert!(applies(&format!("\"{here}\"")));
        for no in [format!("\"{other}\""), format!("W/\"{here}\""), "Wed, 21 Oct 2026 07:28:00 GMT".into(), "*".into()] {
            assert!(!applies(&no), "{no}");
        }
    }

    proptest! {
        #[test]
        fn any_list_with_the_digest_in_quotes_matches(
            others in prop::collection::vec("(W/)?\"[!#-~]{0,12}\"", 0..4),
            place in 0usize..5,
        ) {
            let here = Digest::of(b"here");
            let mut list = others.clone();
            list.insert(place.min(others.len()), format!("\"{here}\""));
            let with = headers(&[(IF_NONE_MATCH, &list.join(","))]);
            prop_assert_eq!(judge(&Method::GET, &with, Some(&here)), Verdict::NotModified);
            let without = headers(&[(IF_NONE_MATCH, &others.join(", "))]);
            prop_assert_eq!(judge(&Method::GET, &without, Some(&here)), Verdict::Proceed);
        }

        #[test]
        fn no_header_makes_it_panic(text in "[ -~]{0,60}") {
            let here = Digest::of(b"here");
            for name in [IF_MATCH, IF_NONE_MATCH, IF_RANGE] {
                let given = headers(&[(name, &text)]);
                judge(&Method::GET, &given, Some(&here));
                range_applies(&given, &here);
            }
        }
    }
}
