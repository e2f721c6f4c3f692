//! Whether there is room for one more request: in memory, process, listener and route.
//!
//! Comes behind the route, so that who was turned away is counted where it belongs. Whoever is let
//! in holds its [`Places`] until the end of the response; limits that are off cost nothing.

use dataplane_resilience::admission::{OwnedPlace, Place};
use dataplane_telemetry::Reason;
use dataplane_telemetry::metrics::{OverloadScope, RequestInFlight};

use crate::context::Context;
use crate::reply::Reply;
use crate::worker::Worker;

/// What a request occupies while it runs.
#[must_use = "the places are given back when this is dropped"]
pub(crate) struct Places<'a> {
    _running: Option<RequestInFlight<'a>>,
    _global: Option<Place<'a>>,
    _listener: Option<OwnedPlace>,
    _route: Option<OwnedPlace>,
}

/// Lets the request in, or says what it is answered.
pub(crate) fn enter<'a>(worker: &'a Worker, ctx: &Context<'a>) -> Result<Places<'a>, Box<Reply>> {
    let overload = &worker.overload;
    let limits = &worker.settings.inflight;
    let refuse = |scope| {
        overload.metrics.rejected(scope);
        Box::new(Reply::new(Reason::Overload))
    };
    if overload.is_shedding() {
        return Err(refuse(OverloadScope::Memory));
    }
    let mut places = Places {
        _running: None,
        _global: None,
        _listener: None,
        _route: None,
    };
    if let Some(limit) = limits.global {
        let place = overload.global().enter(Some(limit));
        places._global = Some(place.ok_or_else(|| refuse(OverloadScope::Global))?);
    }
    if let (Some(limit), Some(listener)) = (limits.listener, ctx.listener) {
        let name = &listener.listener.name;
        let place = worker.inflight.enter_listener(overload, name, limit);
        places._listener = Some(place.ok_or_else(|| refuse(OverloadScope::Listener))?);
    }
    if let (Some(limit), Some(rule)) = (limits.route, ctx.rule) {
        let place = worker.inflight.enter_route(overload, &rule.route, limit);
        places._route = Some(place.ok_or_else(|| refuse(OverloadScope::Route))?);
    }
    places._running = ctx.listener.map(|it| it.unrouted.request_started());
    Ok(places)
}
