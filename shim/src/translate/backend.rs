//! Backends: from a reference to the keys of its cluster, and from a Service to the cluster.
//!
//! A reference that leads nowhere keeps its share of traffic and no keys, so that its requests fail
//! as Gateway API asks; so does one whose endpoints are to be reached over TLS by a policy that
//! cannot be used. Clusters are built only for Service ports that a route sends to.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use ir::cluster::{ClusterProtocol, EndpointAddress, ProxyProtocol};
use ir::resource::Metadata;
use ir::{BackendPolicy, BackendTarget, Cluster, Endpoint};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::backend_tls::Policies;
use super::notes::Notes;
use super::reference::{From, To};
use super::{Scope, ai, mesh};
use crate::cluster_view::{ClusterView, Object};

/// Label that ties an EndpointSlice to its Service.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// `v1` or `v2`: the header that connections to a Service begin with.
const PROXY_PROTOCOL: &str = "gateway.nantian.dev/proxy-protocol";
/// `Auto`: hints of the EndpointSlices are to be followed (topology aware routing).
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";

/// Group and kind of a Service of several clusters.
const IMPORT: (&str, &str) = ("multicluster.x-k8s.io", "ServiceImport");
/// What names of ServiceImports end with where Services stand, whose own hold no dot.
const IMPORT_SUFFIX: &str = ".serviceimport";
/// Label that ties an EndpointSlice to its ServiceImport.
const IMPORT_NAME_LABEL: &str = "multicluster.kubernetes.io/service-name";

/// The key of a ServiceImport where Services stand.
pub(super) fn import_key(key: &str) -> Arc<str> {
    format!("{key}{IMPORT_SUFFIX}").into()
}

/// `Service shop/cart`, as messages name what stands under a key.
fn title(key: &str) -> String {
    match key.strip_suffix(IMPORT_SUFFIX) {
        Some(import) => format!("ServiceImport {import}"),
        None => format!("Service {key}"),
    }
}

/// The Service under a key; of a ServiceImport, what it would be as a Service.
fn service<'a>(view: &'a ClusterView, key: &str) -> Option<Cow<'a, Service>> {
    let Some(import) = key.strip_suffix(IMPORT_SUFFIX) else {
        return view.services.get(key).map(|it| Cow::Borrowed(&it.value));
    };
    let import = &view.service_imports.get(import)?.value;
    Some(Cow::Owned(Service {
        metadata: import.metadata.clone(),
        spec: Some(ServiceSpec {
            cluster_ip: (import.spec.type_ == "Headless").then(|| "None".to_owned()),
            ports: Some(import.spec.ports.clone()),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }))
}

/// A reference to a backend, as the generated types write it in many places.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reference<'a> {
    pub(super) group: Option<&'a str>,
    pub(super) kind: Option<&'a str>,
    pub(super) namespace: Option<&'a str>,
    pub(super) name: &'a str,
    pub(super) port: Option<i32>,
}

/// Finds the cluster of a rule's backend, which may be an AIService where requests are HTTP.
pub(super) fn resolve_backend(
    reference: Reference<'_>,
    path: &str,
    scope: &Scope<'_>,
    notes: &mut Notes,
) -> BackendTarget {
    if reference.group == Some(ai::GROUP) && reference.kind == Some("AIService") {
        let namespace = reference.namespace.unwrap_or(scope.namespace);
        let named = (namespace, reference.name);
        return ai::resolve(named, reference.port.is_some(), path, scope, notes);
    }
    resolve(reference, path, scope, notes)
}

/// Finds the cluster of a reference; why there is none is noted.
pub(super) fn resolve(
    reference: Reference<'_>,
    path: &str,
    scope: &Scope<'_>,
    notes: &mut Notes,
) -> BackendTarget {
    let group = reference.group.unwrap_or_default();
    let kind = reference.kind.unwrap_or("Service");
    let namespace = reference.namespace.unwrap_or(scope.namespace);
    // A Service may have the name of an import, and clusters are told apart by name alone.
    let name = match (group, kind) {
        IMPORT => format!("{}{IMPORT_SUFFIX}", reference.name),
        _ => reference.name.to_owned(),
    };
    let key = format!("{namespace}/{name}");
    let number = reference
        .port
        .and_then(|port| NonZeroU16::new(u16::try_from(port).ok()?));
    let target = BackendTarget::new(group, kind, namespace, &name, number);
    let is_import = (group, kind) == IMPORT;
    if !is_import && (group, kind) != ("", "Service") {
        let kind = if group.is_empty() {
            kind.to_owned()
        } else {
            format!("{group} {kind}")
        };
        let message = format!("kind {kind} is no backend here, use a Service or a ServiceImport");
        notes.unresolved("InvalidKind", path, message);
        return target.unresolved();
    }
    let Some(port) = number else {
        notes.violation(
            &format!("{path}.port"),
            "is missing or no port, a Service or ServiceImport needs one",
        );
        return target.unresolved();
    };
    notes.services.insert(key.as_str().into());
    if namespace != scope.namespace {
        notes.crosses_namespaces = true;
    }
    match usable_port(&key, reference.name, i32::from(port.get()), scope, notes) {
        Ok(()) => {
            notes.clusters.insert(target.display.clone());
            target
        }
        Err((reason, message)) => {
            notes.unresolved(reason, path, message);
            target.unresolved()
        }
    }
}

fn usable_port(
    key: &str,
    name: &str,
    port: i32,
    scope: &Scope<'_>,
    notes: &mut Notes,
) -> Result<(), (&'static str, String)> {
    let namespace = key.split_once('/').map_or("", |(namespace, _)| namespace);
    let from = From::gateway_api(scope.kind, scope.namespace);
    let (group, kind) = if key.ends_with(IMPORT_SUFFIX) {
        IMPORT
    } else {
        ("", "Service")
    };
    let to = To {
        group,
        kind,
        namespace,
        name,
    };
    let title = title(key);
    // Who stands in front of a Service sends nobody there who was not on the way to it.
    if !scope.fronts.contains(key) && !scope.grants.allow(from, to) {
        return Err((
            "RefNotPermitted",
            format!("{title} is in another namespace, which needs a ReferenceGrant there"),
        ));
    }
    let Some(found) = service(scope.view, key) else {
        return Err(("BackendNotFound", format!("there is no {title}")));
    };
    let spec = found.spec.as_ref();
    if spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName") {
        let message = format!("{title} is of type ExternalName, which is not supported");
        return Err(("UnsupportedValue", message));
    }
    if spec.and_then(|spec| spec.cluster_ip.as_deref()) == Some("None") && group == IMPORT.0 {
        let message = format!("{title} is headless, which is not supported");
        return Err(("UnsupportedValue", message));
    }
    let wanted = if scope.kind == "UDPRoute" { UDP } else { TCP };
    let Some(service_port) = port_of(&found, port, wanted) else {
        let ports = spec
            .and_then(|spec| spec.ports.as_ref())
            .into_iter()
            .flatten();
        let ports: Vec<_> = ports.map(|port| port.port.to_string()).collect();
        let message = format!("{title} has no port {port}, it has {}", ports.join(", "));
        return Err(("BackendNotFound", message));
    };
    if spoken(service_port) != wanted {
        let message = format!("port {port} of {title} does not speak {wanted}");
        return Err(("UnsupportedProtocol", message));
    }
    if let Some(asked) = proxy_protocol(&found) {
        let what = asked.map_err(|message| ("UnsupportedValue", message))?;
        if !matches!(scope.kind, "TCPRoute" | "TLSRoute") {
            // The header would be missing, and the backend waits for it.
            let message = format!(
                "{title} asks for a PROXY protocol header ({what:?}), which only TCPRoutes \
                 and TLSRoutes send"
            );
            return Err(("UnsupportedValue", message));
        }
    }
    let twin = port_of(&found, port, TCP);
    if twin.is_some_and(|twin| twin.target_port != service_port.target_port) {
        // The contract names a cluster by its number alone.
        let message = format!(
            "port {port} of {title} leads elsewhere over TCP than over UDP, which is not \
             supported: give both the same targetPort, or one of them another number"
        );
        return Err(("UnsupportedValue", message));
    }
    if scope.passes_tls {
        return Ok(());
    }
    notes.reached.insert(key.into());
    secured(key, service_port, scope)
}

/// Whether the port may be sent to, as far as TLS goes.
fn secured(key: &str, port: &ServicePort, scope: &Scope<'_>) -> Result<(), (&'static str, String)> {
    match scope.policies.of_port(key, port) {
        Some(verdict) if spoken(port) == UDP => {
            let message = format!(
                "BackendTLSPolicy {} asks for TLS towards Service {key}, which datagrams cannot have",
                verdict.policy
            );
            Err(("UnsupportedProtocol", message))
        }
        Some(verdict) if verdict.tls.is_some() => Ok(()),
        Some(verdict) => {
            let message = format!(
                "BackendTLSPolicy {} cannot be used, so nothing is sent to Service {key}; see what \
                 the policy is told",
                verdict.policy
            );
            Err(("InvalidBackendTLSPolicy", message))
        }
        // A stream is carried as it comes, which may be TLS.
        None if scope.is_stream() => Ok(()),
        None => match protocol(port) {
            ClusterProtocol::Https | ClusterProtocol::Grpcs => {
                let message = format!(
                    "port {} of Service {key} speaks TLS and no BackendTLSPolicy says whom to \
                     trust, add one",
                    port.port
                );
                Err(("UnsupportedProtocol", message))
            }
            _ => Ok(()),
        },
    }
}

/// The port of that number, where there are two the one that speaks `protocol`.
fn port_of<'a>(service: &'a Service, port: i32, protocol: &str) -> Option<&'a ServicePort> {
    let ports = service.spec.as_ref()?.ports.iter().flatten();
    let mut same = ports.filter(|known| known.port == port);
    let first = same.next()?;
    Some(match spoken(first) == protocol {
        true => first,
        false => same
            .find(|known| spoken(known) == protocol)
            .unwrap_or(first),
    })
}

/// What the annotation of a Service asks its connections to begin with.
fn proxy_protocol(service: &Service) -> Option<Result<ProxyProtocol, String>> {
    let value = service.metadata.annotations.as_ref()?.get(PROXY_PROTOCOL)?;
    Some(match value.trim() {
        "v1" => Ok(ProxyProtocol::V1),
        "v2" => Ok(ProxyProtocol::V2),
        other => Err(format!(
            "annotation {PROXY_PROTOCOL}: {other:?} is not understood, write v1 or v2"
        )),
    })
}

const TCP: &str = "TCP";
const UDP: &str = "UDP";

/// The transport of a port.
fn spoken(port: &ServicePort) -> &str {
    match port.protocol.as_deref() {
        None | Some("") => TCP,
        Some(protocol) => protocol,
    }
}

/// The Services an EndpointSlice belongs to, `namespace/service`: one, and one more where it is that
/// of an import, too.
pub(super) fn services_of(slice: &Object<EndpointSlice>) -> Vec<Arc<str>> {
    match mesh::role(slice) {
        // What leads to data planes is where requests come from.
        Some((mesh::FRONTEND, _)) => return Vec::new(),
        Some((_, original)) => return vec![original],
        None => {}
    }
    let Some(labels) = &slice.value.metadata.labels else {
        return Vec::new();
    };
    let key = |name: &String| format!("{}/{name}", slice.namespace());
    let own = labels.get(SERVICE_NAME_LABEL);
    let import = labels.get(IMPORT_NAME_LABEL);
    let own = own.map(|name| key(name).into());
    own.into_iter()
        .chain(import.map(|name| import_key(&key(name))))
        .collect()
}

/// The Service of a cluster's key.
pub(super) fn service_key(cluster: &str) -> &str {
    cluster
        .rsplit_once(':')
        .map_or(cluster, |(service, _)| service)
}

/// Builds the cluster of `key` (`namespace/service:port`) when its Service has that port.
pub(super) fn cluster<'a>(
    key: &Arc<str>,
    view: &ClusterView,
    policies: &Policies,
    slices: impl Iterator<Item = &'a Arc<Object<EndpointSlice>>>,
) -> Option<Cluster> {
    let (service_key, port) = key.rsplit_once(':')?;
    let service = service(view, service_key)?;
    let port = port_of(&service, port.parse().ok()?, TCP)?;
    let mut endpoints: Vec<Endpoint> = Vec::new();
    let mut seen = BTreeMap::new();
    for endpoint in slices.flat_map(|slice| endpoints_of(&slice.value, port)) {
        let EndpointAddress::Ip(ip) = &endpoint.address else {
            continue;
        };
        // An endpoint may be in several slices for a while: what is ready in one of them is ready.
        let state = |it: &Endpoint| (it.is_ready, it.is_ending);
        match seen.entry((*ip, endpoint.port)) {
            Entry::Vacant(place) => {
                place.insert(endpoints.len());
                endpoints.push(endpoint);
            }
            Entry::Occupied(place) => {
                let known = &mut endpoints[*place.get()];
                if state(&endpoint) > state(known) {
                    *known = endpoint;
                }
            }
        }
    }
    let prefers_own_zone = prefers_own_zone(&service, &endpoints);
    Some(Cluster {
        endpoints,
        metadata: Metadata::from([(
            "service".to_owned(),
            service.metadata.name.clone().unwrap_or_default(),
        )]),
        tls: policies
            .of_port(service_key, port)
            .and_then(|verdict| verdict.tls.clone()),
        policy: prefers_own_zone.then(|| {
            let policy = BackendPolicy {
                prefers_own_zone,
                ..BackendPolicy::default()
            };
            policy.into()
        }),
        proxy_protocol: proxy_protocol(&service).and_then(Result::ok),
        ..Cluster::new(key.clone(), protocol(port))
    })
}

/// Whether the Service itself asks for near endpoints, by `trafficDistribution` or by the older
/// annotation, which means the hints and nothing where the cluster gave none.
fn prefers_own_zone(service: &Service, endpoints: &[Endpoint]) -> bool {
    let spec = service.spec.as_ref();
    let asked = spec.and_then(|spec| spec.traffic_distribution.as_deref());
    // A data plane knows no node, and the same node is in the same zone.
    if let Some("PreferClose" | "PreferSameZone" | "PreferSameNode") = asked {
        return true;
    }
    let annotations = service.metadata.annotations.as_ref();
    let mode = annotations.and_then(|known| known.get(TOPOLOGY_MODE));
    let mut usable = endpoints.iter().filter(|endpoint| endpoint.is_ready);
    asked.is_none()
        && matches!(mode.map(String::as_str), Some("Auto" | "auto"))
        && usable.all(|endpoint| !endpoint.zone_hints.is_empty())
}

fn endpoints_of(slice: &EndpointSlice, port: &ServicePort) -> Vec<Endpoint> {
    let Some(number) = endpoint_port(slice, port) else {
        return Vec::new();
    };
    slice
        .endpoints
        .iter()
        .filter_map(|endpoint| {
            // Only the first address of an endpoint has a meaning (EndpointSlice API).
            let ip: IpAddr = endpoint.addresses.first()?.parse().ok()?;
            let conditions = endpoint.conditions.as_ref();
            let ready = conditions.and_then(|it| it.ready).unwrap_or(true);
            let is_ending = conditions
                .is_some_and(|it| it.terminating.unwrap_or(false) && it.serving.unwrap_or(false));
            let hints = endpoint.hints.as_ref();
            let zones = hints.and_then(|hints| hints.for_zones.as_ref());
            Some(Endpoint {
                address: EndpointAddress::Ip(ip),
                port: number,
                is_ready: ready,
                is_ending: is_ending && !ready,
                zone: endpoint.zone.clone().unwrap_or_default(),
                zone_hints: zones
                    .into_iter()
                    .flatten()
                    .map(|zone| zone.name.clone())
                    .collect(),
                weight: 1,
            })
        })
        .collect()
}

/// The slice's port of the same name; a slice with one port without a name serves every port, a slice
/// without ports serves the Service's own number.
fn endpoint_port(slice: &EndpointSlice, port: &ServicePort) -> Option<NonZeroU16> {
    let name = port.name.as_deref().unwrap_or_default();
    let ports = slice.ports.as_deref().unwrap_or_default();
    let number = match ports {
        [] => port.port,
        [only] if only.name.as_deref().unwrap_or_default().is_empty() => {
            only.port.unwrap_or(port.port)
        }
        ports => {
            let same = ports
                .iter()
                .find(|p| p.name.as_deref().unwrap_or_default() == name)?;
            same.port.unwrap_or(port.port)
        }
    };
    NonZeroU16::new(u16::try_from(number).ok()?)
}

/// What a Service port speaks (`contract/wire.md` 5.2).
fn protocol(port: &ServicePort) -> ClusterProtocol {
    if spoken(port) == UDP {
        return ClusterProtocol::Udp;
    }
    let Some(name) = port.app_protocol.as_deref().filter(|name| !name.is_empty()) else {
        return ClusterProtocol::Tcp;
    };
    // Names of services are compared without case (RFC 6335 section 5.1).
    match &*name.to_ascii_lowercase() {
        "kubernetes.io/h2c" | "h2c" => ClusterProtocol::H2c,
        "kubernetes.io/ws" | "ws" | "http" => ClusterProtocol::Http,
        "kubernetes.io/wss" | "wss" | "https" => ClusterProtocol::Https,
        "grpc" => ClusterProtocol::Grpc,
        "grpcs" => ClusterProtocol::Grpcs,
        "tcp" => ClusterProtocol::Tcp,
        _ => ClusterProtocol::Other(name.to_uppercase()),
    }
}
