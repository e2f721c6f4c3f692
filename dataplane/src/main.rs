//! The `nantian-dataplane` binary: a thin shell around [`dataplane::cli::run`].

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: dataplane_memory::Allocator = dataplane_memory::Allocator;

fn main() -> ExitCode {
    dataplane::cli::run()
}
