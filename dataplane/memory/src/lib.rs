//! The [`Allocator`] of the process, and memory that is free in it given back to the system.
//!
//! mimalloc keeps what was freed in the pages of the thread that took it, and gives pages back only
//! while that thread allocates a lot; a process at rest keeps what its last configuration needed.
//! [`ask`] asks every thread, and each does it at its next [`tend`] or [`tend_thoroughly`]. Called by
//! `dataplane/src/ebb.rs`. The only crate of ours with `unsafe` in it: functions of C are called.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering};

mod allocator;
mod hold;

pub use allocator::Allocator;
use hold::Held;

/// How often threads were asked.
static ASKED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// How often they had been asked when this thread did it last.
    static DONE: Cell<u64> = const { Cell::new(0) };
    /// What this thread holds since then.
    static HELD: RefCell<Held> = RefCell::default();
}

/// Asks every thread to give back what is free.
pub fn ask() {
    ASKED.fetch_add(1, Ordering::Relaxed);
}

/// Gives back what is free in this thread's pages, if that was asked since the last time; else it is
/// one comparison. For threads that serve requests.
pub fn tend() {
    if is_asked() {
        collect();
    }
}

/// As [`tend`], and what is free between blocks that stay goes too. It takes some milliseconds after
/// a large configuration, and the thread's next blocks come from new pages until it calls [`let_go`].
/// For threads that make configurations.
pub fn tend_thoroughly() {
    if !is_asked() {
        return;
    }
    let_go();
    collect();
    let has_taken = HELD.try_with(|held| held.borrow_mut().take());
    if has_taken.unwrap_or(false) {
        // The list of what was taken.
        collect();
    }
}

/// Frees what [`tend_thoroughly`] holds in this thread, so that it is used again. Called where many
/// blocks are about to be needed.
pub fn let_go() {
    // While the thread ends, it is freed anyway.
    let _ = HELD.try_with(|held| held.borrow_mut().let_go());
}

fn is_asked() -> bool {
    let asked = ASKED.load(Ordering::Relaxed);
    // While the thread ends there is nothing to keep the number in, and its pages go anyway.
    let done = DONE.try_with(|done| done.replace(asked)).unwrap_or(asked);
    done != asked
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
    use std::collections::BTreeSet;
    use std::sync::{Mutex, mpsc};
    use std::thread;

    use super::*;

    #[global_allocator]
    static ALLOCATOR: Allocator = Allocator;
    /// What the process has is measured by one test at a time.
    pub(crate) static MEASURED: Mutex<()> = Mutex::new(());

    /// Anonymous memory of this process in MiB; nothing where the system does not tell.
    fn resident() -> Option<u64> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|it| it.strip_prefix("RssAnon:"))?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
        Some(kib / 1024)
    }

    #[test]
    fn what_another_thread_freed_is_given_back_when_it_is_asked() {
        let _alone = MEASURED.lock();
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

    /// Sizes of block, and of how many of them one stays: so many that no page is free.
    const SCATTERED: [(usize, usize); 5] = [
        (32, 2048),
        (48, 1024),
        (320, 128),
        (2560, 16),
        (12 * 1024, 32),
    ];

    /// Makes blocks of 16 MiB and keeps one in `each` of them; the bytes say which it is.
    fn scattered(size: usize, each: usize) -> Vec<(usize, Vec<u8>)> {
        let count = (16 << 20) / size;
        let all: Vec<Vec<u8>> = (0..count).map(|nth| block(nth, size)).collect();
        let numbered = all.into_iter().enumerate();
        numbered.filter(|(nth, _)| nth % each == 0).collect()
    }

    /// So many blocks of 320 bytes, of which one in 128 stays.
    fn sparse(count: usize) -> Vec<Vec<u8>> {
        let mut all: Vec<_> = (0..count).map(|nth| block(nth, 320)).collect();
        let mut nth = 0;
        all.retain(|_| {
            nth += 1;
            nth % 128 == 0
        });
        all
    }

    /// Makes so much free in this thread that it is worth to be held, and holds it; with what the
    /// process has then.
    fn with_much_free(size: usize, each: usize) -> (Vec<(usize, Vec<u8>)>, Option<u64>) {
        let own = scattered(size, each);
        ask();
        tend_thoroughly();
        (own, resident())
    }

    fn block(nth: usize, size: usize) -> Vec<u8> {
        vec![u8::try_from(nth % 251).unwrap_or(0); size]
    }

    fn are_whole(blocks: &[(usize, Vec<u8>)], size: usize) -> bool {
        blocks.iter().all(|(nth, it)| *it == block(*nth, size))
    }

    #[test]
    fn what_is_free_between_blocks_that_stay_is_given_back() {
        let _alone = MEASURED.lock();
        for (size, each) in SCATTERED {
            let work = thread::spawn(move || {
                let (own, before) = with_much_free(size, each);
                let stays = scattered(size, each);
                let full = resident();
                ask();
                tend_thoroughly();
                if let (Some(before), Some(full), Some(held)) = (before, full, resident()) {
                    assert!(full >= before + 12, "{size}: {before}, {full} MiB");
                    assert!(held <= before + 5, "{size}: {before}, {full}, {held} MiB");
                }
                assert!(are_whole(&stays, size), "{size}");
                let beside = scattered(size, each);
                let_go();
                assert!(are_whole(&scattered(size, each), size), "{size}");
                assert!(
                    [own, stays, beside].iter().all(|it| are_whole(it, size)),
                    "{size}"
                );
            });
            work.join().expect("the thread ends well");
        }
    }

    #[test]
    fn what_was_let_go_is_used_again() {
        let _alone = MEASURED.lock();
        let page = |it: &Vec<u8>| it.as_ptr().addr() >> 16;
        let work = thread::spawn(move || {
            let stays = sparse(10_000);
            let old: BTreeSet<_> = stays.iter().map(page).collect();
            let in_old = || {
                let made: Vec<_> = (0..5000).map(|nth| block(nth, 320)).collect();
                let count = made.iter().filter(|it| old.contains(&page(it))).count();
                (made, count)
            };
            ask();
            tend_thoroughly();
            let (_made, held) = in_old();
            let_go();
            let (_made_then, free) = in_old();
            // What shares a page of the system with a block that stays is not held.
            assert!(held < 2000 && free > 4000, "{held}, {free}");
        });
        work.join().expect("the thread ends well");
    }

    #[test]
    fn little_that_is_free_is_left_alone() {
        let _alone = MEASURED.lock();
        let work = thread::spawn(|| {
            let _stays = sparse(1000);
            ask();
            tend_thoroughly();
            HELD.with_borrow(|held| assert!(held.is_empty()));
        });
        work.join().expect("the thread ends well");
    }

    #[test]
    fn pages_of_threads_that_ended_are_given_back_too() {
        let _alone = MEASURED.lock();
        for (size, each) in SCATTERED {
            let work = thread::spawn(move || {
                let (own, before) = with_much_free(size, each);
                let other = thread::spawn(move || scattered(size, each));
                let stays = other.join().expect("the thread ends well");
                ask();
                tend_thoroughly();
                if let (Some(before), Some(after)) = (before, resident()) {
                    assert!(after <= before + 5, "{size}: {before}, {after} MiB");
                }
                assert!(are_whole(&stays, size), "{size}");
                drop(own);
            });
            work.join().expect("the thread ends well");
        }
    }

    #[test]
    fn a_thread_that_ends_frees_what_it_holds() {
        let _alone = MEASURED.lock();
        ask();
        tend();
        let before = resident();
        for _ in 0..4 {
            let work = thread::spawn(|| {
                let stays = scattered(320, 128);
                ask();
                tend_thoroughly();
                // Freed by another thread, behind the end of this one.
                stays
            });
            drop(work.join().expect("the thread ends well"));
        }
        ask();
        tend();
        if let (Some(before), Some(after)) = (before, resident()) {
            assert!(after <= before + 12, "{before} MiB, then {after}");
        }
    }
}
