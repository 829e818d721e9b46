//! The program between the launcher and the container's command.
//!
//! If the container's first process executed the command itself, an image could name
//! `/proc/self/exe` as its command, as a script's interpreter or through a symbolic link, and the
//! *host's* binary would run inside the container, where it can be reopened for writing once it
//! ends (CVE-2019-5736). So that process first executes this trampoline: a few dozen instructions in
//! a sealed file in memory. From then on `/proc/self/exe` is that file, and no process in the
//! container has ever had the host's binary as its executable while anyone else could look: until
//! the trampoline runs, the process is alone in its namespace and not dumpable.

use std::os::fd::OwnedFd;

use rustix::fs::SealFlags;

use crate::error::{Attempt, Result};
use crate::sys;

/// The descriptors a process has while it becomes the command, by number: behind those the command is to
/// have, and each behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Numbers {
    /// Where the trampoline reports: one native `u32`, 0 for "ready and waiting", else the errno of a
    /// failed `execve`.
    pub(super) report: i32,
    /// The trampoline itself while it is executed.
    pub(super) program: i32,
    /// Where it waits for one byte before it executes the command, if it is to wait.
    pub(super) wait: Option<i32>,
    /// Where the seccomp listener is sent to, if there is one.
    pub(super) listener: Option<i32>,
    /// The first number none of these has.
    pub(super) end: i32,
}

impl Numbers {
    /// The numbers behind standard input, output and error and `preserved` further descriptors.
    pub(super) fn behind(preserved: u32, waits: bool, listens: bool) -> Self {
        let report = 3 + preserved as i32;
        let behind_program = report + 2;
        let wait = waits.then_some(behind_program);
        let behind_wait = behind_program + i32::from(waits);
        let listener = listens.then_some(behind_wait);
        Self { report, program: report + 1, wait, listener, end: behind_wait + i32::from(listens) }
    }
}

/// Where the trampoline is loaded.
const BASE_ADDRESS: u64 = 0x40_0000;

/// A sealed, executable file in memory that holds the trampoline.
///
/// A container that was created but not started is this program waiting: a few pages, and no way back
/// to the host's binary through `/proc/PID/exe`.
pub(super) fn create(numbers: Numbers) -> Result<OwnedFd> {
    let file = sys::executable_memfd(c"longshore-init")
        .attempt(|| "create an executable file in memory (is vm.memfd_noexec set to 2?)")?;
    let mut code = sys::trampoline_code().to_vec();
    let data = code.len() - 8;
    code[data..data + 4].copy_from_slice(&numbers.report.to_ne_bytes());
    code[data + 4..].copy_from_slice(&numbers.wait.unwrap_or(-1).to_ne_bytes());
    let image = image(&code);
    let written = rustix::io::write(&file, &image).attempt(|| "write the trampoline")?;
    debug_assert_eq!(written, image.len(), "a write to memory is whole");
    rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)
        .attempt(|| "seal the trampoline")?;
    Ok(file)
}

/// A static ELF executable around `code`: one loadable segment, and a stack that is not executable.
fn image(code: &[u8]) -> Vec<u8> {
    const HEADER_SIZE: u64 = 64;
    const PROGRAM_HEADER_SIZE: u64 = 56;
    const CODE_OFFSET: u64 = HEADER_SIZE + 2 * PROGRAM_HEADER_SIZE;
    const MACHINE: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    const READ_EXECUTE: u32 = 5;
    const READ_WRITE: u32 = 6;
    const LOAD: u32 = 1;
    const GNU_STACK: u32 = 0x6474_e551;

    let mut elf = Vec::with_capacity(CODE_OFFSET as usize + code.len());
    elf.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    for half in [2u16, MACHINE] {
        elf.extend_from_slice(&half.to_ne_bytes());
    }
    elf.extend_from_slice(&1u32.to_ne_bytes());
    for word in [BASE_ADDRESS + CODE_OFFSET, HEADER_SIZE, 0] {
        elf.extend_from_slice(&word.to_ne_bytes());
    }
    elf.extend_from_slice(&0u32.to_ne_bytes());
    for half in [HEADER_SIZE as u16, PROGRAM_HEADER_SIZE as u16, 2, 0, 0, 0] {
        elf.extend_from_slice(&half.to_ne_bytes());
    }
    let size = CODE_OFFSET + code.len() as u64;
    for (kind, flags, address, size, align) in
        [(LOAD, READ_EXECUTE, BASE_ADDRESS, size, 4096u64), (GNU_STACK, READ_WRITE, 0, 0, 16)]
    {
        elf.extend_from_slice(&kind.to_ne_bytes());
        elf.extend_from_slice(&flags.to_ne_bytes());
        for word in [0, address, address, size, size, align] {
            elf.extend_from_slice(&word.to_ne_bytes());
        }
    }
    elf.extend_from_slice(code);
    elf
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn the_trampoline_cannot_be_written_through_any_descriptor() {
        let file = create(Numbers::behind(0, false, false)).unwrap();
        assert_eq!(rustix::io::write(&file, b"x"), Err(rustix::io::Errno::PERM));
        let again = std::fs::OpenOptions::new().write(true).open(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
        assert_eq!(rustix::io::write(&again, b"x"), Err(rustix::io::Errno::PERM));
    }
}
