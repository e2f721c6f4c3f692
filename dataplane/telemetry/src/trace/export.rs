//! The queue of requests that have ended and the thread that makes spans of them and sends those.
//!
//! Workers push and never wait. The thread sleeps for a moment from the first span on, or until there
//! are enough for a batch: to wake it for each request costs more than what is noted of one. A batch
//! goes to the exporter of the SDK, which may take no longer than its time limit. A collector that is
//! gone or hangs loses the batch at hand; what piles up behind it is bounded, and all losses are
//! counted.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::sync::Notify;
use tokio::sync::mpsc as channel;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::ended::Ended;
use crate::metrics::TraceMetrics;
use crate::otlp::Collector;

/// Spans of one batch.
const BATCH_SPANS: usize = 512;

/// How long a batch is gathered.
const GATHER_TIME: Duration = Duration::from_secs(1);

/// Where workers leave what becomes spans.
#[derive(Debug)]
pub(super) struct Queue {
    sender: channel::Sender<Box<Ended>>,
    spans_max: usize,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Spans that wait, and those that are being sent.
    waiting: AtomicUsize,
    /// So many that wait are sent at once.
    enough: usize,
    /// There are enough.
    filled: Notify,
    counts: Arc<TraceMetrics>,
    stop: Notify,
}

impl Queue {
    /// A queue of at most so many spans, and its other end.
    fn new(spans_max: usize, counts: Arc<TraceMetrics>) -> (Self, channel::Receiver<Box<Ended>>) {
        let (sender, ended) = channel::channel(spans_max.max(1));
        let shared = Arc::new(Shared {
            waiting: AtomicUsize::new(0),
            // Half a queue is enough, so that the other half takes what comes until it is sent.
            enough: BATCH_SPANS.min(spans_max / 2),
            filled: Notify::new(),
            counts,
            stop: Notify::new(),
        });
        let queue = Self {
            sender,
            spans_max,
            shared,
        };
        (queue, ended)
    }

    /// Hands on a request, or drops it.
    pub(super) fn push(&self, ended: Ended) {
        let count = ended.span_count();
        let Shared {
            waiting, counts, ..
        } = &*self.shared;
        let before = waiting.fetch_add(count, Ordering::Relaxed);
        if before + count > self.spans_max || self.sender.try_send(Box::new(ended)).is_err() {
            waiting.fetch_sub(count, Ordering::Relaxed);
            counts.dropped_spans.add(count as u64);
        } else if before < self.shared.enough && before + count >= self.shared.enough {
            self.shared.filled.notify_one();
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
    let (queue, ended) = Queue::new(spans_max, counts);
    let (finishes, finished) = mpsc::sync_channel(0);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let thread = std::thread::Builder::new().name("traces".to_owned());
    thread.spawn({
        let shared = Arc::clone(&queue.shared);
        move || {
            runtime.block_on(run(collector, ended, &shared));
            drop(finishes);
        }
    })?;
    Ok((queue, finished))
}

async fn run(collector: Collector, mut ended: channel::Receiver<Box<Ended>>, shared: &Shared) {
    let scope = InstrumentationScope::builder("nantian-gateway")
        .with_version(env!("CARGO_PKG_VERSION"))
        .build();
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
        let (batch, is_last) = gather(&mut ended, &scope, shared, GATHER_TIME).await;
        if !batch.is_empty() {
            sender.send(batch).await;
        }
        if is_last {
            break;
        }
    }
    ended.close();
    loop {
        let mut batch = Vec::new();
        take(&mut ended, &scope, &mut batch);
        if batch.is_empty() {
            return;
        }
        sender.send(batch).await;
    }
}

/// Waits for the first request, and then for so long or until there are enough for a batch; true when the
/// end is asked for.
async fn gather(
    ended: &mut channel::Receiver<Box<Ended>>,
    scope: &InstrumentationScope,
    shared: &Shared,
    time: Duration,
) -> (Vec<SpanData>, bool) {
    let mut batch = tokio::select! {
        () = shared.stop.notified() => return (Vec::new(), true),
        first = ended.recv() => match first {
            Some(first) => first.spans(scope),
            None => return (Vec::new(), true),
        },
    };
    let mut is_last = false;
    // While a batch was sent there may have come enough for another.
    if shared.waiting.load(Ordering::Relaxed) < shared.enough {
        tokio::select! {
            () = shared.stop.notified() => is_last = true,
            () = shared.filled.notified() => {}
            () = sleep(time) => {}
        }
    }
    take(ended, scope, &mut batch);
    (batch, is_last)
}

/// Fills a batch with what waits.
fn take(
    ended: &mut channel::Receiver<Box<Ended>>,
    scope: &InstrumentationScope,
    batch: &mut Vec<SpanData>,
) {
    while batch.len() < BATCH_SPANS
        && let Ok(more) = ended.try_recv()
    {
        batch.extend(more.spans(scope));
    }
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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::trace::tests;

    fn push(queue: &Queue, count: usize) {
        for _ in 0..count {
            let ended = Ended::new(&tests::record(), Box::new(tests::active()), None);
            assert_eq!(ended.span_count(), 1);
            queue.push(ended);
        }
    }

    fn gathered(
        queue: &Queue,
        ended: &mut channel::Receiver<Box<Ended>>,
        time: Duration,
    ) -> (usize, bool) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let (batch, is_last) = runtime.block_on(async {
            let scope = InstrumentationScope::default();
            gather(ended, &scope, &queue.shared, time).await
        });
        (batch.len(), is_last)
    }

    #[test]
    fn a_batch_is_gathered_until_it_is_enough_or_for_a_time() {
        const HOUR: Duration = Duration::from_secs(3600);
        let (queue, mut ended) = Queue::new(8 * BATCH_SPANS, Arc::default());
        let queue = Arc::new(queue);
        let began = Instant::now();
        let pushing = std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || push(&queue, BATCH_SPANS)
        });
        assert_eq!(gathered(&queue, &mut ended, HOUR), (BATCH_SPANS, false));
        pushing.join().unwrap();
        // What came while that was sent is enough for the next one.
        push(&queue, BATCH_SPANS + 3);
        queue
            .shared
            .waiting
            .fetch_sub(BATCH_SPANS, Ordering::Relaxed);
        assert_eq!(gathered(&queue, &mut ended, HOUR), (BATCH_SPANS, false));
        queue
            .shared
            .waiting
            .fetch_sub(BATCH_SPANS, Ordering::Relaxed);
        assert!(began.elapsed() < HOUR);
        let moment = Duration::from_millis(20);
        assert_eq!(gathered(&queue, &mut ended, moment), (3, false));
        push(&queue, 1);
        queue.stop();
        assert!(gathered(&queue, &mut ended, HOUR).1);
    }
}
