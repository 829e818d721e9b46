//! Pushing manifests.

use reqwest::Method;

use super::context::{BYTES_TYPE, MANIFEST_TYPE, must_match, sha256, sha512};
use super::pull::UNKNOWN_DIGEST;
use super::{Context, Requirement, must, should};
use crate::http::Request;
use crate::outcome::{Finding, Outcome};

const MANIFESTS: &str = "Pushing Manifests (end-7)";
const TAGS: &str = "Pushing Manifests (end-7b)";

pub(super) const TABLE: &[Requirement] = &[
    must("push-manifest-tag", MANIFESTS, "a manifest goes in under a tag: 201 and a Location that serves it", by_tag),
    must("push-manifest-digest", MANIFESTS, "a manifest goes in under its digest", by_digest),
    must("push-manifest-digest-mismatch", MANIFESTS, "a manifest under another digest than its own is refused", digest_mismatch),
    must("push-manifest-digest-true", MANIFESTS, "Docker-Content-Digest is the digest of the manifest pushed", digest_true),
    must("push-manifest-exact", MANIFESTS, "a manifest is kept byte for byte", exact),
    must("push-manifest-tags", TAGS, "each tag that OCI-Tag names stands for the manifest pushed by digest", tags),
    must("push-manifest-moves-tag", "Definitions: Tag", "a tag pushed again stands for the new manifest at once", moves_tag),
    must("push-manifest-keeps-old", MANIFESTS, "the manifest a tag stood for stays under its digest", keeps_old),
    must("push-manifest-blob-unknown", "Push", "a manifest refused for a missing blob is MANIFEST_BLOB_UNKNOWN", blob_unknown),
    must("push-manifest-subject-unknown", "Push", "a manifest may come before its subject", subject_unknown),
    must("push-manifest-no-layers", MANIFESTS, "a manifest without layers is taken", no_layers),
    should("push-manifest-artifact", "Introduction", "a manifest of something that is no image is taken", artifact),
    should("push-manifest-foreign", MANIFESTS, "a manifest whose layer is to be had elsewhere is taken", foreign),
    should("push-manifest-algorithm", MANIFESTS, "a manifest goes in under its sha512 digest", algorithm),
    must(
        "push-manifest-tag-malformed",
        "Pulling manifests (<reference>)",
        "a tag that breaks the grammar is refused",
        tag_malformed,
    ),
];

fn by_tag(cx: &Context<'_>) -> Outcome {
    let manifest = cx.fresh_manifest("")?;
    let put = cx.put_manifest(&cx.fresh_name(), &manifest)?;
    put.must_be(&[201])?;
    let location = put.resolve(put.must_have("Location")?)?;
    let answer = cx.send(Request::new(Method::GET, location).header("Accept", MANIFEST_TYPE))?;
    answer.must_be(&[200])?;
    answer.must(answer.body() == manifest, "the manifest's bytes as pushed")
}

fn by_digest(cx: &Context<'_>) -> Outcome {
    let manifest = cx.fresh_manifest("")?;
    let digest = sha256(&manifest);
    let put = cx.put_manifest(&digest, &manifest)?;
    put.must_be(&[201])?;
    put.must_have("Location")?;
    cx.ask(Method::GET, &format!("manifests/{digest}"))?.must_be(&[200])
}

fn digest_mismatch(cx: &Context<'_>) -> Outcome {
    let other = sha256(&cx.fresh_bytes());
    let put = cx.put_manifest(&other, &cx.fresh_manifest("")?)?;
    put.must_be_refused()?;
    cx.ask(Method::GET, &format!("manifests/{other}"))?.must_be(&[404])
}

fn digest_true(cx: &Context<'_>) -> Outcome {
    let manifest = cx.fresh_manifest("")?;
    let put = cx.put_manifest(&cx.fresh_name(), &manifest)?;
    put.must_be(&[201])?;
    match put.header("Docker-Content-Digest") {
        Some(header) => must_match(&put, header, &manifest),
        None => Err(Finding::NotOffered("the optional header Docker-Content-Digest".into())),
    }
}

fn exact(cx: &Context<'_>) -> Outcome {
    // Anything that parses and writes again would lose these spaces, this order and this member.
    let mut manifest = cx.fresh_manifest(" ,\n\t\"zz.unknown\" : [ 1.0 , \"\\u0041\" ] , \"artifactType\" : \"a/b\" ")?;
    manifest.push(b'\n');
    let tag = cx.fresh_name();
    cx.put_manifest(&tag, &manifest)?.must_be(&[201])?;
    let answer = cx.ask(Method::GET, &format!("manifests/{tag}"))?;
    answer.must_be(&[200])?;
    answer.must(answer.body() == manifest, "the manifest's bytes as pushed")
}

fn tags(cx: &Context<'_>) -> Outcome {
    let manifest = cx.fresh_manifest("")?;
    let wanted: Vec<_> = (0..10).map(|_| cx.fresh_name()).collect();
    let put = cx.put_manifest_as(MANIFEST_TYPE, &format!("{}?tag={}", sha256(&manifest), wanted.join("&tag=")), &manifest)?;
    put.must_be(&[201])?;
    let Some(made) = put.all_of("OCI-Tag") else {
        return Err(Finding::NotOffered("tags as parameters: there is no OCI-Tag".into()));
    };
    for tag in made.split(',').map(str::trim) {
        put.must(wanted.iter().any(|wanted| wanted == tag), format_args!("OCI-Tag with tags that were asked for, not {tag:?}"))?;
        let answer = cx.ask(Method::GET, &format!("manifests/{tag}"))?;
        answer.must(answer.body() == manifest, "the manifest that was pushed under the tag")?;
    }
    Ok(())
}

/// A tag pushed twice: the tag, and the first and second manifest.
fn tag_twice(cx: &Context<'_>) -> Outcome<(String, Vec<u8>, Vec<u8>)> {
    let (tag, first, second) = (cx.fresh_name(), cx.fresh_manifest("")?, cx.fresh_manifest("")?);
    cx.put_manifest(&tag, &first)?.must_be(&[201])?;
    // Read in between, so that a cache has something to be wrong with.
    cx.ask(Method::GET, &format!("manifests/{tag}"))?.must_be(&[200])?;
    cx.put_manifest(&tag, &second)?.must_be(&[201])?;
    Ok((tag, first, second))
}

fn moves_tag(cx: &Context<'_>) -> Outcome {
    let (tag, _, second) = tag_twice(cx)?;
    let answer = cx.ask(Method::GET, &format!("manifests/{tag}"))?;
    answer.must(answer.body() == second, "the manifest pushed last under the tag")
}

fn keeps_old(cx: &Context<'_>) -> Outcome {
    let (_, first, _) = tag_twice(cx)?;
    let answer = cx.ask(Method::GET, &format!("manifests/{}", sha256(&first)))?;
    answer.must(answer.body() == first, "the manifest pushed first, by its digest")
}

fn blob_unknown(cx: &Context<'_>) -> Outcome {
    cx.image()?;
    let put = cx.put_manifest(&cx.fresh_name(), &cx.manifest_over(UNKNOWN_DIGEST, 7, ""))?;
    if put.status() == 201 {
        return Err(Finding::Differs("manifests are taken whose blobs are not there".into()));
    }
    put.must((400..500).contains(&put.status()), "status 201 or a 4xx status")?;
    let errors = put.must_be_json()?;
    let named = errors["errors"].as_array().is_some_and(|e| e.iter().any(|e| e["code"] == "MANIFEST_BLOB_UNKNOWN"));
    put.must(named, "an error with code MANIFEST_BLOB_UNKNOWN")
}

fn subject_unknown(cx: &Context<'_>) -> Outcome {
    let subject = sha256(&cx.fresh_bytes());
    let manifest =
        cx.fresh_manifest(&format!(r#","subject":{{"mediaType":"{MANIFEST_TYPE}","digest":"{subject}","size":7}}"#))?;
    cx.put_manifest(&sha256(&manifest), &manifest)?.must_be(&[201])
}

fn no_layers(cx: &Context<'_>) -> Outcome {
    let config = cx.push_blob(&cx.fresh_bytes())?;
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":1100}},"layers":[]}}"#
    );
    cx.put_manifest(&sha256(manifest.as_bytes()), manifest.as_bytes())?.must_be(&[201])
}

fn artifact(cx: &Context<'_>) -> Outcome {
    let (config, layer) = (cx.push_blob(b"{}")?, cx.push_blob(&cx.fresh_bytes())?);
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","artifactType":"application/vnd.example.thing","config":{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"{config}","size":2,"data":"e30="}},"layers":[{{"mediaType":"{BYTES_TYPE}","digest":"{layer}","size":1100}}]}}"#
    );
    let digest = sha256(manifest.as_bytes());
    cx.put_manifest(&digest, manifest.as_bytes())?.must_be(&[201])?;
    let answer = cx.ask(Method::GET, &format!("manifests/{digest}"))?;
    answer.must(answer.body() == manifest.as_bytes(), "the manifest's bytes as pushed")
}

fn foreign(cx: &Context<'_>) -> Outcome {
    let config = cx.push_blob(&cx.fresh_bytes())?;
    let layer = sha256(&cx.fresh_bytes());
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":1100}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar","digest":"{layer}","size":7,"urls":["https://layers.example/{layer}"]}}]}}"#
    );
    let put = cx.put_manifest(&sha256(manifest.as_bytes()), manifest.as_bytes())?;
    // Such layers are deprecated by image-spec 1.1, and what is not there may be refused.
    if (400..500).contains(&put.status()) {
        return Err(Finding::Differs(format!("layers to be had elsewhere are refused with {}", put.status())));
    }
    put.must_be(&[201])
}

fn algorithm(cx: &Context<'_>) -> Outcome {
    let manifest = cx.fresh_manifest("")?;
    let digest = sha512(&manifest);
    let put = cx.put_manifest(&digest, &manifest)?;
    if (400..500).contains(&put.status()) {
        return Err(Finding::NotOffered(format!("sha512: it is answered with {}", put.status())));
    }
    put.must_be(&[201])?;
    let answer = cx.ask(Method::GET, &format!("manifests/{digest}"))?;
    answer.must_be(&[200])?;
    answer.must(answer.body() == manifest, "the manifest's bytes as pushed")
}

fn tag_malformed(cx: &Context<'_>) -> Outcome {
    let manifest = cx.fresh_manifest("")?;
    for tag in ["t".repeat(129), ".dot".into(), "-dash".into(), "a%20space".into(), "a+plus".into()] {
        cx.put_manifest(&tag, &manifest)?.must_be_refused()?;
    }
    Ok(())
}
