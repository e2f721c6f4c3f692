//! The `nantian-dataplane` binary: a thin shell around [`dataplane::cli::run`].

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    dataplane::cli::run()
}
