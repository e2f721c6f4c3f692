//! What would become of a request, told by the phases that serve requests.
//!
//! The admin API calls [`explain`] with the head of a request as a client would send it. The head is
//! read by the codec, and listener, path, rule and addresses are the phases' own work, in the order
//! of the request line; what runs on a worker, such as limits of rate, is not asked and changes
//! nothing. Filters, backends and endpoints are for the caller to list: they stand in the rule.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use bytes::BytesMut;
use http::{Method, StatusCode};
use tokio_util::sync::CancellationToken;

use dataplane_ai::call::Operation;
use dataplane_config::{ListenerConfig, Rule, RuntimeConfig};
use dataplane_route::table::Explained;
use dataplane_telemetry::Reason;

use crate::arrival::{Arrival, Texts, TlsFacts};
use crate::context::Context;
use crate::h1::{self, HeadLimits};
use crate::message::Request;
use crate::phase::{self, Step};
use crate::reply::Reply;

/// A request that nobody sent.
#[derive(Clone, Debug)]
pub struct Question {
    arrival: Arrival,
    head: BytesMut,
}

/// What would become of it.
#[derive(Debug)]
pub struct Explanation<'c> {
    /// The listener that takes it.
    pub listener: Option<&'c ListenerConfig>,
    /// The host it is matched by; empty when the head could not be read.
    pub host: String,
    /// Its path in the form that is matched and forwarded, with the query.
    pub target: String,
    /// The rule that takes it.
    pub rule: Option<&'c Rule>,
    /// Why that rule, and why not others; absent when no rule was looked for.
    pub routes: Option<Explained<'c, Rule>>,
    /// The answer that it gets before a filter or a backend sees it.
    pub answer: Option<Answer>,
}

/// An answer of the gateway's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The outcome.
    pub reason: Reason,
    /// Its status.
    pub status: StatusCode,
    /// What is said about it.
    pub detail: String,
}

impl Question {
    /// A request of `client` to the socket `bind`, which clients know by `port`; `handshake` is the
    /// listener that its TLS handshake was made for. `head` is one of HTTP/1.1.
    pub fn new(
        client: SocketAddr,
        bind: SocketAddr,
        port: NonZeroU16,
        handshake: Option<Arc<str>>,
        head: &[u8],
    ) -> Self {
        let tls = handshake.map(|listener| TlsFacts {
            sni: None,
            listener,
            is_http2: false,
            version: "",
            client: None,
            admission: None,
        });
        Self {
            arrival: Arrival {
                client,
                bind,
                port,
                tls,
                drain: CancellationToken::new(),
                texts: Texts::default(),
            },
            head: BytesMut::from(head),
        }
    }
}

/// What would become of `question` under `config`; of matches that came close, so many are named.
pub fn explain<'c>(
    config: &'c RuntimeConfig,
    question: &'c Question,
    limits: &HeadLimits,
    others_max: usize,
) -> Explanation<'c> {
    let mut explanation = Explanation {
        listener: None,
        host: String::new(),
        target: String::new(),
        rule: None,
        routes: None,
        answer: None,
    };
    let arrival = &question.arrival;
    let mut request = match read(&question.head, limits) {
        Ok(request) => request,
        Err(answer) => {
            explanation.answer = Some(answer);
            return explanation;
        }
    };
    let mut ctx = Context::new(config, arrival);
    let found = phase::route::listener(&mut ctx, &request, arrival)
        .and_then(|| phase::path::normalise(&mut ctx, &mut request, arrival));
    explanation.listener = ctx.listener;
    explanation.host = phase::route::view(&request).host.to_owned();
    explanation.target = request.target.to_string();
    if let Step::Reply(reply) = found {
        explanation.answer = Some(answer(&reply));
        return explanation;
    }
    let found = phase::route::rule(&mut ctx, &request);
    explanation.rule = ctx.rule;
    explanation.routes = ctx.listener.map(|listener| {
        let view = phase::route::view(&request);
        listener.table.explain(&view, others_max)
    });
    let admitted = phase::access::entry(&ctx)
        .and_then(|| found)
        .and_then(|| match ctx.rule {
            Some(rule) => phase::route::admit(rule, &request),
            None => Step::Continue,
        })
        .and_then(|| phase::hops::count(&mut request));
    if let Step::Reply(reply) = admitted {
        explanation.answer = Some(answer(&reply));
    }
    explanation
}

/// What a backend that is an AI service takes a request for, by OpenTelemetry's name
/// (`gen_ai.operation.name`); else what it answers.
pub fn call(method: &str, target: &str) -> Result<&'static str, Answer> {
    let path = target.split('?').next().unwrap_or_default();
    let operation = Method::from_bytes(method.as_bytes()).ok();
    let operation = operation.and_then(|method| Operation::of(&method, path));
    operation.map(Operation::as_str).ok_or_else(|| Answer {
        detail: format!("AI services do not serve {method} at a path that ends like this"),
        ..answer(&phase::ai::not_served(path))
    })
}

/// The request, or why it would not be read.
fn read(head: &BytesMut, limits: &HeadLimits) -> Result<Request, Answer> {
    let refused = |status, detail: &str| Answer {
        reason: Reason::BadRequest,
        status,
        detail: detail.to_owned(),
    };
    let head = h1::request_head(&mut head.clone(), &mut 0, limits);
    let head = head.map_err(|error| refused(error.status(), error.detail()))?;
    let head = head.ok_or_else(|| refused(StatusCode::BAD_REQUEST, "the head has no end"))?;
    Request::from_h1(head).map_err(|refusal| refused(refusal.status, refusal.detail))
}

fn answer(reply: &Reply) -> Answer {
    let detail = String::from_utf8_lossy(&reply.body);
    Answer {
        reason: reply.reason,
        status: reply.status,
        detail: detail.trim_end().to_owned(),
    }
}
