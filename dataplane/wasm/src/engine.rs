//! The compiler and its clock: one for the process, made with the first plugin.
//!
//! A thread counts epochs, by which the deadline of every call is measured; it ends with the engine. What
//! guests may import is linked once, here. Counting instructions costs every plugin of an engine time, so
//! those with such a limit have an engine of their own.

use std::thread;
use std::time::{Duration, Instant};

use wasmtime::{Config, Linker};

use crate::abi;
use crate::host::Host;

/// How often the deadline of calls is looked at.
const TICK: Duration = Duration::from_millis(1);
/// A clock that is further behind does not catch up: the machine stood still, and calls with it.
const BEHIND_MAX: Duration = Duration::from_millis(20);
/// Stack of a guest; deeper recursion is a trap.
const STACK_BYTES: usize = 512 * 1024;

/// Compiles modules and holds what they are linked with.
pub(crate) struct Engine {
    pub(crate) engine: wasmtime::Engine,
    pub(crate) linker: Linker<Host>,
}

impl Engine {
    /// Starts the clock; instructions are counted where `is_metered`.
    pub(crate) fn new(is_metered: bool) -> wasmtime::Result<Self> {
        let mut config = Config::new();
        config
            .epoch_interruption(true)
            .consume_fuel(is_metered)
            .max_wasm_stack(STACK_BYTES)
            .wasm_memory64(false)
            .wasm_multi_memory(false)
            // Modules are compiled beside each other, each on one thread.
            .parallel_compilation(false);
        let engine = wasmtime::Engine::new(&config)?;
        let mut linker = Linker::new(&engine);
        abi::link(&mut linker)?;
        let clock = engine.weak();
        let tick = move || {
            let mut due = Instant::now();
            while let Some(engine) = clock.upgrade() {
                engine.increment_epoch();
                drop(engine);
                // Counted from when it was due, or each sleep would add its own delay to a deadline.
                due += TICK;
                let now = Instant::now();
                if now.saturating_duration_since(due) > BEHIND_MAX {
                    due = now;
                }
                thread::sleep(due.saturating_duration_since(now));
            }
        };
        thread::Builder::new()
            .name("plugin-clock".to_owned())
            .spawn(tick)?;
        Ok(Self { engine, linker })
    }
}

/// Ticks after which at least that time has passed.
pub(crate) fn ticks(time: Duration) -> u64 {
    let ticks = time.as_nanos().div_ceil(TICK.as_nanos());
    u64::try_from(ticks)
        .unwrap_or(u64::MAX / 4)
        .min(u64::MAX / 4)
        + 1
}
