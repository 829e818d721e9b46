//! Pulls over a network that is against them: what is fetched is what was there, and little of it twice.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use longshore_runtime::name::Digest;

use super::common::proxy::{Fault, Link, PASSING, Proxy, Weather, random};
use super::common::{Rhub, wait_until};
use super::image::{Image, tar};
use super::tools::{User, stderr};

/// Long enough for a busy machine to send something, short enough for a test.
const TIMING: &str = "stall=400,backoff=4";

/// A registry with an image, behind a proxy.
struct Scene {
    rhub: Rhub,
    _data: tempfile::TempDir,
    proxy: Proxy,
    user: User,
    image: Image,
    /// The first layer's: no less than seconds to compute of a large one.
    layer: Digest,
    name: String,
}

impl Scene {
    fn new(image: Image, weather: Weather) -> Self {
        let (data, user, layout) = (tempfile::tempdir().unwrap(), User::new(), tempfile::tempdir().unwrap());
        let rhub = Rhub::start(data.path());
        image.write_layout(layout.path(), "1");
        let there = format!("{}/app:1", rhub.address);
        user.succeed("rpush", &["-q", &format!("oci:{}", layout.path().display()), &there]);
        let proxy = Proxy::start(&rhub.address, weather);
        let name = format!("{}/app:1", proxy.address);
        let layer = image.layers[0].digest();
        Self { rhub, _data: data, proxy, user, image, layer, name }
    }

    fn command(&self) -> Command {
        let mut command = self.user.command("rpull", &["-q", &self.name]);
        command.env("LONGSHORE_TEST_TIMING", TIMING);
        command
    }

    fn pull(&self) -> Result<(), String> {
        let output = self.command().output().unwrap();
        assert_ne!(output.status.code(), Some(101), "{}", stderr(&output));
        if output.status.success() { Ok(()) } else { Err(stderr(&output)) }
    }

    fn forget(&self) {
        self.user.succeed("rbox", &["rmi", &self.name]);
    }

    /// The store has the image, byte for byte.
    fn whole(&self) {
        let (blobs, layers) = self.user.check_store();
        let parts = self.image.blobs().chain([&self.image.manifest]);
        let expected: BTreeSet<String> = parts.map(|blob| blob.digest().hex().to_owned()).collect();
        assert_eq!(blobs.into_iter().collect::<BTreeSet<_>>(), expected);
        assert_eq!(layers.len(), self.image.layers.len());
    }

    fn layer_bytes(&self) -> u64 {
        self.image.layers.iter().map(|layer| layer.bytes.len() as u64).sum()
    }

    fn travelled_hardly_twice(&self) {
        let (travelled, there) = (self.proxy.body_bytes(), self.layer_bytes());
        assert!(travelled < there + there / 10, "{travelled} bytes travelled for {there}");
    }
}

fn seed() -> u64 {
    let seed = std::env::var("LONGSHORE_SEED").map_or(u64::from(std::process::id()), |text| text.parse().unwrap());
    eprintln!("LONGSHORE_SEED={seed}");
    seed
}

/// An image of so many layers of noise.
fn layers(count: u64, bytes: usize) -> Image {
    let plain = |seed| {
        let mut plain = Vec::new();
        let bulk = Image::bulky(seed, 1, bytes);
        flate2::read::GzDecoder::new(&bulk.layers[0].bytes[..]).read_to_end(&mut plain).unwrap();
        plain
    };
    Image::new(&(1..=count).map(plain).collect::<Vec<_>>())
}

#[test]
fn ten_layers_come_through_a_thousand_faults_and_hardly_a_byte_twice() {
    let weather = Weather { faults: PASSING.into(), seed: seed(), blob_faults: 105, other_faults: 8, ..Weather::default() };
    let scene = Scene::new(layers(10, 400_000), weather);
    scene.pull().unwrap();
    scene.whole();
    let injected = scene.proxy.injected();
    assert!(injected.values().sum::<usize>() >= 1000, "{injected:?}");
    scene.travelled_hardly_twice();
}

#[test]
fn who_lies_about_ranges_lengths_and_etags_is_seen_through() {
    use Fault::{LastByte, LongLength, Middle, MoreBytes, NewETag, NoRange, OtherOffset, OtherSize, ShortLength};
    // The manifest's end is missing, and its length says so.
    let weather = Weather { faults: vec![ShortLength], other_faults: 2, ..Weather::default() };
    let scene = Scene::new(layers(1, 1000), weather);
    scene.pull().unwrap();
    scene.whole();
    for lie in [NoRange, OtherOffset, OtherSize, MoreBytes, NewETag, ShortLength, LongLength, LastByte] {
        // Where a download breaks, the lie may answer for the rest.
        let weather = Weather { faults: vec![lie, Middle], seed: seed(), blob_faults: 7, ..Weather::default() };
        let scene = Scene::new(layers(2, 300_000), weather);
        scene.pull().unwrap_or_else(|said| panic!("{lie:?}: {said}"));
        scene.whole();
        assert!(scene.proxy.injected()[&lie] > 0, "{lie:?}");
    }
}

#[test]
fn a_host_that_sends_something_else_is_given_up_and_nothing_of_it_is_kept() {
    let scene = Scene::new(layers(1, 300_000), Weather::default());
    let path = format!("/v2/app/blobs/{}", scene.layer);
    scene.proxy.set(|weather| {
        (weather.faults, weather.blob_faults, weather.only) = (vec![Fault::WrongByte], usize::MAX, Some(path.clone()));
    });
    let said = scene.pull().unwrap_err();
    assert!(said.contains("does not match its digest"), "{said}");
    assert_eq!(scene.user.check_store().1, Vec::<String>::new());
    assert_eq!(asked(&scene, 0).len(), 1, "once is enough");
    assert_eq!(std::fs::read_dir(scene.user.store().join("partial")).unwrap().count(), 0);

    // What an earlier pull left is wrong, as after a loss of power: all is fetched, without a word.
    scene.proxy.calm();
    std::fs::write(scene.user.store().join("partial").join(scene.layer.hex()), vec![7; 100_000]).unwrap();
    scene.pull().unwrap();
    scene.whole();
    assert!(asked(&scene, 1).contains(&(0..scene.layer_bytes())));
}

#[test]
fn redirects_are_followed_here_and_away_but_not_round_and_round() {
    let scene = Scene::new(layers(2, 100_000), Weather::default());
    let elsewhere = Proxy::start(&scene.rhub.address, Weather::default());
    let target = elsewhere.address.clone();
    scene.proxy.set(|weather| {
        weather.faults = vec![Fault::RedirectHere, Fault::RedirectAway, Fault::Middle];
        (weather.blob_faults, weather.elsewhere, weather.seed) = (6, Some(target), seed());
    });
    scene.pull().unwrap();
    scene.whole();
    assert!(elsewhere.passed().iter().any(|passed| passed.path.contains("/blobs/")));
    scene.forget();
    scene.proxy.set(|weather| (weather.faults, weather.blob_faults) = (vec![Fault::RedirectLoop], usize::MAX));
    let before = scene.proxy.passed().len();
    let said = scene.pull().unwrap_err();
    assert!(said.contains("redirect"), "{said}");
    assert!(scene.proxy.passed().len() - before < 30, "a loop is no matter of patience");
}

#[test]
fn who_says_how_long_to_wait_is_waited_for_and_who_says_no_is_not_asked_again() {
    let weather = Weather { faults: vec![Fault::TooManyAfter(1)], other_faults: 1, ..Weather::default() };
    let scene = Scene::new(Image::new(&[tar(&[("a", b"x")])]), weather);
    scene.pull().unwrap();
    let passed = scene.proxy.passed();
    assert_eq!((passed[0].fault, &passed[0].path), (Some(Fault::TooManyAfter(1)), &passed[1].path));
    assert!(passed[1].at - passed[0].at >= Duration::from_secs(1));

    scene.forget();
    scene.proxy.set(|weather| (weather.faults, weather.other_faults) = (vec![Fault::TooManyAfter(86_400)], usize::MAX));
    let said = scene.pull().unwrap_err();
    assert!(said.contains("try again in 86400 seconds"), "{said}");
    assert_eq!(scene.proxy.passed().len(), passed.len() + 1);

    scene.proxy.calm();
    let said = scene.user.fail("rpull", &[&format!("{}/app:absent", scene.proxy.address)]);
    assert!(said.contains("there is no such tag"), "{said}");
    assert_eq!(scene.proxy.passed().len(), passed.len() + 2, "404 is an answer");
}

/// A mirror of which blobs come a byte at a time, for ever; from the fifth on as they should, so that a test ends. Gives
/// its address, and how many were asked for.
fn dripping(image: &Image) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, asked) = (listener.local_addr().unwrap().to_string(), Arc::new(AtomicUsize::new(0)));
    let (count, blobs) = (Arc::clone(&asked), image.blobs().cloned().collect::<Vec<_>>());
    let serve = move |mut stream: TcpStream| {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let head: Vec<String> = lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
        let Some(blob) = blobs.iter().find(|blob| head.first().is_some_and(|line| line.contains(blob.digest().as_str()))) else {
            return stream.write_all(b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        };
        let is_slow = count.fetch_add(1, Ordering::Relaxed) < 4;
        stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", blob.bytes.len()).as_bytes())?;
        for byte in &blob.bytes {
            stream.write_all(&[*byte])?;
            if is_slow {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    };
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let serve = serve.clone();
            // Who goes away has had enough.
            std::thread::spawn(move || drop(serve(stream.unwrap())));
        }
    });
    (address, asked)
}

#[test]
fn a_mirror_that_drips_is_left_for_the_registry() {
    let scene = Scene::new(layers(1, 40_000), Weather::default());
    let (mirror, asked) = dripping(&scene.image);
    let config = scene.user.home().join("registries.toml");
    std::fs::write(&config, format!("[\"{}\"]\nmirrors = [\"http://{mirror}\"]\n", scene.proxy.address)).unwrap();
    let output = scene.command().env("LONGSHORE_REGISTRIES", &config).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    scene.whole();
    // The layer and the configuration, once each.
    assert!((1..=2).contains(&asked.load(Ordering::Relaxed)), "{asked:?}");
}

/// A large layer, by a network that gives each connection little.
fn slow(bytes: usize, bytes_per_second: u64) -> Scene {
    let link = Some(Link { latency: Duration::from_millis(5), bytes_per_second });
    Scene::new(layers(1, bytes), Weather { link, ..Weather::default() })
}

/// What of the one partial download is whole, by its journal: see `runtime/src/download/partial.rs`.
fn whole_chunks(scene: &Scene) -> Vec<Range<u64>> {
    whole_chunks_of(scene, &scene.user.store().join("partial").join(scene.layer.hex()))
}

fn whole_chunks_of(scene: &Scene, path: &Path) -> Vec<Range<u64>> {
    const CHUNK: u64 = 8 << 20;
    const MAGIC_BYTES: usize = 16;
    let size = scene.layer_bytes();
    let Ok(file) = std::fs::File::open(path) else { return vec![] };
    let length = file.metadata().unwrap().len();
    if length <= size {
        return if length == 0 { vec![] } else { std::iter::once(0..length).collect() };
    }
    let mut journal = vec![0; usize::try_from(length - size).unwrap()];
    file.read_exact_at(&mut journal, size).unwrap();
    let whole = (0..).zip(&journal[MAGIC_BYTES..]).filter(|(_, state)| **state == 1);
    whole.map(|(at, _)| at * CHUNK..((at + 1) * CHUNK).min(size)).collect()
}

/// Whether the partial download has a journal that lists more than the first chunk.
fn has_journal(scene: &Scene) -> bool {
    is_journal(&whole_chunks(scene))
}

fn is_journal(chunks: &[Range<u64>]) -> bool {
    chunks.len() > 1 || chunks.first().is_some_and(|chunk| chunk.start > 0)
}

/// The bytes of the layer that requests asked for.
fn asked(scene: &Scene, from: usize) -> Vec<Range<u64>> {
    let path = format!("/v2/app/blobs/{}", scene.layer);
    let size = scene.layer_bytes();
    let of_layer = scene.proxy.passed().into_iter().skip(from).filter(|passed| passed.path == path);
    let range = |text: &str| {
        let (first, last) = text.trim_start_matches("bytes=").split_once('-').unwrap();
        first.parse().unwrap()..last.parse::<u64>().map_or(size, |last| last + 1)
    };
    of_layer.map(|passed| passed.range.map_or(0..size, |text| range(&text))).collect()
}

#[test]
fn a_large_layer_comes_by_several_connections_where_each_is_slow_and_by_one_where_it_is_not() {
    let scene = slow(96 << 20, 12 << 20);
    scene.pull().unwrap();
    scene.whole();
    assert!(scene.proxy.most_open() > 2, "{} connections", scene.proxy.most_open());
    scene.travelled_hardly_twice();

    scene.forget();
    scene.proxy.set(|weather| weather.link = None);
    let before = scene.proxy.passed().len();
    scene.pull().unwrap();
    scene.whole();
    assert_eq!(asked(&scene, before), std::iter::once(0..scene.layer_bytes()).collect::<Vec<_>>());
}

#[test]
fn where_nobody_gives_ranges_a_slow_layer_comes_by_the_connection_there_is() {
    for latency_ms in [5, 60] {
        let link = Some(Link { latency: Duration::from_millis(latency_ms), bytes_per_second: 20 << 20 });
        let weather = Weather { link, faults: vec![Fault::NoRange], blob_faults: usize::MAX, ..Weather::default() };
        let scene = Scene::new(layers(1, 64 << 20), weather);
        scene.pull().unwrap();
        scene.whole();
        assert!(asked(&scene, 0).len() > 1, "others were tried");
        scene.travelled_hardly_twice();
    }
}

#[test]
fn ranges_at_a_time_come_through_faults_liars_and_stragglers() {
    use Fault::{Middle, OtherOffset, Reset, SlowLoris, Stall, TooMany};
    let scene = slow(64 << 20, 12 << 20);
    scene.proxy.set(|weather| {
        weather.faults = vec![Middle, OtherOffset, Stall, TooMany, Reset, SlowLoris];
        (weather.blob_faults, weather.seed) = (18, seed());
    });
    scene.pull().unwrap();
    scene.whole();
}

#[test]
fn a_pull_by_ranges_killed_at_any_moment_fetches_no_whole_chunk_again() {
    let kills = if std::env::var_os("LONGSHORE_LONG").is_some() { 200 } else { 8 };
    let mut state = seed();
    let scene = slow(64 << 20, 10 << 20);
    let started = Instant::now();
    scene.pull().unwrap();
    let whole_pull = started.elapsed();
    scene.forget();
    let mut resumed_from_journal = 0;
    for kill in 1..=kills {
        let before_kill = (whole_chunks(&scene), scene.proxy.passed().len());
        let mut pulling = scene.command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // The last one before a whole pull comes when the journal lists something.
        let moment = whole_pull.mul_f64((random(&mut state) % 1000) as f64 / 1000.0 * 0.5);
        let deadline = Instant::now() + moment;
        let is_due = || if kill % 4 == 0 { has_journal(&scene) } else { Instant::now() >= deadline };
        while !is_due() && pulling.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        pulling.kill().unwrap();
        pulling.wait().unwrap();
        check_none_again(&scene, &before_kill);
        if kill % 4 == 0 {
            let before = (whole_chunks(&scene), scene.proxy.passed().len());
            resumed_from_journal += usize::from(has_journal(&scene));
            scene.pull().unwrap();
            check_none_again(&scene, &before);
            scene.whole();
            scene.forget();
        }
    }
    assert!(resumed_from_journal > 0, "no kill came in the midst of ranges");
}

#[test]
fn a_layer_comes_into_a_layout_as_it_comes_into_the_store() {
    let scene = slow(64 << 20, 10 << 20);
    let layout = scene.user.home().join("layout");
    let partial = layout.join(format!(".partial-sha256-{}", scene.layer.hex()));
    let copy = || {
        let mut command = scene.user.command("rbox", &["copy", "-q", &scene.name, &format!("oci:{}:1", layout.display())]);
        command.stdout(Stdio::null()).env("LONGSHORE_TEST_TIMING", TIMING);
        command
    };
    let mut copying = copy().spawn().unwrap();
    wait_until("the journal lists something", || is_journal(&whole_chunks_of(&scene, &partial)));
    copying.kill().unwrap();
    copying.wait().unwrap();
    assert!(scene.proxy.most_open() > 2, "{} connections", scene.proxy.most_open());
    let before = (whole_chunks_of(&scene, &partial), scene.proxy.passed().len());
    assert!(copy().status().unwrap().success());
    check_none_again(&scene, &before);
    let blob = layout.join("blobs/sha256").join(scene.layer.hex());
    assert_eq!(std::fs::read(blob).unwrap(), scene.image.layers[0].bytes);
    assert!(!partial.exists());
}

#[test]
fn a_long_way_off_more_layers_come_at_a_time_unless_somebody_says_how_many() {
    let layout = tempfile::tempdir().unwrap();
    let to = format!("oci:{}:1", layout.path().join("layout").display());
    let most_open = |latency_ms, words: &[&str]| {
        let link = Link { latency: Duration::from_millis(latency_ms), bytes_per_second: 100 << 10 };
        let scene = Scene::new(layers(14, 50_000), Weather { link: Some(link), ..Weather::default() });
        let words: Vec<&str> = words.iter().map(|word| if *word == "NAME" { &*scene.name } else { word }).collect();
        scene.user.succeed("rbox", &words);
        scene.proxy.most_open()
    };
    assert!(most_open(120, &["pull", "-q", "NAME"]) > 10);
    assert!(most_open(120, &["copy", "-q", "NAME", &to]) > 10);
    assert!(most_open(120, &["pull", "-q", "--jobs", "2", "NAME"]) <= 3);
    assert!(most_open(0, &["pull", "-q", "NAME"]) <= 5);
}

/// None of the chunks that were whole then has been asked for since.
fn check_none_again(scene: &Scene, (chunks, requests): &(Vec<Range<u64>>, usize)) {
    for range in asked(scene, *requests) {
        let again = chunks.iter().find(|chunk| chunk.start < range.end && range.start < chunk.end);
        assert_eq!(again, None, "{range:?} was asked for");
    }
}
