//! ListenerSets: whose certificates they may name, what a refused listener does to them, ports of
//! Services, and policies of their Gateway.

use std::num::NonZeroU16;

use dataplane_testkit::certificate::Authority;
use shim::cluster_view::Kind;
use shim::conditions::{ConditionType as Type, Truth};
use shim::translate::{Addressing, PartName, Refused, Settings, Translation, translate};

use crate::folder::{condition, translated, view};

const GATEWAY: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: nantian-gw}
spec: {controllerName: gateway.networking.k8s.io/nantian-gw}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: infra}
spec:
  gatewayClassName: nantian-gw
  allowedListeners: {namespaces: {from: All}}
  listeners: [{name: http, port: 80, protocol: HTTP, hostname: gw.example}]
";

/// A ListenerSet `shop/<name>` of the Gateway `infra/gw`.
fn set(name: &str, listeners: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: ListenerSet\n\
         metadata: {{name: {name}, namespace: shop}}\n\
         spec: {{parentRef: {{name: gw, namespace: infra}}, listeners: [{listeners}]}}\n"
    )
}

fn route(parent: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {{name: route, namespace: shop}}\nspec: {{parentRefs: [{parent}], rules: \
         [{{filters: [{{type: RequestRedirect, requestRedirect: {{statusCode: 302}}}}]}}]}}\n"
    )
}

fn secret(namespace: &str) -> String {
    let identity = Authority::new("sets").server(&["*.example"]);
    let indented = |pem: &str| pem.trim().replace('\n', "\n    ");
    format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: cert, namespace: {namespace}}}\n\
         type: kubernetes.io/tls\nstringData:\n  tls.crt: |\n    {}\n  tls.key: |\n    {}\n",
        indented(&identity.chain_pem),
        indented(&identity.key_pem)
    )
}

fn grant(kind: &str, namespace: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\n\
         metadata: {{name: grant, namespace: certs}}\nspec:\n  \
         from: [{{group: gateway.networking.k8s.io, kind: {kind}, namespace: {namespace}}}]\n  \
         to: [{{group: '', kind: Secret}}]\n"
    )
}

fn told(translation: &Translation, part: &str, wanted: Type) -> (Truth, &'static str) {
    let found = condition(translation, Kind::ListenerSet, "shop/set", part, wanted);
    (found.status, found.reason)
}

fn sets_of_gateway(translation: &Translation) -> Option<usize> {
    let status = translation.status(Kind::Gateway, "infra/gw");
    status.and_then(|status| status.attached_listener_sets)
}

#[test]
fn a_set_may_name_what_it_was_granted_and_not_what_its_gateway_was() {
    let listener = |namespace: &str| {
        format!(
            "{{name: tls, port: 443, protocol: HTTPS, hostname: a.example, \
             tls: {{certificateRefs: [{{name: cert{namespace}}}]}}}}"
        )
    };
    let (near, far) = (listener(""), listener(", namespace: certs"));
    let good = (Truth::True, "ResolvedRefs");
    let bad = (Truth::False, "RefNotPermitted");
    for (what, listener, more, expected) in [
        ("its own namespace", &near, secret("shop"), good),
        (
            "a grant for it",
            &far,
            secret("certs") + &grant("ListenerSet", "shop"),
            good,
        ),
        (
            "a grant for its Gateway",
            &far,
            secret("certs") + &grant("Gateway", "infra"),
            bad,
        ),
        ("no grant", &far, secret("certs"), bad),
    ] {
        let translation = translated(&[GATEWAY, &set("set", listener), &more].concat());
        let resolved = told(&translation, "listener tls", Type::ResolvedRefs);
        assert_eq!(resolved, expected, "{what}");
        let is_served = expected == good;
        let accepted = match is_served {
            true => (Truth::True, "Accepted"),
            false => (Truth::False, "ListenersNotValid"),
        };
        assert_eq!(told(&translation, "", Type::Accepted), accepted, "{what}");
        let listeners = &translation.snapshot().listeners;
        let served = listeners.get("infra/gw/shop/set/tls").is_some();
        assert_eq!(served, is_served, "{what}");
        assert_eq!(sets_of_gateway(&translation), Some(usize::from(is_served)));
        let gateway = condition(&translation, Kind::Gateway, "infra/gw", "", Type::Accepted);
        assert_eq!(
            gateway.reason, "Accepted",
            "{what}: the Gateway is not at fault"
        );
    }
}

#[test]
fn a_listener_that_a_data_plane_refuses_is_told_where_it_is_written() {
    let text = [
        GATEWAY,
        &set("set", "{name: one, port: 81, protocol: HTTP}"),
        &route("{kind: ListenerSet, name: set}"),
    ];
    let translation = translated(&text.concat());
    assert_eq!(sets_of_gateway(&translation), Some(1));
    let part = PartName::parse("Listener infra/gw/shop/set/one").unwrap();
    let without = translation.without(&[Refused {
        part,
        path: "port".to_owned(),
        message: "node-1: in use".to_owned(),
        is_tried: false,
    }]);
    let listener = |wanted| told(&without, "listener one", wanted);
    assert_eq!(listener(Type::Accepted), (Truth::False, "PortUnavailable"));
    assert_eq!(listener(Type::Programmed), (Truth::False, "Pending"));
    let own = told(&without, "", Type::Programmed);
    assert_eq!(own, (Truth::False, "ListenersNotValid"));
    assert_eq!(sets_of_gateway(&without), Some(0));
    let gateway = condition(&without, Kind::Gateway, "infra/gw", "", Type::Programmed);
    assert_eq!(gateway.status, Truth::True);
}

#[test]
fn routes_are_counted_at_the_listeners_that_took_them() {
    let listeners = "{name: one, port: 81, protocol: HTTP}, {name: two, port: 82, protocol: HTTP}";
    let count = |parent: &str| {
        let text = [GATEWAY, &set("set", listeners), &route(parent)].concat();
        let translation = translated(&text);
        let status = translation.status(Kind::ListenerSet, "shop/set").unwrap();
        let counts = status.listeners.iter().map(|it| it.attached_routes);
        counts.collect::<Vec<_>>()
    };
    assert_eq!(count("{kind: ListenerSet, name: set}"), [1, 1]);
    assert_eq!(
        count("{kind: ListenerSet, name: set, sectionName: two}"),
        [0, 1]
    );
    assert_eq!(count("{kind: ListenerSet, name: set, port: 81}"), [1, 0]);
    assert_eq!(count("{name: gw, namespace: infra}"), [0, 0]);
}

#[test]
fn ports_of_sets_are_ports_of_the_gateways_service() {
    let set = set(
        "set",
        "{name: dns, port: 53, protocol: UDP}, {name: web, port: 80, protocol: HTTP, hostname: a.example}",
    );
    let view = view(&[GATEWAY, &set].concat());
    let settings = Settings {
        addressing: Addressing::Service {
            first: NonZeroU16::new(10_000).unwrap(),
            last: NonZeroU16::new(10_009).unwrap(),
        },
        ..Settings::default()
    };
    let translation = translate(&view, &settings, None);
    let bound = translation.bound_ports("infra/gw").unwrap();
    assert_eq!(bound.keys().copied().collect::<Vec<_>>(), [53, 80]);
    let written: Vec<_> = translation.written_ports("infra/gw").collect();
    assert_eq!(written, [(53, "UDP"), (80, "TCP")]);
    let own: Vec<_> = translation
        .own_gateways()
        .map(|it| it.to_string())
        .collect();
    assert_eq!(own, ["infra/gw"], "a set is no Gateway");
}

#[test]
fn a_set_keeps_serving_beside_a_gateway_whose_own_listeners_are_broken() {
    let broken = GATEWAY.replace("protocol: HTTP, hostname", "protocol: SMTP, hostname");
    let text = [
        &*broken,
        &set("set", "{name: one, port: 81, protocol: HTTP}"),
    ];
    let translation = translated(&text.concat());
    assert_eq!(told(&translation, "", Type::Accepted).0, Truth::True);
    let listeners = &translation.snapshot().listeners;
    assert!(listeners.get("infra/gw/shop/set/one").is_some());
}

#[test]
fn sets_by_the_thousand_are_told_apart_in_no_time() {
    let mut text = GATEWAY.to_owned();
    for n in 0..1000 {
        let listener = format!("{{name: l, port: 80, protocol: HTTP, hostname: h{n}.example}}");
        text += &set(&format!("s{n}"), &listener);
    }
    let view = view(&text);
    let started = std::time::Instant::now();
    let translation = translate(&view, &Settings::default(), None);
    let took = started.elapsed();
    assert_eq!(translation.snapshot().listeners.len(), 1001);
    assert_eq!(sets_of_gateway(&translation), Some(1000));
    assert!(took < std::time::Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_route_of_one_set_among_hundreds_changes_what_that_set_is_told_and_nothing_else() {
    let sets: String = (0..300)
        .map(|number| {
            let listener =
                format!("{{name: a, port: 80, protocol: HTTP, hostname: s{number}.example}}");
            set(&format!("s{number}"), &listener)
        })
        .collect();
    let first = format!("{GATEWAY}{sets}");
    let settings = Settings::default();
    let without = translate(&view(&first), &settings, None);
    let parent = route("{kind: ListenerSet, name: s7}");
    let with = format!("{first}{parent}");
    let mut objects = without.view().clone();
    let read = view(&with);
    let added = read.http_routes.get("shop/route").unwrap();
    objects.http_routes.insert(added.clone());
    let started = std::time::Instant::now();
    let next = translate(&objects, &settings, Some(&without));
    println!("one route among 300 sets: {:?}", started.elapsed());
    let changed = |from: &Translation, to: &Translation| {
        let ids = from.changed_statuses(to).into_iter();
        ids.map(|(kind, key)| format!("{kind} {key}"))
            .collect::<Vec<_>>()
    };
    let both = ["ListenerSet shop/s7", "HTTPRoute shop/route"];
    assert_eq!(changed(&without, &next), both);
    let count = |translation: &Translation| {
        let status = translation.status(Kind::ListenerSet, "shop/s7").unwrap();
        status.listeners[0].attached_routes
    };
    assert_eq!((count(&without), count(&next)), (0, 1));
    let back = translate(without.view(), &settings, Some(&next));
    assert_eq!(count(&back), 0);
    assert_eq!(changed(&without, &back), Vec::<String>::new());
}
