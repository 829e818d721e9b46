//! How the container's first process tells the launcher which step failed.

use std::io;

use rustix::io::Errno;

use super::plan::Plan;
use crate::error::Error;

/// A step of the launch inside the container's own process, in the order they are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Step {
    OomScore,
    Prepare,
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
    Hostname,
    Loopback,
    Limit,
    WorkingDirectory,
    Stdio,
    Descriptors,
    Capabilities,
    User,
    Seccomp,
    Trampoline,
    Hooks,
    Command,
    JoinNamespaces,
}

const STEPS: [Step; 31] = [
    Step::OomScore,
    Step::Prepare,
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
    Step::Hostname,
    Step::Loopback,
    Step::Limit,
    Step::WorkingDirectory,
    Step::Stdio,
    Step::Descriptors,
    Step::Capabilities,
    Step::User,
    Step::Seccomp,
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
    pub(super) errno: Errno,
}

/// Says which step a system call belongs to.
pub(super) trait At<T> {
    fn at(self, step: Step, item: usize) -> Result<T, Fault>;
}

impl<T> At<T> for rustix::io::Result<T> {
    fn at(self, step: Step, item: usize) -> Result<T, Fault> {
        self.map_err(|errno| Fault { step, item: item as u16, errno })
    }
}

impl Fault {
    /// Eight bytes for the pipe; the trampoline's own report has four.
    pub(super) fn encode(self) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[..2].copy_from_slice(&(self.step as u16).to_ne_bytes());
        bytes[2..4].copy_from_slice(&self.item.to_ne_bytes());
        bytes[4..].copy_from_slice(&self.errno.raw_os_error().to_ne_bytes());
        bytes
    }

    fn decode(bytes: [u8; 8]) -> Option<Self> {
        let step = STEPS.get(usize::from(u16::from_ne_bytes([bytes[0], bytes[1]])))?;
        let item = u16::from_ne_bytes([bytes[2], bytes[3]]);
        let errno = Errno::from_raw_os_error(i32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]));
        Some(Self { step: *step, item, errno })
    }

    fn describe(self, plan: &Plan) -> String {
        let item = usize::from(self.item);
        let mount = || plan.mounts.get(item).map_or_else(String::new, |mount| mount.name.clone());
        let path =
            |list: &[super::path::InRoot]| list.get(item).map_or_else(String::new, |path| format!("{:?}", path.as_c_str()));
        match self.step {
            Step::Prepare => "prepare the process".into(),
            Step::Keyring => "join a new session keyring".into(),
            Step::Session => "start a new session".into(),
            Step::Terminal => "make the terminal the controlling one".into(),
            Step::JoinCgroup => "join the cgroup".into(),
            Step::PrivateMounts => "make the mounts of the new namespace private".into(),
            Step::MakeMount => format!("create mount {}", mount()),
            Step::EnterRoot => "move to the container's root filesystem".into(),
            Step::LeaveHost => "detach the host's root filesystem".into(),
            Step::Mount => match self.errno {
                Errno::LOOP => format!("mount {}: the image has a symbolic link there", mount()),
                Errno::PERM => format!("mount {}: not allowed there", mount()),
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
            Step::Limit => "set resource limits".into(),
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
        Some(fault) => Error::Launch { step: fault.describe(plan), source: fault.errno.into() },
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
            let fault = Fault { step, item: 7, errno: Errno::NOSPC };
            assert_eq!(Fault::decode(fault.encode()), Some(fault));
        }
    }
}
