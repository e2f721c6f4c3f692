//! TCPRoutes, UDPRoutes and TLSRoutes: which listeners take them, what data planes get, what is told.

use dataplane_testkit::certificate::Authority;
use ir::Hostname;
use ir::cluster::ProxyProtocol;
use ir::listener::ListenerProtocol;
use shim::cluster_view::Kind;
use shim::conditions::ConditionType as Type;
use shim::translate::Translation;

use crate::folder::{condition, translated};

const CLASS: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\n\
    metadata: {name: nantian-gw}\n\
    spec: {controllerName: gateway.networking.k8s.io/nantian-gw}\n---\n";
const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: db, namespace: app}\n\
    spec: {ports: [{port: 5432}]}\n---\n";

fn gateway(listeners: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
         metadata: {{name: gw, namespace: app}}\n\
         spec: {{gatewayClassName: nantian-gw, listeners: [{listeners}]}}\n---\n"
    )
}

fn route(kind: &str, version: &str, spec: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/{version}\nkind: {kind}\n\
         metadata: {{name: r, namespace: app}}\nspec: {{parentRefs: [{{name: gw}}], {spec}}}\n---\n"
    )
}

const TO_DB: &str = "rules: [{backendRefs: [{name: db, port: 5432}]}]";

fn secret() -> String {
    let pair = Authority::new("test").server(&["*.example.com"]);
    let indent = |pem: &str| pem.replace('\n', "\n    ");
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: cert, namespace: app}}\n\
         type: kubernetes.io/tls\nstringData:\n  tls.crt: |\n    {}\n  tls.key: |\n    {}\n---\n",
        indent(&pair.chain_pem),
        indent(&pair.key_pem)
    )
}

fn translation(parts: &[&str]) -> Translation {
    translated(&format!("{CLASS}{SERVICE}{}{}", secret(), parts.concat()))
}

const PASSTHROUGH: &str = "{name: pass, port: 443, protocol: TLS, tls: {mode: Passthrough}}";
const CERTIFICATE: &str = "tls: {mode: Terminate, certificateRefs: [{name: cert}]}";

/// Kinds that the listeners support, and how many routes they took.
fn listeners(translation: &Translation) -> Vec<(String, Vec<&'static str>, usize)> {
    let status = translation.status(Kind::Gateway, "app/gw").unwrap();
    let rows = status.listeners.iter();
    rows.map(|it| {
        (
            it.name.clone(),
            it.supported_kinds.clone(),
            it.attached_routes,
        )
    })
    .collect()
}

#[test]
fn a_tcp_route_is_served_at_a_tcp_listener() {
    for version in ["v1", "v1alpha2"] {
        let spec = "rules: [{name: all, backendRefs: [{name: db, port: 5432, weight: 3}]}]";
        let it = translation(&[
            &gateway("{name: a, port: 5432, protocol: TCP}"),
            &route("TCPRoute", version, spec),
        ]);
        let snapshot = it.snapshot();
        let route = snapshot
            .stream_routes
            .get("tcp/app/r")
            .expect("it is served");
        assert_eq!(route.listeners, ["app/gw/a".into()]);
        assert_eq!(route.rules[0].backends[0].weight, 3);
        assert!(snapshot.clusters.get("app/db:5432").is_some());
        let listener = snapshot.listeners.get("app/gw/a").unwrap();
        assert_eq!(listener.protocol, ListenerProtocol::Tcp);
        assert_eq!(listeners(&it), [("a".to_owned(), vec!["TCPRoute"], 1)]);
    }
}

const DNS: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: dns, namespace: app}\n\
    spec: {ports: [{name: udp, port: 53, protocol: UDP}, {name: tcp, port: 53, protocol: TCP}]}\n---\n\
    apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
    metadata: {name: dns-1, namespace: app, labels: {kubernetes.io/service-name: dns}}\n\
    addressType: IPv4\nendpoints: [{addresses: [10.0.0.9]}]\n\
    ports: [{name: udp, port: 53, protocol: UDP}, {name: tcp, port: 53, protocol: TCP}]\n---\n";
const TO_DNS: &str = "rules: [{backendRefs: [{name: dns, port: 53}]}]";

#[test]
fn udp_and_tcp_are_served_at_one_port_by_one_service() {
    for version in ["v1", "v1alpha2"] {
        let tcp = route("TCPRoute", version, TO_DNS);
        let it = translation(&[
            &gateway("{name: u, port: 53, protocol: UDP}, {name: t, port: 53, protocol: TCP}"),
            DNS,
            &route("UDPRoute", version, TO_DNS),
            &tcp,
        ]);
        let snapshot = it.snapshot();
        for (key, listener) in [("udp/app/r", "app/gw/u"), ("tcp/app/r", "app/gw/t")] {
            let route = snapshot.stream_routes.get(key).expect("it is served");
            assert_eq!(route.listeners, [listener.into()]);
        }
        let endpoints = &snapshot.clusters.get("app/dns:53").unwrap().endpoints;
        assert_eq!((endpoints.len(), endpoints[0].port.get()), (1, 53));
        assert_eq!(
            listeners(&it),
            [
                ("u".to_owned(), vec!["UDPRoute"], 1),
                ("t".to_owned(), vec!["TCPRoute"], 1)
            ]
        );
        let told = condition(
            &it,
            Kind::UdpRoute,
            "app/r",
            "parent app/gw",
            Type::Accepted,
        );
        assert_eq!(told.reason, "Accepted");
    }
}

#[test]
fn udp_routes_are_told_why_nobody_takes_them() {
    let udp = "{name: u, port: 53, protocol: UDP}";
    let apart = "apiVersion: v1\nkind: Service\nmetadata: {name: dns, namespace: app}\n\
        spec: {ports: [{name: udp, port: 53, protocol: UDP, targetPort: 1053}, \
        {name: tcp, port: 53, protocol: TCP}]}\n---\n";
    let elsewhere = "rules: [{backendRefs: [{name: dns, namespace: other, port: 53}]}]";
    let nowhere = "rules: [{backendRefs: [{name: nowhere, port: 53}]}]";
    let unknown = "rules: [{backendRefs: [{group: a.test, kind: B, name: c, port: 53}]}]";
    let tcp = "{name: t, port: 53, protocol: TCP}";
    for (listener, service, spec, kind, reason) in [
        (tcp, DNS, TO_DNS, Type::Accepted, "NotAllowedByListeners"),
        (udp, DNS, TO_DB, Type::ResolvedRefs, "UnsupportedProtocol"),
        (udp, apart, TO_DNS, Type::ResolvedRefs, "UnsupportedValue"),
        (udp, DNS, nowhere, Type::ResolvedRefs, "BackendNotFound"),
        (udp, DNS, unknown, Type::ResolvedRefs, "InvalidKind"),
        (udp, DNS, elsewhere, Type::ResolvedRefs, "RefNotPermitted"),
    ] {
        let route = route("UDPRoute", "v1alpha2", spec);
        let it = translation(&[&gateway(listener), service, &route]);
        let told = condition(&it, Kind::UdpRoute, "app/r", "parent app/gw", kind);
        assert_eq!(told.reason, reason, "{listener} {spec}: {}", told.message);
    }
}

#[test]
fn a_service_may_ask_for_the_proxy_protocol() {
    let service = |version: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: p, namespace: app, \
             annotations: {{gateway.nantian.dev/proxy-protocol: {version}}}}}\n\
             spec: {{ports: [{{port: 1}}, {{port: 2, protocol: UDP}}]}}\n---\n"
        )
    };
    let gateway = gateway(
        "{name: t, port: 1, protocol: TCP}, {name: u, port: 1, protocol: UDP}, \
         {name: h, port: 80, protocol: HTTP}",
    );
    for (kind, port, version, expected) in [
        ("TCPRoute", 1, "v1", Ok(ProxyProtocol::V1)),
        ("TCPRoute", 1, "v2", Ok(ProxyProtocol::V2)),
        ("TCPRoute", 1, "v3", Err("\"v3\" is not understood")),
        ("UDPRoute", 2, "v2", Err("only TCPRoutes and TLSRoutes")),
        ("HTTPRoute", 1, "v2", Err("only TCPRoutes and TLSRoutes")),
    ] {
        let spec = format!("rules: [{{backendRefs: [{{name: p, port: {port}}}]}}]");
        let served_as = if kind == "HTTPRoute" {
            "v1"
        } else {
            "v1alpha2"
        };
        let it = translation(&[&service(version), &gateway, &route(kind, served_as, &spec)]);
        let route_kind = match kind {
            "TCPRoute" => Kind::TcpRoute,
            "UDPRoute" => Kind::UdpRoute,
            _ => Kind::HttpRoute,
        };
        let told = condition(
            &it,
            route_kind,
            "app/r",
            "parent app/gw",
            Type::ResolvedRefs,
        );
        match expected {
            Ok(version) => {
                let cluster = it.snapshot().clusters.get("app/p:1").unwrap();
                assert_eq!(cluster.proxy_protocol, Some(version));
            }
            Err(why) => assert!(told.message.contains(why), "{kind}: {}", told.message),
        }
    }
}

#[test]
fn a_udp_listener_has_neither_tls_nor_a_host_name() {
    for field in ["hostname: a.test", CERTIFICATE] {
        let listener = format!("{{name: u, port: 53, protocol: UDP, {field}}}");
        let it = translation(&[&gateway(&listener)]);
        let told = condition(&it, Kind::Gateway, "app/gw", "listener u", Type::Accepted);
        assert_eq!(told.reason, "UnsupportedValue", "{}", told.message);
        assert!(it.snapshot().listeners.get("app/gw/u").is_none());
    }
    let twice = "{name: u, port: 53, protocol: UDP}, {name: v, port: 53, protocol: UDP}";
    assert_eq!(
        translation(&[&gateway(twice)]).snapshot().listeners.len(),
        0
    );
}

#[test]
fn listeners_of_tls_support_the_kinds_of_their_mode() {
    let ended =
        format!("{{name: end, port: 443, protocol: TLS, hostname: a.example.com, {CERTIFICATE}}}");
    let strict = "{name: pass, port: 443, protocol: TLS, tls: {mode: Passthrough}, \
                  allowedRoutes: {kinds: [{kind: TCPRoute}, {kind: TLSRoute}]}}";
    let it = translation(&[&gateway(&format!("{strict}, {ended}"))]);
    assert_eq!(
        listeners(&it),
        [
            ("pass".to_owned(), vec!["TLSRoute"], 0),
            ("end".to_owned(), vec!["TLSRoute", "TCPRoute"], 0),
        ]
    );
    let refs = condition(
        &it,
        Kind::Gateway,
        "app/gw",
        "listener pass",
        Type::ResolvedRefs,
    );
    assert_eq!(refs.reason, "InvalidRouteKinds");
    let accepted = condition(&it, Kind::Gateway, "app/gw", "listener end", Type::Accepted);
    assert_eq!(accepted.reason, "Accepted");
}

#[test]
fn passing_ending_and_http_share_a_port_by_name() {
    let listeners = format!(
        "{{name: a, port: 443, protocol: TLS, hostname: a.example.com, tls: {{mode: Passthrough}}}}, \
         {{name: b, port: 443, protocol: TLS, hostname: b.example.com, {CERTIFICATE}}}, \
         {{name: c, port: 443, protocol: HTTPS, hostname: c.example.com, {CERTIFICATE}}}"
    );
    let it = translation(&[&gateway(&listeners)]);
    let served: Vec<_> = it
        .snapshot()
        .listeners
        .iter()
        .map(|it| it.protocol)
        .collect();
    use ListenerProtocol::{Https, Tls, TlsPassthrough};
    assert_eq!(served, [TlsPassthrough, Tls, Https]);
    let clash = format!(
        "{{name: a, port: 443, protocol: TLS, hostname: x.test, tls: {{mode: Passthrough}}}}, \
         {{name: b, port: 443, protocol: HTTPS, hostname: x.test, {CERTIFICATE}}}, \
         {{name: t, port: 443, protocol: TCP}}"
    );
    let it = translation(&[&gateway(&clash)]);
    assert_eq!(it.snapshot().listeners.len(), 0);
}

#[test]
fn a_tls_route_is_matched_by_its_names() {
    let it = translation(&[
        &gateway(PASSTHROUGH),
        &route(
            "TLSRoute",
            "v1",
            &format!("hostnames: [a.test, '*.b.test'], {TO_DB}"),
        ),
    ]);
    let route = it
        .snapshot()
        .stream_routes
        .get("tls/app/r")
        .expect("it is served");
    let names: Vec<_> = route.rules[0]
        .matches
        .iter()
        .map(|m| m.sni.clone())
        .collect();
    let name = |text| Some(Hostname::new(text).unwrap());
    assert_eq!(names, [name("a.test"), name("*.b.test")]);
    let it = translation(&[
        &gateway(PASSTHROUGH),
        &self::route("TLSRoute", "v1alpha2", TO_DB),
    ]);
    let route = it
        .snapshot()
        .stream_routes
        .get("tls/app/r")
        .expect("it is served");
    assert_eq!(route.rules[0].matches[0].sni, None);
}

/// The expectations of the Gateway API conformance tests for TLSRoute.
#[test]
fn tls_routes_are_told_why_nobody_takes_them() {
    let hostnames = "hostnames: [www.nomatch.com, '*.nomatch.com']";
    let exact =
        "{name: t, port: 443, protocol: TLS, hostname: www.example.com, tls: {mode: Passthrough}}";
    let wild =
        "{name: t, port: 443, protocol: TLS, hostname: '*.example.com', tls: {mode: Passthrough}}";
    let http = "{name: t, port: 80, protocol: HTTP}";
    let https = format!("{{name: t, port: 443, protocol: HTTPS, {CERTIFICATE}}}");
    let unknown = "rules: [{backendRefs: [{group: unknown.example.com, kind: NonExistent, name: x, port: 443}]}]";
    let missing = "rules: [{backendRefs: [{name: nowhere, port: 443}]}]";
    let elsewhere = "rules: [{backendRefs: [{name: db, namespace: other, port: 443}]}]";
    let fits = "hostnames: [a.example.com]";
    for (listener, spec, kind, reason) in [
        (
            exact,
            format!("{hostnames}, {TO_DB}"),
            Type::Accepted,
            "NoMatchingListenerHostname",
        ),
        (
            wild,
            format!("{hostnames}, {TO_DB}"),
            Type::Accepted,
            "NoMatchingListenerHostname",
        ),
        (
            http,
            format!("{fits}, {TO_DB}"),
            Type::Accepted,
            "NotAllowedByListeners",
        ),
        (
            &https,
            format!("{fits}, {TO_DB}"),
            Type::Accepted,
            "NotAllowedByListeners",
        ),
        (
            wild,
            format!("{fits}, {unknown}"),
            Type::ResolvedRefs,
            "InvalidKind",
        ),
        (
            wild,
            format!("{fits}, {missing}"),
            Type::ResolvedRefs,
            "BackendNotFound",
        ),
        (
            wild,
            format!("{fits}, {elsewhere}"),
            Type::ResolvedRefs,
            "RefNotPermitted",
        ),
    ] {
        let it = translation(&[&gateway(listener), &route("TLSRoute", "v1", &spec)]);
        let told = condition(&it, Kind::TlsRoute, "app/r", "parent app/gw", kind);
        assert_eq!(told.reason, reason, "{listener} {spec}: {}", told.message);
        let is_served = it.snapshot().stream_routes.get("tls/app/r").is_some();
        assert_eq!(is_served, kind == Type::ResolvedRefs, "{spec}");
        let attached = listeners(&it)[0].2;
        assert_eq!(attached, usize::from(kind == Type::ResolvedRefs), "{spec}");
    }
}
