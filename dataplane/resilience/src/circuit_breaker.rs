//! A breaker with three states: closed, open, half-open.
//!
//! Closed lets everything pass and counts failures in a row; at the threshold it opens and turns
//! everything away for a while; then it is half-open and lets a few trials pass, whose successes
//! close it and whose first failure opens it again. The request line asks [`Breaker::enter`] before
//! an attempt and tells the [`Pass`] how the attempt ended. One word of state, no lock: a closed
//! breaker costs a load on the way in and a load on the way out. Times are durations since any
//! moment that the caller keeps to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// When a breaker opens and closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Failures in a row that open it; 1 to [`Settings::THRESHOLD_MAX`].
    pub failure_threshold: u32,
    /// Successful trials that close it; 1 to [`Settings::THRESHOLD_MAX`].
    pub success_threshold: u32,
    /// How long it stays open before trials pass.
    pub timeout: Duration,
}

impl Settings {
    /// Larger thresholds are held to this.
    pub const THRESHOLD_MAX: u32 = (1 << COUNT_BITS) - 1;

    fn held(self) -> Self {
        Self {
            failure_threshold: self.failure_threshold.clamp(1, Self::THRESHOLD_MAX),
            success_threshold: self.success_threshold.clamp(1, Self::THRESHOLD_MAX),
            timeout: self.timeout,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            failure_threshold: 5,
            success_threshold: 2,
            timeout: Duration::from_secs(30),
        }
    }
}

/// Which of its three states a breaker is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Everything passes.
    Closed,
    /// Nothing passes.
    Open,
    /// As many trials pass as successes are still needed.
    HalfOpen,
}

impl State {
    /// `closed`, `open` or `half_open`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// One breaker; shared by all that talk to the same upstream.
#[derive(Debug)]
pub struct Breaker {
    settings: Settings,
    word: AtomicU64,
}

/// Whoever was turned away may come back after this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Until the breaker lets a trial pass; zero when trials are running.
    pub retry_after: Duration,
}

/// Leave for one attempt. Dropped without a word, the attempt counts for nothing.
#[derive(Debug)]
#[must_use = "a pass that is dropped without telling the outcome counts for nothing"]
pub struct Pass<'a> {
    breaker: &'a Breaker,
    /// The half-open period this is a trial of, by the time it began.
    trial: Option<u64>,
}

/// As [`Pass`], for an attempt that outlives whoever let it begin.
#[derive(Debug)]
#[must_use = "a pass that is dropped without telling the outcome counts for nothing"]
pub struct OwnedPass {
    breaker: Arc<Breaker>,
    trial: Option<u64>,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings: settings.held(),
            word: AtomicU64::new(Word::CLOSED.pack()),
        }
    }

    /// A breaker with other settings that goes on where this one is.
    pub fn with_settings(&self, settings: Settings) -> Self {
        let settings = settings.held();
        let mut word = self.load();
        // Counts of an old threshold must not exceed the new one for ever.
        word.count = match word.state {
            State::Closed => word.count.min(u64::from(settings.failure_threshold) - 1),
            State::Open => 0,
            State::HalfOpen => word.count.min(u64::from(settings.success_threshold) - 1),
        };
        word.trials = 0;
        Self {
            settings,
            word: AtomicU64::new(word.pack()),
        }
    }

    /// Whether other settings would change nothing.
    pub fn is_set_to(&self, settings: Settings) -> bool {
        self.settings == settings.held()
    }

    /// What it was made with.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// The state at that time.
    pub fn state(&self, now: Duration) -> State {
        let word = self.load();
        match word.state {
            State::Open if self.left(word, now).is_zero() => State::HalfOpen,
            state => state,
        }
    }

    /// How much longer it lets nothing pass; zero when it is not open.
    pub fn open_for(&self, now: Duration) -> Duration {
        let word = self.load();
        match word.state {
            State::Open => self.left(word, now),
            State::Closed | State::HalfOpen => Duration::ZERO,
        }
    }

    /// Failures in a row while it is closed, and trials that succeeded while it is half-open.
    pub fn count(&self) -> u64 {
        self.load().count
    }

    /// Lets an attempt pass, or says when to come back.
    pub fn enter(&self, now: Duration) -> Result<Pass<'_>, Refused> {
        let word = self.load();
        let trial = match word.state {
            State::Closed => None,
            State::Open | State::HalfOpen => Some(self.enter_as_trial(now)?),
        };
        Ok(Pass {
            breaker: self,
            trial: trial.flatten(),
        })
    }

    /// As [`Self::enter`], for an attempt that outlives the caller.
    pub fn enter_owned(self: &Arc<Self>, now: Duration) -> Result<OwnedPass, Refused> {
        let trial = self.enter(now)?.trial.take();
        Ok(OwnedPass {
            breaker: Arc::clone(self),
            trial,
        })
    }

    /// A place among the trials; none needed when the breaker has closed meanwhile.
    fn enter_as_trial(&self, now: Duration) -> Result<Option<u64>, Refused> {
        let places = u64::from(self.settings.success_threshold);
        self.change(|word| match word.state {
            State::Closed => Ok((word, None)),
            State::Open => {
                let left = self.left(word, now);
                if !left.is_zero() {
                    return Err(Refused { retry_after: left });
                }
                let half_open = Word {
                    state: State::HalfOpen,
                    count: 0,
                    trials: 1,
                    since: millis(now),
                };
                Ok((half_open, Some(half_open.since)))
            }
            State::HalfOpen if word.count + word.trials < places => {
                let entered = Word {
                    trials: word.trials + 1,
                    ..word
                };
                Ok((entered, Some(word.since)))
            }
            State::HalfOpen => Err(Refused {
                retry_after: Duration::ZERO,
            }),
        })
    }

    fn succeeded(&self, trial: Option<u64>) {
        let word = self.load();
        if word == Word::CLOSED || trial.is_none() && word.state != State::Closed {
            return;
        }
        self.update(|word| match (word.state, trial) {
            (State::Closed, _) => Word::CLOSED,
            (State::HalfOpen, Some(since)) if since == word.since => {
                if word.count + 1 >= u64::from(self.settings.success_threshold) {
                    return Word::CLOSED;
                }
                Word {
                    count: word.count + 1,
                    trials: word.trials.saturating_sub(1),
                    ..word
                }
            }
            // What began before the breaker opened says nothing about now.
            _ => word,
        });
    }

    /// True when this opened it.
    fn failed(&self, trial: Option<u64>, now: Duration) -> bool {
        let open = Word {
            state: State::Open,
            count: 0,
            trials: 0,
            since: millis(now),
        };
        let next = |word: Word| match (word.state, trial) {
            (State::Closed, _) => {
                if word.count + 1 >= u64::from(self.settings.failure_threshold) {
                    return open;
                }
                Word {
                    count: word.count + 1,
                    ..word
                }
            }
            (State::HalfOpen, Some(since)) if since == word.since => open,
            _ => word,
        };
        let kept: Result<_, std::convert::Infallible> = self.change(|word| {
            let next = next(word);
            Ok((next, next != word && next.state == State::Open))
        });
        kept.unwrap_or_else(|never| match never {})
    }

    fn abandoned(&self, since: u64) {
        self.update(|word| match word.state {
            State::HalfOpen if since == word.since => Word {
                trials: word.trials.saturating_sub(1),
                ..word
            },
            _ => word,
        });
    }

    fn load(&self) -> Word {
        Word::unpack(self.word.load(Ordering::Acquire))
    }

    fn update(&self, next: impl Fn(Word) -> Word) {
        let kept: Result<(), std::convert::Infallible> = self.change(|word| Ok((next(word), ())));
        kept.unwrap_or_else(|never| match never {});
    }

    fn change<T, E>(&self, next: impl Fn(Word) -> Result<(Word, T), E>) -> Result<T, E> {
        let mut packed = self.word.load(Ordering::Acquire);
        loop {
            let (word, value) = next(Word::unpack(packed))?;
            let new = word.pack();
            if new == packed {
                return Ok(value);
            }
            match self
                .word
                .compare_exchange_weak(packed, new, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return Ok(value),
                Err(current) => packed = current,
            }
        }
    }

    /// How much of its open time is left.
    fn left(&self, word: Word, now: Duration) -> Duration {
        let open_for = millis(now).saturating_sub(word.since);
        self.settings
            .timeout
            .saturating_sub(Duration::from_millis(open_for))
    }
}

fn millis(now: Duration) -> u64 {
    u64::try_from(now.as_millis()).map_or(SINCE_MAX, |millis| millis.min(SINCE_MAX))
}

impl Pass<'_> {
    /// The attempt went well.
    pub fn succeeded(mut self) {
        let trial = self.trial.take();
        self.breaker.succeeded(trial);
    }

    /// The attempt failed; true when that opened the breaker.
    pub fn failed(mut self, now: Duration) -> bool {
        let trial = self.trial.take();
        self.breaker.failed(trial, now)
    }

    /// Whether the breaker is half-open and waits for how this one ends.
    pub fn is_trial(&self) -> bool {
        self.trial.is_some()
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if let Some(since) = self.trial {
            self.breaker.abandoned(since);
        }
    }
}

impl OwnedPass {
    /// As [`Pass::succeeded`].
    pub fn succeeded(mut self) {
        self.borrowed().succeeded();
    }

    /// As [`Pass::failed`].
    pub fn failed(mut self, now: Duration) -> bool {
        self.borrowed().failed(now)
    }

    /// As [`Pass::is_trial`].
    pub fn is_trial(&self) -> bool {
        self.trial.is_some()
    }

    fn borrowed(&mut self) -> Pass<'_> {
        Pass {
            breaker: &self.breaker,
            trial: self.trial.take(),
        }
    }
}

impl Drop for OwnedPass {
    fn drop(&mut self) {
        drop(self.borrowed());
    }
}

const STATE_BITS: u32 = 2;
const COUNT_BITS: u32 = 11;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;
/// Milliseconds, enough for 34 years.
const SINCE_MAX: u64 = (1 << (64 - STATE_BITS - 2 * COUNT_BITS)) - 1;

/// The state of a breaker, which fits into one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word {
    state: State,
    /// Closed: failures in a row. Half-open: trials that succeeded.
    count: u64,
    /// Half-open: trials that run.
    trials: u64,
    /// When the state began, in milliseconds; 0 when closed.
    since: u64,
}

impl Word {
    const CLOSED: Self = Self {
        state: State::Closed,
        count: 0,
        trials: 0,
        since: 0,
    };

    const fn pack(self) -> u64 {
        let state = match self.state {
            State::Closed => 0,
            State::Open => 1,
            State::HalfOpen => 2,
        };
        let counts = self.count | self.trials << COUNT_BITS;
        state | counts << STATE_BITS | self.since << (STATE_BITS + 2 * COUNT_BITS)
    }

    const fn unpack(word: u64) -> Self {
        let state = match word & ((1 << STATE_BITS) - 1) {
            0 => State::Closed,
            1 => State::Open,
            _ => State::HalfOpen,
        };
        Self {
            state,
            count: word >> STATE_BITS & COUNT_MAX,
            trials: word >> (STATE_BITS + COUNT_BITS) & COUNT_MAX,
            since: word >> (STATE_BITS + 2 * COUNT_BITS),
        }
    }
}

#[cfg(test)]
mod tests;
