//! Backends, counted per cluster: what they answered, and the connections to them.
//!
//! Answers come with every request, so each thread counts them by itself. Connections are opened far
//! less often, since they are pooled, so all else are plain atomics. The handle is kept beside the
//! cluster in the compiled configuration.

use std::array;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::exposition::{Exposition, seconds};
use super::family::{self, Family};
use super::instrument::{Counter, Gauge, ShardCount, Shards};
use super::request::{CLASSES, class_index};
use crate::reason::Reason;

/// What all backends share, also those that are gone: their retries, and how many threads count.
#[derive(Debug)]
pub(super) struct AllBackends {
    shards: ShardCount,
    pub(super) observed: Counter,
    pub(super) allowed: Counter,
    pub(super) rejected: Counter,
    /// Attempts that a breaker did not let begin.
    pub(super) circuit_refused: Counter,
}

impl AllBackends {
    pub(super) fn new(shards: ShardCount) -> Self {
        Self {
            shards,
            observed: Counter::default(),
            allowed: Counter::default(),
            rejected: Counter::default(),
            circuit_refused: Counter::default(),
        }
    }
}

/// Why an attempt was not made that a retry policy asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The budget for retries was used up.
    Budget,
    /// Breaker or endpoints say that the backend bears no more.
    Unwell,
    /// A part of the request's body was sent that was too large to be kept.
    Body,
    /// The response asks for a longer pause than there may be.
    RetryAfter,
}

/// The counters of one backend.
#[derive(Debug)]
pub struct BackendMetrics {
    name: Arc<str>,
    all: Arc<AllBackends>,
    /// Made when it is asked for something the first time.
    counts: OnceLock<Box<Counts>>,
}

/// What is counted of a backend.
#[derive(Debug, Default)]
struct Counts {
    /// Made at the first answer.
    answers: OnceLock<Shards<AnswerShard>>,
    active: Gauge,
    connections: Counter,
    retries: Counter,
    retryable: Counter,
    denied_by_budget: Counter,
    denied_as_unwell: Counter,
    denied_for_body: Counter,
    denied_for_pause: Counter,
    not_kept: Counter,
    ejections: Counter,
    circuits_opened: Counter,
    circuit_refusals: Counter,
    checks_passed: Counter,
    checks_failed: Counter,
    /// By [`Reason::index`]; made at the first error.
    errors: OnceLock<Box<[Counter; Reason::COUNT]>>,
}

/// What one thread records of the answers of a backend.
#[derive(Debug, Default)]
struct AnswerShard {
    /// By class of status.
    classes: [Counter; CLASSES.len()],
    waited_ns: Counter,
}

impl BackendMetrics {
    pub(super) fn new(name: &Arc<str>, all: &Arc<AllBackends>) -> Self {
        Self {
            name: Arc::clone(name),
            all: Arc::clone(all),
            counts: OnceLock::new(),
        }
    }

    fn counts(&self) -> &Counts {
        self.counts.get_or_init(Box::default)
    }

    /// The backend's label value, `namespace/service:port`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Counts the head of a response, for which the backend alone was waited for so long. Each attempt
    /// that is answered counts, also one whose response is thrown away in favour of another.
    pub fn answered(&self, status: u16, waited: Duration) {
        let answers = &self.counts().answers;
        let answers = answers.get_or_init(|| Shards::new(self.all.shards));
        let local = answers.local();
        local.classes[class_index(status)].increment();
        let ns = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
        local.waited_ns.add(ns);
    }

    /// Counts a connection as opened, and as open until the guard is dropped.
    pub fn connection_opened(self: &Arc<Self>) -> BackendConnection {
        self.counts().connections.increment();
        self.counts().active.add(1);
        BackendConnection {
            backend: Arc::clone(self),
        }
    }

    /// Counts a connection that did not come up, or that broke.
    pub fn connection_failed(&self, reason: Reason) {
        let errors = self
            .counts()
            .errors
            .get_or_init(|| Box::new(array::from_fn(|_| Counter::default())));
        errors[reason.index()].increment();
    }

    /// Counts an attempt that follows another by a retry policy.
    pub fn retried(&self) {
        self.counts().retries.increment();
        self.all.allowed.increment();
    }

    /// Counts an attempt that was not made although a policy asked for it.
    pub fn retry_denied(&self, cause: Denied) {
        match cause {
            Denied::Budget => self.counts().denied_by_budget.increment(),
            Denied::Unwell => self.counts().denied_as_unwell.increment(),
            // These say nothing about the backend, nor about its budget.
            Denied::Body => return self.counts().denied_for_body.increment(),
            Denied::RetryAfter => return self.counts().denied_for_pause.increment(),
        }
        self.all.rejected.increment();
    }

    /// Counts a connection that was closed because of a response that nobody wanted.
    pub fn not_kept(&self) {
        self.counts().not_kept.increment();
    }

    /// Counts a request under a retry policy.
    pub fn retryable(&self) {
        self.counts().retryable.increment();
        self.all.observed.increment();
    }

    /// Counts an endpoint that is left out because it kept failing.
    pub fn ejected(&self) {
        self.counts().ejections.increment();
    }

    /// Counts a breaker that opened.
    pub fn circuit_opened(&self) {
        self.counts().circuits_opened.increment();
    }

    /// Counts an attempt that a breaker did not let begin.
    pub fn circuit_refused(&self) {
        self.counts().circuit_refusals.increment();
        self.all.circuit_refused.increment();
    }

    /// Counts a health check of one of its endpoints.
    pub fn health_checked(&self, has_passed: bool) {
        match has_passed {
            true => self.counts().checks_passed.increment(),
            false => self.counts().checks_failed.increment(),
        }
    }

    /// Whether anything was ever asked of it; until then it has no series.
    pub fn is_used(&self) -> bool {
        self.counts.get().is_some_and(|counts| counts.are_used())
    }

    /// Connections open now.
    pub fn connections_active(&self) -> i64 {
        self.counts.get().map_or(0, |counts| counts.active.value())
    }
}

impl Counts {
    fn are_used(&self) -> bool {
        self.connections.value() > 0
            || self.answers.get().is_some()
            || self.errors.get().is_some()
            || self.checks_passed.value() + self.checks_failed.value() > 0
    }

    /// Answers by class of status, and nanoseconds of waiting for them; nothing before the first.
    fn answers(&self) -> Option<([u64; CLASSES.len()], u64)> {
        let shards = self.answers.get()?;
        let (mut classes, mut waited_ns) = ([0; CLASSES.len()], 0_u64);
        for shard in shards.iter() {
            for (sum, count) in classes.iter_mut().zip(&shard.classes) {
                *sum += count.value();
            }
            waited_ns = waited_ns.wrapping_add(shard.waited_ns.value());
        }
        Some((classes, waited_ns))
    }
}

/// Counts one connection as open; see [`BackendMetrics::connection_opened`].
#[derive(Debug)]
#[must_use = "the connection counts as open only while this is held"]
pub struct BackendConnection {
    backend: Arc<BackendMetrics>,
}

impl Drop for BackendConnection {
    fn drop(&mut self) {
        self.backend.counts().active.add(-1);
    }
}

/// Writes the families of backends. What never happened to one has no series; see the budget in
/// `family.rs`.
pub(super) fn encode(out: &mut Exposition<'_>, all: &[Arc<BackendMetrics>]) {
    let all = all.iter();
    let all: Vec<(&str, &Counts)> = all
        .filter_map(|it| Some((it.name(), &**it.counts.get()?)))
        .collect();
    encode_answers(out, &all);
    let mut samples = out.family(&family::BACKEND_ACTIVE);
    for (name, counts) in all.iter().filter(|(_, counts)| counts.are_used()) {
        samples.sample(&[name], counts.active.value());
    }
    let mut samples = out.family(&family::BACKEND_CONNECTIONS);
    for (name, counts) in all.iter().filter(|(_, counts)| counts.are_used()) {
        samples.sample(&[name], counts.connections.value());
    }
    each(out, &family::BACKEND_RETRIES, &all, |it| &it.retries);
    let mut samples = out.family(&family::BACKEND_RETRIES_DENIED);
    for (name, counts) in &all {
        let causes = [
            ("budget", &counts.denied_by_budget),
            ("unwell", &counts.denied_as_unwell),
            ("body", &counts.denied_for_body),
            ("retry_after", &counts.denied_for_pause),
        ];
        for (cause, denied) in causes {
            if denied.value() > 0 {
                samples.sample(&[name, cause], denied.value());
            }
        }
    }
    each(out, &family::BACKEND_NOT_KEPT, &all, |it| &it.not_kept);
    each(out, &family::BACKEND_RETRYABLE, &all, |it| &it.retryable);
    each(out, &family::BACKEND_EJECTIONS, &all, |it| &it.ejections);
    each(out, &family::CIRCUIT_OPENED, &all, |it| &it.circuits_opened);
    each(out, &family::CIRCUIT_REFUSED, &all, |it| {
        &it.circuit_refusals
    });
    let mut samples = out.family(&family::BACKEND_CHECKS);
    for (name, counts) in &all {
        let (passed, failed) = (counts.checks_passed.value(), counts.checks_failed.value());
        if passed + failed > 0 {
            samples.sample(&[name, "passed"], passed);
            samples.sample(&[name, "failed"], failed);
        }
    }
    let mut samples = out.family(&family::BACKEND_ERRORS);
    for (name, counts) in &all {
        let Some(errors) = counts.errors.get() else {
            continue;
        };
        for (reason, count) in Reason::ALL.into_iter().zip(errors.iter()) {
            if count.value() > 0 {
                samples.sample(&[name, reason.as_str()], count.value());
            }
        }
    }
}

/// Writes what backends answered.
fn encode_answers(out: &mut Exposition<'_>, all: &[(&str, &Counts)]) {
    let answers = all.iter();
    let answers: Vec<_> = answers
        .filter_map(|(name, counts)| Some((*name, counts.answers()?)))
        .collect();
    let mut samples = out.family(&family::BACKEND_REQUESTS);
    for (name, (classes, _)) in &answers {
        for (class, count) in CLASSES.into_iter().zip(classes) {
            if *count > 0 {
                samples.sample(&[name, class], *count);
            }
        }
    }
    let mut samples = out.family(&family::BACKEND_WAITED);
    for (name, (_, waited_ns)) in &answers {
        samples.sample(&[name], seconds(*waited_ns));
    }
}

/// Writes one counter of those for whom it counted anything.
fn each(
    out: &mut Exposition<'_>,
    family: &'static Family,
    all: &[(&str, &Counts)],
    count: fn(&Counts) -> &Counter,
) {
    let mut samples = out.family(family);
    for (name, counts) in all {
        if count(counts).value() > 0 {
            samples.sample(&[name], count(counts).value());
        }
    }
}
