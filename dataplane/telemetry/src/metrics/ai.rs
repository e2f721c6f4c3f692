//! What AI services do: tokens, times, errors, budgets, redaction.
//!
//! Named after OpenTelemetry's GenAI metrics, over the buckets that its conventions ask for. The handle is held by the compiled service; when no
//! configuration holds it any more, its series vanish. Providers and models that become labels come
//! from configuration; whoever records puts `other` in the place of a model that does not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::exposition::Exposition;
use super::family;
use super::instrument::Counter;

mod spread;

pub use spread::{Gathered, Spread, Times, Tokens};

/// The figures of one AI service.
#[derive(Debug)]
pub struct AiMetrics {
    service: Arc<str>,
    /// Requests whose body was larger than the limit.
    pub too_large: Counter,
    /// Requests answered with 429 by a budget.
    pub rejected: Counter,
    /// Requests that waited for their budget.
    pub queued: Counter,
    /// Requests that went to a cheaper model because of a budget.
    pub degraded: Counter,
    /// Requests that passed although they were over a budget, because it only warns or is tried.
    pub over: Counter,
    /// Attempts that followed a failed one at the same provider.
    pub retries: Counter,
    /// Attempts at another provider because the one before failed.
    pub failovers: Counter,
    parts: Mutex<Parts>,
}

/// What calls are told apart by. Provider and model come from configuration, or are empty where a call
/// did not come so far.
#[derive(Clone, Copy, Debug)]
pub struct CallName<'n> {
    /// OpenTelemetry's name of what was asked.
    pub operation: &'static str,
    /// Whose API was called.
    pub provider: &'n str,
    /// The model that was asked.
    pub model: &'n str,
}

/// Operation, provider and model.
type Name = (&'static str, Arc<str>, Arc<str>);

impl CallName<'_> {
    fn key(self) -> Name {
        (self.operation, self.provider.into(), self.model.into())
    }
}

/// What failed in one way.
#[derive(Debug, Default)]
struct Failures {
    /// Attempts.
    count: u64,
    /// Calls of which nothing better came.
    duration: Spread<Times>,
}

#[derive(Debug, Default)]
struct Parts {
    calls: BTreeMap<Name, Arc<AiCalls>>,
    /// By name and kind.
    errors: BTreeMap<(Name, &'static str), Failures>,
    /// By kind.
    redactions: BTreeMap<&'static str, u64>,
}

/// The calls of one kind to one model of one provider.
#[derive(Debug, Default)]
pub struct AiCalls {
    /// Calls that were answered.
    pub answered: Counter,
    /// Tokens of questions, cached ones included.
    pub input: Spread<Tokens>,
    /// Of these, those that the provider had in its cache, where it had some.
    pub cached: Spread<Tokens>,
    /// Tokens of answers.
    pub output: Spread<Tokens>,
    /// From the request to the good end of its answer.
    pub duration: Spread<Times>,
    /// From the request to the first piece of its answer.
    pub first_chunk: Spread<Times>,
    /// From each piece of an answer to the next.
    pub output_chunk: Spread<Times>,
}

/// What was used of one model of one provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AiUsage {
    /// What was asked.
    pub operation: &'static str,
    /// Whose model it is.
    pub provider: Arc<str>,
    /// The model; `other` where configuration does not name it.
    pub model: Arc<str>,
    /// Calls that were answered.
    pub calls: u64,
    /// Tokens of questions, cached ones included.
    pub input: u64,
    /// Of these, those that the provider had in its cache.
    pub cached: u64,
    /// Tokens of answers.
    pub output: u64,
}

impl AiMetrics {
    pub(super) fn new(service: &str) -> Self {
        Self {
            service: service.into(),
            too_large: Counter::default(),
            rejected: Counter::default(),
            queued: Counter::default(),
            degraded: Counter::default(),
            over: Counter::default(),
            retries: Counter::default(),
            failovers: Counter::default(),
            parts: Mutex::default(),
        }
    }

    /// The calls of that name.
    pub fn calls(&self, name: CallName<'_>) -> Arc<AiCalls> {
        Arc::clone(self.parts().calls.entry(name.key()).or_default())
    }

    /// Counts an attempt that failed, by a word of a fixed list.
    pub fn failed(&self, name: CallName<'_>, kind: &'static str) {
        let key = (name.key(), kind);
        self.parts().errors.entry(key).or_default().count += 1;
    }

    /// Notes how long a call took that ended in failure.
    pub fn ended_badly(&self, name: CallName<'_>, kind: &'static str, took: Duration) {
        let key = (name.key(), kind);
        let mut parts = self.parts();
        parts.errors.entry(key).or_default().duration.took(took);
    }

    /// Counts what redaction found.
    pub fn redacted(&self, kind: &'static str, times: u64) {
        *self.parts().redactions.entry(kind).or_default() += times;
    }

    /// What was used so far, by operation, provider and model.
    pub fn usage(&self) -> Vec<AiUsage> {
        let all = self.all_calls().into_iter();
        all.map(|((operation, provider, model), calls)| AiUsage {
            operation,
            provider,
            model,
            calls: calls.answered.value(),
            input: calls.input.sum(),
            cached: calls.cached.sum(),
            output: calls.output.sum(),
        })
        .collect()
    }

    /// Attempts that failed: provider, model, what went wrong, how many.
    pub fn errors(&self) -> Vec<(Arc<str>, Arc<str>, &'static str, u64)> {
        let parts = self.parts();
        let mut errors = BTreeMap::new();
        for (((_, provider, model), kind), failures) in &parts.errors {
            *errors.entry((provider, model, *kind)).or_default() += failures.count;
        }
        let errors = errors.into_iter();
        errors
            .map(|((provider, model, kind), count)| (provider.clone(), model.clone(), kind, count))
            .collect()
    }

    /// What redaction found: kind, how many.
    pub fn redactions(&self) -> Vec<(&'static str, u64)> {
        let parts = self.parts();
        parts
            .redactions
            .iter()
            .map(|(kind, count)| (*kind, *count))
            .collect()
    }

    /// The maps stay whole whatever happened while the lock was held.
    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all_calls(&self) -> Vec<(Name, Arc<AiCalls>)> {
        let parts = self.parts();
        let calls = parts.calls.iter();
        calls
            .map(|(key, calls)| (key.clone(), calls.clone()))
            .collect()
    }
}

/// Writes the families of AI services; `lost` is how many callers' debts were forgotten.
pub(super) fn encode(out: &mut Exposition<'_>, services: &[Arc<AiMetrics>], lost: u64) {
    let calls: Vec<_> = services.iter().map(|service| service.all_calls()).collect();
    let each = || {
        let all = services.iter().zip(&calls);
        all.flat_map(|(service, calls)| calls.iter().map(move |(key, calls)| (service, key, calls)))
    };
    let mut samples = out.family(&family::AI_TOKENS);
    for (service, (operation, provider, model), calls) in each() {
        for (kind, tokens) in [
            ("input", &calls.input),
            ("cached_input", &calls.cached),
            ("output", &calls.output),
        ] {
            let (buckets, sum) = tokens.read();
            samples.buckets(
                &[&service.service, operation, provider, model, kind],
                buckets,
                sum,
            );
        }
    }
    let mut samples = out.family(&family::AI_DURATION);
    for (service, (operation, provider, model), calls) in each() {
        let (buckets, sum) = calls.duration.read();
        samples.buckets(
            &[&service.service, operation, provider, model, ""],
            buckets,
            sum,
        );
    }
    for service in services {
        let parts = service.parts();
        let ended = parts.errors.iter();
        for (((operation, provider, model), kind), failures) in
            ended.filter(|(_, failures)| failures.duration.count() > 0)
        {
            let (buckets, sum) = failures.duration.read();
            samples.buckets(
                &[&service.service, operation, provider, model, kind],
                buckets,
                sum,
            );
        }
    }
    type Took = fn(&AiCalls) -> &Spread<Times>;
    let families: [(_, Took); 2] = [
        (&family::AI_FIRST_CHUNK, |it| &it.first_chunk),
        (&family::AI_OUTPUT_CHUNK, |it| &it.output_chunk),
    ];
    for (family, took) in families {
        let mut samples = out.family(family);
        for (service, (operation, provider, model), calls) in each() {
            let (buckets, sum) = took(calls).read();
            samples.buckets(
                &[&service.service, operation, provider, model],
                buckets,
                sum,
            );
        }
    }
    let mut samples = out.family(&family::AI_ERRORS);
    for service in services {
        for (((operation, provider, model), kind), failures) in &service.parts().errors {
            samples.sample(
                &[&service.service, operation, provider, model, kind],
                failures.count,
            );
        }
    }
    let mut samples = out.family(&family::AI_REDACTIONS);
    for service in services {
        for (kind, count) in &service.parts().redactions {
            samples.sample(&[&service.service, kind], *count);
        }
    }
    let mut samples = out.family(&family::AI_BUDGETS);
    for service in services {
        for (outcome, count) in [
            ("rejected", &service.rejected),
            ("queued", &service.queued),
            ("degraded", &service.degraded),
            ("passed_over", &service.over),
        ] {
            samples.sample(&[&service.service, outcome], count.value());
        }
    }
    type Count = fn(&AiMetrics) -> &Counter;
    let families: [(_, Count); 3] = [
        (&family::AI_RETRIES, |it| &it.retries),
        (&family::AI_FAILOVERS, |it| &it.failovers),
        (&family::AI_TOO_LARGE, |it| &it.too_large),
    ];
    for (family, count) in families {
        let mut samples = out.family(family);
        for service in services {
            samples.sample(&[&service.service], count(service).value());
        }
    }
    out.family(&family::AI_EVICTED).sample(&[], lost);
}
