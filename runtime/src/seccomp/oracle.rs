//! Tests of the compiler against libseccomp: the same profile compiled by both, the same verdict for
//! every system call number and many arguments, on every ABI.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::Command;

use oci_spec::runtime::{
    Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompOperator, LinuxSyscallBuilder,
};

use super::{ABIS, BpfInstruction, X32_BIT, compile, default_profile, syscalls};

/// What a filter is asked about: `struct seccomp_data`.
struct Call {
    number: u32,
    arch: u32,
    arguments: [u64; 6],
}

impl Call {
    fn word(&self, at: u32) -> u32 {
        let argument = |index: u32| self.arguments[index as usize / 8];
        match at {
            0 => self.number,
            4 => self.arch,
            8 | 12 => 0,
            _ if at.is_multiple_of(8) => argument(at - 16) as u32,
            _ => (argument(at - 16) >> 32) as u32,
        }
    }
}

/// A classic BPF interpreter for what both compilers emit.
fn run(program: &[BpfInstruction], call: &Call) -> u32 {
    let (mut a, mut at, mut memory) = (0u32, 0usize, [0u32; 16]);
    let mut x = 0;
    loop {
        let BpfInstruction { code, jump_true, jump_false, k } = program[at];
        at += 1;
        let mut branch = |condition: bool| at += usize::from(if condition { jump_true } else { jump_false });
        match code {
            0x20 => a = call.word(k),
            0x00 => a = k,
            0x60 => a = memory[k as usize],
            0x02 => memory[k as usize] = a,
            0x07 => x = a,
            0x87 => a = x,
            0x54 => a &= k,
            0x05 => at += k as usize,
            0x15 => branch(a == k),
            0x25 => branch(a > k),
            0x35 => branch(a >= k),
            0x45 => branch(a & k != 0),
            0x06 => return k,
            0x16 => return a,
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn libseccomp_action(action: LinuxSeccompAction, errno: Option<u32>) -> String {
    format!("{:#x}u", action.as_u32(errno))
}

/// A C program that has libseccomp compile the profile: the filter on standard output, the names it
/// does not know, by architecture, on standard error.
fn program_for(profile: &LinuxSeccomp) -> String {
    let mut text = String::from("#include <seccomp.h>\n#include <stdio.h>\n#include <unistd.h>\nint main(void) {\nint nr;\n");
    let default = profile.default_action().as_u32(profile.default_errno_ret());
    writeln!(text, "scmp_filter_ctx c = seccomp_init({default:#x}u);").unwrap();
    for arch in profile.architectures().iter().flatten() {
        writeln!(text, "seccomp_arch_add(c, {:#x}u);", *arch as u32).unwrap();
    }
    for rule in profile.syscalls().iter().flatten() {
        let action = libseccomp_action(rule.action(), rule.errno_ret());
        let arguments = rule.args().iter().flatten().map(|argument| {
            let second = argument.value_two().unwrap_or(0);
            format!("{{ {}, {}, {:#x}ull, {second:#x}ull }}", argument.index(), argument.op() as u32, argument.value())
        });
        let arguments: Vec<String> = arguments.collect();
        for name in rule.names() {
            for abi in ABIS {
                // Multiplexed calls have numbers below -100, those the architecture lacks below -10000.
                let arch = abi.arch as u32;
                writeln!(text, "nr = seccomp_syscall_resolve_name_arch({arch:#x}u, \"{name}\");").unwrap();
                writeln!(text, "if (nr == __NR_SCMP_ERROR || nr < -10000) fprintf(stderr, \"{arch} {name}\\n\");").unwrap();
            }
            writeln!(text, "nr = seccomp_syscall_resolve_name(\"{name}\"); if (nr != __NR_SCMP_ERROR) {{").unwrap();
            writeln!(
                text,
                "struct scmp_arg_cmp a[] = {{ {} }}; seccomp_rule_add_array(c, {action}, nr, {}, a); }}",
                arguments.join(", "),
                arguments.len()
            )
            .unwrap();
        }
    }
    text.push_str("return seccomp_export_bpf(c, 1) ? 1 : 0;\n}\n");
    text
}

/// libseccomp's filter, and the names it does not know; `None` if it is not installed.
fn oracle(profile: &LinuxSeccomp) -> Option<(Vec<BpfInstruction>, Vec<String>)> {
    let directory = tempfile::tempdir().unwrap();
    let (source, binary) = (directory.path().join("oracle.c"), directory.path().join("oracle"));
    if !std::path::Path::new("/usr/include/seccomp.h").exists() {
        assert!(std::env::var_os("LONGSHORE_REQUIRE_PEERS").is_none(), "libseccomp-dev is required and not installed");
        eprintln!("SKIPPED (not installed): libseccomp-dev");
        return None;
    }
    std::fs::write(&source, program_for(profile)).unwrap();
    let compiled = Command::new("cc").arg(&source).arg("-o").arg(&binary).arg("-lseccomp").output().unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let output = Command::new(&binary).output().unwrap();
    assert!(output.status.success());
    let instruction = |bytes: &[u8]| BpfInstruction {
        code: u16::from_le_bytes([bytes[0], bytes[1]]),
        jump_true: bytes[2],
        jump_false: bytes[3],
        k: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    };
    let unknown = String::from_utf8(output.stderr).unwrap().lines().map(str::to_owned).collect();
    Some((output.stdout.chunks(8).map(instruction).collect(), unknown))
}

/// Values around everything the profile compares with.
fn interesting(profile: &LinuxSeccomp) -> Vec<u64> {
    let mut values = BTreeSet::from([0, 1, u64::MAX, 1 << 32, 1 << 31, 0x1000_0000, 0x7e02_0000]);
    for argument in profile.syscalls().iter().flatten().flat_map(|rule| rule.args().iter().flatten()) {
        for value in [argument.value(), argument.value_two().unwrap_or(0)] {
            values.extend([
                value,
                value.wrapping_add(1),
                value.wrapping_sub(1),
                value | 1 << 32,
                value | 1 << 63,
                value & 0xffff_ffff,
            ]);
        }
    }
    values.into_iter().collect()
}

/// Asserts the same verdicts; gives how many calls were compared.
fn compare(profile: &LinuxSeccomp) -> Option<usize> {
    let (theirs, unknown) = oracle(profile)?;
    let ours = compile(profile).unwrap().program;
    let values = interesting(profile);
    let mut compared = 0;
    for abi in ABIS {
        let lacks = |line: &String| {
            let (arch, name) = line.split_once(' ')?;
            if arch == (abi.arch as u32).to_string() { syscalls::numbers(name)?[abi.column] } else { None }
        };
        let skipped: BTreeSet<u32> = unknown.iter().filter_map(lacks).collect();
        assert!(skipped.len() < 40, "libseccomp knows the bulk of {:?}", abi.arch);
        let bit = if abi.narrow && abi.audit == ABIS[0].audit { X32_BIT } else { 0 };
        for number in (0..620).filter(|number| !skipped.contains(number)) {
            for (index, &value) in (0..6).flat_map(|index| values.iter().map(move |value| (index, value))) {
                // The kernel gives 32-bit programs' arguments without upper halves.
                let value = if abi.narrow { value & 0xffff_ffff } else { value };
                let mut arguments = [7; 6];
                arguments[index] = value;
                let call = Call { number: number | bit, arch: abi.audit, arguments };
                let (left, right) = (run(&ours, &call), run(&theirs, &call));
                assert_eq!(left, right, "{:?} number {number} argument {index} = {value:#x}", abi.arch);
                compared += 1;
            }
        }
    }
    for arch in [0u32, 0xc000_00b7 ^ ABIS[0].audit, 0x8000_0016] {
        let call = Call { number: 0, arch, arguments: [0; 6] };
        assert_eq!(run(&ours, &call), run(&theirs, &call), "foreign architecture {arch:#x}");
    }
    Some(compared)
}

#[test]
fn docker_s_profile_gives_the_same_verdicts_as_libseccomp() {
    for capabilities in [Capabilities::new(), [Capability::SysAdmin, Capability::SysPtrace, Capability::Bpf].into()] {
        let profile = default_profile(&capabilities).unwrap();
        if let Some(compared) = compare(&profile) {
            assert!(compared > 100_000);
        }
    }
}

#[test]
fn every_action_and_every_comparison_gives_the_same_verdicts_as_libseccomp() {
    use LinuxSeccompAction::{
        ScmpActAllow, ScmpActErrno, ScmpActKillProcess, ScmpActKillThread, ScmpActLog, ScmpActTrace, ScmpActTrap,
    };
    use LinuxSeccompOperator::{ScmpCmpEq, ScmpCmpGe, ScmpCmpGt, ScmpCmpLe, ScmpCmpLt, ScmpCmpMaskedEq, ScmpCmpNe};
    let big = 0x1_0000_0005u64;
    let operators = [
        ("read", ScmpCmpNe, big, 0u64),
        ("write", ScmpCmpLt, big, 0),
        ("openat", ScmpCmpLe, big, 0),
        ("close", ScmpCmpEq, big, 0),
        ("lseek", ScmpCmpGe, big, 0),
        ("mprotect", ScmpCmpGt, big, 0),
        ("ioctl", ScmpCmpMaskedEq, 0xff_0000_00ff, 0x1_0000_0005),
        ("fcntl", ScmpCmpMaskedEq, 0xf0, 0x30),
        ("dup", ScmpCmpGt, 5, 0),
        ("getpid", ScmpCmpLe, 0, 0),
        ("getuid", ScmpCmpGe, u64::MAX, 0),
    ];
    let actions = [ScmpActAllow, ScmpActErrno, ScmpActKillProcess, ScmpActKillThread, ScmpActLog, ScmpActTrace, ScmpActTrap];
    let mut rules = Vec::new();
    for (at, (name, operator, value, second)) in operators.into_iter().enumerate() {
        let argument =
            LinuxSeccompArgBuilder::default().index(at % 6).value(value).value_two(second).op(operator).build().unwrap();
        let rule =
            LinuxSyscallBuilder::default().names(vec![name.to_owned()]).action(actions[at % actions.len()]).args(vec![argument]);
        rules.push(rule.build().unwrap());
    }
    let two = [(0, 3, ScmpCmpEq), (1, 9, ScmpCmpGt)].map(|(index, value, op)| {
        LinuxSeccompArgBuilder::default().index(index as usize).value(value as u64).op(op).build().unwrap()
    });
    rules.push(
        LinuxSyscallBuilder::default().names(vec!["kill".to_owned()]).action(ScmpActAllow).args(two.to_vec()).build().unwrap(),
    );
    rules.push(
        LinuxSyscallBuilder::default()
            .names(vec!["mmap".to_owned(), "chmod".to_owned()])
            .action(ScmpActErrno)
            .errno_ret(99u32)
            .build()
            .unwrap(),
    );
    // The 32-bit ABI multiplexes nothing of these; 64-bit values have no meaning there.
    let profile = LinuxSeccompBuilder::default()
        .default_action(ScmpActErrno)
        .default_errno_ret(38u32)
        .architectures(vec![ABIS[0].arch])
        .syscalls(rules)
        .build()
        .unwrap();
    compare(&profile);
}

#[test]
fn conditions_on_the_same_argument_are_alternatives() {
    let one = |value: u64| {
        LinuxSeccompArgBuilder::default().index(0usize).value(value).op(LinuxSeccompOperator::ScmpCmpEq).build().unwrap()
    };
    let rule = LinuxSyscallBuilder::default()
        .names(vec!["personality".to_owned()])
        .action(LinuxSeccompAction::ScmpActAllow)
        .args(vec![one(1), one(2)]);
    let profile = LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .syscalls(vec![rule.build().unwrap()])
        .build()
        .unwrap();
    let filter = compile(&profile).unwrap();
    let verdict = |value: u64| {
        run(&filter.program, &Call { number: libc::SYS_personality as u32, arch: ABIS[0].audit, arguments: [value; 6] })
    };
    assert_eq!([verdict(1), verdict(2), verdict(3)], [0x7fff_0000, 0x7fff_0000, 0x5_0001]);
}

#[test]
fn any_call_of_docker_s_profile_is_decided_in_a_few_instructions() {
    let program = compile(&default_profile(&Capabilities::new()).unwrap()).unwrap().program;
    assert!(program.len() < 1500, "{}", program.len());
}
