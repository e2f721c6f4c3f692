//! What routes of every kind share: parents, listeners, backends and their filters.

use std::num::NonZeroU16;
use std::sync::Arc;

use super::report::{At, Quoted, Report, first_of_each, list};
use super::{filter, value};
use crate::backend::{BackendTarget, VALID_KEY, word};
use crate::http_route::{BackendRef, ParentRef, TextMatch, ValueMatch};
use crate::wire;

/// Gateway API's limit for the weight of a backend.
const WEIGHT_MAX: u32 = 1_000_000;

/// Names of listeners as the route states them.
pub(super) fn listeners(names: &[String], report: &mut Report) -> Vec<Arc<str>> {
    let mut listeners: Vec<Arc<str>> = names.iter().map(|name| report.share(name)).collect();
    first_of_each(&mut listeners, |name| name);
    listeners
}

pub(super) fn parent_ref(
    parent: wire::ParentRef,
    at: &At<'_>,
    report: &mut Report,
) -> Option<ParentRef> {
    let port = value::optional_port(parent.port, &at.field("port"), report)?;
    Some(ParentRef {
        group: word(&parent.group),
        kind: word(&parent.kind),
        namespace: parent.namespace,
        name: parent.name,
        section_name: value::non_empty(parent.section_name),
        port: port.map(NonZeroU16::get),
    })
}

pub(super) fn backends(
    refs: Vec<wire::BackendRef>,
    namespace: &str,
    at: &At<'_>,
    report: &mut Report,
) -> Option<Vec<BackendRef>> {
    list(refs, at, "backend_refs", report, |backend, at, report| {
        backend_ref(backend, namespace, at, report)
    })
}

fn backend_ref(
    mut backend: wire::BackendRef,
    namespace: &str,
    at: &At<'_>,
    report: &mut Report,
) -> Option<BackendRef> {
    let wire_filters = std::mem::take(&mut backend.filters);
    let filters = filter::filters(wire_filters, namespace, at, report);
    let weight = if backend.weight <= WEIGHT_MAX {
        Some(backend.weight)
    } else {
        let weight = backend.weight;
        report.refuse(
            &at.field("weight"),
            format_args!("{weight} is more than {WEIGHT_MAX}"),
        )
    };
    let target = target(&backend, namespace, at, report);
    Some(BackendRef {
        target: target?,
        weight: weight?,
        filters: filters?,
    })
}

/// A reference to a backend; an empty namespace is that of the object it stands in.
pub(super) fn target(
    backend: &wire::BackendRef,
    namespace: &str,
    at: &At<'_>,
    report: &mut Report,
) -> Option<BackendTarget> {
    let is_resolved = backend.metadata.get(VALID_KEY).is_none_or(|v| v != "false");
    let port = value::optional_port(backend.port, &at.field("port"), report);
    let namespace = match backend.namespace.as_str() {
        "" => namespace,
        own => own,
    };
    if backend.name.is_empty() && is_resolved {
        return report.refuse(&at.field("name"), "is empty, name a backend");
    }
    if backend.name.contains(['/', ':']) || namespace.contains(['/', ':']) {
        let shown = Quoted(&backend.name);
        return report.refuse(&at.field("name"), format_args!("{shown} is not a name"));
    }
    let kind = match backend.kind.as_str() {
        "" => "Service",
        own => own,
    };
    let (display, cluster_keys) = keys(namespace, &backend.name, port?, report);
    Some(BackendTarget {
        display,
        cluster_keys: if is_resolved {
            cluster_keys
        } else {
            Vec::new()
        },
        group: word(&backend.group),
        kind: word(kind),
    })
}

/// What [`BackendTarget::new`] makes, shared with all that name the same backend.
fn keys(
    namespace: &str,
    name: &str,
    port: Option<NonZeroU16>,
    report: &mut Report,
) -> (Arc<str>, Vec<Arc<str>>) {
    let plain = report.share_written(format_args!("{namespace}/{name}"));
    match port {
        Some(port) => {
            let display = report.share_written(format_args!("{plain}:{port}"));
            (display.clone(), vec![plain, display])
        }
        None => (plain.clone(), vec![plain]),
    }
}

/// Conditions on header fields. Of several on one field only the first counts (Gateway API).
pub(super) fn header_matches(
    matches: Vec<wire::HeaderMatch>,
    at: &At<'_>,
    report: &mut Report,
) -> Option<Vec<ValueMatch>> {
    let matches = list(matches, at, "headers", report, |item, at, report| {
        let name = value::header_name(item.name, &at.field("name"), report);
        let value = text_match(&item.match_type, item.value, true, at, report);
        Some(ValueMatch {
            name: name?,
            value: value?,
        })
    });
    let mut matches = matches?;
    first_of_each(&mut matches, |item| &item.name);
    Some(matches)
}

/// Conditions on query parameters. Of several on one name only the first counts (Gateway API).
pub(super) fn query_matches(
    matches: Vec<wire::QueryMatch>,
    at: &At<'_>,
    report: &mut Report,
) -> Option<Vec<ValueMatch>> {
    let matches = list(matches, at, "query_params", report, |item, at, report| {
        let value = text_match(&item.match_type, item.value, false, at, report);
        if item.name.is_empty() {
            return report.refuse(&at.field("name"), "is empty, name a query parameter");
        }
        Some(ValueMatch {
            name: item.name,
            value: value?,
        })
    });
    let mut matches = matches?;
    first_of_each(&mut matches, |item| &item.name);
    Some(matches)
}

fn text_match(
    match_type: &str,
    text: String,
    is_header: bool,
    at: &At<'_>,
    report: &mut Report,
) -> Option<TextMatch> {
    let at_value = at.field("value");
    match match_type {
        "RegularExpression" | "Regex" => {
            return value::pattern(&text, &at_value, report).map(TextMatch::Regex);
        }
        "Present" => return Some(TextMatch::Present),
        "" | "Exact" | "Prefix" | "Suffix" => {}
        other => {
            let shown = Quoted(other);
            return report.refuse(
                &at.field("match_type"),
                format_args!(
                    "{shown} is not known, write Exact, Prefix, Suffix, RegularExpression or Present"
                ),
            );
        }
    }
    let text = if is_header {
        value::header_value(text, &at_value, report)?
    } else {
        text
    };
    Some(match match_type {
        "Prefix" => TextMatch::Prefix(text),
        "Suffix" => TextMatch::Suffix(text),
        _ => TextMatch::Exact(text),
    })
}
