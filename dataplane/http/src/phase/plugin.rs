//! Plugins on heads: of requests at listener, rule and cluster, and of responses in reverse order.
//!
//! A listener's plugins come before the rule is looked up, so what they change decides it. Bodies go
//! through the same plugins later, by `plugins::BodyLine`. What a plugin did to a path is brought into the
//! normal form again by the path phase, which the line calls behind this one.

use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, header};

use dataplane_telemetry::Reason;
use dataplane_wasm::{Direction, Stream, Verdict};

use crate::arrival::Arrival;
use crate::context::Context;
use crate::downstream::ClientError;
use crate::h1::{BodyLength, Frame};
use crate::message::{Request, Response};
use crate::phase::Step;
use crate::plugins::{self, Places, Running};
use crate::reply::Reply;
use crate::worker::Worker;

/// Whose plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Listener,
    Rule,
    Cluster,
}

/// The plugins of that place; most have none.
pub(crate) fn names<'c>(ctx: &Context<'c>, place: Place) -> &'c [Arc<str>] {
    let names = match place {
        Place::Listener => ctx.listener.map(|it| &*it.listener.plugins),
        Place::Rule => ctx.rule.map(|it| &*it.plugins),
        Place::Cluster => ctx.cluster.map(|it| &*it.plugins),
    };
    names.unwrap_or_default()
}

/// Shows the head of a request to the plugins of that place.
pub(crate) async fn on_request(
    worker: &Worker,
    arrival: &Arrival,
    ctx: &mut Context<'_>,
    request: &mut Request,
    place: Place,
) -> Step {
    let mut running = match ctx.plugins.take() {
        Some(running) => running,
        None => {
            let scheme = ctx.scheme(arrival).as_str();
            let running = Running::new(ctx.client, ctx.started, arrival, scheme, request);
            Box::new(running)
        }
    };
    running.facts.note(places(ctx));
    let mut head = plugins::request_head(request, running.scheme);
    let mut reply = None;
    for configured in ctx.config.plugins_in_order(names(ctx, place)) {
        let facts = running.facts.clone();
        let stream = Rc::new(Stream::new(&worker.instances, &configured.plugin, facts));
        running.streams.push(stream.clone());
        let said = stream
            .head(Direction::Request, &mut head, request.body.is_empty())
            .await;
        reply = match said {
            Ok(Verdict::Continue) => continue,
            Ok(Verdict::Respond(local)) => Some(plugins::answer(local, running.facts.is_grpc)),
            Err(failed) => Some(plugins::failure(failed)),
        };
        break;
    }
    let is_taken = plugins::take_request(request, head).is_some();
    ctx.plugins = Some(running);
    match reply {
        Some(reply) => Step::reply(reply),
        None if is_taken => Step::Continue,
        None => Step::reply(Reply::new(Reason::PluginFailed)),
    }
}

/// Where the request goes, as far as that is known.
fn places(ctx: &Context<'_>) -> Places {
    Places {
        listener: ctx.listener.map(|it| it.listener.name.clone()),
        route: ctx.rule.map(|rule| rule.route.clone()),
        cluster: ctx.cluster.map(|it| it.cluster.key().clone()),
        upstream: ctx.endpoint.as_ref().map(|it| it.address()),
    }
}

/// Shows the head of a response to all plugins that the request met, the last one first; only once.
pub(crate) async fn on_response(
    ctx: &Context<'_>,
    request: &Request,
    response: &mut Response,
) -> Result<(), ClientError> {
    let Some(running) = &ctx.plugins else {
        return Ok(());
    };
    let wanting = running.streams.iter().rev();
    let wanting: Vec<_> = wanting.filter(|stream| stream.wants_response()).collect();
    if running.saw_response.replace(true) || wanting.is_empty() {
        return Ok(());
    }
    running.facts.note(places(ctx));
    running.request_sent(request);
    let ends = response.body.is_empty();
    let mut head = plugins::response_head(response);
    let answered = |reply: Reply| Err(ClientError::Answered(Box::new(reply)));
    for stream in wanting {
        match stream.head(Direction::Response, &mut head, ends).await {
            Ok(Verdict::Continue) => {}
            Ok(Verdict::Respond(local)) => {
                return answered(plugins::answer(local, running.facts.is_grpc));
            }
            Err(failed) => return answered(plugins::failure(failed)),
        }
    }
    match plugins::take_response(response, head) {
        Some(()) => Ok(()),
        None => answered(Reply::new(Reason::PluginFailed)),
    }
}

/// The request goes on: its plugins may read its head as long as it lasts.
pub(crate) fn request_sent(ctx: &Context<'_>, request: &Request) {
    if let Some(running) = ctx.plugins.as_deref() {
        running.request_sent(request);
    }
}

/// The head of a response goes out, as plugins may read it from now on.
pub(crate) fn response_sent(ctx: &Context<'_>, response: &Response) {
    if let Some(running) = ctx.plugins.as_deref() {
        running.response_sent(response);
    }
}

/// The trailers of a response go out.
pub(crate) fn trailers_sent(ctx: &Context<'_>, trailers: &HeaderMap) {
    if let Some(running) = ctx.plugins.as_deref() {
        running.trailers_sent(trailers);
    }
}

/// Tells plugins how the request ended, before they are called for that.
pub(crate) fn ended(ctx: &Context<'_>, request: &Request, received: u64, sent: u64) {
    if let Some(running) = ctx.plugins.as_deref() {
        running.facts.note(places(ctx));
        running
            .facts
            .ended(ctx.reason, ctx.grpc_status, received, sent);
        running.request_sent(request);
    }
}

/// Shows a response that is at hand whole: an answer of our own, or that of an AI service. One that takes
/// the place of what plugins saw before passes as it is.
pub(crate) async fn on_whole_response(
    ctx: &Context<'_>,
    request: &Request,
    response: &mut Response,
    body: &mut Bytes,
) -> Result<(), ClientError> {
    let Some(running) = ctx.plugins.as_deref() else {
        return Ok(());
    };
    if running.saw_response.get() {
        return Ok(());
    }
    on_response(ctx, request, response).await?;
    if response.body == BodyLength::None {
        return Ok(());
    }
    if let Some(mut line) = running
        .body(Direction::Response)
        .filter(|_| !body.is_empty())
    {
        running.response_sent(response);
        let mut passed = BytesMut::new();
        for frame in [Frame::Data(std::mem::take(body)), Frame::End] {
            for frame in line.pass(frame).await? {
                if let Frame::Data(data) = frame {
                    passed.extend_from_slice(&data);
                }
            }
        }
        *body = passed.freeze();
    }
    // Whatever became of it, its length is known.
    let length = body.len() as u64;
    response.body = BodyLength::Length(length);
    response.declared = response.body;
    let length = HeaderValue::from(length);
    response.headers.insert(header::CONTENT_LENGTH, length);
    Ok(())
}
