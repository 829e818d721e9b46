//! How the container's first process tells the launcher which step failed.

use std::io;

use rustix::io::Errno;

use super::mounts::Source;
use super::plan::Plan;
use crate::error::Error;

/// A step of the launch inside the container's own process, in the order they are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Step {
    Namespace,
    OomScore,
    Label,
    Prepare,
    UserNamespace,
    Keyring,
    Session,
    Terminal,
    JoinCgroup,
    PrivateMounts,
    MakeMount,
    EnterRoot,
    LeaveHost,
    Mount,
    Device,
    Link,
    Console,
    Sysctl,
    Mask,
    ReadOnly,
    ReadOnlyRoot,
    RootPropagation,
    Hostname,
    Loopback,
    WorkingDirectory,
    IoPriority,
    Scheduler,
    Personality,
    Limit,
    Stdio,
    Descriptors,
    Capabilities,
    User,
    Seccomp,
    Listener,
    Trampoline,
    Hooks,
    Command,
    JoinNamespaces,
}

const STEPS: [Step; 39] = [
    Step::Namespace,
    Step::OomScore,
    Step::Label,
    Step::Prepare,
    Step::UserNamespace,
    Step::Keyring,
    Step::Session,
    Step::Terminal,
    Step::JoinCgroup,
    Step::PrivateMounts,
    Step::MakeMount,
    Step::EnterRoot,
    Step::LeaveHost,
    Step::Mount,
    Step::Device,
    Step::Link,
    Step::Console,
    Step::Sysctl,
    Step::Mask,
    Step::ReadOnly,
    Step::ReadOnlyRoot,
    Step::RootPropagation,
    Step::Hostname,
    Step::Loopback,
    Step::WorkingDirectory,
    Step::IoPriority,
    Step::Scheduler,
    Step::Personality,
    Step::Limit,
    Step::Stdio,
    Step::Descriptors,
    Step::Capabilities,
    Step::User,
    Step::Seccomp,
    Step::Listener,
    Step::Trampoline,
    Step::Hooks,
    Step::Command,
    Step::JoinNamespaces,
];

/// A failed step: which, on which item of the plan's list, and the system's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) step: Step,
    pub(super) item: u16,
    /// Of a mount that could not be made: which of its options was refused, counted from 1; else 0.
    pub(super) detail: u16,
    pub(super) errno: Errno,
}

/// Says which step a system call belongs to.
pub(super) trait At<T> {
    fn at(self, step: Step, item: usize) -> Result<T, Fault>;
}

impl<T> At<T> for rustix::io::Result<T> {
    fn at(self, step: Step, item: usize) -> Result<T, Fault> {
        self.map_err(|errno| Fault { step, item: item as u16, detail: 0, errno })
    }
}

impl Fault {
    /// Eight bytes for the pipe; the trampoline's own report has four.
    pub(super) fn encode(self) -> [u8; 8] {
        let mut bytes = [0; 8];
        // An errno is below 4096.
        let numbers = [self.step as u16, self.item, self.detail, self.errno.raw_os_error() as u16];
        for (place, number) in bytes.chunks_exact_mut(2).zip(numbers) {
            place.copy_from_slice(&number.to_ne_bytes());
        }
        bytes
    }

    pub(super) fn decode(bytes: [u8; 8]) -> Option<Self> {
        let number = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let step = STEPS.get(usize::from(number(0)))?;
        Some(Self { step: *step, item: number(2), detail: number(4), errno: Errno::from_raw_os_error(i32::from(number(6))) })
    }

    /// The fault as the crate's error.
    pub(super) fn into_error(self, plan: &Plan) -> Error {
        Error::Launch { step: self.describe(plan), source: self.errno.into() }
    }

    fn describe(self, plan: &Plan) -> String {
        let item = usize::from(self.item);
        let mount = || plan.mounts.get(item).map_or_else(String::new, |mount| mount.name.clone());
        let path =
            |list: &[super::path::InRoot]| list.get(item).map_or_else(String::new, |path| format!("{:?}", path.as_c_str()));
        match self.step {
            Step::Namespace => match self.errno {
                Errno::INVAL => format!("{} (is it a namespace of that type?)", plan.namespaces.describe(item)),
                _ => plan.namespaces.describe(item),
            },
            Step::Label => "set the security label (process.apparmorProfile, process.selinuxLabel)".into(),
            Step::UserNamespace => "become user 0 of the user namespace (linux.uidMappings must have it)".into(),
            Step::RootPropagation => "set linux.rootfsPropagation".into(),
            Step::IoPriority => "set process.ioPriority".into(),
            Step::Scheduler => "set process.scheduler".into(),
            Step::Personality => "set linux.personality".into(),
            Step::Listener => "hand over the seccomp listener (does the filter allow sendmsg?)".into(),
            Step::Prepare => "prepare the process".into(),
            Step::Keyring => "join a new session keyring".into(),
            Step::Session => "start a new session".into(),
            Step::Terminal => "make the terminal the controlling one".into(),
            Step::JoinCgroup => "join the cgroup".into(),
            Step::PrivateMounts => "make the mounts of the new namespace private".into(),
            Step::MakeMount => {
                match (plan.mounts.get(item).map(|mount| &mount.source), usize::from(self.detail).checked_sub(1)) {
                    (Some(Source::ToMake(filesystem)), Some(option)) => {
                        format!("create mount {}: the filesystem refuses option {:?}", mount(), filesystem.option(option))
                    }
                    _ => format!("create mount {}", mount()),
                }
            }
            Step::EnterRoot => "move to the container's root filesystem".into(),
            Step::LeaveHost => "detach the host's root filesystem".into(),
            Step::Mount => match self.errno {
                Errno::LOOP => format!("mount {}: the image has a symbolic link there", mount()),
                Errno::PERM => format!("mount {}: not allowed there", mount()),
                Errno::INVAL if mount().starts_with("remount") => format!("mount {}: nothing is mounted there", mount()),
                _ => format!("mount {}", mount()),
            },
            Step::Device => {
                format!(
                    "make device {}",
                    plan.devices.get(item).map_or_else(String::new, |device| format!("{:?}", device.path.as_c_str()))
                )
            }
            Step::Link => "make the links in /dev".into(),
            Step::Console => "attach the terminal to /dev/console".into(),
            Step::Sysctl => format!("set sysctl {}", plan.sysctls.get(item).map_or("", |(name, _)| name.to_str().unwrap_or(""))),
            Step::OomScore => "set oom_score_adj".into(),
            Step::Mask => format!("mask {}", path(&plan.masked)),
            Step::ReadOnly => format!("make {} read-only", path(&plan.readonly)),
            Step::ReadOnlyRoot => "make the root filesystem read-only".into(),
            Step::Hostname => "set the host name".into(),
            Step::Loopback => "bring the loopback interface up".into(),
            Step::Limit => {
                format!(
                    "set process.rlimits: {}",
                    plan.limits.get(item).map_or_else(String::new, |(resource, _)| format!("{resource:?}"))
                )
            }
            Step::WorkingDirectory => format!("enter working directory {:?}", plan.working_directory.as_c_str()),
            Step::Stdio => "set up standard input and output".into(),
            Step::Descriptors => "close inherited file descriptors".into(),
            Step::Capabilities => "set capabilities".into(),
            Step::User => format!("become user {} group {}", plan.uid, plan.gid),
            Step::Seccomp => "load the seccomp filter".into(),
            Step::Trampoline => "execute the trampoline".into(),
            Step::Hooks => "have the hooks run".into(),
            Step::Command => "look up the command".into(),
            Step::JoinNamespaces => "join the container's namespaces".into(),
        }
    }
}

/// What arrived on the report pipe until it closed: nothing means the command is running.
pub(super) fn decode(message: &[u8], plan: &Plan, command: &str) -> Option<Error> {
    if message.is_empty() {
        return None;
    }
    if let Some(errno) = trampoline(message) {
        return (errno != 0).then(|| exec_error(command, errno));
    }
    let fault = <[u8; 8]>::try_from(message).ok().and_then(Fault::decode);
    Some(match fault {
        None => Error::Launch { step: "read the launch report".into(), source: io::ErrorKind::InvalidData.into() },
        Some(Fault { step: Step::Command, errno, .. }) => exec_error(command, errno.raw_os_error()),
        Some(fault) => fault.into_error(plan),
    })
}

/// What the trampoline says: 0, it waits to be started; else why the command could not be executed.
pub(super) fn trampoline(message: &[u8]) -> Option<i32> {
    <[u8; 4]>::try_from(message).ok().map(i32::from_ne_bytes)
}

/// The error of a command that could not be executed.
pub(crate) fn exec_error(command: &str, errno: i32) -> Error {
    Error::Exec { command: command.to_owned(), source: io::Error::from_raw_os_error(errno) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_survives_the_pipe() {
        for (number, step) in STEPS.into_iter().enumerate() {
            assert_eq!(step as usize, number);
            let fault = Fault { step, item: 7, detail: 3, errno: Errno::NOSPC };
            assert_eq!(Fault::decode(fault.encode()), Some(fault));
        }
    }
}
