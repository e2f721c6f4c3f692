//! Every reason that a condition may have, what it means and what to do; `docs/reference/conditions.md`.
//!
//! Conditions themselves name reasons by text, as the Gateway API does. This table is beside them for
//! readers: tests hold that the source names no reason that is not here, that nothing stands here which
//! the source does not name, and that what is translated in tests has the conditions it should.

use super::ConditionType::{
    self, Accepted, Conflicted, InsecureFrontendValidationMode, OverlappingTLSConfig,
    PartiallyInvalid, Programmed, ResolvedRefs,
};

/// A reason of conditions.
#[derive(Debug)]
pub struct Reason {
    /// As it stands in a condition.
    pub name: &'static str,
    /// Conditions that may have it.
    pub conditions: &'static [ConditionType],
    /// Kinds of objects whose conditions may have it.
    on: &'static str,
    meaning: &'static str,
    /// What to do; empty when nothing is to be done.
    remedy: &'static str,
}

/// Conditions, and what each claims.
const CONDITIONS: &[(ConditionType, &str)] = &[
    (Accepted, "It is valid and taken on."),
    (
        ResolvedRefs,
        "Everything it names was found and may be used.",
    ),
    (
        Programmed,
        "Every connected data plane serves it; Unknown while one is awaited.",
    ),
    (
        Conflicted,
        "True when it cannot live beside another listener of the port.",
    ),
    (
        PartiallyInvalid,
        "True when a part of a route is not served and the rest is.",
    ),
    (
        InsecureFrontendValidationMode,
        "There, and True, while clients without a valid certificate are let in.",
    ),
    (
        OverlappingTLSConfig,
        "There, and True, while listeners of one port serve some of the same names over TLS: a client that reuses a connection may be answered with 421.",
    ),
];

/// One row of the table.
const fn reason(
    name: &'static str,
    conditions: &'static [ConditionType],
    on: &'static str,
    meaning: &'static str,
    remedy: &'static str,
) -> Reason {
    Reason {
        name,
        conditions,
        on,
        meaning,
        remedy,
    }
}

const ROUTES: &str = "routes";
const LISTENERS: &str = "listeners";
const POLICIES: &str = "policies";

/// All reasons: of the whole, of addresses, of listeners, of routes, of what is named, of policies.
pub const REASONS: &[Reason] = &[
    reason(
        "Accepted",
        &[Accepted],
        "all",
        "It is taken on; what of it has no effect stands in the message.",
        "",
    ),
    reason(
        "Programmed",
        &[Programmed],
        "Gateways, ListenerSets, listeners",
        "Data planes serve it.",
        "",
    ),
    reason(
        "ResolvedRefs",
        &[ResolvedRefs],
        "all",
        "Everything it names is there.",
        "",
    ),
    reason(
        "Pending",
        &[Accepted, Programmed],
        "Gateways, ListenerSets, listeners",
        "A data plane is awaited, a port is not free yet, or the class is not there.",
        "Wait; the message says for whom. For a class: create it.",
    ),
    reason(
        "Invalid",
        &[Accepted, Programmed, ResolvedRefs],
        "all",
        "Something is written that cannot be meant, or none of its listeners is served.",
        "The message names the field, or see the other conditions.",
    ),
    reason(
        "UnsupportedValue",
        &[Accepted, PartiallyInvalid, ResolvedRefs],
        "all",
        "A value that is not served, or that a data plane refused, in its words.",
        "The message names the field and what is allowed.",
    ),
    reason(
        "ListenersNotValid",
        &[Accepted, Programmed],
        "Gateways, ListenerSets",
        "Some listeners are not served; with status True the others are.",
        "See the conditions of the listeners that it names.",
    ),
    reason(
        "ListenersNotResolved",
        &[ResolvedRefs],
        "Gateways",
        "Listeners name what is not there.",
        "See ResolvedRefs of the listeners.",
    ),
    reason(
        "InvalidParameters",
        &[Accepted],
        "Gateways, GatewayClasses",
        "`parametersRef` leads to nothing that this gateway knows.",
        "Take it out.",
    ),
    reason(
        "UnsupportedAddress",
        &[Accepted],
        "Gateways",
        "An address of a type, or of a form, that cannot be bound.",
        "Use an IP address.",
    ),
    reason(
        "AddressNotUsable",
        &[Programmed],
        "Gateways",
        "An address that was asked for is not to be had.",
        "Ask for another one, or give the load balancer that one.",
    ),
    reason(
        "AddressNotAssigned",
        &[Programmed],
        "Gateways",
        "The Service of the Gateway has no address yet.",
        "See the Service's Events: is there a load balancer in this cluster?",
    ),
    reason(
        "UnsupportedProtocol",
        &[Accepted, ResolvedRefs],
        "listeners, routes",
        "A listener's protocol, or a Service port's, is not known or not possible there.",
        "HTTP, HTTPS, TLS, TCP or UDP; for Services see `appProtocol`.",
    ),
    reason(
        "PortUnavailable",
        &[Accepted],
        LISTENERS,
        "The port cannot be bound, or the mesh has it.",
        "Stop what has it, or choose another; it is tried again by itself.",
    ),
    reason(
        "ProtocolConflict",
        &[Conflicted, Accepted, Programmed],
        LISTENERS,
        "Another listener has the port with another protocol.",
        "Give one of them another port or address.",
    ),
    reason(
        "HostnameConflict",
        &[Conflicted, Accepted, Programmed],
        "listeners, routes",
        "Another listener has port and host name, or a route of the other kind the host name at the \
         listener (HTTPRoute and GRPCRoute); the older one serves.",
        "Give it a host name, a port or an address that the other does not have; give the route \
         another host name or listener.",
    ),
    reason(
        "NoConflicts",
        &[Conflicted],
        LISTENERS,
        "There is none.",
        "",
    ),
    reason(
        "OverlappingHostnames",
        &[OverlappingTLSConfig],
        LISTENERS,
        "Names of this listener are those of another one of the port.",
        "Nothing, unless clients do not try again after 421.",
    ),
    reason(
        "InvalidRouteKinds",
        &[ResolvedRefs],
        LISTENERS,
        "`allowedRoutes.kinds` names a kind that the protocol has not.",
        "The message has those that it has.",
    ),
    reason(
        "InvalidCertificateRef",
        &[ResolvedRefs],
        LISTENERS,
        "A certificate is missing, cannot be read, or does not fit its key.",
        "The message names the Secret; after a bad edit the former pair serves on.",
    ),
    reason(
        "InvalidCACertificateRef",
        &[ResolvedRefs],
        "listeners, BackendTLSPolicies, AIServices",
        "Authorities are missing or cannot be read.",
        "The message names the object and the key in it.",
    ),
    reason(
        "InvalidCACertificateKind",
        &[ResolvedRefs],
        LISTENERS,
        "Authorities stand in ConfigMaps, and nowhere else.",
        "Put them into a ConfigMap, key `ca.crt`.",
    ),
    reason(
        "NoValidCACertificate",
        &[Accepted],
        "listeners, BackendTLSPolicies",
        "No authority is left to check certificates by, so nothing is served.",
        "See ResolvedRefs.",
    ),
    reason(
        "InvalidClientCertificateRef",
        &[ResolvedRefs],
        "Gateways",
        "The certificate shown to backends cannot be used.",
        "The message names the Secret.",
    ),
    reason(
        "ConfigurationChanged",
        &[InsecureFrontendValidationMode],
        "Gateways",
        "`AllowInsecureFallback` is written.",
        "Take it out once all clients have certificates.",
    ),
    reason(
        "ParentNotAccepted",
        &[Accepted],
        "ListenerSets",
        "Its Gateway is not accepted.",
        "See the Gateway's conditions.",
    ),
    reason(
        "ParentNotProgrammed",
        &[Programmed],
        "ListenerSets",
        "The same.",
        "See the Gateway's conditions.",
    ),
    reason(
        "NotAllowed",
        &[Accepted, Programmed],
        "ListenerSets",
        "The Gateway takes no ListenerSets of this namespace.",
        "`spec.allowedListeners` of the Gateway.",
    ),
    reason(
        "NoMatchingParent",
        &[Accepted],
        ROUTES,
        "The parent has no such listener or port.",
        "The message has those there are.",
    ),
    reason(
        "NotAllowedByListeners",
        &[Accepted],
        ROUTES,
        "No listener of the parent takes routes of this namespace or kind.",
        "`allowedRoutes` of the listener.",
    ),
    reason(
        "NoMatchingListenerHostname",
        &[Accepted],
        ROUTES,
        "Route and listeners have no host name in common.",
        "`hostnames` of the route, `hostname` of the listener.",
    ),
    reason(
        "BackendNotFound",
        &[Accepted, ResolvedRefs],
        "routes, WasmPlugins",
        "A backend or its port is not there; its share of requests is answered with 500.",
        "Create it, or mend the name or port.",
    ),
    reason(
        "InvalidKind",
        &[ResolvedRefs],
        "routes, policies",
        "A reference to a kind that cannot stand there.",
        "The message has those that can.",
    ),
    reason(
        "RefNotPermitted",
        &[Accepted, ResolvedRefs],
        "all",
        "It is in another namespace, which does not allow it.",
        "A ReferenceGrant in that namespace.",
    ),
    reason(
        "InvalidBackendTLSPolicy",
        &[ResolvedRefs],
        ROUTES,
        "The backend's BackendTLSPolicy cannot be used; its share is answered with 500.",
        "See the policy's conditions.",
    ),
    reason(
        "InvalidAIService",
        &[ResolvedRefs],
        ROUTES,
        "The AIService cannot be used.",
        "See its conditions.",
    ),
    reason(
        "ExtensionNotFound",
        &[ResolvedRefs],
        ROUTES,
        "What `extensionRef` names is not there.",
        "Create it in the route's namespace.",
    ),
    reason(
        "InvalidExtension",
        &[ResolvedRefs],
        ROUTES,
        "What `extensionRef` names cannot be used.",
        "The message names its field.",
    ),
    reason(
        "TargetNotFound",
        &[Accepted, ResolvedRefs],
        POLICIES,
        "What `targetRefs` names is not there.",
        "Create it, or mend the name.",
    ),
    reason(
        "Conflicted",
        &[Accepted],
        POLICIES,
        "An older policy holds for the same thing.",
        "Delete one of them.",
    ),
    reason(
        "NoAIService",
        &[Accepted],
        "TokenPolicies",
        "Nothing is counted there, because no AIService is in front of it.",
        "Make an AIService with that endpoint the backend of the route.",
    ),
    reason(
        "SecretNotFound",
        &[Accepted, ResolvedRefs],
        "AIServices, WasmPlugins",
        "A Secret, or a key in it, is not there.",
        "The message names both.",
    ),
    reason(
        "InvalidSecret",
        &[Accepted, ResolvedRefs],
        "AIServices, WasmPlugins",
        "A Secret holds something else than it should.",
        "The message says what is expected.",
    ),
    reason(
        "ConfigMapNotFound",
        &[Accepted, ResolvedRefs],
        "WasmPlugins",
        "The ConfigMap with the module is not there.",
        "Create it in the plugin's namespace.",
    ),
    reason(
        "InvalidModule",
        &[Accepted],
        "WasmPlugins",
        "What is given is no module, or too large.",
        "The message says which.",
    ),
    reason(
        "ModuleNotAvailable",
        &[Programmed],
        "WasmPlugins",
        "A data plane could not fetch or compile the module.",
        "The message names the data plane and why; it is fetched again by itself.",
    ),
    reason(
        "Disabled",
        &[Programmed],
        "WasmPlugins",
        "The plugin failed too often and is left alone for a while.",
        "The message has its last failure for each data plane.",
    ),
    reason(
        "DigestMismatch",
        &[Accepted],
        "WasmPlugins",
        "The module is not the one that `sha256` says.",
        "Mend the digest, or find out who changed the module.",
    ),
];

/// True when a condition of that type may have that reason.
pub fn is_known(condition: ConditionType, name: &str) -> bool {
    let mut reasons = REASONS.iter();
    reasons.any(|reason| reason.name == name && reason.conditions.contains(&condition))
}

/// The page `docs/reference/conditions.md`.
pub fn reference_page() -> String {
    use std::fmt::Write as _;

    let mut page = String::from(HEAD);
    // Writing to a String cannot fail.
    for (condition, claim) in CONDITIONS {
        let _ = writeln!(page, "| `{condition:?}` | {claim} |");
    }
    page.push_str(
        "\n## Reasons\n\n| reason | in | on | means | do |\n| --- | --- | --- | --- | --- |\n",
    );
    for reason in REASONS {
        let names: Vec<_> = reason
            .conditions
            .iter()
            .map(|it| format!("`{it:?}`"))
            .collect();
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} | {} |",
            reason.name,
            names.join(", "),
            reason.on,
            reason.meaning,
            reason.remedy
        );
    }
    page
}

const HEAD: &str = "# Conditions

<!-- Generated from shim/src/conditions/reasons.rs; `UPDATE_REFERENCE=1 cargo test -p shim` rewrites it. -->

What the shim says of objects: in their status in a cluster, at `/api/v1/status` of its admin API, and by `nantian-shim check`.
`kubectl describe` shows them with messages, which name the field and what to change.
A condition is about the generation in `observedGeneration`; of routes there is a list for each parent, of Gateways and ListenerSets one for each listener.
The control plane of production writes those of the Gateway API by the same rules.

| condition | claims |
| --- | --- |
";
