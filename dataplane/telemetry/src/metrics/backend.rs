//! Connections to backends, counted per cluster.
//!
//! Connections are opened far less often than requests are served, since they are pooled, so these
//! are plain atomics. The handle is kept beside the cluster in the compiled configuration.

use std::array;
use std::sync::{Arc, OnceLock};

use super::exposition::Exposition;
use super::family::{self, Family};
use super::instrument::{Counter, Gauge};
use crate::reason::Reason;

/// Retries of all backends, also of those that are gone.
#[derive(Debug, Default)]
pub(super) struct RetryTotals {
    pub(super) observed: Counter,
    pub(super) allowed: Counter,
    pub(super) rejected: Counter,
    /// Attempts that a breaker did not let begin.
    pub(super) circuit_refused: Counter,
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
    totals: Arc<RetryTotals>,
    /// Made when it is asked for something the first time.
    counts: OnceLock<Box<Counts>>,
}

/// What is counted of a backend.
#[derive(Debug, Default)]
struct Counts {
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

impl BackendMetrics {
    pub(super) fn new(name: &Arc<str>, totals: &Arc<RetryTotals>) -> Self {
        Self {
            name: Arc::clone(name),
            totals: Arc::clone(totals),
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
        self.totals.allowed.increment();
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
        self.totals.rejected.increment();
    }

    /// Counts a connection that was closed because of a response that nobody wanted.
    pub fn not_kept(&self) {
        self.counts().not_kept.increment();
    }

    /// Counts a request under a retry policy.
    pub fn retryable(&self) {
        self.counts().retryable.increment();
        self.totals.observed.increment();
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
        self.totals.circuit_refused.increment();
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
            || self.errors.get().is_some()
            || self.checks_passed.value() + self.checks_failed.value() > 0
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
