//! Listeners that share a port: each host is served by its own listener's routes alone, and routes
//! reach listeners by name, by port, or by both.

use e2e::{Scenario, manifest};
use serde_json::{Value, json};

fn listener(name: &str, port: u16, hostname: &str) -> Value {
    let mut listener = json!({ "name": name, "port": port, "protocol": "HTTP" });
    if !hostname.is_empty() {
        listener["hostname"] = json!(hostname);
    }
    listener
}

/// A route to the Service of the same name, with more said about its parent.
fn route(name: &str, hostnames: &[&str], parent: &[(&str, Value)]) -> Value {
    let mut route = manifest::route_to(
        &format!("default/{name}"),
        "default/gw",
        hostnames,
        &format!("{name}:80"),
    );
    for (field, value) in parent {
        route["spec"]["parentRefs"][0][*field] = value.clone();
    }
    route
}

async fn backends(it: &mut Scenario, names: &[&str]) {
    for name in names {
        it.backend(&format!("default/{name}"), 80).await.unwrap();
    }
}

#[tokio::test]
async fn a_host_is_served_by_its_own_listener_and_by_no_other() {
    let mut it = Scenario::new().unwrap();
    let names = ["any", "wild", "deeper", "exact"];
    backends(&mut it, &names).await;
    let hosts = [
        "",
        "*.example.com",
        "*.foo.example.com",
        "abc.foo.example.com",
    ];
    let rows = names.into_iter().zip(hosts);
    let listeners = rows.map(|(name, host)| listener(name, 80, host)).collect();
    let mut objects = vec![manifest::gateway("default/gw", listeners)];
    // Each takes one path, so that a request that strays is seen.
    for name in names {
        let mut route = route(name, &[], &[("sectionName", json!(name))]);
        let path = json!({ "path": { "type": "PathPrefix", "value": format!("/{name}") } });
        route["spec"]["rules"][0]["matches"] = json!([path]);
        objects.push(route);
    }
    it.add("gateway.yaml", objects).unwrap();
    let it = it.serve(&[80]).await.unwrap();
    for (host, own) in [
        ("bar.com", "any"),
        ("example.com", "any"),
        ("bar.example.com", "wild"),
        ("bar.baz.example.com", "wild"),
        ("bar.foo.example.com", "deeper"),
        ("abc.foo.example.com", "exact"),
        ("ABC.foo.example.com.:80", "exact"),
    ] {
        for name in names {
            let answer = it.get(80, host, &format!("/{name}")).await.unwrap();
            let expected = if name == own { 200 } else { 404 };
            assert_eq!(answer.status, expected, "{host} /{name}");
        }
    }
}

#[tokio::test]
async fn routes_reach_listeners_by_name_by_port_or_by_both() {
    let mut it = Scenario::new().unwrap();
    let names = ["everywhere", "named", "ported", "both", "neither"];
    backends(&mut it, &names).await;
    let listeners = vec![
        listener("one", 80, ""),
        listener("two", 81, "two.example"),
        listener("two-more", 81, "more.example"),
    ];
    let mut everywhere = route("everywhere", &[], &[]);
    let path = json!({ "path": { "type": "PathPrefix", "value": "/everywhere" } });
    everywhere["spec"]["rules"][0]["matches"] = json!([path]);
    it.add(
        "gateway.yaml",
        [
            manifest::gateway("default/gw", listeners),
            everywhere,
            route("named", &["two.example"], &[("sectionName", json!("two"))]),
            route("ported", &["more.example"], &[("port", json!(81))]),
            route(
                "both",
                &["both.example"],
                &[("sectionName", json!("one")), ("port", json!(80))],
            ),
            route(
                "neither",
                &["two.example"],
                &[("sectionName", json!("two")), ("port", json!(80))],
            ),
        ],
    )
    .unwrap();
    let it = it.serve(&[80, 81]).await.unwrap();
    for (port, host, expected) in [
        (80, "any.example", ""),
        (80, "two.example", ""),
        (80, "more.example", ""),
        (80, "both.example", "default/both"),
        (81, "two.example", "default/named"),
        (81, "more.example", "default/ported"),
        (81, "both.example", ""),
        (81, "any.example", ""),
    ] {
        let answer = it.get(port, host, "/").await.unwrap();
        assert_eq!(answer.header("x-backend"), expected, "{port} {host}");
        let status = if expected.is_empty() { 404 } else { 200 };
        assert_eq!(answer.status, status, "{port} {host}");
    }
    for (port, host) in [
        (80, "any.example"),
        (81, "two.example"),
        (81, "more.example"),
    ] {
        let answer = it.get(port, host, "/everywhere").await.unwrap();
        assert_eq!(
            answer.header("x-backend"),
            "default/everywhere",
            "{port} {host}"
        );
    }
    let told = it.told("HTTPRoute", "default/neither").await;
    let expected = "Accepted=False NoMatchingParent";
    assert!(told.iter().any(|line| line.contains(expected)), "{told:?}");
}
