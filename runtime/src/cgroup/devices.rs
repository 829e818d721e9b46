//! Device rules of a cgroup: as an eBPF program for cgroup2, as lines for the v1 `devices` controller.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

// Access bits and device types of `struct bpf_cgroup_dev_ctx`.
const MKNOD: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;
const ALL: u32 = MKNOD | READ | WRITE;
/// How many bits of a device's number its minor number has (`MINORBITS`).
const MINOR_BITS: i32 = 20;
const BLOCK: u32 = 1;
const CHARACTER: u32 = 2;

/// What every container may use: null, zero, full, random, urandom, tty, console, ptmx, pts
/// (runtime-spec config-linux.md, "Default Devices"), and the making of any node: what opening it
/// gives is decided when it is opened.
const ALWAYS: [Rule; 11] = [
    Rule::allow(Some(CHARACTER), None, None, MKNOD),
    Rule::allow(Some(BLOCK), None, None, MKNOD),
    Rule::allow(Some(CHARACTER), Some(1), Some(3), ALL),
    Rule::allow(Some(CHARACTER), Some(1), Some(5), ALL),
    Rule::allow(Some(CHARACTER), Some(1), Some(7), ALL),
    Rule::allow(Some(CHARACTER), Some(1), Some(8), ALL),
    Rule::allow(Some(CHARACTER), Some(1), Some(9), ALL),
    Rule::allow(Some(CHARACTER), Some(5), Some(0), ALL),
    Rule::allow(Some(CHARACTER), Some(5), Some(1), ALL),
    Rule::allow(Some(CHARACTER), Some(5), Some(2), ALL),
    Rule::allow(Some(CHARACTER), Some(136), None, ALL),
];

/// One rule; `None` is any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    allow: bool,
    kind: Option<u32>,
    major: Option<u32>,
    minor: Option<u32>,
    access: u32,
}

impl Rule {
    const fn allow(kind: Option<u32>, major: Option<u32>, minor: Option<u32>, access: u32) -> Self {
        Self { allow: true, kind, major, minor, access }
    }

    /// A rule of the configuration; `None` for one that no device can meet.
    fn new(rule: &LinuxDeviceCgroup) -> Option<Self> {
        let kind = match rule.typ().unwrap_or(LinuxDeviceType::A) {
            LinuxDeviceType::A => None,
            LinuxDeviceType::B => Some(BLOCK),
            LinuxDeviceType::C | LinuxDeviceType::U => Some(CHARACTER),
            LinuxDeviceType::P => return None,
        };
        let number = |number: Option<i64>| match number {
            None | Some(-1) => Some(None),
            Some(number) => u32::try_from(number).ok().map(Some),
        };
        let access = rule.access().as_deref().unwrap_or("rwm").chars().fold(0, |bits, letter| {
            bits | match letter {
                'r' => READ,
                'w' => WRITE,
                'm' => MKNOD,
                _ => 0,
            }
        });
        Some(Self { allow: rule.allow(), kind, major: number(rule.major())?, minor: number(rule.minor())?, access })
    }

    fn is_everything(self) -> bool {
        self.kind.is_none() && self.major.is_none() && self.minor.is_none() && self.access == ALL
    }

    /// The one device it is about, whatever is done with it, as it is looked up.
    fn device(self) -> Option<i32> {
        let (major, minor) = (self.major?, self.minor?);
        let fits = self.access == ALL && major < 1 << (u32::BITS as i32 - MINOR_BITS) && minor < 1 << MINOR_BITS;
        fits.then_some((major << MINOR_BITS | minor).cast_signed())
    }

    /// Checks of what it says; with all passed the verdict, and the end.
    fn instructions(self) -> Vec<u64> {
        let equals = [(2, self.kind), (4, self.major), (5, self.minor)];
        let checks: Vec<_> = equals.into_iter().filter_map(|(register, value)| Some((register, value? as i32))).collect();
        let mut verdict = Vec::new();
        if self.access != ALL {
            // Allowed if nothing else is asked for; denied if anything of it is.
            let (jump, mask) = if self.allow { (JUMP_NOT_EQUAL, !self.access) } else { (JUMP_EQUAL, self.access) };
            verdict.extend([
                instruction(MOVE_REGISTER, 1, 3, 0, 0),
                instruction(AND_CONSTANT, 1, 0, 0, mask as i32),
                instruction(jump, 1, 0, 2, 0),
            ]);
        }
        verdict.extend([instruction(MOVE_CONSTANT, 0, 0, 0, i32::from(self.allow)), instruction(EXIT, 0, 0, 0, 0)]);
        let length = checks.len() + verdict.len();
        let jump_over = |(at, (register, value))| instruction(JUMP_NOT_EQUAL, register, 0, (length - at - 1) as i16, value);
        checks.into_iter().enumerate().map(jump_over).chain(verdict).collect()
    }

    /// The line for `devices.allow` or `devices.deny`.
    fn line(self) -> String {
        if self.is_everything() {
            return "a".into();
        }
        let kind = match self.kind {
            Some(BLOCK) => 'b',
            Some(_) => 'c',
            None => 'a',
        };
        let number = |number: Option<u32>| number.map_or_else(|| "*".into(), |number| number.to_string());
        format!("{kind} {}:{} {}", number(self.major), number(self.minor), self.access_letters())
    }

    fn access_letters(self) -> String {
        let letters = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')];
        letters.iter().filter(|(bit, _)| self.access & bit != 0).map(|(_, letter)| letter).collect()
    }
}

/// A container's rules in order: the last that fits decides, and what none fits is denied.
#[derive(Debug)]
pub(super) struct Rules(Vec<Rule>);

impl Rules {
    pub(super) fn new(configured: &[LinuxDeviceCgroup]) -> Self {
        let mut rules: Vec<Rule> = configured.iter().filter_map(Rule::new).collect();
        // What is before a rule for everything has no effect.
        if let Some(last) = rules.iter().rposition(|rule| rule.is_everything()) {
            let allowed = rules[last].allow;
            rules.drain(..last + usize::from(!allowed));
        }
        rules.extend(ALWAYS);
        Self(rules)
    }

    /// True if every device is allowed: then nothing has to be enforced.
    pub(super) fn allow_all(&self) -> bool {
        self.0.first().is_some_and(|rule| rule.is_everything()) && self.0.iter().all(|rule| rule.allow)
    }

    /// File name and line of each write, in order, that a v1 `devices` cgroup takes.
    pub(super) fn lines(&self) -> Vec<(&'static str, String)> {
        let rules = self.0.iter().map(|rule| (if rule.allow { "devices.allow" } else { "devices.deny" }, rule.line()));
        std::iter::once(("devices.deny", "a".to_owned())).chain(rules).collect()
    }

    /// What is allowed, as systemd's `DeviceAllow`; `drivers` is `/proc/devices`. It knows no exceptions: what a
    /// rule denies of what one before it allows is not among them.
    pub(super) fn systemd(&self, drivers: &str) -> Vec<(String, String)> {
        let name = |kind: &str, major: u32| {
            let title = if kind == "char" { "Character devices:" } else { "Block devices:" };
            let section = drivers.lines().skip_while(|line| *line != title).skip(1).take_while(|line| !line.is_empty());
            let numbered = section.filter_map(|line| line.trim_start().split_once(' '));
            numbered.filter(|(number, _)| number.parse() == Ok(major)).map(|(_, name)| name.to_owned()).next()
        };
        let mut list = Vec::new();
        for rule in self.0.iter().filter(|rule| rule.allow) {
            for (kind, number) in [("char", CHARACTER), ("block", BLOCK)] {
                if rule.kind.is_some_and(|kind| kind != number) {
                    continue;
                }
                let device = match (rule.major, rule.minor) {
                    (None, None) => Some(format!("{kind}-*")),
                    (Some(major), Some(minor)) => Some(format!("/dev/{kind}/{major}:{minor}")),
                    // Of a driver that is not loaded there is no device.
                    (Some(major), None) => name(kind, major).map(|name| format!("{kind}-{name}")),
                    (None, Some(_)) => None,
                };
                list.extend(device.map(|device| (device, rule.access_letters())));
            }
        }
        list
    }

    /// The rules as an eBPF program: from the last to the first, the first that fits returns.
    ///
    /// The kernel follows every path through it each time a container is made: rules for one device each are
    /// therefore looked up by one comparison, as many as follow on each other.
    pub(super) fn program(&self) -> Vec<u64> {
        // Registers: r2 type, r3 access, r4 major, r5 minor, r6 both; r1 is free once the context is read.
        let mut code = vec![
            instruction(LOAD_WORD, 3, 1, 0, 0),
            instruction(MOVE_REGISTER, 2, 3, 0, 0),
            instruction(AND_CONSTANT, 2, 0, 0, 0xffff),
            instruction(SHIFT_RIGHT, 3, 0, 0, 16),
            instruction(LOAD_WORD, 4, 1, 4, 0),
            instruction(LOAD_WORD, 5, 1, 8, 0),
            instruction(MOVE_REGISTER, 6, 4, 0, 0),
            instruction(SHIFT_LEFT, 6, 0, 0, MINOR_BITS),
            instruction(OR_REGISTER, 6, 5, 0, 0),
        ];
        let mut rules = self.0.iter().rev().copied().peekable();
        while let Some(rule) = rules.next() {
            let Some(first) = rule.device() else {
                code.extend(rule.instructions());
                continue;
            };
            let mut devices = vec![first];
            while let Some(next) =
                rules.next_if(|next| next.device().is_some() && (next.kind, next.allow) == (rule.kind, rule.allow))
            {
                devices.extend(next.device());
            }
            let count = devices.len() as i16;
            code.extend(rule.kind.map(|kind| instruction(JUMP_NOT_EQUAL, 2, 0, count + 3, kind as i32)));
            // To the verdict, which is behind the other comparisons and the jump over it.
            code.extend((1..).zip(devices).map(|(at, device)| instruction(JUMP_EQUAL_32, 6, 0, count - at + 1, device)));
            code.extend([
                instruction(JUMP, 0, 0, 2, 0),
                instruction(MOVE_CONSTANT, 0, 0, 0, i32::from(rule.allow)),
                instruction(EXIT, 0, 0, 0, 0),
            ]);
        }
        code.extend([instruction(MOVE_CONSTANT, 0, 0, 0, 0), instruction(EXIT, 0, 0, 0, 0)]);
        code
    }
}

// eBPF operation codes (linux/bpf.h), 32-bit arithmetic.
const LOAD_WORD: u8 = 0x61;
const MOVE_REGISTER: u8 = 0xbc;
const MOVE_CONSTANT: u8 = 0xb4;
const AND_CONSTANT: u8 = 0x54;
const OR_REGISTER: u8 = 0x4c;
const SHIFT_LEFT: u8 = 0x64;
const SHIFT_RIGHT: u8 = 0x74;
const JUMP: u8 = 0x05;
const JUMP_EQUAL: u8 = 0x15;
const JUMP_EQUAL_32: u8 = 0x16;
const JUMP_NOT_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

/// One instruction: operation, destination and source register, offset, constant.
fn instruction(code: u8, destination: u8, source: u8, offset: i16, constant: i32) -> u64 {
    let [offset_low, offset_high] = offset.to_le_bytes();
    let [a, b, c, d] = constant.to_le_bytes();
    u64::from_ne_bytes([code, destination | source << 4, offset_low, offset_high, a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxDeviceCgroupBuilder;
    use proptest::prelude::*;

    fn everything(allow: bool) -> LinuxDeviceCgroup {
        LinuxDeviceCgroupBuilder::default().allow(allow).access("rwm").build().unwrap()
    }

    /// What a program says of a device that somebody wants to use.
    fn execute(program: &[u64], kind: u32, major: u32, minor: u32, access: u32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let (mut registers, mut at) = ([0_u64; 8], 0);
        loop {
            let [code, places, low, high, a, b, c, d] = program[at].to_ne_bytes();
            let (to, from) = (usize::from(places & 15), usize::from(places >> 4));
            let (offset, constant) = (i16::from_le_bytes([low, high]), i32::from_le_bytes([a, b, c, d]));
            at += 1;
            let word = |register: u64| u64::from(register as u32);
            let value = registers[to];
            let jumps = match code {
                LOAD_WORD => {
                    registers[to] = context[usize::from(offset.unsigned_abs()) / 4].into();
                    false
                }
                MOVE_REGISTER | MOVE_CONSTANT | AND_CONSTANT | OR_REGISTER | SHIFT_LEFT | SHIFT_RIGHT => {
                    registers[to] = word(match code {
                        MOVE_REGISTER => registers[from],
                        MOVE_CONSTANT => u64::from(constant.cast_unsigned()),
                        AND_CONSTANT => value & u64::from(constant.cast_unsigned()),
                        OR_REGISTER => value | registers[from],
                        SHIFT_LEFT => word(value) << constant,
                        _ => word(value) >> constant,
                    });
                    false
                }
                JUMP => true,
                JUMP_EQUAL => value == i64::from(constant).cast_unsigned(),
                JUMP_EQUAL_32 => value as u32 == constant.cast_unsigned(),
                JUMP_NOT_EQUAL => value != i64::from(constant).cast_unsigned(),
                EXIT => return registers[0] != 0,
                other => panic!("{other:#x}"),
            };
            if jumps {
                at += usize::from(offset.unsigned_abs());
            }
        }
    }

    proptest! {
        #[test]
        fn the_program_says_what_the_last_rule_that_fits_says(
            rules in proptest::collection::vec(
                (any::<bool>(), proptest::option::of(1..3_u32), proptest::option::of(0..3_u32), proptest::option::of(0..3_u32), 1..8_u32),
                0..12,
            ),
            huge: bool,
        ) {
            let wide = |number: Option<u32>| number.map(|number| if huge && number == 2 { u32::MAX } else { number });
            let rule = |(allow, kind, major, minor, access)| Rule { allow, kind, major: wide(major), minor: wide(minor), access };
            let rules = Rules(rules.into_iter().map(rule).collect());
            let program = rules.program();
            let same = |wanted: Option<u32>, is: u32| wanted.is_none_or(|wanted| wanted == is);
            for (kind, major, minor) in [1, 2].into_iter().flat_map(|kind| (0..9).map(move |device| (kind, device / 3, device % 3))) {
                for access in 1..8 {
                    // A rule that allows must allow all that is asked for; one that denies denies any of it.
                    let fits = |rule: &&Rule| {
                        let enough = if rule.allow { access & !rule.access == 0 } else { access & rule.access != 0 };
                        same(rule.kind, kind) && same(rule.major, major) && same(rule.minor, minor) && enough
                    };
                    let expected = rules.0.iter().rev().find(fits).is_some_and(|rule| rule.allow);
                    prop_assert_eq!(execute(&program, kind, major, minor, access), expected, "{:?}", (kind, major, minor, access));
                }
            }
        }
    }

    #[test]
    fn the_usual_rule_denies_all_but_the_default_devices() {
        let rules = Rules::new(&[everything(false)]);
        assert!(!rules.allow_all());
        let lines = rules.lines();
        assert_eq!(lines[0], ("devices.deny", "a".to_owned()));
        assert!(lines.contains(&("devices.allow", "c 1:3 rwm".to_owned())));
        assert!(lines.contains(&("devices.allow", "c 136:* rwm".to_owned())));
        assert_eq!(lines.iter().filter(|(file, _)| *file == "devices.deny").count(), 1);
    }

    #[test]
    fn systemd_is_told_what_is_allowed_by_its_own_names() {
        let drivers = "Character devices:\n  1 mem\n136 pts\n\nBlock devices:\n  8 sd\n";
        let mut disk = LinuxDeviceCgroup::default();
        disk.set_allow(true).set_typ(Some(LinuxDeviceType::B)).set_major(Some(8)).set_access(Some("r".into()));
        let mut unknown = disk.clone();
        unknown.set_major(Some(99));
        let list = Rules::new(&[everything(false), disk, unknown]).systemd(drivers);
        let pair = |device: &str, access: &str| (device.to_owned(), access.to_owned());
        assert_eq!(list[0], pair("block-sd", "r"));
        for expected in [pair("char-*", "m"), pair("block-*", "m"), pair("/dev/char/1:3", "rwm"), pair("char-pts", "rwm")] {
            assert!(list.contains(&expected), "{list:?}");
        }
        assert_eq!(list.len(), 1 + ALWAYS.len());
    }

    #[test]
    fn no_rules_at_all_deny_too_and_a_privileged_container_is_not_restricted() {
        assert!(!Rules::new(&[]).allow_all());
        assert!(Rules::new(&[everything(false), everything(true)]).allow_all());
        assert!(!Rules::new(&[everything(true), everything(false)]).allow_all());
    }
}
