//! Asks the linker for relative relocations in their packed form (`DT_RELR` of the ELF gABI), where the
//! C library that programs are linked with can read it (glibc since 2.36).
//!
//! A position-independent program of this size has 42,000 of them: 1 MB of the file that the dynamic
//! linker reads at each start and that stays resident in every idle pod; packed they are 12 kB.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if is_native_gnu() && glibc().is_some_and(|version| version >= (2, 36)) {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// True where the C library of this machine is that of the target.
fn is_native_gnu() -> bool {
    let is_gnu = env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "gnu");
    is_gnu && env::var_os("TARGET") == env::var_os("HOST")
}

fn glibc() -> Option<(u32, u32)> {
    let answer = Command::new("getconf")
        .arg("GNU_LIBC_VERSION")
        .output()
        .ok()?;
    let text = String::from_utf8(answer.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
