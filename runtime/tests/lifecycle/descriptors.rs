//! Descriptors, pidfds and numbers that go from the caller to the container and back.

use std::fs;
use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use crate::container::{Container, SERVICE, wait_until};

/// A descriptor that the next child inherits under `number`. Tests of one process share its table: each
/// number is one test's.
fn inherited(number: i32, text: &str) -> OwnedFd {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    rustix::io::write(&writer, text.as_bytes()).unwrap();
    let high = rustix::io::fcntl_dupfd_cloexec(&reader, number).unwrap();
    rustix::io::fcntl_setfd(&high, rustix::io::FdFlags::empty()).unwrap();
    high
}

/// Through a shell, which places descriptors: what this test process has open is not to be moved.
fn with_three_and_four(container: &Container, verb: &str) -> std::process::Output {
    let script = "exec 3<<three 4<<four; shift 0\nthree text\nthree\nfour text\nfour\nexec \"$@\"";
    let script = script.replace("; shift 0", "");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &script, "sh", crate::bundle::ROCI, "--root"]).arg(container.state.path()).arg(verb);
    command.args(["--preserve-fds", "2"]);
    if verb == "run" {
        command.arg("--bundle").arg(container.bundle.directory.path()).arg(container.id());
    } else {
        command.args([container.id(), "sh", "-c", "cat <&3; cat <&4; ls /proc/self/fd"]);
    }
    command.stdin(std::process::Stdio::null()).output().unwrap()
}

#[test]
fn preserved_descriptors_keep_their_numbers_and_no_others_come_along() {
    let Some(container) = Container::sh("cat <&3; cat <&4; ls /proc/self/fd") else { return };
    container.write(|_| {});
    let expected = "three text\nfour text\n0\n1\n2\n3\n4\n5";
    let output = crate::bundle::Run::of(with_three_and_four(&container, "run"));
    assert_eq!(output.ok(), expected);
    let service = Container::service().unwrap();
    let output = crate::bundle::Run::of(with_three_and_four(&service, "exec"));
    assert_eq!(output.ok(), expected);
}

#[test]
fn a_preserved_number_that_is_not_open_is_an_error_and_never_a_file_of_roci_s() {
    let Some(container) = Container::sh("ls -l /proc/self/fd") else { return };
    container.write(|_| {});
    let log = container.file("log");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "exec 3<&- 4<&-; exec \"$@\"", "sh", crate::bundle::ROCI, "--log"]).arg(log).arg("--root");
    command.arg(container.state.path()).args(["run", "--preserve-fds", "2", "--bundle"]).arg(container.bundle.directory.path());
    let run = crate::bundle::Run::of(command.arg(container.id()).output().unwrap());
    assert_eq!(run.code, Some(125), "{run:?}");
    assert!(run.err.contains("--preserve-fds"), "{run:?}");
    let many = container.create(&["--preserve-fds", "100000"]);
    assert!(many.code == Some(1) && many.err.contains("at most"), "{many:?}");
}

#[test]
fn sockets_of_a_service_manager_are_passed_on_with_their_variables() {
    let Some(container) = Container::sh("echo $LISTEN_FDS $LISTEN_PID $$; cat <&3") else { return };
    container.write(|_| {});
    let script = "exec 3<<end\nsocket\nend\nexport LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script, "sh", crate::bundle::ROCI, "--root"]).arg(container.state.path()).args(["run", "--bundle"]);
    let run = crate::bundle::Run::of(command.arg(container.bundle.directory.path()).arg(container.id()).output().unwrap());
    assert_eq!(run.ok(), "1 1 1\nsocket");
}

/// The descriptor somebody sends, and the word with it.
pub(crate) fn receive(listener: &UnixListener) -> (OwnedFd, String) {
    let (stream, _) = listener.accept().unwrap();
    let mut text = [0; 64];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut text)];
    let length = rustix::net::recvmsg(stream.as_fd(), &mut slices, &mut ancillary, RecvFlags::empty()).unwrap().bytes;
    let fd = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    (fd.expect("a descriptor"), String::from_utf8_lossy(&text[..length]).into_owned())
}

#[test]
fn a_pidfd_of_the_container_s_process_is_sent_to_who_asks() {
    let Some(container) = Container::sh(SERVICE) else { return };
    container.write(|_| {});
    let path = container.file("pidfd.sock");
    let listener = UnixListener::bind(&path).unwrap();
    container.create(&["--pidfd-socket", path.to_str().unwrap()]).ok();
    let (pidfd, word) = receive(&listener);
    assert_eq!(word, "pidfd");
    let mut info = String::new();
    let number = std::os::fd::AsRawFd::as_raw_fd(&pidfd);
    fs::File::open(format!("/proc/self/fdinfo/{number}")).unwrap().read_to_string(&mut info).unwrap();
    assert!(info.contains(&format!("Pid:\t{}\n", container.pid())), "{info}");
    container.roci(&["delete", "--force", container.id()]).ok();
    let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut fds, None).unwrap();
}

#[test]
fn a_pid_file_is_replaced_as_a_whole_and_one_that_cannot_be_written_stops_the_container() {
    let Some(container) = Container::sh(SERVICE) else { return };
    container.write(|_| {});
    let path = container.file("pid");
    fs::write(&path, "an older number that is longer").unwrap();
    container.create(&["--pid-file", path.to_str().unwrap()]).ok();
    assert_eq!(fs::read_to_string(&path).unwrap(), container.pid().to_string());
    container.roci(&["delete", "--force", container.id()]).ok();
    let run = container.create(&["--pid-file", "/nowhere/pid"]);
    assert!(run.code == Some(1) && run.err.contains("/nowhere/pid"), "{run:?}");
    assert!(container.is_gone());
    assert!(!Path::new("/nowhere").exists());
}

#[test]
fn the_container_inherits_its_creator_s_input_and_output() {
    let Some(container) = Container::sh("cat; echo error >&2") else { return };
    container.write(|_| {});
    let input = inherited(90, "from the creator\n");
    let mut command = container.command(&["create", "--bundle"]);
    command.arg(container.bundle.directory.path()).arg(container.id()).stdin(input);
    let file = |name: &str| fs::File::create(container.file(name)).unwrap();
    assert!(command.stdout(file("out")).stderr(file("err")).status().unwrap().success());
    container.roci(&["start", container.id()]).ok();
    wait_until(|| container.out() == "from the creator" && container.err() == "error");
}
