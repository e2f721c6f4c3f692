//! Whose request it is: what backends are told of a client, what proxies in front are believed, ids.

use dataplane::bootstrap::Bootstrap;
use dataplane_telemetry::access_log::Sink;
use dataplane_testkit::client::Response;
use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::{Backend, SnapshotBuilder, eventually};
use ir::Snapshot;
use ir::filter::{Filter, Redirect};
use ir::http_route::{TextMatch, ValueMatch};
use ir::listener::{
    EscapedSlashes, ForwardedFields, ListenerProtocol, ListenerSettings, TrustedProxies,
};

use crate::support::{Gateway, at};

/// Fields of a client that wants to be someone else.
const LIES: &str = "x-forwarded-for: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7\r\n\
    x-forwarded-proto: https\r\nx-forwarded-host: bank.example\r\nx-forwarded-port: 443\r\n\
    forwarded: for=6.6.6.6;proto=https\r\nx-forwarded-client-cert: Hash=00;Subject=\"CN=root\"\r\n";

const NAMES: [&str; 6] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "forwarded",
    "x-forwarded-client-cert",
];

fn snapshot(port: u16, backend: &Backend, settings: ListenerSettings) -> Snapshot {
    let mut listener =
        dataplane_testkit::snapshot::listener("infra/gw/http", port, ListenerProtocol::Http);
    listener.settings = settings;
    SnapshotBuilder::new("v1")
        .listener(listener)
        .route("shop/r", "", "/", "shop/b:80")
        .cluster("shop/b:80", &[backend.address()])
        .build()
}

pub(crate) fn trusting(hops: u8, sources: &[&str]) -> ListenerSettings {
    ListenerSettings {
        trusted_proxies: Some(TrustedProxies {
            hops,
            sources: sources.iter().map(|text| text.parse().unwrap()).collect(),
        }),
        ..ListenerSettings::default()
    }
}

/// Asks with these fields; the answer tells what the backend saw.
async fn ask(port: u16, fields: &str) -> Response {
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    let request = format!("GET /p HTTP/1.1\r\nhost: Shop.example:81\r\n{fields}\r\n");
    client.send_bytes(request.as_bytes()).await.unwrap();
    client.read_response(&http::Method::GET).await.unwrap()
}

/// All values that the backend saw of a field.
fn seen(response: &Response, name: &str) -> Vec<String> {
    let values = &response.json()["headers"][name];
    let values = values.as_array().into_iter().flatten();
    values.map(|it| it.as_str().unwrap().to_owned()).collect()
}

/// What the backend saw of the fields about clients, in the order of [`NAMES`].
fn about(response: &Response) -> [String; 6] {
    NAMES.map(|name| seen(response, name).join(" | "))
}

#[tokio::test]
async fn a_stranger_cannot_say_who_it_is() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let gateway = Gateway::serving(&snapshot(port, &backend, ListenerSettings::default())).await;
    let (ours, element) = (
        port.to_string(),
        "for=127.0.0.1;host=\"shop.example:81\";proto=http",
    );
    let x = ["127.0.0.1", "http", "shop.example:81", &ours];
    let none = ["", "", "", ""];
    for (version, fields, x, forwarded) in [
        ("v2", None, x, ""),
        ("v3", Some(ForwardedFields::XForwarded), x, ""),
        ("v4", Some(ForwardedFields::Forwarded), none, element),
        ("v5", Some(ForwardedFields::Both), x, element),
        ("v6", Some(ForwardedFields::None), none, ""),
    ] {
        let settings = ListenerSettings {
            forwarded_fields: fields,
            // A block that we are not in, so as good as nobody.
            trusted_proxies: trusting(1, &["192.0.2.0/24"]).trusted_proxies,
            ..ListenerSettings::default()
        };
        let mut next = snapshot(port, &backend, settings);
        next.version = ir::Version::new(version);
        gateway.apply(&next).await;
        for lies in ["", LIES] {
            let response = ask(port, lies).await;
            let told = about(&response);
            assert_eq!(told[..4], x, "{fields:?} {lies}");
            assert_eq!(told[4..], [forwarded, ""], "{fields:?} {lies}");
        }
    }
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_and_only_as_far_as_it_goes() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let settings = trusting(0, &["127.0.0.0/8", "10.0.0.0/8"]);
    let gateway = Gateway::serving(&snapshot(port, &backend, settings.clone())).await;
    let said = "x-forwarded-for: 6.6.6.6, 203.0.113.7\r\nx-forwarded-for: 10.1.1.1\r\n\
        x-forwarded-proto: https\r\nx-forwarded-host: shop.example\r\n\
        forwarded: for=6.6.6.6\r\nx-forwarded-client-cert: Hash=00\r\n";
    let told = about(&ask(port, said).await);
    let chain = "203.0.113.7, 10.1.1.1, 127.0.0.1";
    assert_eq!(told, [chain, "https", "shop.example", "443", "", ""]);
    // Nothing was said, so the proxy itself is the client.
    let told = about(&ask(port, "").await);
    let ours = port.to_string();
    assert_eq!(
        told,
        ["127.0.0.1", "http", "shop.example:81", &ours, "", ""]
    );
    // Garbage, and as much of it as a head may hold.
    let long = "10.9.9.9, ".repeat(4000);
    for (said, expected) in [
        ("_hidden, unknown".to_owned(), "127.0.0.1"),
        ("\"\"\"\\;;=,=,".to_owned(), "127.0.0.1"),
        (
            "9.9.9.9, [2001:db8::1]:99".to_owned(),
            "2001:db8::1, 127.0.0.1",
        ),
        (format!("{long}203.0.113.9"), "203.0.113.9, 127.0.0.1"),
    ] {
        let told = about(&ask(port, &format!("x-forwarded-for: {said}\r\n")).await);
        assert_eq!(told[0], expected);
    }
    // RFC 7239 instead, by number of hops.
    let settings = ListenerSettings {
        forwarded_fields: Some(ForwardedFields::Forwarded),
        ..trusting(2, &[])
    };
    let mut next = snapshot(port, &backend, settings);
    next.version = ir::Version::new("v2");
    gateway.apply(&next).await;
    let said = "forwarded: for=6.6.6.6, for=\"[2001:db8::7]:443\";proto=https;host=shop.example\r\n\
        forwarded: for=10.1.1.1\r\nx-forwarded-for: 6.6.6.6\r\n";
    let told = about(&ask(port, said).await);
    let chain = "for=\"[2001:db8::7]\";host=shop.example;proto=https, for=10.1.1.1, for=127.0.0.1";
    assert_eq!(told, ["", "", "", "", chain, ""]);
}

#[tokio::test]
async fn routes_see_the_fields_as_backends_do() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let mut only_https = snapshot(port, &backend, trusting(1, &[]));
    let mut route = (**only_https.http_routes.get("shop/r").unwrap()).clone();
    route.rules[0].matches[0].headers = vec![ValueMatch {
        name: "x-forwarded-proto".to_owned(),
        value: TextMatch::Exact("https".to_owned()),
    }];
    only_https.http_routes.insert(route);
    let gateway = Gateway::serving(&only_https).await;
    let https = "x-forwarded-proto: https\r\n";
    assert_eq!(ask(port, https).await.status, 200);
    assert_eq!(ask(port, "").await.status, 404);
    let mut strict = only_https.clone();
    strict.version = ir::Version::new("v2");
    let mut listener = (**strict.listeners.get("infra/gw/http").unwrap()).clone();
    listener.settings = ListenerSettings::default();
    strict.listeners.insert(listener);
    gateway.apply(&strict).await;
    assert_eq!(ask(port, https).await.status, 404);
}

#[tokio::test]
async fn request_ids_are_taken_from_those_who_may_give_them() {
    use ir::listener::RequestIds::{Any, Off, Trusted};
    let backend = Backend::http1("b").await;
    let port = free_port();
    let gateway = Gateway::serving(&snapshot(port, &backend, ListenerSettings::default())).await;
    let long = "x".repeat(129);
    let rows: [(_, _, &[&str], bool); 9] = [
        (None, 0, &["mine-1"], false),
        (Some(Trusted), 0, &["mine-1"], false),
        (Some(Trusted), 1, &["mine-1"], true),
        (Some(Trusted), 1, &["mine-1", "mine-2"], false),
        (Some(Trusted), 1, &["a b"], false),
        (Some(Trusted), 1, &[&long], false),
        (Some(Any), 0, &["mine-1"], true),
        (Some(Any), 0, &["<x>"], false),
        (Some(Off), 0, &["<x> y"], true),
    ];
    for (index, (ids, hops, given, is_kept)) in rows.into_iter().enumerate() {
        let settings = ListenerSettings {
            request_ids: ids,
            ..trusting(hops, &[])
        };
        let mut next = snapshot(port, &backend, settings);
        next.version = ir::Version::new(&format!("v{}", index + 2));
        gateway.apply(&next).await;
        let fields = given.iter().map(|id| format!("X-Request-ID: {id}\r\n"));
        let told = seen(
            &ask(port, &fields.collect::<String>()).await,
            "x-request-id",
        );
        if is_kept {
            assert_eq!(told, given, "{ids:?} {hops}");
            continue;
        }
        let [id] = &told[..] else {
            panic!("{ids:?} {hops} {given:?}: {told:?}")
        };
        assert_eq!(id.len(), 36, "{id}");
        assert_ne!(*id, seen(&ask(port, "").await, "x-request-id")[0]);
    }
    assert_eq!(seen(&ask(port, "").await, "x-request-id"), [""; 0]);
}

#[tokio::test]
async fn the_access_log_names_the_client_and_the_id() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let log_there = |bootstrap: &mut Bootstrap| {
        bootstrap.access_log = Some(dataplane_telemetry::access_log::Settings {
            sink: Sink::File(path.clone()),
            ..dataplane_telemetry::access_log::Settings::default()
        });
    };
    let snapshot = snapshot(port, &backend, trusting(1, &[]));
    let gateway = Gateway::with(&snapshot, log_there).await;
    let said = "x-forwarded-for: 203.0.113.7\r\nx-request-id: mine-1\r\n";
    assert_eq!(ask(port, said).await.status, 200);
    let made = seen(&ask(port, "").await, "x-request-id").remove(0);
    let client = Http2Client::connect(at(port)).await.unwrap();
    let over_h2 = client.get("shop.example", "/").await.unwrap();
    let over_h2 = seen(&over_h2, "x-request-id").remove(0);
    drop(client);
    assert!(gateway.stopped().await);
    let lines = eventually("three lines are written", || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        (lines.len() == 3).then_some(lines)
    })
    .await;
    // Workers write their lines each in their own time.
    for (client, id) in [
        ("203.0.113.7", "mine-1"),
        ("127.0.0.1", &made),
        ("127.0.0.1", &over_h2),
    ] {
        let line = lines.iter().find(|line| line["request_id"] == id);
        assert_eq!(line.unwrap()["client_ip"], client, "{id}");
    }
}

#[tokio::test]
async fn a_hash_of_the_source_is_one_of_the_client_behind_the_proxy() {
    let backends = [
        Backend::http1("0").await,
        Backend::http1("1").await,
        Backend::http1("2").await,
    ];
    let port = free_port();
    let mut hashed = snapshot(port, &backends[0], trusting(1, &[]));
    let addresses = backends.each_ref().map(Backend::address);
    let mut cluster = dataplane_testkit::snapshot::cluster(
        "shop/b:80",
        ir::cluster::ClusterProtocol::Http,
        &addresses,
    );
    cluster.balancing = ir::cluster::Balancing::ConsistentHash(ir::cluster::HashKey::SourceIp);
    hashed.clusters.insert(cluster);
    let _gateway = Gateway::serving(&hashed).await;
    let mut chosen = std::collections::BTreeSet::new();
    for last in 1..30 {
        let mut of_one = std::collections::BTreeSet::new();
        for _ in 0..3 {
            let said = format!("x-forwarded-for: 203.0.113.{last}\r\n");
            of_one.insert(ask(port, &said).await.json()["backend"].to_string());
        }
        assert_eq!(of_one.len(), 1, "one client stays with one endpoint");
        chosen.extend(of_one);
    }
    assert_eq!(chosen.len(), 3, "clients differ");
}

#[tokio::test]
async fn redirects_keep_the_scheme_and_port_that_a_trusted_proxy_was_asked_by() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let escaped = |mut settings: ListenerSettings| {
        settings.escaped_slashes = Some(EscapedSlashes::Redirect);
        settings
    };
    let with = |version: &str, settings: ListenerSettings| {
        let mut next = snapshot(port, &backend, escaped(settings));
        next.version = ir::Version::new(version);
        let mut route = (**next.http_routes.get("shop/r").unwrap()).clone();
        route.rules[0].filters = vec![Filter::Redirect(Redirect {
            scheme: None,
            hostname: None,
            path: None,
            port: None,
            status: 301,
        })];
        next.http_routes.insert(route);
        next
    };
    let ours = format!("http://shop.example:{port}/p");
    let https = "https://shop.example/p";
    let rows: [(&str, &str); 8] = [
        ("", &ours),
        ("x-forwarded-proto: https\r\n", https),
        // The last member is the one that the proxy next to us wrote.
        ("x-forwarded-proto: http, https\r\n", https),
        (
            "x-forwarded-proto: https, http\r\n",
            "http://shop.example/p",
        ),
        (
            "x-forwarded-proto: https\r\nx-forwarded-port: 8443\r\n",
            "https://shop.example:8443/p",
        ),
        ("x-forwarded-proto: gopher\r\n", &ours),
        ("x-forwarded-port: 0\r\n", &ours),
        ("forwarded: proto=https\r\n", &ours),
    ];
    let location = async |fields: &str| {
        let response = ask(port, fields).await;
        assert_eq!(response.status, 301);
        response.header("location").to_owned()
    };
    let gateway = Gateway::serving(&with("v1", trusting(1, &["127.0.0.0/8"]))).await;
    for (fields, expected) in rows {
        assert_eq!(location(fields).await, expected, "{fields}");
    }
    // The same for a redirect to the normal form of a path.
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    let request = "GET /a%2Fb HTTP/1.1\r\nhost: shop.example\r\nx-forwarded-proto: https\r\n\r\n";
    client.send_bytes(request.as_bytes()).await.unwrap();
    let response = client.read_response(&http::Method::GET).await.unwrap();
    assert_eq!(response.header("location"), "https://shop.example/a/b");
    // What a stranger says changes nothing.
    gateway
        .apply(&with("v2", trusting(1, &["192.0.2.0/24"])))
        .await;
    for (fields, _) in rows {
        assert_eq!(location(fields).await, ours, "{fields}");
    }
    // RFC 7239 where that is what proxies write.
    let mut settings = trusting(1, &[]);
    settings.forwarded_fields = Some(ForwardedFields::Forwarded);
    gateway.apply(&with("v3", settings)).await;
    let said = "forwarded: for=203.0.113.7;proto=https\r\nx-forwarded-proto: http\r\n";
    assert_eq!(location(said).await, https);
}
