//! Filters: a type name and an open struct with the keys of Gateway API.

use prost_types::value::Kind;
use prost_types::{Struct, Value};

use super::route::target;
use super::{number, object, text, value, values};
use crate::backend::{BackendTarget, VALID_KEY};
use crate::filter::{
    Cors, DirectResponse, ExternalAuth, ExternalAuthProtocol, Filter, HeaderEdit, Mirror, PathEdit,
    Redirect, Rewrite, Scheme, UNSUPPORTED_KEY,
};
use crate::wire;

pub(super) fn filters(filters: &[Filter]) -> Vec<wire::Filter> {
    filters.iter().map(filter).collect()
}

fn filter(filter: &Filter) -> wire::Filter {
    let (name, fields) = match filter {
        Filter::RequestHeaders(edit) => ("RequestHeaderModifier", header_edit(edit)),
        Filter::ResponseHeaders(edit) => ("ResponseHeaderModifier", header_edit(edit)),
        Filter::Redirect(item) => ("RequestRedirect", redirect(item)),
        Filter::Rewrite(item) => ("URLRewrite", rewrite(item)),
        Filter::Mirror(item) => ("RequestMirror", mirror(item)),
        Filter::Cors(item) => ("CORS", cors(item)),
        Filter::ExternalAuth(item) => ("ExternalAuth", external_auth(item)),
        Filter::DirectResponse(item) => ("ExtensionRef", direct_response(item)),
        Filter::Unsupported { name, reason } => {
            (name.as_str(), vec![(UNSUPPORTED_KEY, text(reason))])
        }
    };
    wire::Filter {
        r#type: name.to_owned(),
        config: Some(Struct {
            fields: fields
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        }),
    }
}

type Fields = Vec<(&'static str, Value)>;

fn header_edit(edit: &HeaderEdit) -> Fields {
    let pairs = |pairs: &[(String, String)]| {
        let pairs = pairs.iter();
        values(pairs.map(|(name, value)| object([("name", text(name)), ("value", text(value))])))
    };
    let mut fields = Fields::new();
    if !edit.set.is_empty() {
        fields.push(("set", pairs(&edit.set)));
    }
    if !edit.add.is_empty() {
        fields.push(("add", pairs(&edit.add)));
    }
    push_texts(&mut fields, "remove", &edit.remove);
    fields
}

fn redirect(item: &Redirect) -> Fields {
    let mut fields = vec![("statusCode", number(u32::from(item.status)))];
    if let Some(scheme) = item.scheme {
        let scheme = match scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        fields.push(("scheme", text(scheme)));
    }
    if let Some(hostname) = &item.hostname {
        fields.push(("hostname", text(hostname)));
    }
    if let Some(port) = item.port {
        fields.push(("port", number(u32::from(port))));
    }
    fields.extend(item.path.as_ref().map(path_edit));
    fields
}

fn rewrite(item: &Rewrite) -> Fields {
    let mut fields = Fields::new();
    if let Some(hostname) = &item.hostname {
        fields.push(("hostname", text(hostname)));
    }
    fields.extend(item.path.as_ref().map(path_edit));
    fields
}

fn path_edit(edit: &PathEdit) -> (&'static str, Value) {
    let edit = match edit {
        PathEdit::Full(path) => object([
            ("type", text("ReplaceFullPath")),
            ("replaceFullPath", text(path)),
        ]),
        PathEdit::Prefix(path) => object([
            ("type", text("ReplacePrefixMatch")),
            ("replacePrefixMatch", text(path)),
        ]),
    };
    ("path", edit)
}

fn mirror(item: &Mirror) -> Fields {
    let (numerator, denominator) = item.fraction;
    let fraction = object([
        ("numerator", number(numerator)),
        ("denominator", number(denominator)),
    ]);
    vec![
        ("backendRef", backend(&item.backend)),
        ("fraction", fraction),
    ]
}

fn backend(item: &BackendTarget) -> Value {
    let reference = target(item);
    let mut fields = vec![
        ("namespace", text(&reference.namespace)),
        ("name", text(&reference.name)),
        ("group", text(&reference.group)),
        ("kind", text(&reference.kind)),
    ];
    if reference.port > 0 {
        fields.push(("port", number(reference.port)));
    }
    if let Some(mark) = reference.metadata.get(VALID_KEY) {
        fields.push(("metadata", object([(VALID_KEY, text(mark))])));
    }
    let fields = fields.into_iter();
    value(Kind::StructValue(Struct {
        fields: fields
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    }))
}

fn cors(item: &Cors) -> Fields {
    let mut fields = vec![
        (
            "allowCredentials",
            value(Kind::BoolValue(item.allow_credentials)),
        ),
        ("maxAge", number(item.max_age_seconds)),
    ];
    push_texts(&mut fields, "allowOrigins", &item.allow_origins);
    push_texts(&mut fields, "allowMethods", &item.allow_methods);
    push_texts(&mut fields, "allowHeaders", &item.allow_headers);
    push_texts(&mut fields, "exposeHeaders", &item.expose_headers);
    fields
}

fn external_auth(item: &ExternalAuth) -> Fields {
    let list = |items: &[String]| values(items.iter().map(|item| text(item)));
    let mut fields = vec![
        ("backendRef", backend(&item.backend)),
        ("forwardBodyMaxSize", number(item.forward_body_bytes_max)),
    ];
    match &item.protocol {
        ExternalAuthProtocol::Http {
            path_prefix,
            allowed_headers,
            allowed_response_headers,
        } => {
            let http = object([
                ("path", text(path_prefix)),
                ("allowedHeaders", list(allowed_headers)),
                ("allowedResponseHeaders", list(allowed_response_headers)),
            ]);
            fields.extend([("protocol", text("HTTP")), ("http", http)]);
        }
        ExternalAuthProtocol::Grpc { allowed_headers } => {
            let grpc = object([("allowedHeaders", list(allowed_headers))]);
            fields.extend([("protocol", text("GRPC")), ("grpc", grpc)]);
        }
    }
    fields
}

fn direct_response(item: &DirectResponse) -> Fields {
    let response = object([
        ("statusCode", number(u32::from(item.status))),
        ("body", text(&item.body)),
        ("contentType", text(&item.content_type)),
    ]);
    vec![
        ("resolved", value(Kind::BoolValue(true))),
        ("extensionType", text("DirectResponse")),
        ("directResponse", response),
    ]
}

fn push_texts(fields: &mut Fields, name: &'static str, items: &[String]) {
    if !items.is_empty() {
        fields.push((name, values(items.iter().map(|item| text(item)))));
    }
}
