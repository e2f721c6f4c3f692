//! Routes of every kind.

use super::filter::filters;
use super::listener::hostnames;
use super::policy::{retry, route_policy, security_policy, session_persistence};
use super::{duration, namespace_and_name, texts, timestamp};
use crate::backend::VALID_KEY;
use crate::http_route::{
    BackendRef, GrpcMatch, GrpcMethodMatch, GrpcRule, HttpMatch, HttpRule, ParentRef, PathMatch,
    TextMatch, Timeouts, ValueMatch,
};
use crate::stream_route::{StreamKind, StreamRule, TlsRouteMode};
use crate::{BackendTarget, GrpcRoute, HttpRoute, Pattern, StreamRoute, wire};

/// One HTTP route, with the listeners it is attached to.
pub fn http_route(route: &HttpRoute) -> wire::HttpRoute {
    let (namespace, name) = namespace_and_name(&route.key);
    wire::HttpRoute {
        name,
        namespace,
        hostnames: hostnames(&route.hostnames),
        parent_refs: parent_refs(&route.parent_refs),
        rules: route.rules.iter().map(http_rule).collect(),
        labels: route.labels.to_map(),
        annotations: route.annotations.to_map(),
        route_policy: route.policy.as_deref().map(route_policy),
        security_policy: route.security_policy.as_deref().map(security_policy),
        attached_listeners: texts(&route.listeners),
        created_at: timestamp(route.created_at),
    }
}

fn http_rule(rule: &HttpRule) -> wire::HttpRule {
    wire::HttpRule {
        matches: rule.matches.iter().map(http_match).collect(),
        filters: filters(&rule.filters),
        backend_refs: backend_refs(&rule.backends),
        timeouts: (rule.timeouts != Timeouts::default()).then(|| wire::HttpRouteTimeouts {
            request: duration(rule.timeouts.request),
            backend_request: duration(rule.timeouts.backend_request),
        }),
        retry: rule.retry.as_deref().map(retry),
        session_persistence: rule.session_persistence.as_deref().map(session_persistence),
        name: rule.name.clone().unwrap_or_default(),
        wasm_plugins: texts(&rule.plugins),
    }
}

fn http_match(item: &HttpMatch) -> wire::HttpMatch {
    let (path, path_type) = match &item.path {
        PathMatch::Exact(path) => (path.as_str(), "Exact"),
        PathMatch::Prefix(path) => (path.as_str(), "PathPrefix"),
        PathMatch::Regex(pattern) => (pattern.as_str(), "RegularExpression"),
    };
    wire::HttpMatch {
        path: path.to_owned(),
        path_type: path_type.to_owned(),
        method: item.method.clone().unwrap_or_default(),
        headers: header_matches(&item.headers),
        query_params: query_matches(&item.query_params),
    }
}

/// One gRPC route, with the listeners it is attached to.
pub fn grpc_route(route: &GrpcRoute) -> wire::GrpcRoute {
    let (namespace, name) = namespace_and_name(&route.key);
    wire::GrpcRoute {
        name,
        namespace,
        hostnames: hostnames(&route.hostnames),
        parent_refs: parent_refs(&route.parent_refs),
        rules: route.rules.iter().map(grpc_rule).collect(),
        labels: route.labels.to_map(),
        annotations: route.annotations.to_map(),
        route_policy: route.policy.as_deref().map(route_policy),
        security_policy: route.security_policy.as_deref().map(security_policy),
        attached_listeners: texts(&route.listeners),
        created_at: timestamp(route.created_at),
    }
}

fn grpc_rule(rule: &GrpcRule) -> wire::GrpcRule {
    wire::GrpcRule {
        matches: rule.matches.iter().map(grpc_match).collect(),
        filters: filters(&rule.filters),
        backend_refs: backend_refs(&rule.backends),
        session_persistence: rule.session_persistence.as_deref().map(session_persistence),
        name: rule.name.clone().unwrap_or_default(),
        wasm_plugins: texts(&rule.plugins),
    }
}

fn grpc_match(item: &GrpcMatch) -> wire::GrpcMatch {
    let source = |pattern: &Option<Pattern>| {
        let text = pattern.as_ref().map(Pattern::as_str);
        text.unwrap_or_default().to_owned()
    };
    let (service, method, match_type) = match &item.method {
        GrpcMethodMatch::Any => (String::new(), String::new(), ""),
        GrpcMethodMatch::Exact { service, method } => {
            let (service, method) = (service.clone(), method.clone());
            let names = (service.unwrap_or_default(), method.unwrap_or_default());
            (names.0, names.1, "Exact")
        }
        GrpcMethodMatch::Regex { service, method } => {
            (source(service), source(method), "RegularExpression")
        }
    };
    wire::GrpcMatch {
        service,
        method,
        headers: header_matches(&item.headers),
        match_type: match_type.to_owned(),
    }
}

/// One TCP, UDP or TLS route, with the listeners it is attached to.
pub fn stream_route(route: &StreamRoute) -> wire::StreamRoute {
    let (namespace, name) = namespace_and_name(route.object_key());
    wire::StreamRoute {
        name,
        namespace,
        kind: match route.kind {
            StreamKind::Tcp => wire::RouteKind::Tcp,
            StreamKind::Udp => wire::RouteKind::Udp,
            StreamKind::Tls => wire::RouteKind::Tls,
        }
        .into(),
        parent_refs: parent_refs(&route.parent_refs),
        rules: route.rules.iter().map(stream_rule).collect(),
        labels: route.labels.to_map(),
        annotations: route.annotations.to_map(),
        attached_listeners: texts(&route.listeners),
        created_at: timestamp(route.created_at),
    }
}

fn stream_rule(rule: &StreamRule) -> wire::StreamRule {
    let matches = rule.matches.iter().map(|item| wire::StreamMatch {
        port: item.port.map_or(0, |port| u32::from(port.get())),
        sni_hostname: item
            .sni
            .as_ref()
            .map_or("", |name| name.as_str())
            .to_owned(),
        mode: match item.mode {
            None => wire::TlsRouteMode::TlsRouteUnspecified,
            Some(TlsRouteMode::Passthrough) => wire::TlsRouteMode::TlsRoutePassthrough,
            Some(TlsRouteMode::Terminate) => wire::TlsRouteMode::TlsRouteTerminate,
        }
        .into(),
    });
    wire::StreamRule {
        matches: matches.collect(),
        backend_refs: backend_refs(&rule.backends),
        name: rule.name.clone().unwrap_or_default(),
    }
}

fn parent_refs(parents: &[ParentRef]) -> Vec<wire::ParentRef> {
    let parents = parents.iter().map(|parent| wire::ParentRef {
        group: parent.group.to_string(),
        kind: parent.kind.to_string(),
        namespace: parent.namespace.clone(),
        name: parent.name.clone(),
        section_name: parent.section_name.clone().unwrap_or_default(),
        port: parent.port.map_or(0, u32::from),
    });
    parents.collect()
}

fn backend_refs(backends: &[BackendRef]) -> Vec<wire::BackendRef> {
    let backends = backends.iter().map(|backend| wire::BackendRef {
        weight: backend.weight,
        filters: filters(&backend.filters),
        ..target(&backend.target)
    });
    backends.collect()
}

/// A reference without weight and filters.
pub(super) fn target(target: &BackendTarget) -> wire::BackendRef {
    let (namespace, name, port) = target.parts();
    let mark = target.cluster_keys.is_empty();
    let metadata = mark.then(|| (VALID_KEY.to_owned(), "false".to_owned()));
    wire::BackendRef {
        group: target.group.to_string(),
        kind: target.kind.to_string(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        port: port.map_or(0, u32::from),
        metadata: metadata.into_iter().collect(),
        ..Default::default()
    }
}

fn header_matches(matches: &[ValueMatch]) -> Vec<wire::HeaderMatch> {
    let matches = matches.iter().map(|item| {
        let (value, match_type) = text_match(&item.value);
        wire::HeaderMatch {
            name: item.name.clone(),
            value,
            match_type,
        }
    });
    matches.collect()
}

fn query_matches(matches: &[ValueMatch]) -> Vec<wire::QueryMatch> {
    let matches = matches.iter().map(|item| {
        let (value, match_type) = text_match(&item.value);
        wire::QueryMatch {
            name: item.name.clone(),
            value,
            match_type,
        }
    });
    matches.collect()
}

fn text_match(value: &TextMatch) -> (String, String) {
    let (text, kind) = match value {
        TextMatch::Exact(text) => (text.as_str(), "Exact"),
        TextMatch::Prefix(text) => (text.as_str(), "Prefix"),
        TextMatch::Suffix(text) => (text.as_str(), "Suffix"),
        TextMatch::Regex(pattern) => (pattern.as_str(), "RegularExpression"),
        TextMatch::Present => ("", "Present"),
    };
    (text.to_owned(), kind.to_owned())
}
