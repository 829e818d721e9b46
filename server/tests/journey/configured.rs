//! A machine that is set up for docker or podman: names, certificates and mirrors are found where those find them.

use std::path::Path;
use std::process::Command;

use super::authority::{Authority, Demanding};
use super::common::Rhub;
use super::common::needs::installed;
use super::double::{Answer, Double, Request};
use super::image::{Image, tar};
use super::tools::{User, stderr};

fn image() -> Image {
    Image::new(&[tar(&[("a", b"x")])])
}

/// An OCI layout, to be pushed.
fn layout(image: &Image) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    image.write_layout(directory.path(), "1");
    let source = format!("oci:{}:1", directory.path().display());
    (directory, source)
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// A user with these `registries.toml` and `registries.conf`.
fn user_with(own: &str, containers: &str) -> User {
    let user = User::new();
    write(&user.home().join(".config/longshore/registries.toml"), own);
    write(&user.home().join(".config/containers/registries.conf"), containers);
    user
}

fn paths(double: &Double) -> Vec<String> {
    double.requests().iter().map(|request| format!("{} {}", request.method, request.path)).collect()
}

#[test]
fn a_private_authority_is_found_in_each_place_where_it_may_be() {
    let Some(authority) = Authority::new() else { return };
    let (rhub, (_layout, source)) = (authority.rhub(), layout(&image()));
    let name = format!("{}/app:1", rhub.address);
    for directory in [".config/containers", "etc/containers", ".config/docker", "etc/docker"] {
        let user = User::new();
        authority.put(&user.home().join(directory).join("certs.d").join(&rhub.address), &[("ca.crt", "ca.crt")]);
        user.succeed("rpush", &[&source, &name]);
        user.succeed("rpull", &[&name]);
    }
    let user = user_with(&format!("[{:?}]\nca = \"ca.pem\"", rhub.address), "");
    authority.put(&user.home().join(".config/longshore"), &[("ca.crt", "ca.pem")]);
    user.succeed("rpull", &[&name]);
    // The first directory that has one for the host counts, as in podman.
    let user = User::new();
    std::fs::create_dir_all(user.home().join(".config/containers/certs.d").join(&rhub.address)).unwrap();
    authority.put(&user.home().join("etc/docker/certs.d").join(&rhub.address), &[("ca.crt", "ca.crt")]);
    user.fail("rpull", &[&name]);
}

#[test]
fn a_certificate_that_signed_itself_is_taken_from_the_host_it_was_put_down_for() {
    let Some(authority) = Authority::new() else { return };
    let (layout, source) = layout(&image());
    // As docker's manual makes one: with nothing said, it is an authority's.
    authority.sign_itself("self", "127.0.0.1");
    authority.sign_itself("other", "127.0.0.2");
    let push = |certificate: &str, known: &str| {
        let (user, rhub) = (User::new(), Rhub::start_command(authority.serve_command("127.0.0.1:0", certificate)));
        let directory = user.home().join("etc/docker/certs.d").join(&rhub.address);
        authority.put(&directory, &[(&format!("{known}.crt"), "ca.crt")]);
        let output = user.output("rpush", &[&source, &format!("{}/app:1", rhub.address)]);
        (output.status.success(), stderr(&output))
    };
    assert!(push("self", "self").0);
    let (succeeded, said) = push("self", "other");
    assert!(!succeeded && said.contains("invalid peer certificate"), "{said}");
    let (succeeded, said) = push("other", "other");
    assert!(!succeeded && said.contains("not valid for name"), "it is another host's: {said}");
    drop(layout);
}

#[test]
fn a_certificate_of_nobody_known_is_refused_and_the_message_says_where_to_put_whose() {
    let Some(authority) = Authority::new() else { return };
    let rhub = authority.rhub();
    let name = format!("{}/app:1", rhub.address);
    let user = user_with(&format!("[{:?}]\nplain-http = false", rhub.address), "");
    let said = user.fail("rpull", &[&name]);
    let file = user.home().join(".config/containers/certs.d").join(&rhub.address).join("ca.crt");
    assert!(said.contains("UnknownIssuer") && said.contains(&file.display().to_string()), "{said}");
    let said = User::new().fail("rpull", &[&name]);
    assert!(!said.contains("ca.crt"), "over plain HTTP there are no certificates: {said}");
}

#[test]
fn verification_is_left_out_only_where_that_is_said_and_each_time_it_is_warned_of() {
    let Some(authority) = Authority::new() else { return };
    let (rhub, (_layout, source)) = (authority.rhub(), layout(&image()));
    let name = format!("{}/app:1", rhub.address);
    let own = user_with(&format!("[{:?}]\ninsecure-skip-verify = true", rhub.address), "");
    let containers = user_with("", &format!("[[registry]]\nlocation = {:?}\ninsecure = true", rhub.address));
    for user in [own, containers] {
        for (program, args) in [("rpush", &[&*source, &name][..]), ("rpull", &[&name])] {
            let output = user.output(program, args);
            let said = stderr(&output);
            assert!(output.status.success() && said.contains("WARNING! The certificate of"), "{said}");
        }
    }
}

#[test]
fn an_insecure_registry_of_podman_may_speak_plain_http() {
    let (data, (_layout, source)) = (tempfile::tempdir().unwrap(), layout(&image()));
    let rhub = Rhub::start(data.path());
    let user = user_with("", &format!("[[registry]]\nlocation = {:?}\ninsecure = true", rhub.address));
    let output = user.output("rpush", &[&source, &format!("{}/app:1", rhub.address)]);
    assert!(output.status.success() && !stderr(&output).contains("WARNING"), "{}", stderr(&output));
}

#[test]
fn a_client_certificate_is_shown_to_who_demands_one() {
    let Some(authority) = Authority::new() else { return };
    let Some(registry) = Demanding::start(&authority) else { return };
    authority.sign("client", "127.0.0.1");
    let (name, (_layout, source)) = (format!("{}/app:1", registry.address), layout(&image()));
    let certificates = |user: &User| user.home().join("etc/docker/certs.d").join(&registry.address);
    let user = User::new();
    authority.put(&certificates(&user), &[("ca.crt", "ca.crt")]);
    let said = user.fail("rpush", &[&source, &name]);
    assert!(said.contains("client.cert"), "{said}");
    authority.put(&certificates(&user), &[("client.crt", "client.cert")]);
    let said = user.fail("rpush", &[&source, &name]);
    assert!(said.contains("client.key is not there"), "{said}");
    authority.put(&certificates(&user), &[("client.key", "client.key")]);
    user.succeed("rpush", &[&source, &name]);
    let own = user_with(&format!("[{:?}]\nca = \"ca\"\nclient-cert = \"cert\"\nclient-key = \"key\"", registry.address), "");
    authority.put(&own.home().join(".config/longshore"), &[("ca.crt", "ca"), ("client.crt", "cert"), ("client.key", "key")]);
    own.succeed("rpull", &[&name]);
}

#[test]
fn podmans_own_files_mean_the_same_to_podman_and_to_rpull() {
    if !installed("podman") {
        return;
    }
    let (data, mirror_data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (rhub, mirror) = (Rhub::start(data.path()), Rhub::start(mirror_data.path()));
    let push = |rhub: &Rhub, name: &str, content: &[u8]| {
        let image = Image::new(&[tar(&[("a", content)])]);
        let (_layout, source) = layout(&image);
        User::new().succeed("rpush", &[&source, &format!("{}/{name}", rhub.address)]);
        image.config.digest()
    };
    let moved = push(&rhub, "inner/app:1", b"moved");
    let mirrored = push(&mirror, "hub/library/tool:1", b"mirrored");
    let aliased = push(&rhub, "aliased:1", b"aliased");
    let user = User::new();
    let containers = user.home().join(".config/containers");
    write(
        &containers.join("registries.conf"),
        &format!(
            "unqualified-search-registries = [\"docker.io\"]\n[[registry]]\nprefix = \"r.example/team\"\n\
             location = \"{0}/inner\"\ninsecure = true\n[[registry]]\nlocation = \"{0}\"\ninsecure = true\n\
             [[registry]]\nprefix = \"r.example/bad\"\nlocation = \"r.example/bad\"\nblocked = true\n",
            rhub.address
        ),
    );
    write(
        &containers.join("registries.conf.d/10-mirror.conf"),
        &format!(
            "[[registry]]\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"{}/hub\"\ninsecure = true\n[aliases]\n\"other\" = \"{}/aliased\"\n",
            mirror.address, rhub.address
        ),
    );
    let podman = |name: &str| {
        let mut command = Command::new("podman");
        command.arg("--root").arg(user.home().join("podman")).arg("--runroot").arg(user.home().join("run"));
        command.args(["--storage-driver", "vfs", "pull", "-q", name]);
        command.env("HOME", user.home()).env_remove("XDG_CONFIG_HOME").env_remove("CONTAINERS_REGISTRIES_CONF");
        command.env("CONTAINERS_REGISTRIES_CONF", containers.join("registries.conf"));
        command.output().unwrap()
    };
    for (name, config) in [("r.example/team/app:1", moved), ("docker.io/library/tool:1", mirrored), ("other:1", aliased)] {
        let output = podman(name);
        assert!(output.status.success(), "podman pull {name}: {}", stderr(&output));
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), config.hex(), "{name}");
        user.succeed("rpull", &[name]);
        assert!(user.store().join("blobs/sha256").join(config.hex()).exists(), "{name}");
    }
    let said = user.fail("rpull", &["r.example/bad/app:1"]);
    assert!(said.contains("blocks r.example/bad") && stderr(&podman("r.example/bad/app:1")).contains("blocked"), "{said}");
    // A name of its own leads there, too, without a registry to ask.
    assert!(user.succeed("rbox", &["images"]).contains(&format!("{}/aliased", rhub.address)));
}

#[test]
fn what_is_moved_is_asked_for_and_pushed_where_it_is_and_keeps_its_name() {
    let (data, image) = (tempfile::tempdir().unwrap(), image());
    let (rhub, (_layout, source)) = (Rhub::start(data.path()), layout(&image));
    let own = format!("[\"r.example/team\"]\nrewrite = \"{}/ours/deep\"\n[\"r.example\"]\nuse = \"http://{0}\"", rhub.address);
    let user = user_with(&own, "");
    user.succeed("rpush", &[&source, "r.example/team/app:1"]);
    user.succeed("rpush", &[&source, "r.example/other:1"]);
    assert_eq!(rhub.get("/v2/ours/deep/app/manifests/1").body, image.manifest.bytes);
    assert_eq!(rhub.get("/v2/other/manifests/1").body, image.manifest.bytes);
    user.succeed("rpull", &["r.example/team/app:1"]);
    assert!(user.succeed("rbox", &["images"]).contains("r.example/team/app"));
}

#[test]
fn a_mirror_is_asked_only_for_what_it_is_said_to_do() {
    let (registry, mirror, taker, image) = (Double::start(), Double::start(), Rhub::with(&[]), image());
    registry.host("app", "1", &image);
    mirror.host("m/app", "1", &image);
    let own = |capabilities: &str| {
        let mirrors = format!("{{ url = \"http://{}/m\", capabilities = {capabilities} }}", mirror.address);
        let taker = format!("{{ url = \"http://{}/t\", capabilities = [\"push\"] }}", taker.1.address);
        format!("[{:?}]\nmirrors = [{mirrors}, {taker}]", registry.address)
    };
    let name = format!("{}/app:1", registry.address);
    let user = user_with(&own("[\"pull\"]"), "");
    user.succeed("rpull", &[&name]);
    let (asked, mirrored) = (paths(&registry), paths(&mirror));
    assert!(asked.iter().all(|path| path.ends_with("/manifests/1")), "tags are the registry's: {asked:?}");
    assert!(
        !mirrored.is_empty() && mirrored.iter().all(|path| path.contains("/blobs/") || path.contains("sha256:")),
        "{mirrored:?}"
    );
    let user = user_with(&own("[\"pull\", \"resolve\"]"), "");
    user.succeed("rpull", &[&name]);
    assert_eq!(paths(&registry).len(), asked.len(), "the mirror has all");
    // What is pushed goes to who takes it, under the name it has there.
    let (_layout, source) = layout(&image);
    user.succeed("rpush", &[&source, &name]);
    assert_eq!(taker.1.get("/v2/t/app/manifests/1").body, image.manifest.bytes);
    assert_eq!(paths(&registry).len(), asked.len());
}

#[test]
fn credentials_come_from_where_they_are_said_to_be_and_from_nowhere_else() {
    let double = Double::start();
    double.on("/v2/app/manifests/1", Answer::new(401, "").header("www-authenticate", "Basic realm=\"x\""));
    let own = format!("[{:?}]\ncredentials = {{ file = \"own.json\" }}", double.address);
    let user = user_with(&own, "");
    // `user:hunter2`, and `own:secret`
    let auths = |auth: &str| format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, double.address);
    write(&user.home().join(".docker/config.json"), &auths("dXNlcjpodW50ZXIy"));
    let said = user.fail("rpull", &[&format!("{}/app:1", double.address)]);
    assert!(said.contains("there are none"), "{said}");
    let file = user.home().join(".config/longshore/own.json");
    write(&file, &auths("b3duOnNlY3JldA=="));
    let said = user.fail("rpull", &[&format!("{}/app:1", double.address)]);
    assert!(said.contains(&format!("the credentials of {}", file.display())), "{said}");
    let sent: Vec<_> = double.requests().iter().filter_map(|request| request.headers.get("authorization").cloned()).collect();
    assert_eq!(sent, ["Basic b3duOnNlY3JldA=="]);
    write(&file, "{}");
    let said = user.fail("rpull", &[&format!("{}/app:1", double.address)]);
    assert!(said.contains("there are none"), "{said}");
}

#[test]
fn who_logs_in_is_known_where_the_registry_really_is() {
    let (double, user) = (Double::start(), User::new());
    let own = format!("[\"r.example\"]\nuse = \"http://{}\"\ncredentials = {{ file = \"own.json\" }}", double.address);
    write(&user.home().join(".config/longshore/registries.toml"), &own);
    double.on("/v2/", Answer::new(401, "").header("www-authenticate", "Basic realm=\"x\"").then(Answer::new(200, "{}")));
    double.on("/v2/app/manifests/1", Answer::new(401, "").header("www-authenticate", "Basic realm=\"x\""));
    let output = user.output("rbox", &["login", "-u", "user", "-p", "hunter2", "r.example"]);
    assert!(output.status.success() && stderr(&output).contains("own.json"), "{}", stderr(&output));
    assert!(!user.home().join(".docker").exists());
    user.fail("rpull", &["r.example/app:1"]);
    let requests = double.requests();
    let sent = |request: &&Request| request.headers.contains_key("authorization");
    assert_eq!(
        requests.iter().filter(sent).map(|request| request.path.as_str()).collect::<Vec<_>>(),
        ["/v2/", "/v2/app/manifests/1"]
    );
    let said = user.output("rbox", &["doctor", "r.example"]).stdout;
    let said = String::from_utf8(said).unwrap();
    let kept = format!("own.json for {} are taken", double.address);
    assert!(stderr(&output).contains(&format!("r.example are at {}", double.address)) && said.contains(&kept), "{said}");
    assert_eq!(user.succeed("rbox", &["logout", "r.example"]), format!("Removed login credentials for {}\n", double.address));
    user.fail("rpull", &["r.example/app:1"]);
    assert_eq!(double.requests().iter().filter(sent).count(), 3);
}

#[test]
fn an_address_of_version_6_is_a_host_as_any_other() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        eprintln!("skipped: there is no IPv6 here");
        return;
    }
    let (double, user) = (Double::start_on("[::1]:0"), User::new());
    double.host("team/app", "1", &image());
    assert!(double.address.starts_with("[::1]:"));
    user.succeed("rpull", &[&format!("{}/team/app:1", double.address)]);
    let user = user_with(&format!("[\"r.example\"]\nuse = \"http://{}\"", double.address), "");
    user.succeed("rpull", &["r.example/team/app:1"]);
}

#[test]
fn dockers_headers_for_registries_reach_them_and_those_for_its_daemon_do_not() {
    let (double, user) = (Double::start(), User::new());
    double.host("app", "1", &image());
    write(&user.home().join(".docker/config.json"), r#"{"HttpHeaders":{"X-Meta-Team":"blue","X-Secret":"hunter2"}}"#);
    user.succeed("rpull", &[&format!("{}/app:1", double.address)]);
    let requests = double.requests();
    assert!(requests.iter().all(|request| request.headers.get("x-meta-team").is_some_and(|team| team == "blue")));
    assert!(requests.iter().all(|request| !request.headers.contains_key("x-secret")));
    // Nor do they go on to another host.
    let (other, moved) = (Double::start(), image());
    other.host("app", "1", &moved);
    for blob in moved.blobs() {
        let path = format!("/v2/app/blobs/{}", blob.digest());
        double.on(&path, Answer::new(307, "").header("location", format!("http://{}{path}", other.address)));
    }
    user.succeed("rbox", &["rmi", &format!("{}/app:1", double.address)]);
    user.succeed("rpull", &[&format!("{}/app:1", double.address)]);
    let asked_on = other.requests();
    assert!(!asked_on.is_empty() && asked_on.iter().all(|request| !request.headers.contains_key("x-meta-team")));
}

#[test]
fn a_plain_registry_may_keep_its_blobs_at_a_host_that_is_known_by_what_is_put_down_for_that() {
    let Some(authority) = Authority::new() else { return };
    let (rhub, double, image) = (authority.rhub(), Double::start(), image());
    let (_layout, source) = layout(&image);
    let certificates = Path::new("etc/docker/certs.d").join(&rhub.address);
    let user = User::new();
    authority.put(&user.home().join(&certificates), &[("ca.crt", "ca.crt")]);
    user.succeed("rpush", &[&source, &format!("{}/app:1", rhub.address)]);
    double.host("app", "1", &image);
    for blob in image.blobs() {
        let path = format!("/v2/app/blobs/{}", blob.digest());
        double.on(&path, Answer::new(307, "").header("location", format!("https://{}{path}", rhub.address)));
    }
    let name = format!("{}/app:1", double.address);
    user.succeed("rpull", &[&name]);
    // Elsewhere nothing counts that was said of the registry: not that whoever answers is believed to be it, either.
    let text = format!("[[registry]]\nlocation = {:?}\ninsecure = true", double.address);
    for user in [User::new(), user_with("", &text)] {
        let said = user.fail("rpull", &[&name]);
        let advised = user.home().join(".config/containers/certs.d").join(&rhub.address);
        assert!(said.contains("UnknownIssuer") && said.contains(&advised.display().to_string()), "{said}");
    }
}

#[test]
fn dockers_daemon_has_said_where_images_come_from() {
    let (mirror, image, data) = (Double::start(), image(), tempfile::tempdir().unwrap());
    mirror.host("library/tool", "1", &image);
    let rhub = Rhub::start(data.path());
    let user = User::new();
    let json = serde_json::json!({
        "log-driver": "journald",
        "registry-mirrors": [format!("http://{}/", mirror.address)],
        "insecure-registries": [&rhub.address],
    });
    write(&user.home().join("etc/docker/daemon.json"), &json.to_string());
    assert!(user.succeed("rpull", &["tool:1"]).ends_with("docker.io/library/tool:1\n"));
    let (_layout, source) = layout(&image);
    user.succeed("rpush", &[&source, &format!("{}/app:1", rhub.address)]);
    // What this project's own file says of the same images comes first.
    write(&user.home().join(".config/longshore/registries.toml"), &format!("[\"docker.io\"]\nuse = \"http://{}\"", rhub.address));
    user.succeed("rbox", &["rmi", "tool:1"]);
    let asked = mirror.requests().len();
    user.fail("rpull", &["tool:1"]);
    assert_eq!(mirror.requests().len(), asked);
}

#[test]
fn a_wrong_setting_stops_everything_and_says_where_it_is() {
    let user = user_with("[\"docker.io\"]\nmirorrs = []", "");
    let said = user.fail("rpull", &["127.0.0.1:1/app"]);
    assert!(said.contains("registries.toml") && said.contains("mirorrs") && said.contains("line 2"), "{said}");
    let user = user_with("", "[[registry]]\ninsecure = true");
    let said = user.fail("rpull", &["127.0.0.1:1/app"]);
    assert!(said.contains("registries.conf") && said.contains("neither prefix nor location"), "{said}");
}

#[test]
fn an_alias_gives_a_short_name_its_registry_and_a_whole_name_stays() {
    let (double, user, image) = (Double::start(), User::new(), image());
    double.host("real/tool", "2", &image);
    let text = format!("unqualified-search-registries = [\"{0}\"]\n[aliases]\n\"tool\" = \"{0}/real/tool\"", double.address);
    write(&user.home().join("etc/containers/registries.conf.d/shortnames.conf"), &text);
    user.use_for_docker_hub(&double.address);
    assert!(user.succeed("rpull", &["tool:2"]).ends_with(&format!("{}/real/tool:2\n", double.address)));
    let asked = double.requests().len();
    // Docker Hub is Docker Hub, and no list is searched.
    user.fail("rpull", &["docker.io/library/tool:2"]);
    user.fail("rpull", &["unknown"]);
    let later = paths(&double).split_off(asked);
    assert!(later.iter().all(|path| path.contains("/v2/library/tool/") || path.contains("/v2/library/unknown/")), "{later:?}");
    // Every command means the same by it: what is in the registry ...
    let digest = image.manifest.digest();
    double.on("/v2/real/tool/tags/list?n=1000", Answer::new(200, r#"{"tags":["2"]}"#));
    let manifest = Answer::new(200, image.manifest.bytes.clone()).header("content-type", image.manifest.media_type);
    double.on("/v2/real/tool/manifests/2", manifest.header("docker-content-digest", digest.as_str()));
    assert_eq!(user.succeed("rbox", &["digest", "tool:2"]), format!("{digest}\n"));
    assert_eq!(user.succeed("rbox", &["tags", "tool"]), "2\n");
    assert!(user.succeed("rbox", &["manifest", "inspect", "tool:2"]).contains(image.config.digest().hex()));
    let there = format!("oci:{}", user.home().join("copied").display());
    assert!(user.succeed("rbox", &["copy", "-q", "tool:2", &there]).contains(digest.as_str()));
    assert_eq!(user.succeed("rbox", &["cat", "tool:2", "a"]), "x");
    // ... and what is here.
    let archive = user.home().join("tool.tar").display().to_string();
    assert!(user.succeed("rbox", &["inspect", "tool:2"]).contains("real/tool:2"));
    user.succeed("rbox", &["history", "tool:2"]);
    user.succeed("rbox", &["save", "-o", &archive, "tool:2"]);
    // What is written or deleted there goes by docker's name alone.
    let asked = double.requests().len();
    user.fail("rpush", &["tool:2"]);
    user.fail("rbox", &["delete", "tool:2"]);
    user.fail("rbox", &["copy", "-q", &there, "tool:3"]);
    let later = paths(&double).split_off(asked);
    assert!(!later.is_empty() && later.iter().all(|path| path.contains("/v2/library/tool/")), "{later:?}");
    // An image that is here under docker's name comes first.
    user.succeed("rbox", &["tag", "tool:2", "docker.io/library/tool:2"]);
    assert_eq!(user.succeed("rbox", &["rmi", "tool:2"]), "Untagged: tool:2\n");
    assert!(user.succeed("rbox", &["rmi", "tool:2"]).contains(&format!("{}/real/tool:2", double.address)));
    user.fail("rbox", &["inspect", "tool:2"]);
}
