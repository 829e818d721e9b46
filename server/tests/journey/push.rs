//! Pushing, from every place an image can lie.

use serde_json::json;

use super::common::needs::installed;
use super::common::{OCI_INDEX, Rhub};
use super::double::{Answer, Double};
use super::image::{Blob, INDEX, Image, tar, write_layout};
use super::tools::User;

fn image() -> Image {
    Image::new(&[tar(&[("bin/a", b"one")]), tar(&[("bin/b", b"two"), (".wh.gone", b"")])])
}

#[test]
fn what_is_pulled_is_what_was_pushed_byte_for_byte() {
    let (data, user, layout) = (tempfile::tempdir().unwrap(), User::new(), tempfile::tempdir().unwrap());
    let rhub = Rhub::start(data.path());
    let image = image();
    image.write_layout(layout.path(), "v1");
    let name = format!("{}/team/app:1.2", rhub.address);
    let said = user.succeed("rpush", &[&format!("oci:{}:v1", layout.path().display()), &name]);
    assert!(said.contains(&format!("1.2: digest: {} size: {}", image.manifest.digest(), image.manifest.bytes.len())), "{said}");
    assert_eq!(rhub.get("/v2/team/app/manifests/1.2").body, image.manifest.bytes);

    // From registry to store to another registry.
    user.succeed("rpull", &[&name]);
    let other_data = tempfile::tempdir().unwrap();
    let other = Rhub::start(other_data.path());
    let copy = format!("{}/copy:2", other.address);
    user.succeed("rbox", &["tag", &name, &copy]);
    user.succeed("rpush", &[&copy]);
    assert_eq!(other.get("/v2/copy/manifests/2").body, image.manifest.bytes);
    for blob in image.blobs() {
        assert_eq!(other.get(&format!("/v2/copy/blobs/{}", blob.digest())).body, blob.bytes);
    }
    // And once more: nothing has to travel.
    let output = user.output("rpush", &[&copy]);
    assert_eq!(super::tools::stderr(&output).matches("Layer already exists").count(), 3);
}

#[test]
fn an_index_is_pushed_with_everything_below_it() {
    let (data, user, layout) = (tempfile::tempdir().unwrap(), User::new(), tempfile::tempdir().unwrap());
    let rhub = Rhub::start(data.path());
    let (one, two) = (image(), Image::new(&[tar(&[("other", b"x")])]));
    let index =
        json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [one.manifest.descriptor(), two.manifest.descriptor()] });
    let index = Blob { media_type: INDEX, bytes: index.to_string().into_bytes() };
    let blobs = one.blobs().chain(two.blobs()).chain([&one.manifest, &two.manifest, &index]);
    write_layout(layout.path(), blobs, &[index.descriptor()]);
    user.succeed("rpush", &[&format!("oci:{}", layout.path().display()), &format!("{}/app:all", rhub.address)]);
    let reply = rhub.get("/v2/app/manifests/all");
    assert_eq!((reply.header("content-type"), &reply.body), (OCI_INDEX, &index.bytes));
    for manifest in [&one.manifest, &two.manifest] {
        assert_eq!(rhub.get(&format!("/v2/app/manifests/{}", manifest.digest())).body, manifest.bytes);
    }
}

#[test]
fn archives_written_by_skopeo_are_pushed() {
    if !installed("skopeo") {
        return;
    }
    let (data, user, work) = (tempfile::tempdir().unwrap(), User::new(), tempfile::tempdir().unwrap());
    let rhub = Rhub::start(data.path());
    let image = image();
    let layout = work.path().join("layout");
    image.write_layout(&layout, "v1");
    let skopeo = |destination: &str| {
        let mut command = std::process::Command::new("skopeo");
        command.args(["copy", "--insecure-policy", "-q", &format!("oci:{}:v1", layout.display()), destination]);
        assert!(command.status().unwrap().success(), "skopeo copy to {destination}");
    };
    let oci = format!("oci-archive:{}/a.tar", work.path().display());
    let docker = format!("docker-archive:{}/b.tar", work.path().display());
    skopeo(&oci);
    skopeo(&format!("{docker}:example/app:3"));
    user.succeed("rpush", &[&oci, &format!("{}/app:oci", rhub.address)]);
    assert_eq!(rhub.get("/v2/app/manifests/oci").body, image.manifest.bytes);
    user.succeed("rpush", &[&docker, &format!("{}/app:docker", rhub.address)]);
    user.succeed("rpull", &[&format!("{}/app:docker", rhub.address)]);
    let inspected = user.succeed("rbox", &["inspect", &format!("{}/app:docker", rhub.address)]);
    for diff_id in &image.diff_ids {
        assert!(inspected.contains(diff_id.as_str()), "{diff_id} in {inspected}");
    }
}

#[test]
fn skopeo_reads_the_local_store_as_an_image_layout() {
    if !installed("skopeo") {
        return;
    }
    let (double, user, copy) = (Double::start(), User::new(), tempfile::tempdir().unwrap());
    user.use_for_docker_hub(&double.address);
    let image = image();
    double.host("library/app", "1", &image);
    user.succeed("rpull", &["app:1"]);
    let from = format!("oci:{}:docker.io/library/app:1", user.store().display());
    let to = format!("dir:{}", copy.path().display());
    let status = std::process::Command::new("skopeo").args(["copy", "--insecure-policy", "-q", &from, &to]).status().unwrap();
    assert!(status.success());
    assert_eq!(std::fs::read(copy.path().join("manifest.json")).unwrap(), image.manifest.bytes);
}

#[test]
fn what_cannot_be_pushed_is_said_clearly() {
    let (data, user, layout) = (tempfile::tempdir().unwrap(), User::new(), tempfile::tempdir().unwrap());
    let rhub = Rhub::start(data.path());
    let destination = format!("{}/app:1", rhub.address);
    let source = format!("oci:{}", layout.path().display());
    assert!(user.fail("rpush", &["absent:1"]).contains("not found"));
    assert!(user.fail("rpush", &[&source, &destination]).contains("oci-layout"));
    let image = image();
    image.write_layout(layout.path(), "v1");
    assert!(user.fail("rpush", &[&source]).contains("say where it goes"));
    let said = user.fail("rpush", &[&format!("{source}:v2"), &destination]);
    assert!(said.contains("\"v2\"") && said.contains("v1"), "{said}");

    // A blob changed after its manifest was written: the registry's verdict is passed on.
    let path = layout.path().join("blobs/sha256").join(image.layers[0].digest().hex());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[30] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let said = user.fail("rpush", &[&source, &destination]);
    assert!(said.contains("DIGEST_INVALID"), "{said}");
    std::fs::write(&path, &bytes[1..]).unwrap();
    assert!(user.fail("rpush", &[&source, &destination]).contains("bytes long"));
    std::fs::remove_file(&path).unwrap();
    assert!(user.fail("rpush", &[&source, &destination]).contains("No such file"));
    assert_eq!(rhub.get("/v2/app/manifests/1").status, 404, "no tag appears before everything below it is there");
    assert!(user.fail("rpush", &["oci-archive:/dev/null", &destination]).contains("oci-layout"));
}

#[test]
fn a_registry_that_stores_something_else_is_caught() {
    let (double, user, layout) = (Double::start(), User::new(), tempfile::tempdir().unwrap());
    let image = image();
    image.write_layout(layout.path(), "v1");
    for blob in image.blobs() {
        double.on(format!("/v2/app/blobs/{}", blob.digest()), Answer::new(200, ""));
    }
    let lie = Answer::new(201, "").header("docker-content-digest", image.config.digest().as_str());
    double.on("PUT /v2/app/manifests/1", lie);
    let said = user.fail("rpush", &[&format!("oci:{}", layout.path().display()), &format!("{}/app:1", double.address)]);
    assert!(said.contains("it stored"), "{said}");
}
