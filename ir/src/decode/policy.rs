//! Retries, session persistence and per-route settings.

use super::report::{At, Report, optional};
use super::{backend_policy, value};
use crate::policy::{Retry, RoutePolicy, SessionCarrier, SessionPersistence};
use crate::wire;

pub(super) fn retry(item: wire::HttpRouteRetry, at: &At<'_>, report: &mut Report) -> Option<Retry> {
    let mut codes = Vec::with_capacity(item.codes.len());
    let mut is_good = true;
    for (index, code) in item.codes.into_iter().enumerate() {
        match u16::try_from(code).ok().filter(|c| (400..=599).contains(c)) {
            Some(code) if codes.contains(&code) => {}
            Some(code) => codes.push(code),
            None => {
                is_good = false;
                let _: Option<()> = report.refuse(
                    &at.index("codes", index),
                    format_args!(
                        "{code} is not a status that can be tried again, write 400 to 599"
                    ),
                );
            }
        }
    }
    let backoff = value::duration(item.backoff, at, "backoff", report)?;
    is_good.then_some(Retry {
        codes,
        attempts: item.attempts,
        backoff,
    })
}

pub(super) fn session_persistence(
    item: wire::SessionPersistence,
    at: &At<'_>,
    report: &mut Report,
) -> Option<SessionPersistence> {
    let absolute = value::duration(item.absolute_timeout, at, "absolute_timeout", report);
    let idle = value::duration(item.idle_timeout, at, "idle_timeout", report);
    let carrier = carrier(&item, at, report);
    let session_name = match value::non_empty(item.session_name) {
        Some(name) if value::is_token(&name) => Some(Some(match carrier {
            SessionCarrier::Header => name.to_ascii_lowercase(),
            _ => name,
        })),
        Some(_) => report.refuse(
            &at.field("session_name"),
            "is not the name of a cookie or header field",
        ),
        None => Some(None),
    };
    let absolute = absolute?;
    if carrier == SessionCarrier::PermanentCookie && absolute.is_none() {
        return report.refuse(
            &at.field("absolute_timeout"),
            "is missing, a permanent cookie needs an end",
        );
    }
    Some(SessionPersistence {
        session_name: session_name?,
        absolute_timeout: absolute,
        idle_timeout: idle?,
        carrier,
    })
}

fn carrier(item: &wire::SessionPersistence, at: &At<'_>, report: &mut Report) -> SessionCarrier {
    use wire::{CookieLifetimeType, SessionPersistenceType};
    match SessionPersistenceType::try_from(item.r#type) {
        Ok(SessionPersistenceType::SessionPersistenceHeader) => return SessionCarrier::Header,
        Ok(_) => {}
        Err(_) => report.notice(&at.field("type"), "is not known, a cookie is used"),
    }
    let lifetime = item.cookie.map_or(0, |cookie| cookie.lifetime_type);
    match CookieLifetimeType::try_from(lifetime) {
        Ok(CookieLifetimeType::CookieLifetimePermanent) => SessionCarrier::PermanentCookie,
        Ok(_) => SessionCarrier::SessionCookie,
        Err(_) => {
            report.notice(
                &at.field("cookie").field("lifetime_type"),
                "is not known, the cookie ends with the browser session",
            );
            SessionCarrier::SessionCookie
        }
    }
}

pub(super) fn route_policy(
    item: wire::RoutePolicy,
    at: &At<'_>,
    report: &mut Report,
) -> Option<RoutePolicy> {
    let timeout = item.timeout.unwrap_or_default();
    let body = item.body_limit.unwrap_or_default();
    let proxy = item.proxy.unwrap_or_default();
    let connection = item.connection.unwrap_or_default();

    let at_timeout = at.field("timeout");
    let at_connection = at.field("connection");
    let mut timeout_of = |value, name| value::duration(value, &at_timeout, name, report);
    let request = timeout_of(timeout.request, "request");
    let backend_request = timeout_of(timeout.backend_request, "backend_request");
    let connect = timeout_of(timeout.connect, "connect");
    let next_upstream = timeout_of(timeout.next_upstream, "next_upstream");
    let mut connection_of = |value, name| value::duration(value, &at_connection, name, report);
    let keepalive_time = connection_of(connection.keepalive_time, "keepalive_time");
    let keepalive_timeout = connection_of(connection.keepalive_timeout, "keepalive_timeout");
    let idle = connection_of(
        connection.upstream_keepalive_idle,
        "upstream_keepalive_idle",
    );

    let breaker = optional(item.breaker, at, "breaker", report, backend_policy::breaker);

    notice_without_effect(&proxy, &connection, at, report);
    Some(RoutePolicy {
        request_timeout: request?,
        backend_request_timeout: backend_request?,
        connect_timeout: connect?,
        next_upstream_timeout: next_upstream?,
        request_body_bytes_max: non_zero(body.max_request_body_bytes),
        request_body_buffer_bytes: non_zero(body.request_body_buffer_bytes),
        request_header_bytes_max: non_zero(body.max_request_header_bytes),
        request_buffering: proxy.request_buffering,
        response_buffering: proxy.response_buffering,
        buffer_bytes: non_zero(proxy.buffer_size),
        buffer_count: non_zero(proxy.buffer_count),
        keepalive_requests: non_zero(connection.keepalive_requests),
        keepalive_time: keepalive_time?,
        keepalive_timeout: keepalive_timeout?,
        upstream_keepalive_pool_size: non_zero(connection.upstream_keepalive_pool_size),
        upstream_keepalive_idle: idle?,
        breaker: breaker?,
    })
}

/// Says which of these the data plane carries and does not act by.
fn notice_without_effect(
    proxy: &wire::RoutePolicyProxy,
    connection: &wire::RoutePolicyConnection,
    at: &At<'_>,
    report: &mut Report,
) {
    let (at_proxy, at_connection) = (at.field("proxy"), at.field("connection"));
    // Responses are never gathered, so only the wish for it has no effect.
    let set = [
        (
            &at_proxy,
            "response_buffering",
            proxy.response_buffering == Some(true),
        ),
        (&at_proxy, "buffer_size", proxy.buffer_size > 0),
        (&at_proxy, "buffer_count", proxy.buffer_count > 0),
        (
            &at_connection,
            "keepalive_time",
            connection.keepalive_time.is_some(),
        ),
        (
            &at_connection,
            "keepalive_timeout",
            connection.keepalive_timeout.is_some(),
        ),
        (
            &at_connection,
            "upstream_keepalive_pool_size",
            connection.upstream_keepalive_pool_size > 0,
        ),
        (
            &at_connection,
            "upstream_keepalive_idle",
            connection.upstream_keepalive_idle.is_some(),
        ),
    ];
    for (at, field, _) in set.into_iter().filter(|(.., is_set)| *is_set) {
        report.notice(&at.field(field), "has no effect in this data plane");
    }
}

fn non_zero<N: Default + PartialEq>(number: N) -> Option<N> {
    (number != N::default()).then_some(number)
}
