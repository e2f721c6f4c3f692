//! Faults that strike the product from outside: a process that stands still, a data plane that is
//! exchanged for another, two Gateways that want the same place.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dataplane_testkit::client::http1::{self, Http1Client};
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::client::tls::{self, TlsClient};
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::until;
use e2e::admin::Admin;
use e2e::gateway::{ControlPlane, DataPlane, START_LIMIT, free_address};
use e2e::load::Load;
use e2e::{Scenario, manifest};
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{CONTROLLER, EDIT_LIMIT, answers, send_to, small_gateway};

/// Longer than the silence of a control plane that is borne below.
const STANDSTILL: Duration = Duration::from_secs(3);

fn at(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_that_stands_still_is_not_missed_and_caught_up_with() {
    let port = free_port();
    let it = small_gateway(port).await;
    let control_plane = ControlPlane::start(it.folder(), free_address(), None, &[])
        .await
        .unwrap();
    let data_plane = DataPlane::start(control_plane.grpc, None, |bootstrap| {
        let transport = &mut bootstrap["xdsTransport"];
        transport["staleStreamTimeoutMs"] = json!(1000);
        transport["connectTimeoutMs"] = json!(1000);
    })
    .await
    .unwrap();
    answers(at(port), "one").await;
    let load = Load::start(at(port), "any.test", "/", 2, 1);
    load.advance(100).await;

    control_plane.process.signal("STOP").unwrap();
    send_to(&it, "two");
    // Its sockets are open and its kernel takes connections; the silence is what gives it away.
    data_plane.connected(false).await;
    load.advance(200).await;
    assert_eq!(data_plane.admin.status("/readyz").await, 200);
    control_plane.process.signal("CONT").unwrap();

    data_plane.connected(true).await;
    answers(at(port), "two").await;
    load.advance(100).await;
    assert_eq!(load.stop().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_data_plane_that_stood_still_answers_who_waited_and_catches_up() {
    let port = free_port();
    let it = small_gateway(port).await;
    let control_plane = ControlPlane::start(it.folder(), free_address(), None, &[])
        .await
        .unwrap();
    let data_plane = DataPlane::start(control_plane.grpc, None, |_| ())
        .await
        .unwrap();
    answers(at(port), "one").await;
    let mut waiting = Http1Client::connect(at(port)).await.unwrap();

    data_plane.process.signal("STOP").unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: any.test\r\n\r\n";
    waiting.send_bytes(request).await.unwrap();
    for service in ["two", "one", "two"] {
        send_to(&it, service);
        tokio::time::sleep(STANDSTILL / 3).await;
    }
    data_plane.process.signal("CONT").unwrap();

    let response = waiting.read_response(&http::Method::GET).await.unwrap();
    assert_eq!(response.status, 200);
    answers(at(port), "two").await;
    until(START_LIMIT, || async {
        let published = control_plane.admin.published_version().await;
        published.is_some() && data_plane.admin.served_version().await == published
    })
    .await;
}

/// Data planes behind one name: whoever is ready is given to clients, as a Service does.
#[derive(Default)]
struct Fleet {
    members: Mutex<BTreeMap<SocketAddr, Admin>>,
    ready: Mutex<Vec<SocketAddr>>,
    turn: AtomicUsize,
    is_over: AtomicBool,
    answered: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Fleet {
    fn join(&self, address: SocketAddr, admin: Admin) {
        self.members.lock().unwrap().insert(address, admin);
    }

    fn address(&self) -> SocketAddr {
        let ready = self.ready.lock().unwrap();
        ready[self.turn.fetch_add(1, Ordering::Relaxed) % ready.len()]
    }

    /// Looks who is ready, a little later than it is true.
    async fn look(self: Arc<Self>) {
        while !self.is_over.load(Ordering::Relaxed) {
            let members = self.members.lock().unwrap().clone();
            let mut ready = Vec::new();
            for (address, admin) in members {
                if admin.is_ready().await {
                    ready.push(address);
                }
            }
            *self.ready.lock().unwrap() = ready;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Asks 50 times a second, over a kept connection of HTTP/1.1 or 2, or each time over a new one.
    async fn ask(self: Arc<Self>, way: Way) {
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        let (mut http1, mut http2) = (None, None);
        while !self.is_over.load(Ordering::Relaxed) {
            pace.tick().await;
            let asked = match way {
                Way::Kept => self.ask_http1(&mut http1).await,
                Way::New => self.ask_http1(&mut None).await,
                Way::Http2 => self.ask_http2(&mut http2).await,
            };
            match asked {
                Ok(200) => drop(self.answered.fetch_add(1, Ordering::Relaxed)),
                other => self
                    .failures
                    .lock()
                    .unwrap()
                    .push(format!("{way:?}: {other:?}")),
            }
        }
    }

    async fn ask_http1(&self, kept: &mut Option<Http1Client>) -> anyhow::Result<u16> {
        let mut client = match kept.take() {
            Some(client) => client,
            None => Http1Client::connect(self.address()).await?,
        };
        let response = client.get("any.test", "/").await?;
        if response.header("connection") != "close" {
            *kept = Some(client);
        }
        Ok(response.status.as_u16())
    }

    async fn ask_http2(&self, kept: &mut Option<Http2Client>) -> anyhow::Result<u16> {
        loop {
            let client = match kept.take() {
                Some(client) if client.is_open().await => client,
                _ => Http2Client::connect(self.address()).await?,
            };
            match client.get("any.test", "/").await {
                Ok(response) => {
                    *kept = Some(client);
                    return Ok(response.status.as_u16());
                }
                // Never looked at, and asked again elsewhere, as every client of HTTP/2 does.
                Err(error) if error.is_sent_away() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Kept,
    New,
    Http2,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_update_at_500_requests_a_second_loses_none() {
    let ports = [free_port(), free_port()];
    let mut folders: Vec<Scenario> = Vec::new();
    let mut control_planes = Vec::new();
    for port in ports {
        let it = small_gateway(port).await;
        let control_plane = ControlPlane::start(it.folder(), free_address(), None, &[]);
        control_planes.push(control_plane.await.unwrap());
        folders.push(it);
    }
    let fleet = Arc::new(Fleet::default());
    let start = async |index: usize| {
        let data_plane = DataPlane::start(control_planes[index].grpc, None, |_| ()).await;
        let data_plane = data_plane.unwrap();
        answers(at(ports[index]), "one").await;
        fleet.join(at(ports[index]), data_plane.admin);
        data_plane
    };
    let mut old = start(0).await;
    let mut clients = JoinSet::new();
    clients.spawn(fleet.clone().look());
    until(START_LIMIT, || async {
        !fleet.ready.lock().unwrap().is_empty()
    })
    .await;
    let ways = [Way::Kept, Way::New, Way::Http2, Way::New, Way::Kept];
    for way in ways.iter().cycle().take(10) {
        clients.spawn(fleet.clone().ask(*way));
    }
    let advance = async |by: usize| {
        let goal = fleet.answered.load(Ordering::Relaxed) + by;
        until(START_LIMIT, || async {
            fleet.answered.load(Ordering::Relaxed) >= goal
        })
        .await;
    };
    advance(200).await;
    for index in [1, 0, 1] {
        let mut new = start(index).await;
        until(START_LIMIT, || async {
            fleet.ready.lock().unwrap().len() == 2
        })
        .await;
        advance(100).await;
        std::mem::swap(&mut old, &mut new);
        new.process.terminate().unwrap();
        let finished = new.process.ended().await.unwrap();
        assert_eq!(finished.code, Some(0), "{finished:?}");
        advance(100).await;
    }
    fleet.is_over.store(true, Ordering::Relaxed);
    while clients.join_next().await.is_some() {}
    assert_eq!(*fleet.failures.lock().unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn of_two_gateways_on_one_port_the_younger_is_told_and_takes_over_when_it_can() {
    let port = free_port();
    let it = small_gateway(port).await;
    let class = manifest::gateway_class("nantian-gw", CONTROLLER);
    it.add("class.yaml", [class]).unwrap();
    let older = manifest::http_gateway("default/web", &[("http", port)]);
    it.add("gateway.yaml", [older.clone()]).unwrap();
    let younger = manifest::http_gateway("default/younger", &[("http", port)]);
    let route = manifest::route_to("default/younger", "default/younger", &[], "two:80");
    it.add("younger.yaml", [younger, route]).unwrap();
    let control_plane = ControlPlane::start(it.folder(), free_address(), None, &[])
        .await
        .unwrap();
    let _data_plane = DataPlane::start(control_plane.grpc, None, |_| ())
        .await
        .unwrap();
    answers(at(port), "one").await;
    let told = control_plane.admin.told("Gateway", "default/younger").await;
    let expected = "listener http Conflicted=True HostnameConflict: Gateway default/web, which came \
                    first, has no host name either on the same address and port; give this listener";
    assert!(
        told.iter().any(|line| line.starts_with(expected)),
        "{told:#?}"
    );

    fs::remove_file(it.folder().join("gateway.yaml")).unwrap();
    answers(at(port), "two").await;
    it.add("gateway.yaml", [older]).unwrap();
    answers(at(port), "one").await;
    until(EDIT_LIMIT, || async {
        let answer = http1::get(at(port), "any.test", "/").await;
        answer.is_ok_and(|answer| answer.status == 200)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_broken_by_an_edit_serves_on_as_it_was_and_is_exchanged_once_mended() {
    let mut it = Scenario::new().unwrap();
    it.backend("default/one", 80).await.unwrap();
    it.certificate("default/pair", &["any.test"]).unwrap();
    let first = it.identity("default/pair").clone();
    let port = free_port();
    let https = json!({
        "name": "https", "protocol": "HTTPS", "port": port,
        "tls": { "certificateRefs": [{ "name": "pair" }] },
    });
    let class = manifest::gateway_class("nantian-gw", CONTROLLER);
    let gateway = manifest::gateway("default/web", vec![https]);
    let route = manifest::route_to("default/all", "default/web", &[], "one:80");
    it.add("gateway.yaml", [class, gateway, route]).unwrap();
    let control_plane = ControlPlane::start(it.folder(), free_address(), None, &[])
        .await
        .unwrap();
    let _data_plane = DataPlane::start(control_plane.grpc, None, |_| ())
        .await
        .unwrap();
    let clients = TlsClient::trusting(it.authority());
    let shown = async || {
        let stream = clients.connect(at(port), "any.test").await?;
        let leaf = tls::agreed(&stream).leaf;
        let answer = Http1Client::over(stream).get("any.test", "/").await?;
        anyhow::ensure!(answer.status == 200, "{}", answer.status);
        anyhow::Ok(leaf)
    };
    until(EDIT_LIMIT, || async { shown().await.is_ok() }).await;
    let leaf = shown().await.unwrap();

    let mut broken = manifest::certificate("default/pair", &first);
    broken["stringData"]["tls.key"] = json!(it.authority().server(&["any.test"]).key_pem);
    it.add("secret-default-pair.yaml", [broken]).unwrap();
    let expected = "serves on until the Secret is mended";
    until(EDIT_LIMIT, || async {
        assert_eq!(shown().await.unwrap(), leaf);
        let told = control_plane.admin.told("Gateway", "default/web").await;
        told.iter().any(|line| line.contains(expected))
    })
    .await;
    assert_eq!(shown().await.unwrap(), leaf);

    it.certificate("default/pair", &["any.test"]).unwrap();
    until(EDIT_LIMIT, || async { shown().await.unwrap() != leaf }).await;
}
