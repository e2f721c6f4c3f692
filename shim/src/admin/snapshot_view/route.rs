//! Routes: rules, matches, filters and the backends they send to.

use ir::filter::{
    Cors, DirectResponse, ExternalAuth, ExternalAuthProtocol, HeaderEdit, Mirror, PathEdit,
    Redirect, Rewrite, Scheme,
};
use ir::http_route::{
    BackendRef, GrpcMatch, GrpcMethodMatch, GrpcRule, HttpMatch, HttpRule, ParentRef, PathMatch,
    Route, TextMatch, Timeouts, ValueMatch,
};
use ir::stream_route::{StreamMatch, StreamRule, TlsRouteMode};
use ir::{BackendTarget, Filter, Pattern, StreamRoute};
use serde_json::{Value, json};

use super::super::words::unless_sensitive;
use super::{list, policy, rfc3339, some_ms, texts};

pub(super) fn route<R>(route: &Route<R>, rule: impl Fn(&R) -> Value) -> Value {
    let Route {
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
    } = route;
    json!({
        "key": &**key,
        "hostnames": texts(hostnames),
        "listeners": texts(listeners),
        "parent_refs": list(parent_refs, parent_ref),
        "rules": list(rules, rule),
        "labels": labels.to_map(),
        "annotations": annotations.to_map(),
        "policy": policy.as_deref().map(policy::route),
        "security_policy": security_policy.as_deref().map(policy::security),
        "created_at": created_at.map(rfc3339),
    })
}

pub(super) fn http_rule(rule: &HttpRule) -> Value {
    let HttpRule {
        name,
        matches,
        filters,
        backends,
        timeouts: Timeouts {
            request,
            backend_request,
        },
        retry,
        session_persistence,
        plugins,
    } = rule;
    json!({
        "name": name,
        "matches": list(matches, http_match),
        "filters": list(filters, filter),
        "backends": list(backends, backend),
        "request_timeout_ms": some_ms(*request),
        "backend_request_timeout_ms": some_ms(*backend_request),
        "retry": retry.as_deref().map(policy::retry),
        "session_persistence": session_persistence.as_deref().map(policy::session_persistence),
        "plugins": texts(plugins),
    })
}

pub(super) fn grpc_rule(rule: &GrpcRule) -> Value {
    let GrpcRule {
        name,
        matches,
        filters,
        backends,
        session_persistence,
        plugins,
    } = rule;
    json!({
        "name": name,
        "matches": list(matches, grpc_match),
        "filters": list(filters, filter),
        "backends": list(backends, backend),
        "session_persistence": session_persistence.as_deref().map(policy::session_persistence),
        "plugins": texts(plugins),
    })
}

pub(super) fn stream_route(route: &StreamRoute) -> Value {
    let StreamRoute {
        key,
        kind,
        listeners,
        parent_refs,
        rules,
        labels,
        annotations,
        created_at,
    } = route;
    json!({
        "key": &**key,
        "kind": kind.object_kind(),
        "listeners": texts(listeners),
        "parent_refs": list(parent_refs, parent_ref),
        "rules": list(rules, stream_rule),
        "labels": labels.to_map(),
        "annotations": annotations.to_map(),
        "created_at": created_at.map(rfc3339),
    })
}

fn stream_rule(rule: &StreamRule) -> Value {
    let StreamRule {
        name,
        matches,
        backends,
    } = rule;
    let stream_match = |it: &StreamMatch| {
        let StreamMatch { port, sni, mode } = it;
        json!({
            "port": port.map(std::num::NonZero::get),
            "sni": sni.as_ref().map(ToString::to_string),
            "mode": mode.map(|it| match it {
                TlsRouteMode::Passthrough => "passthrough",
                TlsRouteMode::Terminate => "terminate",
            }),
        })
    };
    json!({
        "name": name,
        "matches": list(matches, stream_match),
        "backends": list(backends, backend),
    })
}

fn parent_ref(parent: &ParentRef) -> Value {
    let ParentRef {
        group,
        kind,
        namespace,
        name,
        section_name,
        port,
    } = parent;
    json!({
        "group": &**group,
        "kind": &**kind,
        "namespace": namespace,
        "name": name,
        "section_name": section_name,
        "port": port,
    })
}

fn http_match(it: &HttpMatch) -> Value {
    let HttpMatch {
        path,
        method,
        headers,
        query_params,
    } = it;
    json!({
        "path": match path {
            PathMatch::Exact(path) => json!({ "exact": path }),
            PathMatch::Prefix(path) => json!({ "prefix": path }),
            PathMatch::Regex(pattern) => json!({ "regex": pattern.as_str() }),
        },
        "method": method,
        "headers": list(headers, value_match),
        "query_params": list(query_params, value_match),
    })
}

fn grpc_match(it: &GrpcMatch) -> Value {
    let GrpcMatch { method, headers } = it;
    json!({
        "method": match method {
            GrpcMethodMatch::Any => json!("any"),
            GrpcMethodMatch::Exact { service, method } => {
                json!({ "exact": { "service": service, "method": method } })
            }
            GrpcMethodMatch::Regex { service, method } => json!({ "regex": {
                "service": service.as_ref().map(Pattern::as_str),
                "method": method.as_ref().map(Pattern::as_str),
            }}),
        },
        "headers": list(headers, value_match),
    })
}

fn value_match(it: &ValueMatch) -> Value {
    let ValueMatch { name, value } = it;
    let shown = |value: &str| json!(unless_sensitive(name, value));
    let (kind, value) = match value {
        TextMatch::Exact(value) => ("exact", shown(value)),
        TextMatch::Prefix(value) => ("prefix", shown(value)),
        TextMatch::Suffix(value) => ("suffix", shown(value)),
        TextMatch::Regex(pattern) => ("regex", shown(pattern.as_str())),
        TextMatch::Present => ("present", json!(true)),
    };
    json!({ "name": name, kind: value })
}

fn backend(backend: &BackendRef) -> Value {
    let BackendRef {
        target,
        weight,
        filters,
    } = backend;
    json!({
        "target": self::target(target),
        "weight": weight,
        "filters": list(filters, filter),
    })
}

pub(super) fn target(target: &BackendTarget) -> Value {
    let BackendTarget {
        display,
        cluster_keys,
        group,
        kind,
    } = target;
    json!({
        "name": &**display,
        "cluster_keys": texts(cluster_keys),
        "group": &**group,
        "kind": &**kind,
    })
}

fn filter(filter: &Filter) -> Value {
    match filter {
        Filter::RequestHeaders(edit) => json!({ "request_headers": header_edit(edit) }),
        Filter::ResponseHeaders(edit) => json!({ "response_headers": header_edit(edit) }),
        Filter::Redirect(it) => json!({ "redirect": redirect(it) }),
        Filter::Rewrite(Rewrite { hostname, path }) => json!({ "rewrite": {
            "hostname": hostname,
            "path": path.as_ref().map(path_edit),
        }}),
        Filter::Mirror(Mirror { backend, fraction }) => json!({ "mirror": {
            "target": target(backend),
            "numerator": fraction.0,
            "denominator": fraction.1,
        }}),
        Filter::Cors(it) => json!({ "cors": cors(it) }),
        Filter::ExternalAuth(it) => json!({ "external_auth": external_auth(it) }),
        Filter::DirectResponse(DirectResponse {
            status,
            body,
            content_type,
        }) => json!({ "direct_response": {
            "status": status,
            "body": &**body,
            "content_type": content_type,
        }}),
        Filter::Unsupported { name, reason } => {
            json!({ "unsupported": { "type": name, "reason": reason } })
        }
    }
}

fn header_edit(edit: &HeaderEdit) -> Value {
    let HeaderEdit { set, add, remove } = edit;
    let field = |(name, value): &(String, String)| {
        json!({
            "name": name,
            "value": unless_sensitive(name, value),
        })
    };
    json!({ "set": list(set, field), "add": list(add, field), "remove": remove })
}

fn redirect(redirect: &Redirect) -> Value {
    let Redirect {
        scheme,
        hostname,
        path,
        port,
        status,
    } = redirect;
    json!({
        "scheme": scheme.map(|it| match it {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }),
        "hostname": hostname,
        "path": path.as_ref().map(path_edit),
        "port": port,
        "status": status,
    })
}

fn path_edit(edit: &PathEdit) -> Value {
    match edit {
        PathEdit::Full(path) => json!({ "full": path }),
        PathEdit::Prefix(prefix) => json!({ "prefix": prefix }),
    }
}

pub(super) fn cors(cors: &Cors) -> Value {
    let Cors {
        allow_origins,
        allow_methods,
        allow_headers,
        expose_headers,
        allow_credentials,
        max_age_seconds,
    } = cors;
    json!({
        "allow_origins": allow_origins,
        "allow_methods": allow_methods,
        "allow_headers": allow_headers,
        "expose_headers": expose_headers,
        "allow_credentials": allow_credentials,
        "max_age_seconds": max_age_seconds,
    })
}

fn external_auth(auth: &ExternalAuth) -> Value {
    let ExternalAuth {
        backend,
        protocol,
        forward_body_bytes_max,
    } = auth;
    json!({
        "target": target(backend),
        "protocol": match protocol {
            ExternalAuthProtocol::Http {
                path_prefix,
                allowed_headers,
                allowed_response_headers,
            } => json!({ "http": {
                "path_prefix": path_prefix,
                "allowed_headers": allowed_headers,
                "allowed_response_headers": allowed_response_headers,
            }}),
            ExternalAuthProtocol::Grpc { allowed_headers } => {
                json!({ "grpc": { "allowed_headers": allowed_headers } })
            }
        },
        "forward_body_bytes_max": forward_body_bytes_max,
    })
}
