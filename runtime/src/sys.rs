//! System calls that no safe library offers: the one file of the crate with `unsafe` in it.
//!
//! Each function is a thin, safe wrapper: it takes borrowed file descriptors and slices, so that
//! nothing a caller passes can make it unsound. What the container's own process calls between its
//! birth and its `execve` allocates nothing.
#![allow(unsafe_code)]

mod trampoline;

use std::ffi::{CStr, c_int, c_long, c_uint, c_ulong};
use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::io::{Errno, Result};
use rustix::process::Pid;

/// Above 32 bits, where libc's constant of this name does not reach.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// One instruction of a classic BPF program (`struct sock_filter`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BpfInstruction {
    pub(crate) code: u16,
    pub(crate) jump_true: u8,
    pub(crate) jump_false: u8,
    pub(crate) k: u32,
}

fn check(result: c_long) -> Result<c_long> {
    if result >= 0 {
        return Ok(result);
    }
    // SAFETY: errno is thread-local and always readable.
    Err(Errno::from_raw_os_error(unsafe { *libc::__errno_location() }))
}

fn owned(result: c_long) -> Result<OwnedFd> {
    let fd = check(result)?;
    // SAFETY: the kernel just made this descriptor for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// How far local time is ahead of UTC at a time, in seconds since 1970; 0 where nobody can tell.
pub(crate) fn local_offset_s(time_s: i64) -> i64 {
    // SAFETY: all of its fields are numbers, and a pointer that may be null.
    let mut local: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both point to what lives until the call has returned. It reads `TZ`, which nobody here changes.
    let known = unsafe { !libc::localtime_r(&time_s, &mut local).is_null() };
    if known { local.tm_gmtoff } else { 0 }
}

/// Has all threads of this program share one heap of the C library's, which has one for each where nobody says so, and
/// keeps in each what was given back. From this one the kernel gets no more than what is over `kept_bytes`: buffers come
/// and go, and memory that the kernel gives anew costs as much as what is read into it.
pub(crate) fn share_heap(kept_bytes: c_int) {
    #[cfg(target_env = "gnu")]
    for (setting, value) in [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_THRESHOLD, kept_bytes), (libc::M_TRIM_THRESHOLD, kept_bytes)] {
        // SAFETY: it sets a number that the next allocation reads.
        unsafe { libc::mallopt(setting, value) };
    }
}

/// Ends this process at once: no destructors, no flushing, no exit handlers.
pub(crate) fn exit_now(code: u8) -> ! {
    // SAFETY: `_exit` takes any code and never returns.
    unsafe { libc::_exit(c_int::from(code)) }
}

/// Ends the process if a child's code panics: unwinding would run the parent's destructors twice.
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        exit_now(125);
    }
}

/// Starts a child process in new namespaces: `clone3(2)` without shared memory. The child runs
/// `child` and exits with what it returns.
///
/// `flags` are `CLONE_NEW*`; `cgroup` is a cgroup2 directory for the child to be born in. The
/// caller is expected to be single-threaded; otherwise `child` must not take locks or allocate.
pub(crate) fn spawn(flags: c_int, cgroup: Option<BorrowedFd<'_>>, child: &mut dyn FnMut() -> u8) -> Result<(Pid, OwnedFd)> {
    let mut pidfd: c_int = -1;
    let asked = flags as u64 | libc::CLONE_PIDFD as u64;
    let pid = clone_process(asked, libc::SIGCHLD, Some(&mut pidfd), cgroup, child)?;
    Ok((pid, owned(c_long::from(pidfd))?))
}

/// The same for a child of the caller's own parent (`CLONE_PARENT`): who must wait for it.
pub(crate) fn spawn_sibling(flags: c_int, cgroup: Option<BorrowedFd<'_>>, child: &mut dyn FnMut() -> u8) -> Result<Pid> {
    // Its end is signalled as its creator's is; asking for a signal is an error then.
    clone_process(flags as u64 | libc::CLONE_PARENT as u64, 0, None, cgroup, child)
}

fn clone_process(
    flags: u64,
    exit_signal: c_int,
    pidfd: Option<&mut c_int>,
    cgroup: Option<BorrowedFd<'_>>,
    child: &mut dyn FnMut() -> u8,
) -> Result<Pid> {
    // SAFETY: all-zero is the documented "nothing asked for" of clone_args.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags;
    arguments.pidfd = pidfd.map_or(0, |pidfd| ptr::from_mut(pidfd) as u64);
    arguments.exit_signal = exit_signal as u64;
    if let Some(directory) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = directory.as_raw_fd() as u64;
    }
    // SAFETY: no stack and no CLONE_VM are asked for, so the child continues here on a copy of
    // everything, exactly as after fork; the pidfd's place outlives the call.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) })?;
    if pid == 0 {
        let _guard = AbortOnUnwind;
        exit_now(child());
    }
    Pid::from_raw(pid as i32).ok_or(Errno::CHILD)
}

/// Moves the calling process into a namespace: `setns(2)`. `kind` is its `CLONE_NEW*` flag, so that a
/// descriptor of anything else is refused.
pub(crate) fn join_namespace(namespace: BorrowedFd<'_>, kind: c_int) -> Result<()> {
    // SAFETY: the caller is single-threaded and its memory and descriptors are left alone.
    check(unsafe { libc::setns(namespace.as_raw_fd(), kind) }.into()).map(drop)
}

/// New namespaces for the calling process: `unshare(2)` with `CLONE_NEW*` flags only.
pub(crate) fn unshare(flags: c_int) -> Result<()> {
    // SAFETY: namespace flags leave memory and descriptors alone.
    check(unsafe { libc::unshare(flags) }.into()).map(drop)
}

/// Attributes set and cleared on a mount by `mount_setattr(2)`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct MountAttributes {
    pub(crate) set: u64,
    pub(crate) clear: u64,
    /// One of `MS_PRIVATE`, `MS_SLAVE`, ... or 0 for no change.
    pub(crate) propagation: u64,
}

/// Changes the attributes of the mount `mount` refers to, with all below it if `recursive`.
pub(crate) fn mount_setattr(mount: BorrowedFd<'_>, attributes: MountAttributes, recursive: bool) -> Result<()> {
    let raw = libc::mount_attr {
        attr_set: attributes.set,
        attr_clr: attributes.clear,
        propagation: attributes.propagation,
        userns_fd: 0,
    };
    set_mount_attributes(mount, &raw, recursive)
}

/// Has a detached mount show its files' owners as `user_namespace` maps them (`MOUNT_ATTR_IDMAP`).
pub(crate) fn mount_idmap(mount: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>, recursive: bool) -> Result<()> {
    let raw = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: user_namespace.as_raw_fd() as u64,
    };
    set_mount_attributes(mount, &raw, recursive)
}

fn set_mount_attributes(mount: BorrowedFd<'_>, attributes: &libc::mount_attr, recursive: bool) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string and the structure is as long as we say.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            ptr::from_ref(attributes),
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// Puts a seccomp filter on the calling thread. `flags` are `SECCOMP_FILTER_FLAG_*`; with
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER` the listener's descriptor is returned.
pub(crate) fn seccomp_set_filter(program: &[BpfInstruction], flags: u32) -> Result<Option<OwnedFd>> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| Errno::INVAL)?,
        filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    // SAFETY: BpfInstruction has sock_filter's layout; the kernel copies the program.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    if c_ulong::from(flags) & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER == 0 {
        return check(result).map(|_| None);
    }
    owned(result).map(Some)
}

/// Scheduling of the calling thread (`struct sched_attr` of `sched_setattr(2)`).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SchedulingAttributes {
    pub(crate) size: u32,
    pub(crate) policy: u32,
    pub(crate) flags: u64,
    pub(crate) nice: i32,
    pub(crate) priority: u32,
    pub(crate) runtime_ns: u64,
    pub(crate) deadline_ns: u64,
    pub(crate) period_ns: u64,
    pub(crate) utilisation_min: u32,
    pub(crate) utilisation_max: u32,
}

/// Sets the calling thread's scheduling.
pub(crate) fn set_scheduling(attributes: &SchedulingAttributes) -> Result<()> {
    let sized = SchedulingAttributes { size: size_of::<SchedulingAttributes>() as u32, ..*attributes };
    // SAFETY: the structure says how long it is and lives through the call.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const sized, 0) }).map(drop)
}

/// Sets the calling thread's I/O priority: a class (1 real time, 2 best effort, 3 idle) and a level in it.
pub(crate) fn set_io_priority(class: u32, level: u32) -> Result<()> {
    const IOPRIO_WHO_PROCESS: c_int = 1;
    const CLASS_SHIFT: u32 = 13;
    // SAFETY: plain numbers.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, class << CLASS_SHIFT | level) }).map(drop)
}

/// Sets the calling process's execution domain: `personality(2)`.
pub(crate) fn set_personality(domain: u32) -> Result<()> {
    // SAFETY: a plain number.
    check(unsafe { libc::personality(c_ulong::from(domain)) }.into()).map(drop)
}

/// Loads an eBPF program of type `BPF_PROG_TYPE_CGROUP_DEVICE` (instructions of 8 bytes each).
pub(crate) fn bpf_load_cgroup_device(program: &[u64]) -> Result<OwnedFd> {
    #[repr(C)]
    #[derive(Default)]
    struct Load {
        program_type: u32,
        instruction_count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
    }
    const BPF_PROG_LOAD: c_int = 5;
    const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
    let load = Load {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(program.len()).map_err(|_| Errno::INVAL)?,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..Load::default()
    };
    // SAFETY: the pointers live through the call and the size is the structure's.
    owned(unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of::<Load>()) })
}

/// Attaches a cgroup device program to a cgroup2 directory, beside any that is there.
pub(crate) fn bpf_attach_cgroup_device(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    #[repr(C)]
    struct Attach {
        target: u32,
        program: u32,
        attach_type: u32,
        flags: u32,
    }
    const BPF_PROG_ATTACH: c_int = 8;
    const BPF_CGROUP_DEVICE: u32 = 6;
    const BPF_F_ALLOW_MULTI: u32 = 2;
    let attach = Attach {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: the structure lives through the call and the size is its own.
    check(unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attach, size_of::<Attach>()) }).map(drop)
}

/// Gives the calling process a new, empty session keyring of its own.
pub(crate) fn join_new_session_keyring() -> Result<()> {
    // SAFETY: a null name asks for an anonymous keyring.
    check(unsafe { libc::syscall(libc::SYS_keyctl, c_ulong::from(libc::KEYCTL_JOIN_SESSION_KEYRING), ptr::null::<u8>()) })
        .map(drop)
}

fn prctl(option: c_int, first: c_ulong, second: c_ulong) -> Result<()> {
    // SAFETY: only reached with options whose arguments are plain numbers.
    check(unsafe { libc::prctl(option, first, second, 0 as c_ulong, 0 as c_ulong) }.into()).map(drop)
}

/// Removes one capability from the bounding set; false if the kernel does not know it.
pub(crate) fn drop_bounding_capability(capability: u32) -> Result<bool> {
    match prctl(libc::PR_CAPBSET_DROP, c_ulong::from(capability), 0) {
        Err(Errno::INVAL) => Ok(false),
        other => other.map(|()| true),
    }
}

/// Empties the ambient capability set.
pub(crate) fn clear_ambient_capabilities() -> Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as c_ulong, 0)
}

/// Adds one capability to the ambient set; it must be permitted and inheritable.
pub(crate) fn raise_ambient_capability(capability: u32) -> Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as c_ulong, c_ulong::from(capability))
}

/// Has the kernel kill this process when the thread that started it ends.
pub(crate) fn die_with_parent() -> Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as c_ulong, 0)
}

/// Puts every signal's action back to the default and unblocks all.
pub(crate) fn reset_signals() {
    // SAFETY: zeroed is the default action with an empty mask; failures (SIGKILL, SIGSTOP and the
    // two glibc keeps for itself) change nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = libc::SIG_DFL;
        for signal in 1..=libc::SIGRTMAX() {
            libc::sigaction(signal, &raw const action, ptr::null_mut());
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// A thread's signal mask, to be put back.
#[derive(Debug)]
pub(crate) struct SignalMask(libc::sigset_t);

/// Blocks `signals` for the calling thread; gives the mask from before.
pub(crate) fn block_signals(signals: &[c_int]) -> Result<SignalMask> {
    let set = signal_set(signals);
    // SAFETY: both sets are initialised and live through the call.
    unsafe {
        let mut before: libc::sigset_t = std::mem::zeroed();
        check(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, &raw mut before).into())?;
        Ok(SignalMask(before))
    }
}

/// Puts back a mask that [`block_signals`] gave.
pub(crate) fn restore_signals(mask: &SignalMask) {
    // SAFETY: the mask was filled in by the kernel.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const mask.0, ptr::null_mut()) };
}

fn signal_set(signals: &[c_int]) -> libc::sigset_t {
    // SAFETY: sigemptyset initialises what zeroed made room for; sigaddset refuses bad numbers.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for &signal in signals {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

/// A non-blocking descriptor on which blocked `signals` arrive; read with [`read_signal`].
pub(crate) fn signalfd(signals: &[c_int]) -> Result<OwnedFd> {
    let set = signal_set(signals);
    // SAFETY: the set is initialised; -1 asks for a new descriptor.
    owned(unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) }.into())
}

/// The next signal that arrived on a [`signalfd`], if there is one.
pub(crate) fn read_signal(signalfd: BorrowedFd<'_>) -> Result<Option<c_int>> {
    let mut record = [0u8; size_of::<libc::signalfd_siginfo>()];
    match rustix::io::read(signalfd, &mut record) {
        Ok(_) => {
            let at = offset_of!(libc::signalfd_siginfo, ssi_signo);
            let number = u32::from_ne_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]]);
            Ok(Some(number as c_int))
        }
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sends any signal number to the process a pidfd refers to (real-time ones too).
pub(crate) fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: c_int) -> Result<()> {
    // SAFETY: a null siginfo asks for kill(2)'s own.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, ptr::null::<u8>(), 0) }).map(drop)
}

/// Closes every descriptor from `first` up. Descriptors owned by live values must not be used
/// afterwards: only a process about to `execve` or a forked helper may call this.
pub(crate) fn close_from(first: c_uint) -> Result<()> {
    // SAFETY: descriptors are integers; the callers' contract above keeps owners from reuse.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, c_uint::MAX, 0) }).map(drop)
}

/// Has every descriptor from `first` up closed when another program is executed.
pub(crate) fn close_on_exec_from(first: c_uint) -> Result<()> {
    // SAFETY: descriptors are integers and stay open.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) }).map(drop)
}

/// Closes a descriptor under its owner, who must never use or drop it again: for a process about to
/// `execve`.
pub(crate) fn close(fd: BorrowedFd<'_>) {
    // SAFETY: as for close_from.
    unsafe { libc::close(fd.as_raw_fd()) };
}

/// The calling process's working directory as the kernel sees it, into `buffer`, NUL-terminated.
pub(crate) fn working_directory(buffer: &mut [u8]) -> Result<()> {
    // SAFETY: the kernel writes at most `len` bytes.
    check(unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) }).map(drop)
}

/// Makes `number` refer to what `fd` refers to, without close-on-exec: `dup3(2)`.
pub(crate) fn place_fd(fd: BorrowedFd<'_>, number: RawFd, close_on_exec: bool) -> Result<()> {
    let flags = if close_on_exec { libc::O_CLOEXEC } else { 0 };
    // SAFETY: as for close_from.
    check(unsafe { libc::dup3(fd.as_raw_fd(), number, flags) }.into()).map(drop)
}

/// Borrows a descriptor by number; a closed one gives EBADF on use.
pub(crate) fn borrow_fd(number: RawFd) -> BorrowedFd<'static> {
    debug_assert!(number >= 0, "descriptor numbers are not negative");
    // SAFETY: used for the numbers a process about to execve has given its descriptors itself.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// Brings the loopback interface of the current network namespace up.
pub(crate) fn loopback_up(socket: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: zeroed is a valid ifreq; the name is NUL-terminated by the zeroing.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request).into()).map(drop)
    }
}

/// Null-terminated C strings for `execve(2)`.
#[derive(Debug)]
pub(crate) struct CStringArray {
    // What the pointers point to.
    strings: Vec<std::ffi::CString>,
    pointers: Vec<*const libc::c_char>,
}

impl CStringArray {
    pub(crate) fn new(strings: Vec<std::ffi::CString>) -> Self {
        let mut pointers: Vec<_> = strings.iter().map(|string| string.as_ptr()).collect();
        pointers.push(ptr::null());
        Self { strings, pointers }
    }

    /// The strings themselves.
    pub(crate) fn strings(&self) -> &[std::ffi::CString] {
        &self.strings
    }
}

/// Replaces this process by the program open at `program`; returns only on failure.
pub(crate) fn exec_fd(program: BorrowedFd<'_>, arguments: &CStringArray, environment: &CStringArray) -> Errno {
    // SAFETY: both arrays are null-terminated and their strings alive.
    let result = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            arguments.pointers.as_ptr(),
            environment.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    check(result).err().unwrap_or(Errno::NOEXEC)
}

/// A file in memory that can be executed: `memfd_create(2)` with `MFD_EXEC` where known.
pub(crate) fn executable_memfd(name: &CStr) -> Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is a C string.
    let create = |flags: c_uint| owned(unsafe { libc::memfd_create(name.as_ptr(), flags) }.into());
    match create(flags | libc::MFD_EXEC) {
        // Before Linux 6.3 the flag is unknown and every memfd is executable.
        Err(Errno::INVAL) => create(flags),
        other => other,
    }
}

/// Takes this program's code and constants out of the process's own memory: what is used again comes back from
/// the file, page by page. What the program wrote itself, and what its loader did, stays.
pub(crate) fn forget_program() {
    unsafe extern "C" {
        // The linker's: the first byte of the program and the first behind its code. What is between is mapped
        // from the file, never written, and laid out before everything that is.
        static __executable_start: u8;
        static etext: u8;
    }
    const PAGE_BYTES: usize = 4096;
    let start = &raw const __executable_start;
    let end = (&raw const etext).map_addr(|end| end / PAGE_BYTES * PAGE_BYTES);
    // SAFETY: pages of a private mapping of a file that nobody has written to hold after this what they held
    // before; that there is nothing else in the range is said above. Refused, it changes nothing.
    unsafe { libc::madvise(start.cast_mut().cast(), end.addr().saturating_sub(start.addr()), libc::MADV_DONTNEED) };
}

/// The machine code of the trampoline that executes a container's command, with the two descriptor
/// numbers it ends in not filled in yet; see `launch::trampoline`.
pub(crate) fn trampoline_code() -> &'static [u8] {
    unsafe extern "C" {
        static longshore_trampoline_start: u8;
        static longshore_trampoline_end: u8;
    }
    // SAFETY: the two labels enclose the code below, in one section of this very program.
    unsafe {
        let start = &raw const longshore_trampoline_start;
        let end = &raw const longshore_trampoline_end;
        std::slice::from_raw_parts(start, end.offset_from_unsigned(start))
    }
}
