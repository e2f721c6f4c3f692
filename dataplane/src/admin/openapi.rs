//! The OpenAPI document of this API, written from the table that also routes it.
//!
//! What an answer looks like stands in `schemas.json` in a short form, which [`document`] spells out:
//! `integer?` may be null, `[X]` is a list, `{X}` a map, `=a,b` one of these words, a name is another
//! entry, a `~` behind a key means that it may be missing, and ` | ` begins what it means. The tests
//! hold every answer against it, and the copy in `docs/reference` to it.

use serde_json::{Map, Value, json};

use super::answer::{Answer, JSON, PROBLEM};
use super::endpoint::{ALL, Access, Change, Content, Endpoint, Read};

const SCHEMAS: &str = include_str!("schemas.json");

const ABOUT: &str = "What a data plane of Nantian Gateway serves and how it fares. Every path that \
    begins with `/v1/` works as `/api/v1/…` too. HEAD works wherever GET does; OPTIONS names the \
    methods. Fields may be added to answers at any time.";

/// `/openapi.json`.
pub(super) fn answer() -> Answer {
    Answer::json(&document())
}

/// The whole document.
pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for endpoint in ALL {
        for path in endpoint.paths() {
            paths.insert(path.to_owned(), path_item(endpoint, path));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Nantian Gateway data plane admin API",
            "version": "1",
            "description": ABOUT,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "http://127.0.0.1:19080" }],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "adminAuth" },
            },
        },
    })
}

fn path_item(endpoint: &Endpoint, path: &str) -> Value {
    let mut item = Map::new();
    if path.starts_with("/v1/") {
        let both = json!([
            { "url": "http://127.0.0.1:19080" },
            { "url": "http://127.0.0.1:19080/api" },
        ]);
        item.insert("servers".to_owned(), both);
    }
    let names = names(path).map(|name| {
        json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } })
    });
    item.insert("parameters".to_owned(), names.collect());
    item.insert("get".to_owned(), read(endpoint, path));
    if let Some(change) = endpoint.change {
        let operation = change_operation(endpoint, path, change);
        item.insert(change.method.to_ascii_lowercase(), operation);
    }
    item.into()
}

fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn read(endpoint: &Endpoint, path: &str) -> Value {
    let mut responses = Map::new();
    let success = match endpoint.content {
        Content::Text(media) => json!({ media: { "schema": { "type": "string" } } }),
        Content::Json(name) => json!({ JSON: { "schema": of_kind(name) } }),
        Content::List(name) => json!({ JSON: { "schema": of_kind(&format!("[{name}]")) } }),
    };
    let mut ok = json!({ "description": endpoint.about, "content": success });
    let is_paged = matches!(endpoint.read, Read::Listed(_));
    if is_paged {
        ok["headers"] = json!({ "Link": {
            "description": "Where the next page is, with `rel=\"next\"`; missing on the last one.",
            "schema": { "type": "string" },
        }});
        refused(&mut responses, 400, "A parameter cannot be understood.");
    }
    responses.insert("200".to_owned(), ok);
    if matches!(endpoint.read, Read::Asked(_) | Read::Watched(_)) {
        refused(&mut responses, 400, "A parameter cannot be understood.");
    }
    if matches!(endpoint.read, Read::Named(_)) {
        refused(&mut responses, 404, "There is no such object.");
    }
    if is_paged || matches!(endpoint.read, Read::Later(_) | Read::Watched(_)) {
        refused(&mut responses, 503, "Too many such answers at a time.");
    }
    let parameters = endpoint.parameters().map(|parameter| {
        json!({
            "name": parameter.name,
            "in": "query",
            "description": parameter.about,
            "schema": { "type": parameter.kind },
        })
    });
    operation(
        endpoint,
        &format!("get{}", identifier(path)),
        endpoint.about,
        json!({ "parameters": parameters.collect::<Value>() }),
        responses,
    )
}

fn change_operation(endpoint: &Endpoint, path: &str, change: Change) -> Value {
    let mut responses = Map::new();
    let body = |media: &&str| {
        let schema = match *media {
            JSON => of_kind(change.body),
            _ => json!({ "type": "string" }),
        };
        ((*media).to_owned(), json!({ "schema": schema }))
    };
    let content: Map<_, _> = change.takes.iter().map(body).collect();
    let success = match endpoint.content {
        Content::Json(name) => json!({ JSON: { "schema": of_kind(name) } }),
        Content::Text(_) | Content::List(_) => Value::Null,
    };
    let ok = json!({ "description": "The state after the change.", "content": success });
    responses.insert(change.status.to_string(), ok);
    for (status, why) in [
        (400, "The body cannot be understood."),
        (
            403,
            "This API only reads, or the request may come from a page in a browser.",
        ),
        (413, "The body is too large."),
        (415, "The body has another content type."),
    ] {
        refused(&mut responses, status, why);
    }
    operation(
        endpoint,
        &format!("{}{}", change.method.to_ascii_lowercase(), identifier(path)),
        change.about,
        json!({ "requestBody": { "required": true, "content": content } }),
        responses,
    )
}

fn operation(
    endpoint: &Endpoint,
    id: &str,
    about: &str,
    mut operation: Value,
    mut responses: Map<String, Value>,
) -> Value {
    if endpoint.access == Access::Token {
        refused(&mut responses, 401, "The token is missing or wrong.");
        // Without adminAuth there is none to show.
        operation["security"] = json!([{ "token": [] }, {}]);
    }
    if endpoint.path == "/readyz" {
        let not_ready = json!({ "description": "Why no traffic is wanted.", "content": {
            "text/plain; charset=utf-8": { "schema": { "type": "string" } },
        }});
        responses.insert("503".to_owned(), not_ready);
    }
    operation["operationId"] = id.into();
    operation["summary"] = about.into();
    operation["responses"] = responses.into();
    operation
}

/// `/v1/routes/{kind}` as `V1RoutesKind`.
fn identifier(path: &str) -> String {
    let words = path.split(|letter: char| !letter.is_ascii_alphanumeric());
    words
        .map(|word| {
            let (first, rest) = word.split_at(word.len().min(1));
            first.to_ascii_uppercase() + rest
        })
        .collect()
}

fn refused(responses: &mut Map<String, Value>, status: u16, why: &str) {
    let response = json!({
        "description": why,
        "content": { PROBLEM: { "schema": of_kind("Problem") } },
    });
    responses.insert(status.to_string(), response);
}

/// The short forms, spelt out.
fn schemas() -> Map<String, Value> {
    let short: Map<String, Value> = serde_json::from_str(SCHEMAS).unwrap_or_default();
    let mut all: Map<_, _> = short
        .iter()
        .map(|(name, fields)| (name.clone(), object(fields)))
        .collect();
    all.insert("OpenApi".to_owned(), json!({ "type": "object" }));
    all
}

fn object(fields: &Value) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (name, text) in fields.as_object().into_iter().flatten() {
        let (kind, about) = split(text.as_str().unwrap_or_default());
        let mut schema = of_kind(kind);
        if let Some(about) = about {
            schema["description"] = about.into();
        }
        match name.strip_suffix('~') {
            Some(name) => drop(properties.insert(name.to_owned(), schema)),
            None => {
                required.push(name.clone());
                properties.insert(name.clone(), schema);
            }
        }
    }
    let mut object = json!({ "type": "object", "properties": properties });
    if !required.is_empty() {
        object["required"] = required.into();
    }
    object
}

fn split(text: &str) -> (&str, Option<&str>) {
    match text.split_once(" | ") {
        Some((kind, about)) => (kind, Some(about)),
        None => (text, None),
    }
}

fn of_kind(kind: &str) -> Value {
    if let Some(kind) = kind.strip_suffix('?') {
        return match kind {
            "string" | "integer" | "number" | "boolean" | "object" => {
                json!({ "type": [kind, "null"] })
            }
            _ => json!({ "anyOf": [of_kind(kind), { "type": "null" }] }),
        };
    }
    if let Some(words) = kind.strip_prefix('=') {
        let words: Vec<_> = words.split(',').collect();
        return json!({ "type": "string", "enum": words });
    }
    let between = |open, close| kind.strip_prefix(open)?.strip_suffix(close);
    if let Some(item) = between('[', ']') {
        return json!({ "type": "array", "items": of_kind(item) });
    }
    if let Some(value) = between('{', '}') {
        return json!({ "type": "object", "additionalProperties": of_kind(value) });
    }
    match kind {
        "any" => json!({}),
        "string" | "integer" | "number" | "boolean" | "object" => json!({ "type": kind }),
        name => json!({ "$ref": format!("#/components/schemas/{name}") }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_committed_document_is_current() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../docs/reference/openapi.json"
        );
        let text = serde_json::to_string_pretty(&document()).unwrap() + "\n";
        if std::env::var_os("UPDATE_REFERENCE").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == text,
            "docs/reference/openapi.json is stale: run this test with UPDATE_REFERENCE=1"
        );
    }

    #[test]
    fn every_schema_is_used_and_every_name_is_one() {
        let document = document();
        let text = document.to_string();
        let known: BTreeSet<_> = document["components"]["schemas"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let marked = text.split("#/components/schemas/").skip(1);
        let named: BTreeSet<_> = marked.filter_map(|rest| rest.split('"').next()).collect();
        assert_eq!(named, known);
    }

    #[test]
    fn operations_have_names_of_their_own() {
        let document = document();
        let mut names = BTreeSet::new();
        let items = document["paths"].as_object().unwrap().values();
        for operation in items.flat_map(|item| item.as_object().unwrap().values()) {
            if let Some(id) = operation["operationId"].as_str() {
                assert!(names.insert(id.to_owned()), "{id}");
            }
        }
        assert!(names.contains("getV1RoutesKindNamespaceName"), "{names:?}");
    }
}
