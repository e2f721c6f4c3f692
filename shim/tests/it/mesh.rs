//! Routes with Services as parents: what they are told, which listeners come of them, and that a
//! translation with a mesh keeps the law.

use std::num::NonZeroU16;

use ir::listener::CONSUMER_NAMESPACE;
use shim::cluster_view::{ClusterView, Kind};
use shim::conditions::{ConditionType as Type, Truth};
use shim::translate::{Settings, Translation, translate};

use crate::folder::view;

const SERVICE: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: ours}
spec: {controllerName: gateway.networking.k8s.io/nantian-gw}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec:
  clusterIP: 10.0.0.7
  selector: {app: cart}
  ports:
  - {name: http, port: 80, targetPort: 8080}
  - {name: admin, port: 81, appProtocol: http}
  - {name: tcp-raw, port: 9000}
  - {name: db, port: 5432, appProtocol: postgres}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-1, namespace: shop, labels: {kubernetes.io/service-name: cart}}
addressType: IPv4
endpoints: [{addresses: [192.0.2.1]}]
ports: [{name: http, port: 8080}, {name: admin, port: 81}]
";

fn settings() -> Settings {
    Settings {
        mesh: NonZeroU16::new(20_000).zip(NonZeroU16::new(29_999)),
        ..Settings::default()
    }
}

fn meshed(text: &str) -> Translation {
    translate(&view(text), &settings(), None)
}

/// An HTTPRoute `<namespace>/route` at the Service `shop/<service>`.
fn route(namespace: &str, service: &str, port: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {{name: route, namespace: {namespace}}}\nspec:\n  \
         parentRefs: [{{group: '', kind: Service, namespace: shop, name: {service}{port}}}]\n  \
         rules: [{{backendRefs: [{{name: cart, namespace: shop, port: 80}}]}}]\n"
    )
}

fn pod(namespace: &str, ip: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: {namespace}}}\n\
         status: {{podIPs: [{{ip: {ip}}}]}}\n"
    )
}

/// Service ports that listeners stand for, and whose clients are meant.
fn listeners(translation: &Translation) -> Vec<(u16, Option<&str>)> {
    let listeners = translation.snapshot().listeners.iter();
    let mut found: Vec<_> = listeners
        .map(|listener| {
            assert!(listener.is_mesh(), "{}", listener.name);
            assert!((20_000..30_000).contains(&listener.port.get()));
            let consumer = listener.metadata.get(CONSUMER_NAMESPACE);
            (listener.public_port().get(), consumer)
        })
        .collect();
    found.sort_unstable();
    found
}

fn told(translation: &Translation, route: &str, wanted: Type) -> (Truth, &'static str, String) {
    let status = translation.status(Kind::HttpRoute, route).unwrap();
    let parent = status.parents.first().unwrap();
    assert_eq!(parent.kind, "Service");
    let found = parent
        .conditions
        .iter()
        .find(|it| it.kind == wanted)
        .unwrap();
    (found.status, found.reason, found.message.clone())
}

#[test]
fn a_producer_route_serves_the_ports_it_means() {
    for (port, expected) in [
        ("", vec![(80, None), (81, None)]),
        (", port: 80", vec![(80, None)]),
        (", port: 9000", vec![(9000, None)]),
        (", sectionName: admin", vec![(81, None)]),
    ] {
        let translation = meshed(&(SERVICE.to_owned() + &route("shop", "cart", port)));
        let (truth, reason, message) = told(&translation, "shop/route", Type::Accepted);
        assert_eq!(
            (truth, reason),
            (Truth::True, "Accepted"),
            "{port}: {message}"
        );
        assert_eq!(listeners(&translation), expected, "{port}");
        let cluster = translation.snapshot().clusters.get("shop/cart:80").unwrap();
        assert_eq!(cluster.endpoints.len(), 1);
    }
}

#[test]
fn a_consumer_route_is_for_its_namespace_and_others_are_sent_on() {
    let text = [
        SERVICE.to_owned(),
        route("web", "cart", ", port: 80"),
        pod("web", "192.0.2.50"),
        pod("elsewhere", "192.0.2.51"),
    ];
    let translation = meshed(&text.concat());
    assert_eq!(listeners(&translation), [(80, None), (80, Some("web"))]);
    // No grant is needed for the Service that the route stands in front of.
    let (truth, ..) = told(&translation, "web/route", Type::ResolvedRefs);
    assert_eq!(truth, Truth::True);
    let snapshot = translation.snapshot();
    let route = snapshot.http_routes.get("web/route").unwrap();
    assert!(route.listeners.iter().all(|name| name.ends_with("@web")));
    let rest = snapshot.http_routes.get("shop/cart:80").unwrap();
    assert!(rest.listeners.iter().all(|name| !name.contains('@')));
    ir::decode::http_route(ir::encode::http_route(rest)).unwrap();
    let workloads: Vec<_> = snapshot.workloads.iter().map(|it| &*it.namespace).collect();
    assert_eq!(workloads, ["web"]);
}

#[test]
fn parents_that_cannot_be_are_told_why() {
    for (name, service, needle) in [
        ("none", "", "there is no Service shop/none"),
        (
            "headless",
            "{clusterIP: None, selector: {a: b}, ports: [{port: 80}]}",
            "headless",
        ),
        (
            "outside",
            "{type: ExternalName, externalName: example.org}",
            "ExternalName",
        ),
        (
            "bare",
            "{clusterIP: 10.0.0.9, ports: [{port: 80}]}",
            "no selector",
        ),
        (
            "other",
            "{clusterIP: 10.0.0.9, selector: {a: b}, ports: [{port: 8080}]}",
            "no listener on port 80",
        ),
    ] {
        let mut text = SERVICE.to_owned() + &route("shop", name, ", port: 80");
        if !service.is_empty() {
            text += &format!(
                "---\napiVersion: v1\nkind: Service\n\
                 metadata: {{name: {name}, namespace: shop}}\nspec: {service}\n"
            );
        }
        let translation = meshed(&text);
        let (truth, reason, message) = told(&translation, "shop/route", Type::Accepted);
        assert_eq!(
            (truth, reason),
            (Truth::False, "NoMatchingParent"),
            "{name}"
        );
        assert!(message.contains(needle), "{name}: {message}");
        assert_eq!(listeners(&translation), [], "{name}");
    }
}

#[test]
fn without_a_mesh_a_service_is_no_parent() {
    let text = SERVICE.to_owned() + &route("shop", "cart", "");
    let translation = translate(&view(&text), &Settings::default(), None);
    let (truth, reason, _) = told(&translation, "shop/route", Type::Accepted);
    assert_eq!((truth, reason), (Truth::False, "NoMatchingParent"));
    assert_eq!(translation.snapshot().listeners.len(), 0);
}

/// What is made for `shop/cart` by the time its traffic is led to data planes.
const LED: &str = "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: shadow-1
  namespace: shop
  labels:
    kubernetes.io/service-name: nantian-gw-shadow-cart
    nantian.dev/service-role: mesh-backend-shadow
    nantian.dev/original-service-name: cart
addressType: IPv4
endpoints: [{addresses: [192.0.2.2]}]
ports: [{name: http, port: 8080}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: cart-nantian-mesh-ipv4
  namespace: shop
  labels:
    kubernetes.io/service-name: cart
    nantian.dev/service-role: mesh-frontend
    nantian.dev/original-service-name: cart
addressType: IPv4
endpoints: [{addresses: [192.0.2.99]}]
ports: [{name: http, port: 23456}]
";

#[test]
fn what_leads_to_data_planes_is_no_endpoint_and_keeps_its_port() {
    let text = SERVICE.to_owned() + &route("shop", "cart", ", port: 80") + LED;
    let translation = meshed(&text);
    let listener = translation.snapshot().listeners.iter().next().unwrap();
    assert_eq!(listener.port.get(), 23_456);
    let cluster = translation.snapshot().clusters.get("shop/cart:80").unwrap();
    let mut addresses: Vec<_> = cluster
        .endpoints
        .iter()
        .map(|it| format!("{:?}", it.address))
        .collect();
    addresses.sort();
    assert_eq!(addresses, ["Ip(192.0.2.1)", "Ip(192.0.2.2)"]);

    // The route is gone and traffic still comes: it is sent on.
    let left = meshed(&(SERVICE.to_owned() + LED));
    assert_eq!(listeners(&left), [(80, None)]);
    assert!(left.snapshot().http_routes.get("shop/cart:80").is_some());
    assert!(left.snapshot().clusters.get("shop/cart:80").is_some());
    assert!(left.mesh_frontends().is_empty());
}

/// A Gateway with one listener for HTTP on this port.
fn gateway(port: u16) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
         metadata: {{name: gw, namespace: infra}}\nspec:\n  gatewayClassName: ours\n  \
         listeners: [{{name: web, port: {port}, protocol: HTTP}}]\n"
    )
}

/// Ports of the listeners of Gateways, and of those of the mesh.
fn ports(translation: &Translation) -> (Vec<u16>, Vec<u16>) {
    let snapshot = translation.snapshot();
    let violations = ir::consistency::check(&snapshot.listeners, &snapshot.secrets);
    assert!(violations.is_empty(), "{violations}");
    let ports = |is_mesh| {
        let listeners = snapshot.listeners.iter();
        let listeners = listeners.filter(|listener| listener.is_mesh() == is_mesh);
        listeners.map(|listener| listener.port.get()).collect()
    };
    (ports(false), ports(true))
}

#[test]
fn the_mesh_keeps_off_ports_that_gateways_have() {
    let text = SERVICE.to_owned() + &route("shop", "cart", ", port: 80");
    let (_, alone) = ports(&meshed(&text));
    let translation = meshed(&(text + &gateway(alone[0])));
    let (of_gateways, of_mesh) = ports(&translation);
    assert_eq!(of_gateways, alone);
    assert_eq!(of_mesh.len(), 1);
    assert_ne!(of_mesh, alone);
}

#[test]
fn a_gateway_does_not_get_a_port_that_a_service_is_led_to() {
    let text = SERVICE.to_owned() + &route("shop", "cart", ", port: 80") + LED + &gateway(23_456);
    let translation = meshed(&text);
    assert_eq!(ports(&translation), (vec![], vec![23_456]));
    let status = translation.status(Kind::Gateway, "infra/gw").unwrap();
    let conditions = &status.listeners[0].conditions;
    let told = |kind| conditions.iter().find(|it| it.kind == kind).unwrap();
    let accepted = told(Type::Accepted);
    assert_eq!(accepted.reason, "PortUnavailable");
    assert!(
        accepted.message.contains("use another port"),
        "{}",
        accepted.message
    );
    assert_eq!(told(Type::Programmed).status, Truth::False);
}

#[test]
fn a_previous_translation_changes_nothing() {
    let (_, alone) = ports(&meshed(
        &(SERVICE.to_owned() + &route("shop", "cart", ", port: 80")),
    ));
    let parts = [
        gateway(23_456),
        gateway(alone[0]).replace("name: gw", "name: other"),
        route("shop", "cart", ""),
        route("web", "cart", ", port: 80"),
        pod("web", "192.0.2.50"),
        LED.to_owned(),
    ];
    let views: Vec<ClusterView> = (0..1_usize << parts.len())
        .map(|set| {
            let chosen = parts.iter().enumerate().filter(|(n, _)| set >> n & 1 == 1);
            let chosen: String = chosen.map(|(_, part)| part.as_str()).collect();
            view(&(SERVICE.to_owned() + &chosen))
        })
        .collect();
    for before in &views {
        let before = translate(before, &settings(), None);
        for after in &views {
            let fresh = translate(after, &settings(), None);
            let next = translate(after, &settings(), Some(&before));
            assert_eq!(next.snapshot(), fresh.snapshot());
            assert!(next.statuses().eq(fresh.statuses()));
            assert_eq!(next.mesh_frontends(), fresh.mesh_frontends());
        }
    }
}
