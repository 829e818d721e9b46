//! Links the programs for one fixed place in memory.
//!
//! A position-independent program relocates itself at each start: `roci` took 171 page faults to print its version so,
//! 98 without, of what a container's start takes one part in ten. The stack, the heap and all that is mapped stay at random
//! places; only the program's own code does not. It is Rust's, and is executed by nobody inside a container. `rhub`,
//! which listens to strangers for months, starts but once and is left as it is.

fn main() {
    let is = |name: &str, wanted: &str| std::env::var(name).is_ok_and(|found| found.split(',').any(|one| one == wanted));
    // Other C libraries' linkers are called another way.
    if is("CARGO_CFG_TARGET_ENV", "gnu") && is("CARGO_CFG_TARGET_FEATURE", "crt-static") {
        println!("cargo:rustc-link-arg-bins=-static");
        println!("cargo:rustc-link-arg-bins=-no-pie");
    }
    // Nothing else decides: a package with a build script is looked at file by file else.
    println!("cargo:rerun-if-env-changed=CARGO_CFG_TARGET_FEATURE");
}
