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
use super::place::Step;
use super::{Fault, Skipped, schema};
use crate::cluster_view::{AnyObject, Kind, Object, Watched};

/// What a document turned out to be.
pub(crate) enum Outcome {
    /// It is of a kind that is read.
    Object(AnyObject),
    /// It is of another kind.
    Skipped(Skipped),
    /// It cannot be read.
    Fault(Fault),
}

const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// Reads one object of an API server, which may know fields that we do not.
pub(crate) fn object(value: Value) -> Outcome {
    read(Document::of_api_server(value))
}

/// Reads one document.
pub(super) fn read(document: Document<'_>) -> Outcome {
    let mut document = document;
    let Value::Mapping(mapping) = std::mem::take(&mut document.value) else {
        let message = "is not an object, write apiVersion, kind and metadata";
        return refuse(&document, "", Vec::new(), message);
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
        let path = vec![Step::Key(missing.to_owned())];
        return refuse(&document, "", path, "is missing or not text");
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
        >(document, mapping, gateway),
        (GATEWAY_API, "Gateway", "v1" | "v1beta1") => {
            typed::<gateway_api::experimental::gateways::Gateway>(document, mapping, gateway)
        }
        (GATEWAY_API, "HTTPRoute", "v1" | "v1beta1") => {
            typed::<gateway_api::experimental::httproutes::HttpRoute>(document, mapping, gateway)
        }
        (GATEWAY_API, "GRPCRoute", "v1") => {
            typed::<gateway_api::experimental::grpcroutes::GrpcRoute>(document, mapping, gateway)
        }
        (GATEWAY_API, "ReferenceGrant", "v1" | "v1beta1") => typed::<
            gateway_api::experimental::referencegrants::ReferenceGrant,
        >(document, mapping, gateway),
        (GATEWAY_API, "ListenerSet", "v1") => typed::<
            gateway_api::experimental::listenersets::ListenerSet,
        >(document, mapping, gateway),
        (GATEWAY_API, "TLSRoute", "v1" | "v1alpha3" | "v1alpha2") => {
            // Before v1 the list could be left out, which means every name.
            typed::<gateway_api::experimental::tlsroutes::TlsRoute>(document, mapping, |object| {
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
            typed::<gateway_api::experimental::tcproutes::TcpRoute>(document, mapping, gateway)
        }
        (GATEWAY_API, "UDPRoute", "v1" | "v1alpha2") => {
            typed::<gateway_api::experimental::udproutes::UdpRoute>(document, mapping, gateway)
        }
        (GATEWAY_API, "BackendTLSPolicy", "v1" | "v1alpha3") => {
            typed::<gateway_api::backendtlspolicies::BackendTlsPolicy>(document, mapping, gateway)
        }
        (crds::GROUP, "DirectResponse", crds::VERSION) => {
            typed::<crds::DirectResponse>(document, mapping, gateway)
        }
        (crds::GROUP, "RoutePolicy", crds::VERSION) => {
            typed::<crds::RoutePolicy>(document, mapping, gateway)
        }
        (crds::GROUP, "SecurityPolicy", crds::VERSION) => {
            typed::<crds::SecurityPolicy>(document, mapping, gateway)
        }
        (crds::GROUP, "AIService", crds::VERSION) => {
            typed::<crds::AIService>(document, mapping, gateway)
        }
        (crds::GROUP, "TokenPolicy", crds::VERSION) => {
            typed::<crds::TokenPolicy>(document, mapping, gateway)
        }
        (crds::GROUP, "WasmPlugin", crds::VERSION) => {
            typed::<crds::WasmPlugin>(document, mapping, gateway)
        }
        (crds::GROUP, "BackendLBPolicy", crds::VERSION)
        | (GATEWAY_API, "BackendLBPolicy", "v1alpha2") => {
            typed::<crds::BackendLBPolicy>(document, mapping, gateway)
        }
        ("gateway.networking.x-k8s.io", "XBackendTrafficPolicy", "v1alpha1") => {
            typed::<gateway_api::experimental::xbackendtrafficpolicies::XBackendTrafficPolicy>(
                document, mapping, gateway,
            )
        }
        ("", "Service", "v1") => {
            typed::<k8s_openapi::api::core::v1::Service>(document, mapping, plain)
        }
        ("", "Secret", "v1") => {
            typed::<k8s_openapi::api::core::v1::Secret>(document, mapping, plain)
        }
        ("", "ConfigMap", "v1") => {
            typed::<k8s_openapi::api::core::v1::ConfigMap>(document, mapping, plain)
        }
        ("", "Namespace", "v1") => {
            typed::<k8s_openapi::api::core::v1::Namespace>(document, mapping, plain)
        }
        ("discovery.k8s.io", "EndpointSlice", "v1") => {
            typed::<k8s_openapi::api::discovery::v1::EndpointSlice>(document, mapping, plain)
        }
        _ => Outcome::Skipped(Skipped {
            file: document.origin.file,
            line: document.origin.line,
            what: format!("{version} {kind} {}", name_of(&mapping)),
        }),
    }
}

/// Reads an object of a known type; `prepare` takes out what the type does not hold.
fn typed<T>(
    document: Document<'_>,
    mut mapping: Mapping,
    prepare: impl FnOnce(&mut Mapping),
) -> Outcome
where
    T: Watched + DeserializeOwned + JsonSchema,
    AnyObject: From<Object<T>>,
{
    let title = format!("{} {}", T::KIND, name_of(&mapping));
    prepare(&mut mapping);
    mapping.remove("status");
    let mut unknown: Vec<Vec<Step>> = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let value = Value::Mapping(mapping);
    let parsed: Result<T, _> = {
        let tracked = serde_path_to_error::Deserializer::new(&value, &mut track);
        serde_ignored::deserialize(tracked, |path| unknown.push(steps(&path)))
    };
    let mut object = match parsed {
        Ok(object) => object,
        Err(error) => {
            let message = if T::KIND == Kind::Secret {
                "cannot be read: data maps names to base64, stringData maps names to text"
                    .to_owned()
            } else {
                error.to_string()
            };
            return refuse(&document, &title, tracked_steps(&track.path()), &message);
        }
    };
    unknown.retain(|path| !matches!(path.first(), Some(Step::Key(first)) if first == "metadata"));
    if document.origin.is_api_server() {
        // It was checked against the CRD that is installed, which may be newer than our types.
        unknown.clear();
    }
    if let Some(path) = unknown.into_iter().next() {
        let message = match schema::nearest::<T>(&path) {
            Some(name) => format!("unknown field, did you mean `{name}`?"),
            None => "unknown field, remove it".to_owned(),
        };
        return refuse(&document, &title, path, &message);
    }
    match place(object.metadata_mut(), is_cluster_scoped(T::KIND)) {
        Ok(()) => Outcome::Object(Object::new(object, document.origin).into()),
        Err((field, message)) => {
            let path = ["metadata", field].map(|key| Step::Key(key.to_owned()));
            refuse(&document, &title, path.into(), message)
        }
    }
}

/// Gives the object its namespace and checks what its key is made of.
fn place(
    metadata: &mut ObjectMeta,
    cluster_scoped: bool,
) -> Result<(), (&'static str, &'static str)> {
    match metadata.name.as_deref() {
        None | Some("") => return Err(("name", "is missing")),
        Some(name) if !is_name(name) => {
            return Err(("name", "is not a name: use a-z, 0-9, - and ., at most 253"));
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
            "namespace",
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

fn refuse(document: &Document<'_>, object: &str, path: Vec<Step>, message: &str) -> Outcome {
    Outcome::Fault(Fault {
        file: document.origin.file.clone(),
        path: shown(&path),
        line: document.line_of(path),
        object: object.to_owned(),
        message: message.to_owned(),
    })
}

fn steps(path: &serde_ignored::Path<'_>) -> Vec<Step> {
    use serde_ignored::Path;
    let (parent, last) = match path {
        Path::Root => return Vec::new(),
        Path::Seq { parent, index } => (parent, Some(Step::Item(*index))),
        Path::Map { parent, key } => (parent, Some(Step::Key(key.clone()))),
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => (parent, None),
    };
    let mut steps = steps(parent);
    steps.extend(last);
    steps
}

fn tracked_steps(path: &serde_path_to_error::Path) -> Vec<Step> {
    use serde_path_to_error::Segment;
    let steps = path.iter().filter_map(|segment| match segment {
        Segment::Seq { index } => Some(Step::Item(*index)),
        Segment::Map { key } | Segment::Enum { variant: key } => Some(Step::Key(key.clone())),
        Segment::Unknown => None,
    });
    steps.collect()
}

/// `spec.rules[0].matches`, the way paths are written everywhere else.
fn shown(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Item(index) => text += &format!("[{index}]"),
            Step::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text += key;
            }
        }
    }
    text
}
