//! Classic BPF for seccomp: a dispatch on the architecture, a binary search over system call
//! numbers, comparisons of 64-bit arguments in two halves.

use oci_spec::runtime::LinuxSeccompOperator;

use super::{Condition, Verdict};
use crate::sys::BpfInstruction;

/// `SECCOMP_RET_KILL_THREAD`: for architectures the profile does not name, as libseccomp does.
pub(super) const KILL_THREAD: u32 = 0;

// Offsets in `struct seccomp_data` (little-endian).
const NUMBER_AT: u32 = 0;
const ARCH_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;

// Operation codes (linux/bpf_common.h): class, size or operation, mode or source.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

fn statement(code: u16, k: u32) -> BpfInstruction {
    BpfInstruction { code, jump_true: 0, jump_false: 0, k }
}

fn jump(code: u16, k: u32, jump_true: u8, jump_false: u8) -> BpfInstruction {
    BpfInstruction { code, jump_true, jump_false, k }
}

/// The whole filter: sections by `AUDIT_ARCH_*`, each a list of ranges in ascending order from 0.
pub(super) fn program(
    sections: &[(u32, Vec<(u32, Verdict)>)],
    default: u32,
    narrow: &dyn Fn(u32, u32) -> bool,
) -> Vec<BpfInstruction> {
    let mut program = vec![statement(LOAD, ARCH_AT)];
    for (audit, ranges) in sections {
        let mut section = vec![statement(LOAD, NUMBER_AT)];
        search(&mut section, ranges, default, &|number| narrow(*audit, number));
        program.push(jump(JUMP_EQUAL, *audit, 1, 0));
        program.push(statement(JUMP, section.len() as u32));
        program.extend(section);
    }
    program.push(statement(RETURN, KILL_THREAD));
    program
}

/// A balanced tree of comparisons; a leaf is a return or a list of argument checks.
fn search(code: &mut Vec<BpfInstruction>, ranges: &[(u32, Verdict)], default: u32, narrow: &dyn Fn(u32) -> bool) {
    let [(start, verdict)] = ranges else {
        let (low, high) = ranges.split_at(ranges.len() / 2);
        let at = code.len();
        code.push(jump(JUMP_GREATER_EQUAL, high[0].0, 0, 0));
        search(code, low, default, narrow);
        let distance = code.len() - at - 1;
        match u8::try_from(distance) {
            Ok(distance) => code[at].jump_true = distance,
            // Out of a conditional jump's reach: every jump so far is relative and within its part.
            Err(_) => {
                code[at].jump_false = 1;
                code.insert(at + 1, statement(JUMP, distance as u32));
            }
        }
        return search(code, high, default, narrow);
    };
    match verdict {
        Verdict::Always(action) => code.push(statement(RETURN, *action)),
        Verdict::First(rules) => {
            for (conditions, action) in rules {
                code.extend(rule(conditions, *action, narrow(*start)));
            }
            code.push(statement(RETURN, default));
        }
    }
}

/// Where a comparison goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    /// The next instruction.
    Next,
    /// This comparison holds: behind its last instruction.
    Holds,
    /// It does not: behind the whole rule.
    Fails,
}

/// An instruction whose jumps are still names.
struct Draft(u16, u32, To, To);

/// The comparisons of one rule, then its action; behind it if one of them fails.
fn rule(conditions: &[Condition], action: u32, narrow: bool) -> Vec<BpfInstruction> {
    let blocks: Vec<Vec<Draft>> = conditions.iter().map(|condition| compare(condition, narrow)).collect();
    let length = blocks.iter().map(Vec::len).sum::<usize>() + 1;
    let mut code = Vec::with_capacity(length);
    for block in &blocks {
        let block_end = code.len() + block.len();
        for Draft(op, k, jump_true, jump_false) in block {
            let here = code.len() + 1;
            // A rule has at most 6 comparisons of 6 instructions: always in reach.
            let distance = |to: To| match to {
                To::Next => 0,
                To::Holds => (block_end - here) as u8,
                To::Fails => (length - here) as u8,
            };
            code.push(jump(*op, *k, distance(*jump_true), distance(*jump_false)));
        }
    }
    code.push(statement(RETURN, action));
    code
}

fn compare(condition: &Condition, narrow: bool) -> Vec<Draft> {
    use To::{Fails, Holds, Next};
    let low_at = ARGUMENTS_AT + 8 * condition.index;
    let load = |at: u32| Draft(LOAD, at, Next, Next);
    let (high, low) = ((condition.value >> 32) as u32, condition.value as u32);
    // What the upper halves decide: greater, smaller, or nothing when they are equal.
    let mut code = Vec::with_capacity(6);
    let mut upper = |drafts: Vec<Draft>| {
        if !narrow {
            code.push(load(low_at + 4));
            code.extend(drafts);
        }
        code.push(load(low_at));
    };
    let last = match condition.operator {
        LinuxSeccompOperator::ScmpCmpEq => {
            upper(vec![Draft(JUMP_EQUAL, high, Next, Fails)]);
            Draft(JUMP_EQUAL, low, Next, Fails)
        }
        LinuxSeccompOperator::ScmpCmpNe => {
            upper(vec![Draft(JUMP_EQUAL, high, Next, Holds)]);
            Draft(JUMP_EQUAL, low, Fails, Next)
        }
        LinuxSeccompOperator::ScmpCmpGt => {
            upper(vec![Draft(JUMP_GREATER, high, Holds, Next), Draft(JUMP_EQUAL, high, Next, Fails)]);
            Draft(JUMP_GREATER, low, Next, Fails)
        }
        LinuxSeccompOperator::ScmpCmpGe => {
            upper(vec![Draft(JUMP_GREATER, high, Holds, Next), Draft(JUMP_EQUAL, high, Next, Fails)]);
            Draft(JUMP_GREATER_EQUAL, low, Next, Fails)
        }
        LinuxSeccompOperator::ScmpCmpLt => {
            upper(vec![Draft(JUMP_GREATER, high, Fails, Next), Draft(JUMP_EQUAL, high, Next, Holds)]);
            Draft(JUMP_GREATER_EQUAL, low, Fails, Next)
        }
        LinuxSeccompOperator::ScmpCmpLe => {
            upper(vec![Draft(JUMP_GREATER, high, Fails, Next), Draft(JUMP_EQUAL, high, Next, Holds)]);
            Draft(JUMP_GREATER, low, Fails, Next)
        }
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            let (masked_high, masked_low) = ((condition.masked >> 32) as u32, condition.masked as u32);
            upper(vec![Draft(AND, high, Next, Next), Draft(JUMP_EQUAL, masked_high & high, Next, Fails)]);
            code.push(Draft(AND, low, Next, Next));
            Draft(JUMP_EQUAL, masked_low & low, Next, Fails)
        }
    };
    code.push(last);
    code
}
