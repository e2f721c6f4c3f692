//! The threads that serve traffic: one runtime each, sharing nothing but atomics.
//!
//! Each thread has its own sockets on every address (`SO_REUSEPORT`), its own pool of backend
//! connections and its own log buffer, so that a request never crosses threads. Started by `app`;
//! told by `listener` which sockets to serve.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use dataplane_config::Store;
use dataplane_http as http;
use dataplane_stream::udp;
use dataplane_telemetry::access_log::AccessLog;
use dataplane_telemetry::metrics::Metrics;
use dataplane_telemetry::trace::Tracing;

use super::accept::{self, Socket};
use crate::ebb;

/// Sockets that may wait to be taken over by one worker; more would mean that it hangs.
const QUEUE: usize = 1024;
/// How often a worker tends its pool and its log.
const TEND_INTERVAL: Duration = Duration::from_secs(1);

/// The worker threads.
#[derive(Debug)]
pub struct Workers {
    /// Limits and deadlines of streams.
    pub streams: Arc<dataplane_stream::Settings>,
    queues: Vec<mpsc::Sender<Order>>,
    threads: Vec<thread::JoinHandle<()>>,
}

/// What a worker is told.
#[derive(Debug)]
struct Order {
    work: Work,
    /// Answered once connections are accepted.
    accepting: oneshot::Sender<()>,
}

/// A socket to be served.
#[derive(Debug)]
pub enum Work {
    /// One that is listened on.
    Connections(Socket),
    /// One for datagrams.
    Datagrams(udp::Socket),
}

/// What all workers share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The current configuration.
    pub store: Arc<Store>,
    /// Limits and deadlines of HTTP.
    pub http: Arc<http::Settings>,
    /// Limits and deadlines of streams.
    pub streams: Arc<dataplane_stream::Settings>,
    /// Where access records go.
    pub access_log: AccessLog,
    /// Traces.
    pub tracing: Tracing,
    /// Where faults are counted.
    pub metrics: Arc<Metrics>,
    /// Limits of connections.
    pub limits: accept::Limits,
    /// Limits of requests, and how pressed the process is.
    pub overload: http::Overload,
}

impl Workers {
    /// Starts `count` threads.
    pub fn start(count: usize, shared: &Shared) -> io::Result<Self> {
        let mut workers = Self {
            streams: shared.streams.clone(),
            queues: Vec::new(),
            threads: Vec::new(),
        };
        for number in 0..count.max(1) {
            let (sender, receiver) = mpsc::channel(QUEUE);
            let shared = shared.clone();
            let thread = thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || run(number, shared, receiver))?;
            workers.queues.push(sender);
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// How many threads there are.
    pub fn count(&self) -> usize {
        self.queues.len()
    }

    /// Gives one socket to each worker and returns once all of them accept.
    pub async fn serve(&self, sockets: Vec<Work>) {
        let mut answers = Vec::new();
        for (queue, work) in self.queues.iter().zip(sockets) {
            let (accepting, answer) = oneshot::channel();
            if queue.send(Order { work, accepting }).await.is_ok() {
                answers.push(answer);
            }
        }
        for answer in answers {
            // A worker that is gone has said so in the log; the others serve on.
            let _ = answer.await;
        }
    }

    /// Ends the threads behind what they are doing; to be called when no connection is left.
    pub fn join(self) {
        drop(self.queues);
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

fn run(number: usize, shared: Shared, mut orders: mpsc::Receiver<Order>) {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, number, "a worker could not start, check the limits of files");
            return;
        }
    };
    let name = format!("worker-{number}");
    let process = &shared.metrics.process;
    process.thread_serves(&name, runtime.metrics());
    shared.metrics.inventory.http_workers.add(1);
    let worker = http::plugin_call::worker(
        &shared.store,
        shared.http.clone(),
        (shared.access_log.writer(), shared.tracing.tracer()),
        shared.overload.clone(),
        shared.metrics.clone(),
    );
    let idle = worker.clone();
    let streams = Rc::new(dataplane_stream::Worker::new(
        &shared.store,
        shared.streams.clone(),
        shared.access_log.writer(),
        shared.metrics.overload.clone(),
        Box::new(move || idle.let_go()),
    ));
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let mut tend = tokio::time::interval(TEND_INTERVAL);
        loop {
            tokio::select! {
                order = orders.recv() => {
                    let Some(Order { work, accepting }) = order else { break };
                    begin(work, &worker, &streams, &shared.limits);
                    let _ = accepting.send(());
                }
                _ = tend.tick() => {
                    worker.tend();
                    streams.tend();
                    ebb::tend();
                }
            }
        }
    });
    worker.tend();
    streams.tend();
    shared.metrics.inventory.http_workers.add(-1);
}

/// Serves a socket in a task of its own.
fn begin(
    work: Work,
    worker: &Rc<http::Worker>,
    streams: &Rc<dataplane_stream::Worker>,
    limits: &accept::Limits,
) {
    let streams = streams.clone();
    match work {
        Work::Connections(socket) => {
            let accept = accept::run(socket, worker.clone(), streams, limits.clone());
            drop(tokio::task::spawn_local(accept));
        }
        Work::Datagrams(socket) => {
            let serve = udp::serve(streams, socket, limits.datagrams.clone());
            drop(tokio::task::spawn_local(serve));
        }
    }
}
