//! What else Linux has: names of the host, kernel parameters, personality.

use serde_json::json;

use crate::runtime::finding::{Outcome, require};
use crate::runtime::{Context, Requirement, must};

pub(super) const TABLE: &[Requirement] = &[
    must("linux-hostname", "Hostname", "the host name of the container", hostname),
    must("linux-hostname-kept", "Hostname", "the host's own name is not changed", hostname_kept),
    must("linux-domainname", "Domainname", "the domain name of the container", domainname),
    must("linux-sysctl", "Sysctl", "kernel parameters of the container's namespaces", sysctl),
    must("linux-sysctl-unknown", "Sysctl", "a kernel parameter that does not exist is refused", sysctl_unknown),
    must("linux-personality", "Personality", "the domain LINUX32", personality),
];

fn hostname(cx: &Context) -> Outcome {
    let step = cx.run(&cx.bundle()?.set("hostname", "named-here").args(&["/bin/hostname"]))?;
    step.must_succeed()?;
    step.must_print(&["named-here"]).map(drop)
}

fn hostname_kept(cx: &Context) -> Outcome {
    let name = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let before = name();
    cx.run(&cx.bundle()?.set("hostname", "named-here"))?.must_succeed()?;
    require(name() == before, format_args!("the host to be called {before:?} still"))
}

fn domainname(cx: &Context) -> Outcome {
    let step = cx.run(&cx.bundle()?.set("domainname", "example.org").script("cat /proc/sys/kernel/domainname"))?;
    step.or_not_offered("domainname")?;
    cx.must_since((1, 1), step.stdout == "example.org\n", "the domain name example.org")
}

fn sysctl(cx: &Context) -> Outcome {
    let parameters = json!({ "net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1", "kernel.msgmax": "4096" });
    let script = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced /proc/sys/kernel/msgmax";
    let step = cx.run(&cx.bundle()?.set("linux/sysctl", parameters).script(script))?;
    step.must_succeed()?;
    step.must_print(&["1", "1", "4096"]).map(drop)
}

fn sysctl_unknown(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?.set("linux/sysctl", json!({ "net.no_such.parameter": "1" }));
    cx.run(&bundle)?.must_fail("there is no such parameter").map(drop)
}

fn personality(cx: &Context) -> Outcome {
    let step =
        cx.run(&cx.bundle()?.set("linux/personality", json!({ "domain": "LINUX32" })).args(&["/bin/busybox", "uname", "-m"]))?;
    step.or_not_offered("personality")?;
    let wide = step.stdout.trim() == std::env::consts::ARCH;
    cx.must_since((1, 1), !wide, "a machine of 32 bits")
}
