//! A Service for each Gateway, and the data planes behind it.
//!
//! With `addresses.strategy: service` every Gateway has ports of its own on the data planes; the
//! Service in its namespace maps the ports it writes to them and carries the labels, annotations and
//! addresses that it asks for. Data planes live in another namespace, so the Service selects nothing:
//! its EndpointSlices are written here, after those of `addresses.dataPlaneService`. Both belong to
//! the Gateway and go with it. Only a leader writes, and only what differs; what somebody else
//! edits is put right.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::cluster_view::{ClusterView, Kind, Object};
use crate::pipeline::Applied;
use crate::settings::GatewayServices;
use crate::translate::{
    FAMILIES, GATEWAY_NAME_LABEL, Translation, fingerprint, port_name, slice_key,
};
use crate::watch::Known;

/// Who writes, for server-side apply.
pub(crate) const MANAGER: &str = "nantian-gw";
/// Label that says who made it.
pub(crate) const MANAGED_LABEL: &str = "app.kubernetes.io/managed-by";
/// Says what was written, so that it need not be written again.
const WRITTEN: &str = "gateway.nantian.dev/written";
/// Says for which controller it was written.
const CONTROLLER: &str = "gateway.nantian.dev/controller";
/// Shortest time between two writes of the same.
const REST: Duration = Duration::from_secs(10);
/// Pause after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// Keeps Services and their EndpointSlices.
pub struct Keeper {
    /// Writes with this.
    pub client: Client,
    /// What they shall be like.
    pub settings: GatewayServices,
    /// Whose Gateways they are for.
    pub controller_name: String,
    /// Gateways and their ports.
    pub applied: watch::Receiver<Applied>,
    /// Identities of Gateways.
    pub known: Arc<Known>,
    /// Whether this replica may write.
    pub leading: watch::Receiver<bool>,
}

/// An object that was written.
struct Sent {
    /// Which wish it was.
    hash: String,
    /// The server keeps it as it was asked for.
    is_kept: bool,
    /// It is not written again before, so that nobody is fought for every moment.
    rests_until: Instant,
}

/// One object as it shall be.
pub(crate) struct Wanted {
    /// What it is.
    pub(crate) kind: Kind,
    /// `namespace/name`.
    pub(crate) key: Arc<str>,
    /// As it is applied.
    pub(crate) object: Value,
    /// Tells one wish from another.
    pub(crate) hash: String,
}

impl Keeper {
    /// Writes whatever differs, for as long as this is polled.
    pub async fn run(mut self) {
        let mut sent: HashMap<(Kind, Arc<str>), Sent> = HashMap::new();
        loop {
            if self.leading.wait_for(|leading| *leading).await.is_err() {
                return;
            }
            let translation = self.applied.borrow_and_update().state.translation.clone();
            let wanted = self.wanted(&translation);
            let ids: HashSet<_> = wanted.iter().map(|it| (it.kind, it.key.clone())).collect();
            sent.retain(|id, _| ids.contains(id));
            let (mut failed, mut look_again) = (false, None);
            for object in &wanted {
                let id = (object.kind, object.key.clone());
                let known = sent.get(&id).filter(|known| known.hash == object.hash);
                if stands(translation.view(), object, known) {
                    continue;
                }
                if let Some(known) = known.filter(|known| known.rests_until > Instant::now()) {
                    look_again = earlier(look_again, Some(known.rests_until));
                    continue;
                }
                match self.apply(object).await {
                    Ok(answer) => {
                        let known = Sent {
                            hash: object.hash.clone(),
                            is_kept: holds(&object.object, &answer, object.kind),
                            rests_until: Instant::now() + REST,
                        };
                        look_again = earlier(look_again, Some(known.rests_until));
                        sent.insert(id, known);
                    }
                    Err(error) => {
                        warn!(kind = %object.kind, key = %object.key, %error, "was not written");
                        failed = true;
                    }
                }
            }
            failed |= self.take_away(&translation).await;
            let retry = failed.then(|| Instant::now() + PAUSE);
            tokio::select! {
                changed = self.applied.changed() => if changed.is_err() { return },
                changed = self.leading.changed() => if changed.is_err() { return },
                () = until(earlier(retry, look_again)) => {}
            }
        }
    }

    /// Everything that shall be there.
    fn wanted(&self, translation: &Translation) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        for gateway in translation.own_gateways() {
            let service = translation.service_of(gateway);
            let uid = self
                .known
                .get(Kind::Gateway, gateway)
                .map(|entry| entry.uid);
            let (Some(service), Some(uid)) = (service, uid) else {
                continue;
            };
            wanted.extend(self.service(gateway, &service, &uid, translation));
            wanted.extend(self.slices(gateway, &service, &uid, translation));
        }
        wanted
    }

    fn service(
        &self,
        gateway: &str,
        key: &Arc<str>,
        uid: &str,
        translation: &Translation,
    ) -> Option<Wanted> {
        let ports = ports(gateway, translation);
        if ports.is_empty() {
            return None;
        }
        let ports: Vec<_> = ports
            .iter()
            .map(|(name, written, bound, protocol)| {
                json!({ "name": name, "port": written, "targetPort": bound, "protocol": protocol })
            })
            .collect();
        let mut spec = json!({ "type": self.settings.service_type, "ports": ports });
        let asked = translation.asked_addresses(gateway);
        // Never `externalIPs`: they take an address without asking whose it is (CVE-2020-8554). What
        // was not assigned is seen in the status.
        if let (Some(first), "LoadBalancer") = (asked.first(), self.settings.service_type.as_str())
        {
            spec["loadBalancerIP"] = first.clone().into();
        }
        let mut metadata = metadata(gateway, key, uid, translation);
        metadata["annotations"][CONTROLLER] = self.controller_name.clone().into();
        let object = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec,
        });
        Some(Wanted::new(Kind::Service, key.clone(), object))
    }

    /// The data planes' addresses, one slice for each family.
    fn slices(
        &self,
        gateway: &str,
        service: &Arc<str>,
        uid: &str,
        translation: &Translation,
    ) -> Vec<Wanted> {
        let ports: Vec<_> = ports(gateway, translation)
            .into_iter()
            .map(|(name, _, bound, protocol)| {
                json!({ "name": name, "port": bound, "protocol": protocol })
            })
            .collect();
        let name = service.split_once('/').map_or("", |(_, name)| name);
        let mut wanted = Vec::new();
        for family in FAMILIES {
            let endpoints = data_planes(translation.view(), &self.settings.data_plane, family);
            let key = slice_key(service, family);
            let is_there = translation.view().endpoint_slices.get(&key).is_some();
            if ports.is_empty() || (endpoints.is_empty() && !is_there) {
                continue;
            }
            let mut metadata = metadata(gateway, &key, uid, translation);
            metadata["labels"]["kubernetes.io/service-name"] = name.into();
            metadata["labels"]["endpointslice.kubernetes.io/managed-by"] = MANAGER.into();
            let object = json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": metadata, "addressType": family,
                "ports": ports, "endpoints": endpoints,
            });
            wanted.push(Wanted::new(Kind::EndpointSlice, key, object));
        }
        wanted
    }

    /// Writes it; gives back what the server made of it.
    async fn apply(&self, wanted: &Wanted) -> kube::Result<Value> {
        let (namespace, name) = wanted.key.split_once('/').unwrap_or(("", &wanted.key));
        let params = PatchParams::apply(MANAGER).force();
        let patch = Patch::Apply(&wanted.object);
        let answer = match wanted.kind {
            Kind::Service => {
                let api: Api<Service> = Api::namespaced(self.client.clone(), namespace);
                json!(api.patch(name, &params, &patch).await?)
            }
            _ => {
                let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), namespace);
                json!(api.patch(name, &params, &patch).await?)
            }
        };
        info!(kind = %wanted.kind, key = %wanted.key, "written");
        Ok(answer)
    }

    /// Services of ours whose Gateways another controller serves by now.
    ///
    /// A Service goes with its Gateway by itself. A class that is merely away must not take addresses
    /// from anybody, so nothing is taken away for that.
    fn foreign(&self, view: &ClusterView) -> Vec<Arc<Object<Service>>> {
        let is_foreign = |service: &Object<Service>| {
            let metadata = &service.value.metadata;
            let whose = metadata.annotations.as_ref()?.get(CONTROLLER)?;
            let owners = metadata.owner_references.as_ref()?;
            let owner = owners.iter().find(|owner| owner.kind == "Gateway")?;
            let gateway = format!("{}/{}", service.namespace(), owner.name);
            let gateway = view.gateways.get(&gateway)?;
            let class = &gateway.value.spec.gateway_class_name;
            let class = view.gateway_classes.get(class)?;
            let serves = &class.value.spec.controller_name;
            Some(*whose == self.controller_name && *serves != self.controller_name)
        };
        let services = view.services.iter();
        let foreign = services.filter(|service| is_foreign(service) == Some(true));
        foreign.cloned().collect()
    }

    /// Takes away what is not ours to keep; true when that failed.
    async fn take_away(&self, translation: &Translation) -> bool {
        let gone = self.foreign(translation.view());
        let mut failed = false;
        for service in gone {
            let api: Api<Service> = Api::namespaced(self.client.clone(), service.namespace());
            match api.delete(service.name(), &DeleteParams::default()).await {
                Ok(_) => info!(key = %service.key, "taken away, another controller serves it"),
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => {
                    warn!(key = %service.key, %error, "was not taken away");
                    failed = true;
                }
            }
        }
        failed
    }
}

impl Wanted {
    /// True when what is there was written as this, whoever edited it since.
    pub(crate) fn is_written(&self, view: &ClusterView) -> bool {
        let there = view.get(self.kind, &self.key);
        there.is_some_and(|it| {
            let annotations = it.metadata().annotations.as_ref();
            annotations.and_then(|it| it.get(WRITTEN)) == Some(&self.hash)
        })
    }

    /// The object, and in it what it was written as.
    pub(crate) fn new(kind: Kind, key: Arc<str>, mut object: Value) -> Self {
        let hash = format!("{:016x}", fingerprint(&object.to_string()));
        object["metadata"]["annotations"][WRITTEN] = hash.clone().into();
        Self {
            kind,
            key,
            object,
            hash,
        }
    }
}

/// True when it is there as it is wanted, by all that is known.
fn stands(view: &ClusterView, wanted: &Wanted, sent: Option<&Sent>) -> bool {
    let is_written = wanted.is_written(view);
    // The server keeps something else than was asked for: comparing would mean writing for ever.
    if !is_written || sent.is_some_and(|sent| !sent.is_kept) {
        return is_written;
    }
    let found = match wanted.kind {
        Kind::Service => view.services.get(&wanted.key).map(|it| json!(it.value)),
        _ => view
            .endpoint_slices
            .get(&wanted.key)
            .map(|it| json!(it.value)),
    };
    found.is_some_and(|found| holds(&wanted.object, &found, wanted.kind))
}

/// Whether an object has every field that is applied, with that value; what else it has is the
/// server's, or somebody else's. Lists of an EndpointSlice belong to who applies them as a whole.
fn holds(wanted: &Value, found: &Value, kind: Kind) -> bool {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    };
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => wanted.iter().all(|(name, wanted)| {
            let kind = match name.as_str() {
                "ownerReferences" => Kind::Service,
                _ => kind,
            };
            holds(wanted, found.get(name).unwrap_or(&Value::Null), kind)
        }),
        (Value::Array(wanted), Value::Array(found)) if kind == Kind::EndpointSlice => {
            let mut pairs = wanted.iter().zip(found);
            wanted.len() == found.len() && pairs.all(|(one, other)| holds(one, other, kind))
        }
        (Value::Array(wanted), Value::Array(found)) => wanted
            .iter()
            .all(|one| found.iter().any(|other| holds(one, other, kind))),
        _ => wanted == found || (is_empty(wanted) && is_empty(found)),
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

/// Name, port as written, port as bound and protocol of each port of a Gateway.
fn ports(gateway: &str, translation: &Translation) -> Vec<(String, u16, u16, &'static str)> {
    let bound = translation.bound_ports(gateway);
    let mut ports: BTreeMap<(u16, &'static str), u16> = BTreeMap::new();
    for (written, protocol) in translation.written_ports(gateway) {
        if let Some(bound) = bound.and_then(|bound| bound.get(&written)) {
            ports.insert((written, protocol), bound.get());
        }
    }
    let ports = ports.into_iter();
    ports
        .map(|((written, protocol), bound)| {
            (port_name(written, protocol), written, bound, protocol)
        })
        .collect()
}

fn metadata(gateway: &str, key: &str, uid: &str, translation: &Translation) -> Value {
    let (namespace, name) = key.split_once('/').unwrap_or(("", key));
    let gateway_name = gateway.split_once('/').map_or(gateway, |(_, name)| name);
    let object = translation.view().gateways.get(gateway);
    let infrastructure = object.and_then(|it| it.value.spec.infrastructure.clone());
    let infrastructure = infrastructure.unwrap_or_default();
    let text = |map: Option<BTreeMap<String, String>>| -> Map<String, Value> {
        let pairs = map.into_iter().flatten();
        pairs
            .map(|(key, value)| (key, Value::String(value)))
            .collect()
    };
    let mut labels = text(infrastructure.labels);
    labels.insert(GATEWAY_NAME_LABEL.to_owned(), short(gateway_name).into());
    labels.insert(MANAGED_LABEL.to_owned(), MANAGER.into());
    json!({
        "namespace": namespace,
        "name": name,
        "labels": labels,
        "annotations": text(infrastructure.annotations),
        "ownerReferences": [{
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "name": gateway_name,
            "uid": uid,
            "controller": true,
        }],
    })
}

/// The value of a label holds 63 characters.
fn short(name: &str) -> &str {
    &name[..name.floor_char_boundary(63)]
}

/// Endpoints of that family of the data planes' own Service.
pub(crate) fn data_planes(view: &ClusterView, service: &str, family: &str) -> Vec<Value> {
    let (namespace, name) = service.split_once('/').unwrap_or(("", service));
    let of_service = view.endpoint_slices.iter().filter(|slice| {
        let labels = slice.value.metadata.labels.as_ref();
        let owner = labels.and_then(|labels| labels.get("kubernetes.io/service-name"));
        slice.namespace() == namespace
            && owner.is_some_and(|owner| owner == name)
            && slice.value.address_type == family
    });
    let mut endpoints: BTreeMap<String, Value> = BTreeMap::new();
    for endpoint in of_service.flat_map(|slice| &slice.value.endpoints) {
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        for address in &endpoint.addresses {
            let mut value = json!({
                "addresses": [address],
                "conditions": { "ready": conditions.ready.unwrap_or(true) },
            });
            for (field, known) in [("nodeName", &endpoint.node_name), ("zone", &endpoint.zone)] {
                if let Some(known) = known {
                    value[field] = known.clone().into();
                }
            }
            let is_ready = |value: &Value| value["conditions"]["ready"] == true;
            let known = endpoints.get(address);
            // An endpoint may be in several slices for a while: ready in one of them is ready.
            if is_ready(&value) || !known.is_some_and(is_ready) {
                endpoints.insert(address.clone(), value);
            }
        }
    }
    endpoints.into_values().collect()
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;
    use crate::fake_api::{self, Answer};
    use crate::files::object::{Outcome, object};
    use crate::translate::{Addressing, CONTROLLER_NAME, Settings, translate};

    fn port(port: u16) -> NonZeroU16 {
        NonZeroU16::new(port).unwrap()
    }

    fn insert(view: &mut ClusterView, value: &Value) {
        let Outcome::Object(object) = object(serde_yaml::to_value(value).unwrap()) else {
            panic!("it is no object");
        };
        view.insert(object);
    }

    fn gateway() -> Value {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": { "name": "gw", "namespace": "shop", "uid": "1" },
            "spec": {
                "gatewayClassName": "nantian",
                "addresses": [{ "value": "192.0.2.7" }],
                "listeners": [{ "name": "http", "port": 80, "protocol": "HTTP" }],
            },
        })
    }

    /// A Gateway that asks for an address, and one data plane.
    fn view() -> ClusterView {
        let mut view = ClusterView::default();
        let class = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
            "metadata": { "name": "nantian" }, "spec": { "controllerName": CONTROLLER_NAME },
        });
        let planes = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": "planes-1", "namespace": "infra",
                "labels": { "kubernetes.io/service-name": "planes" },
            },
            "addressType": "IPv4", "endpoints": [{ "addresses": ["192.0.2.1"] }],
        });
        for value in [class, planes, gateway()] {
            insert(&mut view, &value);
        }
        view
    }

    fn translated(view: &ClusterView) -> Translation {
        let (first, last) = PORTS;
        let settings = Settings {
            addressing: Addressing::Service {
                first: port(first),
                last: port(last),
            },
            ..Settings::default()
        };
        translate(view, &settings, None)
    }

    const PORTS: (u16, u16) = (10_000, 10_010);

    fn keeper(service_type: &str, client: Client, applied: watch::Receiver<Applied>) -> Keeper {
        Keeper {
            client,
            settings: GatewayServices {
                service_type: service_type.to_owned(),
                data_plane: "infra/planes".to_owned(),
                ports: (port(PORTS.0), port(PORTS.1)),
            },
            controller_name: CONTROLLER_NAME.to_owned(),
            applied,
            known: Arc::new(Known::of("Gateway", "gateways", gateway())),
            leading: watch::channel(true).1,
        }
    }

    /// The Service of a Gateway that asks for an address.
    fn service_of_type(service_type: &str) -> Value {
        let client = fake_api::client(|_, _| Answer::Never);
        let keeper = keeper(service_type, client, watch::channel(Applied::default()).1);
        let key = "shop/gw-nantian".into();
        let wanted = keeper.service("shop/gw", &key, "uid", &translated(&view()));
        wanted.unwrap().object["spec"].clone()
    }

    /// What is written where what is wanted is there with these edits, which nothing undoes; the
    /// server answers with what it keeps.
    async fn writes(
        during: Duration,
        edit: impl Fn(&mut Value),
        keep: impl Fn(&mut Value),
    ) -> Vec<String> {
        let none = fake_api::client(|_, _| Answer::Never);
        let idle = keeper("ClusterIP", none, watch::channel(Applied::default()).1);
        let mut view = view();
        let wanted = idle.wanted(&translated(&view));
        assert_eq!(wanted.len(), 2, "a Service and a slice");
        let mut answers = HashMap::new();
        for wanted in wanted {
            let mut value = wanted.object;
            // As the server fills them in.
            match wanted.kind {
                Kind::Service => {
                    value["spec"]["clusterIP"] = "10.0.0.1".into();
                    value["spec"]["ports"][0]["nodePort"] = 30_000.into();
                }
                _ => value["endpoints"][0]["conditions"]["serving"] = true.into(),
            }
            let mut kept = value.clone();
            keep(&mut kept);
            let (_, name) = wanted.key.split_once('/').unwrap();
            answers.insert(name.to_owned(), kept);
            edit(&mut value);
            insert(&mut view, &value);
        }
        let state = crate::pipeline::State {
            translation: translated(&view),
            ..Default::default()
        };
        let (_applied, receiver) = watch::channel(Applied {
            state: Arc::new(state),
            sequence: 1,
        });
        let writes: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
        let written = Arc::clone(&writes);
        let client = fake_api::client(move |method, path| {
            assert_eq!(method, "PATCH");
            let name = path.rsplit('/').next().unwrap();
            written.lock().unwrap().push(name.to_owned());
            Answer::Is(200, answers[name].clone())
        });
        let (_leading, leads) = watch::channel(true);
        let mut keeper = keeper("ClusterIP", client, receiver);
        keeper.leading = leads;
        let ended = tokio::time::timeout(during, keeper.run()).await;
        assert!(ended.is_err());
        writes.lock().unwrap().clone()
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_server_fills_in_is_left_alone() {
        assert!(writes(6 * REST, |_| {}, |_| {}).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_somebody_edits_is_put_right_and_not_every_moment() {
        let service = |value: &mut Value| {
            if value["kind"] == "Service" {
                value["spec"]["ports"][0]["targetPort"] = 9.into();
            }
        };
        assert_eq!(writes(REST / 2, service, |_| {}).await, ["gw-nantian"]);
        let slice = |value: &mut Value| {
            if value["kind"] == "EndpointSlice" {
                let more = json!({ "addresses": ["192.0.2.66"] });
                value["endpoints"].as_array_mut().unwrap().push(more);
            }
        };
        assert_eq!(writes(REST / 2, slice, |_| {}).await, ["gw-nantian-ipv4"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_server_never_keeps_is_written_once() {
        let edit = |value: &mut Value| value["metadata"]["labels"] = json!({});
        let mut written = writes(6 * REST, edit, edit).await;
        written.sort();
        assert_eq!(written, ["gw-nantian", "gw-nantian-ipv4"]);
    }

    #[tokio::test]
    async fn an_address_that_is_asked_for_is_asked_of_a_load_balancer_and_never_taken() {
        let spec = service_of_type("LoadBalancer");
        assert_eq!(spec["loadBalancerIP"], "192.0.2.7");
        for service_type in ["LoadBalancer", "ClusterIP", "NodePort"] {
            let spec = service_of_type(service_type);
            assert_eq!(spec["type"], service_type);
            assert_eq!(spec.get("externalIPs"), None, "{service_type}");
        }
    }
}
