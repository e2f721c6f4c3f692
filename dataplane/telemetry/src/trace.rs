//! Traces: which requests are recorded, what of them, and who sends it to the collector.
//!
//! [`Tracing`] is made once in `app.rs`; each worker keeps a [`Tracer`]. A request that is sampled
//! carries an [`Active`]. At its end what spans tell is copied (`trace/ended.rs`) from the same
//! [`Record`] that its line of the access log is written from, and goes through a bounded queue to one
//! thread, which makes spans of it (`trace/span.rs`) and sends them (`trace/export.rs`); what does not
//! fit, or is not taken in time, is dropped and counted, and no request waits.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

mod ended;
mod export;
mod span;
mod watch;

pub use watch::{Seen, Step, Wanted, Watcher, Watching};

use ended::Ended;
use export::Queue;
use watch::Watch;

use crate::access_log::Record;
use crate::metrics::TraceMetrics;
use crate::otlp::Collector;
use crate::reason::Reason;
use crate::trace_context::{Forms, Remote};

/// How traces are made.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where spans go.
    pub collector: Collector,
    /// Share of the traces that begin here which are recorded, 0 to 1.
    pub sample_ratio: f64,
    /// What the sender of a request has decided about its trace holds here too.
    pub parent_based: bool,
    /// In which forms a trace is told to backends, besides those in which it came.
    pub forms: Forms,
    /// Spans that may wait for the collector; further ones are dropped.
    pub queue_spans: usize,
    /// Where spans and drops are counted; `Metrics::traces` belongs here.
    pub counts: Arc<TraceMetrics>,
}

/// The traces of the process; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Tracing {
    /// Absent when none are sent anywhere.
    shared: Option<Arc<Shared>>,
    watch: Arc<Watch>,
}

struct Shared {
    queue: Queue,
    sampling: Sampling,
    forms: Forms,
    /// Ends when the thread does.
    finished: Mutex<Receiver<()>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Tracing {
    /// Starts the thread that sends spans; fails only when there can be no thread.
    ///
    /// A collector that cannot be reached is not an error here: it is logged, counted and tried
    /// again with the next batch.
    pub fn start(settings: Settings) -> io::Result<Self> {
        let Settings {
            collector,
            sample_ratio,
            parent_based,
            forms,
            queue_spans,
            counts,
        } = settings;
        let (queue, finished) = export::start(collector, queue_spans, counts)?;
        Ok(Self {
            shared: Some(Arc::new(Shared {
                queue,
                sampling: Sampling {
                    ratio: Ratio::new(sample_ratio),
                    parent_based,
                },
                forms,
                finished: Mutex::new(finished),
            })),
            watch: Arc::default(),
        })
    }

    /// What a worker keeps.
    pub fn tracer(&self) -> Tracer {
        Tracer {
            shared: self.shared.clone(),
            watch: self.watch.clone(),
        }
    }

    /// Shows requests as they end, until what is given back is dropped; nothing when too many watch
    /// already.
    pub fn watch(&self, wanted: Wanted) -> Option<Watching> {
        self.watch.begin(wanted)
    }

    /// Sends what waits and ends the thread; false when `patience` ran out first.
    pub fn stop(&self, patience: Duration) -> bool {
        let Some(shared) = &self.shared else {
            return true;
        };
        shared.queue.stop();
        let finished = shared.finished.lock();
        let finished = finished.unwrap_or_else(PoisonError::into_inner);
        finished.recv_timeout(patience) != Err(RecvTimeoutError::Timeout)
    }
}

/// Decides about traces and takes the requests of those that have ended.
#[derive(Clone, Debug, Default)]
pub struct Tracer {
    shared: Option<Arc<Shared>>,
    watch: Arc<Watch>,
}

impl Tracer {
    /// Whether anything at all may be wanted of a request.
    pub fn is_wanted(&self) -> bool {
        self.is_exporting() || self.is_watched()
    }

    /// Whether traces are sent to a collector.
    pub const fn is_exporting(&self) -> bool {
        self.shared.is_some()
    }

    /// Whether somebody watches; costs one load.
    pub fn is_watched(&self) -> bool {
        self.watch.is_on()
    }

    /// Those who want to see a request when it has ended.
    pub fn who_wants(&self, seen: &Seen<'_>) -> Vec<Arc<Watcher>> {
        self.watch.who_wants(seen)
    }

    /// Whether a request is recorded; `route` is the share that its route asks for.
    pub fn samples(&self, remote: &Remote, trace_id: u128, route: Option<Ratio>) -> bool {
        let shared = self.shared.as_ref();
        shared.is_some_and(|it| it.sampling.decide(remote, trace_id, route))
    }

    /// The forms in which backends are told.
    pub fn forms(&self) -> Forms {
        self.shared
            .as_ref()
            .map_or_else(Forms::default, |it| it.forms)
    }

    /// Shows a request that has ended to those who watch, and hands on what becomes spans where it is
    /// recorded. Never waits.
    ///
    /// `config` is the `traceparent` of the configuration that served it.
    pub fn finish(&self, active: Box<Active>, record: &Record<'_>, config: Option<&str>) {
        active.show(record);
        if let Some(shared) = self.shared.as_ref().filter(|_| active.is_exported) {
            shared.queue.push(Ended::new(record, active, config));
        }
    }
}

/// A share of all traces, by their ids, so that all who use the same share choose the same ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio(u64);

impl Ratio {
    /// From 0 for none to 1 for all; what is no number is none.
    pub fn new(share: f64) -> Self {
        // The conversion saturates.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "saturates at the bounds, as meant"
        )]
        let below = (share.clamp(0.0, 1.0) * (1_u64 << 63) as f64) as u64;
        Self(below)
    }

    fn takes(self, trace_id: u128) -> bool {
        // As the SDKs do it: the lower 63 bits.
        #[expect(clippy::cast_possible_truncation, reason = "the lower bits are meant")]
        let lower = trace_id as u64 >> 1;
        lower < self.0
    }
}

#[derive(Clone, Copy, Debug)]
struct Sampling {
    ratio: Ratio,
    parent_based: bool,
}

impl Sampling {
    fn decide(self, remote: &Remote, trace_id: u128, route: Option<Ratio>) -> bool {
        match remote.is_sampled {
            Some(decided) if self.parent_based => decided,
            _ => route.unwrap_or(self.ratio).takes(trace_id),
        }
    }
}

/// What is kept of a request that is recorded or watched, beside what its access record keeps.
#[derive(Clone, Debug)]
pub struct Active {
    /// It becomes spans.
    pub is_exported: bool,
    /// Who wants to see it.
    pub watchers: Vec<Arc<Watcher>>,
    /// What was noted for them.
    pub steps: Vec<Step>,
    /// The trace's id.
    pub trace_id: u128,
    /// The id of the request's own span.
    pub span_id: u64,
    /// The span that sent it.
    pub parent: Option<u64>,
    /// `tracestate` as it came, if it belongs to the trace.
    pub state: String,
    /// In which forms backends are told.
    pub forms: Forms,
    /// The part of the path that the rule asks for.
    pub http_route: Option<String>,
    /// Its attempts so far, the last one perhaps not ended.
    pub attempts: Vec<Attempt>,
}

/// One try at one endpoint. Times count from the request's beginning.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The id of its span, which the endpoint is told as its parent.
    pub span_id: u64,
    /// When it began.
    pub began: Duration,
    /// When it ended; absent for with the request.
    pub ended: Option<Duration>,
    /// Where it went.
    pub endpoint: Option<SocketAddr>,
    /// The endpoint is spoken to by TLS.
    pub is_tls: bool,
    /// The status of its answer, 0 for none.
    pub status: u16,
    /// Why it failed.
    pub failure: Option<Reason>,
    /// The language model that it asked, if it was a call to one.
    pub model: Option<Box<AskedModel>>,
}

/// A language model that an attempt asked; each may go to another provider.
#[derive(Clone, Debug)]
pub struct AskedModel {
    /// OpenTelemetry's name of what was asked.
    pub operation: &'static str,
    /// Whose API it is.
    pub provider: String,
    /// The model's name there.
    pub name: String,
    /// Host and port of the provider.
    pub server: String,
    /// Path and query there.
    pub path: String,
}

#[cfg(test)]
mod tests;
