//! What has gone wrong for other registries, and input nobody sends in good faith. `docs/security.md`
//! lists what is tested where.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod common;

use std::io::{Read, Write};

use common::{OCI_INDEX, OCI_MANIFEST, Reply, Rhub, error, image_manifest};
use longshore_runtime::name::Digest;

fn rhub() -> (tempfile::TempDir, Rhub) {
    let dir = tempfile::tempdir().unwrap();
    let rhub = Rhub::start(dir.path());
    (dir, rhub)
}

#[test]
fn cve_2017_11468_memory_stays_bounded_on_huge_manifests() {
    let (_dir, rhub) = rhub();
    rhub.push_image("a", "warm", "layer");
    let before = rhub.peak_memory_bytes();
    // Announced, and not announced: both are refused before they are in memory.
    let announced = rhub.send("PUT", "/v2/a/manifests/x", &[("content-type", OCI_MANIFEST)], &vec![b' '; 5 << 20]);
    assert_eq!(announced.error(), error(413, "SIZE_INVALID"));
    let mut streams = Vec::new();
    for _ in 0..4 {
        let head = format!(
            "PUT /v2/a/manifests/x HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {OCI_MANIFEST}\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        streams.push(rhub.raw(&head));
    }
    let chunk = [b"100000\r\n".as_slice(), &vec![b' '; 1 << 20], b"\r\n"].concat();
    for stream in &mut streams {
        for _ in 0..64 {
            // Refused while it is being sent.
            if stream.write_all(&chunk).is_err() {
                break;
            }
        }
    }
    for stream in streams {
        if let Some(reply) = Reply::read(stream) {
            assert_eq!(reply.error(), error(413, "SIZE_INVALID"));
        }
    }
    let grown = rhub.peak_memory_bytes() - before;
    assert!(grown < 48 << 20, "grew by {grown} bytes");
}

/// What is in hand at one time, received and being parsed, and the connections' own buffers.
const MANY_MANIFESTS_BYTES: u64 = 96 << 20;

#[test]
fn cve_2017_11468_memory_stays_bounded_on_many_manifests_at_once() {
    let (_dir, rhub) = rhub();
    let valid = rhub.push_image("a", "warm", "layer");
    let before = rhub.peak_memory_bytes();
    let annotations: Vec<_> = (0..5_000).map(|n| format!(r#""{n}":"""#)).collect();
    let mut large = valid.replacen('{', &format!(r#"{{"annotations":{{{}}},"#, annotations.join(",")), 1);
    large += &" ".repeat((4 << 20) - large.len());
    std::thread::scope(|scope| {
        for n in 0..64 {
            let (rhub, large) = (&rhub, &large);
            scope.spawn(move || {
                let put = rhub.put_manifest("a", &format!("t{n}"), OCI_MANIFEST, large.as_bytes());
                assert!(matches!(put.status, 201 | 429), "{put:?}");
            });
        }
    });
    let grown = rhub.peak_memory_bytes() - before;
    eprintln!("64 manifests of 4 MiB at once: grew by {} MiB", grown >> 20);
    assert!(grown < MANY_MANIFESTS_BYTES, "grew by {grown} bytes");
}

#[test]
fn cve_2023_2253_a_huge_page_size_is_cut_to_the_limit() {
    let (_dir, rhub) = rhub();
    rhub.push_image("a", "t", "layer");
    let before = rhub.peak_memory_bytes();
    for n in ["1000000000", "18446744073709551615", "99999999999999999999999999"] {
        for path in [format!("/v2/_catalog?n={n}"), format!("/v2/a/tags/list?n={n}")] {
            assert_eq!(rhub.get(&path).status, 200, "{path}");
        }
    }
    assert!(rhub.peak_memory_bytes() - before < 8 << 20);
    assert_eq!(rhub.get("/v2/_catalog?n=-1").status, 400);
}

#[test]
fn cve_2021_41190_a_manifest_is_one_kind_and_says_so() {
    let (_dir, rhub) = rhub();
    let manifest = rhub.push_image("a", "t", "layer");
    let both = manifest.replacen('{', r#"{"manifests":[],"#, 1);
    let mismatch = rhub.put_manifest("a", "x", OCI_INDEX, manifest.as_bytes());
    assert_eq!(mismatch.error(), error(400, "MANIFEST_INVALID"));
    assert_eq!(rhub.put_manifest("a", "x", OCI_MANIFEST, both.as_bytes()).error(), error(400, "MANIFEST_INVALID"));
    let untyped_both = both.replace(&format!(r#""mediaType":"{OCI_MANIFEST}","#), "");
    for media_type in [OCI_MANIFEST, OCI_INDEX, "application/json"] {
        assert_eq!(rhub.put_manifest("a", "x", media_type, untyped_both.as_bytes()).error(), error(400, "MANIFEST_INVALID"));
    }
    assert_eq!(rhub.get("/v2/a/manifests/x").status, 404);
}

#[test]
fn cve_2026_35172_a_blob_deleted_here_is_not_readable_although_others_have_it() {
    let (_dir, rhub) = rhub();
    let digest = rhub.push_blob("a", b"secret");
    rhub.push_blob("b", b"secret");
    assert_eq!(rhub.get(&format!("/v2/c/blobs/{digest}")).status, 404);
    // In every cache there is, by way of both.
    for repo in ["a", "b", "a"] {
        assert_eq!(rhub.get(&format!("/v2/{repo}/blobs/{digest}")).body, b"secret");
    }
    rhub.send("DELETE", &format!("/v2/a/blobs/{digest}"), &[], b"");
    for method in ["GET", "HEAD"] {
        assert_eq!(rhub.send(method, &format!("/v2/a/blobs/{digest}"), &[], b"").status, 404);
        assert_eq!(rhub.send(method, &format!("/v2/b/blobs/{digest}"), &[], b"").status, 200);
    }
    let mount = rhub.send("POST", &format!("/v2/c/blobs/uploads/?mount={digest}&from=a"), &[], b"");
    assert_eq!(mount.status, 202, "nor can it be mounted from where it was deleted");
}

#[test]
fn content_under_a_wrong_digest_is_refused_and_never_served() {
    let (_dir, rhub) = rhub();
    let promised = Digest::of(b"promised");
    let refused = |reply: Reply| assert_eq!(reply.error(), error(400, "DIGEST_INVALID"));
    let location = rhub.start_upload("a");
    refused(rhub.send("PUT", &format!("{location}?digest={promised}"), &[], b"sent"));
    refused(rhub.send("POST", &format!("/v2/a/blobs/uploads/?digest={promised}"), &[], b"sent"));
    // Right at first, and wrong over the whole.
    let location = rhub.start_upload("a");
    rhub.send("PATCH", &location, &[], b"promised");
    refused(rhub.send("PUT", &format!("{location}?digest={promised}"), &[], b"and more"));
    assert_eq!(rhub.get(&format!("/v2/a/blobs/{promised}")).status, 404);
    let manifest = rhub.push_image("a", "t", "layer");
    refused(rhub.put_manifest("a", promised.as_str(), OCI_MANIFEST, manifest.as_bytes()));
    assert_eq!(rhub.get(&format!("/v2/a/manifests/{promised}")).status, 404);
}

#[test]
fn an_unknown_digest_algorithm_is_refused() {
    let (_dir, rhub) = rhub();
    let location = rhub.start_upload("a");
    for digest in ["md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:XYZ", "sha256:", "x", "", "sha256:../../../../etc/passwd"] {
        let reply = rhub.send("PUT", &format!("{location}?digest={digest}"), &[], b"");
        assert_eq!(reply.error(), error(400, "DIGEST_INVALID"), "{digest}");
        assert_eq!(rhub.get(&format!("/v2/a/manifests/md5:{digest}")).status / 100, 4);
    }
    assert_eq!(rhub.send("PUT", &location, &[], b"").status, 400);
    assert_eq!(rhub.get(&location).status, 204, "the upload is as it was");
}

#[test]
fn an_upload_is_bound_to_its_repository() {
    let (_dir, rhub) = rhub();
    let location = rhub.start_upload("mine");
    let stolen = location.replace("/v2/mine/", "/v2/yours/");
    for method in ["GET", "PATCH", "DELETE"] {
        assert_eq!(rhub.send(method, &stolen, &[], b"").status, 404, "{method}");
    }
    let put = rhub.send("PUT", &format!("{stolen}?digest={}", Digest::of(b"x")), &[], b"x");
    assert_eq!(put.error(), error(404, "BLOB_UPLOAD_UNKNOWN"));
    assert_eq!(rhub.get(&location).status, 204);
}

#[test]
fn path_tricks_reach_nothing() {
    let (dir, rhub) = rhub();
    std::fs::write(dir.path().join("secret"), "secret").unwrap();
    let long = format!("/v2/{}/tags/list", "a".repeat(70_000));
    for path in [
        "/v2/../secret",
        "/v2/a/blobs/../../secret",
        "/v2/a/blobs/..%2f..%2fsecret",
        "/v2/%2e%2e/manifests/secret",
        "/v2/a//manifests/x",
        "/v2//manifests/x",
        "/v2/a/manifests/x%00",
        "/v2/a%00b/manifests/x",
        "/v2/A/manifests/x",
        "/v2/a/manifests/../../secret",
        "/v2/a/blobs/uploads/../../../secret",
        "/v2/a%5c..%5cb/manifests/x",
        &long,
    ] {
        for method in ["GET", "PUT", "DELETE", "POST"] {
            let reply = rhub.send(method, path, &[], b"");
            assert!((400..500).contains(&reply.status), "{method} {path}: {reply:?}");
            assert!(!reply.body.windows(6).any(|w| w == b"secret\n"));
        }
    }
    let long_name = format!("/v2/{}/blobs/uploads/", "a".repeat(256));
    assert_eq!(rhub.send("POST", &long_name, &[], b"").error(), error(400, "NAME_INVALID"));
}

#[test]
fn many_overlapping_ranges_cost_no_more_than_the_whole() {
    let (_dir, rhub) = rhub();
    let digest = rhub.push_blob("a", &vec![7; 100_000]);
    let ranges = format!("bytes={}", vec!["0-"; 1000].join(","));
    let reply = rhub.send("GET", &format!("/v2/a/blobs/{digest}"), &[("range", &ranges)], b"");
    assert_eq!((reply.status, reply.body.len()), (200, 100_000));
}

#[test]
fn a_request_of_two_lengths_is_not_smuggled() {
    let (_dir, rhub) = rhub();
    let location = rhub.start_upload("a");
    for framing in [
        "content-length: 4\r\ncontent-length: 60\r\n",
        "content-length: 4\r\ntransfer-encoding: identity, chunked, identity\r\n",
        "transfer-encoding: xchunked\r\n",
    ] {
        let request =
            format!("PATCH {location} HTTP/1.1\r\nhost: x\r\n{framing}\r\n0\r\n\r\nGET /v2/_catalog HTTP/1.1\r\nhost: x\r\n\r\n");
        let mut connection = rhub.raw(&request);
        connection.shutdown(std::net::Shutdown::Write).unwrap();
        let mut bytes = Vec::new();
        let _ = connection.read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("repositories"), "{framing}: {text}");
    }
}

/// hyper frames by the chunks, as RFC 9112 section 6.3 has it, and drops the length before anyone sees it.
#[test]
fn a_length_beside_chunks_does_not_count() {
    let (_dir, rhub) = rhub();
    let chunked = "transfer-encoding: chunked\r\n";
    for framing in [format!("content-length: 60\r\n{chunked}"), format!("{chunked}content-length: 1\r\n")] {
        let location = rhub.start_upload("a");
        let body = "3\r\nabc\r\n0\r\n\r\n";
        let head = format!("PATCH {location} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{framing}\r\n{body}");
        assert!(Reply::read(rhub.raw(&head)).is_some_and(|reply| matches!(reply.status, 202 | 400)), "{framing}");
        assert!(matches!(rhub.get(&location).header("range"), "0-2" | "0-0"), "{framing}");
    }
}

#[test]
fn headers_without_end_are_refused() {
    let (_dir, rhub) = rhub();
    let many = "x-a: b\r\n".repeat(1000);
    let reply = Reply::read(rhub.raw(&format!("GET /v2/ HTTP/1.1\r\nhost: x\r\n{many}\r\n"))).unwrap();
    assert_eq!(reply.status, 431);
    let large = format!("GET /v2/ HTTP/1.1\r\nhost: x\r\nx-a: {}\r\n\r\n", "b".repeat(1 << 20));
    let mut connection = std::net::TcpStream::connect(&rhub.address).unwrap();
    let _ = connection.write_all(large.as_bytes());
    assert!(Reply::read(connection).is_none_or(|reply| reply.status == 431));
    assert_eq!(rhub.get("/v2/").status, 200);
}

#[test]
fn what_is_no_manifest_is_refused() {
    let (_dir, rhub) = rhub();
    rhub.push_image("a", "t", "layer");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let nested = format!(r#"{{"schemaVersion":2,"x":{deep}}}"#);
    let schema1 = r#"{"schemaVersion":1,"name":"a","fsLayers":[]}"#;
    for bad in ["", "{}", "null", "\u{1b}[2J", &deep, &nested, schema1, &image_manifest(b"{}", b"layer")[1..]] {
        assert_eq!(rhub.put_manifest("a", "x", OCI_MANIFEST, bad.as_bytes()).error(), error(400, "MANIFEST_INVALID"));
    }
    assert_eq!(rhub.put_manifest("a", ".x", OCI_MANIFEST, image_manifest(b"{}", b"layer").as_bytes()).status, 400);
}

#[test]
fn an_address_others_can_reach_needs_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let mut refused = std::process::Command::new(env!("CARGO_BIN_EXE_rhub"));
    let output = refused.args(["serve", "--listen", "0.0.0.0:0", "--data"]).arg(dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("--insecure"), "{said}");
}

#[test]
fn an_error_inside_does_not_tell_of_the_inside() {
    let (dir, rhub) = rhub();
    let digest = rhub.push_blob("a", b"content");
    let hex = digest.hex();
    std::fs::remove_file(dir.path().join("blobs/sha256").join(&hex[..2]).join(hex)).unwrap();
    let reply = rhub.get(&format!("/v2/a/blobs/{digest}"));
    assert_eq!(reply.error(), error(500, "UNKNOWN"));
    assert!(!String::from_utf8_lossy(&reply.body).contains(dir.path().to_str().unwrap()));
    rhub.push_blob("a", b"content");
    assert_eq!(rhub.get(&format!("/v2/a/blobs/{digest}")).body, b"content", "pushing it again heals it");
}

#[test]
fn the_list_of_what_is_tested_names_tests_there_are() {
    let server = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = std::fs::read_to_string(server.join("../docs/security.md")).unwrap();
    let named: Vec<_> = list.split('`').filter_map(|word| word.split_once("::")).filter(|(_, name)| *name != "name").collect();
    assert!(named.len() > 25, "{named:?}");
    for (file, name) in named {
        let path = if file.contains('/') { format!("{file}.rs") } else { format!("tests/{file}.rs") };
        let text = std::fs::read_to_string(server.join(&path)).unwrap();
        assert!(text.contains(&format!("fn {name}(")), "{path} has no {name}");
    }
}
