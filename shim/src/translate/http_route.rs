//! HTTPRoutes: rules and matches.
//!
//! Checks what the CRDs' own rules would refuse, because files never meet an API server. A fault in
//! one rule keeps the whole route out: serving the other rules alone could send requests to a rule
//! that was never meant for them.

use std::sync::Arc;

use gateway_api::experimental::httproutes as api;
use ir::Pattern;
use ir::http_route::{BackendRef, HttpMatch, HttpRule, PathMatch, TextMatch, ValueMatch};

use super::backend::{self, Reference};
use super::filter::{self, Place};
use super::listener::RouteKind;
use super::notes::Notes;
use super::route::{Head, Outcome, finish};
use super::{Scope, policy};
use crate::cluster_view::Object;

/// A weight past this is refused (Gateway API `BackendRef.weight`).
const WEIGHT_MAX: i32 = 1_000_000;

/// Translates one HTTPRoute.
pub(super) fn translate(
    object: &Arc<Object<api::HttpRoute>>,
    scope: &Scope<'_>,
) -> Outcome<HttpRule> {
    let spec = &object.value.spec;
    let parent_refs = spec.parent_refs.clone().unwrap_or_default();
    let scope = &scope.with_parents(&parent_refs);
    let mut notes = Notes::new(object.title());
    // An absent list is one rule that matches everything (Gateway API default).
    let default = [api::HttpRouteRules::default()];
    let rules = spec.rules.as_deref().unwrap_or(&default);
    if rules.is_empty() || rules.len() > 16 {
        notes.violation("spec.rules", "holds 1 to 16 rules, or leave it out");
    }
    let rules: Vec<_> = rules
        .iter()
        .enumerate()
        .map(|(index, rule)| self::rule(rule, index, scope, &mut notes))
        .collect();
    let head = Head {
        kind: RouteKind::Http,
        parent_refs,
        hostnames: spec.hostnames.as_deref().unwrap_or_default(),
        rules: rules.len(),
    };
    finish(object, head, rules, notes, scope, |route| {
        ir::decode::http_route(ir::encode::http_route(route)).map(drop)
    })
}

fn rule(
    rule: &api::HttpRouteRules,
    index: usize,
    scope: &Scope<'_>,
    notes: &mut Notes,
) -> HttpRule {
    let path = format!("spec.rules[{index}]");
    let matches = matches(rule.matches.as_deref().unwrap_or_default(), &path, notes);
    let one_prefix = matches!(
        &*matches,
        [HttpMatch {
            path: PathMatch::Prefix(_),
            ..
        }]
    );
    let list = format!("{path}.filters");
    let place = Place {
        rule: index,
        path: &list,
        one_prefix,
    };
    let filters = filter::filters(rule.filters.as_ref(), place, scope, notes);
    let backends = rule.backend_refs.as_deref().unwrap_or_default();
    let is_redirect = filters
        .iter()
        .any(|filter| matches!(filter, ir::Filter::Redirect(_)));
    if is_redirect && !backends.is_empty() {
        let message = "must be empty in a rule that redirects";
        notes.violation(&format!("{path}.backendRefs"), message);
    }
    let backends = backends
        .iter()
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
                one_prefix,
            };
            BackendRef {
                target: backend::resolve_backend(reference, &path, scope, notes),
                weight: weight(backend.weight, &path, notes),
                filters: filter::filters(backend.filters.as_ref(), place, scope, notes),
            }
        })
        .collect();
    HttpRule {
        name: rule.name.clone(),
        matches,
        filters,
        backends,
        timeouts: policy::timeouts(rule.timeouts.as_ref(), &path, notes),
        retry: policy::retry(rule.retry.as_ref(), &path, notes).map(Arc::new),
        session_persistence: policy::session_persistence(
            rule.session_persistence.as_ref(),
            &path,
            notes,
        )
        .map(Arc::new),
        plugins: Vec::new(),
    }
}

/// The share of a backend; 1 when it is not written.
pub(super) fn weight(written: Option<i32>, path: &str, notes: &mut Notes) -> u32 {
    match written.unwrap_or(1) {
        weight @ 0..=WEIGHT_MAX => weight.unsigned_abs(),
        weight => {
            let message = format!("{weight} is out of range, use 0 to {WEIGHT_MAX}");
            notes.violation(&format!("{path}.weight"), message);
            0
        }
    }
}

fn matches(
    written: &[api::HttpRouteRulesMatches],
    path: &str,
    notes: &mut Notes,
) -> Vec<HttpMatch> {
    let everything = [api::HttpRouteRulesMatches::default()];
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
            HttpMatch {
                path: path_match(entry.path.as_ref(), &format!("{path}.path"), notes),
                method: entry
                    .method
                    .as_ref()
                    .map(|method| format!("{method:?}").to_uppercase()),
                headers: headers(entry.headers.as_deref(), &path, notes),
                query_params: query_params(entry.query_params.as_deref(), &path, notes),
            }
        })
        .collect()
}

fn path_match(
    written: Option<&api::HttpRouteRulesMatchesPath>,
    path: &str,
    notes: &mut Notes,
) -> PathMatch {
    use api::HttpRouteRulesMatchesPathType as Type;
    let everything = PathMatch::Prefix("/".to_owned());
    let Some(written) = written else {
        return everything;
    };
    let value = written.value.as_deref().unwrap_or("/");
    let path = format!("{path}.value");
    match written.r#type.as_ref().unwrap_or(&Type::PathPrefix) {
        Type::RegularExpression => {
            return pattern(value, &path, notes).map_or(everything, PathMatch::Regex);
        }
        Type::Exact | Type::PathPrefix if !is_plain_path(value) => notes.violation(
            &path,
            format!(
                "{value:?} is no path: begin with /, leave out //, dot segments, #, %2f and spaces"
            ),
        ),
        Type::Exact => return PathMatch::Exact(value.to_owned()),
        Type::PathPrefix => {
            let trimmed = value.strip_suffix('/').unwrap_or(value);
            let prefix = if trimmed.is_empty() { "/" } else { trimmed };
            return PathMatch::Prefix(prefix.to_owned());
        }
    }
    everything
}

/// What the CRD asks of an exact path or a prefix.
fn is_plain_path(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'?');
    let mut segments = path.split('/').skip(1).peekable();
    let mut is_good = path.starts_with('/')
        && path.len() <= 1024
        && path.bytes().all(plain)
        && !path.to_ascii_lowercase().contains("%2f");
    while let Some(segment) = segments.next() {
        let is_hole = segment.is_empty() && segments.peek().is_some();
        is_good &= !is_hole && !matches!(segment, "." | "..");
    }
    is_good
}

fn headers(
    written: Option<&[api::HttpRouteRulesMatchesHeaders]>,
    path: &str,
    notes: &mut Notes,
) -> Vec<ValueMatch> {
    use api::HttpRouteRulesMatchesHeadersType as Type;
    let mut headers: Vec<ValueMatch> = Vec::new();
    for (index, header) in written.into_iter().flatten().enumerate() {
        let path = format!("{path}.headers[{index}]");
        let is_regex = header.r#type == Some(Type::RegularExpression);
        let value = text_match(&header.value, is_regex, &path, notes);
        let name = filter::header_name(&header.name, &format!("{path}.name"), notes);
        add_once(&mut headers, name, value, &path, notes);
    }
    headers
}

fn query_params(
    written: Option<&[api::HttpRouteRulesMatchesQueryParams]>,
    path: &str,
    notes: &mut Notes,
) -> Vec<ValueMatch> {
    use api::HttpRouteRulesMatchesQueryParamsType as Type;
    let mut params = Vec::new();
    for (index, param) in written.into_iter().flatten().enumerate() {
        let path = format!("{path}.queryParams[{index}]");
        let is_regex = param.r#type == Some(Type::RegularExpression);
        let value = text_match(&param.value, is_regex, &path, notes);
        if param.name.is_empty() {
            notes.violation(&format!("{path}.name"), "is empty");
        }
        add_once(&mut params, Some(param.name.clone()), value, &path, notes);
    }
    params
}

/// Adds a condition; of several on one name only the first counts (Gateway API `HTTPHeaderMatch`).
pub(super) fn add_once(
    list: &mut Vec<ValueMatch>,
    name: Option<String>,
    value: Option<TextMatch>,
    path: &str,
    notes: &mut Notes,
) {
    let (Some(name), Some(value)) = (name, value) else {
        return;
    };
    if list.iter().any(|known| known.name == name) {
        notes.warn(
            path,
            "repeats a name, only the first condition on a name counts",
        );
    } else {
        list.push(ValueMatch { name, value });
    }
}

/// A condition on a text.
pub(super) fn text_match(
    value: &str,
    is_regex: bool,
    path: &str,
    notes: &mut Notes,
) -> Option<TextMatch> {
    if is_regex {
        pattern(value, &format!("{path}.value"), notes).map(TextMatch::Regex)
    } else {
        Some(TextMatch::Exact(value.to_owned()))
    }
}

/// A regular expression within its limits.
pub(super) fn pattern(source: &str, path: &str, notes: &mut Notes) -> Option<Pattern> {
    Pattern::new(source)
        .map_err(|error| notes.violation(path, error.to_string()))
        .ok()
}
