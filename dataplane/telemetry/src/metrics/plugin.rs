//! What plugins do and how they fail, and the metrics that plugins keep themselves.
//!
//! The handle is held by whoever runs a plugin; when nobody does any more, its series vanish. How many
//! metrics a plugin may define is bounded here, because their names are its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::exposition::{Exposition, Value, seconds};
use super::family;
use super::instrument::{Counter, Gauge};

/// Metrics that one plugin may define.
const CUSTOM_MAX: usize = 256;
/// Bytes of a name that a plugin gives.
const NAME_BYTES_MAX: usize = 200;

/// The figures of one plugin.
#[derive(Debug)]
pub struct PluginMetrics {
    plugin: Arc<str>,
    /// Requests that it was called for.
    pub requests: Counter,
    /// Answers that it gave itself.
    pub replies: Counter,
    /// Instances that are there.
    pub instances: Gauge,
    /// 1 while it is left alone because it failed too often in a row.
    pub disabled: Gauge,
    /// 1 while it has not the module that is wanted.
    pub lacking: Gauge,
    time_ns: Counter,
    failures: [Counter; PluginFailure::ALL.len()],
    custom: Mutex<Vec<Arc<CustomMetric>>>,
}

/// How modules of plugins came, of all plugins together.
#[derive(Debug, Default)]
pub struct ModuleMetrics {
    fetches: [Counter; FETCH_RESULTS.len()],
    compiled: Counter,
    compile_ns: Counter,
}

/// How fetching a module ends.
const FETCH_RESULTS: [&str; 9] = [
    "ok",
    "refused",
    "unreachable",
    "status",
    "too_large",
    "timeout",
    "digest",
    "invalid",
    "credentials",
];

impl ModuleMetrics {
    /// Counts a fetch by its result, one of those that there are.
    pub fn fetched(&self, result: &str) {
        let at = FETCH_RESULTS.iter().position(|it| *it == result);
        if let Some(counter) = at.and_then(|at| self.fetches.get(at)) {
            counter.increment();
        }
    }

    /// Counts a module that was compiled, or was refused by the compiler, and the time that took.
    pub fn compiled(&self, time: Duration) {
        self.compiled.increment();
        self.compile_ns
            .add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(super) fn encode(&self, out: &mut Exposition<'_>) {
        let mut samples = out.family(&family::PLUGIN_FETCHES);
        for (result, count) in FETCH_RESULTS.iter().zip(&self.fetches) {
            samples.sample(&[result], count.value());
        }
        out.family(&family::PLUGIN_COMPILED)
            .sample(&[], self.compiled.value());
        out.family(&family::PLUGIN_COMPILE_TIME)
            .sample(&[], seconds(self.compile_ns.value()));
    }
}

/// How a plugin failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PluginFailure {
    /// It did what no plugin may: a trap.
    Trap,
    /// A call took too long.
    Timeout,
    /// A call took more instructions than it may.
    Fuel,
    /// An instance did not come up, or refused its configuration.
    Start,
    /// It held a request back for too long, or too much of a body.
    Hold,
    /// It was not there: no module, or left alone after failures.
    Unavailable,
}

impl PluginFailure {
    const ALL: [Self; 6] = [
        Self::Trap,
        Self::Timeout,
        Self::Fuel,
        Self::Start,
        Self::Hold,
        Self::Unavailable,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Timeout => "timeout",
            Self::Fuel => "fuel",
            Self::Start => "start",
            Self::Hold => "hold",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What a metric of a plugin is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CustomKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Values of which the number and the sum are told.
    Histogram,
}

/// One metric of a plugin.
#[derive(Debug)]
pub struct CustomMetric {
    /// What it is.
    pub kind: CustomKind,
    name: String,
    value: AtomicU64,
    count: AtomicU64,
}

impl CustomMetric {
    /// Adds to a counter or a gauge; a counter does not go down.
    pub fn add(&self, amount: i64) {
        match self.kind {
            CustomKind::Counter if amount < 0 => {}
            _ => {
                self.value
                    .fetch_add(amount.cast_unsigned(), Ordering::Relaxed);
            }
        }
    }

    /// Sets a counter or gauge, or adds a value to a histogram.
    pub fn record(&self, value: u64) {
        match self.kind {
            CustomKind::Histogram => {
                self.value.fetch_add(value, Ordering::Relaxed);
                self.count.fetch_add(1, Ordering::Relaxed);
            }
            CustomKind::Counter => {
                self.value.fetch_max(value, Ordering::Relaxed);
            }
            CustomKind::Gauge => self.value.store(value, Ordering::Relaxed),
        }
    }

    /// The value; of a histogram, the sum.
    pub fn value(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
}

impl PluginMetrics {
    pub(super) fn new(plugin: &str) -> Self {
        Self {
            plugin: plugin.into(),
            requests: Counter::default(),
            replies: Counter::default(),
            instances: Gauge::default(),
            disabled: Gauge::default(),
            lacking: Gauge::default(),
            time_ns: Counter::default(),
            failures: std::array::from_fn(|_| Counter::default()),
            custom: Mutex::default(),
        }
    }

    /// Counts the time of a call.
    pub fn took(&self, time: Duration) {
        self.time_ns
            .add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Counts a failure.
    pub fn failed(&self, failure: PluginFailure) {
        if let Some(counter) = self.failures.get(failure as usize) {
            counter.increment();
        }
    }

    /// How often it failed so.
    pub fn failures(&self, failure: PluginFailure) -> u64 {
        self.failures
            .get(failure as usize)
            .map_or(0, Counter::value)
    }

    /// The metric of that name, made on first use, by its number; nothing when there are too many, or
    /// when it is known as another kind.
    pub fn define(&self, kind: CustomKind, name: &str) -> Option<usize> {
        let mut custom = self.custom();
        if let Some(at) = custom.iter().position(|it| it.name == name) {
            return (custom.get(at)?.kind == kind).then_some(at);
        }
        if custom.len() >= CUSTOM_MAX || name.len() > NAME_BYTES_MAX {
            return None;
        }
        custom.push(Arc::new(CustomMetric {
            kind,
            name: name.to_owned(),
            value: AtomicU64::new(0),
            count: AtomicU64::new(0),
        }));
        Some(custom.len() - 1)
    }

    /// The metric of that number.
    pub fn metric(&self, at: usize) -> Option<Arc<CustomMetric>> {
        self.custom().get(at).cloned()
    }

    fn custom(&self) -> MutexGuard<'_, Vec<Arc<CustomMetric>>> {
        self.custom.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the families of plugins.
pub(super) fn encode(out: &mut Exposition<'_>, all: &[Arc<PluginMetrics>]) {
    for (family, count) in [
        (
            &family::PLUGIN_REQUESTS,
            (|it| &it.requests) as fn(&PluginMetrics) -> &Counter,
        ),
        (&family::PLUGIN_REPLIES, |it| &it.replies),
    ] {
        let mut samples = out.family(family);
        for it in all {
            samples.sample(&[&it.plugin], count(it).value());
        }
    }
    let mut samples = out.family(&family::PLUGIN_TIME);
    for it in all {
        samples.sample(&[&it.plugin], seconds(it.time_ns.value()));
    }
    let mut samples = out.family(&family::PLUGIN_FAILURES);
    for it in all {
        for failure in PluginFailure::ALL {
            samples.sample(&[&it.plugin, failure.as_str()], it.failures(failure));
        }
    }
    for (family, gauge) in [
        (
            &family::PLUGIN_INSTANCES,
            (|it| &it.instances) as fn(&PluginMetrics) -> &Gauge,
        ),
        (&family::PLUGIN_DISABLED, |it| &it.disabled),
        (&family::PLUGIN_LACKING, |it| &it.lacking),
    ] {
        let mut samples = out.family(family);
        for it in all {
            samples.sample(&[&it.plugin], gauge(it).value());
        }
    }
    encode_custom(out, all);
}

fn encode_custom(out: &mut Exposition<'_>, all: &[Arc<PluginMetrics>]) {
    type Read = fn(&CustomMetric) -> Value;
    let families: [(_, _, Read); 4] = [
        (&family::PLUGIN_COUNTER, CustomKind::Counter, |it| {
            it.value().into()
        }),
        (&family::PLUGIN_GAUGE, CustomKind::Gauge, |it| {
            it.value().cast_signed().into()
        }),
        (&family::PLUGIN_SUM, CustomKind::Histogram, |it| {
            it.value().into()
        }),
        (&family::PLUGIN_COUNT, CustomKind::Histogram, |it| {
            it.count.load(Ordering::Relaxed).into()
        }),
    ];
    for (family, kind, read) in families {
        let mut samples = out.family(family);
        for it in all {
            let custom = it.custom().clone();
            for metric in custom.iter().filter(|metric| metric.kind == kind) {
                samples.sample(&[&it.plugin, &metric.name], read(metric));
            }
        }
    }
}
