//! Updates that come in a storm, updates that are broken, endpoints that go one by one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dataplane_testkit::certificate::{Authority, Identity};
use dataplane_testkit::client::Response;
use dataplane_testkit::client::http1::{self, Http1Client};
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::client::tls::{TlsClient, agreed};
use dataplane_testkit::control_plane::whole;
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::{Backend, DEADLINE, SnapshotBuilder, until, within};
use ir::filter::HeaderEdit;
use ir::wire::{ConfigSnapshot, DiscoveryResultStatus};
use ir::{Filter, Snapshot};
use tokio::time::Instant;

use super::to;
use crate::binary::Binary;
use crate::support::{Gateway, at, http_route};
use crate::update::Load;

const STORM: usize = 1000;

/// Two routes that change together, in three places each: what the backend is told, which backend it
/// is, and what the client is told.
fn state(number: usize, port: u16, backends: &[Backend; 2]) -> Snapshot {
    let set = |name: &str| HeaderEdit {
        set: vec![(name.to_owned(), number.to_string())],
        ..HeaderEdit::default()
    };
    let cluster = format!("shop/{}:80", number % 2);
    let route = |key: &str, host: &str| {
        let mut route = http_route(key, host, "/", &[(&cluster, 1)]);
        route.rules[0].filters = vec![
            Filter::RequestHeaders(set("x-asked")),
            Filter::ResponseHeaders(set("x-told")),
        ];
        route
    };
    SnapshotBuilder::new(&format!("v{number}"))
        .http_listener("infra/gw/http", port)
        .http_route(route("shop/a", "a.example.com"))
        .http_route(route("shop/b", "b.example.com"))
        .cluster("shop/0:80", &[backends[0].address()])
        .cluster("shop/1:80", &[backends[1].address()])
        .build()
}

/// Which state a response belongs to; it must be one in all places.
fn state_of(response: &Response) -> usize {
    assert_eq!(response.status, 200, "{}", response.text());
    let told = response.header("x-told").to_owned();
    let body = response.json();
    assert_eq!(body["headers"]["x-asked"][0], *told, "{body}");
    let number: usize = told.parse().unwrap();
    assert_eq!(body["backend"], *(number % 2).to_string(), "{told}: {body}");
    number
}

/// Asks one route and then the other until `stop`; no later answer is of an earlier state.
async fn watch(port: u16, is_http2: bool, stop: Arc<AtomicBool>) -> usize {
    let mut http1 = Http1Client::connect(at(port)).await.unwrap();
    let http2 = Http2Client::connect(at(port)).await.unwrap();
    let (mut newest, mut answers) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        for host in ["a.example.com", "b.example.com"] {
            let response = match is_http2 {
                false => http1.get(host, "/").await.unwrap(),
                true => http2.get(host, "/").await.unwrap(),
            };
            let state = state_of(&response);
            assert!(state >= newest, "{state} behind {newest}");
            newest = state;
            answers += 1;
            if response.header("connection") == "close" {
                http1 = Http1Client::connect(at(port)).await.unwrap();
            }
        }
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_a_thousand_deltas_shows_no_half_state_and_takes_no_memory() {
    let backends = [Backend::http1("0").await, Backend::http1("1").await];
    let port = free_port();
    let mut held = state(0, port, &backends);
    let keys = "runtimeTuning: {httpCapacity: {workerThreads: 2}}\n";
    let (gateway, control_plane) = Binary::serving(&held, &[], keys).await;
    control_plane.acked("v0").await;
    let stop = Arc::new(AtomicBool::new(false));
    let watchers = [false, false, true].map(|is_http2| {
        let stop = stop.clone();
        tokio::spawn(watch(port, is_http2, stop))
    });

    let began = Instant::now();
    let mut resident = 0;
    for number in 1..=STORM {
        // Nobody waits for an answer; the stream's flow control is all there is.
        let next = state(number, port, &backends);
        control_plane.push_change(&held, &next).await;
        held = next;
        if number == STORM / 10 {
            resident = gateway.resident_kib();
        }
    }
    let last = held.version.to_string();
    let all = async {
        loop {
            let answer = control_plane.answer().await;
            let status = DiscoveryResultStatus::DiscoveryAck as i32;
            assert_eq!(answer.result_status, status, "{}", answer.error_detail);
            if answer.version == last {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all)
        .await
        .expect("the last delta is acknowledged");
    let took = began.elapsed();
    let grown = gateway.resident_kib().saturating_sub(resident);
    assert!(grown < 24 * 1024, "{grown} KiB more than at the beginning");
    // Ten seconds are the promise; a machine that builds beside the tests gets three times that.
    assert!(took < Duration::from_secs(30), "{took:?}");

    // What is removed stops within a second.
    let less = SnapshotBuilder::from(&held, "less")
        .with(|snapshot| {
            snapshot.http_routes.remove("shop/a");
        })
        .build();
    stop.store(true, Ordering::Relaxed);
    for watcher in watchers {
        let answers = within("the watcher", watcher).await.unwrap();
        assert!(answers > 50, "{answers} answers are no load");
    }
    control_plane.push_change(&held, &less).await;
    until(Duration::from_secs(1), async || {
        let response = http1::get(at(port), "a.example.com", "/").await.unwrap();
        response.status == 404
    })
    .await;
    let response = http1::get(at(port), "b.example.com", "/").await.unwrap();
    assert_eq!(state_of(&response), STORM);
}

/// Ways to break a snapshot; each is refused for another reason, which names these.
fn broken(good: &Snapshot, number: usize, busy: u16) -> (ConfigSnapshot, [&'static str; 2]) {
    let mut wire = ir::encode::snapshot(good);
    wire.id = format!("bad{number}");
    // Whatever else is in it must not be seen either.
    wire.http_routes[0].hostnames = vec!["other.example.com".to_owned()];
    let route = &mut wire.http_routes[0];
    let matches = &mut route.rules[0].matches[0];
    let named = match number % 8 {
        0 => {
            wire.required_features.push("teleport.v9".to_owned());
            ["required_features", "teleport.v9"]
        }
        1 => {
            matches.path = "/((a{1000}){1000}){1000}".to_owned();
            matches.path_type = "RegularExpression".to_owned();
            [
                "HTTPRoute shop/r: rules[0].matches[0].path",
                "compiles to more than",
            ]
        }
        2 => {
            route.hostnames = vec!["not a host".to_owned()];
            ["HTTPRoute shop/r: hostnames[0]", "not a host"]
        }
        3 => {
            wire.listeners[0].port = 70_000;
            ["Listener infra/gw/http: port", "70000"]
        }
        4 => {
            let mut twin = wire.listeners[0].clone();
            twin.name = "infra/gw/busy".to_owned();
            twin.port = busy.into();
            wire.listeners.push(twin);
            ["Listener infra/gw/busy: port", "cannot bind"]
        }
        5 => {
            wire.backends[0].endpoints[0].port = 0;
            ["Cluster shop/b:80: endpoints[0].port", "0"]
        }
        6 => {
            wire.http_routes.push(wire.http_routes[0].clone());
            ["HTTPRoute shop/r", "twice"]
        }
        _ => {
            matches.path = "no slash".to_owned();
            ["HTTPRoute shop/r: rules[0].matches[0].path", "no slash"]
        }
    };
    (wire, named)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_broken_snapshots_in_a_row_change_nothing() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let admin = at(free_port());
    let good = to("good", port, &[backend.address()]);
    let gateway = Gateway::with(&good, |bootstrap| bootstrap.admin.address = admin).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = taken.local_addr().unwrap().port();
    let load = Load::start(port);
    load.passes(50).await;
    let mut streams = gateway.control_plane.streams_opened();
    for number in 0..40 {
        let (bad, named) = broken(&good, number, busy);
        gateway.control_plane.push(whole(bad)).await;
        let version = format!("bad{number}");
        let nack = gateway.control_plane.nacked(&version).await;
        assert_eq!(nack.violations.len(), 1, "{number}: {}", nack.error_detail);
        let history = http1::get(admin, "x", "/api/v1/config/history").await;
        let newest = history.unwrap().json()["updates"][0].clone();
        assert_eq!(
            (&newest["version"], &newest["result"]),
            (&version.into(), &"refused".into())
        );
        for told in [
            &*nack.error_detail,
            newest["error_detail"].as_str().unwrap(),
        ] {
            assert!(
                named.iter().all(|it| told.contains(it)),
                "{named:?}: {told}"
            );
        }
        streams = streams.max(gateway.control_plane.streams_opened());
    }
    let version = http1::get(admin, "x", "/api/v1/config/version").await;
    assert_eq!(version.unwrap().json()["version"], "good");
    let other = http1::get(at(port), "other.example.com", "/")
        .await
        .unwrap();
    assert_eq!(
        other.status, 200,
        "the route without a host answers as before"
    );
    load.passes(50).await;
    load.end().await;
    let next = SnapshotBuilder::from(&good, "next").build();
    gateway.apply(&next).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_certificate_is_refused_and_the_old_one_stays() {
    let backend = Backend::http1("b").await;
    let (port, secure) = (free_port(), free_port());
    let authority = Authority::new("test");
    let names = &["x.example.com"];
    let certificate = authority.server(names);
    let with = |version: &str, identity: &Identity| {
        SnapshotBuilder::from(&to(version, port, &[backend.address()]), version)
            .https_listener("infra/gw/secure", secure, names, &["infra/x"])
            .certificate("infra/x", identity)
            .route("shop/secure", "", "/", "shop/b:80")
            .build()
    };
    let good = with("good", &certificate);
    let gateway = Gateway::serving(&good).await;
    let load = Load::start(port);
    let client = TlsClient::trusting(&authority).alpn(&["http/1.1"]);
    let connect = async || client.connect(at(secure), "x.example.com").await.unwrap();
    let mut kept = Http1Client::over(connect().await);
    let foreign = authority.server(names).key_pem;
    let texts = [
        (certificate.chain_pem.clone(), foreign),
        ("no certificate".to_owned(), certificate.key_pem.clone()),
        (certificate.chain_pem.clone(), "no key".to_owned()),
    ];
    for (number, (chain_pem, key_pem)) in texts.into_iter().enumerate() {
        let version = format!("bad{number}");
        let mut wire = ir::encode::snapshot(&good);
        wire.id.clone_from(&version);
        wire.secrets[0].cert_pem = chain_pem;
        wire.secrets[0].key_pem = key_pem;
        gateway.control_plane.push(whole(wire)).await;
        let nack = gateway.control_plane.nacked(&version).await;
        assert!(
            nack.error_detail.contains("infra/x"),
            "{}",
            nack.error_detail
        );
        let shown = agreed(&connect().await).leaf;
        assert_eq!(shown, certificate.leaf, "{version}");
        let response = kept.get("x.example.com", "/").await.unwrap();
        assert_eq!(response.status, 200);
    }
    load.passes(20).await;
    load.end().await;
    let renewed = authority.server(names);
    gateway.apply(&with("next", &renewed)).await;
    assert_eq!(agreed(&connect().await).leaf, renewed.leaf);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_that_go_one_by_one_cost_nothing_until_the_last_and_then_503_at_once() {
    let backends = [
        Backend::http1("0").await,
        Backend::http1("1").await,
        Backend::http1("2").await,
    ];
    let addresses = backends.each_ref().map(Backend::address);
    let port = free_port();
    let mut held = to("v3", port, &addresses);
    let gateway = Gateway::serving(&held).await;
    let load = Load::start(port);
    load.passes(50).await;
    for left in (1..3).rev() {
        let next = to(&format!("v{left}"), port, &addresses[..left]);
        gateway.change(&held, &next).await;
        held = next;
        load.passes(50).await;
    }
    load.end().await;

    let none = to("v0", port, &[]);
    gateway.change(&held, &none).await;
    let began = Instant::now();
    for _ in 0..20 {
        let response = http1::get(at(port), "x", "/").await.unwrap();
        assert_eq!(response.status, 503);
        assert!(response.text().contains("(no_endpoint)"));
    }
    assert!(began.elapsed() < DEADLINE / 8, "{:?}", began.elapsed());

    gateway.change(&none, &to("again", port, &addresses)).await;
    let load = Load::start(port);
    load.passes(50).await;
    load.end().await;
}
