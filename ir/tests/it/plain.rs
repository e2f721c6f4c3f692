//! Small facts about decoding that need no table.

use std::sync::Arc;

use ir::cluster::Balancing;
use ir::filter::{ExternalAuthProtocol, Filter};
use ir::{BackendTarget, decode, encode, wire};

use crate::text;

#[test]
fn single_objects_of_unknown_kinds_are_refused() {
    let listener = wire::Listener {
        name: "a/gw/l".to_owned(),
        port: 80,
        protocol: 77,
        ..wire::Listener::default()
    };
    let violations = decode::listener(listener).unwrap_err();
    assert_eq!(
        violations.to_string(),
        "Listener a/gw/l: protocol: 77 is not known to this data plane, the listener is left out"
    );
    let route = wire::StreamRoute {
        name: "r".to_owned(),
        namespace: "a".to_owned(),
        kind: 77,
        ..wire::StreamRoute::default()
    };
    assert_eq!(decode::stream_route(route).unwrap_err().len(), 1);
}

#[test]
fn a_whole_snapshot_states_attachment_both_ways() {
    let text = r#"
        id: "v1"
        listeners { name: "a/gw/1" port: 1 protocol: LISTENER_HTTP }
        http_routes { name: "r" namespace: "a" attached_listeners: "a/gw/1" }
        grpc_routes { name: "r" namespace: "a" attached_listeners: "a/gw/1" }
        grpc_routes { name: "q" namespace: "a" attached_listeners: "a/gw/1" }
        stream_routes { name: "s" namespace: "a" kind: ROUTE_KIND_TCP attached_listeners: "a/gw/1" }
        stream_routes { name: "t" namespace: "a" kind: ROUTE_KIND_TCP }
    "#;
    let snapshot = decode::snapshot(text::snapshot(text)).unwrap();
    let message = encode::snapshot(&snapshot);
    assert_eq!(message.listeners[0].attached_routes, ["a/q", "a/r", "a/s"]);
    assert_eq!(message.http_routes[0].attached_listeners, ["a/gw/1"]);
    let alone = encode::listener(snapshot.listeners.get("a/gw/1").unwrap());
    assert!(alone.attached_routes.is_empty());
}

#[test]
fn equal_names_and_patterns_share_their_memory() {
    let text = r#"
        id: "v1"
        listeners { name: "a/gw/1" port: 1 protocol: LISTENER_HTTP }
        http_routes { name: "q" namespace: "a" attached_listeners: "a/gw/1" rules { backend_refs { name: "b" port: 80 weight: 1 } } }
        http_routes { name: "r" namespace: "a" attached_listeners: "a/gw/1" rules { backend_refs { name: "b" port: 80 weight: 1 } } }
        backends { name: "b:80" namespace: "a" protocol: "TCP" }
    "#;
    let snapshot = decode::snapshot(text::snapshot(text)).unwrap();
    let keys = |route: &str| {
        let route = snapshot.http_routes.get(route).unwrap();
        let target = &route.rules[0].backends[0].target;
        (route.listeners[0].clone(), target.cluster_keys[1].clone())
    };
    let (listener, cluster) = keys("a/q");
    let (other_listener, other_cluster) = keys("a/r");
    assert!(Arc::ptr_eq(&listener, &other_listener));
    assert!(Arc::ptr_eq(
        &listener,
        &snapshot.listeners.get("a/gw/1").unwrap().name
    ));
    assert!(Arc::ptr_eq(&cluster, &other_cluster));
    assert!(Arc::ptr_eq(
        &cluster,
        &snapshot.clusters.get("a/b:80").unwrap().key
    ));
}

#[test]
fn accessors_name_the_parts_of_keys() {
    let text = r#"
        id: "v1"
        stream_routes { name: "r" namespace: "a" kind: ROUTE_KIND_TLS }
        http_routes { name: "h" namespace: "b" rules { backend_refs { name: "c" weight: 1 } backend_refs { name: "d" port: 8 weight: 1 } } }
    "#;
    let snapshot = decode::snapshot(text::snapshot(text)).unwrap();
    let stream = snapshot.stream_routes.get("tls/a/r").unwrap();
    assert_eq!((stream.namespace(), stream.name()), ("a", "r"));
    let http = snapshot.http_routes.get("b/h").unwrap();
    assert_eq!((http.namespace(), http.name()), ("b", "h"));
    let backends = &http.rules[0].backends;
    let port = std::num::NonZeroU16::new(8);
    assert_eq!(
        backends[0].target,
        BackendTarget::new("", "Service", "b", "c", None)
    );
    assert_eq!(
        backends[1].target,
        BackendTarget::new("", "Service", "b", "d", port)
    );
    assert_eq!(backends[0].target.parts(), ("b", "c", None));
    assert_eq!(backends[1].target.parts(), ("b", "d", Some(8)));
}

#[test]
fn a_mirror_names_a_cluster_unless_the_control_plane_says_in_text_that_there_is_none() {
    let key = ir::backend::VALID_KEY;
    for (value, is_resolved) in [
        (r#"string_value: "false""#, false),
        (r#"string_value: "true""#, true),
        ("bool_value: false", true),
        ("null_value: NULL_VALUE", true),
        ("list_value { }", true),
    ] {
        let text = format!(
            r#"
            id: "v1"
            http_routes {{ name: "r" namespace: "a" rules {{ filters {{ type: "RequestMirror" config {{
                fields {{ key: "backendRef" value {{ struct_value {{
                    fields {{ key: "name" value {{ string_value: "m" }} }}
                    fields {{ key: "metadata" value {{ struct_value {{
                        fields {{ key: "{key}" value {{ {value} }} }}
                    }} }} }}
                }} }} }}
            }} }} }} }}
        "#
        );
        let snapshot = decode::snapshot(text::snapshot(&text)).unwrap();
        let route = snapshot.http_routes.get("a/r").unwrap();
        let [Filter::Mirror(mirror)] = &route.rules[0].filters[..] else {
            panic!("{:?}", route.rules[0].filters);
        };
        let keys = &mirror.backend.cluster_keys;
        assert_eq!(!keys.is_empty(), is_resolved, "{value}");
    }
}

#[test]
fn round_robin_is_the_same_named_and_unnamed() {
    for policy in [
        "",
        "load_balancing { }",
        "load_balancing { type: LOAD_BALANCING_ROUND_ROBIN }",
    ] {
        let text = format!(
            r#"id: "v1" backends {{ name: "b:80" namespace: "a" protocol: "TCP" {policy} }}"#
        );
        let (snapshot, notices) = decode::snapshot_with_notices(text::snapshot(&text)).unwrap();
        let cluster = snapshot.clusters.get("a/b:80").unwrap();
        assert_eq!(cluster.balancing, Balancing::RoundRobin, "{policy}");
        assert!(notices.is_empty(), "{policy}: {notices}");
    }
}

#[test]
fn authorization_needs_no_settings_of_its_protocol() {
    let http = ExternalAuthProtocol::Http {
        path_prefix: String::new(),
        allowed_headers: Vec::new(),
        allowed_response_headers: Vec::new(),
    };
    let grpc = ExternalAuthProtocol::Grpc {
        allowed_headers: Vec::new(),
    };
    for (name, expected) in [("HTTP", http), ("GRPC", grpc)] {
        let text = format!(
            r#"
            id: "v1"
            http_routes {{ name: "r" namespace: "a" rules {{ filters {{ type: "ExternalAuth" config {{
                fields {{ key: "protocol" value {{ string_value: "{name}" }} }}
                fields {{ key: "backendRef" value {{ struct_value {{
                    fields {{ key: "name" value {{ string_value: "auth" }} }}
                }} }} }}
            }} }} }} }}
        "#
        );
        let snapshot = decode::snapshot(text::snapshot(&text)).unwrap();
        let route = snapshot.http_routes.get("a/r").unwrap();
        let [Filter::ExternalAuth(auth)] = &route.rules[0].filters[..] else {
            panic!("{:?}", route.rules[0].filters);
        };
        assert_eq!(auth.protocol, expected);
        assert_eq!(auth.forward_body_bytes_max, 0);
    }
}
