//! GRPCRoutes: rules and matches.
//!
//! What they share with HTTPRoutes is in [`super::route`]; conditions on values, weights and filters
//! are read by the same functions as there.

use std::sync::Arc;

use gateway_api::experimental::grpcroutes as api;
use gateway_api::experimental::httproutes::{
    HttpRouteParentRefs, HttpRouteRulesSessionPersistence,
};
use ir::http_route::{BackendRef, GrpcMatch, GrpcMethodMatch, GrpcRule, ValueMatch};

use super::backend::{self, Reference};
use super::filter::{self, Place};
use super::http_route::{add_once, pattern, text_match, weight};
use super::listener::RouteKind;
use super::notes::Notes;
use super::route::{self, Head, Outcome, finish};
use super::{Scope, policy};
use crate::cluster_view::Object;

/// Translates one GRPCRoute.
pub(super) fn translate(
    object: &Arc<Object<api::GrpcRoute>>,
    scope: &Scope<'_>,
) -> Outcome<GrpcRule> {
    let spec = &object.value.spec;
    let parent_refs = parent_refs(spec);
    let scope = &scope.with_parents(&parent_refs);
    let mut notes = Notes::new(object.title());
    let rules = spec.rules.as_deref().unwrap_or_default();
    if rules.len() > 16 {
        notes.violation("spec.rules", "holds more than 16 rules, split the route");
    }
    let rules: Vec<_> = rules
        .iter()
        .enumerate()
        .map(|(index, rule)| self::rule(rule, index, scope, &mut notes))
        .collect();
    let head = Head {
        kind: RouteKind::Grpc,
        parent_refs,
        hostnames: spec.hostnames.as_deref().unwrap_or_default(),
        rules: rules.len(),
    };
    finish(object, head, rules, notes, scope, |route| {
        ir::decode::grpc_route(ir::encode::grpc_route(route)).map(drop)
    })
}

/// Its parents in the form that all routes share.
pub(super) fn parent_refs(spec: &api::GrpcRouteSpec) -> Vec<HttpRouteParentRefs> {
    route::parent_refs!(spec)
}

fn rule(
    rule: &api::GrpcRouteRules,
    index: usize,
    scope: &Scope<'_>,
    notes: &mut Notes,
) -> GrpcRule {
    let path = format!("spec.rules[{index}]");
    let list = format!("{path}.filters");
    let place = Place {
        rule: index,
        path: &list,
        one_prefix: false,
    };
    let filters = filter::filters(rule.filters.as_ref(), place, scope, notes);
    let backends = rule
        .backend_refs
        .iter()
        .flatten()
        .enumerate()
        .map(|(position, backend)| {
            let path = format!("{path}.backendRefs[{position}]");
            let reference = Reference {
                group: backend.group.as_deref(),
                kind: backend.kind.as_deref(),
                namespace: backend.namespace.as_deref(),
                name: &backend.name,
                port: backend.port,
            };
            let list = format!("{path}.filters");
            let place = Place {
                rule: index,
                path: &list,
                one_prefix: false,
            };
            BackendRef {
                target: backend::resolve(reference, &path, scope, notes),
                weight: weight(backend.weight, &path, notes),
                filters: filter::filters(backend.filters.as_ref(), place, scope, notes),
            }
        })
        .collect();
    GrpcRule {
        name: rule.name.clone(),
        matches: matches(rule.matches.as_deref().unwrap_or_default(), &path, notes),
        filters,
        backends,
        session_persistence: session_persistence(rule, &path, notes).map(Arc::new),
        plugins: Vec::new(),
    }
}

/// The generated types write the same schema once per kind of route.
fn session_persistence(
    rule: &api::GrpcRouteRules,
    path: &str,
    notes: &mut Notes,
) -> Option<ir::policy::SessionPersistence> {
    let spec = rule.session_persistence.as_ref()?;
    let alike = serde_json::to_value(spec)
        .and_then(serde_json::from_value::<HttpRouteRulesSessionPersistence>);
    policy::session_persistence(alike.ok().as_ref(), path, notes)
}

fn matches(
    written: &[api::GrpcRouteRulesMatches],
    path: &str,
    notes: &mut Notes,
) -> Vec<GrpcMatch> {
    let everything = [api::GrpcRouteRulesMatches::default()];
    let written = if written.is_empty() {
        &everything
    } else {
        written
    };
    if written.len() > 64 {
        notes.violation(
            &format!("{path}.matches"),
            "holds more than 64 matches, split the rule",
        );
    }
    written
        .iter()
        .enumerate()
        .map(|(index, entry)| {
            let path = format!("{path}.matches[{index}]");
            GrpcMatch {
                method: method(entry.method.as_ref(), &format!("{path}.method"), notes),
                headers: headers(entry.headers.as_deref(), &path, notes),
            }
        })
        .collect()
}

fn method(
    written: Option<&api::GrpcRouteRulesMatchesMethod>,
    path: &str,
    notes: &mut Notes,
) -> GrpcMethodMatch {
    let Some(written) = written else {
        return GrpcMethodMatch::Any;
    };
    let present = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (service, method) = (present(&written.service), present(&written.method));
    if service.is_none() && method.is_none() {
        notes.violation(path, "names neither service nor method, write one of them");
        return GrpcMethodMatch::Any;
    }
    if written.r#type == Some(api::GrpcRouteRulesMatchesMethodType::RegularExpression) {
        let mut compile =
            |text: Option<String>, field: &str| pattern(&text?, &format!("{path}.{field}"), notes);
        return GrpcMethodMatch::Regex {
            service: compile(service, "service"),
            method: compile(method, "method"),
        };
    }
    for (field, text) in [("service", &service), ("method", &method)] {
        let plain =
            |b: u8| b.is_ascii_alphanumeric() || b == b'_' || (b == b'.' && field == "service");
        if text.as_deref().is_some_and(|text| !text.bytes().all(plain)) {
            notes.violation(
                &format!("{path}.{field}"),
                format!("is no name of a gRPC {field}"),
            );
        }
    }
    GrpcMethodMatch::Exact { service, method }
}

fn headers(
    written: Option<&[api::GrpcRouteRulesMatchesHeaders]>,
    path: &str,
    notes: &mut Notes,
) -> Vec<ValueMatch> {
    let mut headers = Vec::new();
    for (index, header) in written.into_iter().flatten().enumerate() {
        let path = format!("{path}.headers[{index}]");
        let is_regex =
            header.r#type == Some(api::GrpcRouteRulesMatchesHeadersType::RegularExpression);
        let value = text_match(&header.value, is_regex, &path, notes);
        let name = filter::header_name(&header.name, &format!("{path}.name"), notes);
        add_once(&mut headers, name, value, &path, notes);
    }
    headers
}
