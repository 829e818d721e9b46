//! Names of units, and limits as properties of them.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Linux;
use serde::{Deserialize, Serialize};

use super::super::settings::Setting;
use super::message::Writer;
use crate::error::{Error, Result};

/// The longest name of a unit (systemd.unit(5)).
const NAME_LIMIT_BYTES: usize = 255;

const US_PER_S: u64 = 1_000_000;

/// The scope a container is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unit {
    /// `PREFIX-NAME.scope`.
    pub(super) name: String,
    pub(super) slice: String,
    /// Whether the systemd is the user's own, not the system's.
    pub(super) user: bool,
}

impl Unit {
    /// What `linux.cgroupsPath` says: `SLICE:PREFIX:NAME`, or nothing.
    pub(crate) fn new(id: &str, linux: &Linux, user: bool) -> Result<Self> {
        let default = || format!(":longshore:{id}");
        let configured = linux.cgroups_path().as_ref().filter(|path| !path.as_os_str().is_empty());
        let text = configured.map_or_else(default, |path| path.to_string_lossy().into_owned());
        let fail = |why: String| Err(Error::invalid(format!("linux.cgroupsPath {text:?}"), why));
        let [slice, prefix, name] = text.split(':').collect::<Vec<_>>()[..] else {
            return fail("with --systemd-cgroup it must be SLICE:PREFIX:NAME; for a path leave that flag out".into());
        };
        let slice = match slice {
            "" if user => "user.slice",
            "" => "system.slice",
            given => given,
        };
        if slice_path(slice).is_none() {
            return fail(format!(
                "{slice:?} is no name of a slice: it must end in \".slice\" and have no empty part between dashes"
            ));
        }
        let name = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.\\@".contains(c);
        if name == ".scope" || name.len() > NAME_LIMIT_BYTES || !name.chars().all(allowed) {
            return fail(format!(
                "{name:?} is no name of a unit: letters, digits and - _ . \\ @, at most {NAME_LIMIT_BYTES} bytes"
            ));
        }
        Ok(Self { name, slice: slice.to_owned(), user })
    }

    /// Its directory, relative to that of the systemd that has it.
    pub(super) fn path(&self) -> PathBuf {
        slice_path(&self.slice).unwrap_or_default().join(&self.name)
    }
}

/// `a-b.slice` is in `a.slice`, `-.slice` is the root (systemd.slice(5)).
fn slice_path(name: &str) -> Option<PathBuf> {
    let stem = name.strip_suffix(".slice")?;
    let mut path = PathBuf::new();
    if stem == "-" {
        return Some(path);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.\\@".contains(c);
    let mut parts = String::new();
    for part in stem.split('-') {
        if part.is_empty() || !part.chars().all(allowed) {
            return None;
        }
        if !parts.is_empty() {
            parts.push('-');
        }
        parts.push_str(part);
        path.push(Path::new(&format!("{parts}.slice")));
    }
    Some(path)
}

/// A property of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Property {
    pub(super) name: &'static str,
    pub(super) value: Value,
}

/// What a property is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Flag(bool),
    Number(u64),
    Processes(Vec<u32>),
    /// A set of numbers, a bit each.
    Mask(Vec<u8>),
    /// Devices, and what may be done with each.
    Devices(Vec<(String, String)>),
}

impl Property {
    pub(super) fn new(name: &'static str, value: Value) -> Self {
        Self { name, value }
    }

    pub(super) fn write(&self, body: &mut Writer) {
        body.structure();
        body.text(self.name);
        match &self.value {
            Value::Text(text) => {
                body.signature("s");
                body.text(text);
            }
            Value::Flag(flag) => {
                body.signature("b");
                body.bool(*flag);
            }
            Value::Number(number) => {
                body.signature("t");
                body.u64(*number);
            }
            Value::Processes(pids) => {
                body.signature("au");
                body.array(4, |body| pids.iter().for_each(|pid| body.u32(*pid)));
            }
            Value::Mask(bytes) => {
                body.signature("ay");
                body.array(1, |body| bytes.iter().for_each(|byte| body.byte(*byte)));
            }
            Value::Devices(list) => {
                body.signature("a(ss)");
                body.array(8, |body| {
                    for (device, access) in list {
                        body.structure();
                        body.text(device);
                        body.text(access);
                    }
                });
            }
        }
    }
}

/// The limits that were written to a unit's cgroup as its properties: systemd writes them again whenever it
/// reloads its configuration, and would else undo them. What has no property it leaves alone.
pub(super) fn properties(settings: &[Setting]) -> Vec<Property> {
    let mut list: Vec<Property> = settings.iter().filter_map(property).collect();
    let number = |file: &str| {
        let setting = settings.iter().find(|setting| setting.file == file)?;
        setting.value.parse::<i64>().ok()
    };
    let (quota, period) = match settings.iter().find(|setting| setting.file == "cpu.max") {
        Some(setting) => {
            let mut words = setting.value.split_whitespace();
            let quota = words.next().map(|word| word.parse().unwrap_or(-1));
            (quota, words.next().and_then(|word| word.parse().ok()))
        }
        None => (number("cpu.cfs_quota_us"), number("cpu.cfs_period_us")),
    };
    if let Some(period) = period.and_then(|period| u64::try_from(period).ok()).filter(|period| *period > 0) {
        list.push(Property::new("CPUQuotaPeriodUSec", Value::Number(period)));
    }
    if let Some(quota) = quota {
        let period = period.and_then(|period| u64::try_from(period).ok()).filter(|period| *period > 0).unwrap_or(100_000);
        let per_second = u64::try_from(quota).map_or(u64::MAX, |quota| quota.saturating_mul(US_PER_S).div_ceil(period));
        list.push(Property::new("CPUQuotaPerSecUSec", Value::Number(per_second)));
    }
    list
}

fn property(setting: &Setting) -> Option<Property> {
    // A unit's property each, all numbers of which the largest is "no limit".
    let name = match setting.file.as_str() {
        "memory.max" => "MemoryMax",
        "memory.high" => "MemoryHigh",
        "memory.low" => "MemoryLow",
        "memory.min" => "MemoryMin",
        "memory.swap.max" => "MemorySwapMax",
        "memory.limit_in_bytes" => "MemoryLimit",
        "pids.max" => "TasksMax",
        "cpu.weight" => "CPUWeight",
        "cpu.shares" => "CPUShares",
        "io.weight" => "IOWeight",
        "blkio.weight" => "BlockIOWeight",
        "cpuset.cpus" => return Some(Property::new("AllowedCPUs", Value::Mask(mask(&setting.value)?))),
        "cpuset.mems" => return Some(Property::new("AllowedMemoryNodes", Value::Mask(mask(&setting.value)?))),
        _ => return None,
    };
    let value = setting.value.strip_prefix("default ").unwrap_or(&setting.value);
    let number = if value == "max" || value == "-1" { u64::MAX } else { value.parse().ok()? };
    Some(Property::new(name, Value::Number(number)))
}

/// A list of ranges as a bit each, the lowest first.
fn mask(list: &str) -> Option<Vec<u8>> {
    /// Above any number of processors a kernel is built for.
    const LIMIT: usize = 1 << 16;
    let mut mask = Vec::new();
    for range in list.trim().split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= LIMIT {
            return None;
        }
        mask.resize(mask.len().max(last / 8 + 1), 0);
        (first..=last).for_each(|bit| mask[bit / 8] |= 1 << (bit % 8));
    }
    Some(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(path: &str) -> Result<Unit> {
        let mut linux = Linux::default();
        linux.set_cgroups_path(Some(path.into()));
        Unit::new("one", &linux, false)
    }

    #[test]
    fn a_scope_is_named_and_placed_as_engines_expect() {
        for (path, expected) in [
            ("", "system.slice/longshore-one.scope"),
            ("system.slice:docker:abc", "system.slice/docker-abc.scope"),
            (":libpod:abc", "system.slice/libpod-abc.scope"),
            ("-.slice:crio:abc", "crio-abc.scope"),
            (
                "kubepods-burstable-pod1_2.slice:cri-containerd:abc",
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-abc.scope",
            ),
            ("user.slice::abc", "user.slice/abc.scope"),
        ] {
            assert_eq!(unit(path).unwrap().path(), Path::new(expected), "{path}");
        }
        assert_eq!(Unit::new("one", &Linux::default(), true).unwrap().slice, "user.slice");
    }

    #[test]
    fn what_is_no_name_of_a_unit_is_refused() {
        let long = format!("a.slice:b:{}", "c".repeat(NAME_LIMIT_BYTES));
        for bad in ["/path", "a:b", "a.slice:b:c:d", "a:b:c", "a--b.slice:b:c", "-a.slice:b:c", "../x.slice:b:c", "a.slice:b:c/d"]
        {
            let error = unit(bad).unwrap_err().to_string();
            assert!(error.contains("linux.cgroupsPath"), "{bad}: {error}");
        }
        for bad in ["a.slice:b:../c", "a.slice::", "a.slice:b:c\n", long.as_str()] {
            assert!(unit(bad).unwrap_err().to_string().contains("no name of a unit"), "{bad:?}");
        }
    }

    #[test]
    fn limits_are_properties_too() {
        let set = |file: &str, value: &str| Setting::new("x", file, value, "field");
        let found = properties(&[
            set("memory.max", "1048576"),
            set("memory.swap.max", "max"),
            set("cpu.max", "50000 200000"),
            set("cpuset.cpus", "0-2,9"),
            set("io.weight", "default 50"),
            set("hugetlb.2MB.max", "1"),
        ]);
        let number = |name, number| Property::new(name, Value::Number(number));
        assert_eq!(
            found,
            [
                number("MemoryMax", 1 << 20),
                number("MemorySwapMax", u64::MAX),
                Property::new("AllowedCPUs", Value::Mask(vec![0b111, 0b10])),
                number("IOWeight", 50),
                number("CPUQuotaPeriodUSec", 200_000),
                number("CPUQuotaPerSecUSec", 250_000),
            ]
        );
        let found = properties(&[set("cpu.cfs_period_us", "50000"), set("cpu.cfs_quota_us", "-1")]);
        assert_eq!(found, [number("CPUQuotaPeriodUSec", 50_000), number("CPUQuotaPerSecUSec", u64::MAX)]);
        assert_eq!(properties(&[set("cpu.max", "max 100000")])[1], number("CPUQuotaPerSecUSec", u64::MAX));
        assert_eq!(mask("3-1"), None);
        assert_eq!(mask("99999999"), None);
    }
}
