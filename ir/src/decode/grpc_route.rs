//! gRPC routes: rules and their matches.

use std::sync::Arc;

use super::report::{At, Quoted, Report, list, optional};
use super::{filter, policy, route, security, value, wasm};
use crate::http_route::{GrpcMatch, GrpcMethodMatch, GrpcRule};
use crate::policy::RateLimitScope;
use crate::{GrpcRoute, wire};

pub(super) fn grpc_route(route: wire::GrpcRoute, report: &mut Report) -> Option<GrpcRoute> {
    let key = value::object_key(&route.namespace, &route.name, "GRPCRoute", report)?;
    let at = At::object("GRPCRoute", &key);
    let hostnames = value::hostnames(&route.hostnames, &at, "hostnames", report);
    let parents = list(
        route.parent_refs,
        &at,
        "parent_refs",
        report,
        route::parent_ref,
    );
    let rules = list(route.rules, &at, "rules", report, |rule, at, report| {
        grpc_rule(rule, &route.namespace, at, report)
    });
    let policy = optional(
        route.route_policy,
        &at,
        "route_policy",
        report,
        policy::route_policy,
    );
    let security = security::policy(
        route.security_policy,
        &route.namespace,
        RateLimitScope::Route,
        &at,
        report,
    );
    let created_at = value::timestamp(route.created_at, &at, "created_at", report);
    Some(GrpcRoute {
        hostnames: hostnames?,
        listeners: route::listeners(&route.attached_listeners, report),
        parent_refs: parents?,
        rules: rules?,
        labels: route.labels.into(),
        annotations: route.annotations.into(),
        policy: policy?.map(Arc::new),
        security_policy: security?,
        created_at: created_at?,
        key: key.clone(),
    })
}

fn grpc_rule(
    rule: wire::GrpcRule,
    namespace: &str,
    at: &At<'_>,
    report: &mut Report,
) -> Option<GrpcRule> {
    let matches = list(rule.matches, at, "matches", report, grpc_match);
    let filters = filter::filters(rule.filters, namespace, at, report);
    let backends = route::backends(rule.backend_refs, namespace, at, report);
    let persistence = optional(
        rule.session_persistence,
        at,
        "session_persistence",
        report,
        policy::session_persistence,
    );
    let plugins = wasm::names(rule.wasm_plugins, at, report);
    let mut matches = matches?;
    if matches.is_empty() {
        matches.push(GrpcMatch {
            method: GrpcMethodMatch::Any,
            headers: Vec::new(),
        });
    }
    Some(GrpcRule {
        name: value::non_empty(rule.name),
        matches,
        filters: filters?,
        backends: backends?,
        session_persistence: persistence?.map(Arc::new),
        plugins: plugins?,
    })
}

fn grpc_match(item: wire::GrpcMatch, at: &At<'_>, report: &mut Report) -> Option<GrpcMatch> {
    let headers = route::header_matches(item.headers, at, report);
    let service = value::non_empty(item.service);
    let method = value::non_empty(item.method);
    let method = match item.match_type.as_str() {
        _ if service.is_none() && method.is_none() => Some(GrpcMethodMatch::Any),
        "" | "Exact" => {
            let service = exact_name(service, "service", at, report);
            let method = exact_name(method, "method", at, report);
            service
                .zip(method)
                .map(|(service, method)| GrpcMethodMatch::Exact { service, method })
        }
        "RegularExpression" | "Regex" => {
            let mut pattern = |source: Option<String>, name| match source {
                Some(source) => value::pattern(&source, &at.field(name), report).map(Some),
                None => Some(None),
            };
            let service = pattern(service, "service");
            let method = pattern(method, "method");
            service
                .zip(method)
                .map(|(service, method)| GrpcMethodMatch::Regex { service, method })
        }
        other => {
            let shown = Quoted(other);
            report.refuse(
                &at.field("match_type"),
                format_args!("{shown} is not known, write Exact or RegularExpression"),
            )
        }
    };
    Some(GrpcMatch {
        method: method?,
        headers: headers?,
    })
}

/// A name is one segment of the request's path.
fn exact_name(
    name: Option<String>,
    field: &'static str,
    at: &At<'_>,
    report: &mut Report,
) -> Option<Option<String>> {
    match name {
        Some(name) if !name.bytes().all(|b| b.is_ascii_graphic() && b != b'/') => {
            let shown = Quoted(&name);
            report.refuse(
                &at.field(field),
                format_args!("{shown} is not the name of a gRPC {field}"),
            )
        }
        name => Some(name),
    }
}
