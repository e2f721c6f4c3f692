//! Routes of every kind, with their matches and backends.

use std::sync::Arc;

use ir::backend::word;
use ir::http_route::{
    BackendRef, GrpcMatch, GrpcMethodMatch, GrpcRule, HttpMatch, HttpRule, ParentRef, PathMatch,
    Route, TextMatch, Timeouts, ValueMatch,
};
use ir::stream_route::{StreamKind, StreamMatch, StreamRule, TlsRouteMode};
use ir::{BackendTarget, GrpcRoute, HttpRoute, StreamRoute};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use super::filter::{filter, filters};
use super::policy::{retry, route_policy, security_policy, session_persistence};
use super::wasm;
use super::{
    any_text, duration, header_value, hostname, hostnames, key, metadata, moment, name, path,
    pattern, port, shared,
};

pub(super) fn parent_ref() -> impl Strategy<Value = ParentRef> {
    let kind = select(vec!["", "Gateway", "Service", "ListenerSet"]);
    (name(), kind, name(), name(), of(name()), of(1..=u16::MAX)).prop_map(
        |(group, kind, namespace, name, section_name, port)| ParentRef {
            group: word(&group),
            kind: word(kind),
            namespace,
            name,
            section_name,
            port,
        },
    )
}

pub(super) fn attached() -> impl Strategy<Value = Vec<Arc<str>>> {
    btree_set("a/gw/l[0-4]", 0..3)
        .prop_map(|names| names.iter().map(|n| n.as_str().into()).collect())
}

pub(super) fn route<R: std::fmt::Debug>(
    rule: impl Strategy<Value = R>,
) -> impl Strategy<Value = Route<R>> {
    let head = (key(), hostnames(), attached(), vec(parent_ref(), 0..2));
    let tail = (
        shared(route_policy()),
        shared(security_policy()),
        of(moment()),
    );
    (head, vec(rule, 0..3), metadata(), metadata(), tail).prop_map(
        |((key, hostnames, listeners, parent_refs), rules, labels, annotations, tail)| {
            let (policy, security_policy, created_at) = tail;
            Route {
                key,
                hostnames,
                listeners,
                parent_refs,
                rules,
                labels,
                annotations,
                policy,
                security_policy,
                created_at,
            }
        },
    )
}

pub(super) fn http_route() -> impl Strategy<Value = HttpRoute> {
    let matches = vec(http_match(), 1..3);
    let timeouts = (of(duration()), of(duration()));
    let tail = (of(retry()), of(session_persistence()), wasm::names());
    let rule = (of(name()), matches, filters(), backends(), timeouts, tail);
    route(rule.prop_map(
        |(name, matches, filters, backends, timeouts, tail)| HttpRule {
            name,
            matches,
            filters,
            backends,
            timeouts: Timeouts {
                request: timeouts.0,
                backend_request: timeouts.1,
            },
            retry: tail.0.map(Arc::new),
            session_persistence: tail.1.map(Arc::new),
            plugins: tail.2,
        },
    ))
}

pub(super) fn http_match() -> impl Strategy<Value = HttpMatch> {
    let path = prop_oneof![
        path().prop_map(PathMatch::Exact),
        "(/[a-z]{1,4}){1,3}|/".prop_map(PathMatch::Prefix),
        pattern().prop_map(|pattern| match pattern.as_str() {
            "" => PathMatch::Prefix("/".to_owned()),
            _ => PathMatch::Regex(pattern),
        }),
    ];
    let method = of(select(vec!["GET", "POST", "purge"]).prop_map(str::to_owned));
    let query = value_matches("[A-Za-z]{1,4}", any_text());
    (path, method, header_matches(), query).prop_map(|(path, method, headers, query_params)| {
        HttpMatch {
            path,
            method,
            headers,
            query_params,
        }
    })
}

pub(super) fn header_matches() -> impl Strategy<Value = Vec<ValueMatch>> {
    value_matches("x-[a-z]{1,3}", header_value())
}

pub(super) fn value_matches(
    name: &'static str,
    text: impl Strategy<Value = String>,
) -> impl Strategy<Value = Vec<ValueMatch>> {
    let value = (text, pattern(), 0..5u8).prop_map(|(text, pattern, kind)| match kind {
        0 => TextMatch::Exact(text),
        1 => TextMatch::Prefix(text),
        2 => TextMatch::Suffix(text),
        3 => TextMatch::Regex(pattern),
        _ => TextMatch::Present,
    });
    btree_map(name, value, 0..3).prop_map(|items| {
        let items = items.into_iter();
        items
            .map(|(name, value)| ValueMatch { name, value })
            .collect()
    })
}

pub(super) fn grpc_route() -> impl Strategy<Value = GrpcRoute> {
    let exact = (of(name()), of(name())).prop_map(|(service, method)| match (service, method) {
        (None, None) => GrpcMethodMatch::Any,
        (service, method) => GrpcMethodMatch::Exact { service, method },
    });
    let regex = (pattern(), any::<bool>()).prop_map(|(pattern, is_service)| {
        let (service, method) = match (pattern.as_str(), is_service) {
            ("", _) => return GrpcMethodMatch::Any,
            (_, true) => (Some(pattern), None),
            (_, false) => (None, Some(pattern)),
        };
        GrpcMethodMatch::Regex { service, method }
    });
    let method = prop_oneof![exact, regex];
    let item =
        (method, header_matches()).prop_map(|(method, headers)| GrpcMatch { method, headers });
    let rule = (
        of(name()),
        vec(item, 1..3),
        filters(),
        backends(),
        of(session_persistence()),
        wasm::names(),
    );
    route(rule.prop_map(
        |(name, matches, filters, backends, session_persistence, plugins)| GrpcRule {
            name,
            matches,
            filters,
            backends,
            session_persistence: session_persistence.map(Arc::new),
            plugins,
        },
    ))
}

pub(super) fn stream_route() -> impl Strategy<Value = StreamRoute> {
    let kind = select(vec![StreamKind::Tcp, StreamKind::Udp, StreamKind::Tls]);
    let mode = of(select(vec![
        TlsRouteMode::Passthrough,
        TlsRouteMode::Terminate,
    ]));
    let item = (of(port()), of(hostname()), mode);
    let item = item.prop_map(|(port, sni, mode)| StreamMatch { port, sni, mode });
    let rule = (of(name()), vec(item, 1..3), backends());
    let rule = rule.prop_map(|(name, matches, backends)| StreamRule {
        name,
        matches,
        backends,
    });
    let head = (key(), kind, attached(), vec(parent_ref(), 0..2));
    (head, vec(rule, 0..3), metadata(), metadata(), of(moment())).prop_map(
        |((key, kind, listeners, parent_refs), mut rules, labels, annotations, created_at)| {
            if kind != StreamKind::Tls {
                let matches = rules.iter_mut().flat_map(|rule| &mut rule.matches);
                matches.for_each(|item| item.sni = None);
            }
            StreamRoute {
                key: format!("{}/{key}", kind.as_str()).into(),
                kind,
                listeners,
                parent_refs,
                rules,
                labels,
                annotations,
                created_at,
            }
        },
    )
}

pub(super) fn target() -> impl Strategy<Value = BackendTarget> {
    let kind = select(vec!["Service", "AIService"]);
    (name(), kind, name(), name(), of(port()), any::<bool>()).prop_map(
        |(group, kind, namespace, name, port, is_resolved)| {
            let target = BackendTarget::new(&group, kind, &namespace, &name, port);
            if is_resolved {
                target
            } else {
                target.unresolved()
            }
        },
    )
}

pub(super) fn backends() -> impl Strategy<Value = Vec<BackendRef>> {
    let backend = (target(), 0..=1_000_000u32, vec(filter(), 0..2));
    vec(
        backend.prop_map(|(target, weight, filters)| BackendRef {
            target,
            weight,
            filters,
        }),
        0..3,
    )
}
