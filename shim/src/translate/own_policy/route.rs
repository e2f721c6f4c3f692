//! What a RoutePolicy says, and how that of a Gateway lies under that of a route.

use std::sync::Arc;
use std::time::Duration;

use crds::route_policy::RouteSettings;
use ir::policy::RoutePolicy;

use super::backend::thresholds;
use super::target::{Reference, Target};
use super::{Payload, Read, broken, named};
use crate::cluster_view::Object;

pub(super) fn read(object: &Object<crds::RoutePolicy>) -> Read {
    let spec = &object.value.spec;
    let targets = spec.target_refs.iter().map(|target| {
        let reference = Reference::local(&target.group, &target.kind, &target.name);
        Target::read(&reference, object.namespace())
    });
    let default = spec.default.clone().unwrap_or_default();
    let payload = match broken(&object.value) {
        Some(fault) => Err(fault),
        None => Ok(Payload::Route(Arc::new(settings(&default)))),
    };
    Read {
        payload,
        targets: targets.collect(),
        without_effect: without_effect(&default),
    }
}

/// What the data plane is told and does not act by (`ir/src/decode/policy.rs` says the same).
fn without_effect(default: &RouteSettings) -> Vec<String> {
    let proxy = default.proxy.clone().unwrap_or_default();
    let connection = default.connection.clone().unwrap_or_default();
    named(&[
        // Responses are never gathered, so only the wish for it has no effect.
        (
            "spec.default.proxy.responseBuffering",
            proxy.response_buffering == Some(true),
        ),
        ("spec.default.proxy.bufferSize", proxy.buffer_size.is_some()),
        (
            "spec.default.proxy.bufferCount",
            proxy.buffer_count.is_some(),
        ),
        (
            "spec.default.connection.keepaliveTime",
            connection.keepalive_time.is_some(),
        ),
        (
            "spec.default.connection.keepaliveTimeout",
            connection.keepalive_timeout.is_some(),
        ),
        (
            "spec.default.connection.upstreamKeepalivePoolSize",
            connection.upstream_keepalive_pool_size.is_some(),
        ),
        (
            "spec.default.connection.upstreamKeepaliveIdle",
            connection.upstream_keepalive_idle.is_some(),
        ),
    ])
}

fn settings(default: &RouteSettings) -> RoutePolicy {
    let timeout = default.timeout.clone().unwrap_or_default();
    let body = default.body_limit.clone().unwrap_or_default();
    let proxy = default.proxy.clone().unwrap_or_default();
    let connection = default.connection.clone().unwrap_or_default();
    let time = |written: &Option<crds::duration::Duration>| written.as_ref()?.read();
    let bytes = |written: Option<i64>| u64::try_from(written?).ok();
    let count = |written: Option<i32>| u32::try_from(written?).ok();
    RoutePolicy {
        request_timeout: time(&timeout.request),
        backend_request_timeout: time(&timeout.backend_request),
        connect_timeout: time(&timeout.connect),
        next_upstream_timeout: time(&timeout.next_upstream),
        request_body_bytes_max: bytes(body.max_request_body_bytes),
        request_body_buffer_bytes: bytes(body.request_body_buffer_bytes),
        request_header_bytes_max: bytes(body.max_request_header_bytes),
        request_buffering: proxy.request_buffering,
        response_buffering: proxy.response_buffering,
        buffer_bytes: bytes(proxy.buffer_size),
        buffer_count: count(proxy.buffer_count),
        keepalive_requests: count(connection.keepalive_requests),
        keepalive_time: time(&connection.keepalive_time),
        keepalive_timeout: time(&connection.keepalive_timeout),
        upstream_keepalive_pool_size: count(connection.upstream_keepalive_pool_size),
        upstream_keepalive_idle: time(&connection.upstream_keepalive_idle),
        breaker: default.circuit_breaker.as_ref().map(thresholds),
    }
}

/// What a route's own policy says, and where it says nothing what its Gateway's does.
pub(super) fn merged(own: &RoutePolicy, gateway: &RoutePolicy) -> RoutePolicy {
    RoutePolicy {
        request_timeout: own.request_timeout.or(gateway.request_timeout),
        backend_request_timeout: own
            .backend_request_timeout
            .or(gateway.backend_request_timeout),
        connect_timeout: own.connect_timeout.or(gateway.connect_timeout),
        next_upstream_timeout: own.next_upstream_timeout.or(gateway.next_upstream_timeout),
        request_body_bytes_max: own
            .request_body_bytes_max
            .or(gateway.request_body_bytes_max),
        request_body_buffer_bytes: own
            .request_body_buffer_bytes
            .or(gateway.request_body_buffer_bytes),
        request_header_bytes_max: own
            .request_header_bytes_max
            .or(gateway.request_header_bytes_max),
        request_buffering: own.request_buffering.or(gateway.request_buffering),
        response_buffering: own.response_buffering.or(gateway.response_buffering),
        buffer_bytes: own.buffer_bytes.or(gateway.buffer_bytes),
        buffer_count: own.buffer_count.or(gateway.buffer_count),
        keepalive_requests: own.keepalive_requests.or(gateway.keepalive_requests),
        keepalive_time: own.keepalive_time.or(gateway.keepalive_time),
        keepalive_timeout: own.keepalive_timeout.or(gateway.keepalive_timeout),
        upstream_keepalive_pool_size: own
            .upstream_keepalive_pool_size
            .or(gateway.upstream_keepalive_pool_size),
        upstream_keepalive_idle: own
            .upstream_keepalive_idle
            .or(gateway.upstream_keepalive_idle),
        breaker: own.breaker.clone().or_else(|| gateway.breaker.clone()),
    }
}

/// As the wire has it: a zero that was written hides a Gateway's value and is then no value itself.
pub(super) fn final_form(policy: RoutePolicy) -> RoutePolicy {
    let time = |time: Option<Duration>| time.filter(|time| !time.is_zero());
    let bytes = |bytes: Option<u64>| bytes.filter(|bytes| *bytes > 0);
    let count = |count: Option<u32>| count.filter(|count| *count > 0);
    RoutePolicy {
        request_timeout: time(policy.request_timeout),
        backend_request_timeout: time(policy.backend_request_timeout),
        connect_timeout: time(policy.connect_timeout),
        next_upstream_timeout: time(policy.next_upstream_timeout),
        request_body_bytes_max: bytes(policy.request_body_bytes_max),
        request_body_buffer_bytes: bytes(policy.request_body_buffer_bytes),
        request_header_bytes_max: bytes(policy.request_header_bytes_max),
        buffer_bytes: bytes(policy.buffer_bytes),
        buffer_count: count(policy.buffer_count),
        keepalive_requests: count(policy.keepalive_requests),
        keepalive_time: time(policy.keepalive_time),
        keepalive_timeout: time(policy.keepalive_timeout),
        upstream_keepalive_pool_size: count(policy.upstream_keepalive_pool_size),
        upstream_keepalive_idle: time(policy.upstream_keepalive_idle),
        ..policy
    }
}
