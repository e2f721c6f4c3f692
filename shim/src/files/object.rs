//! One YAML document → one typed object, or a fault that names object and field.
//!
//! Strict as `kubectl --validate=strict`: a wrong type or an unknown field refuses the object.
//! `status` and unknown metadata are let through, because objects copied from a cluster carry them.
//! Values never appear in messages about a Secret.

use gateway_api::experimental::xbackendtrafficpolicies::XBackendTrafficPolicy;
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
    let (group, number) = version.split_once('/').unwrap_or(("", &version));
    match group {
        GATEWAY_API => of_gateway_api(document, mapping, &kind, number),
        "gateway.networking.x-k8s.io"
            if (&*kind, number) == ("XBackendTrafficPolicy", "v1alpha1") =>
        {
            typed::<XBackendTrafficPolicy>(document, mapping, without_type)
        }
        "multicluster.x-k8s.io" if (&*kind, number) == ("ServiceImport", "v1alpha1") => {
            typed::<crds::ServiceImport>(document, mapping, without_type)
        }
        crds::GROUP if number == crds::VERSION => of_ours(document, mapping, &kind),
        _ => of_kubernetes(document, mapping, &version, &kind),
    }
}

/// Takes out what the types of custom resources do not hold.
fn without_type(object: &mut Mapping) {
    object.remove("apiVersion");
    object.remove("kind");
}

fn of_gateway_api(document: Document<'_>, mapping: Mapping, kind: &str, version: &str) -> Outcome {
    use gateway_api::experimental as api;

    let gateway = without_type;
    match (kind, version) {
        ("GatewayClass", "v1" | "v1beta1") => {
            typed::<api::gatewayclasses::GatewayClass>(document, mapping, gateway)
        }
        ("Gateway", "v1" | "v1beta1") => {
            typed::<api::gateways::Gateway>(document, mapping, gateway)
        }
        ("HTTPRoute", "v1" | "v1beta1") => {
            typed::<api::httproutes::HttpRoute>(document, mapping, gateway)
        }
        ("GRPCRoute", "v1") => typed::<api::grpcroutes::GrpcRoute>(document, mapping, gateway),
        ("ReferenceGrant", "v1" | "v1beta1") => {
            typed::<api::referencegrants::ReferenceGrant>(document, mapping, gateway)
        }
        ("ListenerSet", "v1") => {
            typed::<api::listenersets::ListenerSet>(document, mapping, gateway)
        }
        ("TLSRoute", "v1" | "v1alpha3" | "v1alpha2") => {
            // Before v1 the list could be left out, which means every name.
            typed::<api::tlsroutes::TlsRoute>(document, mapping, |object| {
                gateway(object);
                if version != "v1"
                    && let Some(Value::Mapping(spec)) = object.get_mut("spec")
                    && !spec.contains_key("hostnames")
                {
                    spec.insert("hostnames".into(), Value::Sequence(Vec::new()));
                }
            })
        }
        ("TCPRoute", "v1" | "v1alpha2") => {
            typed::<api::tcproutes::TcpRoute>(document, mapping, gateway)
        }
        ("UDPRoute", "v1" | "v1alpha2") => {
            typed::<api::udproutes::UdpRoute>(document, mapping, gateway)
        }
        ("BackendTLSPolicy", "v1" | "v1alpha3") => {
            typed::<gateway_api::backendtlspolicies::BackendTlsPolicy>(document, mapping, gateway)
        }
        ("BackendLBPolicy", "v1alpha2") => {
            typed::<crds::BackendLBPolicy>(document, mapping, gateway)
        }
        _ => skipped(document, &mapping),
    }
}

fn of_ours(document: Document<'_>, mapping: Mapping, kind: &str) -> Outcome {
    let ours = without_type;
    match kind {
        "DirectResponse" => typed::<crds::DirectResponse>(document, mapping, ours),
        "RoutePolicy" => typed::<crds::RoutePolicy>(document, mapping, ours),
        "SecurityPolicy" => typed::<crds::SecurityPolicy>(document, mapping, ours),
        "AIService" => typed::<crds::AIService>(document, mapping, ours),
        "TokenPolicy" => typed::<crds::TokenPolicy>(document, mapping, ours),
        "WasmPlugin" => typed::<crds::WasmPlugin>(document, mapping, ours),
        "BackendLBPolicy" => typed::<crds::BackendLBPolicy>(document, mapping, ours),
        _ => skipped(document, &mapping),
    }
}

fn of_kubernetes(document: Document<'_>, mapping: Mapping, version: &str, kind: &str) -> Outcome {
    use k8s_openapi::api::{core, discovery};

    let plain = |_: &mut Mapping| {};
    match (version, kind) {
        ("v1", "Service") => typed::<core::v1::Service>(document, mapping, plain),
        ("v1", "Secret") => typed::<core::v1::Secret>(document, mapping, plain),
        ("v1", "ConfigMap") => typed::<core::v1::ConfigMap>(document, mapping, plain),
        ("v1", "Pod") => typed::<core::v1::Pod>(document, mapping, plain),
        ("v1", "Namespace") => typed::<core::v1::Namespace>(document, mapping, plain),
        ("discovery.k8s.io/v1", "EndpointSlice") => {
            typed::<discovery::v1::EndpointSlice>(document, mapping, plain)
        }
        _ => skipped(document, &mapping),
    }
}

/// An object of a kind that nothing here is made of.
fn skipped(document: Document<'_>, mapping: &Mapping) -> Outcome {
    let text = |key: &str| mapping.get(key).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    Outcome::Skipped(Skipped {
        file: document.origin.file,
        line: document.origin.line,
        what: format!("{version} {kind} {}", name_of(mapping)),
    })
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
    if T::KIND != Kind::Pod {
        mapping.remove("status");
    }
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
