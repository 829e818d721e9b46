//! Linux capabilities: their numbers, and the set containers get.

use oci_spec::runtime::{Capabilities, Capability};

use crate::error::{Error, Result};

/// The number of a capability (linux/capability.h).
pub(crate) fn capability_number(capability: Capability) -> u32 {
    match capability {
        Capability::Chown => 0,
        Capability::DacOverride => 1,
        Capability::DacReadSearch => 2,
        Capability::Fowner => 3,
        Capability::Fsetid => 4,
        Capability::Kill => 5,
        Capability::Setgid => 6,
        Capability::Setuid => 7,
        Capability::Setpcap => 8,
        Capability::LinuxImmutable => 9,
        Capability::NetBindService => 10,
        Capability::NetBroadcast => 11,
        Capability::NetAdmin => 12,
        Capability::NetRaw => 13,
        Capability::IpcLock => 14,
        Capability::IpcOwner => 15,
        Capability::SysModule => 16,
        Capability::SysRawio => 17,
        Capability::SysChroot => 18,
        Capability::SysPtrace => 19,
        Capability::SysPacct => 20,
        Capability::SysAdmin => 21,
        Capability::SysBoot => 22,
        Capability::SysNice => 23,
        Capability::SysResource => 24,
        Capability::SysTime => 25,
        Capability::SysTtyConfig => 26,
        Capability::Mknod => 27,
        Capability::Lease => 28,
        Capability::AuditWrite => 29,
        Capability::AuditControl => 30,
        Capability::Setfcap => 31,
        Capability::MacOverride => 32,
        Capability::MacAdmin => 33,
        Capability::Syslog => 34,
        Capability::WakeAlarm => 35,
        Capability::BlockSuspend => 36,
        Capability::AuditRead => 37,
        Capability::Perfmon => 38,
        Capability::Bpf => 39,
        Capability::CheckpointRestore => 40,
    }
}

/// The names of all capabilities; the position of each is its number.
pub(crate) const CAPABILITY_NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// What a container may do unless told otherwise: Docker's default, 14 capabilities.
pub(super) fn default_set() -> Capabilities {
    [
        Capability::AuditWrite,
        Capability::Chown,
        Capability::DacOverride,
        Capability::Fowner,
        Capability::Fsetid,
        Capability::Kill,
        Capability::Mknod,
        Capability::NetBindService,
        Capability::NetRaw,
        Capability::Setfcap,
        Capability::Setgid,
        Capability::Setpcap,
        Capability::Setuid,
        Capability::SysChroot,
    ]
    .into()
}

/// The default set with what was added and without what was dropped; `ALL` of either goes first, as with docker.
pub(super) fn chosen(added: &[String], dropped: &[String]) -> Result<Capabilities> {
    let all = |list: &[String]| list.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
    let mut set = match (all(added), all(dropped)) {
        (true, _) => all_capabilities()?.into_iter().collect(),
        (false, true) => Capabilities::new(),
        (false, false) => default_set(),
    };
    let named = |list: &[String]| -> Result<Vec<Capability>> {
        list.iter().filter(|name| !name.eq_ignore_ascii_case("ALL")).map(|name| parse_capability(name)).collect()
    };
    let dropped = named(dropped)?;
    set.extend(named(added)?);
    set.retain(|capability| !dropped.contains(capability));
    Ok(set)
}

/// Those a privileged container has.
pub(crate) fn all_capabilities() -> Result<Vec<Capability>> {
    CAPABILITY_NAMES.iter().map(|name| parse_capability(name)).collect()
}

/// A capability by its name, with `CAP_` before it or not, in any case.
///
/// # Errors
///
/// [`Error::Name`] when there is none of that name.
pub fn parse_capability(name: &str) -> Result<Capability> {
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    serde_json::from_value(full.into()).map_err(|_| Error::Name {
        what: "capability",
        input: name.to_owned(),
        why: "a name as in capabilities(7)",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_added_and_dropped_as_dockers() {
        let names = |added: &[&str], dropped: &[&str]| {
            let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
            chosen(&list(added), &list(dropped)).unwrap()
        };
        assert_eq!(names(&[], &[]), default_set());
        assert_eq!(names(&["net_admin"], &["ALL"]), [Capability::NetAdmin].into());
        assert_eq!(names(&["ALL"], &["CAP_SYS_ADMIN"]).len(), CAPABILITY_NAMES.len() - 1);
        assert_eq!(names(&["chown"], &["Chown"]).len(), default_set().len() - 1, "what is dropped is dropped");
        assert!(chosen(&["nonsense".into()], &[]).is_err() && chosen(&[], &["".into()]).is_err());
    }

    #[test]
    fn names_stand_where_their_numbers_say() {
        for (number, name) in CAPABILITY_NAMES.iter().enumerate() {
            let capability: Capability = serde_json::from_value(serde_json::json!(name)).unwrap();
            assert_eq!(capability_number(capability) as usize, number, "{name}");
        }
    }
}
