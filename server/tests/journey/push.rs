//! Pushing, from every place an image can lie.

use serde_json::json;

use super::common::needs::installed;
use super::common::proxy::{Fault, Passed, Proxy, Weather};
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
fn all_tags_of_a_repository_are_pushed_and_no_others() {
    let (data, user, layout) = (tempfile::tempdir().unwrap(), User::new(), tempfile::tempdir().unwrap());
    let rhub = Rhub::start(data.path());
    image().write_layout(layout.path(), "v1");
    let name = |rest: &str| format!("{}/{rest}", rhub.address);
    user.succeed("rpush", &[&format!("oci:{}:v1", layout.path().display()), &name("from:1")]);
    user.succeed("rpull", &[&name("from:1")]);
    for to in ["team/app:1", "team/app:two", "team/app2:1"] {
        user.succeed("rbox", &["tag", &name("from:1"), &name(to)]);
    }
    let said = user.succeed("rpush", &["-a", &name("team/app")]);
    assert!(said.contains("1: digest: ") && said.contains("two: digest: "), "{said}");
    for (path, status) in [("team/app/manifests/1", 200), ("team/app/manifests/two", 200), ("team/app2/manifests/1", 404)] {
        assert_eq!(rhub.get(&format!("/v2/{path}")).status, status, "{path}");
    }
    assert!(user.fail("rpush", &["--all-tags", &name("team/app:1")]).contains("repository alone"));
    assert!(user.fail("rpush", &["--all-tags", &name("team/none")]).contains("team/none"));
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

    // A blob changed after its manifest was written.
    let path = layout.path().join("blobs/sha256").join(image.layers[0].digest().hex());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[30] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let said = user.fail("rpush", &[&source, &destination]);
    assert!(said.contains("does not match its digest"), "{said}");
    std::fs::write(&path, &bytes[1..]).unwrap();
    assert!(user.fail("rpush", &[&source, &destination]).contains("bytes long"));
    std::fs::remove_file(&path).unwrap();
    assert!(user.fail("rpush", &[&source, &destination]).contains("No such file"));
    assert_eq!(rhub.get("/v2/app/manifests/1").status, 404, "no tag appears before everything below it is there");
    assert!(user.fail("rpush", &["oci-archive:/dev/null", &destination]).contains("oci-layout"));
}

/// A registry behind a proxy, and an image in a layout.
struct Behind {
    rhub: Rhub,
    proxy: Proxy,
    user: User,
    image: Image,
    layout: tempfile::TempDir,
    _data: tempfile::TempDir,
}

impl Behind {
    fn new(image: Image, weather: Weather) -> Self {
        let (data, layout) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let rhub = Rhub::start(data.path());
        let proxy = Proxy::start(&rhub.address, weather);
        image.write_layout(layout.path(), "1");
        Self { rhub, proxy, user: User::new(), image, layout, _data: data }
    }

    fn push(&self, repository: &str) {
        let (from, to) = (format!("oci:{}", self.layout.path().display()), format!("{}/{repository}:1", self.proxy.address));
        let output = self.user.command("rpush", &[&from, &to]).env("LONGSHORE_TEST_TIMING", "stall=2000,backoff=4").output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", super::tools::stderr(&output));
        self.has(repository);
    }

    fn has(&self, repository: &str) {
        assert_eq!(self.rhub.get(&format!("/v2/{repository}/manifests/1")).body, self.image.manifest.bytes);
        for blob in self.image.blobs() {
            assert_eq!(self.rhub.get(&format!("/v2/{repository}/blobs/{}", blob.digest())).body, blob.bytes);
        }
    }

    fn requests(&self, method: &str) -> Vec<Passed> {
        self.proxy.passed().into_iter().filter(|passed| passed.method == method).collect()
    }
}

#[test]
fn a_blob_is_mounted_from_where_the_store_knows_it() {
    let behind = Behind::new(image(), Weather::default());
    behind.push("base");
    let (there, copy) = (format!("{}/base:1", behind.proxy.address), format!("{}/team/app:1", behind.proxy.address));
    behind.user.succeed("rpull", &[&there]);
    behind.user.succeed("rbox", &["tag", &there, &copy]);
    let puts = behind.requests("PUT").len();
    behind.user.succeed("rpush", &[&copy]);
    behind.has("team/app");
    let put: Vec<_> = behind.requests("PUT").split_off(puts).into_iter().map(|passed| passed.path).collect();
    assert_eq!(put, ["/v2/team/app/manifests/1"], "no blob travels");
    // What was there and is not any more is sent.
    let digest = behind.image.layers[0].digest();
    behind.rhub.send("DELETE", &format!("/v2/base/blobs/{digest}"), &[], b"");
    behind.rhub.send("DELETE", &format!("/v2/team/app/blobs/{digest}"), &[], b"");
    behind.user.succeed("rpush", &[&copy]);
    behind.has("team/app");
}

#[test]
fn a_blob_is_sent_where_no_token_is_given_for_where_it_could_be_mounted_from() {
    let (double, user, image) = (Double::start(), User::new(), image());
    let (there, copy) = (format!("{}/base:1", double.address), format!("{}/app:1", double.address));
    double.host("base", "1", &image);
    user.succeed("rpull", &[&there]);
    user.succeed("rbox", &["tag", &there, &copy]);
    let challenge = format!("Bearer realm=\"http://{}/token\",service=\"s\"", double.address);
    let own = "repository%3Aapp%3Apull%2Cpush";
    // Each blob is refused once, also with a token that another one got: the next token is another.
    let token = |name: &str| Answer::new(200, format!(r#"{{"token":"{name}"}}"#));
    double.on(format!("/token?scope={own}&service=s"), token("t").then(token("u").then(token("v").then(token("w")))));
    double.on(format!("/token?scope={own}&scope=repository%3Abase%3Apull&service=s"), Answer::new(403, ""));
    for blob in image.blobs() {
        let demand = Answer::new(401, "").header("www-authenticate", challenge.clone());
        double.on(format!("HEAD /v2/app/blobs/{}", blob.digest()), demand.then(Answer::new(404, "")));
        let digest = blob.digest().as_str().replace(':', "%3A");
        double.on(format!("PUT /up?digest={digest}"), Answer::new(201, ""));
    }
    double.on("POST /v2/app/blobs/uploads/", Answer::new(202, "").header("location", "/up"));
    double.on("PUT /v2/app/manifests/1", Answer::new(201, ""));
    user.succeed("rpush", &[&copy]);
    let requests = double.requests();
    assert!(requests.iter().any(|request| request.path.contains("Abase%3Apull")), "no mount was tried: {requests:?}");
}

#[test]
fn an_upload_that_breaks_goes_on_where_the_registry_stands() {
    let weather = Weather { faults: vec![Fault::CutRequest], blob_faults: 3, ..Weather::default() };
    let image = Image::bulky(1, 1, 3_000_000);
    let behind = Behind::new(image, weather);
    behind.push("app");
    let status = behind.requests("GET").into_iter().filter(|passed| passed.path.contains("/uploads/")).count();
    assert!(status > 0, "it was asked how far it is");
    let sent: u64 = behind.requests("PATCH").iter().map(|passed| passed.request_bytes).sum();
    assert!(sent > 0 && sent < 3_000_000 * 2, "{sent} bytes were sent in chunks: not all of them each time");
}

#[test]
fn an_upload_comes_through_refusals_and_breaks() {
    use Fault::{BadGateway, BeforeHead, CutRequest, InHead, ServerError, TooManyAfter};
    let faults = vec![BadGateway, BeforeHead, CutRequest, InHead, ServerError, TooManyAfter(0)];
    let weather = Weather { faults, seed: u64::from(std::process::id()), blob_faults: 12, other_faults: 6, ..Weather::default() };
    Behind::new(image(), weather).push("app");
}

#[test]
fn a_proxy_that_takes_no_large_bodies_gets_small_ones() {
    let weather = Weather { request_limit_bytes: Some(300_000), ..Weather::default() };
    let behind = Behind::new(Image::bulky(1, 1, 2_000_000), weather);
    behind.push("app");
    let chunks = behind.requests("PATCH").into_iter().filter(|passed| passed.request_bytes <= 300_000).count();
    assert!(chunks >= 7, "{chunks} chunks");
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
