//! Images that are signed, and policies that want them to be.

use std::path::PathBuf;
use std::process::{Command, Output};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use longshore_client::signature::PrivateKey;

use super::common::Rhub;
use super::common::needs::installed;
use super::double::{Answer, Double};
use super::image::{Image, tar};
use super::tools::{User, stderr};

/// What the private keys are under.
const PASSWORD: &str = "a password";

/// A registry, somebody who signs and an image to be pushed.
struct Signer {
    rhub: Rhub,
    user: User,
    image: Image,
    name: String,
    _data: tempfile::TempDir,
}

impl Signer {
    fn new() -> Self {
        let (data, user) = (tempfile::tempdir().unwrap(), User::new());
        let rhub = Rhub::start(data.path());
        let image = Image::new(&[tar(&[("bin/a", b"one")])]);
        image.write_layout(&user.home().join("layout"), "v1");
        let name = format!("{}/team/app:1", rhub.address);
        let signer = Self { rhub, user, image, name, _data: data };
        for key in ["right", "wrong"] {
            let (private, public) = PrivateKey::generate(PASSWORD).unwrap();
            std::fs::write(signer.path(&format!("{key}.key")), private).unwrap();
            std::fs::write(signer.path(&format!("{key}.pub")), public).unwrap();
        }
        signer
    }

    fn path(&self, name: &str) -> PathBuf {
        self.user.home().join(name)
    }

    fn push(&self, flags: &[&str]) -> Output {
        let source = format!("oci:{}:v1", self.path("layout").display());
        let mut command = self.user.command("rpush", &[flags, &["-q", &source, &self.name]].concat());
        command.env("COSIGN_PASSWORD", PASSWORD).current_dir(self.user.home()).output().unwrap()
    }

    fn sign(&self, key: &str) {
        let output = self.push(&["--sign-by", &format!("{key}.key")]);
        assert!(output.status.success(), "{}", stderr(&output));
    }

    /// Pulls as somebody new, whose policy says this of the registry.
    fn pull(&self, rule: &str) -> Result<(), String> {
        let other = User::new();
        let policy = self.path("policy.toml");
        std::fs::write(&policy, format!("default = \"reject\"\n[images]\n\"{}\" = {rule}\n", self.rhub.address)).unwrap();
        let output = other.command("rpull", &["-q", &self.name]).env("LONGSHORE_POLICY", &policy).output().unwrap();
        if output.status.success() {
            return Ok(());
        }
        assert_eq!(other.succeed("rbox", &["images", "-q"]), "");
        assert_eq!(other.check_store(), (vec![], vec![]), "nothing of it was fetched");
        Err(stderr(&output))
    }
}

#[test]
fn where_a_policy_wants_a_signature_nothing_else_is_pulled() {
    const RIGHT: &str = "{ signed-by = [\"right.pub\"] }";
    let signer = Signer::new();
    assert!(signer.push(&[]).status.success());
    assert_eq!(signer.pull("\"accept\""), Ok(()));
    assert!(signer.pull("\"reject\"").unwrap_err().contains("rejects it"));
    assert!(signer.pull(RIGHT).unwrap_err().contains("it has no signature"));
    signer.sign("wrong");
    assert!(signer.pull(RIGHT).unwrap_err().contains("by another key"));
    signer.sign("right");
    assert_eq!(signer.pull(RIGHT), Ok(()));
    assert_eq!(signer.pull("{ signed-by = [\"wrong.pub\"] }"), Ok(()), "what it had it keeps");
    assert!(signer.pull("{ signed-by = [\"missing.pub\"] }").unwrap_err().contains("missing.pub"));

    // The signature says whose image it is: under another name it is no good, but where that is said not to matter.
    let (team, other) = (signer.name.clone(), format!("{}/other/app:1", signer.rhub.address));
    let signatures = format!("sha256-{}.sig", signer.image.manifest.digest().hex());

    // A mirror is behind, and signing again adds nothing.
    let mirror = Double::start();
    mirror.on(format!("/v2/team/app/manifests/{signatures}"), Answer::new(200, r#"{"layers":[]}"#));
    let registries = signer.user.home().join("registries.toml");
    std::fs::write(&registries, format!("[\"{}\"]\nmirrors = [\"http://{}\"]\n", signer.rhub.address, mirror.address)).unwrap();
    let mut command = signer.user.command("rpush", &["-q", "--sign-by", "right.key", "oci:layout:v1", &signer.name]);
    command.env("COSIGN_PASSWORD", PASSWORD).env("LONGSHORE_REGISTRIES", registries).current_dir(signer.user.home());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let reply = signer.rhub.get(&format!("/v2/team/app/manifests/{signatures}"));
    let manifest: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 2, "{manifest}");

    let copy = |tag: &str| {
        let reply = signer.rhub.get(&format!("/v2/team/app/manifests/{tag}"));
        let manifest: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        for blob in manifest["layers"].as_array().unwrap().iter().chain([&manifest["config"]]) {
            let digest = blob["digest"].as_str().unwrap();
            let mount = format!("/v2/other/app/blobs/uploads/?mount={digest}&from=team/app");
            assert_eq!(signer.rhub.send("POST", &mount, &[], b"").status, 201);
        }
        let headers = [("content-type", reply.header("content-type"))];
        let put = signer.rhub.send("PUT", &format!("/v2/other/app/manifests/{tag}"), &headers, &reply.body);
        assert_eq!(put.status, 201);
    };
    copy("1");
    copy(&signatures);
    let copied = Signer { name: other, ..signer };
    assert!(copied.pull(RIGHT).unwrap_err().contains("another name"));
    assert_eq!(copied.pull("{ signed-by = [\"right.pub\"], identity = \"any\" }"), Ok(()));

    // An archive has no signatures.
    let archive = copied.path("app.tar");
    let save = ["save", "-o", archive.to_str().unwrap(), &team];
    copied.user.succeed("rpull", &["-q", &team]);
    copied.user.succeed("rbox", &save);
    let policy = copied.path("policy.toml");
    let load = |rule: &str| {
        std::fs::write(&policy, format!("[images]\n\"{}\" = {rule}\n", copied.rhub.address)).unwrap();
        let other = User::new();
        let mut command = other.command("rbox", &["load", "-i", archive.to_str().unwrap()]);
        command.env("LONGSHORE_POLICY", &policy).output().unwrap()
    };
    assert!(load("\"accept\"").status.success());
    assert!(stderr(&load(RIGHT)).contains("an archive has none"));
}

#[test]
fn a_key_that_does_not_open_signs_nothing_and_nothing_is_pushed() {
    let signer = Signer::new();
    let source = format!("oci:{}:v1", signer.path("layout").display());
    let key = signer.path("right.key");
    let args = ["--sign-by", key.to_str().unwrap(), &source, &signer.name];
    let wrong = signer.user.command("rpush", &args).env("COSIGN_PASSWORD", "wrong").output().unwrap();
    assert!(!wrong.status.success() && stderr(&wrong).contains("the password is wrong"), "{}", stderr(&wrong));
    assert!(!stderr(&wrong).contains(PASSWORD));
    let public = signer.push(&["--sign-by", "right.pub"]);
    assert!(stderr(&public).contains("public key"), "{}", stderr(&public));
    assert_eq!(signer.rhub.get("/v2/team/app/manifests/1").status, 404);
}

/// What cosign does, by hand: Debian's podman and skopeo are built without signatures of its kind.
#[test]
fn openssl_verifies_what_is_signed_here_and_signs_what_is_verified_here() {
    if !installed("openssl") {
        return;
    }
    let signer = Signer::new();
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).current_dir(signer.user.home()).output().unwrap();
        assert!(output.status.success(), "openssl {arguments:?}: {}", stderr(&output));
    };
    signer.sign("right");
    let place = format!("/v2/team/app/manifests/sha256-{}.sig", signer.image.manifest.digest().hex());
    let manifest: serde_json::Value = serde_json::from_slice(&signer.rhub.get(&place).body).unwrap();
    let layer = &manifest["layers"][0];
    assert_eq!(layer["mediaType"], "application/vnd.dev.cosign.simplesigning.v1+json");
    let signature = layer["annotations"]["dev.cosignproject.cosign/signature"].as_str().unwrap();
    let document = signer.rhub.get(&format!("/v2/team/app/blobs/{}", layer["digest"].as_str().unwrap())).body;
    let said: serde_json::Value = serde_json::from_slice(&document).unwrap();
    assert_eq!(said["critical"]["image"]["docker-manifest-digest"], signer.image.manifest.digest().as_str());
    assert_eq!(said["critical"]["type"], "cosign container image signature");
    std::fs::write(signer.path("document"), &document).unwrap();
    std::fs::write(signer.path("signature"), STANDARD.decode(signature).unwrap()).unwrap();
    openssl(&["dgst", "-sha256", "-verify", "right.pub", "-signature", "signature", "document"]);

    // The other way round: a key of openssl's, and what `rpush` was not there for.
    openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "own.key"]);
    openssl(&["pkey", "-in", "own.key", "-pubout", "-out", "own.pub"]);
    openssl(&["dgst", "-sha256", "-sign", "own.key", "-out", "signature", "document"]);
    let mut manifest = manifest.clone();
    let signature = STANDARD.encode(std::fs::read(signer.path("signature")).unwrap());
    manifest["layers"][0]["annotations"]["dev.cosignproject.cosign/signature"] = signature.into();
    let headers = [("content-type", manifest["mediaType"].as_str().unwrap())];
    assert_eq!(signer.rhub.send("PUT", &place, &headers, manifest.to_string().as_bytes()).status, 201);
    assert_eq!(signer.pull("{ signed-by = [\"own.pub\"] }"), Ok(()));
    assert!(signer.pull("{ signed-by = [\"right.pub\"] }").unwrap_err().contains("by another key"));
    signer.sign("own");
    assert_eq!(signer.pull("{ signed-by = [\"own.pub\"] }"), Ok(()));
}
