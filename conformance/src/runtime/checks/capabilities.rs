//! Capabilities: the five sets as the kernel shows them.

use serde_json::json;

use crate::runtime::finding::{Outcome, require};
use crate::runtime::{Context, Requirement, Step, must, should};

const LINUX: &str = "Linux Process";

pub(super) const TABLE: &[Requirement] = &[
    must("capabilities-bounding", LINUX, "the bounding set is the one asked for", |cx| is_set(cx, "CapBnd", FOUR)),
    must("capabilities-effective", LINUX, "the effective set is the one asked for", |cx| is_set(cx, "CapEff", FOUR)),
    must("capabilities-permitted", LINUX, "the permitted set is the one asked for", |cx| is_set(cx, "CapPrm", FOUR)),
    must("capabilities-inheritable", LINUX, "the inheritable set is the one asked for", |cx| is_set(cx, "CapInh", TWO)),
    must("capabilities-ambient", LINUX, "the ambient set is the one asked for", |cx| is_set(cx, "CapAmb", ONE)),
    must("capabilities-none", LINUX, "empty sets are empty", none),
    must("capabilities-user", LINUX, "a user other than root has no capability but the ambient ones", user),
    must("capabilities-user-without", LINUX, "a user other than root without ambient capabilities has none", user_without),
    should("capabilities-unknown", LINUX, "an unknown capability is a warning and no more", unknown),
];

/// CHOWN (0), KILL (5), SETUID (7) and NET_BIND_SERVICE (10), as `/proc/self/status` shows them.
const FOUR: u64 = 1 | 1 << 5 | 1 << 7 | 1 << 10;
/// KILL and NET_BIND_SERVICE.
const TWO: u64 = 1 << 5 | 1 << 10;
/// KILL.
const ONE: u64 = 1 << 5;

fn show(cx: &Context, uid: u32, ambient: &[&str]) -> Outcome<Step> {
    let all = ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_NET_BIND_SERVICE"];
    let inheritable = ["CAP_KILL", "CAP_NET_BIND_SERVICE"];
    let sets = json!({ "bounding": all, "effective": all, "permitted": all, "inheritable": inheritable, "ambient": ambient });
    let bundle = cx.bundle()?.capabilities(&sets).set("process/user", json!({ "uid": uid, "gid": uid }));
    let step = cx.run(&bundle.script("grep ^Cap /proc/self/status"))?;
    step.must_succeed()?;
    Ok(step)
}

fn must_be(step: &Step, field: &str, expected: u64) -> Outcome {
    require(step.field(field)? == format!("{expected:016x}"), format_args!("{field}: {expected:016x}"))
}

fn is_set(cx: &Context, field: &str, expected: u64) -> Outcome {
    must_be(&show(cx, 0, &["CAP_KILL"])?, field, expected)
}

fn none(cx: &Context) -> Outcome {
    let empty: [&str; 0] = [];
    let sets = json!({ "bounding": empty, "effective": empty, "permitted": empty, "inheritable": empty, "ambient": empty });
    let step = cx.run(&cx.bundle()?.capabilities(&sets).script("grep ^Cap /proc/self/status"))?;
    step.must_succeed()?;
    ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].into_iter().try_for_each(|field| must_be(&step, field, 0))
}

fn user(cx: &Context) -> Outcome {
    cx.need_root("other users")?;
    let step = show(cx, 1000, &["CAP_KILL"])?;
    [("CapEff", ONE), ("CapPrm", ONE), ("CapBnd", FOUR)].into_iter().try_for_each(|(field, set)| must_be(&step, field, set))
}

fn user_without(cx: &Context) -> Outcome {
    cx.need_root("other users")?;
    let step = show(cx, 1000, &[])?;
    [("CapEff", 0), ("CapPrm", 0), ("CapAmb", 0)].into_iter().try_for_each(|(field, set)| must_be(&step, field, set))
}

fn unknown(cx: &Context) -> Outcome {
    let list = ["CAP_KILL", "CAP_NO_SUCH_THING"];
    let bundle = cx.bundle()?.capabilities(&json!({ "bounding": list, "effective": list, "permitted": list }));
    let step = cx.run(&bundle.script("grep ^CapBnd /proc/self/status"))?;
    // Version 1.0 wanted an error where 1.1 and later want a warning.
    if step.end != crate::runtime::End::Code(0) {
        return cx.must_since((1, 1), false, "a warning about an unknown capability, and the container run");
    }
    must_be(&step, "CapBnd", ONE)
}
