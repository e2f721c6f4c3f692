//! The [`Allocator`] of the process, and memory that is free in it given back to the system.
//!
//! mimalloc keeps what was freed in the pages of the thread that took it, and gives pages back only
//! while that thread allocates a lot; a process at rest keeps what its last configuration needed.
//! [`ask`] asks every thread, and each does it at its next [`tend`]. Called by
//! `dataplane/src/ebb.rs`. The only crate of ours with `unsafe` in it: functions of C are called.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

mod allocator;

pub use allocator::Allocator;

/// How often threads were asked.
static ASKED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// How often they had been asked when this thread did it last.
    static DONE: Cell<u64> = const { Cell::new(0) };
}

/// Asks every thread to give back what is free.
pub fn ask() {
    ASKED.fetch_add(1, Ordering::Relaxed);
}

/// Gives back what is free in this thread's pages, if that was asked since the last time; else it is
/// one comparison.
pub fn tend() {
    let asked = ASKED.load(Ordering::Relaxed);
    // While the thread ends there is nothing to keep the number in, and its pages go anyway.
    let done = DONE.try_with(|done| done.replace(asked)).unwrap_or(asked);
    if done != asked {
        collect();
    }
}

#[expect(unsafe_code, reason = "the allocator is a library in C")]
fn collect() {
    unsafe extern "C" {
        /// Frees pages of the calling thread in which nothing is used, and with `force` unmaps
        /// what is free.
        fn mi_collect(force: bool);
    }
    // SAFETY: the declaration is that of `mimalloc.h`: `void mi_collect(bool force)`. It may be
    // called by any thread at any time, touches pages of the calling thread and such as belong to
    // none, and only memory that was freed; a thread that has no pages yet, also where another
    // allocator is in use, is left alone.
    unsafe { mi_collect(true) }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[global_allocator]
    static ALLOCATOR: Allocator = Allocator;

    /// Anonymous memory of this process in MiB; nothing where the system does not tell.
    fn resident() -> Option<u64> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|it| it.strip_prefix("RssAnon:"))?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
        Some(kib / 1024)
    }

    #[test]
    fn what_another_thread_freed_is_given_back_when_it_is_asked() {
        let (give, take) = mpsc::sync_channel::<Vec<Vec<u8>>>(1);
        let (say, said) = mpsc::sync_channel(1);
        let owner = thread::spawn(move || {
            let blocks: Vec<Vec<u8>> = (0..64 * 1024).map(|_| vec![1; 1024]).collect();
            give.send(blocks).expect("somebody takes them");
            for () in said {
                tend();
            }
        });
        let blocks = take.recv().expect("the thread has made them");
        let full = resident();
        drop(blocks);
        ask();
        say.send(()).expect("the thread waits");
        drop(say);
        owner.join().expect("the thread ends");
        tend();
        if let (Some(full), Some(empty)) = (full, resident()) {
            assert!(full >= 64 && empty + 48 < full, "{full} MiB, then {empty}");
        }
    }
}
