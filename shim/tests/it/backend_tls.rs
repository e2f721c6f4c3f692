//! BackendTLSPolicies and the Gateway's client certificate: what holds, and what is told.

use std::sync::Arc;

use dataplane_testkit::certificate::Authority;
use ir::cluster::BackendTls;
use shim::cluster_view::Kind;
use shim::conditions::{ConditionType as Type, Truth};
use shim::translate::{Settings, Translation, translate};

use crate::folder::{GATEWAY, SERVICE, condition, route, translated, view};

const API: &str = "apiVersion: gateway.networking.k8s.io/v1";
const RULES: &str = "\nrules:\n- backendRefs: [{name: cart, port: 80}]";
const CA: &str =
    "hostname: cart.example, caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]";

fn indented(pem: &str) -> String {
    pem.trim().replace('\n', "\n    ")
}

/// A ConfigMap or Secret in namespace `shop` with that text as `ca.crt`.
fn authorities(kind: &str, name: &str, pem: &str) -> String {
    let field = if kind == "Secret" {
        "stringData"
    } else {
        "data"
    };
    format!(
        "---\napiVersion: v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\n\
         {field}:\n  ca.crt: |\n    {}\n---\n",
        indented(pem)
    )
}

fn policy(metadata: &str, target: &str, validation: &str) -> String {
    format!(
        "{API}\nkind: BackendTLSPolicy\nmetadata: {{namespace: shop, {metadata}}}\nspec:\n  \
         targetRefs: [{{group: '', kind: Service, {target}}}]\n  validation: {{{validation}}}\n---\n"
    )
}

/// A Gateway, the Service `shop/cart`, a route to it, and whatever else is given.
fn world(more: &[&str]) -> String {
    format!("{GATEWAY}{SERVICE}{}{}", route("one", RULES), more.concat())
}

fn tls(translation: &Translation) -> Option<Arc<BackendTls>> {
    let cluster = translation.snapshot().clusters.get("shop/cart:80")?;
    cluster.tls.clone()
}

/// What the policy is told at `infra/gw`, as `True Accepted`.
fn told(translation: &Translation, name: &str, wanted: Type) -> String {
    let key = format!("shop/{name}");
    let part = "parent infra/gw";
    let found = condition(translation, Kind::BackendTlsPolicy, &key, part, wanted);
    format!("{:?} {}", found.status, found.reason)
}

/// How many of the route's backends lead somewhere.
fn resolved(translation: &Translation) -> usize {
    let route = translation.snapshot().http_routes.get("shop/one").unwrap();
    let backends = route.rules[0].backends.iter();
    backends
        .filter(|b| !b.target.cluster_keys.is_empty())
        .count()
}

#[test]
#[expect(clippy::too_many_lines, reason = "a flat table")]
fn a_policy_holds_or_nothing_is_sent() {
    let pem = Authority::new("ca").pem().to_owned();
    let two = format!("{pem}{}", Authority::new("other").pem());
    let maps = [
        authorities("ConfigMap", "ca", &pem),
        authorities("Secret", "ca", &pem),
        authorities("ConfigMap", "two", &two),
        authorities(
            "ConfigMap",
            "garbage",
            "-----BEGIN CERTIFICATE-----\n    AAAA",
        ),
        authorities(
            "ConfigMap",
            "half",
            &format!("{pem}{}", &two[..pem.len() / 2]),
        ),
        authorities("ConfigMap", "huge", &two.repeat(1500)),
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: empty, namespace: shop}\n---\n"
            .to_owned(),
    ]
    .concat();
    let refs = |names: &[&str]| {
        let refs = names.iter().map(|name| match name.split_once(' ') {
            Some((kind, name)) => format!("{{group: '', kind: {kind}, name: {name}}}"),
            None => format!("{{group: '', kind: ConfigMap, name: {name}}}"),
        });
        let refs: Vec<_> = refs.collect();
        format!(
            "hostname: a.example, caCertificateRefs: [{}]",
            refs.join(", ")
        )
    };
    let names = |names: &str| format!("{CA}, subjectAltNames: [{names}]");
    let bad_ref = "False InvalidCACertificateRef";
    let all = "True ResolvedRefs";
    let none = "False NoValidCACertificate";
    let invalid = "False Invalid";
    let system = "hostname: a.example, wellKnownCACertificates: System";
    // validation -> Accepted, ResolvedRefs, authorities (none: nothing is sent)
    let rows: Vec<(String, &str, &str, Option<usize>)> = vec![
        (refs(&["ca"]), "True Accepted", all, Some(1)),
        (refs(&["Secret ca"]), "True Accepted", all, Some(1)),
        (refs(&["two", "Secret ca"]), "True Accepted", all, Some(2)),
        (refs(&["missing", "ca"]), "True Accepted", bad_ref, Some(1)),
        (
            refs(&["Vault a", "ca"]),
            "True Accepted",
            "False InvalidKind",
            Some(1),
        ),
        (refs(&["missing"]), none, bad_ref, None),
        (refs(&["Secret missing"]), none, bad_ref, None),
        (refs(&["garbage"]), none, bad_ref, None),
        (refs(&["half"]), none, bad_ref, None),
        (refs(&["empty"]), none, bad_ref, None),
        (refs(&["huge"]), none, bad_ref, None),
        (refs(&["Vault a"]), none, "False InvalidKind", None),
        (refs(&["ca"; 9]), invalid, all, None),
        (system.to_owned(), "True Accepted", all, Some(0)),
        (
            system.replace("System", "acme.example/own"),
            invalid,
            all,
            None,
        ),
        (
            format!("{CA}, wellKnownCACertificates: System"),
            invalid,
            all,
            None,
        ),
        ("hostname: a.example".to_owned(), invalid, all, None),
        (CA.replace("cart.example", "10.0.0.1"), invalid, all, None),
        (CA.replace("cart.example", "'::1'"), invalid, all, None),
        (
            CA.replace("cart.example", "'*.example'"),
            invalid,
            all,
            None,
        ),
        (CA.replace("cart.example", "''"), invalid, all, None),
        (
            names("{type: Hostname, hostname: '*.example'}"),
            "True Accepted",
            all,
            Some(1),
        ),
        (
            names("{type: URI, uri: 'spiffe://a/b'}"),
            "True Accepted",
            all,
            Some(1),
        ),
        (names("{type: URI, uri: 'no-uri'}"), invalid, all, None),
        (names("{type: URI, uri: '://a'}"), invalid, all, None),
        (
            names("{type: URI, hostname: a.example}"),
            invalid,
            all,
            None,
        ),
        (names("{type: Hostname}"), invalid, all, None),
        (
            names("{type: Hostname, hostname: 'a.*.example'}"),
            invalid,
            all,
            None,
        ),
        (
            names(&["{type: Hostname, hostname: a.b}"; 6].join(", ")),
            invalid,
            all,
            None,
        ),
    ];
    for (validation, accepted, references, ca_pems) in rows {
        let policy = policy("name: p", "name: cart", &validation);
        let translation = translated(&world(&[&maps, &policy]));
        assert_eq!(
            told(&translation, "p", Type::Accepted),
            accepted,
            "{validation}"
        );
        let found = told(&translation, "p", Type::ResolvedRefs);
        assert_eq!(found, references, "{validation}");
        let found = tls(&translation).map(|tls| tls.ca_pems.len());
        assert_eq!(found, ca_pems, "{validation}");
        assert_eq!(
            resolved(&translation),
            usize::from(ca_pems.is_some()),
            "{validation}"
        );
        assert_eq!(translation.violations().count(), 0, "{validation}");
    }
}

#[test]
fn what_names_and_options_say_is_carried() {
    let pem = Authority::new("ca").pem().to_owned();
    let names = format!(
        "{CA}, subjectAltNames: [{{type: URI, uri: 'spiffe://a/b'}}, \
         {{type: Hostname, hostname: B.example}}]}}\n  options: \
         {{gateway.nantian.dev/tls-min-version: '1.3'"
    );
    let policy = policy("name: p", "name: cart", &names);
    let tls = tls(&translated(&world(&[
        &authorities("ConfigMap", "ca", &pem),
        &policy,
    ])))
    .unwrap();
    assert_eq!(tls.hostname.as_str(), "cart.example");
    assert_eq!(tls.subject_alt_names.len(), 2);
    assert_eq!(tls.min_version, ir::listener::TlsVersion::V1_3);
    assert!(!tls.use_system_ca_certificates);
}

#[test]
fn the_older_policy_holds_and_one_for_the_port_before_one_for_the_service() {
    let map = authorities("ConfigMap", "ca", Authority::new("ca").pem());
    let named = |name: &str| CA.replace("cart.example", &format!("{name}.example"));
    let old = "creationTimestamp: \"2025-01-01T00:00:00Z\"";
    let new = "creationTimestamp: \"2026-01-01T00:00:00Z\"";
    let broken = "hostname: a.example";
    // (metadata of a, its target), (of b) -> whose name, what is told to a, to b
    let whole = "name: cart";
    let port = "name: cart, sectionName: web";
    let rows = [
        (
            (old, whole),
            (new, whole),
            "a",
            "True Accepted",
            "False Conflicted",
        ),
        (
            (new, whole),
            (old, whole),
            "b",
            "False Conflicted",
            "True Accepted",
        ),
        (
            (old, whole),
            (old, whole),
            "a",
            "True Accepted",
            "False Conflicted",
        ),
        (
            ("", whole),
            (new, whole),
            "b",
            "False Conflicted",
            "True Accepted",
        ),
        (
            (old, whole),
            (new, port),
            "b",
            "True Accepted",
            "True Accepted",
        ),
        (
            (new, port),
            (old, port),
            "b",
            "False Conflicted",
            "True Accepted",
        ),
        (
            (old, "name: cart, sectionName: wbe"),
            (new, whole),
            "b",
            "False TargetNotFound",
            "True Accepted",
        ),
    ];
    for ((meta_a, target_a), (meta_b, target_b), holds, told_a, told_b) in rows {
        let a = policy(&format!("name: a, {meta_a}"), target_a, &named("a"));
        let b = policy(&format!("name: b, {meta_b}"), target_b, &named("b"));
        let case = format!("{a}{b}");
        let translation = translated(&world(&[&map, &a, &b]));
        let name = tls(&translation).unwrap().hostname.to_string();
        assert_eq!(name, format!("{holds}.example"), "{case}");
        assert_eq!(told(&translation, "a", Type::Accepted), told_a, "{case}");
        assert_eq!(told(&translation, "b", Type::Accepted), told_b, "{case}");
    }
    // An older policy that cannot be used does not make room for a younger one.
    let a = policy(&format!("name: a, {old}"), whole, broken);
    let b = policy(&format!("name: b, {new}"), whole, &named("b"));
    let translation = translated(&world(&[&map, &a, &b]));
    assert_eq!(resolved(&translation), 0);
    assert_eq!(told(&translation, "a", Type::Accepted), "False Invalid");
    assert_eq!(told(&translation, "b", Type::Accepted), "False Conflicted");
}

#[test]
fn a_policy_that_nothing_reaches_is_told_in_a_warning() {
    let map = authorities("ConfigMap", "ca", Authority::new("ca").pem());
    let rows = [
        (
            policy("name: p", "name: nowhere", CA),
            "there is no Service shop/nowhere",
        ),
        (
            policy("name: p", "name: nowhere", "hostname: a.example"),
            "Invalid: ",
        ),
        (
            policy("name: p", "name: cart", CA).replace("kind: Service", "kind: Pod"),
            "kind Pod has no TLS",
        ),
        (
            policy("name: p", "name: cart", CA).replace("group: ''", "group: x.io"),
            "kind Service has no TLS",
        ),
    ];
    for (policy, expected) in rows {
        let translation = translated(&world(&[&map, &policy]));
        let status = translation
            .status(Kind::BackendTlsPolicy, "shop/p")
            .unwrap();
        assert_eq!(status.parents, [], "{policy}");
        let warnings = status.warnings.join("\n");
        assert!(warnings.contains(expected), "{policy}: {warnings}");
        assert!(tls(&translation).is_none());
        assert_eq!(resolved(&translation), 1, "{policy}");
    }
}

#[test]
fn policies_are_told_by_gateway_and_only_where_routes_may_send() {
    let map = authorities("ConfigMap", "ca", Authority::new("ca").pem());
    let policy = policy("name: p", "name: cart", CA);
    let second = GATEWAY
        .split_once("---")
        .unwrap()
        .1
        .replace("name: gw", "name: gw2")
        .replace("8080", "8081");
    let other = route("two", RULES).replace("name: gw,", "name: gw2,");
    let far = "\nrules:\n- backendRefs: [{name: cart, namespace: shop, port: 80}]";
    let far = route("far", far).replace("namespace: shop}\nspec", "namespace: far}\nspec");
    let far = far.replace("name: gw,", "name: gw2,");
    let grant = format!(
        "{API}\nkind: ReferenceGrant\nmetadata: {{name: g, namespace: shop}}\nspec:\n  \
         from: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: far}}]\n  \
         to: [{{group: '', kind: Service}}]\n---\n"
    );
    let rows: [(&[&str], &[&str]); 4] = [
        (&[], &["gw"]),
        (&[&other], &["gw", "gw2"]),
        (&[&far], &["gw"]),
        (&[&far, &grant], &["gw", "gw2"]),
    ];
    let mut before = None;
    for (more, expected) in rows {
        let text = world(&[&map, &policy, &second, &more.concat()]);
        let translation = translate(&view(&text), &Settings::default(), before.as_ref());
        let status = translation
            .status(Kind::BackendTlsPolicy, "shop/p")
            .unwrap();
        let told: Vec<_> = status.parents.iter().map(|parent| &*parent.name).collect();
        assert_eq!(told, expected);
        before = Some(translation);
    }
}

#[test]
fn an_authority_that_comes_goes_or_changes_is_followed() {
    let (one, two) = (Authority::new("one"), Authority::new("two"));
    let policy = policy("name: p", "name: cart", CA);
    let with = |pem: &str| world(&[&authorities("ConfigMap", "ca", pem), &policy]);
    let steps = [
        (world(&[&policy]), None),
        (with(one.pem()), Some(one.pem())),
        (with(two.pem()), Some(two.pem())),
        (with("nothing"), None),
        (with(one.pem()), Some(one.pem())),
    ];
    let mut before: Option<Translation> = None;
    for (text, expected) in steps {
        let next = translate(&view(&text), &Settings::default(), before.as_ref());
        let found = tls(&next).map(|tls| tls.ca_pems[0].trim().to_owned());
        assert_eq!(found.as_deref(), expected.map(str::trim));
        assert_eq!(resolved(&next), usize::from(expected.is_some()));
        before = Some(next);
    }
}

#[test]
fn a_port_that_speaks_tls_needs_a_policy() {
    let map = authorities("ConfigMap", "ca", Authority::new("ca").pem());
    let policy = policy("name: p", "name: cart", CA);
    // appProtocol -> sent without a policy
    let rows = [
        ("http", true),
        ("HTTP", true),
        ("kubernetes.io/h2c", true),
        ("kubernetes.io/ws", true),
        ("grpc", true),
        ("https", false),
        ("HTTPS", false),
        ("kubernetes.io/wss", false),
        ("grpcs", false),
    ];
    for (protocol, is_sent) in rows {
        let service = format!("port: 80, appProtocol: {protocol}}}");
        let text = |more: &[&str]| world(more).replacen("port: 80}", &service, 1);
        let translation = translated(&text(&[]));
        assert_eq!(resolved(&translation), usize::from(is_sent), "{protocol}");
        let at = "parent infra/gw";
        let refs = condition(
            &translation,
            Kind::HttpRoute,
            "shop/one",
            at,
            Type::ResolvedRefs,
        );
        let expected = if is_sent {
            "ResolvedRefs"
        } else {
            "UnsupportedProtocol"
        };
        assert_eq!(refs.reason, expected, "{protocol}");
        assert!(
            tls(&translated(&text(&[&map, &policy]))).is_some(),
            "{protocol}"
        );
    }
}

#[test]
fn streams_are_secured_where_tls_is_ours_and_passed_where_it_is_not() {
    let broken = policy("name: p", "name: cart", "hostname: a.example");
    let identity = Authority::new("ca").server(&["a.example"]);
    let secret = format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: c, namespace: infra}}\n\
         type: kubernetes.io/tls\nstringData:\n  tls.crt: |\n    {}\n  tls.key: |\n    {}\n---\n",
        indented(&identity.chain_pem),
        indented(&identity.key_pem)
    );
    let all = "allowedRoutes: {namespaces: {from: All}}";
    let end = "tls: {mode: Terminate, certificateRefs: [{name: c}]}";
    let gateway = format!(
        "{}---\n{API}\nkind: Gateway\nmetadata: {{name: gw, namespace: infra}}\n\
         spec: {{gatewayClassName: nantian-gw, listeners: [\n\
         {{name: tcp, port: 9000, protocol: TCP, {all}}},\n\
         {{name: pass, port: 9001, protocol: TLS, tls: {{mode: Passthrough}}, {all}}},\n\
         {{name: end, port: 9002, protocol: TLS, {end}, {all}}}]}}\n",
        GATEWAY.split_once("---").unwrap().0
    );
    // kind, listener -> sent though the policy cannot be used
    let rows = [
        ("TCPRoute", "sectionName: tcp", false),
        ("TLSRoute", "sectionName: pass", true),
        ("TLSRoute", "sectionName: end", false),
        ("TLSRoute", "namespace: infra", false),
    ];
    for (kind, parent, is_sent) in rows {
        let names = if kind == "TLSRoute" {
            "hostnames: [a.example], "
        } else {
            ""
        };
        let version = if kind == "TLSRoute" { "v1" } else { "v1alpha2" };
        let route = format!(
            "---\napiVersion: gateway.networking.k8s.io/{version}\nkind: {kind}\n\
             metadata: {{name: s, namespace: shop}}\n\
             spec: {{parentRefs: [{{name: gw, namespace: infra, {parent}}}], {names}\
             rules: [{{backendRefs: [{{name: cart, port: 80}}]}}]}}\n"
        )
        .replace("namespace: infra, namespace: infra", "namespace: infra");
        let text = format!("{gateway}{secret}{SERVICE}{broken}{route}");
        let translation = translated(&text);
        let found = translation.snapshot().stream_routes.iter().next();
        let found = found.unwrap_or_else(|| panic!("{kind} {parent} is not served"));
        let keys = &found.rules[0].backends[0].target.cluster_keys;
        assert_eq!(!keys.is_empty(), is_sent, "{kind} {parent}");
        let status = translation
            .status(Kind::BackendTlsPolicy, "shop/p")
            .unwrap();
        assert_eq!(status.parents.is_empty(), is_sent, "{kind} {parent}");
    }
}

/// A Gateway that shows backends the certificate of `reference`, with one HTTP listener.
fn showing(reference: &str) -> String {
    GATEWAY.replace(
        "  listeners:",
        &format!("  tls: {{backend: {{clientCertificateRef: {{{reference}}}}}}}\n  listeners:"),
    )
}

#[test]
fn the_certificate_of_a_gateway_is_shown_or_the_gateway_is_told() {
    let identity = Authority::new("ca").client("gateway");
    let secret = |namespace: &str| {
        format!(
            "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: c, namespace: {namespace}}}\n\
             type: kubernetes.io/tls\nstringData:\n  tls.crt: |\n    {}\n  tls.key: |\n    {}\n---\n",
            indented(&identity.chain_pem),
            indented(&identity.key_pem)
        )
    };
    let grant = |name: &str| {
        format!(
            "{API}\nkind: ReferenceGrant\nmetadata: {{name: g, namespace: keys}}\nspec:\n  \
             from: [{{group: gateway.networking.k8s.io, kind: Gateway, namespace: infra}}]\n  \
             to: [{{group: '', kind: Secret, name: {name}}}]\n---\n"
        )
    };
    let opaque = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: c, namespace: infra}\n---\n";
    let bad = "InvalidClientCertificateRef";
    let far = "name: c, namespace: keys";
    let rows: [(&str, String, &str); 9] = [
        ("name: c", secret("infra"), "ResolvedRefs"),
        (
            "group: '', kind: Secret, name: c",
            secret("infra"),
            "ResolvedRefs",
        ),
        ("name: c", String::new(), bad),
        ("name: c", opaque.to_owned(), bad),
        ("kind: ConfigMap, name: c", secret("infra"), bad),
        ("group: x.io, name: c", secret("infra"), bad),
        (far, secret("keys"), "RefNotPermitted"),
        (far, secret("keys") + &grant("d"), "RefNotPermitted"),
        (far, secret("keys") + &grant("c"), "ResolvedRefs"),
    ];
    for (reference, more, reason) in rows {
        let translation = translated(&format!("{}{more}", showing(reference)));
        let told = |kind| condition(&translation, Kind::Gateway, "infra/gw", "", kind);
        let is_good = reason == "ResolvedRefs";
        let refs = told(Type::ResolvedRefs);
        let truth = if is_good { Truth::True } else { Truth::False };
        assert_eq!((refs.status, refs.reason), (truth, reason), "{reference}");
        // It keeps nothing from serving.
        assert_eq!(told(Type::Accepted).reason, "Accepted", "{reference}");
        assert_eq!(told(Type::Programmed).reason, "Programmed", "{reference}");
        let listener = translation
            .snapshot()
            .listeners
            .get("infra/gw/http")
            .unwrap();
        let shown = listener.backend_client_certificate.as_deref();
        assert_eq!(shown.is_some(), is_good, "{reference}");
        let secrets = translation.snapshot().secrets.iter().count();
        assert_eq!(secrets, usize::from(is_good), "{reference}");
        assert!(!format!("{translation:?}").contains("PRIVATE KEY"));
    }
}

#[test]
fn a_gateway_is_told_of_listeners_that_name_what_is_not_there() {
    let text = GATEWAY.replace(
        "protocol: HTTP",
        "protocol: HTTPS\n    tls: {certificateRefs: [{name: c}]}",
    );
    let translation = translated(&text);
    let refs = condition(
        &translation,
        Kind::Gateway,
        "infra/gw",
        "",
        Type::ResolvedRefs,
    );
    assert_eq!(
        (refs.status, refs.reason),
        (Truth::False, "ListenersNotResolved")
    );
}
