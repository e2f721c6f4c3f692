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
    pub(super) fn new(name: &str, totals: &Arc<RetryTotals>) -> Self {
        Self {
            totals: Arc::clone(totals),
            name: name.into(),
            active: Gauge::default(),
            connections: Counter::default(),
            retries: Counter::default(),
            retryable: Counter::default(),
            denied_by_budget: Counter::default(),
            denied_as_unwell: Counter::default(),
            denied_for_body: Counter::default(),
            denied_for_pause: Counter::default(),
            not_kept: Counter::default(),
            ejections: Counter::default(),
            circuits_opened: Counter::default(),
            circuit_refusals: Counter::default(),
            checks_passed: Counter::default(),
            checks_failed: Counter::default(),
            errors: OnceLock::new(),
        }
    }

    /// The backend's label value, `namespace/service:port`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Counts a connection as opened, and as open until the guard is dropped.
    pub fn connection_opened(self: &Arc<Self>) -> BackendConnection {
        self.connections.increment();
        self.active.add(1);
        BackendConnection {
            backend: Arc::clone(self),
        }
    }

    /// Counts a connection that did not come up, or that broke.
    pub fn connection_failed(&self, reason: Reason) {
        let errors = self
            .errors
            .get_or_init(|| Box::new(array::from_fn(|_| Counter::default())));
        errors[reason.index()].increment();
    }

    /// Counts an attempt that follows another by a retry policy.
    pub fn retried(&self) {
        self.retries.increment();
        self.totals.allowed.increment();
    }

    /// Counts an attempt that was not made although a policy asked for it.
    pub fn retry_denied(&self, cause: Denied) {
        match cause {
            Denied::Budget => self.denied_by_budget.increment(),
            Denied::Unwell => self.denied_as_unwell.increment(),
            // These say nothing about the backend, nor about its budget.
            Denied::Body => return self.denied_for_body.increment(),
            Denied::RetryAfter => return self.denied_for_pause.increment(),
        }
        self.totals.rejected.increment();
    }

    /// Counts a connection that was closed because of a response that nobody wanted.
    pub fn not_kept(&self) {
        self.not_kept.increment();
    }

    /// Counts a request under a retry policy.
    pub fn retryable(&self) {
        self.retryable.increment();
        self.totals.observed.increment();
    }

    /// Counts an endpoint that is left out because it kept failing.
    pub fn ejected(&self) {
        self.ejections.increment();
    }

    /// Counts a breaker that opened.
    pub fn circuit_opened(&self) {
        self.circuits_opened.increment();
    }

    /// Counts an attempt that a breaker did not let begin.
    pub fn circuit_refused(&self) {
        self.circuit_refusals.increment();
        self.totals.circuit_refused.increment();
    }

    /// Counts a health check of one of its endpoints.
    pub fn health_checked(&self, has_passed: bool) {
        match has_passed {
            true => self.checks_passed.increment(),
            false => self.checks_failed.increment(),
        }
    }

    /// Whether anything was ever asked of it; until then it has no series.
    pub fn is_used(&self) -> bool {
        self.connections.value() > 0
            || self.errors.get().is_some()
            || self.checks_passed.value() + self.checks_failed.value() > 0
    }

    /// Connections open now.
    pub fn connections_active(&self) -> i64 {
        self.active.value()
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
        self.backend.active.add(-1);
    }
}

/// Writes the families of backends. What never happened to one has no series; see the budget in
/// `family.rs`.
pub(super) fn encode(out: &mut Exposition<'_>, all: &[Arc<BackendMetrics>]) {
    let mut samples = out.family(&family::BACKEND_ACTIVE);
    for backend in all.iter().filter(|it| it.is_used()) {
        samples.sample(&[&backend.name], backend.active.value());
    }
    let mut samples = out.family(&family::BACKEND_CONNECTIONS);
    for backend in all.iter().filter(|it| it.is_used()) {
        samples.sample(&[&backend.name], backend.connections.value());
    }
    counts(out, &family::BACKEND_RETRIES, all, |it| &it.retries);
    let mut samples = out.family(&family::BACKEND_RETRIES_DENIED);
    for backend in all {
        let causes = [
            ("budget", &backend.denied_by_budget),
            ("unwell", &backend.denied_as_unwell),
            ("body", &backend.denied_for_body),
            ("retry_after", &backend.denied_for_pause),
        ];
        for (cause, denied) in causes {
            if denied.value() > 0 {
                samples.sample(&[&backend.name, cause], denied.value());
            }
        }
    }
    counts(out, &family::BACKEND_NOT_KEPT, all, |it| &it.not_kept);
    counts(out, &family::BACKEND_RETRYABLE, all, |it| &it.retryable);
    counts(out, &family::BACKEND_EJECTIONS, all, |it| &it.ejections);
    counts(out, &family::CIRCUIT_OPENED, all, |it| &it.circuits_opened);
    counts(out, &family::CIRCUIT_REFUSED, all, |it| {
        &it.circuit_refusals
    });
    let mut samples = out.family(&family::BACKEND_CHECKS);
    for backend in all {
        let (passed, failed) = (backend.checks_passed.value(), backend.checks_failed.value());
        if passed + failed > 0 {
            samples.sample(&[&backend.name, "passed"], passed);
            samples.sample(&[&backend.name, "failed"], failed);
        }
    }
    let mut samples = out.family(&family::BACKEND_ERRORS);
    for backend in all {
        let Some(errors) = backend.errors.get() else {
            continue;
        };
        for (reason, count) in Reason::ALL.into_iter().zip(errors.iter()) {
            if count.value() > 0 {
                samples.sample(&[&backend.name, reason.as_str()], count.value());
            }
        }
    }
}

/// Writes one counter of those for whom it counted anything.
fn counts(
    out: &mut Exposition<'_>,
    family: &'static Family,
    all: &[Arc<BackendMetrics>],
    count: fn(&BackendMetrics) -> &Counter,
) {
    let mut samples = out.family(family);
    for backend in all {
        if count(backend).value() > 0 {
            samples.sample(&[&backend.name], count(backend).value());
        }
    }
}
