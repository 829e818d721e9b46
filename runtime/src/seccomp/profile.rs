//! Seccomp profiles of one's own, in docker's form: the specification's document, with rules that are there only for some
//! capabilities, architectures or kernels, and a map of architectures to those they bring with them.

use oci_spec::runtime::{
    Arch, Capabilities, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompBuilder, LinuxSeccompFilterFlag,
    LinuxSyscall, LinuxSyscallBuilder,
};
use serde::Deserialize;

use super::docker::{NATIVE, running_kernel};
use crate::error::{Error, Result};
use crate::spec::parse_capability;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    arch_map: Vec<Family>,
    #[serde(default)]
    flags: Vec<LinuxSeccompFilterFlag>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

/// An architecture, and those whose programs it can run.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Family {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    names: Option<Vec<String>>,
    /// The older form.
    #[serde(default)]
    name: Option<String>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    args: Option<Vec<LinuxSeccompArg>>,
    #[serde(default)]
    includes: Condition,
    #[serde(default)]
    excludes: Condition,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    /// Capabilities of the bounding set.
    caps: Vec<String>,
    /// The native architecture, as Go names it.
    arches: Vec<String>,
    /// Major and minor version.
    min_kernel: Option<String>,
}

/// What rules may depend on.
struct Container<'a> {
    bounding: &'a Capabilities,
    kernel: (u32, u32),
}

impl Container<'_> {
    /// One of a later kernel than this program knows is not in any set.
    fn has(&self, capability: &str) -> bool {
        parse_capability(capability).is_ok_and(|capability| self.bounding.contains(&capability))
    }

    fn is_newer(&self, kernel: &str) -> Result<bool> {
        let version = kernel.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        let version: (u32, u32) = version.ok_or_else(|| invalid(format!("minKernel {kernel:?} is not MAJOR.MINOR")))?;
        Ok(self.kernel >= version)
    }

    fn wants(&self, rule: &Rule) -> Result<bool> {
        let (includes, excludes) = (&rule.includes, &rule.excludes);
        let is_native = |arches: &[String]| arches.iter().any(|arch| arch == NATIVE);
        let newer = |kernel: &Option<String>| kernel.as_deref().map(|kernel| self.is_newer(kernel)).transpose();
        Ok(!is_native(&excludes.arches)
            && !excludes.caps.iter().any(|capability| self.has(capability))
            && !newer(&excludes.min_kernel)?.unwrap_or(false)
            && (includes.arches.is_empty() || is_native(&includes.arches))
            && includes.caps.iter().all(|capability| self.has(capability))
            && newer(&includes.min_kernel)?.unwrap_or(true))
    }
}

impl Profile {
    fn parse(text: &str) -> Result<Self> {
        let profile: Self = serde_json::from_str(text).map_err(|e| invalid(e.to_string()))?;
        if !profile.architectures.is_empty() && !profile.arch_map.is_empty() {
            return Err(invalid("it has both \"architectures\" and \"archMap\": leave one of them out".into()));
        }
        Ok(profile)
    }

    /// Those it is for. What this program does not know it cannot run on, either.
    fn architectures(&self) -> Vec<Arch> {
        let known = |name: &String| serde_json::from_value::<Arch>(name.as_str().into()).ok();
        let native = |family: &&Family| known(&family.architecture) == Some(super::ABIS[0].arch);
        let family = self.arch_map.iter().find(native);
        let mapped = family
            .into_iter()
            .flat_map(|family| [&family.architecture].into_iter().chain(family.sub_architectures.iter().flatten()));
        self.architectures.iter().chain(mapped).filter_map(known).collect()
    }
}

impl Rule {
    fn to_spec(&self) -> Result<LinuxSyscall> {
        let names = self.names.iter().flatten().chain(self.name.as_ref().filter(|name| !name.is_empty())).cloned();
        let mut rule = LinuxSyscallBuilder::default().names(names.collect::<Vec<_>>()).action(self.action);
        if let Some(errno) = self.errno_ret {
            rule = rule.errno_ret(errno);
        }
        if let Some(args) = self.args.as_ref().filter(|args| !args.is_empty()) {
            rule = rule.args(args.clone());
        }
        rule.build().map_err(|e| invalid(e.to_string()))
    }
}

/// Whether it is one, as far as that can be told before there is a container.
pub(crate) fn check(text: &str) -> Result<()> {
    let profile = Profile::parse(text)?;
    let container = Container { bounding: &Capabilities::new(), kernel: (0, 0) };
    profile.syscalls.iter().try_for_each(|rule| container.wants(rule).map(drop))
}

/// The profile for a container with this bounding set, on the running kernel.
pub(crate) fn own_profile(text: &str, bounding: &Capabilities) -> Result<LinuxSeccomp> {
    let profile = Profile::parse(text)?;
    let container = Container { bounding, kernel: running_kernel() };
    let mut syscalls = Vec::new();
    for rule in &profile.syscalls {
        if container.wants(rule)? {
            syscalls.push(rule.to_spec()?);
        }
    }
    let mut seccomp = LinuxSeccompBuilder::default()
        .default_action(profile.default_action)
        .architectures(profile.architectures())
        .flags(profile.flags)
        .syscalls(syscalls);
    if let Some(errno) = profile.default_errno_ret {
        seccomp = seccomp.default_errno_ret(errno);
    }
    seccomp.build().map_err(|e| invalid(e.to_string()))
}

fn invalid(why: String) -> Error {
    Error::invalid("seccomp profile", why)
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::Capability;
    use proptest::prelude::*;

    use super::*;

    /// The names of the rules that are there.
    fn names(text: &str, bounding: &[Capability]) -> Vec<String> {
        let seccomp = own_profile(text, &bounding.iter().copied().collect()).unwrap();
        seccomp.syscalls().iter().flatten().flat_map(|rule| rule.names().clone()).collect()
    }

    #[test]
    fn rules_are_there_for_whom_they_are_meant() {
        let text = format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,
            "archMap":[{{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}},
                {{"architecture":"SCMP_ARCH_AARCH64","subArchitectures":["SCMP_ARCH_ARM"]}},
                {{"architecture":"SCMP_ARCH_OF_TOMORROW","subArchitectures":null}}],
            "syscalls":[
                {{"names":["read","write"],"action":"SCMP_ACT_ALLOW","args":null,"comment":"","includes":{{}},"excludes":{{}}}},
                {{"name":"open","action":"SCMP_ACT_ALLOW"}},
                {{"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{{"caps":["CAP_SYS_ADMIN"]}}}},
                {{"names":["clone3"],"action":"SCMP_ACT_ERRNO","errnoRet":38,"excludes":{{"caps":["CAP_SYS_ADMIN"]}}}},
                {{"names":["never"],"action":"SCMP_ACT_ALLOW","includes":{{"caps":["CAP_OF_TOMORROW"]}}}},
                {{"names":["here"],"action":"SCMP_ACT_ALLOW","includes":{{"arches":["{NATIVE}"],"minKernel":"2.6"}}}},
                {{"names":["there"],"action":"SCMP_ACT_ALLOW","includes":{{"arches":["elsewhere"]}}}},
                {{"names":["later"],"action":"SCMP_ACT_ALLOW","includes":{{"minKernel":"9999.0"}}}},
                {{"names":["old"],"action":"SCMP_ACT_ALLOW","excludes":{{"minKernel":"2.6"}}}}]}}"#
        );
        check(&text).unwrap();
        assert_eq!(names(&text, &[]), ["read", "write", "open", "clone3", "here"]);
        assert_eq!(names(&text, &[Capability::SysAdmin]), ["read", "write", "open", "mount", "here"]);
        let seccomp = own_profile(&text, &Capabilities::new()).unwrap();
        assert_eq!(seccomp.architectures().as_ref().unwrap().len(), 2, "this machine's and its own");
        super::super::compile(&seccomp).unwrap();
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"defaultAction":"SCMP_ACT_MAYBE"}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"]}]}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO","includes":{"minKernel":"5"}}]}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86"}]}"#,
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn reading_a_profile_never_panics(text in ".*", version in ".{0,8}") {
            let _ = check(&text);
            let rule = format!(r#"{{"names":["read"],"action":"SCMP_ACT_ERRNO","includes":{{"minKernel":{version:?}}}}}"#);
            let _ = check(&format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{rule}]}}"#));
        }
    }
}
