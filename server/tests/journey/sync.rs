//! Repositories and layouts brought to where others stand, tag by tag.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::common::needs::installed;
use super::common::proxy::{Fault, Proxy, Weather};
use super::common::{OCI_MANIFEST, Rhub, image_manifest};
use super::copy::{DockerRegistry, host_index};
use super::tools::User;

/// A repository of some tags, and a registry to bring them to, each behind a proxy that counts.
struct Mirror {
    from: Rhub,
    to: Rhub,
    from_proxy: Proxy,
    to_proxy: Proxy,
    user: User,
    _data: [tempfile::TempDir; 2],
}

impl Mirror {
    fn new(tags: &[&str]) -> Self {
        let data = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let (from, to) = (Rhub::start(data[0].path()), Rhub::start(data[1].path()));
        for tag in tags {
            from.push_image("team/app", tag, tag);
        }
        let proxies = [&from, &to].map(|rhub| Proxy::start(&rhub.address, Weather::default()));
        let [from_proxy, to_proxy] = proxies;
        Self { from, to, from_proxy, to_proxy, user: User::new(), _data: data }
    }

    fn source(&self) -> String {
        format!("docker://{}/team/app", self.from_proxy.address)
    }

    fn destination(&self) -> String {
        format!("docker://{}/mirror/of", self.to_proxy.address)
    }

    /// What a sync with these flags says, a line each.
    fn sync(&self, flags: &[&str]) -> Vec<String> {
        let (source, destination) = (self.source(), self.destination());
        let said = self.user.succeed("rbox", &[&["sync", "-q"], flags, &[&source, &destination]].concat());
        said.lines().map(str::to_owned).collect()
    }

    fn requests(&self) -> [Vec<String>; 2] {
        let of = |proxy: &Proxy| proxy.passed().iter().map(|passed| format!("{} {}", passed.method, passed.path)).collect();
        [of(&self.from_proxy), of(&self.to_proxy)]
    }
}

fn digest(tag: &str) -> String {
    let manifest = image_manifest(b"{}", tag.as_bytes());
    longshore_runtime::name::Digest::of(manifest.as_bytes()).to_string()
}

/// The tags of a repository, and the digest of each.
fn tags(rhub: &Rhub, repository: &str) -> BTreeMap<String, String> {
    let list = rhub.get(&format!("/v2/{repository}/tags/list"));
    if list.status == 404 {
        return BTreeMap::new();
    }
    let list = list.json();
    let names = list["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned());
    let digest = |tag: &str| rhub.get(&format!("/v2/{repository}/manifests/{tag}")).header("docker-content-digest").to_owned();
    names.map(|tag| (tag.clone(), digest(&tag))).collect()
}

#[test]
fn what_changed_is_said_and_done_and_nothing_else() {
    let mirror = Mirror::new(&["1.0.0", "1.1.0", "2.0.0", "latest"]);
    let plus = |tag: &str| format!("+ {tag} {}", digest(tag));
    let all = [plus("1.0.0"), plus("1.1.0"), plus("2.0.0"), plus("latest"), "= 0 unchanged".into()];
    assert_eq!(mirror.sync(&["--dry-run"]), all);
    assert_eq!(tags(&mirror.to, "mirror/of/app"), BTreeMap::new(), "nothing is changed by a dry run");
    assert!(mirror.requests()[1].iter().all(|request| request.starts_with("HEAD ")), "{:?}", mirror.requests()[1]);
    assert_eq!(mirror.sync(&[]), all);
    assert_eq!(tags(&mirror.to, "mirror/of/app"), tags(&mirror.from, "team/app"));

    // Once more: a question each.
    let [from, to] = mirror.requests();
    assert_eq!(mirror.sync(&[]), ["= 4 unchanged"]);
    let [from_now, to_now] = mirror.requests();
    let (from, to) = (&from_now[from.len()..], &to_now[to.len()..]);
    let heads = |requests: &[String]| requests.iter().filter(|request| request.starts_with("HEAD ")).count();
    assert_eq!((heads(from), from.len(), heads(to), to.len()), (4, 5, 4, 4), "{from:?} {to:?}");

    // One moves, one comes, one goes.
    mirror.from.push_image("team/app", "latest", "2.0.0");
    mirror.from.push_image("team/app", "3.0.0", "3.0.0");
    mirror.from.send("DELETE", "/v2/team/app/manifests/1.0.0", &[], b"");
    let moved = format!("~ latest {} -> {}", digest("latest"), digest("2.0.0"));
    assert_eq!(mirror.sync(&[]), [plus("3.0.0"), moved, "= 2 unchanged".into()]);
    assert!(tags(&mirror.to, "mirror/of/app").contains_key("1.0.0"), "nothing goes unless that is asked for");
    let gone = [format!("- 1.0.0 {}", digest("1.0.0")), "= 4 unchanged".into()];
    assert_eq!(mirror.sync(&["--delete", "--dry-run"]), gone);
    assert!(tags(&mirror.to, "mirror/of/app").contains_key("1.0.0"));
    assert_eq!(mirror.sync(&["--delete"]), gone);
    assert_eq!(tags(&mirror.to, "mirror/of/app"), tags(&mirror.from, "team/app"));
}

#[test]
fn only_the_tags_that_are_meant() {
    let mirror = Mirror::new(&["1.0.0", "v1.1.0", "1.2.0-rc.1", "2.0.0", "latest", "edge"]);
    let meant = |flags: &[&str]| -> Vec<String> {
        let said = mirror.sync(&[&["--dry-run"], flags].concat());
        said.iter().filter_map(|line| Some(line.strip_prefix("+ ")?.split(' ').next()?.to_owned())).collect()
    };
    assert_eq!(meant(&["--semver", "^1"]), ["1.0.0", "v1.1.0"]);
    assert_eq!(meant(&["--include", "*.0", "--exclude", "2*"]), ["1.0.0", "v1.1.0"]);
    assert_eq!(meant(&["--regex", "^[a-z]+$"]), ["edge", "latest"]);
    assert_eq!(meant(&["--regex", "^[a-z]+$", "--exclude", "l*"]), ["edge"]);
    for bad in [["--regex", "("], ["--semver", "one"], ["--include", ""]] {
        mirror.user.fail("rbox", &["sync", bad[0], bad[1], &mirror.source(), &mirror.destination()]);
    }
    // What is not meant is not taken away, either.
    mirror.sync(&[]);
    mirror.from.send("DELETE", "/v2/team/app/manifests/edge", &[], b"");
    mirror.from.send("DELETE", "/v2/team/app/manifests/latest", &[], b"");
    assert_eq!(mirror.sync(&["--delete", "--include", "e*"]), [format!("- edge {}", digest("edge")), "= 0 unchanged".into()]);
}

#[test]
fn one_image_of_each_index_or_all() {
    let mirror = Mirror::new(&[]);
    let (own, _, index) = host_index(&mirror.from, "team/app", "1");
    let own_digest = own.manifest.digest().to_string();
    assert_eq!(mirror.sync(&[]), [format!("+ 1 {own_digest}"), "= 0 unchanged".into()]);
    assert_eq!(mirror.sync(&[]), ["= 1 unchanged"]);
    assert_eq!(mirror.sync(&["--all"]), [format!("~ 1 {own_digest} -> {}", index.digest()), "= 0 unchanged".into()]);
    assert_eq!(mirror.sync(&["--all"]), ["= 1 unchanged"]);
    assert_eq!(tags(&mirror.to, "mirror/of/app"), tags(&mirror.from, "team/app"));
}

#[test]
fn what_the_destination_has_its_mirrors_do_not_say() {
    let mirror = Mirror::new(&["1"]);
    mirror.from.push_image("mirror/of/app", "1", "1");
    let directory = mirror.user.home().join(".config/longshore");
    std::fs::create_dir_all(&directory).unwrap();
    let settings = format!("[\"{}\"]\nmirrors = [\"http://{}\"]\n", mirror.to_proxy.address, mirror.from.address);
    std::fs::write(directory.join("registries.toml"), settings).unwrap();
    assert_eq!(mirror.sync(&[]), [format!("+ 1 {}", digest("1")), "= 0 unchanged".into()]);
    assert_eq!(mirror.sync(&[]), ["= 1 unchanged"]);
}

/// The tag under which cosign keeps signatures of what a tag stands for.
fn signatures_of(tag: &str) -> String {
    format!("{}.sig", digest(tag).replace(':', "-"))
}

/// Puts a manifest of signatures, each a layer.
fn put_signatures(rhub: &Rhub, repository: &str, of: &str, signatures: &[&str]) {
    rhub.push_blob(repository, b"{}");
    let mut manifest: Value = serde_json::from_str(&image_manifest(b"{}", b"")).unwrap();
    let layer = |signature: &&str| {
        rhub.push_blob(repository, signature.as_bytes());
        let digest = longshore_runtime::name::Digest::of(signature.as_bytes());
        json!({ "mediaType": "text/plain", "digest": digest, "size": signature.len(), "annotations": { "of": of } })
    };
    manifest["layers"] = signatures.iter().map(layer).collect();
    let put = rhub.put_manifest(repository, &signatures_of(of), OCI_MANIFEST, manifest.to_string().as_bytes());
    assert_eq!(put.status, 201);
}

/// The signatures in a repository of what a tag stands for.
fn signatures(rhub: &Rhub, repository: &str, of: &str) -> Vec<String> {
    let manifest = rhub.get(&format!("/v2/{repository}/manifests/{}", signatures_of(of))).json();
    let layers = manifest["layers"].as_array().unwrap();
    let blob = |layer: &Value| rhub.get(&format!("/v2/{repository}/blobs/{}", layer["digest"].as_str().unwrap())).body;
    layers.iter().map(|layer| String::from_utf8(blob(layer)).unwrap()).collect()
}

#[test]
fn signatures_of_both_sides_stay() {
    let mirror = Mirror::new(&["1", "2"]);
    let to = "mirror/of/app";
    mirror.sync(&[]);
    put_signatures(&mirror.from, "team/app", "1", &["the maker's", "of both"]);
    put_signatures(&mirror.to, to, "1", &["the mirror's", "of both"]);
    put_signatures(&mirror.to, to, "2", &["the mirror's"]);
    let tag = signatures_of("1");

    // As a tag among others.
    let said = mirror.sync(&[]);
    let now = tags(&mirror.to, to)[&tag].clone();
    assert!(said[0].starts_with(&format!("~ {tag} ")) && said[0].ends_with(&now), "{said:?}");
    let all = ["the mirror's", "of both", "the maker's"];
    assert_eq!(signatures(&mirror.to, to, "1"), all);
    assert_eq!(mirror.sync(&[]), ["= 3 unchanged"]);

    // As what refers to an image, also to one that is there, and into a layout.
    put_signatures(&mirror.to, to, "1", &all[..1]);
    let only = ["--include", "1", "--referrers"];
    let brought = format!("& 1 {} 1", digest("1"));
    assert_eq!(mirror.sync(&[&only[..], &["--dry-run"]].concat()), [&brought, "= 0 unchanged"]);
    assert_eq!(signatures(&mirror.to, to, "1"), all[..1]);
    assert_eq!(mirror.sync(&only), [&brought, "= 0 unchanged"]);
    assert_eq!(signatures(&mirror.to, to, "1"), ["the mirror's", "the maker's", "of both"]);
    assert_eq!(mirror.sync(&only), ["= 1 unchanged"]);
    let layout = format!("oci:{}", mirror.user.home().join("layout").display());
    let back = format!("docker://{}/back/again", mirror.to.address);
    let from = format!("docker://{}/{to}", mirror.to.address);
    let run = |arguments: &[&str]| mirror.user.succeed("rbox", &[&["sync", "-q"], arguments].concat());
    put_signatures(&mirror.to, to, "1", &all[..1]);
    for source in [mirror.source(), from] {
        run(&[&only[..], &[&source, &layout]].concat());
        assert_eq!(run(&[&only[..], &[&source, &layout]].concat()), "= 1 unchanged\n");
    }
    run(&[&only[..], &[&layout, &back]].concat());
    assert_eq!(signatures(&mirror.to, "back/again", "1"), ["the maker's", "of both", "the mirror's"]);

    // They go with their subject, not before.
    let kept = signatures_of("2");
    mirror.sync(&[]);
    assert_eq!(mirror.sync(&["--delete"]).last().unwrap(), "= 3 unchanged");
    assert!(tags(&mirror.to, to).contains_key(&kept));
    mirror.to.send("DELETE", &format!("/v2/{to}/manifests/{}", digest("2")), &[], b"");
    mirror.from.send("DELETE", "/v2/team/app/manifests/2", &[], b"");
    let said = mirror.sync(&["--delete"]);
    assert!(said[0].starts_with(&format!("- {kept} ")), "{said:?}");
    assert!(!tags(&mirror.to, to).contains_key(&kept));
}

#[test]
fn to_a_layout_and_back() {
    let mirror = Mirror::new(&["1", "2", "3"]);
    let layout = format!("oci:{}", mirror.user.home().join("layout").display());
    let sync = |arguments: &[&str]| mirror.user.succeed("rbox", &[&["sync", "-q"], arguments].concat());
    let source = mirror.source();
    let back = format!("docker://{}/back/again", mirror.to.address);
    assert_eq!(sync(&["--dry-run", &source, &layout]).lines().count(), 4);
    assert!(!mirror.user.home().join("layout").exists());
    assert_eq!(sync(&[&source, &layout]).lines().count(), 4);
    assert_eq!(sync(&[&source, &layout]), "= 3 unchanged\n");
    assert_eq!(sync(&[&layout, &back]).lines().count(), 4);
    assert_eq!(sync(&[&layout, &back]), "= 3 unchanged\n");
    assert_eq!(tags(&mirror.to, "back/again"), tags(&mirror.from, "team/app"));
    mirror.from.send("DELETE", "/v2/team/app/manifests/2", &[], b"");
    assert_eq!(sync(&["--delete", &source, &layout]), format!("- 2 {}\n= 2 unchanged\n", digest("2")));
    assert_eq!(sync(&["--delete", &layout, &back]), format!("- 2 {}\n= 2 unchanged\n", digest("2")));
    assert_eq!(tags(&mirror.to, "back/again"), tags(&mirror.from, "team/app"));
}

#[test]
fn one_that_fails_stops_no_other() {
    let mirror = Mirror::new(&["1", "2", "3"]);
    let broken = longshore_runtime::name::Digest::of(b"2");
    let only = Some(format!("/v2/team/app/blobs/{broken}"));
    mirror.from_proxy.set(|weather| {
        *weather = Weather { faults: vec![Fault::WrongByte], blob_faults: 1000, only, ..Weather::default() };
    });
    let arguments = ["sync", "-q", "--format", "json", &mirror.source(), &mirror.destination()];
    let output = mirror.user.output("rbox", &arguments);
    assert_eq!(output.status.code(), Some(1));
    let lines: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let changes: Vec<_> = lines.iter().map(|line| line["change"].as_str().unwrap_or_default()).collect();
    assert_eq!(changes, ["added", "failed", "added", ""]);
    assert_eq!(lines[0]["digest"], digest("1"));
    assert!(lines[1]["error"].as_str().unwrap().contains("does not match"), "{}", lines[1]);
    assert!(lines[3]["unchanged"] == 0);
    assert_eq!(tags(&mirror.to, "mirror/of/app").into_keys().collect::<Vec<_>>(), ["1", "3"]);
    assert!(
        mirror
            .user
            .fail("rbox", &["sync", &format!("{}/absent", mirror.source()), &mirror.destination()])
            .contains("no such repository")
    );
}

#[test]
fn where_a_registry_removes_no_tag_alone_no_others_manifest_goes() {
    if !installed("docker-registry") {
        return;
    }
    let mirror = Mirror::new(&["1", "2", "3"]);
    let peer = DockerRegistry::start();
    mirror.from.put_manifest("team/app", "same", OCI_MANIFEST, image_manifest(b"{}", b"1").as_bytes());
    let to = format!("docker://{}/copy", peer.address);
    let sync = |flags: &[&str]| mirror.user.output("rbox", &[&["sync", "-q"], flags, &[&mirror.source(), &to]].concat());
    assert!(sync(&[]).status.success());
    for gone in ["1", "2"] {
        mirror.from.send("DELETE", &format!("/v2/team/app/manifests/{gone}"), &[], b"");
    }
    sync(&["--delete"]);
    let output = sync(&[]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "= 2 unchanged\n", "what `same` and `3` stand for is there");
}
