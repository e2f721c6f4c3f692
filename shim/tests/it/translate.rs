//! What objects become, one claim at a time; whole cases are in `golden`.

use dataplane_testkit::certificate::Authority;
use shim::cluster_view::Kind;
use shim::conditions::{ConditionType as Type, Truth};
use shim::translate::{Classes, PortMap, Settings, Translation, translate};

use crate::folder::{GATEWAY, SERVICE, condition, lines, route, translated, view};

const API: &str = "apiVersion: gateway.networking.k8s.io/v1";

fn gateway(name: &str, spec: &str) -> String {
    format!(
        "{API}\nkind: Gateway\nmetadata: {{name: {name}, namespace: infra}}\n\
         spec: {{gatewayClassName: nantian-gw, {spec}}}\n---\n"
    )
}

fn class() -> &'static str {
    GATEWAY.split_once("---").unwrap().0
}

fn indented(pem: &str) -> String {
    pem.trim().replace('\n', "\n    ")
}

fn tls_secret(key: &str, chain: &str, private: &str) -> String {
    let (namespace, name) = key.split_once('/').unwrap();
    format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         type: kubernetes.io/tls\nstringData:\n  tls.crt: |\n    {}\n  tls.key: |\n    {}\n---\n",
        indented(chain),
        indented(private)
    )
}

/// The condition `wanted` of route `shop/one` at its parent `infra/gw`, as `status reason: message`.
fn at_parent(translation: &Translation, wanted: Type) -> String {
    let found = condition(
        translation,
        Kind::HttpRoute,
        "shop/one",
        "parent infra/gw",
        wanted,
    );
    format!("{:?} {}: {}", found.status, found.reason, found.message)
}

fn at_listener(translation: &Translation, listener: &str, wanted: Type) -> String {
    let part = format!("listener {listener}");
    let found = condition(translation, Kind::Gateway, "infra/gw", &part, wanted);
    format!("{:?} {}: {}", found.status, found.reason, found.message)
}

#[test]
fn a_route_that_fits_is_served() {
    let rules = "\nrules:\n- backendRefs: [{name: cart, port: 80}]";
    let translation = translated(&format!("{GATEWAY}{SERVICE}{}", route("one", rules)));
    assert_eq!(
        lines(&translation, Kind::HttpRoute, "shop/one"),
        [
            "HTTPRoute shop/one (in.yaml:35): parent infra/gw: Accepted=True Accepted",
            "HTTPRoute shop/one (in.yaml:35): parent infra/gw: ResolvedRefs=True ResolvedRefs",
        ]
    );
    let route = translation.snapshot().http_routes.get("shop/one").unwrap();
    assert_eq!(route.listeners, ["infra/gw/http".into()]);
    let cluster = translation.snapshot().clusters.get("shop/cart:80").unwrap();
    assert_eq!(cluster.endpoints.len(), 2);
    assert_eq!(cluster.endpoints[0].port.get(), 3000);
    let ready: Vec<_> = cluster
        .endpoints
        .iter()
        .map(|endpoint| endpoint.is_ready)
        .collect();
    assert_eq!(ready, [true, false]);
}

#[test]
fn an_endpoint_that_is_ready_in_one_of_its_slices_is_ready() {
    let slice = |name: &str, conditions: &str| {
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: {name}, namespace: shop, \
             labels: {{kubernetes.io/service-name: cart}}}}\n\
             addressType: IPv4\nports: [{{name: web, port: 3000}}]\n\
             endpoints: [{{addresses: [10.0.0.2], conditions: {{{conditions}}}}}]\n---\n"
        )
    };
    let ready = ["cart-0", "cart-2"].map(|name| (name, "ready: true", (true, false)));
    let ending = "ready: false, serving: true, terminating: true";
    let ending = ["cart-0", "cart-2"].map(|name| (name, ending, (false, true)));
    for (name, conditions, expected) in ready.into_iter().chain(ending) {
        let slice = slice(name, conditions);
        let route = route("one", "\nrules:\n- backendRefs: [{name: cart, port: 80}]");
        let translation = translated(&format!("{GATEWAY}{SERVICE}{slice}{route}"));
        let cluster = translation.snapshot().clusters.get("shop/cart:80").unwrap();
        let endpoints = cluster.endpoints.iter();
        let mut states: Vec<_> = endpoints.map(|it| (it.is_ready, it.is_ending)).collect();
        states.sort_unstable();
        assert_eq!(states, [expected, (true, false)], "{name}: {conditions}");
    }
}

#[test]
fn only_services_that_are_used_are_sent() {
    let translation = translated(&format!("{GATEWAY}{SERVICE}{}", route("one", "")));
    assert!(translation.snapshot().clusters.is_empty());
}

#[test]
fn dangling_references_are_named_and_keep_their_share() {
    for (backend, expected) in [
        (
            "{name: nowhere, port: 80}",
            "BackendNotFound: spec.rules[0].backendRefs[0]: there is no Service shop/nowhere",
        ),
        (
            "{name: cart, port: 81}",
            "BackendNotFound: spec.rules[0].backendRefs[0]: Service shop/cart has no port 81, it has 80",
        ),
        (
            "{name: cart, kind: Bucket, group: x.io, port: 80}",
            "InvalidKind: spec.rules[0].backendRefs[0]: kind x.io Bucket is no backend here, use a Service or a ServiceImport",
        ),
        (
            "{name: cart, namespace: else, port: 80}",
            "RefNotPermitted: spec.rules[0].backendRefs[0]: Service else/cart is in another namespace, which needs a ReferenceGrant there",
        ),
    ] {
        let rules = format!("\nrules:\n- backendRefs: [{backend}, {{name: cart, port: 80}}]");
        let translation = translated(&format!("{GATEWAY}{SERVICE}{}", route("one", &rules)));
        assert_eq!(
            at_parent(&translation, Type::ResolvedRefs),
            format!("False {expected}")
        );
        assert!(at_parent(&translation, Type::Accepted).starts_with("True"));
        let route = translation.snapshot().http_routes.get("shop/one").unwrap();
        let keys: Vec<_> = route.rules[0]
            .backends
            .iter()
            .map(|b| b.target.cluster_keys.len())
            .collect();
        assert_eq!(keys, [0, 2], "{backend}");
    }
}

#[test]
fn a_grant_opens_the_other_namespace() {
    let rules = "\nrules:\n- backendRefs: [{name: cart, namespace: other, port: 80}]";
    let service = SERVICE.replace("namespace: shop", "namespace: other");
    let grant = |kind: &str, name: &str| {
        format!(
            "{API}\nkind: ReferenceGrant\nmetadata: {{name: g, namespace: other}}\nspec:\n  \
             from: [{{group: gateway.networking.k8s.io, kind: {kind}, namespace: shop}}]\n  \
             to: [{{group: '', kind: Service, name: {name}}}]\n---\n"
        )
    };
    for (kind, name, permitted) in [
        ("HTTPRoute", "cart", true),
        ("HTTPRoute", "basket", false),
        ("GRPCRoute", "cart", false),
    ] {
        let text = format!(
            "{GATEWAY}{service}{}{}",
            grant(kind, name),
            route("one", rules)
        );
        let refs = at_parent(&translated(&text), Type::ResolvedRefs);
        assert_eq!(refs.starts_with("True"), permitted, "{kind} {name}: {refs}");
    }
}

#[test]
fn a_route_nobody_takes_is_told_why() {
    for (spec, expected) in [
        (
            "parentRefs: [{name: none, namespace: infra}]",
            "parent infra/none: Accepted=False NoMatchingParent: spec.parentRefs[0]: there is no Gateway infra/none",
        ),
        (
            "parentRefs: [{name: gw, namespace: infra, sectionName: https}]",
            "parent infra/gw/https: Accepted=False NoMatchingParent: Gateway infra/gw has no listener named https, it has http",
        ),
        (
            "parentRefs: [{name: gw, namespace: infra, port: 81}]",
            "parent infra/gw:81: Accepted=False NoMatchingParent: Gateway infra/gw has no listener on port 81, it has http",
        ),
        (
            "parentRefs: [{name: mesh, kind: Service, group: ''}]",
            "parent Service shop/mesh: Accepted=False NoMatchingParent: spec.parentRefs[0]: parents of kind Service are not supported yet",
        ),
    ] {
        let text = format!(
            "{API}\nkind: HTTPRoute\nmetadata: {{name: one, namespace: shop}}\nspec: {{{spec}}}\n"
        );
        let translation = translated(&format!("{GATEWAY}{text}"));
        let lines = lines(&translation, Kind::HttpRoute, "shop/one");
        assert_eq!(
            lines[0],
            format!("HTTPRoute shop/one (in.yaml:18): {expected}")
        );
        assert!(translation.snapshot().http_routes.is_empty());
    }
}

#[test]
fn listeners_decide_by_namespace_kind_and_host() {
    let labels =
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {team: x}}\n---\n";
    for (listener, reason) in [
        (
            "allowedRoutes: {namespaces: {from: Same}}",
            "NotAllowedByListeners",
        ),
        (
            "allowedRoutes: {namespaces: {from: All}, kinds: [{kind: GRPCRoute}]}",
            "NotAllowedByListeners",
        ),
        (
            "allowedRoutes: {namespaces: {from: All}}, hostname: else.example",
            "NoMatchingListenerHostname",
        ),
        (
            "allowedRoutes: {namespaces: {from: All}}, hostname: '*.example'",
            "Accepted",
        ),
        (
            "allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: x}}}}",
            "Accepted",
        ),
        (
            "allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: y}}}}",
            "NotAllowedByListeners",
        ),
        (
            "allowedRoutes: {namespaces: {from: Selector, selector: {matchExpressions: [{key: team, operator: NotIn, values: [y]}]}}}",
            "Accepted",
        ),
        (
            "allowedRoutes: {namespaces: {from: Selector, selector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: [shop]}]}}}",
            "Accepted",
        ),
        (
            "allowedRoutes: {namespaces: {from: Selector, selector: {matchExpressions: [{key: team, operator: Like, values: [x]}]}}}",
            "NotAllowedByListeners",
        ),
    ] {
        let gateway = gateway(
            "gw",
            &format!("listeners: [{{name: a, port: 80, protocol: HTTP, {listener}}}]"),
        );
        let text = format!(
            "{}---\n{gateway}{labels}{}",
            class(),
            route("one", "\nhostnames: [www.example]")
        );
        let accepted = condition(
            &translated(&text),
            Kind::HttpRoute,
            "shop/one",
            "parent infra/gw",
            Type::Accepted,
        );
        assert_eq!(accepted.reason, reason, "{listener}");
    }
}

#[test]
fn conflicting_listeners_are_left_out_and_the_others_serve() {
    let listeners = "listeners: [{name: a, port: 80, protocol: HTTP}, {name: b, port: 80, protocol: HTTP}, \
                     {name: c, port: 81, protocol: HTTP}, {name: d, port: 81, protocol: HTTP, hostname: d.example}]";
    let translation = translated(&format!("{}---\n{}", class(), gateway("gw", listeners)));
    let served: Vec<_> = translation
        .snapshot()
        .listeners
        .iter()
        .map(|l| l.name.to_string())
        .collect();
    assert_eq!(served, ["infra/gw/c", "infra/gw/d"]);
    assert_eq!(
        at_listener(&translation, "a", Type::Conflicted),
        "True HostnameConflict: listener b has no host name either on the same port"
    );
    assert_eq!(
        at_listener(&translation, "c", Type::Conflicted),
        "False NoConflicts: "
    );
    let accepted = condition(&translation, Kind::Gateway, "infra/gw", "", Type::Accepted);
    assert_eq!(
        (accepted.status, accepted.reason),
        (Truth::True, "ListenersNotValid")
    );
    assert_eq!(accepted.message, "these listeners are not served: a, b");
}

#[test]
fn one_port_cannot_speak_two_protocols() {
    let (cert, key) = certificate();
    let listeners = "listeners: [{name: a, port: 80, protocol: HTTP}, \
                     {name: b, port: 80, protocol: HTTPS, tls: {certificateRefs: [{name: c}]}}]";
    let secret = tls_secret("infra/c", &cert, &key);
    let translation = translated(&format!(
        "{}---\n{}{secret}",
        class(),
        gateway("gw", listeners)
    ));
    assert!(translation.snapshot().listeners.is_empty());
    assert!(at_listener(&translation, "b", Type::Accepted).starts_with("False ProtocolConflict"));
    assert!(at_listener(&translation, "b", Type::ResolvedRefs).starts_with("True"));
}

#[test]
fn the_older_of_two_gateways_keeps_its_place() {
    let listeners = "listeners: [{name: a, port: 80, protocol: HTTP}]";
    let aged = |name: &str, day: u32| {
        gateway(name, listeners).replace(
            "namespace: infra",
            &format!("namespace: infra, creationTimestamp: '2026-01-0{day}T00:00:00Z'"),
        )
    };
    let translation = translated(&format!(
        "{}---\n{}{}",
        class(),
        aged("gw", 2),
        aged("old", 1)
    ));
    let served: Vec<_> = translation
        .snapshot()
        .listeners
        .iter()
        .map(|l| l.name.to_string())
        .collect();
    assert_eq!(served, ["infra/old/a"]);
    assert_eq!(
        at_listener(&translation, "a", Type::Conflicted),
        "True HostnameConflict: Gateway infra/old, which came first, has no host name either on \
         the same address and port; give this listener a host name, a port or an address \
         (spec.addresses) that the other does not have"
    );
}

fn certificate() -> (String, String) {
    let identity = Authority::new("test").server(&["a.example"]);
    (identity.chain_pem, identity.key_pem)
}

#[test]
fn certificates_must_be_there_allowed_and_whole() {
    let (cert, key) = certificate();
    let other = certificate().1;
    let good = tls_secret("infra/c", &cert, &key);
    let opaque = good.replace("type: kubernetes.io/tls", "type: Opaque");
    let elsewhere = tls_secret("certs/c", &cert, &key);
    let grant = format!(
        "{API}\nkind: ReferenceGrant\nmetadata: {{name: g, namespace: certs}}\nspec:\n  \
         from: [{{group: gateway.networking.k8s.io, kind: Gateway, namespace: infra}}]\n  \
         to: [{{group: '', kind: Secret}}]\n---\n"
    );
    let place = "spec.listeners[0].tls.certificateRefs";
    for (secret, refs, expected) in [
        (good, "{name: c}", "True ResolvedRefs: ".to_owned()),
        (
            format!("{elsewhere}{grant}"),
            "{name: c, namespace: certs}",
            "True ResolvedRefs: ".to_owned(),
        ),
        (
            elsewhere,
            "{name: c, namespace: certs}",
            format!(
                "False RefNotPermitted: {place}[0]: Secret certs/c is in another namespace, which needs a ReferenceGrant there"
            ),
        ),
        (
            String::new(),
            "{name: c}",
            format!("False InvalidCertificateRef: {place}[0]: there is no Secret infra/c"),
        ),
        (
            opaque,
            "{name: c}",
            format!(
                "False InvalidCertificateRef: {place}[0]: Secret infra/c (in.yaml:13): is of type Opaque, use kubernetes.io/tls"
            ),
        ),
        (
            tls_secret("infra/c", &cert, &other),
            "{name: c}",
            format!(
                "False InvalidCertificateRef: {place}[0]: Secret infra/c (in.yaml:13): tls.crt and tls.key do not belong together"
            ),
        ),
        (
            tls_secret("infra/c", "nothing", &key),
            "{name: c}",
            format!(
                "False InvalidCertificateRef: {place}[0]: Secret infra/c (in.yaml:13): tls.crt holds no PEM certificate"
            ),
        ),
        (
            String::new(),
            "",
            format!("False InvalidCertificateRef: {place}: names no certificate"),
        ),
    ] {
        let listeners = format!(
            "listeners: [{{name: a, port: 443, protocol: HTTPS, tls: {{certificateRefs: [{refs}]}}}}]"
        );
        let translation = translated(&format!(
            "{}---\n{}{secret}",
            class(),
            gateway("gw", &listeners)
        ));
        assert_eq!(at_listener(&translation, "a", Type::ResolvedRefs), expected);
        let served = usize::from(expected.starts_with("True"));
        assert_eq!(translation.snapshot().listeners.len(), served);
        assert_eq!(
            translation.snapshot().secrets.len(),
            served,
            "only secrets in use are sent"
        );
        assert!(at_listener(&translation, "a", Type::Accepted).starts_with("True"));
    }
}

#[test]
fn one_good_certificate_is_enough_to_serve() {
    let (cert, key) = certificate();
    let listeners = "listeners: [{name: a, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: none}, {name: c}]}}]";
    let text = format!(
        "{}---\n{}{}",
        class(),
        gateway("gw", listeners),
        tls_secret("infra/c", &cert, &key)
    );
    let translation = translated(&text);
    assert!(
        at_listener(&translation, "a", Type::ResolvedRefs)
            .starts_with("False InvalidCertificateRef")
    );
    let listener = translation.snapshot().listeners.get("infra/gw/a").unwrap();
    assert_eq!(
        listener.tls.as_ref().unwrap().certificate_refs,
        ["infra/c".into()]
    );
}

#[test]
fn a_protocol_nobody_knows_is_named() {
    let expected = "False UnsupportedProtocol: spec.listeners[0].protocol: \"QUACK\" is not known, \
                    use HTTP, HTTPS, TLS, TCP or UDP";
    let listeners = "listeners: [{name: a, port: 80, protocol: QUACK}]";
    let translation = translated(&format!("{}---\n{}", class(), gateway("gw", listeners)));
    assert_eq!(at_listener(&translation, "a", Type::Accepted), expected);
    let accepted = condition(&translation, Kind::Gateway, "infra/gw", "", Type::Accepted);
    assert_eq!(
        (accepted.status, accepted.reason),
        (Truth::False, "ListenersNotValid")
    );
}

#[test]
fn a_listener_that_asks_for_client_certificates_does_not_serve_without() {
    let (cert, key) = certificate();
    let spec = "tls: {frontend: {default: {validation: {caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]}}}}, \
                listeners: [{name: a, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: c}]}}]";
    let text = format!(
        "{}---\n{}{}",
        class(),
        gateway("gw", spec),
        tls_secret("infra/c", &cert, &key)
    );
    let translation = translated(&text);
    assert!(translation.snapshot().listeners.is_empty());
    assert_eq!(
        at_listener(&translation, "a", Type::Accepted),
        "False NoValidCACertificate: spec.tls.frontend.default.validation.caCertificateRefs[0]: \
         there is no ConfigMap infra/ca"
    );
}

#[test]
fn a_bad_value_keeps_the_route_out_and_names_the_field() {
    for (rule, expected) in [
        (
            "matches: [{path: {type: RegularExpression, value: '((a{1000}){1000}){1000}'}}]",
            "spec.rules[0].matches[0].path.value: compiles to more than 256 KiB, use smaller repetition counts",
        ),
        (
            "matches: [{path: {value: no-slash}}]",
            "spec.rules[0].matches[0].path.value: \"no-slash\" is no path: begin with /, leave out //, dot segments, #, %2f and spaces",
        ),
        (
            "matches: [{path: {value: /a/../b}}]",
            "spec.rules[0].matches[0].path.value: \"/a/../b\" is no path: begin with /, leave out //, dot segments, #, %2f and spaces",
        ),
        (
            "matches: [{headers: [{name: 'bad name', value: x}]}]",
            "spec.rules[0].matches[0].headers[0].name: \"bad name\" is no name of a header field",
        ),
        (
            "backendRefs: [{name: cart}]",
            "spec.rules[0].backendRefs[0].port: is missing or no port, a Service or ServiceImport needs one",
        ),
        (
            "backendRefs: [{name: cart, port: 80, weight: -1}]",
            "spec.rules[0].backendRefs[0].weight: -1 is out of range, use 0 to 1000000",
        ),
        (
            "timeouts: {request: 1 day}",
            "spec.rules[0].timeouts.request: is no duration, write for example 1h30m, 10s or 250ms",
        ),
        (
            "timeouts: {request: 1s, backendRequest: 2s}",
            "spec.rules[0].timeouts.backendRequest: is longer than timeouts.request, make it shorter or equal",
        ),
        (
            "filters: [{type: URLRewrite}]",
            "spec.rules[0].filters[0]: is of type URLRewrite but does not say how",
        ),
        (
            "filters: [{type: RequestRedirect, requestRedirect: {statusCode: 200}}]",
            "spec.rules[0].filters[0].requestRedirect.statusCode: 200 is no redirect, use 301, 302, 303, 307 or 308",
        ),
        (
            "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: \"x\\ny\"}]}}]",
            "spec.rules[0].filters[0].requestHeaderModifier.set[0].value: holds characters a header field cannot carry",
        ),
        (
            "matches: [{path: {type: Exact, value: /x}}]\n  filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]",
            "spec.rules[0].filters[0].urlRewrite.path: ReplacePrefixMatch needs a rule with exactly one match, of type PathPrefix",
        ),
    ] {
        let rules = format!("\nrules:\n- {rule}\n- backendRefs: [{{name: cart, port: 80}}]");
        let text = format!(
            "{GATEWAY}{SERVICE}{}{}",
            route("one", &rules),
            route("two", "")
        );
        let translation = translated(&text);
        let accepted = at_parent(&translation, Type::Accepted);
        assert_eq!(accepted, format!("False UnsupportedValue: {expected}"));
        let violations: Vec<_> = translation.violations().map(ToString::to_string).collect();
        assert_eq!(violations, [format!("HTTPRoute shop/one: {expected}")]);
        let served: Vec<_> = translation
            .snapshot()
            .http_routes
            .iter()
            .map(|r| r.key.to_string())
            .collect();
        assert_eq!(served, ["shop/two"], "{rule}");
        assert!(translation.snapshot().clusters.is_empty());
    }
}

#[test]
fn a_rule_whose_extension_is_missing_fails_and_its_neighbours_serve() {
    let missing = "filters: [{type: ExtensionRef, extensionRef: \
        {group: gateway.nantian.dev, kind: DirectResponse, name: none}}]";
    let rules = format!("\nrules:\n- {missing}\n- backendRefs: [{{name: cart, port: 80}}]");
    let translation = translated(&format!("{GATEWAY}{SERVICE}{}", route("one", &rules)));
    assert!(at_parent(&translation, Type::Accepted).starts_with("True"));
    assert!(at_parent(&translation, Type::ResolvedRefs).starts_with("False ExtensionNotFound"));
    let served = translation.snapshot().http_routes.get("shop/one").unwrap();
    assert!(matches!(
        &*served.rules[0].filters,
        [ir::Filter::Unsupported { .. }]
    ));
}

#[test]
fn session_persistence_of_a_rule_reaches_the_data_plane() {
    let rules =
        "\nrules:\n- sessionPersistence: {type: Header}\n  backendRefs: [{name: cart, port: 80}]";
    let translation = translated(&format!("{GATEWAY}{SERVICE}{}", route("one", rules)));
    let status = translation.status(Kind::HttpRoute, "shop/one").unwrap();
    assert_eq!(status.warnings, [""; 0]);
    assert!(
        translation
            .snapshot()
            .http_routes
            .get("shop/one")
            .unwrap()
            .rules[0]
            .session_persistence
            .is_some()
    );
}

#[test]
fn timeouts_of_zero_are_carried_as_no_limit_and_retries_without_a_warning() {
    let rules = "\nrules:\n- timeouts: {request: 0s, backendRequest: 1500ms}\n  \
        retry: {attempts: 2, codes: [503], backoff: 100ms}\n  \
        backendRefs: [{name: cart, port: 80}]";
    let translation = translated(&format!("{GATEWAY}{SERVICE}{}", route("one", rules)));
    let status = translation.status(Kind::HttpRoute, "shop/one").unwrap();
    assert!(status.warnings.is_empty(), "{:?}", status.warnings);
    let route = translation.snapshot().http_routes.get("shop/one").unwrap();
    let rule = &route.rules[0];
    let millis = std::time::Duration::from_millis;
    assert_eq!(rule.timeouts.request, Some(millis(0)));
    assert_eq!(rule.timeouts.backend_request, Some(millis(1500)));
    let retry = rule.retry.as_ref().unwrap();
    assert_eq!(
        (&retry.codes[..], retry.attempts, retry.backoff),
        (&[503][..], 2, Some(millis(100)))
    );
}

#[test]
fn attached_routes_are_counted_once_each() {
    let routes = format!("{}{}", route("one", ""), route("two", ""));
    let translation = translated(&format!("{GATEWAY}{routes}"));
    let status = translation.status(Kind::Gateway, "infra/gw").unwrap();
    assert_eq!(status.listeners[0].attached_routes, 2);
    assert_eq!(
        status.listeners[0].supported_kinds,
        ["HTTPRoute", "GRPCRoute"]
    );
}

#[test]
fn gateways_of_others_are_left_alone() {
    let text =
        format!("{GATEWAY}{}", route("one", "")).replace("k8s.io/nantian-gw}", "k8s.io/else}");
    let translation = translated(&text);
    assert!(translation.snapshot().listeners.is_empty());
    assert_eq!(lines(&translation, Kind::Gateway, "infra/gw"), [""; 0]);
    assert_eq!(lines(&translation, Kind::HttpRoute, "shop/one"), [""; 0]);
    let any = Settings {
        classes: Classes::Any,
        ..Settings::default()
    };
    let translation = translate(&view(&text), &any, None);
    assert_eq!(translation.snapshot().http_routes.len(), 1);
}

#[test]
fn a_gateway_whose_class_is_not_there_is_told_so() {
    let text = gateway("gw", "listeners: [{name: a, port: 80, protocol: HTTP}]");
    assert_eq!(
        lines(&translated(&text), Kind::Gateway, "infra/gw"),
        [
            "Gateway infra/gw (in.yaml): Accepted=Unknown Pending: spec.gatewayClassName: there is no \
          GatewayClass nantian-gw, create it with controllerName \
          gateway.networking.k8s.io/nantian-gw"
        ]
    );
}

#[test]
fn ports_and_addresses_follow_the_settings() {
    let spec = "addresses: [{value: 192.0.2.9}], listeners: [{name: a, port: 80, protocol: HTTP}, \
                {name: b, port: 8081, protocol: HTTP}]";
    let view = view(&format!("{}---\n{}", class(), gateway("gw", spec)));
    let settings = Settings {
        ports: PortMap {
            privileged_offset: 8000,
            ..PortMap::default()
        },
        ..Settings::default()
    };
    let translation = translate(&view, &settings, None);
    let bound: Vec<_> = translation
        .snapshot()
        .listeners
        .iter()
        .map(|listener| format!("{:?}:{}", listener.addresses, listener.port))
        .collect();
    assert_eq!(bound, ["[192.0.2.9]:8080", "[192.0.2.9]:8081"]);

    let settings = Settings {
        local_addresses: Some([].into()),
        ..Settings::default()
    };
    let translation = translate(&view, &settings, None);
    assert!(translation.snapshot().listeners.is_empty());
    let programmed = condition(
        &translation,
        Kind::Gateway,
        "infra/gw",
        "",
        Type::Programmed,
    );
    assert_eq!(programmed.reason, "AddressNotUsable");
    assert_eq!(
        programmed.message,
        "spec.addresses[0]: 192.0.2.9 is no address of this host"
    );
}
