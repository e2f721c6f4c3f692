//! The filters of a rule or of one of its backends, typed.
//!
//! The generated API types repeat one filter schema four times; it is read here through the widest
//! of them. [`SUPPORTED`] is the one list of filters the data plane applies: a filter that is not in
//! it is never skipped but answered with 500, as Gateway API asks, and named in a condition.

use gateway_api::experimental::httproutes as api;
use http::{HeaderName, HeaderValue};
use ir::Filter;
use ir::filter::{HeaderEdit, PathEdit, Redirect, Rewrite, Scheme};
use serde::Serialize;

use super::Scope;
use super::notes::Notes;

mod call;
mod cors;
mod extension;

/// Filters the data plane applies, by the name of their type.
pub(super) const SUPPORTED: &[&str] = &[
    "RequestHeaderModifier",
    "ResponseHeaderModifier",
    "RequestRedirect",
    "URLRewrite",
    "RequestMirror",
    "CORS",
    "ExternalAuth",
    "ExtensionRef",
];

/// Where filters stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// Index of the rule.
    pub(super) rule: usize,
    /// Path of the list, as `spec.rules[0].filters`.
    pub(super) path: &'a str,
    /// The rule has exactly one match, by path prefix; only then a matched prefix can be replaced.
    pub(super) one_prefix: bool,
}

/// Translates a list of filters of any of the four generated types.
pub(super) fn filters<F: Serialize>(
    list: Option<&Vec<F>>,
    place: Place<'_>,
    scope: &Scope<'_>,
    notes: &mut Notes,
) -> Vec<Filter> {
    let mut filters = Vec::new();
    let mut seen = Vec::new();
    for (index, filter) in list.into_iter().flatten().enumerate() {
        let path = format!("{}[{index}]", place.path);
        let widest = serde_json::to_value(filter).and_then(serde_json::from_value);
        let Ok(filter) = widest else {
            notes.violation(&path, "is no filter");
            continue;
        };
        let name = type_name(&filter);
        if seen.contains(&name) && !matches!(name, "RequestMirror" | "ExtensionRef") {
            notes.violation(&path, format!("{name} is repeated, write it once"));
        }
        seen.push(name);
        let typed = one(&filter, &path, place, scope, notes);
        if SUPPORTED.contains(&name) {
            filters.extend(typed);
        } else {
            let reason = "is not supported yet, requests that meet it are answered with 500";
            notes.unsupported(place.rule, &path, &format!("filter {name} {reason}"));
            filters.push(Filter::Unsupported {
                name: name.to_owned(),
                reason: "not supported yet".to_owned(),
            });
        }
    }
    if seen.contains(&"RequestRedirect") && seen.contains(&"URLRewrite") {
        notes.violation(
            place.path,
            "RequestRedirect and URLRewrite exclude each other",
        );
    }
    filters
}

fn type_name(filter: &api::HttpRouteRulesFilters) -> &'static str {
    use api::HttpRouteRulesFiltersType as Type;
    match filter.r#type {
        Type::RequestHeaderModifier => "RequestHeaderModifier",
        Type::ResponseHeaderModifier => "ResponseHeaderModifier",
        Type::RequestMirror => "RequestMirror",
        Type::RequestRedirect => "RequestRedirect",
        Type::UrlRewrite => "URLRewrite",
        Type::ExtensionRef => "ExtensionRef",
        Type::Cors => "CORS",
        Type::ExternalAuth => "ExternalAuth",
    }
}

fn one(
    filter: &api::HttpRouteRulesFilters,
    path: &str,
    place: Place<'_>,
    scope: &Scope<'_>,
    notes: &mut Notes,
) -> Option<Filter> {
    let translated = match type_name(filter) {
        "RequestHeaderModifier" => filter.request_header_modifier.as_ref().map(|spec| {
            let path = format!("{path}.requestHeaderModifier");
            header_edit(spec, &path, notes).map(Filter::RequestHeaders)
        }),
        "ResponseHeaderModifier" => filter.response_header_modifier.as_ref().map(|spec| {
            let path = format!("{path}.responseHeaderModifier");
            header_edit(spec, &path, notes).map(Filter::ResponseHeaders)
        }),
        "RequestRedirect" => filter
            .request_redirect
            .as_ref()
            .map(|spec| redirect(spec, &format!("{path}.requestRedirect"), place, notes)),
        "URLRewrite" => filter
            .url_rewrite
            .as_ref()
            .map(|spec| rewrite(spec, &format!("{path}.urlRewrite"), place, notes)),
        "RequestMirror" => filter
            .request_mirror
            .as_ref()
            .map(|spec| call::mirror(spec, &format!("{path}.requestMirror"), scope, notes)),
        "CORS" => filter.cors.as_ref().map(|spec| {
            Some(Filter::Cors(cors::cors(
                spec,
                &format!("{path}.cors"),
                notes,
            )))
        }),
        "ExternalAuth" => filter
            .external_auth
            .as_ref()
            .map(|spec| call::external_auth(spec, &format!("{path}.externalAuth"), scope, notes)),
        _ => filter.extension_ref.as_ref().map(|reference| {
            let path = format!("{path}.extensionRef");
            Some(extension::resolve(reference, &path, scope, notes))
        }),
    };
    translated.unwrap_or_else(|| {
        notes.violation(
            path,
            format!("is of type {} but does not say how", type_name(filter)),
        );
        None
    })
}

/// Reads a header modifier of either direction; both have the same fields.
fn header_edit(spec: &impl Serialize, path: &str, notes: &mut Notes) -> Option<HeaderEdit> {
    let alike = serde_json::to_value(spec)
        .and_then(serde_json::from_value::<api::HttpRouteRulesFiltersRequestHeaderModifier>);
    let Ok(spec) = alike else {
        notes.violation(path, "is no header modifier");
        return None;
    };
    let set = spec
        .set
        .into_iter()
        .flatten()
        .map(|pair| (pair.name, pair.value));
    let add = spec
        .add
        .into_iter()
        .flatten()
        .map(|pair| (pair.name, pair.value));
    let set = header_pairs(set, &format!("{path}.set"), notes);
    let add = header_pairs(add, &format!("{path}.add"), notes);
    let remove = spec
        .remove
        .iter()
        .flatten()
        .enumerate()
        .filter_map(|(index, name)| header_name(name, &format!("{path}.remove[{index}]"), notes))
        .collect();
    Some(HeaderEdit { set, add, remove })
}

fn header_pairs(
    pairs: impl Iterator<Item = (String, String)>,
    path: &str,
    notes: &mut Notes,
) -> Vec<(String, String)> {
    let mut good = Vec::new();
    for (index, (name, value)) in pairs.enumerate() {
        let path = format!("{path}[{index}]");
        let name = header_name(&name, &format!("{path}.name"), notes);
        if HeaderValue::from_str(&value).is_err() {
            let message = "holds characters a header field cannot carry";
            notes.violation(&format!("{path}.value"), message);
        }
        good.extend(name.map(|name| (name, value)));
    }
    good
}

/// A header field's name in lower case.
pub(super) fn header_name(name: &str, path: &str, notes: &mut Notes) -> Option<String> {
    match HeaderName::from_bytes(name.as_bytes()) {
        Ok(name) => Some(name.as_str().to_owned()),
        Err(_) => {
            notes.violation(path, format!("{name:?} is no name of a header field"));
            None
        }
    }
}

fn redirect(
    spec: &api::HttpRouteRulesFiltersRequestRedirect,
    path: &str,
    place: Place<'_>,
    notes: &mut Notes,
) -> Option<Filter> {
    use api::HttpRouteRulesFiltersRequestRedirectPathType as PathType;
    let port = spec.port.map(|port| {
        let checked = u16::try_from(port).ok().filter(|port| *port > 0);
        if checked.is_none() {
            notes.violation(&format!("{path}.port"), format!("{port} is no port"));
        }
        checked.unwrap_or_default()
    });
    let written = spec.status_code.unwrap_or(302);
    let status = u16::try_from(written).unwrap_or_default();
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        let message = format!("{written} is no redirect, use 301, 302, 303, 307 or 308");
        notes.violation(&format!("{path}.statusCode"), message);
    }
    let edit = spec.path.as_ref().and_then(|edit| {
        let replacement = match edit.r#type {
            PathType::ReplaceFullPath => (edit.replace_full_path.clone(), false),
            PathType::ReplacePrefixMatch => (edit.replace_prefix_match.clone(), true),
        };
        path_edit(replacement, &format!("{path}.path"), place, notes)
    });
    Some(Filter::Redirect(Redirect {
        scheme: spec.scheme.as_ref().map(|scheme| match scheme {
            api::HttpRouteRulesFiltersRequestRedirectScheme::Http => Scheme::Http,
            api::HttpRouteRulesFiltersRequestRedirectScheme::Https => Scheme::Https,
        }),
        hostname: host(spec.hostname.as_deref(), path, notes),
        path: edit,
        port,
        status,
    }))
}

fn rewrite(
    spec: &api::HttpRouteRulesFiltersUrlRewrite,
    path: &str,
    place: Place<'_>,
    notes: &mut Notes,
) -> Option<Filter> {
    use api::HttpRouteRulesFiltersUrlRewritePathType as PathType;
    let edit = spec.path.as_ref().and_then(|edit| {
        let replacement = match edit.r#type {
            PathType::ReplaceFullPath => (edit.replace_full_path.clone(), false),
            PathType::ReplacePrefixMatch => (edit.replace_prefix_match.clone(), true),
        };
        path_edit(replacement, &format!("{path}.path"), place, notes)
    });
    let hostname = host(spec.hostname.as_deref(), path, notes);
    // A rewrite of nothing is allowed and does nothing.
    (hostname.is_some() || edit.is_some()).then_some(Filter::Rewrite(Rewrite {
        hostname,
        path: edit,
    }))
}

fn host(name: Option<&str>, path: &str, notes: &mut Notes) -> Option<String> {
    let path = format!("{path}.hostname");
    match ir::Hostname::new(name?) {
        Ok(name) if !name.is_wildcard() => return Some(name.as_str().to_owned()),
        Ok(_) => notes.violation(&path, "is a wildcard, write one DNS name"),
        Err(error) => notes.violation(&path, error.to_string()),
    }
    None
}

fn path_edit(
    (text, is_prefix): (Option<String>, bool),
    path: &str,
    place: Place<'_>,
    notes: &mut Notes,
) -> Option<PathEdit> {
    let Some(text) = text else {
        notes.violation(path, "does not say what to put in place");
        return None;
    };
    if text.len() > 1024
        || text
            .bytes()
            .any(|byte| byte <= b' ' || byte == 0x7f || matches!(byte, b'?' | b'#'))
    {
        notes.violation(
            path,
            "is no path: no spaces, controls, ? or #, at most 1024 bytes",
        );
        return None;
    }
    if is_prefix && !place.one_prefix {
        let message = "ReplacePrefixMatch needs a rule with exactly one match, of type PathPrefix";
        notes.violation(path, message);
    }
    Some(if is_prefix {
        PathEdit::Prefix(text)
    } else {
        PathEdit::Full(text)
    })
}
