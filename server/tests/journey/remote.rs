//! What a registry has is looked at and changed without pulling.

use std::process::Command;

use serde_json::{Value, json};

use super::common::Rhub;
use super::common::needs::installed;
use super::debian_registry::DebianRegistry;
use super::image::{Blob, INDEX, Image, tar, write_layout};
use super::tools::{User, stderr};
use super::users::{Hub, PASSWORD};

/// Both registries that are tested with, and a user.
struct Registries {
    user: User,
    addresses: Vec<String>,
    _rhub: Rhub,
    _debian: Option<DebianRegistry>,
    _data: tempfile::TempDir,
}

impl Registries {
    fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let (rhub, debian) = (Rhub::start(data.path()), DebianRegistry::start());
        let addresses = std::iter::once(&rhub.address).chain(debian.iter().map(|one| &one.address)).cloned().collect();
        Self { user: User::new(), addresses, _rhub: rhub, _debian: debian, _data: data }
    }
}

/// Pushes an image under each of these tags.
fn push(user: &User, image: &Image, repository: &str, tags: &[&str]) {
    let layout = tempfile::tempdir().unwrap();
    image.write_layout(layout.path(), "v1");
    for tag in tags {
        user.succeed("rpush", &["-q", &format!("oci:{}:v1", layout.path().display()), &format!("{repository}:{tag}")]);
    }
}

fn image(content: &str) -> Image {
    Image::new(&[tar(&[("bin/a", content.as_bytes())]), tar(&[("etc/b", b"two"), (".wh.gone", b"")])])
}

fn skopeo(arguments: &[&str]) -> Option<Vec<u8>> {
    if !installed("skopeo") {
        return None;
    }
    let output = Command::new("skopeo").args(arguments).output().unwrap();
    assert!(output.status.success(), "skopeo {arguments:?}: {}", stderr(&output));
    Some(output.stdout)
}

fn lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn tags_repositories_digests_and_manifests_are_what_the_registry_and_skopeo_say() {
    let registries = Registries::start();
    let user = &registries.user;
    let image = image("one");
    for address in &registries.addresses {
        let name = format!("{address}/team/app");
        push(user, &image, &name, &["1", "2", "latest"]);
        push(user, &image, &format!("{address}/other"), &["x"]);
        assert_eq!(lines(&user.succeed("rbox", &["tags", &name])), ["1", "2", "latest"]);
        assert_eq!(user.succeed("rbox", &["tags", "--limit", "2", &name]).lines().count(), 2);
        assert_eq!(lines(&user.succeed("rbox", &["catalog", address])), ["other", "team/app"]);
        let row = user.succeed("rbox", &["catalog", "--limit", "1", "--format", "json", address]);
        assert_eq!(serde_json::from_str::<Value>(&row).unwrap(), json!({ "Registry": address, "Repository": "other" }));
        let digest = image.manifest.digest();
        assert_eq!(user.succeed("rbox", &["digest", &name]), format!("{digest}\n"));
        assert_eq!(user.succeed("rbox", &["digest", "--platform", "linux/s390x", &name]), format!("{digest}\n"));
        let raw = user.succeed("rbox", &["manifest", "inspect", "--raw", &name]);
        assert_eq!(raw.as_bytes(), image.manifest.bytes);
        let shown = user.succeed("rbox", &["manifest", "inspect", &format!("{name}@{digest}")]);
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), serde_json::from_str::<Value>(&raw).unwrap());
        assert!(shown.starts_with("{\n\t\""), "{shown}");
        let said = user.fail("rbox", &["digest", &format!("{name}:nope")]);
        assert!(said.contains("there is no such tag") && said.contains(address.as_str()), "{said}");
        if let Some(listed) = skopeo(&["list-tags", "--tls-verify=false", &format!("docker://{name}")]) {
            let listed: Value = serde_json::from_slice(&listed).unwrap();
            let mut tags: Vec<&str> = listed["Tags"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
            tags.sort_unstable();
            assert_eq!(lines(&user.succeed("rbox", &["tags", &name])), tags);
        }
        let theirs = skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}:1")]);
        assert!(theirs.is_none_or(|theirs| theirs == raw.as_bytes()));
    }
    assert!(!user.store().join("index.json").exists(), "nothing was pulled");
}

#[test]
fn of_two_tags_of_one_manifest_one_goes_and_the_other_never_with_it() {
    let registries = Registries::start();
    let user = &registries.user;
    let image = image("one");
    for (at, address) in registries.addresses.iter().enumerate() {
        let name = format!("{address}/team/app");
        push(user, &image, &name, &["1", "2"]);
        let (one, two) = (format!("{name}:1"), format!("{name}:2"));
        let said = user.succeed("rbox", &["delete", "--dry-run", &one]);
        assert!(said.starts_with("Would be untagged: "), "{said}");
        assert_eq!(lines(&user.succeed("rbox", &["tags", &name])), ["1", "2"]);
        if at == 0 {
            assert!(user.succeed("rbox", &["delete", &one]).starts_with(&format!("Untagged: {one} ")));
            assert_eq!(user.succeed("rbox", &["tags", &name]), "2\n");
            // Its manifest is still there, by its digest too.
            user.succeed("rbox", &["digest", &format!("{name}@{}", image.manifest.digest())]);
        } else {
            // It deletes no tag alone.
            let said = user.fail("rbox", &["delete", &one]);
            assert!(said.contains("is also 2") && said.contains("by digest"), "{said}");
            assert_eq!(lines(&user.succeed("rbox", &["tags", &name])), ["1", "2"]);
            push(user, &self::image("another"), &name, &["1"]);
            let said = user.succeed("rbox", &["delete", &two]);
            assert!(said.contains("Deleted: ") && said.contains("no other had it"), "{said}");
            assert_eq!(user.succeed("rbox", &["tags", &name]), "1\n");
            user.fail("rbox", &["digest", &two]);
            push(user, &image, &name, &["2"]);
        }
        let pinned = format!("{name}@{}", image.manifest.digest());
        let said = user.fail("rbox", &["delete", &format!("{name}:nope"), &pinned]);
        assert!(said.contains("there is no such tag"), "{said}");
        user.fail("rbox", &["digest", &pinned]);
    }
}

#[test]
fn what_is_attached_to_an_image_is_found_where_the_registry_lists_it_and_where_it_does_not() {
    let registries = Registries::start();
    let user = &registries.user;
    let image = image("one");
    let file = user.home().join("sbom.json");
    std::fs::write(&file, "{\"a\":1}").unwrap();
    let file = file.display().to_string();
    for (at, address) in registries.addresses.iter().enumerate() {
        let name = format!("{address}/team/app:1");
        push(user, &image, &format!("{address}/team/app"), &["1"]);
        assert_eq!(user.succeed("rbox", &["referrers", "--format", "{{.Digest}}", &name]), "");
        let attach = |name: &str, kind: &str, file: &str| {
            let output = user.output("rbox", &["attach", name, "--artifact-type", kind, file, "--annotation", "who=me"]);
            assert!(output.status.success(), "{}", stderr(&output));
            assert_eq!(stderr(&output).contains("lists no referrers"), at == 1, "{}", stderr(&output));
            let said = String::from_utf8(output.stdout).unwrap();
            said.lines().find_map(|line| line.strip_prefix("Digest: ")).unwrap().to_owned()
        };
        let sbom = attach(&name, "application/spdx+json", &format!("{file}:text/json"));
        let report = attach(&name, "application/x-report", &file);
        let signed = attach(&format!("{address}/team/app@{sbom}"), "application/x-signature", &file);
        let listed = user.succeed("rbox", &["referrers", "--format", "{{.ArtifactType}} {{.Digest}}", &name]);
        let expected = [format!("application/spdx+json {sbom}"), format!("application/x-report {report}")];
        assert_eq!(lines(&listed), expected);
        let only = ["discover", "--artifact-type", "application/x-report", "--format", "{{.Digest}}", &name];
        assert_eq!(user.succeed("rbox", &only), format!("{report}\n"));
        let tree = user.succeed("rbox", &["discover", "--tree", &name]);
        let expected = format!(
            "{address}/team/app@{}\n├── application/spdx+json\n│   └── {sbom}\n│       └── application/x-signature\n\
             │           └── {signed}\n└── application/x-report\n    └── {report}\n",
            image.manifest.digest()
        );
        assert_eq!(tree, expected);
        let manifest = user.succeed("rbox", &["manifest", "inspect", "--raw", &format!("{address}/team/app@{sbom}")]);
        let manifest: Value = serde_json::from_str(&manifest).unwrap();
        assert_eq!(manifest["subject"]["digest"], image.manifest.digest().as_str());
        assert_eq!((&manifest["layers"][0]["mediaType"], &manifest["layers"][0]["size"]), (&json!("text/json"), &json!(7)));
        assert_eq!(manifest["layers"][0]["annotations"]["org.opencontainers.image.title"], "sbom.json");
        assert_eq!(manifest["annotations"]["who"], "me");
    }
}

#[test]
fn a_list_that_is_made_here_is_pushed_with_what_it_names() {
    let registries = Registries::start();
    let user = &registries.user;
    let images = [image("one"), image("two")];
    for address in &registries.addresses {
        let (list, parts) = (format!("{address}/team/app:all"), format!("{address}/parts"));
        push(user, &images[0], &format!("{address}/team/app"), &["amd64"]);
        // In another repository: mounted from there.
        push(user, &images[1], &parts, &["arm64"]);
        let (amd64, arm64) = (format!("{address}/team/app:amd64"), format!("{parts}:arm64"));
        assert_eq!(user.succeed("rbox", &["manifest", "create", &list, &amd64]), format!("Created manifest list {list}\n"));
        let said = user.fail("rbox", &["manifest", "create", &list, &arm64]);
        assert!(said.contains("--amend"), "{said}");
        user.succeed("rbox", &["manifest", "create", "--amend", &list, &arm64]);
        user.succeed("rbox", &["manifest", "annotate", "--arch", "arm64", "--variant", "v8", &list, &arm64]);
        let said = user.fail("rbox", &["manifest", "annotate", "--arch", "arm64", &list, &format!("{parts}:nope")]);
        assert!(said.contains("manifest inspect"), "{said}");
        let here: Value = serde_json::from_str(&user.succeed("rbox", &["manifest", "inspect", &list])).unwrap();
        assert_eq!(here["manifests"][1]["platform"], json!({ "architecture": "arm64", "os": "linux", "variant": "v8" }));
        let said = user.succeed("rbox", &["manifest", "push", "--purge", &list]);
        let digest = said.lines().last().unwrap();
        assert_eq!(user.succeed("rbox", &["digest", &list]).trim(), digest, "{said}");
        assert!(user.fail("rbox", &["manifest", "rm", &list]).contains("not found"), "it was purged");
        for (platform, image) in [("linux/arm64", &images[1]), ("linux/amd64", &images[0])] {
            let chosen = user.succeed("rbox", &["digest", "--platform", platform, &list]);
            assert_eq!(chosen.trim(), image.manifest.digest().as_str());
        }
        assert_eq!(user.succeed("rbox", &["cat", "--platform", "linux/arm64", &list, "bin/a"]), "two");
        let all: Value = serde_json::from_str(&user.succeed("rbox", &["manifest", "inspect", "-v", &list])).unwrap();
        assert_eq!(all[1]["Descriptor"]["platform"]["variant"], "v8");
        assert_eq!(all[1]["OCIManifest"]["config"]["digest"], images[1].config.digest().as_str());
        let shown = user.succeed("rbox", &["manifest", "inspect", &list]);
        assert!(shown.starts_with("{\n   \""), "{shown}");
        let said = user.fail("rbox", &["manifest", "create", &format!("{address}/team/app:lists"), &list]);
        assert!(said.contains("it is a list itself"), "{said}");
        let said = user.fail("rbox", &["digest", "--platform", "linux/s390x", &list]);
        assert!(said.contains("linux/amd64, linux/arm64/v8"), "{said}");
    }
}

#[test]
fn a_file_is_read_out_of_an_image_that_is_not_here_and_of_one_that_is() {
    let registries = Registries::start();
    let (user, name) = (&registries.user, format!("{}/team/app:1", registries.addresses[0]));
    push(user, &image("one"), &format!("{}/team/app", registries.addresses[0]), &["1"]);
    for verify in [&[][..], &["--verify"]] {
        assert_eq!(user.succeed("rbox", &[&["cat"], verify, &[&name, "/bin/a"]].concat()), "one");
    }
    for (path, why) in [("/nope", "not found"), ("/bin", "it is a directory"), ("/gone", "not found")] {
        let said = user.fail("rbox", &["cat", &name, path]);
        assert!(said.contains(why) && said.contains(path), "{said}");
    }
    assert_eq!(user.check_store(), (vec![], vec![]));
    user.succeed("rpull", &["-q", &name]);
    user.succeed("rbox", &["delete", &name]);
    assert_eq!(user.succeed("rbox", &["cat", &name, "etc/b"]), "two", "from the local store");
    // What may not be pulled is not looked into, either.
    let policy = user.home().join(".config/longshore");
    std::fs::create_dir_all(&policy).unwrap();
    std::fs::write(policy.join("policy.toml"), "default = \"reject\"\n").unwrap();
    push(user, &image("one"), &format!("{}/team/app", registries.addresses[0]), &["2"]);
    let said = user.fail("rbox", &["cat", &format!("{}/team/app:2", registries.addresses[0]), "bin/a"]);
    assert!(said.contains("policy"), "{said}");
}

#[test]
fn who_may_not_is_told_whose_credentials_were_shown_and_for_what() {
    let rules = r#"
[[access.rules]]
who = ["user:reader"]
repositories = ["team/**"]
allow = ["pull"]
[[access.rules]]
who = ["user:writer"]
repositories = ["**"]
allow = ["pull", "push", "delete"]
"#;
    let hub = Hub::start(&["reader", "writer"], rules);
    let address = &hub.rhub.address;
    let name = format!("{address}/team/app");
    let user = |who: &str| {
        let user = User::new();
        user.succeed("rbox", &["login", "-u", who, "-p", PASSWORD, address]);
        user
    };
    let (writer, reader, nobody) = (user("writer"), user("reader"), User::new());
    push(&writer, &image("one"), &name, &["1", "2"]);
    push(&writer, &image("one"), &format!("{address}/secret"), &["1"]);
    assert_eq!(lines(&reader.succeed("rbox", &["tags", &name])), ["1", "2"]);
    assert_eq!(reader.succeed("rbox", &["catalog", address]), "team/app\n");
    assert_eq!(lines(&writer.succeed("rbox", &["catalog", address])), ["secret", "team/app"]);
    let said = reader.fail("rbox", &["delete", &format!("{name}:1")]);
    assert!(said.contains(address.as_str()) && said.contains("credentials of ") && said.contains("delete"), "{said}");
    let said = nobody.fail("rbox", &["tags", &name]);
    assert!(said.contains("rbox login") && said.contains("repository:team/app:pull"), "{said}");
    assert!(!said.contains(PASSWORD), "{said}");
    writer.succeed("rbox", &["delete", &format!("{name}:1")]);
    assert_eq!(reader.succeed("rbox", &["tags", &name]), "2\n");
}

#[test]
fn an_index_s_order_of_keys_and_text_stay_as_they_are() {
    let registries = Registries::start();
    let (user, address) = (&registries.user, &registries.addresses[0]);
    let image = image("one");
    let entry = image.manifest.descriptor();
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{entry}],"annotations":{{"z":"\u001b[31m","a":"{{,"}}}}"#
    );
    let index = Blob { media_type: INDEX, bytes: index.into_bytes() };
    let layout = tempfile::tempdir().unwrap();
    write_layout(layout.path(), image.blobs().chain([&image.manifest, &index]), &[index.descriptor()]);
    let name = format!("{address}/app:all");
    user.succeed("rpush", &["-q", &format!("oci:{}", layout.path().display()), &name]);
    let shown = user.succeed("rbox", &["manifest", "inspect", &name]);
    let order: Vec<usize> =
        ["schemaVersion", "mediaType", "manifests", "\"z\"", "\"a\""].iter().map(|key| shown.find(key).unwrap()).collect();
    assert!(order.is_sorted(), "{shown}");
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
    assert_eq!(user.succeed("rbox", &["manifest", "inspect", "--raw", &name]).as_bytes(), index.bytes);
}
