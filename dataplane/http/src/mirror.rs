//! Copies of requests that go to a second backend, whose answer nobody waits for.
//!
//! The filter phase notes a [`Copy`] with the head as it then is; the line starts those of a request
//! that really is forwarded, each as a task of this worker that shares nothing with the request but
//! a [`pipe`](crate::pipe) for the body. A mirror that is slow, gone or one too many is dropped and
//! counted. When the process stops, mirrors are cut.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, header};

use dataplane_telemetry::metrics::{MirrorResult, RouteMetrics};

use crate::call::{self, Body, CallError, Message, Wanted, Way};
use crate::downstream::RequestBody;
use crate::h1::BodyLength;
use crate::message::Request;
use crate::pipe::{Lost, Writer, pipe};
use crate::worker::Worker;

/// A request that shall be copied, as it was when the filter met it.
#[derive(Debug)]
pub(crate) struct Copy {
    way: Way,
    message: Message,
}

impl Copy {
    /// Takes down the head.
    pub(crate) fn new(way: Way, request: &Request) -> Self {
        let mut headers: HeaderMap = request.headers.clone();
        // Nobody passes the answer on for which the client would wait.
        headers.remove(header::EXPECT);
        let message = Message {
            method: request.method.clone(),
            authority: request.authority.clone(),
            target: request.target.clone(),
            headers,
            takes_trailers: request.takes_trailers,
            is_repeatable: matches!(request.method, Method::GET | Method::HEAD | Method::OPTIONS),
        };
        Self { way, message }
    }
}

/// Starts the copies and has the body written to each.
pub(crate) fn start(
    worker: &Rc<Worker>,
    copies: Vec<Copy>,
    length: BodyLength,
    body: &mut RequestBody<'_>,
    metrics: &Arc<RouteMetrics>,
) {
    let mut writers: Vec<Writer> = Vec::with_capacity(copies.len());
    for copy in copies {
        let Some(permit) = worker.settings.mirrors.enter() else {
            metrics.mirrored(MirrorResult::Concurrency);
            continue;
        };
        let (writer, reader) = pipe(worker.settings.mirror_buffer_bytes);
        writers.push(writer);
        let worker = Rc::clone(worker);
        let metrics = Arc::clone(metrics);
        tokio::task::spawn_local(async move {
            let idle = worker.settings.mirror_timeout;
            let body = Body::Copied(reader, length);
            metrics.mirrored(run(&worker, &copy, body, idle).await);
            drop(permit);
        });
    }
    body.copy_to(writers);
}

async fn run(worker: &Worker, copy: &Copy, body: Body, idle: Duration) -> MirrorResult {
    let wanted = Wanted {
        idle,
        body_bytes_max: worker.settings.mirror_answer_bytes_max,
        keeps_body: false,
    };
    match call::send(worker, &copy.way, &copy.message, body, wanted).await {
        Ok(_) => MirrorResult::Sent,
        Err(CallError::Failed(_)) => MirrorResult::Failed,
        Err(CallError::Timeout) => MirrorResult::Timeout,
        Err(CallError::Lost(Lost::Slow)) => MirrorResult::Slow,
        Err(CallError::Lost(Lost::Aborted)) => MirrorResult::Aborted,
    }
}
