//! `rrun`: what a container sees, what passes in and out of it, and where its image comes from.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::common::needs::installed;
use super::fixture::{Kind, Mounts, Ready, layout, nothing_left};
use super::tools::stderr;

#[test]
fn the_exit_code_is_the_command_s_or_says_why_there_was_none() {
    let Some(ready) = Ready::new() else { return };
    let cases: [(&[&str], &[&str], i32, &str); 11] = [
        (&[], &["sh", "-c", "exit 7"], 7, ""),
        (&[], &["sh", "-c", "exit 255"], 255, ""),
        (&[], &["true"], 0, ""),
        (&[], &["no-such-command"], 127, "no-such-command"),
        (&[], &["/no/such/command"], 127, "/no/such/command"),
        (&[], &["/etc/passwd"], 126, "/etc/passwd"),
        (&[], &["/etc"], 126, "/etc"),
        (&["-u", "nobody-here"], &["true"], 125, "nobody-here"),
        (&["-v", "/no/such/directory:/v"], &["true"], 125, "/no/such/directory"),
        (&["-v", "nonsense"], &["true"], 125, "nonsense"),
        (&["--no-such-option"], &["true"], 125, "--no-such-option"),
    ];
    for (options, command, code, part) in cases {
        let output = ready.run(options, command);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{options:?} {command:?}: {said}");
        assert!(said.contains(part) && said.is_empty() == part.is_empty(), "{options:?} {command:?}: {said}");
    }
    ready.user.check_store();
}

#[test]
fn a_signal_to_rrun_reaches_the_container() {
    let Some(ready) = Ready::new() else { return };
    for (signal, name) in [(Signal::TERM, "TERM"), (Signal::INT, "INT"), (Signal::HUP, "HUP"), (Signal::USR1, "USR1")] {
        let script = format!("trap 'echo caught {name}; exit 33' {name}; echo up; sleep 1000 & wait");
        let mut running = ready.start(&script);
        running.signal(signal);
        let mut rest = String::new();
        running.out.read_to_string(&mut rest).unwrap();
        assert_eq!((running.child.wait().unwrap().code(), rest), (Some(33), format!("caught {name}\n")));
    }
}

#[test]
fn standard_input_is_the_container_s_only_when_asked_for() {
    let Some(ready) = Ready::new() else { return };
    let cat = |options: &[&str], input: &[u8]| {
        let mut child = ready.command(options, &["cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            // Without -i nobody reads, so that writing may fail.
            scope.spawn(move || stdin.write_all(input));
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success());
            output.stdout
        })
    };
    let long: Vec<u8> = (0..1_000_000_u32).map(|n| n as u8).collect();
    assert_eq!(cat(&["-i"], &long), long);
    assert_eq!(cat(&[], b"not for the container"), b"");
}

#[test]
fn output_and_errors_stay_apart_and_a_closed_reader_ends_the_writer() {
    let Some(ready) = Ready::new() else { return };
    let output = ready.run(&[], &["sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    let mut child = ready.command(&["--rm"], &["yes"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut some = [0; 100];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    assert!(!child.wait().unwrap().success(), "killed by SIGPIPE, or a write error");
}

#[test]
fn what_runs_and_as_whom_is_the_image_s_choice_and_each_option_overrides_it() {
    let Some(ready) = Ready::new() else { return };
    let out = |options: &[&str], command: &[&str]| {
        let output = ready.run(options, command);
        assert!(output.status.success(), "{options:?} {command:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    // The image says: command /bin/sh, working directory /root, a PATH.
    assert_eq!(
        ready.sh(&[], "pwd; id -u; echo $HOME $PATH"),
        "/root\n0\n/root /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
    );
    assert_eq!(out(&["--entrypoint", "echo"], &["a", "b c"]), "a b c\n");
    assert_eq!(out(&["-w", "/usr/share"], &["pwd"]), "/usr/share\n");
    assert_eq!(out(&["-w", "/made/on/demand"], &["pwd"]), "/made/on/demand\n");
    assert_eq!(out(&["-u", "app"], &["id"]), "uid=1000(app) gid=1000(app) groups=1000(app)\n");
    assert_eq!(out(&["-u", "app:root"], &["id", "-g"]), "0\n");
    assert_eq!(out(&["-u", "1234:4321"], &["sh", "-c", "id -u; id -g"]), "1234\n4321\n");
    assert_eq!(
        out(&["--hostname", "box"], &["sh", "-c", "hostname; cat /etc/hostname; grep -c box /etc/hosts"]),
        "box\nbox\n1\n"
    );
    let environment = out(&["-e", "A=1", "-e", "B=two words", "-e", "HERE", "-e", "ABSENT"], &["env"]);
    for line in ["A=1", "B=two words"] {
        assert!(environment.lines().any(|other| other == line), "{environment}");
    }
    assert!(!environment.contains("ABSENT") && !environment.contains("HERE"), "{environment}");
    let output = ready.command(&["-e", "HERE"], &["env"]).env("HERE", "of the host").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("HERE=of the host\n"));
}

#[test]
fn the_network_is_none_or_the_host_s() {
    let Some(ready) = Ready::new() else { return };
    let host = std::fs::read_link("/proc/self/ns/net").unwrap();
    let namespace = |options: &[&str]| ready.sh(options, "readlink /proc/self/ns/net");
    assert_eq!(namespace(&["--network", "host"]).trim(), host.to_str().unwrap());
    assert_ne!(namespace(&["--network", "none"]).trim(), host.to_str().unwrap());
    assert_ne!(namespace(&[]).trim(), host.to_str().unwrap());
    assert_eq!(ready.sh(&["--network", "none"], "ls /sys/class/net"), "lo\n");
    // The image's ping has its right as a file capability.
    let ping = |options: &[&str]| ready.run(&[&["-u", "app"], options].concat(), &["ping", "-c", "1", "127.0.0.1"]).status.code();
    assert_eq!(ping(&[]), Some(0), "loopback is up, and capabilities of files count");
    assert_eq!(ping(&["--security-opt", "no-new-privileges"]), Some(1), "capabilities of files do not count");
    assert_eq!(ready.sh(&["--security-opt", "no-new-privileges"], "grep NoNewPrivs /proc/self/status"), "NoNewPrivs:\t1\n");
    assert_eq!(ready.sh(&[], "grep NoNewPrivs /proc/self/status"), "NoNewPrivs:\t0\n");
}

#[test]
fn volumes_are_the_host_s_directories_and_read_only_means_it() {
    let Some(ready) = Ready::new() else { return };
    let host = ready.user.home().join("shared");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("from-host"), "hello").unwrap();
    let volume = format!("{}:/srv/shared", host.display());
    assert_eq!(ready.sh(&["-v", &volume], "cat /srv/shared/from-host; echo back > /srv/shared/from-container"), "hello");
    assert_eq!(std::fs::read_to_string(host.join("from-container")).unwrap(), "back\n");
    let refused = |options: &[&str], path: &str| {
        let output = ready.run(options, &["touch", path]);
        assert!(!output.status.success() && stderr(&output).contains("Read-only file system"), "{path}: {}", stderr(&output));
    };
    let read_only = format!("{volume}:ro");
    refused(&["-v", &read_only], "/srv/shared/new");
    refused(&["-v", &read_only], "/srv/shared/from-host");
    assert_eq!(ready.sh(&["-v", &read_only], "mount -o remount,rw /srv/shared 2>/dev/null; cat /srv/shared/from-host"), "hello");
    assert!(!host.join("new").exists());
    let file = format!("{}:/a/new/path:ro", host.join("from-host").display());
    assert_eq!(ready.sh(&["-v", &file], "cat /a/new/path"), "hello");
    refused(&["--read-only"], "/new");
    refused(&["--read-only"], "/tmp/new");
    assert_eq!(ready.sh(&["--read-only", "-v", &volume], "touch /srv/shared/new /dev/shm/new && echo fine"), "fine\n");
    assert!(host.join("new").exists());
}

#[test]
fn a_container_sees_the_image_as_it_is_and_its_changes_are_its_own() {
    let Some(ready) = Ready::new() else { return };
    assert_eq!(
        ready.sh(&[], "ls /usr/share /usr/share/kept /var/lib/app; find / -xdev -name '.wh*'"),
        "/usr/share:\nkept\n\n/usr/share/kept:\nfile\n\n/var/lib/app:\nnew\nsub\n"
    );
    assert_eq!(
        ready.sh(&[], "stat -c '%a %u:%g' /bin/su /srv/links/owned; stat -c %h /srv/links/a/first"),
        "4755 0:0\n6711 1234:4321\n3\n"
    );
    let change =
        "rm -r /usr; echo changed > /etc/passwd; mkdir /new; rm /srv/links/a/first; ls -d /usr 2>/dev/null; cat /etc/passwd";
    assert_eq!(ready.sh(&[], change), "changed\n");
    assert_eq!(
        ready.sh(&[], "ls -d /usr /srv/links/a/first; ls -d /new 2>/dev/null; head -c 4 /etc/passwd"),
        "/srv/links/a/first\n/usr\nroot"
    );
    ready.user.check_store();
}

#[test]
fn the_image_is_looked_for_here_first_and_then_in_its_registry() {
    let Some(ready) = Ready::new() else { return };
    let Some(layout) = layout(Kind::Small) else { return };
    let user = &ready.user;
    let other = format!("{}/team/other:2", ready.rhub.address);
    user.succeed("rpush", &[&format!("oci:{layout}"), &other]);
    let never = user.output("rrun", &["--pull", "never", &other, "true"]);
    assert_eq!(never.status.code(), Some(125));
    assert!(stderr(&never).contains("not found") && stderr(&never).contains("rpull"), "{}", stderr(&never));
    let missing = user.output("rrun", &[&other, "echo", "here"]);
    assert_eq!((missing.status.code(), &missing.stdout[..]), (Some(0), &b"here\n"[..]), "{}", stderr(&missing));
    assert!(stderr(&missing).contains("Unable to find image"), "{}", stderr(&missing));
    assert_eq!(stderr(&user.output("rrun", &["--pull", "never", &other, "true"])), "");

    // The tag moves: what is here is used until it is asked for anew.
    let before = user.succeed("rbox", &["inspect", &other]);
    ready.rhub.push_image("team/other", "2", "not an archive");
    assert_eq!(user.output("rrun", &[&other, "true"]).status.code(), Some(0));
    assert_eq!(user.output("rrun", &["--pull", "always", &other, "true"]).status.code(), Some(125), "the new one is of no use");
    assert_eq!(user.succeed("rbox", &["inspect", &other]), before);
    let small = ready.rhub.get("/v2/team/small/manifests/1");
    let reply = ready.rhub.put_manifest("team/other", "2", small.header("content-type"), &small.body);
    assert_eq!(reply.status, 201);
    assert_eq!(user.output("rrun", &["-q", "--pull", "always", &other, "true"]).status.code(), Some(0));

    // Without a registry what is here still runs.
    let Ready { rhub, user, image, .. } = ready;
    rhub.kill_nine();
    assert_eq!(user.succeed("rrun", &[&image, "echo", "alone"]), "alone\n");
    let always = user.output("rrun", &["--pull", "always", &image, "true"]);
    assert_eq!(always.status.code(), Some(125));
    assert!(stderr(&always).contains("cannot reach registry"), "{}", stderr(&always));
    user.check_store();
}

#[test]
fn ten_containers_at_once_are_ten() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let script = |n: usize| format!("echo {n} > /tmp/own; hostname; cat /tmp/own; exit {n}");
    let children: Vec<_> = (0..10)
        .map(|n| ready.command(&[], &["sh", "-c", &script(n)]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        .collect();
    let mut names = std::collections::BTreeSet::new();
    for (n, child) in children.into_iter().enumerate() {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(n as i32), "{}", stderr(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        let (name, own) = text.trim().split_once('\n').unwrap();
        assert_eq!(own, n.to_string());
        names.insert(name.to_owned());
    }
    assert_eq!(names.len(), 10);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    nothing_left(&ready.user, &before, &names);
    ready.user.check_store();
}

#[test]
fn a_host_without_a_terminal_can_still_give_one() {
    let Some(ready) = Ready::new() else { return };
    let on_a_terminal = "[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && tty";
    let output = ready.run(&["-t"], &["sh", "-c", on_a_terminal]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "/dev/pts/0\r\n", "{}", stderr(&output));
    assert!(!ready.run(&[], &["sh", "-c", "[ -t 0 ] || [ -t 1 ] || [ -t 2 ]"]).status.success());
}

#[test]
fn a_terminal_passes_keys_in_and_ends_with_the_container() {
    let Some(ready) = Ready::new() else { return };
    if !installed("script") {
        return;
    }
    let script =
        "[ -t 0 ] && [ -t 1 ] && tty && read line && echo \"read $line\"; trap 'exit 44' INT; echo ready; sleep 1000 & wait";
    let rrun = ready.command(&["-it"], &["sh", "-c"]);
    let words = std::iter::once(rrun.get_program()).chain(rrun.get_args()).map(|word| word.to_str().unwrap());
    let line = format!("{} '{}'", words.collect::<Vec<_>>().join(" "), script.replace('\'', "'\\''"));
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &line, "/dev/null"]).envs(rrun.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut child = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut keys, mut out) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    let mut until = |wanted: &str| {
        let mut line = String::new();
        while out.read_line(&mut line).unwrap() > 0 && !line.contains(wanted) {}
        assert!(line.contains(wanted), "{line:?} has no {wanted:?}");
    };
    until("/dev/pts/0");
    keys.write_all(b"a line\n").unwrap();
    until("read a line");
    until("ready");
    keys.write_all(b"\x03").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(44), "^C is the container's");
}
