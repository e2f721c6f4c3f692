//! Requests that plugins make: to clusters of this configuration, the same way as clients' requests.
//!
//! Whether a plugin may call a cluster at all was decided in `dataplane/wasm`; here the request is made fit
//! to be sent, and the answer fit to be read by a guest.

use std::rc::{Rc, Weak};
use std::sync::Arc;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use dataplane_config::Store;
use dataplane_route::table::RouteKind;
use dataplane_telemetry::access_log::Writer;
use dataplane_telemetry::metrics::Metrics;
use dataplane_telemetry::trace::Tracer;
use dataplane_wasm::callout::{
    Calling, Callout, GrpcCall, GrpcMessage, GrpcPart, GrpcRunning, HttpAnswer, HttpCall,
};

use crate::call::{self, Body, Message, Wanted, Way};
use crate::h1::{Authority, strip_hop_by_hop};
use crate::overload::Overload;
use crate::plugin_grpc::{self, fields};
use crate::settings::Settings;
use crate::worker::Worker;

/// A worker whose plugins may send requests.
pub fn worker(
    store: &Store,
    settings: Arc<Settings>,
    log: (Writer, Tracer),
    overload: Overload,
    metrics: Arc<Metrics>,
) -> Rc<Worker> {
    Rc::new_cyclic(|worker| {
        let caller = Rc::new(Caller {
            worker: worker.clone(),
        });
        Worker::new(store, settings, log, overload, metrics, caller)
    })
}

/// Carries calls of the plugins of one worker.
struct Caller {
    worker: Weak<Worker>,
}

impl Callout for Caller {
    fn knows(&self, cluster: &str) -> bool {
        let worker = self.worker.upgrade();
        worker.is_some_and(|worker| worker.config().clusters.contains_key(cluster))
    }

    fn grpc(
        &self,
        call: GrpcCall,
        messages: mpsc::Receiver<GrpcMessage>,
        parts: mpsc::Sender<GrpcPart>,
    ) -> GrpcRunning {
        let worker = self.worker.clone();
        Box::pin(async move {
            match worker.upgrade() {
                Some(worker) => plugin_grpc::run(&worker, call, messages, parts).await,
                None => plugin_grpc::ended(plugin_grpc::UNAVAILABLE, "the gateway ends"),
            }
        })
    }

    fn call(&self, call: HttpCall) -> Calling {
        let worker = self.worker.clone();
        Box::pin(async move {
            let worker = worker.upgrade()?;
            let limit = call.timeout;
            let answer = timeout(limit, send(&worker, call)).await;
            answer.ok().flatten()
        })
    }
}

async fn send(worker: &Worker, call: HttpCall) -> Option<HttpAnswer> {
    let message = message(&call)?;
    let way = {
        let config = worker.config();
        let cluster = config.clusters.get(&*call.cluster)?;
        let now = Instant::now().into_std();
        Way::choose(cluster, RouteKind::Http, None, worker, now).ok()?
    };
    let wanted = Wanted {
        idle: call.timeout,
        body_bytes_max: worker.settings.plugin_answer_bytes_max,
        keeps_body: true,
    };
    let answer = call::send(worker, &way, &message, Body::Whole(call.body), wanted).await;
    let answer = answer.ok().filter(|answer| answer.is_whole)?;
    let mut head = vec![(
        b":status".to_vec(),
        answer.status.as_str().as_bytes().to_vec(),
    )];
    head.extend(fields(&answer.headers));
    Some(HttpAnswer {
        head,
        body: answer.body,
        trailers: answer.trailers.as_ref().map(fields).unwrap_or_default(),
    })
}

/// The request; nothing when it cannot be sent as it is.
fn message(call: &HttpCall) -> Option<Message> {
    let mut headers = HeaderMap::new();
    let mut pseudo = [None, None, None];
    for (name, value) in &call.head {
        match &name[..] {
            b":method" => pseudo[0] = Some(value),
            b":path" => pseudo[1] = Some(value),
            b":authority" => pseudo[2] = Some(value),
            b":scheme" => {}
            name => {
                let name = HeaderName::from_bytes(name).ok()?;
                headers.append(name, HeaderValue::from_bytes(value).ok()?);
            }
        }
    }
    let [Some(method), Some(path), Some(authority)] = pseudo else {
        return None;
    };
    strip_hop_by_hop(&mut headers);
    headers.remove(header::HOST);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(call.body.len()));
    let method = Method::from_bytes(method).ok()?;
    let target = PathAndQuery::try_from(&path[..]).ok()?;
    if method == Method::CONNECT || !target.path().starts_with('/') {
        return None;
    }
    Some(Message {
        is_repeatable: method.is_idempotent(),
        method,
        authority: Authority::parse(Bytes::copy_from_slice(authority)).ok()?,
        target,
        headers,
        takes_trailers: false,
    })
}
