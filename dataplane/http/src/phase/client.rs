//! Whose request it is: the client's address, the fields that tell backends of it, the request's id.
//!
//! Comes before path and rule are looked at, so that rules, filters and services see fields that can be
//! believed. What a stranger says is removed or written over; whom to believe is said by the
//! listener. How fields are read and written stands in `forwarded` and `request_id`.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use ir::listener::{ForwardedFields, RequestIds};

use crate::arrival::Arrival;
use crate::context::Context;
use crate::forwarded::{self, Chain, FOR, HOST, PORT, PROTO, Scheme};
use crate::message::Request;
use crate::request_id;
use crate::worker::Worker;

/// The client's certificate; only ever written by us.
const CERTIFICATE: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

const HTTP: HeaderValue = HeaderValue::from_static("http");
const HTTPS: HeaderValue = HeaderValue::from_static("https");

/// Notes the client in the context and brings the fields about it in order.
pub(crate) fn identify(
    ctx: &mut Context<'_>,
    request: &mut Request,
    arrival: &Arrival,
    worker: &Worker,
) {
    let Some(listener) = ctx.listener else { return };
    let clients = &*listener.clients;
    let is_trusted = clients.trusted.include(arrival.client.ip(), 0);
    remove_rare(&mut request.headers, &CERTIFICATE);
    if clients.certificate_field
        && let Some(field) = &arrival.written().certificate
    {
        request.headers.insert(CERTIFICATE, field.clone());
    }
    if is_trusted {
        let peer = arrival.client.ip();
        let chain = match clients.fields {
            ForwardedFields::Forwarded => {
                Chain::by_forwarded(peer, &clients.trusted, &request.headers)
            }
            _ => Chain::by_x_forwarded(peer, &clients.trusted, &request.headers),
        };
        ctx.client = chain.client().unwrap_or(peer);
        let scheme = chain.origin.scheme.unwrap_or_else(|| ctx.scheme(arrival));
        ctx.front = chain.origin.front(scheme);
        forward(clients.fields, request, arrival, &chain, ctx);
    } else {
        introduce(clients.fields, request, arrival, ctx.scheme(arrival));
    }
    if clients.request_ids != RequestIds::Off {
        let takes_over = is_trusted || clients.request_ids == RequestIds::Any;
        if !takes_over || !has_sound_id(&request.headers) {
            let id = worker.request_id();
            request.headers.insert(request_id::NAME, id);
        }
    }
}

fn has_sound_id(headers: &HeaderMap) -> bool {
    let mut ids = headers.get_all(request_id::NAME).iter();
    match (ids.next(), ids.next()) {
        (Some(id), None) => request_id::is_sound(id.as_bytes()),
        _ => false,
    }
}

/// The fields of a client that speaks for itself; nothing it says of itself is believed.
fn introduce(fields: ForwardedFields, request: &mut Request, arrival: &Arrival, scheme: Scheme) {
    let host = request.authority.to_header_value();
    let headers = &mut request.headers;
    if matches!(fields, ForwardedFields::XForwarded | ForwardedFields::Both) {
        let written = arrival.written();
        headers.insert(FOR, written.client.clone());
        headers.insert(PORT, written.port.clone());
        headers.insert(PROTO, if arrival.tls.is_some() { HTTPS } else { HTTP });
    } else {
        remove_x_forwarded(headers);
    }
    if matches!(fields, ForwardedFields::Forwarded | ForwardedFields::Both) {
        let client = arrival.client.ip().to_canonical();
        let element = forwarded::direct(client, scheme, &host);
        headers.insert(header::FORWARDED, element);
    } else {
        remove_rare(headers, &header::FORWARDED);
    }
    if matches!(fields, ForwardedFields::XForwarded | ForwardedFields::Both) {
        headers.insert(HOST, host);
    }
}

/// The fields of a client that a trusted proxy speaks for.
fn forward(
    fields: ForwardedFields,
    request: &mut Request,
    arrival: &Arrival,
    chain: &Chain,
    ctx: &Context<'_>,
) {
    let scheme = ctx.scheme(arrival);
    let host = chain.origin.host.clone();
    let host = host.unwrap_or_else(|| request.authority.to_header_value());
    let headers = &mut request.headers;
    remove_x_forwarded(headers);
    headers.remove(header::FORWARDED);
    if matches!(fields, ForwardedFields::Forwarded | ForwardedFields::Both) {
        headers.insert(header::FORWARDED, chain.to_forwarded(scheme, &host));
    }
    if matches!(fields, ForwardedFields::XForwarded | ForwardedFields::Both) {
        headers.insert(FOR, chain.to_x_forwarded());
        headers.insert(PROTO, HeaderValue::from_static(scheme.as_str()));
        let port = match ctx.front.port {
            Some(port) => port.into(),
            None => arrival.written().port.clone(),
        };
        headers.insert(PORT, port);
        headers.insert(HOST, host);
    }
}

/// Removes a field that almost no request has: a look at its few names is cheaper than a search.
fn remove_rare(headers: &mut HeaderMap, name: &HeaderName) {
    if headers.keys().any(|it| it == name) {
        headers.remove(name);
    }
}

fn remove_x_forwarded(headers: &mut HeaderMap) {
    for name in [FOR, PROTO, HOST, PORT] {
        headers.remove(name);
    }
}
