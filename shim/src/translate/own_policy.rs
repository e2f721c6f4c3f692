//! Policies of the gateway's own kinds: which holds for what, and what each is told.
//!
//! [`OwnPolicies::new`] judges every policy and says who holds which target: of two of one kind the
//! older. [`super::Translation`] asks it for clusters, routes and listeners as they are published, so
//! that routes are not translated again for a policy. What one policy says is read in [`backend`],
//! [`route`], [`security`] and [`wasm`]; a SecurityPolicy that cannot be kept to lets nobody through.
//! Of plugins all hold that name a target.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::check::Checked;
use ir::ai::TokenPolicy;
use ir::filter::Cors;
use ir::policy::{RoutePolicy, SecurityPolicy};
use ir::{Resources, SecretText, WasmPlugin};

use super::reference::Grants;
use crate::cluster_view::{ClusterView, Kind, Object, Objects, Watched};

mod backend;
mod publish;
mod route;
mod security;
mod status;
mod target;
mod token;
mod wasm;

pub(super) use backend::BackendSettings;
pub(super) use publish::{ai_cluster, cluster, grpc_route, http_route, listener};
use target::Target;
pub(super) use token::Budgets;
use token::ByRoute;
use wasm::Planned;

/// How many plugins one target may have; a listener has those of its Gateway too, and a rule those of
/// its route.
const PLUGINS_MAX: usize = ir::wasm::PLUGINS_PER_PLACE_MAX / 2;

/// Every policy, judged, and what holds where.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct OwnPolicies {
    judged: Vec<Judged>,
    backends: BTreeMap<Arc<str>, OnBackend>,
    routes: BTreeMap<(Kind, Arc<str>), OnRoute>,
    /// By `namespace/gateway` or `namespace/gateway/listener`.
    gateways: BTreeMap<Arc<str>, OnRoute>,
    /// Budgets of AIServices.
    ai_services: BTreeMap<Arc<str>, Arc<TokenPolicy>>,
    /// How providers of AIServices are watched and limited.
    ai_backends: BTreeMap<Arc<str>, Arc<BackendSettings>>,
    /// TokenPolicies for HTTPRoutes, the oldest first.
    by_route: Vec<ByRoute>,
    /// WasmPlugins that hold somewhere.
    plugins: BTreeMap<Arc<str>, Arc<Planned>>,
    memo: wasm::Memo,
}

/// What holds for a Service.
#[derive(Clone, Debug, Default, PartialEq)]
struct OnBackend {
    /// BackendLBPolicy.
    own: Option<Arc<BackendSettings>>,
    /// XBackendTrafficPolicy, where the other says nothing.
    traffic: Option<Arc<BackendSettings>>,
    security: Option<Arc<SecurityPolicy>>,
    tokens: Option<Arc<TokenPolicy>>,
    plugins: Vec<Arc<str>>,
}

/// What holds for a route, or for all routes of a Gateway.
#[derive(Clone, Debug, Default, PartialEq)]
struct OnRoute {
    settings: Option<Arc<RoutePolicy>>,
    security: Option<Arc<SecurityPolicy>>,
    cors: Option<Arc<Cors>>,
    /// With the rule that they are for, where it is not all of them.
    plugins: Vec<(Option<String>, Arc<str>)>,
}

/// Policies that can stand in each other's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    Backend,
    Traffic,
    Route,
    Security,
    Token,
    Plugin,
}

/// What a valid policy says.
#[derive(Clone, Debug, PartialEq)]
enum Payload {
    Backend(Arc<BackendSettings>),
    Traffic(Arc<BackendSettings>),
    Route(Arc<RoutePolicy>),
    Security(Arc<Security>),
    Token(Arc<TokenPolicy>),
    Plugin(Arc<Planned>),
}

/// A SecurityPolicy at each place where it may stand: a limit without a scope is about that place.
#[derive(Clone, Debug, Default, PartialEq)]
struct Security {
    listener: Arc<SecurityPolicy>,
    route: Arc<SecurityPolicy>,
    backend: Arc<SecurityPolicy>,
    cors: Option<Arc<Cors>>,
}

/// Why something does not hold: a reason of Gateway API, and a sentence.
#[derive(Clone, Debug, PartialEq)]
struct Fault {
    reason: &'static str,
    message: String,
}

impl Fault {
    fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// One policy, judged.
#[derive(Clone, Debug, PartialEq)]
struct Judged {
    kind: Kind,
    key: Arc<str>,
    family: Family,
    payload: Result<Payload, Fault>,
    /// Each target, and whether the policy holds for it.
    targets: Vec<(Target, Result<(), Fault>)>,
    /// What it says and nobody acts by.
    without_effect: Vec<String>,
}

/// A policy as it is read: what it says, what it is about, what nobody acts by.
struct Read {
    payload: Result<Payload, Fault>,
    targets: Vec<Result<Target, (Target, Fault)>>,
    without_effect: Vec<String>,
}

impl OwnPolicies {
    /// True when `next` may have other policies than `before`, or other targets for them.
    pub(super) fn is_concerned(before: &ClusterView, next: &ClusterView) -> bool {
        !(before
            .backend_lb_policies
            .is_same(&next.backend_lb_policies)
            && before
                .backend_traffic_policies
                .is_same(&next.backend_traffic_policies)
            && before.route_policies.is_same(&next.route_policies)
            && before.security_policies.is_same(&next.security_policies)
            && before.token_policies.is_same(&next.token_policies)
            && before.wasm_plugins.is_same(&next.wasm_plugins))
            || !(next.wasm_plugins.is_empty()
                || before.config_maps.is_same(&next.config_maps)
                    && before.secrets.is_same(&next.secrets)
                    && before.reference_grants.is_same(&next.reference_grants))
            || (has_policies(next)
                && !(before.services.is_same(&next.services)
                    && before.gateways.is_same(&next.gateways)
                    && before.http_routes.is_same(&next.http_routes)
                    && before.grpc_routes.is_same(&next.grpc_routes)
                    && before.ai_services.is_same(&next.ai_services)))
    }

    /// Judges every policy of the view; of plugins that `before` knows the modules are not read again.
    pub(super) fn new(view: &ClusterView, grants: &Grants, before: &Self) -> Self {
        let mut policies = Self::default();
        let none = |_: &_| None;
        let objects = &view.backend_lb_policies;
        policies.judge(objects, Family::Backend, view, |it| backend::read(it), none);
        let objects = &view.backend_traffic_policies;
        let read = |it: &Arc<_>| backend::read_traffic(it);
        policies.judge(objects, Family::Traffic, view, read, |_| None);
        let objects = &view.route_policies;
        policies.judge(objects, Family::Route, view, |it| route::read(it), |_| None);
        let nobody = |_: &_| Some(security::nobody());
        let read = |it: &Arc<_>| security::read(it);
        let objects = &view.security_policies;
        policies.judge(objects, Family::Security, view, read, nobody);
        let objects = &view.token_policies;
        policies.judge(objects, Family::Token, view, |it| token::read(it), |_| None);
        let mut memo = wasm::Memo::default();
        let read = |object: &Arc<Object<crds::WasmPlugin>>| {
            let planned = memo.planned(object, view, &before.memo);
            wasm::read(object, planned, view, grants)
        };
        let broken = |object: &_| Planned::broken(object).map(Arc::new).map(Payload::Plugin);
        policies.judge(&view.wasm_plugins, Family::Plugin, view, read, broken);
        policies.memo = memo;
        policies
    }

    /// `instead` is what holds in the place of a policy that cannot be kept to.
    fn judge<T: Watched>(
        &mut self,
        objects: &Objects<T>,
        family: Family,
        view: &ClusterView,
        mut read: impl FnMut(&Arc<Object<T>>) -> Read,
        instead: impl Fn(&Object<T>) -> Option<Payload>,
    ) {
        let mut objects: Vec<_> = objects.iter().collect();
        // The older one holds, and of two of the same age the first by name.
        objects.sort_by_key(|object| {
            let created_at = object.created_at();
            (created_at.is_none(), created_at, object.key.clone())
        });
        let mut holders: BTreeMap<Target, Holders> = BTreeMap::new();
        for object in objects {
            let read = read(object);
            let holds = read.payload.clone().ok().or_else(|| instead(object));
            let mut targets = Vec::new();
            for target in read.targets {
                let (target, fault) = match target {
                    Ok(target) => match target.missing(view) {
                        None => (target, None),
                        Some(message) => (target, Some(Fault::new("TargetNotFound", message))),
                    },
                    Err((target, fault)) => (target, Some(fault)),
                };
                let outcome = match (fault, &holds) {
                    (Some(fault), _) => Err(fault),
                    (None, None) => Ok(()),
                    (None, Some(payload)) => {
                        let held = holders.entry(target.clone()).or_default();
                        let taken = held.take(&object.title(), family, &target);
                        if taken.is_ok() {
                            self.claim(&target, payload, &object.key);
                        }
                        taken
                    }
                };
                targets.push((target, outcome));
            }
            self.judged.push(Judged {
                kind: T::KIND,
                key: object.key.clone(),
                family,
                payload: read.payload,
                targets,
                without_effect: read.without_effect,
            });
        }
    }

    /// Puts down what holds for a target.
    fn claim(&mut self, target: &Target, payload: &Payload, policy: &Arc<str>) {
        if let Payload::Plugin(planned) = payload {
            self.plugins.insert(policy.clone(), planned.clone());
        }
        match target {
            Target::Service(key) => {
                let on = self.backends.entry(key.clone()).or_default();
                match payload {
                    Payload::Backend(settings) => on.own = Some(settings.clone()),
                    Payload::Traffic(settings) => on.traffic = Some(settings.clone()),
                    Payload::Security(security) => on.security = Some(security.backend.clone()),
                    Payload::Token(tokens) => on.tokens = Some(tokens.clone()),
                    Payload::Plugin(_) => on.plugins.push(policy.clone()),
                    Payload::Route(_) => {}
                }
            }
            Target::AiService(key) => match payload {
                Payload::Token(tokens) => {
                    self.ai_services.insert(key.clone(), tokens.clone());
                }
                Payload::Backend(settings) => {
                    self.ai_backends.insert(key.clone(), settings.clone());
                }
                Payload::Traffic(_)
                | Payload::Security(_)
                | Payload::Route(_)
                | Payload::Plugin(_) => {}
            },
            Target::Gateway(..) => {
                if let Some(key) = target.gateway_key() {
                    let on = self.gateways.entry(key).or_default();
                    on.claim(payload, policy, |security| &security.listener);
                }
            }
            Target::Route(kind, key) => {
                if let Payload::Token(tokens) = payload {
                    self.by_route.push(ByRoute {
                        route: key.clone(),
                        policy: policy.clone(),
                        tokens: tokens.clone(),
                    });
                    return;
                }
                let on = self.routes.entry((*kind, key.clone())).or_default();
                on.claim(payload, policy, |security| &security.route);
            }
            Target::Rule(kind, key, rule) => {
                let on = self.routes.entry((*kind, key.clone())).or_default();
                on.plugins.push((Some(rule.clone()), policy.clone()));
            }
            Target::Other { .. } => {}
        }
    }

    /// True when there is none, which is the way of most clusters.
    pub(super) fn is_empty(&self) -> bool {
        self.judged.is_empty()
    }

    /// Services for which something else holds than in `other`.
    pub(super) fn changed_services(&self, other: &Self) -> BTreeSet<Arc<str>> {
        let all = self.backends.keys().chain(other.backends.keys());
        all.filter(|key| self.backends.get(*key) != other.backends.get(*key))
            .cloned()
            .collect()
    }

    /// The plugins that hold somewhere.
    pub(super) fn plugins(&self) -> Resources<WasmPlugin> {
        let mut plugins = Resources::default();
        for planned in self.plugins.values() {
            plugins.insert(planned.plugin.clone());
        }
        plugins
    }

    /// The clusters that plugins may call, as often as they are named.
    pub(super) fn plugin_clusters(&self) -> impl Iterator<Item = &Arc<str>> {
        self.plugins.values().flat_map(|planned| &planned.clusters)
    }

    /// What plugins read of Secrets, by key.
    pub(super) fn plugin_secrets(
        &self,
    ) -> impl Iterator<Item = &(Arc<str>, BTreeMap<String, SecretText>)> {
        let planned = self.plugins.values();
        planned.filter_map(|planned| planned.secret.as_ref())
    }

    /// True when something else holds for routes or listeners than in `other`.
    pub(super) fn differs_in_front(&self, other: &Self) -> bool {
        self.routes != other.routes || self.gateways != other.gateways
    }
}

/// Who holds a target, the older first.
#[derive(Debug, Default)]
struct Holders(Vec<String>);

impl Holders {
    /// Of most families one policy holds a target, of plugins several.
    fn take(&mut self, policy: &str, family: Family, target: &Target) -> Result<(), Fault> {
        let message = match (family, self.0.as_slice()) {
            (Family::Plugin, held) if held.len() < PLUGINS_MAX => None,
            (Family::Plugin, _) => Some(format!(
                "{target} has {PLUGINS_MAX} plugins already, which are all that it may have"
            )),
            (_, []) => None,
            (_, [holder, ..]) => Some(format!("{holder} is older and holds for {target}")),
        };
        if let Some(message) = message {
            return Err(Fault::new("Conflicted", message));
        }
        self.0.push(policy.to_owned());
        Ok(())
    }
}

impl OnRoute {
    fn claim(
        &mut self,
        payload: &Payload,
        policy: &Arc<str>,
        here: fn(&Security) -> &Arc<SecurityPolicy>,
    ) {
        match payload {
            Payload::Route(settings) => self.settings = Some(settings.clone()),
            Payload::Security(security) => {
                self.security = Some(here(security).clone());
                self.cors.clone_from(&security.cors);
            }
            Payload::Plugin(_) => self.plugins.push((None, policy.clone())),
            Payload::Backend(_) | Payload::Traffic(_) | Payload::Token(_) => {}
        }
    }
}

fn has_policies(view: &ClusterView) -> bool {
    !(view.backend_lb_policies.is_empty()
        && view.backend_traffic_policies.is_empty()
        && view.route_policies.is_empty()
        && view.security_policies.is_empty()
        && view.token_policies.is_empty()
        && view.wasm_plugins.is_empty())
}

/// What the schema and the rules of a kind find, as one fault.
fn broken<T: Checked>(object: &T) -> Option<Fault> {
    let faults = crds::check::faults(object);
    let messages: Vec<_> = faults
        .iter()
        .take(8)
        .map(|fault| format!("{}: {}", fault.path, fault.message))
        .collect();
    (!messages.is_empty()).then(|| Fault::new("Invalid", messages.join("; ")))
}

/// What the contract refuses about it, when it stood at a cluster.
fn refused(policy: ir::BackendPolicy, security: SecurityPolicy) -> Option<Fault> {
    let cluster = ir::Cluster {
        security_policy: Some(Arc::new(security)),
        policy: Some(policy.into()),
        ..ir::Cluster::new("default/probe:80", ir::cluster::ClusterProtocol::Http)
    };
    let violations = ir::decode::cluster(ir::encode::cluster(&cluster)).err()?;
    let messages: Vec<_> = violations
        .iter()
        .take(8)
        .map(|violation| format!("{}: {}", violation.path, violation.message))
        .collect();
    Some(Fault::new("Invalid", messages.join("; ")))
}

/// Names the fields of `set` that are there; [`Read::without_effect`] is made of them.
fn named(set: &[(&str, bool)]) -> Vec<String> {
    let set = set.iter().filter(|(_, is_set)| *is_set);
    set.map(|(field, _)| format!("{field} has no effect yet"))
        .collect()
}
