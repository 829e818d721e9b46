//! Who the container's process is and what it may do: set last, by that process itself.
//!
//! Nothing here allocates. The order is the kernel's: what needs privileges first, then they go, the
//! seccomp filter as late as it can.

use std::convert::Infallible;
use std::os::fd::AsFd;

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::child::Descriptors;
use super::plan::Plan;
use super::report::{At, Fault, Step};
use crate::{seccomp, sys};

/// Names of the machine, and its loopback interface.
pub(super) fn set_identity(plan: &Plan) -> Result<(), Fault> {
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name).at(Step::Hostname, 0)?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name).at(Step::Hostname, 1)?;
    }
    if plan.namespaces.makes(libc::CLONE_NEWNET) {
        use rustix::net::{AddressFamily, SocketFlags, SocketType};
        let socket =
            rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None).at(Step::Loopback, 0)?;
        sys::loopback_up(socket.as_fd()).at(Step::Loopback, 1)?;
    }
    Ok(())
}

/// Resource limits, scheduling and execution domain.
pub(super) fn set_limits(plan: &Plan) -> Result<(), Fault> {
    if let Some((class, level)) = plan.io_priority {
        sys::set_io_priority(class, level).at(Step::IoPriority, 0)?;
    }
    if let Some(scheduling) = &plan.scheduling {
        sys::set_scheduling(scheduling).at(Step::Scheduler, 0)?;
    }
    if let Some(domain) = plan.personality {
        sys::set_personality(domain).at(Step::Personality, 0)?;
    }
    for (index, (resource, limit)) in plan.limits.iter().enumerate() {
        rustix::process::setrlimit(*resource, *limit).at(Step::Limit, index)?;
    }
    rustix::process::umask(Mode::from_raw_mode(plan.umask));
    Ok(())
}

/// Capabilities, user, filter: then the command.
pub(super) fn drop_privileges(plan: &Plan, descriptors: &Descriptors<'_>) -> Result<Infallible, Fault> {
    let sets = plan.capabilities;
    for capability in (0..64).filter(|capability| sets.bounding & (1 << capability) == 0) {
        // Nor does the kernel know those above.
        if !sys::drop_bounding_capability(capability).at(Step::Capabilities, capability as usize)? {
            break;
        }
    }
    rustix::thread::set_keep_capabilities(true).at(Step::User, 0)?;
    match rustix::thread::set_thread_groups(&plan.groups) {
        // A single-id user namespace denies setgroups; there are none to be dropped or added then.
        Err(Errno::PERM) if plan.groups.is_empty() => {}
        other => other.at(Step::User, 1)?,
    }
    let (uid, gid) = (Uid::from_raw(plan.uid), Gid::from_raw(plan.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).at(Step::User, 2)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).at(Step::User, 3)?;
    rustix::thread::set_keep_capabilities(false).at(Step::User, 4)?;
    if descriptors.wait.is_some() {
        look_up_command(plan).at(Step::Command, 0)?;
    }
    let capset = |effective: u64, permitted: u64| {
        let set = CapabilitySet::from_bits_retain;
        rustix::thread::set_capabilities(
            None,
            CapabilitySets { effective: set(effective), permitted: set(permitted), inheritable: set(sets.inheritable) },
        )
    };
    let admin = CapabilitySet::SYS_ADMIN.bits();
    if plan.no_new_privileges {
        rustix::thread::set_no_new_privs(true).at(Step::Capabilities, 100)?;
    } else if let Some(filter) = &plan.seccomp {
        // Without no_new_privs only CAP_SYS_ADMIN may load a filter: so before it is given up.
        capset(admin, sets.permitted | admin).at(Step::Capabilities, 101)?;
        load_filter(filter, descriptors, 0)?;
    }
    capset(sets.effective, sets.permitted).at(Step::Capabilities, 102)?;
    sys::clear_ambient_capabilities().at(Step::Capabilities, 103)?;
    for capability in (0..64).filter(|capability| sets.ambient & (1 << capability) != 0) {
        sys::raise_ambient_capability(capability).at(Step::Capabilities, 104)?;
    }
    if descriptors.manner.tied {
        // A change of user or capabilities has cancelled it.
        sys::die_with_parent().at(Step::Capabilities, 105)?;
    }
    if let (true, Some(filter)) = (plan.no_new_privileges, &plan.seccomp) {
        load_filter(filter, descriptors, 1)?;
    }
    let program = sys::borrow_fd(descriptors.numbers.program);
    Err(sys::exec_fd(program, &plan.arguments, &plan.environment)).at(Step::Trampoline, 0)
}

/// Whether the command can be executed, as far as that is known before it is: engines want to hear of
/// a missing one from `create`, and it is executed by `start`.
fn look_up_command(plan: &Plan) -> Result<(), Errno> {
    let mut verdict = Errno::NOENT;
    for candidate in plan.arguments.strings().iter().take_while(|candidate| !candidate.is_empty()) {
        match rustix::fs::accessat(CWD, candidate.as_c_str(), Access::EXEC_OK, AtFlags::EACCESS) {
            Ok(()) => match rustix::fs::stat(candidate.as_c_str()) {
                Ok(status) if FileType::from_raw_mode(status.st_mode) == FileType::Directory => verdict = Errno::ACCESS,
                _ => return Ok(()),
            },
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => verdict = errno,
        }
    }
    // Capabilities that are in effect later may allow what this user alone may not.
    let overrides = CapabilitySet::DAC_OVERRIDE.bits();
    if verdict == Errno::ACCESS && plan.uid != 0 && plan.capabilities.effective & overrides != 0 {
        return Ok(());
    }
    Err(verdict)
}

/// Loads the filter, and hands its listener to the launcher. The descriptor is not closed: that call
/// might be one the agent is asked about. It ends with the execution of the trampoline.
fn load_filter(filter: &seccomp::Filter, descriptors: &Descriptors<'_>, item: usize) -> Result<(), Fault> {
    let Some(listener) = filter.load().at(Step::Seccomp, item)? else { return Ok(()) };
    let socket = descriptors.numbers.listener.ok_or(Errno::BADF).at(Step::Listener, 1)?;
    let sent = seccomp::send(sys::borrow_fd(socket), b"l", listener.as_fd());
    std::mem::forget(listener);
    sent.at(Step::Listener, 0).map(drop)
}
