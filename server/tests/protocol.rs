//! The API as the distribution-spec has it, through the real program.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod common;

use common::{OCI_INDEX, OCI_MANIFEST, Rhub, error, image_manifest, index_manifest};
use longshore_runtime::name::{Algorithm, Digest};

fn rhub() -> (tempfile::TempDir, Rhub) {
    let dir = tempfile::tempdir().unwrap();
    let rhub = Rhub::start(dir.path());
    (dir, rhub)
}

fn sha512(content: &[u8]) -> Digest {
    let mut hasher = Algorithm::Sha512.hasher();
    hasher.update(content);
    hasher.finish()
}

#[test]
fn the_base_answers_and_says_what_it_is() {
    let (_dir, rhub) = rhub();
    let reply = rhub.get("/v2/");
    assert_eq!((reply.status, reply.header("docker-distribution-api-version")), (200, "registry/2.0"));
    assert_eq!(rhub.send("POST", "/v2/", &[], b"").error(), error(405, "UNSUPPORTED"));
    assert_eq!(rhub.get("/").status, 404);
}

#[test]
fn what_a_manifest_refers_to_may_be_missing_where_that_is_configured_and_the_client_is_warned() {
    let child = image_manifest(b"config", b"layer");
    let index = index_manifest(&[&child]);
    let (_dir, rhub) = rhub();
    let refused = rhub.put_manifest("sparse", "v1", OCI_INDEX, index.as_bytes());
    assert_eq!(refused.error(), error(404, "MANIFEST_BLOB_UNKNOWN"));
    let (_dir, rhub) = Rhub::with(&["limits.sparse_manifests=true"]);
    rhub.push_blob("sparse", b"config");
    for (media_type, manifest, missing) in [(OCI_MANIFEST, &child, "lacks 1 of"), (OCI_INDEX, &index, "")] {
        let taken = rhub.put_manifest("sparse", "v1", media_type, manifest.as_bytes());
        assert_eq!(taken.status, 201, "{taken:?}");
        let warning = taken.find_header("warning").unwrap_or_default();
        let is_as_expected = if missing.is_empty() { warning.is_empty() } else { warning.starts_with("299 - \"") };
        assert!(is_as_expected && warning.contains(missing), "{warning}");
    }
}

#[test]
fn a_blob_is_pushed_in_every_way_and_pulled() {
    let (_dir, rhub) = rhub();
    let content = b"content".repeat(50_000);
    let digest = Digest::of(&content);
    let pulled = |repo: &str, digest: &Digest| {
        let path = format!("/v2/{repo}/blobs/{digest}");
        let head = rhub.send("HEAD", &path, &[], b"");
        assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, "350000", 0));
        let get = rhub.get(&path);
        assert_eq!((get.status, get.header("docker-content-digest")), (200, digest.as_str()));
        assert!(get.body == content, "{repo}");
    };
    rhub.push_blob("post/put", &content);
    pulled("post/put", &digest);

    let single = rhub.send("POST", &format!("/v2/single/blobs/uploads/?digest={digest}"), &[], &content);
    assert_eq!((single.status, single.header("location")), (201, format!("/v2/single/blobs/{digest}").as_str()));
    pulled("single", &digest);

    let location = rhub.start_upload("stream");
    let patch = rhub.send("PATCH", &location, &[], &content);
    assert_eq!((patch.status, patch.header("range")), (202, "0-349999"));
    assert_eq!(rhub.send("PUT", &format!("{location}?digest={digest}"), &[], b"").status, 201);
    pulled("stream", &digest);

    let location = rhub.start_upload("chunks");
    let first = rhub.send("PATCH", &location, &[("content-range", "0-99999")], &content[..100_000]);
    assert_eq!((first.status, first.header("range")), (202, "0-99999"));
    let last =
        rhub.send("PUT", &format!("{location}?digest={digest}"), &[("content-range", "100000-349999")], &content[100_000..]);
    assert_eq!(last.status, 201, "{last:?}");
    pulled("chunks", &digest);

    let other = sha512(&content);
    let location = rhub.start_upload("sha512");
    assert_eq!(rhub.send("PUT", &format!("{location}?digest={other}"), &[], &content).status, 201);
    pulled("sha512", &other);
}

#[test]
fn a_body_without_a_length_is_taken_too() {
    let (_dir, rhub) = rhub();
    let location = rhub.start_upload("a");
    let digest = Digest::of(b"hello world");
    let request = format!(
        "PUT {location}?digest={digest} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n\
         6\r\nhello \r\n1\r\nw\r\n4\r\norld\r\n0\r\n\r\n"
    );
    assert_eq!(common::Reply::read(rhub.raw(&request)).unwrap().status, 201);
    assert_eq!(rhub.get(&format!("/v2/a/blobs/{digest}")).body, b"hello world");
}

#[test]
fn chunks_in_disorder_are_refused_with_where_the_upload_stands() {
    let (_dir, rhub) = rhub();
    let location = rhub.start_upload("a");
    assert_eq!(rhub.send("PATCH", &location, &[("content-range", "0-3")], b"abcd").status, 202);
    for range in ["0-3", "5-8", "3-6", "99-102"] {
        let reply = rhub.send("PATCH", &location, &[("content-range", range)], b"efgh");
        assert_eq!(reply.error(), error(416, "BLOB_UPLOAD_INVALID"), "{range}");
        assert_eq!((reply.header("range"), reply.header("location")), ("0-3", location.as_str()));
    }
    for range in ["4-6", "x", "7-4", "4-"] {
        let reply = rhub.send("PATCH", &location, &[("content-range", range)], b"efgh");
        assert_eq!(reply.error(), error(400, "BLOB_UPLOAD_INVALID"), "{range}");
    }
    let digest = Digest::of(b"abcdefgh");
    let put = rhub.send("PUT", &format!("{location}?digest={digest}"), &[("content-range", "0-3")], b"efgh");
    assert_eq!(put.status, 416);
    let status = rhub.get(&location);
    assert_eq!((status.status, status.header("range")), (204, "0-3"));
    assert_eq!(rhub.send("PUT", &format!("{location}?digest={digest}"), &[("content-range", "4-7")], b"efgh").status, 201);
}

#[test]
fn an_upload_is_cancelled() {
    let (_dir, rhub) = rhub();
    let location = rhub.start_upload("a");
    assert_eq!(rhub.send("DELETE", &location, &[], b"").status, 204);
    assert_eq!(rhub.get(&location).error(), error(404, "BLOB_UPLOAD_UNKNOWN"));
    assert_eq!(rhub.send("PATCH", &location, &[], b"x").error(), error(404, "BLOB_UPLOAD_UNKNOWN"));
}

#[test]
fn a_blob_is_mounted_from_where_it_is_and_uploaded_otherwise() {
    let (_dir, rhub) = rhub();
    let digest = rhub.push_blob("from", b"shared");
    let mount = |query: &str| rhub.send("POST", &format!("/v2/to/blobs/uploads/?{query}"), &[], b"");
    let elsewhere = mount(&format!("mount={digest}&from=nowhere"));
    assert_eq!(elsewhere.status, 202);
    assert!(elsewhere.header("location").starts_with("/v2/to/blobs/uploads/"));
    assert_eq!(rhub.get(&format!("/v2/to/blobs/{digest}")).error(), error(404, "BLOB_UNKNOWN"));
    let mounted = mount(&format!("mount={digest}&from=from"));
    assert_eq!((mounted.status, mounted.header("location")), (201, format!("/v2/to/blobs/{digest}").as_str()));
    assert_eq!(rhub.get(&format!("/v2/to/blobs/{digest}")).body, b"shared");

    // Without from, wherever it is; a manifest of that digest is no blob.
    let anonymous = rhub.send("POST", &format!("/v2/other/blobs/uploads/?mount={digest}"), &[], b"");
    assert_eq!((anonymous.status, anonymous.header("location")), (201, format!("/v2/other/blobs/{digest}").as_str()));
    assert_eq!(rhub.get(&format!("/v2/other/blobs/{digest}")).body, b"shared");
    let manifest = Digest::of(rhub.push_image("images", "v1", "layer").as_bytes());
    assert_eq!(mount(&format!("mount={manifest}")).status, 202);
    assert_eq!(mount(&format!("mount={}", Digest::of(b"nobody has it"))).status, 202);
}

#[test]
fn a_range_of_a_blob_is_served() {
    let (_dir, rhub) = rhub();
    let content: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    let digest = rhub.push_blob("a", &content);
    let path = format!("/v2/a/blobs/{digest}");
    let get = |range: &str| rhub.send("GET", &path, &[("range", range)], b"");
    for (range, bytes, described) in [
        ("bytes=0-0", 0..1, "bytes 0-0/800000"),
        ("bytes=100-700000", 100..700_001, "bytes 100-700000/800000"),
        ("bytes=799999-", 799_999..800_000, "bytes 799999-799999/800000"),
        ("bytes=-10", 799_990..800_000, "bytes 799990-799999/800000"),
    ] {
        let reply = get(range);
        assert_eq!((reply.status, reply.header("content-range")), (206, described));
        assert!(reply.body == content[bytes], "{range}");
    }
    let touching = get("bytes=0-1,2-5");
    assert_eq!((touching.status, touching.header("content-range")), (206, "bytes 0-5/800000"));
    for range in ["bytes=0-1,5-6", "lines=1-2"] {
        assert_eq!((get(range).status, get(range).body.len()), (200, content.len()), "{range}");
    }
    for range in ["bytes=800000-", "bytes=5-1", "bytes=-0"] {
        let beyond = get(range);
        assert_eq!((beyond.status, beyond.header("content-range")), (416, "bytes */800000"), "{range}");
    }
    let resumed = |tag: &str| rhub.send("GET", &path, &[("range", "bytes=0-0"), ("if-range", tag)], b"").status;
    assert_eq!((resumed(&format!("\"{digest}\"")), resumed("\"sha256:abc\"")), (206, 200));
    let whole = rhub.get(&path);
    assert_eq!((whole.header("accept-ranges"), whole.header("etag")), ("bytes", format!("\"{digest}\"").as_str()));
}

#[test]
fn what_a_client_has_is_not_sent_again() {
    let (_dir, rhub) = rhub();
    let manifest = Digest::of(rhub.push_image("a", "v1", "layer").as_bytes());
    let layer = Digest::of(b"layer");
    let other = format!("\"{}\"", Digest::of(b"other"));
    for (path, digest) in [
        ("/v2/a/manifests/v1".to_owned(), &manifest),
        (format!("/v2/a/manifests/{manifest}"), &manifest),
        (format!("/v2/a/blobs/{layer}"), &layer),
    ] {
        let tag = format!("\"{digest}\"");
        assert_eq!(rhub.get(&path).header("etag"), tag);
        for method in ["GET", "HEAD"] {
            let ask = |name: &str, value: &str| rhub.send(method, &path, &[(name, value)], b"");
            let same = ask("if-none-match", &format!("{other}, {tag}"));
            assert_eq!((same.status, same.header("etag"), same.body.len()), (304, tag.as_str(), 0), "{method} {path}");
            assert_eq!(ask("if-none-match", &other).status, 200);
            assert_eq!((ask("if-match", &tag).status, ask("if-match", &other).status), (200, 412));
        }
        assert_eq!(rhub.send("GET", &path, &[("if-match", &other)], b"").error(), error(412, "DENIED"));
    }
    let absent = rhub.send("GET", "/v2/a/manifests/v2", &[("if-none-match", "*")], b"");
    assert_eq!(absent.error(), error(404, "MANIFEST_UNKNOWN"));
}

#[test]
fn a_manifest_is_served_byte_for_byte_by_tag_and_digest() {
    let (_dir, rhub) = rhub();
    let pretty = rhub.push_image("a", "v1", "layer").replace(',', " ,\n  ").replacen('{', "{\"unknown\": [1.50e1],", 1);
    let digest = Digest::of(pretty.as_bytes());
    let put = rhub.put_manifest("a", "v2", OCI_MANIFEST, pretty.as_bytes());
    assert_eq!((put.status, put.header("docker-content-digest")), (201, digest.as_str()));
    assert_eq!(put.header("location"), format!("/v2/a/manifests/{digest}"));
    for reference in ["v2", digest.as_str()] {
        let path = format!("/v2/a/manifests/{reference}");
        let get = rhub.get(&path);
        assert_eq!(
            (get.status, get.header("content-type"), get.header("docker-content-digest")),
            (200, OCI_MANIFEST, digest.as_str())
        );
        assert_eq!(get.body, pretty.as_bytes());
        let head = rhub.send("HEAD", &path, &[], b"");
        assert_eq!((head.status, head.header("content-length")), (200, pretty.len().to_string().as_str()));
    }
    let (long, charset) = (sha512(pretty.as_bytes()), format!("{OCI_MANIFEST}; charset=utf-8"));
    assert_eq!(rhub.put_manifest("a", long.as_str(), &charset, pretty.as_bytes()).status, 201);
    assert_eq!(rhub.get(&format!("/v2/a/manifests/{long}")).body, pretty.as_bytes());
}

#[test]
fn a_manifest_needs_its_blobs_and_an_index_its_children() {
    let (_dir, rhub) = rhub();
    let manifest = image_manifest(b"{}", b"layer");
    rhub.push_blob("a", b"{}");
    rhub.push_blob("other", b"layer");
    let missing = rhub.put_manifest("a", "v1", OCI_MANIFEST, manifest.as_bytes());
    assert_eq!(missing.error(), error(404, "MANIFEST_BLOB_UNKNOWN"));
    assert_eq!(missing.json()["errors"][0]["detail"]["digest"], Digest::of(b"layer").as_str());
    assert_eq!(rhub.get("/v2/a/manifests/v1").status, 404);
    assert_eq!(rhub.get(&format!("/v2/a/manifests/{}", Digest::of(manifest.as_bytes()))).status, 404);
    let index = index_manifest(&[&manifest]);
    assert_eq!(rhub.put_manifest("a", "v1", OCI_INDEX, index.as_bytes()).error(), error(404, "MANIFEST_BLOB_UNKNOWN"));
    rhub.push_image("a", "v0", "layer");
    assert_eq!(rhub.put_manifest("a", "v1", OCI_INDEX, index.as_bytes()).status, 201);
    assert_eq!(rhub.get("/v2/a/manifests/v1").header("content-type"), OCI_INDEX);
}

#[test]
fn tags_and_repositories_are_listed_in_pages() {
    let (_dir, rhub) = rhub();
    assert_eq!(rhub.get("/v2/a/tags/list").error(), error(404, "NAME_UNKNOWN"));
    let manifest = rhub.push_image("a", "t0", "layer");
    for n in 1..5 {
        assert_eq!(rhub.put_manifest("a", &format!("t{n}"), OCI_MANIFEST, manifest.as_bytes()).status, 201);
    }
    rhub.push_blob("b/c", b"x");
    let all = rhub.get("/v2/a/tags/list");
    assert_eq!(all.json(), serde_json::json!({"name": "a", "tags": ["t0", "t1", "t2", "t3", "t4"]}));
    assert_eq!(all.find_header("link"), None);
    let (mut path, mut seen) = ("/v2/a/tags/list?n=2".to_owned(), Vec::new());
    loop {
        let page = rhub.get(&path);
        seen.push(page.json()["tags"].as_array().unwrap().len());
        let Some(link) = page.find_header("link") else { break };
        path = link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_owned();
    }
    assert_eq!(seen, [2, 2, 1]);
    assert_eq!(rhub.get("/v2/a/tags/list?last=t3").json()["tags"], serde_json::json!(["t4"]));
    assert_eq!(rhub.get("/v2/a/tags/list?n=0").json()["tags"], serde_json::json!([]));
    assert_eq!(rhub.get("/v2/a/tags/list?n=x").status, 400);
    assert_eq!(rhub.get("/v2/_catalog").json(), serde_json::json!({"repositories": ["a", "b/c"]}));
    let first = rhub.get("/v2/_catalog?n=1");
    assert_eq!(first.header("link"), "</v2/_catalog?n=1&last=a>; rel=\"next\"");
    assert_eq!(rhub.get("/v2/_catalog?n=1&last=a").json(), serde_json::json!({"repositories": ["b/c"]}));
}

#[test]
fn tags_manifests_and_blobs_are_deleted() {
    let (_dir, rhub) = rhub();
    let manifest = rhub.push_image("a", "one", "layer");
    let digest = Digest::of(manifest.as_bytes());
    rhub.put_manifest("a", "two", OCI_MANIFEST, manifest.as_bytes());
    let delete = |path: String| rhub.send("DELETE", &path, &[], b"");
    assert_eq!(delete("/v2/a/manifests/one".into()).status, 202);
    assert_eq!(rhub.get("/v2/a/manifests/one").error(), error(404, "MANIFEST_UNKNOWN"));
    assert_eq!(rhub.get("/v2/a/manifests/two").status, 200, "the tag went, the manifest stayed");
    assert_eq!(delete(format!("/v2/a/manifests/{digest}")).status, 202);
    assert_eq!(rhub.get("/v2/a/manifests/two").status, 404, "the manifest went, and its tags with it");
    assert_eq!(delete(format!("/v2/a/manifests/{digest}")).error(), error(404, "MANIFEST_UNKNOWN"));
    let layer = Digest::of(b"layer");
    assert_eq!(delete(format!("/v2/a/blobs/{layer}")).status, 202);
    assert_eq!(rhub.get(&format!("/v2/a/blobs/{layer}")).error(), error(404, "BLOB_UNKNOWN"));
    assert_eq!(delete(format!("/v2/a/blobs/{layer}")).error(), error(404, "BLOB_UNKNOWN"));
    rhub.push_image("a", "one", "layer");
    assert_eq!(rhub.get("/v2/a/manifests/one").status, 200, "what was deleted can be pushed again");
}
