//! Budgets of tokens and requests.
//!
//! A [`TokenBudget`] is a policy of the configuration, a [`Ledger`] what its keys have spent; the ledger
//! outlives configurations. Before a call its tokens are reserved by an estimate, afterwards the real count
//! takes the estimate's place and may overdraw, so that a source over its limit waits until its debt is paid.
//! Debts are times (the generic cell rate algorithm): a key that owes nothing is like one never seen, and
//! may be forgotten. The buckets of `dataplane_resilience` forgive what lies beyond their burst, which is
//! why these are others. Who shares a key, and waiting, are the caller's affair.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ir::ai::{OnLimit, TokenPolicy};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// Keys in one place of a ledger; a key looks nowhere else.
const WAYS: usize = 8;

/// So many in a period, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rate {
    limit: u64,
    period: u64,
    /// How much time a key may owe.
    horizon: u64,
}

impl Rate {
    fn new(limit: u64, period: Duration, burst: f64) -> Self {
        let period = nanos(period);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a factor is not exact anyway, and the cast saturates"
        )]
        let horizon = (period as f64 * burst) as u64;
        Self {
            limit,
            period,
            // One must always fit.
            horizon: horizon.max(period.div_ceil(limit)),
        }
    }

    fn cost(&self, count: u64) -> u64 {
        let cost = u128::from(count) * u128::from(self.period) / u128::from(self.limit);
        u64::try_from(cost).unwrap_or(u64::MAX)
    }

    fn worth(&self, time: u64) -> u64 {
        let count = u128::from(time) * u128::from(self.limit) / u128::from(self.period);
        u64::try_from(count).unwrap_or(u64::MAX)
    }

    /// How long until that much can be taken; a request larger than the burst needs all of it.
    fn wait(&self, full_at: u64, count: u64, now: u64) -> u64 {
        let owed = full_at.saturating_sub(now);
        let cost = self.cost(count).min(self.horizon);
        owed.saturating_add(cost).saturating_sub(self.horizon)
    }

    fn quota(&self, full_at: u64, now: u64) -> Quota {
        let owed = full_at.saturating_sub(now);
        Quota {
            limit: self.worth(self.horizon),
            remaining: self.worth(self.horizon.saturating_sub(owed)),
            reset: Duration::from_nanos(owed),
        }
    }
}

/// What a key owes: the times at which its budgets are whole again.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    key: u64,
    minute: u64,
    hour: u64,
    requests: u64,
}

impl Account {
    fn whole_at(&self) -> u64 {
        self.minute.max(self.hour).max(self.requests)
    }
}

/// What keys have spent, in room that is set aside once.
///
/// A key is a 64-bit hash, keyed at random by the caller so that nobody can choose keys that meet. When
/// there is no room, the account that owes least gives way; [`Ledger::lost`] counts those that owed
/// something. Each place has a lock of its own, so that sources do not wait for each other.
#[derive(Debug)]
pub struct Ledger {
    sets: Box<[Mutex<[Account; WAYS]>]>,
    lost: AtomicU64,
}

impl Ledger {
    /// Room for at least that many keys, 32 bytes each.
    pub fn with_room_for(keys: usize) -> Self {
        let sets = keys.div_ceil(WAYS).next_power_of_two();
        Self {
            sets: (0..sets).map(|_| Mutex::default()).collect(),
            lost: AtomicU64::new(0),
        }
    }

    /// Accounts that were given up although they owed something.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn with<T>(&self, key: u64, now: u64, act: impl FnOnce(&mut Account) -> T) -> T {
        // 0 stands for a place that nobody has.
        let key = key.max(1);
        let mut set = self.set(key);
        if let Some(account) = set.iter_mut().find(|account| account.key == key) {
            return act(account);
        }
        let least = set.iter_mut().min_by_key(|account| account.whole_at());
        let Some(account) = least else {
            return act(&mut Account::default());
        };
        if account.whole_at() > now {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        *account = Account {
            key,
            ..Account::default()
        };
        act(account)
    }

    fn set(&self, key: u64) -> MutexGuard<'_, [Account; WAYS]> {
        // The number of sets is a power of two; the low bits of a hash are as good as any.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "only low bits are looked at"
        )]
        let at = key as usize & (self.sets.len() - 1);
        // Accounts are whole at any moment, so one that was left in a panic is as good as any.
        self.sets[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A compiled policy.
#[derive(Clone, Debug)]
pub struct TokenBudget {
    minute: Option<Rate>,
    hour: Option<Rate>,
    requests: Option<Rate>,
    on_limit: OnLimit,
    degrade_to: Option<String>,
    is_dry_run: bool,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It passes.
    Pass,
    /// It passes although it is over the limit (`warn`, or a dry run).
    PassOver,
    /// It passes after that time, for which its place is kept.
    Wait(Duration),
    /// It passes with another model.
    Degrade(String),
    /// It is answered with 429.
    Refuse {
        /// When it would pass, if nobody else comes.
        retry_after: Duration,
    },
}

/// What was taken for a request; given back to [`TokenBudget::settle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    key: u64,
    tokens: u64,
}

/// A verdict on one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// What becomes of it.
    pub outcome: Outcome,
    /// What was taken for it; absent when it is refused.
    pub reservation: Option<Reservation>,
    /// Where its key stands now.
    pub standing: Standing,
}

/// Where a key stands with its limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// With its requests.
    pub requests: Option<Quota>,
    /// With its tokens, of the minute or the hour, whichever is closer to its end.
    pub tokens: Option<Quota>,
}

/// One limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The most that can be had at once.
    pub limit: u64,
    /// What is left.
    pub remaining: u64,
    /// Until all of it is there again.
    pub reset: Duration,
}

impl TokenBudget {
    /// The budgets of a policy.
    pub fn compile(policy: &TokenPolicy) -> Self {
        let rate = |limit: Option<std::num::NonZeroU64>, period| {
            limit.map(|limit| Rate::new(limit.get(), period, policy.burst))
        };
        Self {
            minute: rate(policy.tokens_per_minute, MINUTE),
            hour: rate(policy.tokens_per_hour, HOUR),
            requests: rate(policy.requests_per_minute, MINUTE),
            on_limit: policy.on_limit,
            degrade_to: policy.degrade_to.clone(),
            is_dry_run: policy.is_dry_run,
        }
    }

    /// Takes one request and about so many tokens from a key's budgets, all or nothing; it waits no
    /// longer than `wait_max`.
    pub fn reserve(
        &self,
        ledger: &Ledger,
        key: u64,
        tokens: u64,
        wait_max: Duration,
        now: Duration,
    ) -> Verdict {
        let now = nanos(now);
        ledger.with(key, now, |account| {
            let wait = Duration::from_nanos(self.wait(account, tokens, now));
            let outcome = self.outcome(wait, wait_max);
            let is_taken = !matches!(outcome, Outcome::Refuse { .. });
            if is_taken {
                self.charge(account, tokens, now);
                if let Some(rate) = &self.requests {
                    account.requests = account.requests.max(now).saturating_add(rate.cost(1));
                }
            }
            Verdict {
                outcome,
                reservation: is_taken.then_some(Reservation { key, tokens }),
                standing: self.standing(account, now),
            }
        })
    }

    /// Puts the real count in the place of the estimate. It may overdraw; what was too much comes back.
    pub fn settle(&self, ledger: &Ledger, reservation: Reservation, used: u64, now: Duration) {
        let now = nanos(now);
        ledger.with(reservation.key, now, |account| {
            if let Some(more) = used.checked_sub(reservation.tokens) {
                self.charge(account, more, now);
            } else {
                let back = reservation.tokens - used;
                for (rate, full_at) in [
                    (&self.minute, &mut account.minute),
                    (&self.hour, &mut account.hour),
                ] {
                    if let Some(rate) = rate {
                        *full_at = full_at.saturating_sub(rate.cost(back));
                    }
                }
            }
        });
    }

    /// Where a key stands, without taking anything.
    pub fn peek(&self, ledger: &Ledger, key: u64, now: Duration) -> Standing {
        let now = nanos(now);
        ledger.with(key, now, |account| self.standing(account, now))
    }

    fn outcome(&self, wait: Duration, wait_max: Duration) -> Outcome {
        if wait.is_zero() {
            return Outcome::Pass;
        }
        if self.is_dry_run {
            return Outcome::PassOver;
        }
        match (self.on_limit, &self.degrade_to) {
            (OnLimit::Warn, _) => Outcome::PassOver,
            (OnLimit::Degrade, Some(model)) => Outcome::Degrade(model.clone()),
            (OnLimit::Queue, _) if wait <= wait_max => Outcome::Wait(wait),
            _ => Outcome::Refuse { retry_after: wait },
        }
    }

    fn wait(&self, account: &Account, tokens: u64, now: u64) -> u64 {
        let wait = |rate: &Option<Rate>, full_at, count| {
            rate.as_ref()
                .map_or(0, |rate| rate.wait(full_at, count, now))
        };
        wait(&self.minute, account.minute, tokens)
            .max(wait(&self.hour, account.hour, tokens))
            .max(wait(&self.requests, account.requests, 1))
    }

    fn charge(&self, account: &mut Account, tokens: u64, now: u64) {
        for (rate, full_at) in [
            (&self.minute, &mut account.minute),
            (&self.hour, &mut account.hour),
        ] {
            if let Some(rate) = rate {
                *full_at = (*full_at).max(now).saturating_add(rate.cost(tokens));
            }
        }
    }

    fn standing(&self, account: &Account, now: u64) -> Standing {
        let quota =
            |rate: &Option<Rate>, full_at| rate.as_ref().map(|rate| rate.quota(full_at, now));
        let minute = quota(&self.minute, account.minute);
        let hour = quota(&self.hour, account.hour);
        let tokens = [minute, hour].into_iter().flatten();
        Standing {
            requests: quota(&self.requests, account.requests),
            tokens: tokens.min_by_key(|quota| quota.remaining),
        }
    }
}

impl Standing {
    /// The fields `x-ratelimit-…`, as OpenAI writes them.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        const REQUESTS: [&str; 3] = [
            "x-ratelimit-limit-requests",
            "x-ratelimit-remaining-requests",
            "x-ratelimit-reset-requests",
        ];
        const TOKENS: [&str; 3] = [
            "x-ratelimit-limit-tokens",
            "x-ratelimit-remaining-tokens",
            "x-ratelimit-reset-tokens",
        ];
        let mut fields = Vec::with_capacity(6);
        for (names, quota) in [(REQUESTS, self.requests), (TOKENS, self.tokens)] {
            if let Some(quota) = quota {
                fields.push((names[0], quota.limit.to_string()));
                fields.push((names[1], quota.remaining.to_string()));
                fields.push((names[2], span(quota.reset)));
            }
        }
        fields
    }
}

/// The value of `Retry-After`: whole seconds, never too few.
pub fn retry_after_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

/// A time as OpenAI writes it: `6m0s`, `1s`, `20ms`.
fn span(time: Duration) -> String {
    let (seconds, ms) = (time.as_secs(), time.subsec_millis());
    if seconds == 0 {
        return format!("{ms}ms");
    }
    let mut text = String::new();
    let (hours, minutes) = (seconds / 3600, seconds % 3600 / 60);
    // Writing to a string cannot fail.
    let _ = match (hours, minutes) {
        (0, 0) => Ok(()),
        (0, _) => write!(text, "{minutes}m"),
        _ => write!(text, "{hours}h{minutes}m"),
    };
    let _ = write!(text, "{}s", seconds % 60);
    text
}

/// Enough for 584 years.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
