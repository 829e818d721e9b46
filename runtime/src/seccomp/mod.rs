//! Seccomp filters: from the runtime-spec's rules to a BPF program.
//!
//! For each architecture the rules become a list of ranges of system call numbers with one verdict
//! each; [`bpf`] lays a binary search over them. A call passes about ten instructions, and so does
//! the kernel when it works out, at load time, which calls are always allowed.

mod bpf;
mod cache;
mod docker;
mod notify;
mod profile;
mod syscalls;

#[cfg(test)]
mod oracle;

use std::os::fd::OwnedFd;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscall,
};

use crate::error::{Error, Result};
use crate::sys::{self, BpfInstruction};

pub(crate) use cache::compile_cached;
pub(crate) use docker::default_profile;
pub(crate) use notify::{Connection, Listener, send};
pub(crate) use profile::{check, own_profile};

/// The kernel's limit on the instructions of one filter (`BPF_MAXINSNS`).
const INSTRUCTIONS_LIMIT: usize = 4096;

/// Set in the numbers of x32 system calls.
const X32_BIT: u32 = 0x4000_0000;

/// A compiled filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    program: Vec<BpfInstruction>,
    flags: u32,
}

impl Filter {
    /// Puts the filter on the calling thread; gives the listener's descriptor if calls are to be asked
    /// about. Allocates nothing.
    pub(crate) fn load(&self) -> rustix::io::Result<Option<OwnedFd>> {
        sys::seccomp_set_filter(&self.program, self.flags)
    }

    /// Whether loading it gives a listener.
    pub(crate) fn notifies(&self) -> bool {
        self.flags & NEW_LISTENER != 0
    }
}

const NEW_LISTENER: u32 = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32;

/// What happens to one range of system call numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// This action, whatever the arguments.
    Always(u32),
    /// The action of the first rule whose conditions all hold; else the default.
    First(Vec<(Vec<Condition>, u32)>),
}

/// A comparison of one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Condition {
    index: u32,
    operator: LinuxSeccompOperator,
    value: u64,
    /// For the masked comparison: what the masked bits must be.
    masked: u64,
}

/// One calling convention of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Abi {
    arch: Arch,
    /// The kernel's `AUDIT_ARCH_*` constant.
    audit: u32,
    /// Its column in the table of system calls.
    column: usize,
    /// Arguments are compared in their lower halves only.
    narrow: bool,
}

#[cfg(target_arch = "x86_64")]
const ABIS: [Abi; 3] = [
    Abi { arch: Arch::ScmpArchX86_64, audit: 0xc000_003e, column: 0, narrow: false },
    Abi { arch: Arch::ScmpArchX86, audit: 0x4000_0003, column: 1, narrow: true },
    Abi { arch: Arch::ScmpArchX32, audit: 0xc000_003e, column: 2, narrow: true },
];
#[cfg(target_arch = "aarch64")]
const ABIS: [Abi; 2] = [
    Abi { arch: Arch::ScmpArchAarch64, audit: 0xc000_00b7, column: 3, narrow: false },
    Abi { arch: Arch::ScmpArchArm, audit: 0x4000_0028, column: 4, narrow: true },
];

/// Compiles a filter. System calls this kernel family does not know are skipped, as are
/// architectures whose programs it cannot run; the native architecture is always covered.
fn compile(seccomp: &LinuxSeccomp) -> Result<Filter> {
    if seccomp.default_action() == LinuxSeccompAction::ScmpActNotify {
        return Err(invalid("defaultAction", "SCMP_ACT_NOTIFY: the container could not even be started"));
    }
    let default = action("defaultErrnoRet", seccomp.default_action(), seccomp.default_errno_ret())?;
    let listed = seccomp.architectures().as_deref().unwrap_or_default();
    let rules = rules(seccomp, default)?;
    let mut sections: Vec<(u32, Vec<(u32, Verdict)>)> = Vec::new();
    for (position, abi) in ABIS.iter().enumerate() {
        let wanted = position == 0 || listed.contains(&abi.arch);
        let x32 = abi.arch == Arch::ScmpArchX32;
        if !wanted && !x32 {
            continue;
        }
        let ranges = if wanted { ranges(&rules, *abi, default) } else { vec![(0, Verdict::Always(bpf::KILL_THREAD))] };
        if x32 && let Some((_, native)) = sections.first_mut() {
            // Same AUDIT_ARCH as x86-64: its calls are the numbers from the marker bit up.
            native.extend(ranges.into_iter().map(|(start, verdict)| (start | X32_BIT, verdict)));
        } else {
            sections.push((abi.audit, ranges));
        }
    }
    let narrow = |audit: u32, number: u32| {
        ABIS.iter().any(|abi| abi.audit == audit && abi.narrow && (abi.audit != ABIS[0].audit || number >= X32_BIT))
    };
    let program = bpf::program(&sections, default, &narrow);
    if program.len() > INSTRUCTIONS_LIMIT {
        return Err(invalid(
            "syscalls",
            format!("they need {} instructions, the kernel takes {INSTRUCTIONS_LIMIT}", program.len()),
        ));
    }
    Ok(Filter { program, flags: flags(seccomp, rules.iter().any(|rule| rule.action == NOTIFY)) })
}

/// What the kernel is told for SCMP_ACT_NOTIFY (`SECCOMP_RET_USER_NOTIF`).
const NOTIFY: u32 = 0x7fc0_0000;

fn invalid(field: &str, why: impl std::fmt::Display) -> Error {
    Error::invalid(format!("linux.seccomp.{field}"), why)
}

fn flags(seccomp: &LinuxSeccomp, notifies: bool) -> u32 {
    let flag = |flag: &LinuxSeccompFilterFlag| match flag {
        // A process yet to execute its program has one thread; with a listener the kernel refuses it.
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync if notifies => 0,
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => libc::SECCOMP_FILTER_FLAG_TSYNC,
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
        // Only has a meaning together with a notification listener.
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv if notifies => libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 0,
    };
    let listener = if notifies { NEW_LISTENER } else { 0 };
    seccomp.flags().iter().flatten().map(flag).fold(listener, |all, flag| all | flag as u32)
}

/// An action with its errno, which only two of them have.
fn action(field: &str, action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32> {
    let takes_errno = matches!(action, LinuxSeccompAction::ScmpActErrno | LinuxSeccompAction::ScmpActTrace);
    match errno {
        Some(_) if !takes_errno => Err(invalid(field, format!("{action} returns none"))),
        Some(errno) if errno > 0xffff => Err(invalid(field, format!("{errno} is no errno"))),
        errno => Ok(action.as_u32(errno)),
    }
}

/// A rule with its names looked up per architecture and its conditions checked.
struct Rule<'a> {
    names: &'a [String],
    conditions: Vec<Condition>,
    action: u32,
}

fn rules(seccomp: &LinuxSeccomp, default: u32) -> Result<Vec<Rule<'_>>> {
    let mut rules = Vec::new();
    for rule in seccomp.syscalls().iter().flatten() {
        let action = action("syscalls[].errnoRet", rule.action(), rule.errno_ret())?;
        if rule.names().is_empty() {
            return Err(invalid("syscalls[].names", "it is empty"));
        }
        if action == NOTIFY && rule.names().iter().any(|name| name == "sendmsg") {
            return Err(invalid("syscalls[]", "SCMP_ACT_NOTIFY of sendmsg: with it the listener itself is handed over"));
        }
        // A rule that says what happens anyway is no exception, as libseccomp's users see it.
        if action == default {
            continue;
        }
        for conditions in alternatives(rule)? {
            rules.push(Rule { names: rule.names(), conditions, action });
        }
    }
    Ok(rules)
}

/// The conditions of a rule. They all have to hold; but several on the *same* argument are
/// alternatives, each of them alone (runc has always read configurations so).
fn alternatives(rule: &LinuxSyscall) -> Result<Vec<Vec<Condition>>> {
    let arguments = rule.args().as_deref().unwrap_or_default();
    let conditions = arguments.iter().map(Condition::new).collect::<Result<Vec<_>>>()?;
    let repeated = conditions.iter().enumerate().any(|(at, one)| conditions[..at].iter().any(|other| other.index == one.index));
    Ok(if repeated { conditions.into_iter().map(|one| vec![one]).collect() } else { vec![conditions] })
}

impl Condition {
    fn new(argument: &LinuxSeccompArg) -> Result<Self> {
        match u32::try_from(argument.index()) {
            Ok(index @ 0..=5) => {
                Ok(Self { index, operator: argument.op(), value: argument.value(), masked: argument.value_two().unwrap_or(0) })
            }
            _ => Err(invalid("syscalls[].args[].index", format!("{} is above 5", argument.index()))),
        }
    }
}

/// The verdicts of one ABI: each holds from its number up to the next entry's. Starts at 0.
fn ranges(rules: &[Rule<'_>], abi: Abi, default: u32) -> Vec<(u32, Verdict)> {
    let mut calls: Vec<(u32, usize)> = Vec::new();
    for (at, rule) in rules.iter().enumerate() {
        let numbers = rule.names.iter().filter_map(|name| syscalls::numbers(name)?[abi.column]);
        calls.extend(numbers.map(|number| (number, at)));
    }
    calls.sort_unstable();
    let mut ranges: Vec<(u32, Verdict)> = vec![(0, Verdict::Always(default))];
    for group in calls.chunk_by(|a, b| a.0 == b.0) {
        let number = group[0].0;
        push(&mut ranges, number, verdict(rules, group));
        push(&mut ranges, number + 1, Verdict::Always(default));
    }
    ranges
}

/// Appends a range, replacing an empty one and joining equal neighbours.
fn push(ranges: &mut Vec<(u32, Verdict)>, start: u32, verdict: Verdict) {
    if ranges.last().is_some_and(|last| last.0 == start) {
        ranges.pop();
    }
    if ranges.last().is_none_or(|last| last.1 != verdict) {
        ranges.push((start, verdict));
    }
}

/// A rule without conditions is broader than any with: it wins. Otherwise in the profile's order.
fn verdict(rules: &[Rule<'_>], calls: &[(u32, usize)]) -> Verdict {
    let rules = || calls.iter().map(|(_, at)| &rules[*at]);
    match rules().find(|rule| rule.conditions.is_empty()) {
        Some(rule) => Verdict::Always(rule.action),
        None => Verdict::First(rules().map(|rule| (rule.conditions.clone(), rule.action)).collect()),
    }
}
