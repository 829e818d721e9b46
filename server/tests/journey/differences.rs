//! `rbox diff`: what a container has changed, and how images differ.

use super::dockerd::Dockerd;
use super::fixture::{Kind, Ready, layout};
use super::image::{Image, tar};
use super::rootless::{Ordinary, RANGE};
use super::tools::User;

/// Changes of every kind.
const SCRIPT: &str = "echo x >/new && mkdir -p /made/below && echo y >/made/below/file && ln -s /nowhere /link && \
     echo more >>/etc/passwd && rm /usr/share/kept/file && chmod 700 /srv && rm -r /srv/links/a && mkdir /srv/links/a";

#[test]
fn what_a_container_changed_is_listed_as_by_docker() {
    let Some(ready) = Ready::new() else { return };
    let user = &ready.user;
    assert!(ready.run(&["--name", "quiet"], &["true"]).status.success());
    assert_eq!(user.succeed("rbox", &["diff", "quiet"]), "", "what the engine made is none of its changes");
    let output = ready.run(&["--name", "busy"], &["sh", "-c", SCRIPT]);
    assert!(output.status.success(), "{}", super::tools::stderr(&output));
    let expected = [
        "C /etc",
        "C /etc/passwd",
        "A /link",
        "A /made",
        "A /made/below",
        "A /made/below/file",
        "A /new",
        "C /srv",
        "C /srv/links",
        "C /srv/links/a",
        "D /srv/links/a/first",
        "C /usr",
        "C /usr/share",
        "C /usr/share/kept",
        "D /usr/share/kept/file",
    ];
    let said = user.succeed("rbox", &["container", "diff", "busy"]);
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
    user.succeed("rbox", &["rm", "quiet", "busy"]);
}

#[test]
fn docker_lists_the_same() {
    let Some(layout) = layout(Kind::Small) else { return };
    let Some(dockerd) = Dockerd::start(&layout, "box") else { return };
    let Some(ready) = Ready::new() else { return };
    dockerd.succeed(&["run", "--name", "busy", "--network", "none", "box", "sh", "-c", SCRIPT]);
    assert!(ready.run(&["--name", "busy"], &["sh", "-c", SCRIPT]).status.success());
    let sorted = |text: String| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    assert_eq!(sorted(ready.user.succeed("rbox", &["diff", "busy"])), sorted(dockerd.succeed(&["diff", "busy"])));
    ready.user.succeed("rbox", &["rm", "busy"]);
}

#[test]
fn an_ordinary_user_sees_the_same() {
    let Some(ready) = Ready::new() else { return };
    let Some(ordinary) = Ordinary::new(RANGE) else { return };
    let run = |program: &str, arguments: &[&str]| {
        let output = ordinary.output(program, arguments);
        assert!(output.status.success(), "{program} {arguments:?}: {}", super::tools::stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    run("rrun", &["-q", "--name", "busy", &ready.image, "sh", "-c", SCRIPT]);
    assert!(ready.run(&["--name", "busy"], &["sh", "-c", SCRIPT]).status.success());
    assert_eq!(run("rbox", &["diff", "busy"]), ready.user.succeed("rbox", &["diff", "busy"]));
    run("rbox", &["rm", "busy"]);
    ready.user.succeed("rbox", &["rm", "busy"]);
}

#[test]
fn two_images_differ_in_layers_configuration_and_files() {
    let user = User::new();
    let base = tar(&[("etc/same", b"a"), ("etc/other", b"b"), ("gone", b"c")]);
    let images = [
        Image::new(std::slice::from_ref(&base)),
        Image::new(&[base.clone(), tar(&[("etc/other", b"B"), ("etc/new", b"d"), (".wh.gone", b"")])]),
    ];
    for (at, image) in images.iter().enumerate() {
        let layout = tempfile::tempdir().unwrap();
        image.write_layout(layout.path(), "v1");
        let archive = user.home().join(format!("{at}.tar"));
        let mut command = std::process::Command::new("tar");
        assert!(command.arg("-C").arg(layout.path()).arg("-cf").arg(&archive).arg(".").status().unwrap().success());
        user.succeed("rbox", &["load", "-i", &archive.display().to_string()]);
    }
    let ids = user.succeed("rbox", &["images", "-q", "--no-trunc"]);
    let name = |image: &Image| ids.lines().find(|id| *id == image.config.digest().as_str()).unwrap().to_owned();
    let [one, two] = [name(&images[0]), name(&images[1])];
    let said = user.succeed("rbox", &["diff", &one, &two]);
    let expected = "Layers: 1 in common, 0 of the first, 1 of the second\nC /etc\nA /etc/new\nC /etc/other\nD /gone\n";
    assert_eq!(said, expected);
    assert_eq!(user.succeed("rbox", &["diff", &two, &two]).lines().count(), 1);
}
