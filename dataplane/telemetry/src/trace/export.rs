//! The queue of spans and the thread that sends them.
//!
//! Workers push and never wait. The thread gathers a batch, at most for a moment, and gives it to
//! the exporter of the SDK, which may take no longer than its time limit. A collector that is gone or
//! hangs loses the batch at hand; what piles up behind it is bounded, and all losses are counted.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::sync::Notify;
use tokio::sync::mpsc as channel;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{info, warn};

use crate::metrics::TraceMetrics;
use crate::otlp::Collector;

/// Spans of one batch.
const BATCH_SPANS: usize = 512;

/// How long a batch is gathered.
const GATHER_TIME: Duration = Duration::from_secs(1);

/// Where workers leave spans.
#[derive(Debug)]
pub(super) struct Queue {
    sender: channel::Sender<Vec<SpanData>>,
    spans_max: usize,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Spans that wait.
    waiting: AtomicUsize,
    counts: Arc<TraceMetrics>,
    stop: Notify,
}

impl Queue {
    /// Hands on the spans of one request, or drops them.
    pub(super) fn push(&self, spans: Vec<SpanData>) {
        let count = spans.len();
        let Shared {
            waiting, counts, ..
        } = &*self.shared;
        let before = waiting.fetch_add(count, Ordering::Relaxed);
        if before + count > self.spans_max || self.sender.try_send(spans).is_err() {
            waiting.fetch_sub(count, Ordering::Relaxed);
            counts.dropped_spans.add(count as u64);
        }
    }

    /// Asks the thread to send what waits and to end.
    pub(super) fn stop(&self) {
        self.shared.stop.notify_one();
    }
}

/// Starts the thread; what is given back besides the queue closes when it ends.
pub(super) fn start(
    collector: Collector,
    spans_max: usize,
    counts: Arc<TraceMetrics>,
) -> io::Result<(Queue, Receiver<()>)> {
    let (sender, spans) = channel::channel(spans_max.max(1));
    let shared = Arc::new(Shared {
        waiting: AtomicUsize::new(0),
        counts,
        stop: Notify::new(),
    });
    let (finishes, finished) = mpsc::sync_channel(0);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let thread = std::thread::Builder::new().name("traces".to_owned());
    thread.spawn({
        let shared = Arc::clone(&shared);
        move || {
            runtime.block_on(run(collector, spans, &shared));
            drop(finishes);
        }
    })?;
    let queue = Queue {
        sender,
        spans_max,
        shared,
    };
    Ok((queue, finished))
}

async fn run(collector: Collector, mut spans: channel::Receiver<Vec<SpanData>>, shared: &Shared) {
    let mut exporter = match collector.spans() {
        Ok(exporter) => Some(exporter),
        Err(error) => {
            warn!(%error, "no traces are sent; check endpoint and caPath of log.openTelemetry");
            None
        }
    };
    if let Some(exporter) = &mut exporter {
        exporter.set_resource(&collector.resource());
    }
    let mut sender = Sender {
        exporter,
        collector,
        shared,
        is_faulty: false,
    };
    loop {
        let (batch, is_last) = gather(&mut spans, shared).await;
        if !batch.is_empty() {
            sender.send(batch).await;
        }
        if is_last {
            break;
        }
    }
    spans.close();
    loop {
        let mut batch = Vec::new();
        while batch.len() < BATCH_SPANS
            && let Ok(more) = spans.try_recv()
        {
            batch.extend(more);
        }
        if batch.is_empty() {
            return;
        }
        sender.send(batch).await;
    }
}

/// Waits for spans; true when the end is asked for.
async fn gather(
    spans: &mut channel::Receiver<Vec<SpanData>>,
    shared: &Shared,
) -> (Vec<SpanData>, bool) {
    let mut batch = Vec::new();
    let mut until = None;
    while batch.len() < BATCH_SPANS {
        let due = until.unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400));
        tokio::select! {
            () = shared.stop.notified() => return (batch, true),
            received = timeout_at(due, spans.recv()) => match received {
                Ok(Some(more)) => {
                    batch.extend(more);
                    until.get_or_insert_with(|| Instant::now() + GATHER_TIME);
                }
                Ok(None) => return (batch, true),
                Err(_) => break,
            },
        }
    }
    (batch, false)
}

struct Sender<'a> {
    /// Absent when there can be none, which was told.
    exporter: Option<SpanExporter>,
    collector: Collector,
    shared: &'a Shared,
    /// Whether the last thing told was a fault, so that each change is told once.
    is_faulty: bool,
}

impl Sender<'_> {
    async fn send(&mut self, batch: Vec<SpanData>) {
        let count = batch.len();
        let Shared {
            waiting, counts, ..
        } = self.shared;
        let Some(exporter) = &self.exporter else {
            waiting.fetch_sub(count, Ordering::Relaxed);
            counts.dropped_spans.add(count as u64);
            return;
        };
        // The exporter keeps to its limit itself, but for what happens before it begins.
        let patience = self.collector.timeout + Duration::from_secs(1);
        let sent = timeout(patience, exporter.export(batch)).await;
        waiting.fetch_sub(count, Ordering::Relaxed);
        let fault = match sent {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("no answer in time".to_owned()),
        };
        match fault {
            None => {
                counts.exported_spans.add(count as u64);
                if self.is_faulty {
                    self.is_faulty = false;
                    info!(endpoint = self.collector.endpoint, "traces are sent again");
                }
            }
            Some(error) => {
                counts.dropped_spans.add(count as u64);
                counts.export_failures.increment();
                if !self.is_faulty {
                    self.is_faulty = true;
                    warn!(
                        endpoint = self.collector.endpoint,
                        error,
                        "traces are being dropped; check that the collector takes OTLP there"
                    );
                }
            }
        }
    }
}
