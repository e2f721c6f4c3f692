//! HTTP routes: rules and their matches.

use std::sync::Arc;

use super::report::{At, Quoted, Report, list, optional};
use super::{filter, policy, route, security, value, wasm};
use crate::HttpRoute;
use crate::http_route::{HttpMatch, HttpRule, PathMatch, Timeouts};
use crate::policy::RateLimitScope;
use crate::wire;

pub(super) fn http_route(route: wire::HttpRoute, report: &mut Report) -> Option<HttpRoute> {
    let key = value::object_key(&route.namespace, &route.name, "HTTPRoute", report)?;
    let at = At::object("HTTPRoute", &key);
    let hostnames = value::hostnames(&route.hostnames, &at, "hostnames", report);
    let parents = list(
        route.parent_refs,
        &at,
        "parent_refs",
        report,
        route::parent_ref,
    );
    let rules = list(route.rules, &at, "rules", report, |rule, at, report| {
        http_rule(rule, &route.namespace, at, report)
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
    Some(HttpRoute {
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

fn http_rule(
    rule: wire::HttpRule,
    namespace: &str,
    at: &At<'_>,
    report: &mut Report,
) -> Option<HttpRule> {
    let matches = list(rule.matches, at, "matches", report, http_match);
    let filters = filter::filters(rule.filters, namespace, at, report);
    let backends = route::backends(rule.backend_refs, namespace, at, report);
    let timeouts = optional(rule.timeouts, at, "timeouts", report, timeouts);
    let retry = optional(rule.retry, at, "retry", report, policy::retry);
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
        matches.push(HttpMatch {
            path: PathMatch::Prefix("/".to_owned()),
            method: None,
            headers: Vec::new(),
            query_params: Vec::new(),
        });
    }
    Some(HttpRule {
        name: value::non_empty(rule.name),
        matches,
        filters: filters?,
        backends: backends?,
        timeouts: timeouts?.unwrap_or_default(),
        retry: retry?.map(Arc::new),
        session_persistence: persistence?.map(Arc::new),
        plugins: plugins?,
    })
}

fn http_match(item: wire::HttpMatch, at: &At<'_>, report: &mut Report) -> Option<HttpMatch> {
    let path = path_match(&item.path_type, item.path, at, report);
    let method = match value::non_empty(item.method) {
        Some(method) => value::method(method, &at.field("method"), report).map(Some),
        None => Some(None),
    };
    let headers = route::header_matches(item.headers, at, report);
    let query_params = route::query_matches(item.query_params, at, report);
    Some(HttpMatch {
        path: path?,
        method: method?,
        headers: headers?,
        query_params: query_params?,
    })
}

/// A path without a kind is a prefix, no path is `/`: the defaults of Gateway API.
fn path_match(kind: &str, path: String, at: &At<'_>, report: &mut Report) -> Option<PathMatch> {
    let at_path = at.field("path");
    let path = if path.is_empty() {
        "/".to_owned()
    } else {
        path
    };
    match kind {
        "" | "PathPrefix" | "Prefix" => {
            value::path_prefix(path, &at_path, report).map(PathMatch::Prefix)
        }
        "Exact" => value::path(path, &at_path, report).map(PathMatch::Exact),
        "RegularExpression" | "Regex" => {
            value::pattern(&path, &at_path, report).map(PathMatch::Regex)
        }
        other => {
            let shown = Quoted(other);
            report.refuse(
                &at.field("path_type"),
                format_args!("{shown} is not known, write Exact, PathPrefix or RegularExpression"),
            )
        }
    }
}

fn timeouts(item: wire::HttpRouteTimeouts, at: &At<'_>, report: &mut Report) -> Option<Timeouts> {
    let request = value::duration_or_zero(item.request, at, "request", report);
    let backend_request =
        value::duration_or_zero(item.backend_request, at, "backend_request", report);
    Some(Timeouts {
        request: request?,
        backend_request: backend_request?,
    })
}
