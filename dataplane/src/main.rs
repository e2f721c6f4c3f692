//! The `nantian-dataplane` binary: a thin shell around [`dataplane::cli::run`].

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    dataplane::cli::run()
}
