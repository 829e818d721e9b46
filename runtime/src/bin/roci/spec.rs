//! `roci spec`.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use clap::Args;
use longshore_runtime::error::{Attempt, Error, Result};
use longshore_runtime::image::ContainerConfig;
use longshore_runtime::spec::{DEFAULT_PATH, RunOptions, default_spec};
use oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilities, LinuxIdMappingBuilder, LinuxNamespaceBuilder, LinuxNamespaceType,
    PosixRlimitBuilder, PosixRlimitType, Spec,
};

/// `linux/magic.h`.
const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;

/// Write a config.json that runs a shell in ./rootfs
#[derive(Debug, Args)]
pub(crate) struct WriteSpec {
    /// Where it is written
    #[arg(short, long, default_value = ".", hide_default_value = true, value_name = "DIR")]
    bundle: PathBuf,
    /// One that the calling user may run: in a user namespace with a single id, on the host's network, without limits
    #[arg(long)]
    rootless: bool,
}

impl WriteSpec {
    pub(crate) fn call(self) -> Result<u8> {
        let bundle = &self.bundle;
        let options = RunOptions {
            id: "roci".into(),
            args: vec!["sh".into()],
            tty: true,
            read_only: true,
            no_new_privileges: true,
            ..RunOptions::default()
        };
        let directory = File::open(bundle).attempt(|| format!("open {bundle:?}"))?;
        let mut spec = default_spec(&ContainerConfig::default(), directory.as_fd(), &options)?;
        like_runc(&mut spec)?;
        if self.rootless {
            without_root(&mut spec)?;
        }
        let path = bundle.join("config.json");
        let mut text = serde_json::to_vec_pretty(&spec).map_err(|error| Error::invalid("config.json", error))?;
        text.push(b'\n');
        let mut file = File::create_new(&path).attempt(|| format!("create {path:?} (an old one is not overwritten)"))?;
        file.write_all(&text).attempt(|| format!("write {path:?}")).map(|()| 0)
    }
}

/// runc's example, on which scripts that change it rely: three capabilities, no filter, no sysctls, no further
/// groups (an ordinary user with a single id cannot have any), and a cgroup namespace on cgroup v2 alone.
fn like_runc(spec: &mut Spec) -> Result<()> {
    let few: Capabilities = [Capability::AuditWrite, Capability::Kill, Capability::NetBindService].into();
    if let Some(process) = spec.process_mut() {
        process.set_env(Some(vec![format!("PATH={DEFAULT_PATH}"), "TERM=xterm".into()]));
        let mut sets = LinuxCapabilities::default();
        sets.set_bounding(Some(few.clone())).set_effective(Some(few.clone())).set_permitted(Some(few));
        sets.set_inheritable(None).set_ambient(None);
        let limit = PosixRlimitBuilder::default().typ(PosixRlimitType::RlimitNofile).soft(1024u64).hard(1024u64).build();
        let limit = limit.map_err(|error| Error::invalid("config.json", error))?;
        process.user_mut().set_additional_gids(None);
        process.set_capabilities(Some(sets)).set_rlimits(Some(vec![limit]));
    }
    let cgroups = rustix::fs::statfs("/sys/fs/cgroup").attempt(|| "look at /sys/fs/cgroup")?;
    if let Some(linux) = spec.linux_mut() {
        linux.set_seccomp(None).set_sysctl(None);
        if cgroups.f_type != CGROUP2_SUPER_MAGIC
            && let Some(namespaces) = linux.namespaces_mut()
        {
            namespaces.retain(|namespace| namespace.typ() != LinuxNamespaceType::Cgroup);
        }
    }
    Ok(())
}

/// What runc's example for an ordinary user changes of that.
fn without_root(spec: &mut Spec) -> Result<()> {
    let broken = |error: oci_spec::OciSpecError| Error::invalid("config.json", error);
    let single = |id: u32| {
        let mapping = LinuxIdMappingBuilder::default().host_id(id).container_id(0u32).size(1u32).build();
        mapping.map(|mapping| Some(vec![mapping])).map_err(broken)
    };
    let user = LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::User).build().map_err(broken)?;
    if let Some(linux) = spec.linux_mut() {
        let namespaces = linux.namespaces_mut().get_or_insert_default();
        namespaces.retain(|namespace| namespace.typ() != LinuxNamespaceType::Network);
        namespaces.push(user);
        linux.set_uid_mappings(single(rustix::process::geteuid().as_raw())?);
        linux.set_gid_mappings(single(rustix::process::getegid().as_raw())?);
        linux.set_resources(None);
    }
    if let Some(mounts) = spec.mounts_mut() {
        // The host's, part of its /sys: without a cgroup namespace there are none of the user's own to mount.
        mounts.retain(|mount| mount.typ().as_deref() != Some("cgroup"));
    }
    for mount in spec.mounts_mut().iter_mut().flatten() {
        if mount.destination() == Path::new("/sys") {
            // A new one shows the network, which is the host's.
            let options = ["rbind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned).to_vec();
            mount.set_source(Some("/sys".into())).set_typ(Some("none".into())).set_options(Some(options));
        }
        if let Some(options) = mount.options_mut() {
            options.retain(|option| !option.starts_with("uid=") && !option.starts_with("gid="));
        }
    }
    Ok(())
}
