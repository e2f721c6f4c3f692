//! The binary `nantian-shim`: an allocator and an exit code; everything else is in `cli.rs`.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    shim::cli::run()
}
