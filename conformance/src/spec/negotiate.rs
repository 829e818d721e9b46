//! Content negotiation: what is asked for in Accept, and what Content-Type says it is.

use reqwest::Method;

use super::context::{INDEX_TYPE, MANIFEST_TYPE, sha256};
use super::indexes::index_of;
use super::{Context, Requirement, must, should};
use crate::http::{Exchange, Request};
use crate::outcome::{Finding, Outcome};

const PULLING: &str = "Pulling manifests (end-3)";
const PUSHING: &str = "Pushing Manifests (end-7)";
const ACCEPT: &str = "Pulling manifests (end-3); RFC 9110 section 12.5.1";

/// What clients of today send, Docker's types among them.
const MANY_TYPES: &str = "application/vnd.docker.distribution.manifest.list.v2+json;q=0.9, \
     application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, */*;q=0.1";

pub(super) const TABLE: &[Requirement] = &[
    should("negotiate-media-type", PULLING, "Content-Type is the mediaType of a manifest, and of an index", media_type),
    should("negotiate-parameters", PULLING, "Content-Type comes without parameters", parameters),
    should(
        "negotiate-parameters-ignored",
        PUSHING,
        "parameters of a manifest's Content-Type are ignored when it is pushed",
        parameters_ignored,
    ),
    should("negotiate-head", "RFC 9110 section 9.3.2", "HEAD of a manifest has the Content-Type that GET has", head),
    must("negotiate-accept-many", ACCEPT, "a manifest whose type is one of many accepted comes as it was pushed", accept_many),
    should("negotiate-accept-any", ACCEPT, "a manifest comes when any type is accepted", accept_any),
    should("negotiate-accept-absent", ACCEPT, "a manifest comes when no type is named", accept_absent),
    must("negotiate-accept-other", ACCEPT, "who accepts another type gets the manifest as it is, 404 or 406", accept_other),
    should("negotiate-conflict", PUSHING, "a manifest whose mediaType is not its Content-Type is refused", conflict),
    should("negotiate-json", "Listing Tags (end-8a); RFC 8259 section 11", "JSON comes as application/json", json),
];

/// Asks for a manifest with these types accepted.
fn get(cx: &Context<'_>, method: Method, reference: &str, accept: &str) -> Outcome<Exchange> {
    let path = cx.path(&format!("manifests/{reference}"));
    cx.send(Request::new(method, path).header("Accept", accept))
}

fn must_be_image(cx: &Context<'_>, answer: &Exchange) -> Outcome {
    answer.must_be(&[200])?;
    answer.must(answer.body() == cx.image()?.manifest, "the manifest's bytes as pushed")
}

/// A media type without its parameters.
fn bare(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

fn media_type(cx: &Context<'_>) -> Outcome {
    let (tag, image) = (&cx.image()?.tag, cx.image()?);
    let index = index_of(cx, Some((MANIFEST_TYPE, &image.digest, image.manifest.len())));
    let index_digest = sha256(&index);
    cx.put_manifest_as(INDEX_TYPE, &index_digest, &index)?.must_be(&[201])?;
    for (reference, expected) in [(tag, MANIFEST_TYPE), (&index_digest, INDEX_TYPE)] {
        let answer = get(cx, Method::GET, reference, &format!("{INDEX_TYPE}, {MANIFEST_TYPE}"))?;
        answer.must_be(&[200])?;
        let held = bare(answer.must_have("Content-Type")?) == expected;
        answer.must(held, format_args!("Content-Type: {expected}"))?;
    }
    Ok(())
}

fn parameters(cx: &Context<'_>) -> Outcome {
    let answer = get(cx, Method::GET, &cx.image()?.tag, MANIFEST_TYPE)?;
    answer.must(!answer.must_have("Content-Type")?.contains(';'), "Content-Type without parameters")
}

fn parameters_ignored(cx: &Context<'_>) -> Outcome {
    let manifest = cx.fresh_manifest("")?;
    let digest = sha256(&manifest);
    cx.put_manifest_as(&format!("{MANIFEST_TYPE}; charset=utf-8"), &digest, &manifest)?.must_be(&[201])?;
    let answer = get(cx, Method::GET, &digest, MANIFEST_TYPE)?;
    answer.must_be(&[200])?;
    answer.must(bare(answer.must_have("Content-Type")?) == MANIFEST_TYPE, format_args!("Content-Type: {MANIFEST_TYPE}"))
}

fn head(cx: &Context<'_>) -> Outcome {
    let tag = &cx.image()?.tag;
    let expected = get(cx, Method::GET, tag, MANIFEST_TYPE)?.must_have("Content-Type")?.to_owned();
    let answer = get(cx, Method::HEAD, tag, MANIFEST_TYPE)?;
    answer.must(answer.must_have("Content-Type")? == expected, format_args!("Content-Type: {expected}"))
}

fn accept_many(cx: &Context<'_>) -> Outcome {
    let image = cx.image()?;
    must_be_image(cx, &get(cx, Method::GET, &image.tag, MANY_TYPES)?)?;
    // The same as several headers (RFC 9110 section 5.3).
    let mut request = Request::new(Method::GET, cx.path(&format!("manifests/{}", image.digest)));
    for media_type in MANY_TYPES.split(',').rev() {
        request = request.header("Accept", media_type.trim());
    }
    must_be_image(cx, &cx.send(request)?)
}

fn accept_any(cx: &Context<'_>) -> Outcome {
    must_be_image(cx, &get(cx, Method::GET, &cx.image()?.tag, "*/*")?)
}

fn accept_absent(cx: &Context<'_>) -> Outcome {
    let target = cx.path(&format!("manifests/{}", cx.image()?.tag));
    // The HTTP library would say that it accepts anything.
    must_be_image(cx, &cx.send_raw(&cx.raw_request("GET", target.as_bytes(), false)?)?.exchange)
}

fn accept_other(cx: &Context<'_>) -> Outcome {
    let image = cx.image()?;
    for reference in [&image.digest, &image.tag] {
        let answer = get(cx, Method::GET, reference, "application/vnd.docker.distribution.manifest.v1+json")?;
        answer.must_be(&[200, 404, 406])?;
        if answer.status() == 200 {
            must_be_image(cx, &answer)?;
        }
    }
    Ok(())
}

fn conflict(cx: &Context<'_>) -> Outcome {
    let manifest = cx.fresh_manifest("")?;
    let put = cx.put_manifest_as(INDEX_TYPE, &cx.fresh_name(), &manifest)?;
    if put.status() == 201 {
        return Err(Finding::Differs("manifests are taken whose mediaType is not their Content-Type".into()));
    }
    put.must_be_refused()
}

fn json(cx: &Context<'_>) -> Outcome {
    cx.image()?;
    let list = cx.ask(Method::GET, "tags/list")?;
    list.must_be(&[200])?;
    let error = cx.ask(Method::GET, &format!("manifests/{}", cx.fresh_name()))?;
    for answer in [list, error] {
        if answer.must_be_json().is_ok() {
            answer.must(bare(answer.must_have("Content-Type")?) == "application/json", "Content-Type: application/json")?;
        }
    }
    Ok(())
}
