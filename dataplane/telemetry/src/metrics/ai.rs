//! What AI services do: tokens, times, errors, budgets, redaction.
//!
//! Named after OpenTelemetry's GenAI metrics. The handle is held by the compiled service; when no
//! configuration holds it any more, its series vanish. Providers and models that become labels come
//! from configuration; whoever records puts `other` in the place of a model that does not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::exposition::Exposition;
use super::family;
use super::instrument::{Counter, Distribution, Histogram};

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

/// Provider and model.
type CallsName = (Arc<str>, Arc<str>);

#[derive(Debug, Default)]
struct Parts {
    calls: BTreeMap<CallsName, Arc<AiCalls>>,
    /// By provider and kind.
    errors: BTreeMap<(Arc<str>, &'static str), u64>,
    /// By kind.
    redactions: BTreeMap<&'static str, u64>,
}

/// The calls to one model of one provider.
#[derive(Debug, Default)]
pub struct AiCalls {
    /// Tokens of questions, cached ones included.
    pub input: Counter,
    /// Of these, those that the provider had in its cache.
    pub cached: Counter,
    /// Tokens of answers.
    pub output: Counter,
    /// From the request to the end of its answer.
    pub duration: Histogram,
    /// From the request to the first piece of its answer.
    pub first_chunk: Histogram,
    /// Between two pieces of an answer, on average over the answer.
    pub output_chunk: Histogram,
}

/// What was used of one model of one provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AiUsage {
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

    /// The calls to that model of that provider, both from configuration.
    pub fn calls(&self, provider: &str, model: &str) -> Arc<AiCalls> {
        let key = (Arc::from(provider), Arc::from(model));
        Arc::clone(self.parts().calls.entry(key).or_default())
    }

    /// Counts a call that failed, by a word of a fixed list; the provider is empty when none was asked.
    pub fn failed(&self, provider: &str, kind: &'static str) {
        let key = (Arc::from(provider), kind);
        *self.parts().errors.entry(key).or_default() += 1;
    }

    /// Counts what redaction found.
    pub fn redacted(&self, kind: &'static str, times: u64) {
        *self.parts().redactions.entry(kind).or_default() += times;
    }

    /// What was used so far, by provider and model.
    pub fn usage(&self) -> Vec<AiUsage> {
        let all = self.all_calls().into_iter();
        all.map(|((provider, model), calls)| {
            let mut answered = Distribution::default();
            calls.duration.add_to(&mut answered);
            AiUsage {
                provider,
                model,
                calls: answered.buckets.iter().sum(),
                input: calls.input.value(),
                cached: calls.cached.value(),
                output: calls.output.value(),
            }
        })
        .collect()
    }

    /// Calls that failed: provider, what went wrong, how many.
    pub fn errors(&self) -> Vec<(Arc<str>, &'static str, u64)> {
        let parts = self.parts();
        let errors = parts.errors.iter();
        errors
            .map(|((provider, kind), count)| (provider.clone(), *kind, *count))
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

    fn all_calls(&self) -> Vec<(CallsName, Arc<AiCalls>)> {
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
    for (service, (provider, model), calls) in each() {
        for (kind, count) in [
            ("input", &calls.input),
            ("cached_input", &calls.cached),
            ("output", &calls.output),
        ] {
            samples.sample(&[&service.service, provider, model, kind], count.value());
        }
    }
    type Times = fn(&AiCalls) -> &Histogram;
    let families: [(_, Times); 3] = [
        (&family::AI_DURATION, |it| &it.duration),
        (&family::AI_FIRST_CHUNK, |it| &it.first_chunk),
        (&family::AI_OUTPUT_CHUNK, |it| &it.output_chunk),
    ];
    for (family, times) in families {
        let mut samples = out.family(family);
        for (service, (provider, model), calls) in each() {
            let mut content = Distribution::default();
            times(calls).add_to(&mut content);
            samples.histogram(&[&service.service, provider, model], &content);
        }
    }
    let mut samples = out.family(&family::AI_ERRORS);
    for service in services {
        for ((provider, kind), count) in &service.parts().errors {
            samples.sample(&[&service.service, provider, kind], *count);
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

impl AiCalls {
    /// Notes how long a call took, to the first piece of its answer and between two pieces.
    pub fn took(&self, whole: Duration, first: Option<Duration>, chunk: Option<Duration>) {
        self.duration.observe(whole);
        if let Some(first) = first {
            self.first_chunk.observe(first);
        }
        if let Some(chunk) = chunk {
            self.output_chunk.observe(chunk);
        }
    }
}
