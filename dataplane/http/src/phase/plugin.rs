//! Plugins on heads: of requests at listener, rule and cluster, and of responses in reverse order.
//!
//! A listener's plugins come before the rule is looked up, so what they change decides it. Bodies go
//! through the same plugins later, by `plugins::BodyLine`. What a plugin did to a path is brought into the
//! normal form again by the path phase, which the line calls behind this one.

use std::rc::Rc;
use std::sync::Arc;

use dataplane_telemetry::Reason;
use dataplane_wasm::{Direction, Stream, Verdict};

use crate::arrival::Arrival;
use crate::context::Context;
use crate::downstream::ClientError;
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
            Ok(Verdict::Respond(local)) => Some(plugins::answer(local, request.is_grpc())),
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

/// Shows the head of a response to all plugins that the request met, the last one first.
pub(crate) async fn on_response(
    ctx: &Context<'_>,
    request: &mut Request,
    response: &mut Response,
) -> Result<(), ClientError> {
    let Some(running) = &ctx.plugins else {
        return Ok(());
    };
    let wanting = running.streams.iter().rev();
    let wanting: Vec<_> = wanting.filter(|stream| stream.wants_response()).collect();
    if wanting.is_empty() {
        return Ok(());
    }
    running.facts.note(places(ctx));
    let sent = Rc::new(plugins::sent_head(request, running.scheme));
    let ends = response.body.is_empty();
    let mut head = plugins::response_head(response);
    let answered = |reply: Reply| Err(ClientError::Answered(Box::new(reply)));
    for stream in wanting {
        stream.sent(&sent);
        match stream.head(Direction::Response, &mut head, ends).await {
            Ok(Verdict::Continue) => {}
            Ok(Verdict::Respond(local)) => {
                return answered(plugins::answer(local, request.is_grpc()));
            }
            Err(failed) => return answered(plugins::failure(failed)),
        }
    }
    match plugins::take_response(response, head) {
        Some(()) => Ok(()),
        None => answered(Reply::new(Reason::PluginFailed)),
    }
}
