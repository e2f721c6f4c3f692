//! One object's status as JSON: ours put into what is there, others' left as they are.
//!
//! Pure but for the time that a changed condition is stamped with. Shapes are those of the Gateway
//! API: conditions and listeners of Gateways, parents of routes, ancestors of policies. Entries of
//! other controllers and conditions that are not ours are kept as they stand.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::progress::{Progress, Served, programmed};
use super::{Id, Settings, features};
use crate::cluster_view::Kind;
use crate::conditions::{Condition, ConditionType, Conditions, ObjectStatus, ParentStatus, Truth};
use crate::translate::Translation;
use crate::watch::{Entry, Known};

/// Longest message of a condition (Kubernetes `Condition`).
const MESSAGE_BYTES_MAX: usize = 32_768;
/// How long an address is awaited before a status says that it is missing.
const ADDRESS_GRACE: Duration = Duration::from_secs(2);
/// Conditions that are ours to set and to take away.
const OWN: [ConditionType; 7] = [
    ConditionType::Accepted,
    ConditionType::ResolvedRefs,
    ConditionType::Programmed,
    ConditionType::Conflicted,
    ConditionType::PartiallyInvalid,
    ConditionType::InsecureFrontendValidationMode,
    ConditionType::OverlappingTLSConfig,
];
const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// What is to be done about a status.
pub(super) enum Composed {
    /// Nothing.
    Same,
    /// Ask again then.
    Wait(Instant),
    /// This is to be written.
    New(Value),
    /// The same, but only counts differ.
    Count(Value),
}

/// Makes statuses.
pub(super) struct Composer {
    settings: Settings,
    /// Gateways whose Service has not the addresses they ask for: in which generation, since when.
    awaited: BTreeMap<Arc<str>, (i64, Instant)>,
}

impl Composer {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            awaited: BTreeMap::new(),
        }
    }

    /// The status of one object.
    pub(super) fn compose(
        &mut self,
        id: &Id,
        entry: &Entry,
        translation: &Translation,
        progress: &Progress,
        known: &Known,
    ) -> Composed {
        let before: Value = serde_json::from_str(&entry.status).unwrap_or_default();
        let status = translation.status(id.0, &id.1);
        if status.is_some_and(|status| observed(status).is_some_and(|seen| seen < entry.generation))
        {
            // The translation of this generation is on its way.
            return Composed::Same;
        }
        let after = match (id.0, status) {
            (Kind::GatewayClass, Some(status)) => Ok(self.class(status, &before)),
            (Kind::Gateway | Kind::ListenerSet, Some(status)) => {
                self.gateway(status, &before, translation, progress, known)
            }
            (kind, Some(status)) if !status.parents.is_empty() && !is_route(kind) => {
                let told = told_of_plugin(kind, status, progress);
                let status = told.as_ref().unwrap_or(status);
                Ok(self.parents(status, &before, entry, ("ancestors", "ancestorRef")))
            }
            (kind, Some(status)) if is_route(kind) => {
                Ok(self.parents(status, &before, entry, ("parents", "parentRef")))
            }
            (_, Some(status)) if !status.conditions.is_empty() => {
                let conditions = merge(before.get("conditions"), &status.conditions);
                Ok(with(&before, [("conditions", conditions)]))
            }
            (kind, _) => {
                let list = if is_route(kind) {
                    "parents"
                } else {
                    "ancestors"
                };
                match before.get(list) {
                    // Whatever was ours to say is no longer.
                    Some(entries) => Ok(with(&before, [(list, self.others(entries))])),
                    None => return Composed::Same,
                }
            }
        };
        match after {
            Err(until) => Composed::Wait(until),
            Ok(after) if after == before => Composed::Same,
            Ok(after) if without_counts(&after) == without_counts(&before) => {
                Composed::Count(after)
            }
            Ok(after) => Composed::New(after),
        }
    }

    fn class(&self, status: &ObjectStatus, before: &Value) -> Value {
        let features = features::supported(self.settings.has_services).into_iter();
        let features = features.map(|name| json!({ "name": name })).collect();
        let conditions = merge(before.get("conditions"), &status.conditions);
        with(
            before,
            [("conditions", conditions), ("supportedFeatures", features)],
        )
    }

    fn gateway(
        &mut self,
        status: &ObjectStatus,
        before: &Value,
        translation: &Translation,
        progress: &Progress,
        known: &Known,
    ) -> Result<Value, Instant> {
        let mut status = status.clone();
        let before_listeners = before.get("listeners").and_then(Value::as_array);
        let original = status.clone();
        for listener in &mut status.listeners {
            let named =
                |it: &&Value| it.get("name").and_then(Value::as_str) == Some(&listener.name);
            let stands = before_listeners.and_then(|list| list.iter().find(named));
            let stands = stands.and_then(|it| it.get("conditions"));
            let list = std::mem::take(&mut listener.conditions);
            let name = Some(listener.name.as_str());
            listener.conditions = confirm(list, &original, name, stands, progress)?;
        }
        let list = std::mem::take(&mut status.conditions);
        let stands = before.get("conditions");
        status.conditions = confirm(list, &original, None, stands, progress)?;
        let mut fields = Vec::new();
        if status.kind == Kind::Gateway && programmed(&original, None).is_some() {
            let addresses = self.addresses(&mut status, translation, known)?;
            fields.push(("addresses", addresses));
        }
        let counted = status.attached_listener_sets;
        // None are allowed any more: a count that stands there is over.
        let is_over = counted.is_none() && before.get("attachedListenerSets").is_some();
        if let Some(count) = counted.or_else(|| is_over.then_some(0)) {
            fields.push(("attachedListenerSets", count.into()));
        }
        fields.push(("conditions", merge(stands, &status.conditions)));
        if programmed(&original, None).is_some() {
            fields.push(("listeners", listeners(&status, before_listeners)));
        }
        Ok(with(before, fields))
    }

    /// The addresses to show; a Gateway without one is not programmed.
    fn addresses(
        &mut self,
        status: &mut ObjectStatus,
        translation: &Translation,
        known: &Known,
    ) -> Result<Value, Instant> {
        let shown = |ip: &IpAddr| match ip.is_unspecified() {
            true => self.settings.status_address,
            false => *ip,
        };
        let address = |kind: &str, value: String| json!({ "type": kind, "value": value });
        if !self.settings.has_services {
            let addresses: BTreeSet<IpAddr> = translation
                .addresses(&status.key)
                .iter()
                .map(shown)
                .collect();
            let addresses = addresses.iter();
            return Ok(addresses
                .map(|ip| address("IPAddress", ip.to_string()))
                .collect());
        }
        let wanted = translation.asked_addresses(&status.key);
        let given = translation
            .service_of(&status.key)
            .map(|service| given(&service, translation, known))
            .unwrap_or_default();
        let missing: Vec<_> = wanted
            .iter()
            .filter(|it| !given.iter().any(|(_, g)| g == *it))
            .collect();
        let fault = if !missing.is_empty() {
            let names: Vec<_> = missing.iter().map(|it| it.as_str()).collect();
            let message = format!("spec.addresses: {} was not assigned", names.join(", "));
            Some(("AddressNotUsable", message))
        } else if given.is_empty() {
            let message = "the Service of this Gateway has no address yet".to_owned();
            Some(("AddressNotAssigned", message))
        } else {
            None
        };
        self.be_patient(status, fault.is_some())?;
        let is_programmed = programmed(status, None).is_some_and(|c| c.status == Truth::True);
        if let Some((reason, message)) = fault.filter(|_| is_programmed) {
            let mut conditions = Conditions::resume(std::mem::take(&mut status.conditions));
            conditions.fail(ConditionType::Programmed, reason, message);
            status.conditions = conditions.finish();
        }
        let given = given.into_iter();
        Ok(given.map(|(kind, value)| address(kind, value)).collect())
    }

    /// Gives a load balancer some time before it is said that it gave nothing.
    fn be_patient(&mut self, status: &ObjectStatus, is_missing: bool) -> Result<(), Instant> {
        if !is_missing {
            self.awaited.remove(&status.key);
            return Ok(());
        }
        let now = Instant::now();
        let generation = observed(status).unwrap_or_default();
        let awaited = self
            .awaited
            .entry(status.key.clone())
            .or_insert((generation, now));
        if awaited.0 != generation {
            *awaited = (generation, now);
        }
        let until = awaited.1 + ADDRESS_GRACE;
        if until > now { Err(until) } else { Ok(()) }
    }

    /// Our entries in the order of the object's references, then those of others.
    fn parents(
        &self,
        status: &ObjectStatus,
        before: &Value,
        entry: &Entry,
        (list, reference): (&str, &str),
    ) -> Value {
        let ours = self.settings.controller_name.as_str();
        let known = before.get(list).and_then(Value::as_array);
        let mut entries = Vec::new();
        for parent in &status.parents {
            let written = as_written(parent, status.key.split('/').next(), entry, list);
            let stands = known.into_iter().flatten().find(|it| {
                it.get("controllerName").and_then(Value::as_str) == Some(ours)
                    && it.get(reference) == Some(&written)
            });
            let conditions = merge(
                stands.and_then(|it| it.get("conditions")),
                &parent.conditions,
            );
            entries.push(json!({
                "controllerName": ours,
                reference: written,
                "conditions": conditions,
            }));
        }
        if let Some(Value::Array(others)) = before.get(list).map(|it| self.others(it)) {
            entries.extend(others);
        }
        with(before, [(list, Value::Array(entries))])
    }

    /// The entries that other controllers wrote.
    fn others(&self, entries: &Value) -> Value {
        let ours = self.settings.controller_name.as_str();
        let entries = entries.as_array().into_iter().flatten();
        let is_other = |it: &&Value| it.get("controllerName").and_then(Value::as_str) != Some(ours);
        entries.filter(is_other).cloned().collect()
    }
}

/// A plugin's status with what data planes say of it.
fn told_of_plugin(kind: Kind, status: &ObjectStatus, progress: &Progress) -> Option<ObjectStatus> {
    if kind != Kind::WasmPlugin {
        return None;
    }
    let (truth, reason, message) = progress.plugin(&status.key)?;
    let mut status = status.clone();
    for parent in &mut status.parents {
        let mut conditions = Conditions::resume(std::mem::take(&mut parent.conditions));
        if conditions.problem(ConditionType::Accepted).is_none() {
            conditions.set(ConditionType::Programmed, truth, reason, message.clone());
        }
        parent.conditions = conditions.finish();
    }
    Some(status)
}

fn is_route(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::HttpRoute | Kind::GrpcRoute | Kind::TlsRoute | Kind::TcpRoute | Kind::UdpRoute
    )
}

/// The generation that a status is about.
fn observed(status: &ObjectStatus) -> Option<i64> {
    let own = status.conditions.iter();
    let parents = status.parents.iter().flat_map(|parent| &parent.conditions);
    own.chain(parents)
        .map(|condition| condition.observed_generation)
        .min()
}

/// The status as it would be if nothing were counted in it.
fn without_counts(status: &Value) -> Value {
    let mut rest = status.clone();
    if let Value::Object(fields) = &mut rest {
        fields.remove("attachedListenerSets");
        let listeners = fields.get_mut("listeners").and_then(Value::as_array_mut);
        for listener in listeners.into_iter().flatten() {
            if let Value::Object(fields) = listener {
                fields.remove("attachedRoutes");
            }
        }
    }
    rest
}

/// The status with some fields replaced.
fn with<'a>(before: &Value, fields: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    let mut after = before.as_object().cloned().unwrap_or_default();
    for (field, value) in fields {
        after.insert(field.to_owned(), value);
    }
    Value::Object(after)
}

/// Lets a claim to be programmed stand only where data planes bear it out.
fn confirm(
    conditions: Vec<Condition>,
    status: &ObjectStatus,
    listener: Option<&str>,
    stands: Option<&Value>,
    progress: &Progress,
) -> Result<Vec<Condition>, Instant> {
    let claim = programmed(status, listener).filter(|claim| claim.status == Truth::True);
    let Some(claim) = claim else {
        return Ok(conditions);
    };
    let message = match progress.serves(status, listener) {
        Served::Yes => return Ok(conditions),
        // It was borne out before, of the same generation; a restart of ours changes nothing.
        _ if stood(stands, claim) => return Ok(conditions),
        Served::Wait(until) => return Err(until),
        Served::No(message) => message,
    };
    let mut conditions = Conditions::resume(conditions);
    conditions.set(
        ConditionType::Programmed,
        Truth::Unknown,
        "Pending",
        message,
    );
    Ok(conditions.finish())
}

fn stood(stands: Option<&Value>, claim: &Condition) -> bool {
    let conditions = stands.and_then(Value::as_array).into_iter().flatten();
    conditions.into_iter().any(|condition| {
        let text = |field: &str| condition.get(field).and_then(Value::as_str);
        text("type") == Some("Programmed")
            && text("status") == Some("True")
            && condition.get("observedGeneration").and_then(Value::as_i64)
                == Some(claim.observed_generation)
    })
}

fn listeners(status: &ObjectStatus, before: Option<&Vec<Value>>) -> Value {
    let listeners = status.listeners.iter().map(|listener| {
        let named = |it: &&Value| it.get("name").and_then(Value::as_str) == Some(&listener.name);
        let stands = before.and_then(|list| list.iter().find(named));
        let kinds = listener.supported_kinds.iter();
        let kinds = kinds.map(|kind| json!({ "group": GATEWAY_API, "kind": kind }));
        json!({
            "name": listener.name,
            "supportedKinds": kinds.collect::<Value>(),
            "attachedRoutes": listener.attached_routes,
            "conditions": merge(stands.and_then(|it| it.get("conditions")), &listener.conditions),
        })
    });
    listeners.collect()
}

/// Our conditions with the times of those that stand, and the conditions that are not ours.
fn merge(stands: Option<&Value>, conditions: &[Condition]) -> Value {
    let stands: Vec<&Value> = stands
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .collect();
    let text = |value: &Value, field: &str| -> Option<String> {
        Some(value.get(field)?.as_str()?.to_owned())
    };
    let mut merged: Vec<Value> = Vec::new();
    for condition in conditions {
        let kind = format!("{:?}", condition.kind);
        let truth = format!("{:?}", condition.status);
        let known = stands
            .iter()
            .find(|it| text(it, "type").as_deref() == Some(&kind));
        let since = known
            .filter(|it| text(it, "status").as_deref() == Some(&truth))
            .and_then(|it| text(it, "lastTransitionTime"))
            // What the CRD fills in before anybody has looked is no time.
            .filter(|since| !since.starts_with("1970-"));
        let message = &condition.message;
        merged.push(json!({
            "type": kind,
            "status": truth,
            "reason": condition.reason,
            "message": message[..message.floor_char_boundary(MESSAGE_BYTES_MAX)],
            "observedGeneration": condition.observed_generation,
            "lastTransitionTime": since.unwrap_or_else(now),
        }));
    }
    let own = OWN.map(|kind| format!("{kind:?}"));
    let foreign = stands
        .into_iter()
        .filter(|it| text(it, "type").is_some_and(|kind| !own.contains(&kind)));
    merged.extend(foreign.cloned());
    Value::Array(merged)
}

/// The present to the second, as Kubernetes writes it.
fn now() -> String {
    let now = jiff::Timestamp::now();
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The reference of a parent as its object, which is in namespace `own`, writes it; made anew where
/// it is not written.
fn as_written(parent: &ParentStatus, own: Option<&str>, entry: &Entry, list: &str) -> Value {
    let references = entry.references.as_array().into_iter().flatten();
    let text = |value: &Value, field: &str| -> Option<String> {
        Some(value.get(field)?.as_str()?.to_owned())
    };
    let group = if parent.kind == "Service" {
        ""
    } else {
        GATEWAY_API
    };
    let is_it = |value: &&Value| {
        text(value, "name").as_deref() == Some(&parent.name)
            && text(value, "kind").as_deref().unwrap_or("Gateway") == parent.kind
            && text(value, "namespace").as_deref().or(own) == Some(&parent.namespace)
            && text(value, "sectionName").filter(|it| !it.is_empty()) == parent.section_name
            && value.get("port").and_then(Value::as_u64) == parent.port.map(u64::from)
    };
    let is_of_group =
        |value: &&&Value| text(value, "group").as_deref().unwrap_or(GATEWAY_API) == group;
    if list == "parents" {
        // A group of somebody else's is refused, and told so under the reference as it is written.
        let written: Vec<&Value> = references.filter(is_it).collect();
        if let Some(exact) = written.iter().find(is_of_group).or_else(|| written.first()) {
            return (*exact).clone();
        }
    }
    let mut made = Map::new();
    made.insert("group".to_owned(), group.into());
    made.insert("kind".to_owned(), parent.kind.clone().into());
    made.insert("namespace".to_owned(), parent.namespace.clone().into());
    made.insert("name".to_owned(), parent.name.clone().into());
    if let Some(section) = &parent.section_name {
        made.insert("sectionName".to_owned(), section.clone().into());
    }
    if let Some(port) = parent.port {
        made.insert("port".to_owned(), port.into());
    }
    Value::Object(made)
}

/// The addresses a Service has: what a load balancer gave, else its own in the cluster.
fn given(service: &str, translation: &Translation, known: &Known) -> Vec<(&'static str, String)> {
    let Some(entry) = known.get(Kind::Service, service) else {
        return Vec::new();
    };
    let status: Value = serde_json::from_str(&entry.status).unwrap_or_default();
    let ingress = status
        .pointer("/loadBalancer/ingress")
        .and_then(Value::as_array);
    let balancer = ingress.into_iter().flatten().filter_map(|it| {
        let text = |field: &str| Some(it.get(field)?.as_str()?.to_owned());
        let ip = text("ip").map(|ip| ("IPAddress", ip));
        ip.or_else(|| text("hostname").map(|name| ("Hostname", name)))
    });
    let balancer: Vec<_> = balancer.collect();
    if !balancer.is_empty() {
        return balancer;
    }
    let own: Option<Arc<str>> = translation.cluster_ip(service);
    own.into_iter()
        .map(|ip| ("IPAddress", ip.to_string()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(status: Truth) -> Vec<Condition> {
        let mut conditions = Conditions::new(7);
        conditions.set(ConditionType::Accepted, status, "Accepted", String::new());
        conditions.finish()
    }

    #[test]
    fn a_condition_keeps_its_time_until_it_turns() {
        let stands = json!([
            {"type": "Accepted", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"},
        ]);
        let same = merge(Some(&stands), &accepted(Truth::True));
        assert_eq!(same[0]["lastTransitionTime"], "2020-01-01T00:00:00Z");
        assert_eq!(same[0]["observedGeneration"], 7);
        let turned = merge(Some(&stands), &accepted(Truth::False));
        assert_ne!(turned[0]["lastTransitionTime"], "2020-01-01T00:00:00Z");
    }

    #[test]
    fn a_parent_is_told_under_the_reference_that_means_it() {
        let references = [
            json!({"name": "gw"}),
            json!({"name": "gw", "namespace": "infra"}),
            json!({"name": "gw", "group": "", "kind": "Service"}),
            json!({"name": "gw", "group": GATEWAY_API, "kind": "ListenerSet"}),
            json!({"name": "gw", "sectionName": "a", "port": 80}),
            json!({"name": "other", "group": "acme.io"}),
        ];
        let backwards: Vec<_> = references.iter().rev().cloned().collect();
        for written in [references.to_vec(), backwards] {
            let known = Known::of_route(json!({
                "metadata": {"name": "r", "namespace": "shop"}, "spec": {"parentRefs": written},
            }));
            let entry = known.get(Kind::HttpRoute, "shop/r").unwrap();
            let meant = [
                ("Gateway", "shop", "gw", None),
                ("Gateway", "infra", "gw", None),
                ("Service", "shop", "gw", None),
                ("ListenerSet", "shop", "gw", None),
                ("Gateway", "shop", "gw", Some(("a", 80))),
                ("Gateway", "shop", "other", None),
            ];
            for ((kind, namespace, name, place), expected) in meant.into_iter().zip(&references) {
                let parent = ParentStatus {
                    kind: kind.to_owned(),
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                    section_name: place.map(|(section, _)| section.to_owned()),
                    port: place.map(|(_, port)| port),
                    conditions: Vec::new(),
                };
                let told = as_written(&parent, Some("shop"), &entry, "parents");
                assert_eq!(told, *expected, "{parent}");
            }
        }
    }

    #[test]
    fn counts_alone_are_told_from_the_rest() {
        let status = |routes: u32, sets: u32, truth: &str| {
            let conditions = json!([{"type": "Accepted", "status": truth}]);
            json!({"attachedListenerSets": sets, "conditions": conditions,
                "listeners": [{"name": "http", "attachedRoutes": routes}]})
        };
        let same = |one: Value, other: Value| without_counts(&one) == without_counts(&other);
        assert!(same(status(1, 0, "True"), status(2, 0, "True")));
        assert!(same(status(1, 0, "True"), status(1, 3, "True")));
        assert!(!same(status(1, 0, "True"), status(2, 0, "False")));
        assert!(!same(json!({}), status(0, 0, "True")));
    }

    #[test]
    fn conditions_of_others_stay_and_ours_go_when_they_are_over() {
        let stands = json!([
            {"type": "PartiallyInvalid", "status": "True"},
            {"type": "example.org/Scanned", "status": "True"},
        ]);
        let merged = merge(Some(&stands), &accepted(Truth::True));
        let kinds: Vec<_> = merged
            .as_array()
            .into_iter()
            .flatten()
            .map(|it| &it["type"])
            .collect();
        assert_eq!(kinds, ["Accepted", "example.org/Scanned"]);
    }
}
