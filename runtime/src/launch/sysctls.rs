//! `linux.sysctl`: kernel settings, of the container's own namespaces only.

use std::ffi::CString;

use oci_spec::runtime::Spec;

use super::namespaces::Namespaces;
use super::rootfs::c_string;
use crate::error::{Error, Result};

/// Of an ipc namespace; beside `fs/mqueue/*`.
const OF_IPC: [&str; 8] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shm_rmid_forced",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
];

/// The settings as paths below `/proc` and values. One that is the host's, or of a namespace the
/// container shares with the host, is refused.
pub(super) fn read(spec: &Spec, namespaces: &Namespaces) -> Result<Vec<(CString, Vec<u8>)>> {
    let settings = spec.linux().as_ref().and_then(|linux| linux.sysctl().as_ref());
    let mut list = Vec::new();
    for (name, value) in settings.into_iter().flatten() {
        let path = path(name).ok_or_else(|| Error::invalid(format!("sysctl {name:?}"), "it is not a name below /proc/sys"))?;
        check(spec, &path, value, namespaces).map_err(|why| Error::invalid(format!("linux.sysctl: {name}"), why))?;
        list.push((c_string("sysctl name", format!("sys/{path}"))?, value.clone().into_bytes()));
    }
    list.sort();
    Ok(list)
}

/// `net.ipv4.ip_forward` or `net/ipv4/ip_forward` as a path below `/proc/sys`. As sysctl(8) has it, the
/// first of the two separators is the separator and the other stands for itself: `net/ipv4/conf/eth0.100`,
/// or with both swapped `net.ipv4.conf.eth0/100`.
fn path(name: &str) -> Option<String> {
    let path = match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'.' => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    };
    let usable = !path.split('/').any(|part| matches!(part, "" | "." | ".."));
    usable.then_some(path)
}

fn check(spec: &Spec, path: &str, value: &str, namespaces: &Namespaces) -> std::result::Result<(), String> {
    let of = |kind: i32, name: &str| {
        if namespaces.separates(kind) { Ok(()) } else { Err(format!("it needs a {name} namespace of the container's own")) }
    };
    if path.starts_with("net/") {
        return of(libc::CLONE_NEWNET, "network");
    }
    if path.starts_with("fs/mqueue/") || OF_IPC.contains(&path) {
        return of(libc::CLONE_NEWIPC, "ipc");
    }
    if path.starts_with("user/") {
        return of(libc::CLONE_NEWUSER, "user");
    }
    match path {
        "kernel/hostname" => Err("it says what the field hostname is for".into()),
        "kernel/domainname" if spec.domainname().as_ref().is_some_and(|name| !name.is_empty() && name != value) => {
            Err("the field domainname says otherwise".into())
        }
        "kernel/domainname" => of(libc::CLONE_NEWUTS, "uts"),
        _ => Err("it belongs to no namespace: it would change the host".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn both_ways_of_writing_a_name_and_no_way_out() {
        assert_eq!(path("net.ipv4.ip_forward").as_deref(), Some("net/ipv4/ip_forward"));
        assert_eq!(path("net/ipv4/conf/eth0.100/forwarding").as_deref(), Some("net/ipv4/conf/eth0.100/forwarding"));
        assert_eq!(path("net.ipv4.conf.eth0/100.forwarding").as_deref(), Some("net/ipv4/conf/eth0.100/forwarding"));
        for bad in ["../kernel/hostname", "kernel..hostname", "/etc/passwd", "net.ipv4./.x", ""] {
            assert!(path(bad).is_none_or(|path| !path.contains("..")), "{bad}");
        }
        assert_eq!(path("kernel..hostname"), None);
    }
}
