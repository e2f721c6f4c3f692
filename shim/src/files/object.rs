//! One YAML document → one typed object, or a fault that names object and field.
//!
//! Strict as `kubectl --validate=strict`: a wrong type or an unknown field refuses the object.
//! `status` and unknown metadata are let through, because objects copied from a cluster carry them.
//! Values never appear in messages about a Secret.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_yaml::{Mapping, Value};

use super::document::Document;
use super::{Fault, Skipped, schema};
use crate::cluster_view::{AnyObject, Kind, Object, Origin, Watched};
use crate::direct_response;

/// What a document turned out to be.
pub(super) enum Outcome {
    Object(AnyObject),
    Skipped(Skipped),
    Fault(Fault),
}

const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// Reads one document.
pub(super) fn read(document: Document) -> Outcome {
    let Document { origin, value } = document;
    let Value::Mapping(mapping) = value else {
        return refuse(
            &origin,
            "",
            "",
            "is not an object, write apiVersion, kind and metadata",
        );
    };
    let text = |key: &str| {
        mapping
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (version, kind) = (text("apiVersion"), text("kind"));
    if version.is_empty() || kind.is_empty() {
        let missing = if kind.is_empty() {
            "kind"
        } else {
            "apiVersion"
        };
        return refuse(&origin, "", missing, "is missing or not text");
    }
    let (group, version_name) = version.split_once('/').unwrap_or(("", &version));
    let gateway = |object: &mut Mapping| {
        object.remove("apiVersion");
        object.remove("kind");
    };
    let plain = |_: &mut Mapping| {};
    match (group, kind.as_str(), version_name) {
        (GATEWAY_API, "GatewayClass", "v1" | "v1beta1") => typed::<
            gateway_api::experimental::gatewayclasses::GatewayClass,
        >(origin, mapping, gateway),
        (GATEWAY_API, "Gateway", "v1" | "v1beta1") => {
            typed::<gateway_api::experimental::gateways::Gateway>(origin, mapping, gateway)
        }
        (GATEWAY_API, "HTTPRoute", "v1" | "v1beta1") => {
            typed::<gateway_api::experimental::httproutes::HttpRoute>(origin, mapping, gateway)
        }
        (GATEWAY_API, "GRPCRoute", "v1") => {
            typed::<gateway_api::experimental::grpcroutes::GrpcRoute>(origin, mapping, gateway)
        }
        (GATEWAY_API, "ReferenceGrant", "v1" | "v1beta1") => typed::<
            gateway_api::experimental::referencegrants::ReferenceGrant,
        >(origin, mapping, gateway),
        (GATEWAY_API, "ListenerSet", "v1") => {
            typed::<gateway_api::experimental::listenersets::ListenerSet>(origin, mapping, gateway)
        }
        (GATEWAY_API, "TLSRoute", "v1" | "v1alpha3" | "v1alpha2") => {
            // Before v1 the list could be left out, which means every name.
            typed::<gateway_api::experimental::tlsroutes::TlsRoute>(origin, mapping, |object| {
                gateway(object);
                if version_name != "v1"
                    && let Some(Value::Mapping(spec)) = object.get_mut("spec")
                    && !spec.contains_key("hostnames")
                {
                    spec.insert("hostnames".into(), Value::Sequence(Vec::new()));
                }
            })
        }
        (GATEWAY_API, "TCPRoute", "v1" | "v1alpha2") => {
            typed::<gateway_api::experimental::tcproutes::TcpRoute>(origin, mapping, gateway)
        }
        (GATEWAY_API, "UDPRoute", "v1" | "v1alpha2") => {
            typed::<gateway_api::experimental::udproutes::UdpRoute>(origin, mapping, gateway)
        }
        (GATEWAY_API, "BackendTLSPolicy", "v1" | "v1alpha3") => {
            typed::<gateway_api::backendtlspolicies::BackendTlsPolicy>(origin, mapping, gateway)
        }
        (direct_response::GROUP, "DirectResponse", "v1alpha1") => {
            typed::<direct_response::DirectResponse>(origin, mapping, gateway)
        }
        ("", "Service", "v1") => {
            typed::<k8s_openapi::api::core::v1::Service>(origin, mapping, plain)
        }
        ("", "Secret", "v1") => typed::<k8s_openapi::api::core::v1::Secret>(origin, mapping, plain),
        ("", "ConfigMap", "v1") => {
            typed::<k8s_openapi::api::core::v1::ConfigMap>(origin, mapping, plain)
        }
        ("", "Namespace", "v1") => {
            typed::<k8s_openapi::api::core::v1::Namespace>(origin, mapping, plain)
        }
        ("discovery.k8s.io", "EndpointSlice", "v1") => {
            typed::<k8s_openapi::api::discovery::v1::EndpointSlice>(origin, mapping, plain)
        }
        _ => Outcome::Skipped(Skipped {
            file: origin.file,
            line: origin.line,
            what: format!("{version} {kind} {}", name_of(&mapping)),
        }),
    }
}

/// Reads an object of a known type; `prepare` takes out what the type does not hold.
fn typed<T>(origin: Origin, mut mapping: Mapping, prepare: impl FnOnce(&mut Mapping)) -> Outcome
where
    T: Watched + DeserializeOwned + JsonSchema,
    AnyObject: From<Object<T>>,
{
    let title = format!("{} {}", T::KIND, name_of(&mapping));
    prepare(&mut mapping);
    mapping.remove("status");
    let mut unknown: Vec<Vec<String>> = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let value = Value::Mapping(mapping);
    let parsed: Result<T, _> = {
        let tracked = serde_path_to_error::Deserializer::new(&value, &mut track);
        serde_ignored::deserialize(tracked, |path| unknown.push(segments(&path)))
    };
    let mut object = match parsed {
        Ok(object) => object,
        Err(error) => {
            let path = track.path().to_string();
            let path = if path == "." { String::new() } else { path };
            let message = if T::KIND == Kind::Secret {
                "cannot be read: data maps names to base64, stringData maps names to text"
                    .to_owned()
            } else {
                error.to_string()
            };
            return refuse(&origin, &title, &path, &message);
        }
    };
    unknown.retain(|path| path.first().is_none_or(|first| first != "metadata"));
    if let Some((field, place)) = unknown.first().and_then(|path| path.split_last()) {
        let message = match schema::nearest::<T>(place, field) {
            Some(name) => format!("unknown field, did you mean `{name}`?"),
            None => "unknown field, remove it".to_owned(),
        };
        return refuse(&origin, &title, &shown(&unknown[0]), &message);
    }
    match place(object.metadata_mut(), is_cluster_scoped(T::KIND)) {
        Ok(()) => Outcome::Object(Object::new(object, origin).into()),
        Err((path, message)) => refuse(&origin, &title, path, message),
    }
}

/// Gives the object its namespace and checks what its key is made of.
fn place(
    metadata: &mut ObjectMeta,
    cluster_scoped: bool,
) -> Result<(), (&'static str, &'static str)> {
    match metadata.name.as_deref() {
        None | Some("") => return Err(("metadata.name", "is missing")),
        Some(name) if !is_name(name) => {
            return Err((
                "metadata.name",
                "is not a name: use a-z, 0-9, - and ., at most 253",
            ));
        }
        Some(_) => {}
    }
    if cluster_scoped {
        metadata.namespace = None;
        return Ok(());
    }
    let namespace = metadata
        .namespace
        .get_or_insert_with(|| "default".to_owned());
    if is_name(namespace) && !namespace.contains('.') && namespace.len() <= 63 {
        Ok(())
    } else {
        Err((
            "metadata.namespace",
            "is not a namespace: use a-z, 0-9 and -, at most 63",
        ))
    }
}

fn is_cluster_scoped(kind: Kind) -> bool {
    matches!(kind, Kind::GatewayClass | Kind::Namespace)
}

/// RFC 1123 subdomain, as the API server asks for.
fn is_name(name: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    name.len() <= 253
        && edge(name.as_bytes().first())
        && edge(name.as_bytes().last())
        && name
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'))
}

/// `namespace/name` as far as it can be read, for messages.
fn name_of(mapping: &Mapping) -> String {
    let metadata = |key| mapping.get("metadata")?.get(key)?.as_str();
    let name = metadata("name").unwrap_or("(no name)");
    match metadata("namespace") {
        Some(namespace) => format!("{namespace}/{name}"),
        None if matches!(
            mapping.get("kind").and_then(Value::as_str),
            Some("GatewayClass" | "Namespace")
        ) =>
        {
            name.to_owned()
        }
        None => format!("default/{name}"),
    }
}

fn refuse(origin: &Origin, object: &str, path: &str, message: &str) -> Outcome {
    Outcome::Fault(Fault {
        file: origin.file.clone(),
        line: origin.line,
        object: object.to_owned(),
        path: path.to_owned(),
        message: message.to_owned(),
    })
}

fn segments(path: &serde_ignored::Path<'_>) -> Vec<String> {
    use serde_ignored::Path;
    let (parent, last) = match path {
        Path::Root => return Vec::new(),
        Path::Seq { parent, index } => (parent, Some(index.to_string())),
        Path::Map { parent, key } => (parent, Some(key.clone())),
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => (parent, None),
    };
    let mut segments = segments(parent);
    segments.extend(last);
    segments
}

/// `spec.rules[0].matches`, the way paths are written everywhere else.
fn shown(path: &[String]) -> String {
    let mut text = String::new();
    for segment in path {
        if segment.parse::<usize>().is_ok() {
            text += &format!("[{segment}]");
        } else {
            if !text.is_empty() {
                text.push('.');
            }
            text += segment;
        }
    }
    text
}
