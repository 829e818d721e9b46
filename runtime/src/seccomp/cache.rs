//! Compiled filters, kept from one launch to the next.
//!
//! A filter is a file named by the SHA-256 of its profile and of what compiles it, in a directory that
//! only this user can write: with any other owner or mode it is neither read nor written, because who can
//! put a filter there decides what containers may do. A filter that cannot be kept is only compiled again.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use oci_spec::runtime::LinuxSeccomp;
use rustix::fs::{FileType, Mode, OFlags};
use sha2::{Digest, Sha256};

use super::{Filter, INSTRUCTIONS_LIMIT, compile};
use crate::error::{Error, Result};
use crate::files::{self, open_private_directory};
use crate::sys::BpfInstruction;

/// Changed when the same profile compiles to something else.
const COMPILER: &[u8] = concat!("longshore seccomp 1 ", env!("CARGO_PKG_VERSION"), " ", env!("CARGO_PKG_NAME")).as_bytes();

/// Bytes of one instruction on disk: code, both jumps, constant.
const INSTRUCTION_BYTES: usize = 8;

/// Compiles a filter, or finds it compiled.
pub(crate) fn compile_cached(seccomp: &LinuxSeccomp) -> Result<Filter> {
    // A new kernel may have other system calls: they go with a reboot.
    match files::runtime_directory("seccomp") {
        Some(directory) => compile_in(&directory, seccomp),
        None => compile(seccomp),
    }
}

fn compile_in(directory: &Path, seccomp: &LinuxSeccomp) -> Result<Filter> {
    let profile = serde_json::to_vec(seccomp).map_err(|error| Error::invalid("linux.seccomp", error))?;
    let key = Sha256::new().chain_update(COMPILER).chain_update(&profile).finalize();
    let name: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let trusted = open_private_directory(directory);
    if let Some(filter) = trusted.as_ref().and_then(|directory| read(directory, &name)) {
        return Ok(filter);
    }
    let filter = compile(seccomp)?;
    if let Some(directory) = trusted {
        // The next launch compiles it again: no reason to fail this one.
        let _ = write(&directory, &name, &filter);
    }
    Ok(filter)
}

/// Flags, then instructions, then the SHA-256 of both.
fn read(directory: &File, name: &str) -> Option<Filter> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::empty()).ok()?;
    let status = rustix::fs::fstat(&file).ok()?;
    let own = status.st_uid == rustix::process::geteuid().as_raw() && status.st_mode & 0o077 == 0;
    if !own || FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut bytes = Vec::with_capacity(8192);
    File::from(file).take((INSTRUCTIONS_LIMIT * INSTRUCTION_BYTES + 64) as u64).read_to_end(&mut bytes).ok()?;
    let (content, sum) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    if Sha256::digest(content)[..] != *sum {
        return None;
    }
    let (flags, program) = content.split_first_chunk::<4>()?;
    let instruction = |chunk: &[u8]| BpfInstruction {
        code: u16::from_ne_bytes([chunk[0], chunk[1]]),
        jump_true: chunk[2],
        jump_false: chunk[3],
        k: u32::from_ne_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]),
    };
    let whole = program.len().is_multiple_of(INSTRUCTION_BYTES) && !program.is_empty();
    whole.then(|| Filter {
        program: program.chunks_exact(INSTRUCTION_BYTES).map(instruction).collect(),
        flags: u32::from_ne_bytes(*flags),
    })
}

/// Complete or not at all: written beside its place, then renamed.
fn write(directory: &File, name: &str, filter: &Filter) -> std::io::Result<()> {
    let mut bytes = filter.flags.to_ne_bytes().to_vec();
    for instruction in &filter.program {
        bytes.extend(instruction.code.to_ne_bytes());
        bytes.extend([instruction.jump_true, instruction.jump_false]);
        bytes.extend(instruction.k.to_ne_bytes());
    }
    bytes.extend(Sha256::digest(&bytes));
    let beside = format!("{name}.{}", std::process::id());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, &beside, flags, Mode::RUSR | Mode::WUSR)?;
    let written =
        File::from(file).write_all(&bytes).and_then(|()| Ok(rustix::fs::renameat(directory, &beside, directory, name)?));
    if written.is_err() {
        let _ = rustix::fs::unlinkat(directory, &beside, rustix::fs::AtFlags::empty());
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    fn profile() -> LinuxSeccomp {
        super::super::default_profile(&oci_spec::runtime::Capabilities::new()).unwrap()
    }

    fn only_file(directory: &Path) -> PathBuf {
        let mut entries = fs::read_dir(directory).unwrap();
        let path = entries.next().expect("a filter is kept").unwrap().path();
        assert!(entries.next().is_none());
        path
    }

    #[test]
    fn a_filter_is_found_again_and_a_damaged_one_is_not_believed() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("a/b");
        let compiled = compile(&profile()).unwrap();
        assert_eq!(compile_in(&directory, &profile()).unwrap(), compiled);
        let file = only_file(&directory);
        let open = open_private_directory(&directory).unwrap();
        let name = file.file_name().unwrap().to_str().unwrap();
        assert_eq!(read(&open, name), Some(compiled.clone()));
        let mut bytes = fs::read(&file).unwrap();
        // One verdict turned: the sum does not fit any more.
        bytes[100] ^= 1;
        fs::write(&file, &bytes).unwrap();
        assert_eq!(read(&open, name), None);
        assert_eq!(compile_in(&directory, &profile()).unwrap(), compiled);
        fs::write(&file, b"").unwrap();
        assert_eq!(compile_in(&directory, &profile()).unwrap(), compiled);
    }

    #[test]
    fn nothing_is_read_from_or_left_in_a_directory_others_can_write() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("open");
        compile_in(&directory, &profile()).unwrap();
        let file = only_file(&directory);
        let forged = Filter { program: vec![BpfInstruction { code: 6, jump_true: 0, jump_false: 0, k: 0x7fff_0000 }], flags: 0 };
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        fs::remove_file(&file).unwrap();
        write(&open_private_directory(&directory).unwrap(), &name, &forged).unwrap();
        // This test's guard: in a directory of one's own it would be believed.
        assert_eq!(compile_in(&directory, &profile()).unwrap(), forged);
        for mode in [0o777, 0o750, 0o705] {
            fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).unwrap();
            assert_ne!(compile_in(&directory, &profile()).unwrap(), forged, "{mode:o}");
        }
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        assert_ne!(compile_in(&directory, &profile()).unwrap(), forged, "a file others can write");
        let link = parent.path().join("link");
        std::os::unix::fs::symlink(&directory, &link).unwrap();
        assert!(open_private_directory(&link).is_none(), "a link is not followed");
    }

    #[test]
    fn another_profile_is_another_file() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
        compile_in(directory.path(), &profile()).unwrap();
        let mut other = profile();
        other.set_default_errno_ret(Some(38));
        compile_in(directory.path(), &other).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }
}
