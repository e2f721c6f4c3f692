//! Filters: from a type name and an open struct to a typed variant.
//!
//! A type this data plane does not know becomes [`Filter::Unsupported`], because Gateway API wants
//! requests to fail rather than a filter to be skipped. A known type with wrong values is refused,
//! and every one of them is told.

use std::sync::Arc;

use super::fields::Fields;
use super::report::{At, Quoted, Report};
use super::{route, value};
use crate::backend::BackendTarget;
use crate::filter::{
    Cors, DirectResponse, ExternalAuth, ExternalAuthProtocol, Filter, HeaderEdit, Mirror, PathEdit,
    Redirect, Rewrite, Scheme, UNSUPPORTED_KEY,
};
use crate::wire;

/// What Gateway API assumes for `maxAge`.
const CORS_MAX_AGE_SECONDS: u32 = 5;

/// All filters of a rule or backend; a rewrite that changes nothing is left out.
pub(super) fn filters(
    filters: Vec<wire::Filter>,
    namespace: &str,
    at: &At<'_>,
    report: &mut Report,
) -> Option<Vec<Filter>> {
    let mut decoded = Vec::with_capacity(filters.len());
    let mut is_good = true;
    for (index, item) in filters.into_iter().enumerate() {
        match filter(item, namespace, &at.index("filters", index), report) {
            Some(Filter::Rewrite(Rewrite {
                hostname: None,
                path: None,
            })) => {}
            Some(filter) => decoded.push(filter),
            None => is_good = false,
        }
    }
    is_good.then_some(decoded)
}

fn filter(item: wire::Filter, namespace: &str, at: &At<'_>, report: &mut Report) -> Option<Filter> {
    let config = item.config.unwrap_or_default();
    let at_config = at.field("config");
    let fields = Fields::new(&config, &at_config);
    if let Some(reason) = fields.text(UNSUPPORTED_KEY, report)? {
        return Some(Filter::Unsupported {
            name: item.r#type,
            reason,
        });
    }
    match item.r#type.as_str() {
        "RequestHeaderModifier" => header_edit(&fields, report).map(Filter::RequestHeaders),
        "ResponseHeaderModifier" => header_edit(&fields, report).map(Filter::ResponseHeaders),
        "RequestRedirect" => redirect(&fields, report).map(Filter::Redirect),
        "URLRewrite" => rewrite(&fields, report).map(Filter::Rewrite),
        "RequestMirror" => mirror(&fields, namespace, report).map(Filter::Mirror),
        "CORS" => cors(&fields, report).map(Filter::Cors),
        "ExternalAuth" => external_auth(&fields, namespace, report).map(Filter::ExternalAuth),
        "ExtensionRef" => extension(item.r#type, &fields, report),
        "" => report.refuse(&at.field("type"), "is empty, name a filter"),
        _ => Some(Filter::Unsupported {
            reason: "this data plane does not know the filter".to_owned(),
            name: item.r#type,
        }),
    }
}

fn header_edit(fields: &Fields<'_>, report: &mut Report) -> Option<HeaderEdit> {
    let mut pairs = |name| {
        fields.objects(name, report, |pair, report| {
            let name = pair.text("name", report).and_then(|name| match name {
                Some(name) => value::header_name(name, &pair.at.field("name"), report),
                None => report.refuse(&pair.at.field("name"), "is missing"),
            });
            let text = pair.text("value", report).and_then(|text| {
                let at = pair.at.field("value");
                value::header_value(text.unwrap_or_default(), &at, report)
            });
            name.zip(text)
        })
    };
    let set = pairs("set");
    let add = pairs("add");
    let remove = fields.texts("remove", report, value::header_name);
    Some(HeaderEdit {
        set: set?,
        add: add?,
        remove: remove?,
    })
}

fn redirect(fields: &Fields<'_>, report: &mut Report) -> Option<Redirect> {
    let scheme = fields.text("scheme", report).and_then(|scheme| {
        Some(match scheme.as_deref() {
            None | Some("") => None,
            Some("http") => Some(Scheme::Http),
            Some("https") => Some(Scheme::Https),
            Some(other) => {
                let shown = Quoted(other);
                let message = format_args!("{shown} is not a scheme, write http or https");
                return report.refuse(&fields.at.field("scheme"), message);
            }
        })
    });
    let hostname = hostname(fields, report);
    let path = path_edit(fields, report);
    let port = fields.whole_number("port", 1, 65_535, report);
    let status = fields.whole_number("statusCode", 100, 599, report);
    let status = status.and_then(|status| match status {
        None => Some(302),
        Some(status @ (301 | 302 | 303 | 307 | 308)) => u16::try_from(status).ok(),
        Some(other) => report.refuse(
            &fields.at.field("statusCode"),
            format_args!("{other} is not a redirect, write 301, 302, 303, 307 or 308"),
        ),
    });
    Some(Redirect {
        scheme: scheme?,
        hostname: hostname?,
        path: path?,
        port: port?.and_then(|port| u16::try_from(port).ok()),
        status: status?,
    })
}

fn rewrite(fields: &Fields<'_>, report: &mut Report) -> Option<Rewrite> {
    let hostname = hostname(fields, report);
    let path = path_edit(fields, report);
    Some(Rewrite {
        hostname: hostname?,
        path: path?,
    })
}

fn hostname(fields: &Fields<'_>, report: &mut Report) -> Option<Option<String>> {
    match fields.text("hostname", report)? {
        None => Some(None),
        Some(name) if name.is_empty() => Some(None),
        Some(name) => {
            let name = value::exact_hostname(&name, &fields.at.field("hostname"), report)?;
            Some(Some(name.as_str().to_owned()))
        }
    }
}

fn path_edit(fields: &Fields<'_>, report: &mut Report) -> Option<Option<PathEdit>> {
    let at = fields.at.field("path");
    let Some(path) = fields.object("path", &at, report)? else {
        return Some(None);
    };
    let kind = path.text("type", report)?.unwrap_or_default();
    match kind.as_str() {
        "ReplaceFullPath" => {
            let text = path.text("replaceFullPath", report)?;
            let text = text
                .filter(|t| !t.is_empty())
                .unwrap_or_else(|| "/".to_owned());
            let text = value::path(text, &at.field("replaceFullPath"), report)?;
            Some(Some(PathEdit::Full(text)))
        }
        "ReplacePrefixMatch" => {
            let text = path.text("replacePrefixMatch", report)?;
            let text = text
                .filter(|t| !t.is_empty())
                .unwrap_or_else(|| "/".to_owned());
            let text = value::path(text, &at.field("replacePrefixMatch"), report)?;
            Some(Some(PathEdit::Prefix(text)))
        }
        "" if path.is_empty() => Some(None),
        other => {
            let shown = Quoted(other);
            report.refuse(
                &at.field("type"),
                format_args!("{shown} is not known, write ReplaceFullPath or ReplacePrefixMatch"),
            )
        }
    }
}

fn mirror(fields: &Fields<'_>, namespace: &str, report: &mut Report) -> Option<Mirror> {
    let backend = backend(fields, namespace, report);
    let percent = fields.whole_number("percent", 0, 100, report);
    let fraction = fraction(fields, report);
    let backend = backend?;
    let fraction = match (fraction?, percent?) {
        (Some(fraction), _) => fraction,
        (None, Some(percent)) => (percent, 100),
        (None, None) => (1, 1),
    };
    Some(Mirror { backend, fraction })
}

/// Numerator and denominator, when a fraction is written.
fn fraction(fields: &Fields<'_>, report: &mut Report) -> Option<Option<(u32, u32)>> {
    let at = fields.at.field("fraction");
    let Some(fraction) = fields.object("fraction", &at, report)? else {
        return Some(None);
    };
    let denominator = fraction.whole_number("denominator", 1, u32::MAX, report);
    let numerator = fraction.whole_number("numerator", 0, u32::MAX, report);
    let denominator = denominator?.unwrap_or(100);
    let numerator = numerator?.unwrap_or(0);
    if numerator > denominator {
        return report.refuse(&at, "is more than one");
    }
    Some(Some((numerator, denominator)))
}

/// The backend that a mirror or an authorization filter names.
fn backend(fields: &Fields<'_>, namespace: &str, report: &mut Report) -> Option<BackendTarget> {
    let at = fields.at.field("backendRef");
    let Some(backend) = fields.object("backendRef", &at, report)? else {
        return report.refuse(&at, "is missing, name a backend");
    };
    let metadata_at = at.field("metadata");
    let metadata = backend.object("metadata", &metadata_at, report);
    let mut text = |name| backend.text(name, report).map(Option::unwrap_or_default);
    let group = text("group");
    let kind = text("kind");
    let name = text("name");
    let its_namespace = text("namespace");
    let port = backend.whole_number("port", 0, 65_535, report);
    let reference = wire::BackendRef {
        group: group?,
        kind: kind?,
        namespace: its_namespace?,
        name: name?,
        port: port?.unwrap_or(0),
        metadata: metadata?
            .map(|metadata| metadata.text_map())
            .unwrap_or_default(),
        ..Default::default()
    };
    route::target(&reference, namespace, &at, report)
}

fn cors(fields: &Fields<'_>, report: &mut Report) -> Option<Cors> {
    let allow_origins = fields.texts("allowOrigins", report, origin);
    let allow_methods = fields.texts("allowMethods", report, token_or_star);
    let allow_headers = fields.texts("allowHeaders", report, token_or_star);
    let expose_headers = fields.texts("exposeHeaders", report, token_or_star);
    let allow_credentials = fields.flag("allowCredentials", report);
    let max_age = fields.whole_number("maxAge", 0, i32::MAX.unsigned_abs(), report);
    Some(Cors {
        allow_origins: allow_origins?,
        allow_methods: allow_methods?,
        allow_headers: allow_headers?,
        expose_headers: expose_headers?,
        allow_credentials: allow_credentials?.unwrap_or(false),
        max_age_seconds: max_age?.unwrap_or(CORS_MAX_AGE_SECONDS),
    })
}

/// `*`, or a scheme and a host, perhaps with a wildcard and a port.
pub(super) fn origin(text: String, at: &At<'_>, report: &mut Report) -> Option<String> {
    let is_good = text == "*"
        || text.split_once("://").is_some_and(|(scheme, host)| {
            !scheme.is_empty()
                && !host.is_empty()
                && host.bytes().all(|b| b.is_ascii_graphic() && b != b'/')
        });
    if is_good {
        return Some(text);
    }
    let shown = Quoted(&text);
    report.refuse(
        at,
        format_args!("{shown} is not an origin, write https://www.example.com or *"),
    )
}

/// A method or the name of a header field, or `*` (which is a token too).
pub(super) fn token_or_star(text: String, at: &At<'_>, report: &mut Report) -> Option<String> {
    if value::is_token(&text) {
        return Some(text);
    }
    let shown = Quoted(&text);
    report.refuse(
        at,
        format_args!("{shown} is not a method or the name of a header field"),
    )
}

fn external_auth(
    fields: &Fields<'_>,
    namespace: &str,
    report: &mut Report,
) -> Option<ExternalAuth> {
    let backend = backend(fields, namespace, report);
    let body_max = fields.whole_number("forwardBodyMaxSize", 0, u32::MAX, report);
    let protocol = fields.text("protocol", report);
    let protocol = protocol.and_then(|protocol| match protocol.as_deref() {
        Some("HTTP") => auth_over_http(fields, report),
        Some("GRPC") => auth_over_grpc(fields, report),
        _ => report.refuse(
            &fields.at.field("protocol"),
            "is not known, write HTTP or GRPC",
        ),
    });
    Some(ExternalAuth {
        backend: backend?,
        protocol: protocol?,
        forward_body_bytes_max: body_max?.unwrap_or(0),
    })
}

fn auth_over_http(fields: &Fields<'_>, report: &mut Report) -> Option<ExternalAuthProtocol> {
    let at = fields.at.field("http");
    let Some(http) = fields.object("http", &at, report)? else {
        return Some(ExternalAuthProtocol::Http {
            path_prefix: String::new(),
            allowed_headers: Vec::new(),
            allowed_response_headers: Vec::new(),
        });
    };
    let allowed = http.texts("allowedHeaders", report, value::header_name);
    let returned = http.texts("allowedResponseHeaders", report, value::header_name);
    let path = http.text("path", report).and_then(|path| match path {
        Some(path) if !path.is_empty() => {
            // The Gateway API asks for no slash at the start, a path needs one.
            let slash = if path.starts_with('/') { "" } else { "/" };
            value::path(format!("{slash}{path}"), &at.field("path"), report)
        }
        _ => Some(String::new()),
    });
    Some(ExternalAuthProtocol::Http {
        path_prefix: path?,
        allowed_headers: allowed?,
        allowed_response_headers: returned?,
    })
}

fn auth_over_grpc(fields: &Fields<'_>, report: &mut Report) -> Option<ExternalAuthProtocol> {
    let at = fields.at.field("grpc");
    let allowed_headers = match fields.object("grpc", &at, report)? {
        Some(grpc) => grpc.texts("allowedHeaders", report, value::header_name)?,
        None => Vec::new(),
    };
    Some(ExternalAuthProtocol::Grpc { allowed_headers })
}

fn extension(name: String, fields: &Fields<'_>, report: &mut Report) -> Option<Filter> {
    let is_resolved = fields.flag("resolved", report);
    let kind = fields.text("extensionType", report);
    let is_resolved = is_resolved?.unwrap_or(false);
    let kind = kind?.unwrap_or_default();
    if !is_resolved || kind != "DirectResponse" {
        let reason = if is_resolved {
            format!(
                "this data plane does not know the extension {}",
                Quoted(&kind)
            )
        } else {
            "the control plane could not resolve the extension".to_owned()
        };
        return Some(Filter::Unsupported { name, reason });
    }
    let at = fields.at.field("directResponse");
    let Some(response) = fields.object("directResponse", &at, report)? else {
        return report.refuse(&at, "is missing");
    };
    let status = response.whole_number("statusCode", 200, 599, report);
    let body = response.text("body", report);
    let content_type = response.text("contentType", report).and_then(|text| {
        let at = at.field("contentType");
        value::header_value(text.unwrap_or_default(), &at, report)
    });
    Some(Filter::DirectResponse(DirectResponse {
        status: status?.and_then(|s| u16::try_from(s).ok()).unwrap_or(200),
        body: Arc::from(body?.unwrap_or_default()),
        content_type: content_type?,
    }))
}
