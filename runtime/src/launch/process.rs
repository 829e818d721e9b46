//! What the container's process is given besides its namespaces and files: capabilities, limits,
//! scheduling, labels (runtime-spec config.md, "Process").

use std::collections::HashSet;
use std::ffi::CString;
use std::os::fd::BorrowedFd;
use std::path::Path;

use oci_spec::runtime::{
    Capabilities, IOPriorityClass, Linux, LinuxPersonalityDomain, LinuxSchedulerFlag, LinuxSchedulerPolicy, PosixRlimitType,
    Process,
};
use rustix::process::{Resource, Rlimit};

use super::rootfs::c_string;
use crate::error::{Attempt, Error, Result};
use crate::sys::{CStringArray, SchedulingAttributes};

/// The five capability sets as bit masks by capability number.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CapabilityPlan {
    pub(super) bounding: u64,
    pub(super) effective: u64,
    pub(super) permitted: u64,
    pub(super) inheritable: u64,
    pub(super) ambient: u64,
}

impl CapabilityPlan {
    /// Capabilities that cannot be had are left out with a warning (config.md, `capabilities`). In a
    /// user namespace of its own the container can have all, elsewhere what this process has.
    pub(super) fn new(process: &Process, own_user_namespace: bool) -> Result<Self> {
        let own = rustix::thread::capabilities(None).attempt(|| "read this process's capabilities")?.permitted.bits();
        let own = if own_user_namespace { known_capabilities()? } else { own };
        let mask = |set: &Option<Capabilities>| -> u64 {
            set.iter().flatten().map(|&capability| 1 << crate::spec::capability_number(capability)).sum()
        };
        let Some(sets) = process.capabilities() else { return Ok(Self::default()) };
        let lists = [sets.bounding(), sets.effective(), sets.permitted(), sets.inheritable(), sets.ambient()];
        let asked = lists.into_iter().map(mask).fold(0, |all, set| all | set);
        if asked & !own != 0 {
            let names = lists.into_iter().flatten().flatten();
            let mut names: Vec<String> = names
                .filter(|capability| own & 1 << crate::spec::capability_number(**capability) == 0)
                .map(|capability| format!("CAP_{capability}"))
                .collect();
            names.sort();
            names.dedup();
            crate::warning::warn(&format!("capabilities that cannot be granted here are left out: {}", names.join(", ")));
        }
        let permitted = mask(sets.permitted()) & own;
        let inheritable = mask(sets.inheritable()) & own;
        Ok(Self {
            bounding: mask(sets.bounding()) & own,
            effective: mask(sets.effective()) & permitted,
            permitted,
            inheritable,
            ambient: mask(sets.ambient()) & permitted & inheritable,
        })
    }
}

/// All capabilities the kernel knows.
fn known_capabilities() -> Result<u64> {
    let path = "/proc/sys/kernel/cap_last_cap";
    let text = std::fs::read_to_string(path).attempt(|| format!("read {path}"))?;
    let last: u32 = text.trim().parse().map_err(|_| Error::invalid(path, "it holds no number"))?;
    Ok(u64::MAX >> (63 - last.min(63)))
}

/// `process.rlimits`.
pub(super) fn limits(process: &Process) -> Result<Vec<(Resource, Rlimit)>> {
    let infinite = |value: u64| (value != u64::MAX).then_some(value);
    let mut list: Vec<(Resource, Rlimit)> = Vec::new();
    for limit in process.rlimits().iter().flatten() {
        let (what, resource) = (format!("process.rlimits: {}", limit.typ()), resource(limit.typ()));
        if limit.soft() > limit.hard() {
            return Err(Error::invalid(what, "the soft limit is above the hard one"));
        }
        if list.iter().any(|(other, _)| *other == resource) {
            return Err(Error::invalid(what, "it is there twice"));
        }
        list.push((resource, Rlimit { current: infinite(limit.soft()), maximum: infinite(limit.hard()) }));
    }
    Ok(list)
}

fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitCpu => Resource::Cpu,
        PosixRlimitType::RlimitFsize => Resource::Fsize,
        PosixRlimitType::RlimitData => Resource::Data,
        PosixRlimitType::RlimitStack => Resource::Stack,
        PosixRlimitType::RlimitCore => Resource::Core,
        PosixRlimitType::RlimitRss => Resource::Rss,
        PosixRlimitType::RlimitNproc => Resource::Nproc,
        PosixRlimitType::RlimitNofile => Resource::Nofile,
        PosixRlimitType::RlimitMemlock => Resource::Memlock,
        PosixRlimitType::RlimitAs => Resource::As,
        PosixRlimitType::RlimitLocks => Resource::Locks,
        PosixRlimitType::RlimitSigpending => Resource::Sigpending,
        PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
        PosixRlimitType::RlimitNice => Resource::Nice,
        PosixRlimitType::RlimitRtprio => Resource::Rtprio,
        PosixRlimitType::RlimitRttime => Resource::Rttime,
    }
}

/// `process.scheduler`, as `sched_setattr(2)` takes it.
pub(super) fn scheduling(process: &Process) -> Result<Option<SchedulingAttributes>> {
    let Some(scheduler) = process.scheduler() else { return Ok(None) };
    let fail = |why: &str| Err(Error::invalid("process.scheduler", why));
    // linux/sched.h; SCHED_ISO was reserved and never done.
    let policy = match scheduler.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => return fail("policy SCHED_ISO: no kernel has it"),
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let flag = |flag: &LinuxSchedulerFlag| match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01u64,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    };
    let nice = scheduler.nice().unwrap_or(0);
    let Ok(priority) = u32::try_from(scheduler.priority().unwrap_or(0)) else { return fail("priority: it is below 0") };
    let real_time = matches!(scheduler.policy(), LinuxSchedulerPolicy::SchedFifo | LinuxSchedulerPolicy::SchedRr);
    if !(-20..=19).contains(&nice) {
        return fail("nice: it must be from -20 to 19");
    }
    if real_time != (1..=99).contains(&priority) {
        return fail("priority: it must be from 1 to 99 with SCHED_FIFO and SCHED_RR, and 0 with any other policy");
    }
    Ok(Some(SchedulingAttributes {
        policy,
        flags: scheduler.flags().iter().flatten().map(flag).fold(0, |all, flag| all | flag),
        nice,
        priority,
        runtime_ns: scheduler.runtime().unwrap_or(0),
        deadline_ns: scheduler.deadline().unwrap_or(0),
        period_ns: scheduler.period().unwrap_or(0),
        ..SchedulingAttributes::default()
    }))
}

/// `process.ioPriority`: class and level.
pub(super) fn io_priority(process: &Process) -> Result<Option<(u32, u32)>> {
    let Some(priority) = process.io_priority() else { return Ok(None) };
    let class = match priority.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match u32::try_from(priority.priority()) {
        Ok(level @ 0..=7) => Ok(Some((class, level))),
        _ => Err(Error::invalid("process.ioPriority.priority", "it must be from 0 to 7")),
    }
}

/// `linux.personality`, as `personality(2)` takes it.
pub(super) fn personality(linux: &Linux) -> Result<Option<u32>> {
    let Some(personality) = linux.personality() else { return Ok(None) };
    if let Some(flag) = personality.flags().iter().flatten().next() {
        return Err(Error::invalid("linux.personality.flags", format!("{flag:?}: no flag is supported")));
    }
    Ok(Some(match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    }))
}

/// A list of processors or memory nodes, `0-3,7` (config.md, `execCPUAffinity`). `what` names the field.
pub(crate) fn cpu_list(what: &str, text: &str) -> Result<Vec<usize>> {
    /// The most the kernel can be built for.
    const CPU_LIMIT: usize = 8192;
    let bad = || Error::invalid(what, format!("{text:?} is no list of numbers and ranges like 0-3,7"));
    let mut list = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
        let (first, last): (usize, usize) = (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
        if first > last || last >= CPU_LIMIT {
            return Err(bad());
        }
        list.extend(first..=last);
    }
    Ok(list)
}

/// The file below `/proc/self/attr` and what is written to it, for the program to be executed with.
pub(super) type Label = (CString, Vec<u8>);

/// `process.apparmorProfile` and `process.selinuxLabel`. Asked for on a kernel that does not enforce them
/// they are an error: a container must not run with less than was asked for.
pub(super) fn labels(process: &Process) -> Result<Vec<Label>> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let mut labels = Vec::new();
    if let Some(profile) = given(process.apparmor_profile()) {
        let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'));
        // What every process has where nothing is enforced.
        if !enabled && profile != "unconfined" {
            return Err(absent("process.apparmorProfile", &profile, "AppArmor"));
        }
        if enabled {
            let stacked = Path::new("/proc/self/attr/apparmor/exec").exists();
            let file = if stacked { "/proc/self/attr/apparmor/exec" } else { "/proc/self/attr/exec" };
            labels.push((c_string("process.apparmorProfile", file)?, format!("exec {profile}").into_bytes()));
        }
    }
    if let Some(label) = given(process.selinux_label()) {
        if !Path::new("/sys/fs/selinux/enforce").exists() {
            return Err(absent("process.selinuxLabel", &label, "SELinux"));
        }
        labels.push((c_string("process.selinuxLabel", "/proc/self/attr/exec")?, label.into_bytes()));
    }
    Ok(labels)
}

fn absent(field: &str, value: &str, module: &str) -> Error {
    Error::invalid(
        format!("{field} {value:?}"),
        format!(
            "this kernel does not have {module}; leave the field out to run without, or boot with lsm={}",
            module.to_lowercase()
        ),
    )
}

/// Variables by name: where there are several of one name the last is meant, in its place.
fn last_of_each(variables: &[String]) -> Vec<&String> {
    let name = |text: &String| text.split_once('=').map_or(text.clone(), |(name, _)| name.to_owned());
    let mut seen = HashSet::new();
    let mut list: Vec<_> = variables.iter().rev().filter(|text| seen.insert(name(text))).collect();
    list.reverse();
    list
}

/// The trampoline's argument list (candidate paths, an empty string, the command) and the environment. `root` is
/// where the user's home directory is looked up.
pub(super) fn command(process: &Process, root: BorrowedFd<'_>) -> Result<(CStringArray, CStringArray)> {
    let arguments = process.args().as_deref().unwrap_or_default();
    let environment = last_of_each(process.env().as_deref().unwrap_or_default());
    let program = arguments.first().filter(|program| !program.is_empty()).ok_or_else(|| Error::Exec {
        command: arguments.first().cloned().unwrap_or_default(),
        source: std::io::ErrorKind::NotFound.into(),
    })?;
    let mut list = Vec::new();
    if program.contains('/') {
        list.push(c_string("command", program.as_str())?);
    } else {
        let path = environment.iter().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or(crate::spec::DEFAULT_PATH);
        for directory in path.split(':') {
            let directory = if directory.is_empty() { "." } else { directory };
            list.push(c_string("PATH", format!("{directory}/{program}"))?);
        }
    }
    list.push(CString::default());
    for argument in arguments {
        list.push(c_string("command argument", argument.as_str())?);
    }
    let variable = |text: &str| c_string("environment variable", text);
    let mut variables = environment.iter().map(|text| variable(text)).collect::<Result<Vec<_>>>()?;
    // As with runc and crun, on which engines rely: dockerd says nothing of it.
    if !environment.iter().any(|text: &&String| text.strip_prefix("HOME=").is_some_and(|home| !home.is_empty())) {
        variables.retain(|text| !text.as_bytes().starts_with(b"HOME="));
        variables.push(variable(&format!("HOME={}", crate::spec::home(process.user().uid(), root)))?);
    }
    Ok((CStringArray::new(list), CStringArray::new(variables)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_are_read_as_the_kernel_writes_them() {
        assert_eq!(cpu_list("x", "0-2,7").unwrap(), [0, 1, 2, 7]);
        for bad in ["", "a", "3-1", "1-", "0,,1", "9999999"] {
            assert!(cpu_list("x", bad).is_err(), "{bad}");
        }
    }
}
