//! Logging in as people do: skopeo, podman, and this project's own client, each by the token flow.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod common;
#[allow(dead_code, unreachable_pub, reason = "the journey uses the rest")]
#[path = "journey/image.rs"]
mod image;
#[allow(dead_code, unreachable_pub, reason = "the journey uses the rest")]
#[path = "journey/tools.rs"]
mod tools;
#[path = "common/users.rs"]
mod users;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::needs::installed;
use image::{Image, tar};
use tools::{User, stderr};
use users::{Hub, PASSWORD, basic};

const RULES: &str = r#"
[[access.rules]]
who = ["anonymous"]
repositories = ["public/**"]
allow = ["pull"]
[[access.rules]]
who = ["user:reader"]
repositories = ["team/**"]
allow = ["pull"]
[[access.rules]]
who = ["user:writer"]
repositories = ["**"]
allow = ["pull", "push", "delete"]
"#;

fn hub() -> Hub {
    Hub::start_verbose(&["reader", "writer"], RULES)
}

/// An image in an OCI layout.
fn layout(hub: &Hub) -> (Image, PathBuf) {
    let image = Image::new(&[tar(&[("bin/a", b"one")]), tar(&[("bin/b", &b"two".repeat(500_000))])]);
    let path = hub.directory().join("layout");
    std::fs::create_dir_all(&path).unwrap();
    image.write_layout(&path, "v1");
    (image, path)
}

/// The manifest as the writer sees it.
fn manifest(hub: &Hub, repo: &str) -> Vec<u8> {
    let headers = [("authorization", &*basic("writer", PASSWORD))];
    let reply = hub.rhub.send("GET", &format!("/v2/{repo}/manifests/v1"), &headers, b"");
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.body
}

fn assert_tokens_were_used(hub: &Hub) {
    assert!(hub.log().contains("/v2/token"), "{}", hub.log());
}

/// A program of somebody else with credentials of its own.
struct Peer<'a> {
    program: &'static str,
    directory: &'a Path,
    authfile: PathBuf,
}

impl Peer<'_> {
    fn output(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(self.program);
        if self.program == "podman" {
            command.arg("--root").arg(self.directory.join("root")).arg("--runroot").arg(self.directory.join("run"));
            command.args(["--storage-driver", "vfs"]);
        }
        // A name podman makes of the layout's path must be lowercase: a relative one.
        command.args(arguments).env("REGISTRY_AUTH_FILE", &self.authfile).current_dir(self.directory).output().unwrap()
    }

    fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(output.status.success(), "{} {arguments:?}: {}", self.program, stderr(&output));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn fail(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(!output.status.success(), "{} {arguments:?} succeeded", self.program);
        stderr(&output)
    }

    fn log_in(&self, hub: &Hub, user: &str) {
        self.succeed(&["login", "--tls-verify=false", "-u", user, "-p", PASSWORD, &hub.rhub.address]);
    }
}

fn peer<'a>(program: &'static str, hub: &'a Hub) -> Option<Peer<'a>> {
    let authfile = hub.directory().join("auth.json");
    // podman wants it to be there.
    std::fs::write(&authfile, "{}").unwrap();
    installed(program).then(|| Peer { program, directory: hub.directory(), authfile })
}

#[test]
fn skopeo_logs_in_and_copies() {
    let hub = hub();
    let Some(skopeo) = peer("skopeo", &hub) else { return };
    let (image, _) = layout(&hub);
    let address = &hub.rhub.address;
    let (team, public) = (format!("docker://{address}/team/app:v1"), format!("docker://{address}/public/app:v1"));
    let push = |to: &str| skopeo.output(&["copy", "--preserve-digests", "--dest-tls-verify=false", "oci:layout:v1", to]);
    let inspect = |name: &str| skopeo.output(&["inspect", "--raw", "--tls-verify=false", name]);

    let wrong = skopeo.fail(&["login", "--tls-verify=false", "-u", "writer", "-p", "wrong", address]);
    assert!(wrong.contains("invalid username/password") || wrong.contains("unauthorized"), "{wrong}");
    assert!(!push(&team).status.success(), "nobody has logged in");
    skopeo.log_in(&hub, "writer");
    for to in [&team, &public] {
        let output = push(to);
        assert!(output.status.success(), "{}", stderr(&output));
    }
    assert_eq!(manifest(&hub, "team/app"), image.manifest.bytes);
    assert_eq!(skopeo.succeed(&["list-tags", "--tls-verify=false", team.trim_end_matches(":v1")]).matches("v1").count(), 1);

    skopeo.log_in(&hub, "reader");
    assert_eq!(inspect(&team).stdout, image.manifest.bytes);
    let refused = push(&team);
    assert!(!refused.status.success() && stderr(&refused).contains("denied"), "{}", stderr(&refused));
    skopeo.succeed(&["logout", address]);
    assert_eq!(inspect(&public).stdout, image.manifest.bytes, "what is public needs no login");
    assert!(!inspect(&team).status.success());
    skopeo.log_in(&hub, "writer");
    skopeo.succeed(&["delete", "--tls-verify=false", &team]);
    assert_tokens_were_used(&hub);
}

#[test]
fn podman_logs_in_pushes_and_pulls() {
    let hub = hub();
    let Some(podman) = peer("podman", &hub) else { return };
    layout(&hub);
    let address = &hub.rhub.address;
    let (team, public) = (format!("{address}/team/app:v1"), format!("{address}/public/app:v1"));
    let id = podman.succeed(&["pull", "-q", "oci:layout:v1"]);
    podman.fail(&["login", "--tls-verify=false", "-u", "writer", "-p", "wrong", address]);
    podman.log_in(&hub, "writer");
    assert_eq!(podman.succeed(&["login", "--get-login", address]), "writer");
    for name in [&team, &public] {
        podman.succeed(&["push", "--tls-verify=false", &id, &format!("docker://{name}")]);
    }
    podman.succeed(&["rmi", "-a", "-f"]);
    podman.log_in(&hub, "reader");
    podman.succeed(&["pull", "-q", "--tls-verify=false", &team]);
    let refused = podman.fail(&["push", "--tls-verify=false", &team, &format!("docker://{team}")]);
    assert!(refused.contains("denied"), "{refused}");
    podman.succeed(&["rmi", "-a", "-f"]);
    podman.succeed(&["logout", address]);
    podman.fail(&["pull", "-q", "--tls-verify=false", &team]);
    podman.succeed(&["pull", "-q", "--tls-verify=false", &public]);
    assert_tokens_were_used(&hub);
}

#[test]
fn rpush_and_rpull_take_the_credentials_that_docker_keeps() {
    let hub = hub();
    let (image, layout) = layout(&hub);
    let (source, team) = (format!("oci:{}:v1", layout.display()), format!("{}/team/app:v1", hub.rhub.address));
    let public = format!("{}/public/app:v1", hub.rhub.address);
    let user = |name: &str, password: &str| {
        let user = User::new();
        std::fs::create_dir(user.home().join(".docker")).unwrap();
        let auth = STANDARD.encode(format!("{name}:{password}"));
        let config = serde_json::json!({"auths": {&hub.rhub.address: {"auth": auth}}});
        std::fs::write(user.home().join(".docker/config.json"), config.to_string()).unwrap();
        user
    };
    let (writer, reader) = (user("writer", PASSWORD), user("reader", PASSWORD));
    writer.succeed("rpush", &[&source, &team]);
    writer.succeed("rpush", &[&source, &public]);
    assert_eq!(manifest(&hub, "team/app"), image.manifest.bytes);
    assert_tokens_were_used(&hub);
    reader.succeed("rpull", &[&team]);
    let denied = reader.fail("rpush", &[&source, &team]);
    assert!(denied.contains("have not the right"), "{denied}");
    let wrong = user("writer", "wrong").fail("rpull", &[&team]);
    assert!(wrong.contains("password is wrong"), "{wrong}");
    User::new().succeed("rpull", &[&public]);
    let nobody = User::new().fail("rpull", &[&team]);
    assert!(nobody.contains("rbox login"), "{nobody}");
}

#[test]
fn one_token_lets_a_blob_be_mounted_from_another_repository() {
    let hub = hub();
    let (image, layout) = layout(&hub);
    let user = User::new();
    assert!(log_in(&user, "writer", PASSWORD, &hub.rhub.address).status.success());
    let name = |repository: &str| format!("{}/{repository}:v1", hub.rhub.address);
    user.succeed("rpush", &[&format!("oci:{}:v1", layout.display()), &name("team/app")]);
    user.succeed("rpull", &[&name("team/app")]);
    user.succeed("rbox", &["tag", &name("team/app"), &name("other/copy")]);
    let before = hub.log().len();
    let output = user.output("rpush", &["--jobs", "1", &name("other/copy")]);
    assert_eq!(stderr(&output).matches("Layer already exists").count(), 3, "{}", stderr(&output));
    assert_eq!(manifest(&hub, "other/copy"), image.manifest.bytes);
    // One to push, and one to mount.
    let log = hub.log().split_off(before);
    let count = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!((count("/v2/token"), count("status=401")), (2, 1), "{log}");
    assert_eq!((count("/blobs/uploads/"), count("method=PUT")), (3, 1), "{log}");
}

/// `rbox login` with a password on standard input.
fn log_in(user: &User, name: &str, password: &str, address: &str) -> Output {
    let mut command = user.command("rbox", &["login", "--username", name, "--password-stdin", address]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{password}\n").as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn rbox_logs_in_and_out_and_skopeo_is_logged_in_too() {
    let hub = hub();
    let (image, layout) = layout(&hub);
    let (address, user) = (&*hub.rhub.address, User::new());
    let (source, team) = (format!("oci:{}:v1", layout.display()), format!("{address}/team/app:v1"));
    let wrong = log_in(&user, "writer", "wrong", address);
    assert!(!wrong.status.success() && stderr(&wrong).contains("does not take this user name and password"), "{wrong:?}");
    assert!(!user.home().join(".docker").exists(), "what is wrong is not kept");
    let right = log_in(&user, "writer", PASSWORD, &format!("http://{address}/"));
    assert_eq!((right.status.success(), &*right.stdout), (true, &b"Login Succeeded\n"[..]), "{right:?}");
    assert!(!format!("{right:?}").contains(PASSWORD));
    assert_eq!(user.succeed("rbox", &["login", address]), "Login Succeeded\n", "by what is kept");
    user.succeed("rpush", &[&source, &team]);
    assert_eq!(manifest(&hub, "team/app"), image.manifest.bytes);
    if installed("skopeo") {
        let authfile = user.home().join(".docker/config.json");
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["inspect", "--raw", "--tls-verify=false", &format!("docker://{team}")]);
        assert_eq!(skopeo.env("REGISTRY_AUTH_FILE", authfile).output().unwrap().stdout, image.manifest.bytes);
    }
    assert_eq!(user.succeed("rbox", &["logout", address]), format!("Removed login credentials for {address}\n"));
    assert_eq!(user.succeed("rbox", &["logout", address]), format!("Not logged in to {address}\n"));
    assert!(user.fail("rpush", &[&source, &team]).contains("rbox login"));
    assert!(user.fail("rbox", &["login", address]).contains("--password-stdin"), "there is no terminal");
}

#[test]
fn a_credential_helper_keeps_what_rbox_login_is_given() {
    /// Keeps secrets in one file a server.
    const HELPER: &str = r#"#!/bin/sh
cd "$HOME/secrets" && read -r input
name() { printf %s "$1" | tr -c 'a-z0-9.' _; }
case $1 in
    store) printf %s "$input" > "$(name "$(printf %s "$input" | sed 's/.*"ServerURL":"\([^"]*\)".*/\1/')")" ;;
    get) cat "$(name "$input")" 2>/dev/null || { echo 'credentials not found in native keychain'; exit 1; } ;;
    erase) rm "$(name "$input")" 2>/dev/null || { echo 'credentials not found in native keychain'; exit 1; } ;;
esac
"#;
    let hub = hub();
    let (_, layout) = layout(&hub);
    let (address, user) = (&*hub.rhub.address, User::new());
    let (source, team) = (format!("oci:{}:v1", layout.display()), format!("{address}/team/app:v1"));
    for directory in ["bin", "secrets", ".docker"] {
        std::fs::create_dir(user.home().join(directory)).unwrap();
    }
    let helper = user.home().join("bin/docker-credential-file");
    std::fs::write(&helper, HELPER).unwrap();
    std::fs::set_permissions(&helper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let config = user.home().join(".docker/config.json");
    std::fs::write(&config, r#"{"credsStore":"file"}"#).unwrap();
    let path = format!("{}:{}", helper.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let run = |program: &str, args: &[&str]| user.command(program, args).env("PATH", &path).output().unwrap();

    let mut login = user.command("rbox", &["login", "-u", "writer", "-p", PASSWORD, address]);
    let login = login.env("PATH", &path).output().unwrap();
    assert!(login.status.success() && !stderr(&login).contains("unencrypted"), "{login:?}");
    assert_eq!(std::fs::read_to_string(&config).unwrap(), r#"{"credsStore":"file"}"#, "nothing in the clear");
    assert!(run("rpush", &[&source, &team]).status.success());
    let out = run("rbox", &["logout", address]);
    assert!(out.status.success() && out.stdout.starts_with(b"Removed"), "{out:?}");
    assert!(std::fs::read_dir(user.home().join("secrets")).unwrap().next().is_none());
    assert!(!run("rpush", &[&source, &team]).status.success());
}
