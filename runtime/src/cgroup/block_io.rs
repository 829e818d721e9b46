//! `linux.resources.blockIO`: weights and limits of block devices, for both versions of cgroups.

use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice, LinuxWeightDevice};

use super::settings::{Setting, Version};
use crate::error::{Error, Result};

/// All writes.
pub(super) fn settings(block: &LinuxBlockIo, version: Version) -> Result<Vec<Setting>> {
    let mut list = Vec::new();
    if let Some(weight) = block.weight().filter(|weight| *weight != 0) {
        list.push(self::weight(check(weight, "blockIO.weight")?, version));
    }
    if let Some(weight) = block.leaf_weight().filter(|weight| *weight != 0) {
        leaf_only_v1(version, "blockIO.leafWeight")?;
        list.push(Setting::new("blkio", "blkio.leaf_weight", check(weight, "blockIO.leafWeight")?, "blockIO.leafWeight"));
    }
    for device in block.weight_device().iter().flatten() {
        list.extend(weight_of_device(*device, version)?);
    }
    let throttles = [
        (block.throttle_read_bps_device(), "read_bps_device", "rbps", "blockIO.throttleReadBpsDevice"),
        (block.throttle_write_bps_device(), "write_bps_device", "wbps", "blockIO.throttleWriteBpsDevice"),
        (block.throttle_read_iops_device(), "read_iops_device", "riops", "blockIO.throttleReadIOPSDevice"),
        (block.throttle_write_iops_device(), "write_iops_device", "wiops", "blockIO.throttleWriteIOPSDevice"),
    ];
    for (devices, v1, v2, field) in throttles {
        let write = |device: &LinuxThrottleDevice| {
            let number = number(device.major(), device.minor());
            match version {
                Version::One => {
                    Setting::new("blkio", format!("blkio.throttle.{v1}"), format!("{number} {}", device.rate()), field)
                }
                // 0 is no limit in v1, and an error in v2.
                Version::Two if device.rate() == 0 => Setting::new("io", "io.max", format!("{number} {v2}=max"), field),
                Version::Two => Setting::new("io", "io.max", format!("{number} {v2}={}", device.rate()), field),
            }
        };
        list.extend(devices.iter().flatten().map(write));
    }
    Ok(list)
}

fn number(major: i64, minor: i64) -> String {
    format!("{major}:{minor}")
}

fn check(weight: u16, field: &'static str) -> Result<u16> {
    if (10..=1000).contains(&weight) {
        return Ok(weight);
    }
    Err(Error::invalid(format!("linux.resources.{field}"), format!("{weight}: it must be from 10 to 1000")))
}

fn leaf_only_v1(version: Version, field: &'static str) -> Result<()> {
    if version == Version::One {
        return Ok(());
    }
    Err(Error::invalid(format!("linux.resources.{field}"), "cgroup v2 has no weights of leaves"))
}

/// The scheduler that understands weights has files of its own: BFQ's, or the general ones.
fn weight(weight: u16, version: Version) -> Setting {
    let field = "blockIO.weight";
    match version {
        Version::One => Setting {
            alias: Some(("blkio.bfq.weight".into(), weight.to_string())),
            ..Setting::new("blkio", "blkio.weight", weight, field)
        },
        Version::Two => Setting {
            alias: Some(("io.weight".into(), format!("default {}", v2_weight(weight)))),
            ..Setting::new("io", "io.bfq.weight", weight, field)
        },
    }
}

/// From 10..1000 to 1..10000, linearly.
fn v2_weight(weight: u16) -> u32 {
    1 + (u32::from(weight) - 10) * 9999 / 990
}

fn weight_of_device(device: LinuxWeightDevice, version: Version) -> Result<Vec<Setting>> {
    let (number, field) = (number(device.major(), device.minor()), "blockIO.weightDevice");
    let mut list = Vec::new();
    if let Some(weight) = device.weight().filter(|weight| *weight != 0) {
        let line = format!("{number} {}", check(weight, field)?);
        list.push(match version {
            Version::One => Setting {
                alias: Some(("blkio.bfq.weight_device".into(), line.clone())),
                ..Setting::new("blkio", "blkio.weight_device", line, field)
            },
            Version::Two => Setting {
                alias: Some(("io.weight".into(), format!("{number} {}", v2_weight(weight)))),
                ..Setting::new("io", "io.bfq.weight", line, field)
            },
        });
    }
    if let Some(weight) = device.leaf_weight().filter(|weight| *weight != 0) {
        leaf_only_v1(version, field)?;
        list.push(Setting::new("blkio", "blkio.leaf_weight_device", format!("{number} {}", check(weight, field)?), field));
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_devices_in_both_versions() {
        let json = r#"{"weight":10,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":600}],
            "throttleWriteIOPSDevice":[{"major":8,"minor":16,"rate":0}],"weightDevice":[{"major":8,"minor":0,"weight":1000}]}"#;
        let block: LinuxBlockIo = serde_json::from_str(json).unwrap();
        let writes = |version| -> Vec<String> {
            settings(&block, version).unwrap().into_iter().map(|one| format!("{}={}", one.file, one.value)).collect()
        };
        assert_eq!(
            writes(Version::One),
            [
                "blkio.weight=10",
                "blkio.weight_device=8:0 1000",
                "blkio.throttle.read_bps_device=8:0 600",
                "blkio.throttle.write_iops_device=8:16 0"
            ]
        );
        assert_eq!(
            writes(Version::Two),
            ["io.bfq.weight=10", "io.bfq.weight=8:0 1000", "io.max=8:0 rbps=600", "io.max=8:16 wiops=max"]
        );
        assert_eq!([v2_weight(10), v2_weight(1000)], [1, 10_000]);
        let block: LinuxBlockIo = serde_json::from_str(r#"{"weight":5}"#).unwrap();
        assert!(settings(&block, Version::Two).unwrap_err().to_string().contains("blockIO.weight"));
    }
}
