//! Errors: their form, their codes, and bad requests that must not become server errors.

use reqwest::Method;

use super::context::{BYTES_TYPE, sha256};
use super::pull::UNKNOWN_DIGEST;
use super::{Context, Requirement, must, should};
use crate::http::{Exchange, Request};
use crate::limits::WARNINGS_LIMIT_BYTES;
use crate::outcome::{Finding, Outcome};

const CODES: &str = "Error Codes";
const WARNINGS: &str = "Warnings";
const BAD_REQUESTS: &str = "Endpoints; RFC 9110 section 15.5";

/// The table of section "Error Codes".
const KNOWN_CODES: [&str; 14] = [
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "UNAUTHORIZED",
    "DENIED",
    "UNSUPPORTED",
    "TOOMANYREQUESTS",
];

pub(super) const TABLE: &[Requirement] = &[
    must("errors-format", CODES, "a JSON body of an error has errors[].code in capitals", format),
    must("errors-codes", CODES, "the codes are those of the specification", codes),
    should("errors-message", CODES, "the message of an error is a text", message),
    should("errors-fitting", CODES, "the code fits what was wrong", fitting),
    should("errors-digest-malformed", BAD_REQUESTS, "a malformed digest is a client's error when pulling", digest_malformed),
    should(
        "errors-digest-malformed-push",
        BAD_REQUESTS,
        "a malformed digest is a client's error when pushing",
        digest_malformed_push,
    ),
    should("errors-manifest-malformed", BAD_REQUESTS, "a manifest that is no JSON is a client's error", manifest_malformed),
    should("errors-upload-unknown", "Endpoints (end-6)", "closing an upload nobody began is 404 or 400", upload_unknown),
];

/// Judged after everything else: it is about every answer.
pub(super) const LAST: &[Requirement] =
    &[must("errors-warnings", WARNINGS, "warnings have code 299, agent -, no date, and 4096 bytes at most", warnings)];

/// Requests that must fail, with the codes that fit each.
fn bad_requests(cx: &Context<'_>) -> Outcome<[(Exchange, &'static [&'static str]); 3]> {
    cx.image()?;
    let digest = sha256(&cx.fresh_bytes());
    let upload = cx.begin_upload()?;
    Ok([
        (cx.ask(Method::GET, &format!("manifests/{}", cx.fresh_name()))?, &["MANIFEST_UNKNOWN"]),
        (cx.ask(Method::GET, &format!("blobs/{UNKNOWN_DIGEST}"))?, &["BLOB_UNKNOWN"]),
        (cx.send(cx.close_request(&upload, &digest, &cx.fresh_bytes()))?, &["DIGEST_INVALID", "BLOB_UPLOAD_INVALID"]),
    ])
}

/// The codes of an error, empty when its body is no JSON: then it may be anything.
fn codes_of(answer: &Exchange) -> Outcome<Vec<String>> {
    let Ok(document) = serde_json::from_slice::<serde_json::Value>(answer.body()) else { return Ok(Vec::new()) };
    let code = |error: &serde_json::Value| error["code"].as_str().map(str::to_owned);
    let codes = document["errors"].as_array().and_then(|errors| errors.iter().map(code).collect::<Option<Vec<_>>>());
    codes.filter(|codes| !codes.is_empty()).ok_or_else(|| answer.fail(r#"{"errors":[{"code":...}]}"#))
}

fn format(cx: &Context<'_>) -> Outcome {
    let mut any = false;
    for (answer, _) in bad_requests(cx)? {
        answer.must_be_refused()?;
        let codes = codes_of(&answer)?;
        any |= !codes.is_empty();
        let capitals = |code: &String| !code.is_empty() && code.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
        answer.must(codes.iter().all(capitals), "codes of capital letters and underscores")?;
    }
    if any { Ok(()) } else { Err(Finding::NotOffered("errors in JSON".into())) }
}

fn codes(cx: &Context<'_>) -> Outcome {
    for (answer, _) in bad_requests(cx)? {
        let unknown = codes_of(&answer)?.into_iter().find(|code| !KNOWN_CODES.contains(&code.as_str()));
        if let Some(code) = unknown {
            return Err(answer.fail(format_args!("a code of the specification, not {code:?}")));
        }
    }
    Ok(())
}

fn fitting(cx: &Context<'_>) -> Outcome {
    for (answer, fit) in bad_requests(cx)? {
        let codes = codes_of(&answer)?;
        let held = codes.is_empty() || codes.iter().any(|code| fit.contains(&code.as_str()));
        answer.must(held, format_args!("an error with code {}", fit.join(" or ")))?;
    }
    Ok(())
}

fn message(cx: &Context<'_>) -> Outcome {
    let mut any = false;
    for (answer, _) in bad_requests(cx)? {
        let document: serde_json::Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        for message in document["errors"].as_array().into_iter().flatten().filter_map(|error| error.get("message")) {
            answer.must(message.is_string(), "a message that is a text")?;
            any = true;
        }
    }
    if any { Ok(()) } else { Err(Finding::NotOffered("messages of errors".into())) }
}

/// Digests that break the grammar in one way each.
const MALFORMED_DIGESTS: [&str; 4] = ["sha256:", "sha256:abc", "sha256:not-hexadecimal", "nonsense:0123456789abcdef"];

fn digest_malformed(cx: &Context<'_>) -> Outcome {
    cx.image()?;
    for digest in MALFORMED_DIGESTS {
        cx.ask(Method::GET, &format!("blobs/{digest}"))?.must_be_refused()?;
        cx.ask(Method::GET, &format!("manifests/{digest}"))?.must_be_refused()?;
    }
    Ok(())
}

fn digest_malformed_push(cx: &Context<'_>) -> Outcome {
    for digest in MALFORMED_DIGESTS {
        let upload = cx.begin_upload()?;
        let separator = if upload.contains('?') { '&' } else { '?' };
        let close = Request::new(Method::PUT, format!("{upload}{separator}digest={digest}")).body(BYTES_TYPE, cx.fresh_bytes());
        cx.send(close)?.must_be_refused()?;
        cx.put_manifest(digest, &cx.image()?.manifest)?.must_be_refused()?;
    }
    Ok(())
}

fn manifest_malformed(cx: &Context<'_>) -> Outcome {
    cx.image()?;
    cx.put_manifest(&cx.fresh_name(), b"{ this is no JSON")?.must_be_refused()
}

fn upload_unknown(cx: &Context<'_>) -> Outcome {
    cx.image()?;
    let upload = cx.path("blobs/uploads/7c2f1d0a-0000-4000-8000-000000000000");
    cx.send(cx.close_request(&upload, &sha256(b"nobody"), b"nobody"))?.must_be(&[400, 404])
}

fn warnings(cx: &Context<'_>) -> Outcome {
    let image = cx.image()?;
    cx.ask(Method::GET, &format!("manifests/{}", image.tag))?;
    let Some(answer) = cx.warned() else { return Err(Finding::NotOffered("warnings: no answer had any".into())) };
    let all = answer.each_of("Warning");
    let fits = |value: &&str| {
        value.strip_prefix("299 - \"").is_some_and(|rest| rest.len() > 1 && rest.find('"') == Some(rest.len() - 1))
    };
    answer.must(all.iter().all(fits), "Warning: 299 - \"...\" and nothing after it")?;
    let total_bytes: usize = all.iter().map(|value| value.len()).sum();
    answer.must(total_bytes <= WARNINGS_LIMIT_BYTES, format_args!("at most {WARNINGS_LIMIT_BYTES} bytes of warnings"))
}
