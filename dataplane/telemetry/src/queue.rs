//! A queue of byte chunks, bounded by bytes, between those who record and the thread that writes.
//!
//! The access log and the process's own log both stand on it. Pushing never waits unless asked to:
//! a full queue gives the chunk back. The lock is held for the moment of a push or a pop and never
//! while anything is written.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Some whole lines.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// The lines, each with its line feed.
    pub(crate) bytes: Vec<u8>,
    /// How many they are.
    pub(crate) lines: u64,
}

/// What the writer thread is to do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Write these lines.
    Write(Chunk),
    /// Open the sink again.
    Reopen,
    /// The queue is closed and empty.
    Stop,
}

/// Why a push was refused; the chunk comes back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) Chunk);

/// The queue; see the module.
#[derive(Debug)]
pub(crate) struct Queue {
    limits: Limits,
    state: Mutex<State>,
    /// Wakes the writer thread, waiting pushers and whoever waits for the end.
    changed: Condvar,
}

/// What may wait at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) bytes: usize,
    pub(crate) lines: u64,
}

#[derive(Debug, Default)]
struct State {
    chunks: VecDeque<Chunk>,
    bytes: usize,
    lines: u64,
    phase: Phase,
    reopen: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    /// Takes nothing more; what waits is still written.
    Closed,
    /// The writer thread has ended.
    Finished,
}

impl Queue {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Adds a chunk if it fits.
    pub(crate) fn push(&self, chunk: Chunk) -> Result<(), Refused> {
        let mut state = self.state();
        if state.phase != Phase::Open || !state.fits(&chunk, self.limits) {
            return Err(Refused(chunk));
        }
        state.add(chunk);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Adds a chunk, waiting until it fits; refused only when the queue is closed.
    pub(crate) fn push_waiting(&self, chunk: Chunk) -> Result<(), Refused> {
        let mut state = self.state();
        while state.phase == Phase::Open && !state.fits(&chunk, self.limits) {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.phase != Phase::Open {
            return Err(Refused(chunk));
        }
        state.add(chunk);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Waits for something to do; called by the writer thread.
    pub(crate) fn next(&self) -> Work {
        let mut state = self.state();
        loop {
            if state.reopen {
                state.reopen = false;
                return Work::Reopen;
            }
            if let Some(chunk) = state.take() {
                drop(state);
                self.changed.notify_all();
                return Work::Write(chunk);
            }
            if state.phase != Phase::Open {
                return Work::Stop;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Asks the writer thread to open the sink again before it writes on.
    pub(crate) fn ask_reopen(&self) {
        self.state().reopen = true;
        self.changed.notify_all();
    }

    /// Takes nothing more.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        if state.phase == Phase::Open {
            state.phase = Phase::Closed;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Said by the writer thread when it ends; what still waits is lost, and returned.
    pub(crate) fn finish(&self) -> u64 {
        let mut state = self.state();
        state.phase = Phase::Finished;
        let lost = state.lines;
        state.chunks.clear();
        state.bytes = 0;
        state.lines = 0;
        drop(state);
        self.changed.notify_all();
        lost
    }

    /// Closes the queue and waits until the writer thread has ended; false when `patience` ran out.
    pub(crate) fn drain(&self, patience: Duration) -> bool {
        self.close();
        // A duration too long to add is as good as for ever; a day is.
        let deadline = Instant::now() + patience.min(Duration::from_secs(86_400));
        let mut state = self.state();
        while state.phase != Phase::Finished {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }

    /// Bytes and lines that wait.
    pub(crate) fn waiting(&self) -> (usize, u64) {
        let state = self.state();
        (state.bytes, state.lines)
    }

    /// The state is consistent between any two statements that could panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// An empty queue takes any chunk, so that a line above the limit is not stuck for ever.
    fn fits(&self, chunk: &Chunk, limits: Limits) -> bool {
        self.chunks.is_empty()
            || (self.bytes.saturating_add(chunk.bytes.len()) <= limits.bytes
                && self.lines.saturating_add(chunk.lines) <= limits.lines)
    }

    fn add(&mut self, chunk: Chunk) {
        self.bytes += chunk.bytes.len();
        self.lines += chunk.lines;
        self.chunks.push_back(chunk);
    }

    fn take(&mut self) -> Option<Chunk> {
        let chunk = self.chunks.pop_front()?;
        self.bytes -= chunk.bytes.len();
        self.lines -= chunk.lines;
        if self.chunks.is_empty() && self.chunks.capacity() > 1024 {
            // After a flood the memory goes back.
            self.chunks = VecDeque::new();
        }
        Some(chunk)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn chunk(bytes: usize) -> Chunk {
        Chunk {
            bytes: vec![b'x'; bytes],
            lines: 1,
        }
    }

    fn queue(bytes: usize, lines: u64) -> Queue {
        Queue::new(Limits { bytes, lines })
    }

    #[test]
    fn bytes_and_lines_are_bounded() {
        let by_bytes = queue(10, 100);
        assert!(by_bytes.push(chunk(6)).is_ok());
        assert_eq!(by_bytes.push(chunk(5)), Err(Refused(chunk(5))));
        assert!(by_bytes.push(chunk(4)).is_ok());
        assert_eq!(by_bytes.waiting().0, 10);

        let by_lines = queue(100, 2);
        assert!(by_lines.push(chunk(1)).is_ok());
        assert!(by_lines.push(chunk(1)).is_ok());
        assert!(by_lines.push(chunk(1)).is_err());
    }

    #[test]
    fn a_chunk_above_the_limit_passes_alone() {
        let queue = queue(10, 100);
        assert!(queue.push(chunk(50)).is_ok());
        assert!(queue.push(chunk(1)).is_err());
        assert_eq!(queue.next(), Work::Write(chunk(50)));
        assert!(queue.push(chunk(1)).is_ok());
    }

    #[test]
    fn a_closed_queue_gives_what_it_holds_then_stops() {
        let queue = queue(10, 100);
        assert!(queue.push(chunk(1)).is_ok());
        queue.ask_reopen();
        queue.close();
        assert!(queue.push(chunk(1)).is_err());
        assert_eq!(queue.next(), Work::Reopen);
        assert_eq!(queue.next(), Work::Write(chunk(1)));
        assert_eq!(queue.next(), Work::Stop);
    }

    #[test]
    fn draining_waits_for_the_end_but_not_past_its_patience() {
        let queue = Arc::new(queue(10, 100));
        assert!(queue.push(chunk(3)).is_ok());
        assert!(!queue.drain(Duration::from_millis(1)));
        let writer = std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || {
                while queue.next() != Work::Stop {}
                queue.finish()
            }
        });
        assert!(queue.drain(Duration::from_secs(20)));
        assert_eq!(writer.join().unwrap(), 0);
    }

    #[test]
    fn a_waiting_push_goes_on_when_there_is_room_or_the_end() {
        let queue = Arc::new(queue(4, 100));
        assert!(queue.push(chunk(4)).is_ok());
        let pusher = std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || (queue.push_waiting(chunk(4)), queue.push_waiting(chunk(4)))
        });
        assert_eq!(queue.next(), Work::Write(chunk(4)));
        let deadline = Instant::now() + Duration::from_secs(20);
        while queue.waiting().0 < 4 && Instant::now() < deadline {
            std::thread::yield_now();
        }
        queue.close();
        assert_eq!(pusher.join().unwrap(), (Ok(()), Err(Refused(chunk(4)))));
    }

    #[test]
    fn what_waits_at_the_end_is_told() {
        let queue = queue(10, 100);
        assert!(queue.push(chunk(3)).is_ok());
        assert_eq!(queue.finish(), 1);
        assert!(queue.push(chunk(3)).is_err());
    }
}
