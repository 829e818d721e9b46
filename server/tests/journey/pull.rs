//! Pulling: resuming, verifying, refusing, and what is left when it fails.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use longshore_runtime::name::{Digest, Platform};
use serde_json::json;

use super::common::Rhub;
use super::common::needs::root;
use super::double::{Answer, Double};
use super::image::{Blob, INDEX, Image, gzip, tar};
use super::tools::{User, stderr};

fn small() -> Image {
    Image::new(&[tar(&[("a", b"lower"), ("b", b"kept")]), tar(&[(".wh.b", b""), ("c", b"upper")])])
}

#[test]
fn a_tag_moves_and_the_old_image_stays_until_it_is_removed() {
    let (double, user) = (Double::start(), User::new());
    let name = format!("{}/team/app:1", double.address);
    double.host("team/app", "1", &small());
    let first = user.succeed("rpull", &[&name]);
    assert!(first.contains("Downloaded newer image"), "{first}");
    assert!(user.succeed("rpull", &[&name]).contains("Image is up to date"));
    double.host("team/app", "1", &Image::new(&[tar(&[("a", b"other")])]));
    assert!(user.succeed("rpull", &[&name]).contains("Downloaded newer image"));
    let images = user.succeed("rbox", &["images"]);
    assert_eq!(images.lines().count(), 3, "{images}");
    assert!(images.contains("<none>"), "{images}");
    let ids = user.succeed("rbox", &["images", "-q"]);
    for id in ids.lines() {
        user.succeed("rbox", &["rmi", id]);
    }
    assert_eq!(user.check_store(), (vec![], vec![]), "with the last image goes the last blob and layer");
}

#[test]
fn docker_hub_is_served_by_the_host_the_configuration_names() {
    let (double, user) = (Double::start(), User::new());
    user.use_for_docker_hub(&double.address);
    double.host("library/mysql", "5.7", &small());
    let said = user.succeed("rpull", &["mysql:5.7"]);
    assert!(said.contains("Downloaded newer image for mysql:5.7\ndocker.io/library/mysql:5.7"), "{said}");
    assert!(user.succeed("rbox", &["images"]).contains("mysql"));
}

#[test]
fn the_platform_is_chosen_from_an_index_and_a_missing_one_is_named() {
    let (double, user) = (Double::start(), User::new());
    let entry = |image: &Image, architecture: &str| {
        let mut entry = image.manifest.descriptor();
        entry["platform"] = json!({ "os": "linux", "architecture": architecture });
        entry
    };
    let image_for = |architecture: &str, content: &[u8]| {
        let plain = tar(&[("a", content)]);
        let layer = Blob { media_type: "application/vnd.oci.image.layer.v1.tar", bytes: plain.clone() };
        Image::from_parts(vec![layer], vec![Digest::of(&plain)], &format!("linux/{architecture}").parse::<Platform>().unwrap())
    };
    let host = Platform::host().architecture;
    let (ours, other) = (image_for(&host, b"ours"), image_for("s390x", b"other"));
    double.host("app", "ours", &ours);
    double.host("app", "other", &other);
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry(&other, "s390x"), entry(&ours, &host)] });
    double.on("/v2/app/manifests/1", Answer::new(200, index.to_string()).header("content-type", INDEX));
    let name = format!("{}/app:1", double.address);
    user.succeed("rpull", &[&name]);
    let inspected = user.succeed("rbox", &["inspect", &name]);
    assert!(inspected.contains(&format!("\"Architecture\": \"{host}\"")), "{inspected}");
    assert!(inspected.contains(Digest::of(index.to_string().as_bytes()).as_str()), "RepoDigests name the index: {inspected}");
    user.succeed("rpull", &["--platform", "linux/s390x", &name]);
    assert!(user.succeed("rbox", &["inspect", &name]).contains("s390x"));
    let said = user.fail("rpull", &["--platform", "linux/riscv64", &name]);
    assert!(said.contains("riscv64") && said.contains("linux/s390x"), "{said}");

    user.succeed("rbox", &["rmi", &name]);
    user.succeed("rpull", &["--all-platforms", &name]);
    assert!(user.succeed("rbox", &["inspect", &name]).contains(&format!("\"Architecture\": \"{host}\"")));
    let pinned = format!("{}/app@{}", double.address, other.manifest.digest());
    assert!(user.succeed("rbox", &["inspect", &pinned]).contains("s390x"));
    assert!(user.fail("rpull", &["--all-platforms", "--platform", "linux/s390x", &name]).contains("cannot be used with"));
}

#[test]
fn a_download_that_breaks_goes_on_where_it_stopped() {
    let (double, user) = (Double::start(), User::new());
    let image = Image::bulky(1, 4, 500_000);
    double.host("app", "1", &image);
    let layer = &image.layers[0];
    let path = format!("/v2/app/blobs/{}", layer.digest());
    let mut answer = Answer::new(200, layer.bytes.clone());
    answer.cut = Some((300_000, 3));
    double.on(&path, answer);
    user.succeed("rpull", &[&format!("{}/app:1", double.address)]);
    let sent: usize = double.requests().iter().filter(|request| request.path == path).map(|request| request.answered_bytes).sum();
    assert_eq!(sent, layer.bytes.len(), "no byte travels twice");
    user.check_store();
}

#[test]
fn a_download_that_gives_up_is_resumed_by_the_next_pull() {
    let (double, user) = (Double::start(), User::new());
    let image = Image::bulky(2, 4, 500_000);
    double.host("app", "1", &image);
    let path = format!("/v2/app/blobs/{}", image.layers[0].digest());
    let whole = Answer::new(200, image.layers[0].bytes.clone());
    // The first connection brings some bytes, the next ones none.
    double.on(&path, Answer { cut: Some((700_000, 1)), ..whole.clone() });
    let name = format!("{}/app:1", double.address);
    let pulling = user.command("rpull", &[&name]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(|| double.requests().iter().any(|request| request.path == path));
    double.on(&path, Answer { cut: Some((0, u32::MAX)), ..whole.clone() });
    let output = pulling.wait_with_output().unwrap();
    let resumed_in_time = output.status.success();
    assert!(resumed_in_time || stderr(&output).contains("run it again to resume"), "{}", stderr(&output));
    user.check_store();
    double.on(&path, whole);
    user.succeed("rpull", &[&name]);
    let sent: usize = double.requests().iter().filter(|request| request.path == path).map(|request| request.answered_bytes).sum();
    assert_eq!(sent, image.layers[0].bytes.len(), "no byte travels twice");
}

#[test]
fn a_pull_killed_at_fifty_moments_is_resumed_and_the_store_is_whole() {
    let (data, user) = (tempfile::tempdir().unwrap(), User::new());
    let rhub = Rhub::start(data.path());
    let layouts = tempfile::tempdir().unwrap();
    let image = Image::new(
        &(0..4)
            .map(|n| {
                let bulk = Image::bulky(n, 60, 40_000);
                let mut plain = Vec::new();
                std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&bulk.layers[0].bytes[..]), &mut plain).unwrap();
                plain
            })
            .collect::<Vec<_>>(),
    );
    image.write_layout(layouts.path(), "1");
    let name = format!("{}/app:1", rhub.address);
    user.succeed("rpush", &[&format!("oci:{}", layouts.path().display()), &name]);

    let started = Instant::now();
    user.succeed("rpull", &[&name]);
    let whole = started.elapsed();
    let expected = user.check_store();
    user.succeed("rbox", &["rmi", &name]);
    for moment in 0..50 {
        let mut pulling = user.command("rpull", &["-q", &name]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Moments spread over a whole pull and a little beyond.
        let deadline = Instant::now() + whole.mul_f64(f64::from(moment) / 45.0);
        while Instant::now() < deadline && pulling.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        pulling.kill().unwrap();
        pulling.wait().unwrap();
        if moment % 5 == 0 {
            user.succeed("rpull", &["-q", &name]);
            assert_eq!(user.check_store(), expected, "after kill number {moment}");
            user.succeed("rbox", &["rmi", &name]);
        }
    }
    user.succeed("rpull", &[&name]);
    assert_eq!(user.check_store(), expected);
    assert_eq!(std::fs::read_dir(user.store().join("partial")).unwrap().count(), 0, "nothing is left half-downloaded");
}

#[test]
fn pulls_of_the_same_image_at_the_same_time_fetch_it_once() {
    let (double, user) = (Double::start(), User::new());
    let image = Image::bulky(3, 8, 400_000);
    double.host("app", "1", &image);
    let name = format!("{}/app:1", double.address);
    user.succeed("rbox", &["images"]);
    let pulls: Vec<_> =
        (0..4).map(|_| user.command("rpull", &[&name]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()).collect();
    for pull in pulls {
        let output = pull.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let path = format!("/v2/app/blobs/{}", image.layers[0].digest());
    assert_eq!(double.requests().iter().filter(|request| request.path == path).count(), 1);
    user.check_store();
}

#[test]
fn a_pull_of_what_is_here_costs_one_head_and_of_a_pinned_digest_nothing() {
    let (double, user) = (Double::start(), User::new());
    let image = small();
    double.host("app", "1", &image);
    let digest = image.manifest.digest();
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [{
        "mediaType": image.manifest.media_type, "digest": digest, "size": image.manifest.bytes.len(),
        "platform": { "os": "linux", "architecture": Platform::host().architecture },
    }] });
    let index_digest = Digest::of(index.to_string().as_bytes());
    let told = |answer: Answer, digest: &Digest| answer.header("docker-content-digest", digest.as_str());
    let manifest = Answer::new(200, image.manifest.bytes.clone()).header("content-type", image.manifest.media_type);
    double.on("/v2/app/manifests/1", told(manifest, &digest));
    double.on("/v2/app/manifests/all", told(Answer::new(200, index.to_string()).header("content-type", INDEX), &index_digest));
    let asked_for = |tag: &str| {
        let name = format!("{}/app:{tag}", double.address);
        user.succeed("rpull", &[&name]);
        let before = double.requests().len();
        assert!(user.succeed("rpull", &[&name]).contains("Image is up to date"));
        double.requests()[before..].iter().map(|request| format!("{} {}", request.method, request.path)).collect::<Vec<_>>()
    };
    assert_eq!(asked_for("1"), ["HEAD /v2/app/manifests/1"]);
    assert_eq!(asked_for("all"), ["HEAD /v2/app/manifests/all"]);

    let before = double.requests().len();
    user.succeed("rpull", &[&format!("{}/app@{digest}", double.address)]);
    assert_eq!(double.requests().len(), before, "a digest stands for what is here");

    // Who knows no HEAD, or says no digest, is asked for the manifest.
    double.on("HEAD /v2/app/manifests/1", Answer::new(405, ""));
    assert_eq!(asked_for("1"), ["HEAD /v2/app/manifests/1", "GET /v2/app/manifests/1"]);
    double.on("HEAD /v2/app/manifests/1", Answer::new(200, ""));
    assert_eq!(asked_for("1"), ["HEAD /v2/app/manifests/1", "GET /v2/app/manifests/1"]);
}

/// Writes that `registry` has these mirrors.
fn use_mirrors(user: &User, registry: &str, mirrors: &[&str]) {
    let dir = user.home().join(".config/longshore");
    std::fs::create_dir_all(&dir).unwrap();
    let urls: Vec<String> = mirrors.iter().map(|address| format!("\"http://{address}\"")).collect();
    std::fs::write(dir.join("registries.toml"), format!("[\"{registry}\"]\nmirrors = [{}]\n", urls.join(", "))).unwrap();
}

#[test]
fn the_first_mirror_that_has_it_is_used_and_the_registry_where_none_has() {
    let (registry, user) = (Double::start(), User::new());
    let (empty, broken, good) = (Double::start(), Double::start(), Double::start());
    let refusing = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let image = small();
    for host in [&registry, &good] {
        host.host("app", "1", &image);
    }
    broken.on("/v2/app/manifests/1", Answer::new(503, ""));
    use_mirrors(&user, &registry.address, &[&refusing, &empty.address, &broken.address, &good.address]);
    let name = format!("{}/app:1", registry.address);
    user.succeed("rpull", &[&name]);
    assert_eq!(registry.requests().len(), 0, "a mirror has it all");
    assert!(empty.requests().len() > 1 && broken.requests().len() == 1, "who is down is asked once");

    // One layer is not there, another is something else.
    user.succeed("rbox", &["rmi", &name]);
    let path = |at: usize| format!("/v2/app/blobs/{}", image.layers[at].digest());
    good.on(path(0), Answer::new(404, ""));
    let mut wrong = image.layers[1].bytes.clone();
    *wrong.last_mut().unwrap() ^= 1;
    good.on(path(1), Answer::new(200, wrong));
    user.succeed("rpull", &[&name]);
    user.check_store();
    let asked = || registry.requests().into_iter().map(|request| request.path).collect::<BTreeSet<_>>();
    assert_eq!(asked(), BTreeSet::from([path(0), path(1)]));

    // It is cut off.
    user.succeed("rbox", &["rmi", &name]);
    let config = format!("/v2/app/blobs/{}", image.config.digest());
    good.on(&config, Answer { cut: Some((0, u32::MAX)), ..Answer::new(200, image.config.bytes.clone()) });
    user.succeed("rpull", &[&name]);
    user.check_store();
    assert!(asked().contains(&config));
}

#[test]
fn credentials_are_each_hosts_own_and_never_cross() {
    // Other addresses: other hosts.
    let (registry, mirror) = (Double::start(), Double::start_on("127.0.0.3:0"));
    let user = User::new();
    let docker = user.home().join(".docker");
    std::fs::create_dir(&docker).unwrap();
    let auths = json!({ "auths": {
        registry.address.clone(): { "auth": "cmVnaXN0cnk6b25l" }, mirror.address.clone(): { "auth": "bWlycm9yOnR3bw==" },
    } });
    std::fs::write(docker.join("config.json"), auths.to_string()).unwrap();
    use_mirrors(&user, &registry.address, &[&mirror.address]);
    for host in [&registry, &mirror] {
        let challenge = Answer::new(401, "").header("www-authenticate", "Basic realm=\"x\"");
        host.on("/v2/app/manifests/1", challenge);
    }
    user.fail("rpull", &[&format!("{}/app:1", registry.address)]);
    let sent = |host: &Double| -> Vec<String> {
        host.requests().into_iter().filter_map(|mut request| request.headers.remove("authorization")).collect()
    };
    assert_eq!(sent(&registry), ["Basic cmVnaXN0cnk6b25l"]);
    assert_eq!(sent(&mirror), ["Basic bWlycm9yOnR3bw=="]);
}

/// Asserts that pulling fails with `expected` in the message and leaves no image and no layer.
fn refused(double: &Double, user: &User, reference: &str, expected: &str) {
    let said = user.fail("rpull", &[&format!("{}/{reference}", double.address)]);
    assert!(said.contains(expected), "expected {expected:?} in: {said}");
    assert!(!said.contains('\u{1b}'), "an escape reached the terminal: {said:?}");
    assert_eq!(user.check_store().1, Vec::<String>::new(), "no layer is visible");
    assert_eq!(user.succeed("rbox", &["images", "-q"]), "");
}

#[test]
fn content_that_is_not_what_its_digest_promises_is_refused() {
    let (double, user) = (Double::start(), User::new());
    let image = small();
    double.host("app", "1", &image);
    let blob = format!("/v2/app/blobs/{}", image.layers[0].digest());
    let good = image.layers[0].bytes.clone();

    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    double.on(&blob, Answer::new(200, flipped));
    refused(&double, &user, "app:1", "does not match its digest");

    double.on(&blob, Answer::new(200, gzip(&tar(&[("evil", b"x")])).into_iter().cycle().take(good.len()).collect::<Vec<_>>()));
    refused(&double, &user, "app:1", "does not match its digest");

    double.on(&blob, Answer::new(200, &good[..good.len() / 2]));
    refused(&double, &user, "app:1", "bytes are here");

    // What was wrong is not kept: the next pull of the right bytes succeeds.
    double.on(&blob, Answer::new(200, good));
    user.succeed("rpull", &[&format!("{}/app:1", double.address)]);
}

#[test]
fn ghsa_qv35_a_pinned_digest_is_checked_on_the_body_not_on_a_header() {
    let (double, user) = (Double::start(), User::new());
    let (wanted, other) = (small(), Image::new(&[tar(&[("evil", b"x")])]));
    double.host("app", "other", &other);
    let digest = wanted.manifest.digest();
    let lie = Answer::new(200, other.manifest.bytes.clone())
        .header("content-type", other.manifest.media_type)
        .header("docker-content-digest", digest.as_str());
    double.on(format!("/v2/app/manifests/{digest}"), lie);
    refused(&double, &user, &format!("app@{digest}"), "does not match its digest");
}

#[test]
fn an_image_that_lies_about_itself_is_refused() {
    let (double, user) = (Double::start(), User::new());
    let plain = tar(&[("a", b"x")]);
    let layer = |bytes: Vec<u8>| Blob { media_type: "application/vnd.oci.image.layer.v1.tar+gzip", bytes };
    let host = |tag: &str, layers: Vec<Blob>, diff_ids: Vec<Digest>| {
        double.host("app", tag, &Image::from_parts(layers, diff_ids, &Platform::host()));
    };

    host("diffid", vec![layer(gzip(&plain))], vec![Digest::of(b"something else")]);
    refused(&double, &user, "app:diffid", "DiffID of layer");
    host("count", vec![layer(gzip(&plain))], vec![]);
    refused(&double, &user, "app:count", "1 layers and 0 DiffIDs");
    let mut corrupt = gzip(&plain);
    corrupt[20] ^= 0xff;
    host("gzip", vec![layer(corrupt)], vec![Digest::of(&plain)]);
    refused(&double, &user, "app:gzip", "is not usable");
    let mut cut = gzip(&plain);
    cut.truncate(cut.len() - 9);
    host("cut", vec![layer(cut)], vec![Digest::of(&plain)]);
    refused(&double, &user, "app:cut", "is not usable");
    host("text", vec![layer(b"not an archive at all, whatever it says".repeat(40))], vec![Digest::of(b"")]);
    refused(&double, &user, "app:text", "is not usable");
}

#[test]
fn hostile_archives_write_nothing_outside_their_layer() {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let (double, user) = (Double::start(), User::new());
    let canary = user.home().join("canary");
    std::fs::write(&canary, "intact").unwrap();
    let target = canary.to_str().unwrap();
    let entry = |kind: tar::EntryType, path: &str, link: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        // Written by hand: the builder refuses names like these.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_size(content.len() as u64);
        header.set_mode(0o777);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    };
    use tar::EntryType::{Link, Regular, Symlink};
    let up = format!("../../../../../../../../../..{target}");
    assert!(up.len() < 100, "the path of the temporary directory is too long for this test");
    let cases: Vec<Vec<Vec<u8>>> = vec![
        vec![entry(Regular, target, "", b"written")],
        vec![entry(Regular, &up, "", b"written")],
        vec![entry(Symlink, "out", target, b""), entry(Regular, "out", "", b"written")],
        vec![entry(Symlink, "dir", user.home().to_str().unwrap(), b""), entry(Regular, "dir/canary", "", b"written")],
        vec![entry(Link, "hard", target, b""), entry(Regular, "hard", "", b"written")],
        vec![entry(Link, "hard", &up, b""), entry(Regular, "hard", "", b"written")],
        vec![entry(Symlink, "s", &up, b""), entry(Link, "hard", "s", b""), entry(Regular, "hard", "", b"written")],
    ];
    for case in cases {
        let mut plain = case.concat();
        plain.extend([0; 1024]);
        let tag = COUNTER.fetch_add(1, Ordering::Relaxed).to_string();
        double.host("app", &tag, &Image::new(&[plain]));
        let output = user.output("rpull", &[&format!("{}/app:{tag}", double.address)]);
        assert!(matches!(output.status.code(), Some(0 | 1)), "case {tag}: {}", stderr(&output));
        assert_eq!(std::fs::read_to_string(&canary).unwrap(), "intact", "case {tag}");
        let metadata = std::fs::metadata(&canary).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::nlink(&metadata), 1, "case {tag} linked to a file of the host");
        user.check_store();
    }
}

#[test]
fn what_is_not_there_is_said_clearly() {
    let (data, user) = (tempfile::tempdir().unwrap(), User::new());
    let rhub = Rhub::start(data.path());
    rhub.push_image("app", "1", "x");
    let said = user.fail("rpull", &[&format!("{}/app:2", rhub.address)]);
    for part in ["manifest 2 in app", &rhub.address, "there is no such tag or digest"] {
        assert!(said.contains(part), "{said}");
    }
    let said = user.fail("rpull", &[&format!("{}/absent:2", rhub.address)]);
    assert!(said.contains("there is no such"), "{said}");
    let address = rhub.address.clone();
    rhub.kill_nine();
    let said = user.fail("rpull", &[&format!("{address}/app:1")]);
    assert!(said.contains("cannot reach registry") && said.contains("refused"), "{said}");
    let said = user.fail("rpull", &["app/UPPER"]);
    assert!(said.contains("lowercase"), "{said}");
    assert!(user.fail("rbox", &["rmi", "absent"]).contains("not found"));
    assert!(user.fail("rbox", &["inspect", "absent"]).contains("not found"));
}

#[test]
fn terminal_escapes_in_an_error_body_never_reach_the_terminal() {
    let (double, user) = (Double::start(), User::new());
    let body = r#"{"errors":[{"code":"DENIED","message":"\u001b]0;owned\u0007\u001b[2J"}]}"#;
    double.on("/v2/app/manifests/1", Answer::new(403, body));
    refused(&double, &user, "app:1", "\\u{1b}]0;owned");
}

#[test]
fn a_full_disk_is_an_error_and_nothing_half_written_is_visible() {
    if !root() {
        return;
    }
    let (double, user) = (Double::start(), User::new());
    let image = Image::bulky(4, 12, 500_000);
    double.host("app", "1", &image);
    std::fs::create_dir(user.store()).unwrap();
    let mount = SmallDisk::mount(&user.store(), "4m");
    refused(&double, &user, "app:1", "No space left on device");
    mount.resize("64m");
    user.succeed("rpull", &[&format!("{}/app:1", double.address)]);
    user.check_store();
}

/// A tmpfs of a given size.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(dir: &std::path::Path, size: &str) -> Self {
        let disk = Self(dir.to_owned());
        disk.run(&["mount", "-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]);
        disk
    }

    fn resize(&self, size: &str) {
        self.run(&["mount", "-o", &format!("remount,size={size}")]);
    }

    fn run(&self, words: &[&str]) {
        let status = std::process::Command::new(words[0]).args(&words[1..]).arg(&self.0).status().unwrap();
        assert!(status.success(), "{words:?}");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.run(&["umount", "-l"]);
    }
}

/// Waits for a condition, a minute at most.
fn wait_for(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "waited a minute in vain");
        std::thread::yield_now();
    }
}

#[test]
fn progress_is_told_in_the_form_asked_for() {
    let (double, user, layout) = (Double::start(), User::new(), tempfile::tempdir().unwrap());
    let image = Image::new(&[tar(&[("a", b"x")])]);
    double.host("app", "1", &image);
    let name = format!("{}/app:1", double.address);
    let said = |program: &str, args: &[&str]| {
        let output = user.output(program, args);
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
    };
    assert_eq!(said("rpull", &["--progress", "quiet", &name]), "");
    user.succeed("rbox", &["rmi", &name]);
    assert!(said("rpull", &["--progress=plain", &name]).contains("Pull complete"));
    user.succeed("rbox", &["rmi", &name]);
    let json = said("rpull", &["--progress=json", &name]);
    let events: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let layer = &image.layers[0];
    assert!(
        events.iter().all(|event| event["layer"] == layer.digest().as_str() && event["total"] == layer.bytes.len()),
        "{json}"
    );
    assert_eq!((&events[0]["event"], &events[events.len() - 1]["event"]), (&"started".into(), &"complete".into()));
    assert_eq!(events[events.len() - 1]["bytes"], layer.bytes.len());
    image.write_layout(layout.path(), "1");
    let data = tempfile::tempdir().unwrap();
    let rhub = Rhub::start(data.path());
    let to = format!("{}/app:1", rhub.address);
    let json = said("rpush", &["--progress=json", &format!("oci:{}:1", layout.path().display()), &to]);
    assert!(
        json.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok_and(|event| event["event"].is_string())),
        "{json}"
    );
    assert!(user.fail("rpull", &["--progress=loud", &name]).contains("auto, plain, json, quiet"));
}
