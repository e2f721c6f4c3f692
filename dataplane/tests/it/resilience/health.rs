//! Endpoints that do not pass their checks get no requests, endpoints of other zones only when the
//! own one fails, and endpoints that end keep their sessions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use dataplane_testkit::backend::closed_address;
use dataplane_testkit::client::http1;
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::{Backend, wait};
use ir::backend_policy::{BackendPolicy, HealthCheck, Probe};
use ir::policy::{SessionCarrier, SessionPersistence};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::Case;
use crate::support::{Gateway, at};

/// A backend whose health can be switched; it answers requests whatever its health is.
struct Patient {
    address: SocketAddr,
    is_well: Arc<AtomicBool>,
    requests: Arc<AtomicUsize>,
    checks: Arc<AtomicUsize>,
}

impl Patient {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let patient = Self {
            address: listener.local_addr().unwrap(),
            is_well: Arc::new(AtomicBool::new(true)),
            requests: Arc::default(),
            checks: Arc::default(),
        };
        let (is_well, requests) = (patient.is_well.clone(), patient.requests.clone());
        let checks = patient.checks.clone();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let (is_well, requests) = (is_well.clone(), requests.clone());
                let checks = checks.clone();
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        match socket.read_u8().await {
                            Ok(byte) => head.push(byte),
                            Err(_) => return,
                        }
                    }
                    let is_check = head.starts_with(b"GET /healthz ");
                    let count = if is_check { &checks } else { &requests };
                    count.fetch_add(1, Ordering::Relaxed);
                    let status = match is_check && !is_well.load(Ordering::Relaxed) {
                        true => "503 Sick",
                        false => "200 OK",
                    };
                    let answer = format!(
                        "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                    );
                    let _ = socket.write_all(answer.as_bytes()).await;
                });
            }
        });
        patient
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

fn checking(probe: Probe) -> BackendPolicy {
    BackendPolicy {
        health_check: Some(HealthCheck {
            probe,
            interval: Some(Duration::from_millis(40)),
            timeout: Some(Duration::from_millis(500)),
            unhealthy_threshold: Some(2),
            healthy_threshold: Some(2),
            port: None,
        }),
        panic_threshold_percent: Some(10),
        ..BackendPolicy::default()
    }
}

fn healthz() -> Probe {
    Probe::Http {
        path: "/healthz".to_owned(),
        host: None,
        expected_statuses: Vec::new(),
    }
}

/// A gateway whose admin API can be asked.
struct Seen {
    gateway: Gateway,
    admin: u16,
}

impl Seen {
    async fn serving(case: &Case) -> Self {
        let admin = free_port();
        let gateway = Gateway::with(&case.snapshot("v1"), |bootstrap| {
            bootstrap.admin.address = at(admin);
        })
        .await;
        Self { gateway, admin }
    }

    async fn endpoint(&self, address: SocketAddr) -> Value {
        let answer = http1::get(at(self.admin), "x", "/v1/endpoints").await;
        let rows: Value = serde_json::from_slice(&answer.unwrap().body).unwrap();
        let mut rows = rows.as_array().unwrap().iter();
        let row = rows.find(|row| row["address"] == address.to_string());
        row.unwrap().clone()
    }

    async fn until(&self, address: SocketAddr, state: &str) -> Value {
        wait::until(Duration::from_secs(20), async || {
            self.endpoint(address).await["state"] == state
        })
        .await;
        self.endpoint(address).await
    }

    async fn scrape(&self) -> String {
        let answer = http1::get(at(self.admin), "x", "/metrics").await.unwrap();
        answer.text()
    }
}

#[tokio::test]
async fn who_does_not_pass_gets_no_requests_until_it_passes_again() {
    let (sick, well) = (Patient::start().await, Patient::start().await);
    let case = Case::new(&[sick.address, well.address], checking(healthz()));
    let seen = Seen::serving(&case).await;
    seen.until(sick.address, "well").await;
    sick.is_well.store(false, Ordering::Relaxed);
    let row = seen.until(sick.address, "unhealthy").await;
    assert_eq!(row["why"], "it does not pass its health checks: status 503");
    assert_eq!(row["health_check"], "failing");
    let before = sick.requests();
    assert_eq!(case.statuses("/", 20).await, [200; 20]);
    assert_eq!(sick.requests(), before);
    let text = seen.scrape().await;
    let line = |address: SocketAddr, value: u8| {
        format!(
            "nantian_gateway_dataplane_backend_health_status\
             {{backend=\"shop/b:80\",endpoint=\"{address}\"}} {value}\n"
        )
    };
    assert!(text.contains(&line(sick.address, 0)), "{text}");
    assert!(text.contains(&line(well.address, 1)));

    sick.is_well.store(true, Ordering::Relaxed);
    let row = seen.until(sick.address, "well").await;
    assert_eq!(row["health_check"], "passing");
    assert_eq!(case.statuses("/", 20).await, [200; 20]);
    assert!(sick.requests() > before);
    let failed = "backend_health_checks_total{backend=\"shop/b:80\",result=\"failed\"}";
    assert!(seen.gateway.metric(failed, &[]) >= 2);
}

#[tokio::test]
async fn what_was_found_outlives_a_change_and_ends_with_the_checks() {
    let (sick, well) = (Patient::start().await, Patient::start().await);
    sick.is_well.store(false, Ordering::Relaxed);
    let mut case = Case::new(&[sick.address, well.address], checking(healthz()));
    let seen = Seen::serving(&case).await;
    seen.until(sick.address, "unhealthy").await;
    let before = sick.requests();
    case.cluster.connect_timeout += Duration::from_secs(1);
    seen.gateway.apply(&case.snapshot("v2")).await;
    assert_eq!(case.statuses("/", 20).await, [200; 20]);
    assert_eq!(sick.requests(), before, "it is known to be unwell");
    // It goes on being asked by the new configuration.
    sick.is_well.store(true, Ordering::Relaxed);
    seen.until(sick.address, "well").await;
    sick.is_well.store(false, Ordering::Relaxed);
    seen.until(sick.address, "unhealthy").await;

    case.cluster.policy = None;
    seen.gateway.apply(&case.snapshot("v3")).await;
    let row = seen.until(sick.address, "well").await;
    assert_eq!(row["health_check"], "none");
    let asked = sick.checks.load(Ordering::Relaxed);
    assert_eq!(case.statuses("/", 20).await, [200; 20]);
    assert_eq!(sick.requests(), before + 10);
    // One that had begun may still have come.
    assert!(sick.checks.load(Ordering::Relaxed) <= asked + 1);
}

#[tokio::test]
async fn an_endpoint_that_takes_no_connection_costs_no_request() {
    let (dead, well) = (closed_address(), Patient::start().await);
    let case = Case::new(&[dead, well.address], checking(Probe::Tcp));
    let seen = Seen::serving(&case).await;
    let row = seen.until(dead, "unhealthy").await;
    assert_eq!(
        row["why"],
        "it does not pass its health checks: no connection"
    );
    assert_eq!(case.statuses("/", 20).await, [200; 20]);
    let failed = "backend_connection_errors_total{backend=\"shop/b:80\",reason=\"connect_failed\"}";
    assert_eq!(seen.gateway.metric(failed, &[]), 0);
}

#[tokio::test]
async fn the_process_can_ask_every_backend() {
    let (dead, well) = (closed_address(), Patient::start().await);
    let case = Case::new(&[dead, well.address], BackendPolicy::default());
    let admin = free_port();
    let gateway = Gateway::with(&case.snapshot("v1"), |bootstrap| {
        bootstrap.admin.address = at(admin);
        bootstrap.health.checks_all = true;
        bootstrap.health.defaults.interval = Duration::from_millis(40);
    })
    .await;
    let seen = Seen { gateway, admin };
    seen.until(dead, "unhealthy").await;
    assert_eq!(case.statuses("/", 10).await, [200; 10]);
    assert!(seen.gateway.stopped().await, "its thread ends with it");
}

#[tokio::test]
async fn where_most_are_unwell_all_are_used() {
    let patients = [
        Patient::start().await,
        Patient::start().await,
        Patient::start().await,
    ];
    let addresses = patients.each_ref().map(|patient| patient.address);
    let policy = BackendPolicy {
        panic_threshold_percent: Some(50),
        ..checking(healthz())
    };
    let case = Case::new(&addresses, policy);
    let seen = Seen::serving(&case).await;
    for patient in &patients[..2] {
        patient.is_well.store(false, Ordering::Relaxed);
    }
    for address in &addresses[..2] {
        seen.until(*address, "unhealthy_in_use").await;
    }
    assert_eq!(case.statuses("/", 12).await, [200; 12]);
    assert!(patients.iter().all(|patient| patient.requests() >= 4));
}

#[tokio::test]
async fn endpoints_of_the_own_zone_come_first_and_others_when_it_fails() {
    let (near, far) = (Patient::start().await, Patient::start().await);
    let policy = BackendPolicy {
        prefers_own_zone: true,
        ..checking(healthz())
    };
    let mut case = Case::new(&[near.address, far.address], policy);
    case.cluster.endpoints[0].zone = "z1".to_owned();
    case.cluster.endpoints[1].zone = "z2".to_owned();
    let admin = free_port();
    let gateway = Gateway::with(&case.snapshot("v1"), |bootstrap| {
        bootstrap.admin.address = at(admin);
        bootstrap.zone = "z1".to_owned();
    })
    .await;
    let seen = Seen { gateway, admin };
    case.statuses("/", 20).await;
    assert_eq!((near.requests(), far.requests()), (20, 0));
    near.is_well.store(false, Ordering::Relaxed);
    seen.until(near.address, "unhealthy").await;
    case.statuses("/", 20).await;
    assert_eq!((near.requests(), far.requests()), (20, 20));
    near.is_well.store(true, Ordering::Relaxed);
    seen.until(near.address, "well").await;
    case.statuses("/", 20).await;
    assert_eq!((near.requests(), far.requests()), (40, 20));
    // Hints take the place of zones.
    case.cluster.endpoints[1].zone_hints = vec!["z1".to_owned(), "z2".to_owned()];
    case.cluster.endpoints[0].zone_hints = vec!["z3".to_owned()];
    seen.gateway.apply(&case.snapshot("v2")).await;
    case.statuses("/", 20).await;
    assert_eq!((near.requests(), far.requests()), (40, 40));
}

#[tokio::test]
async fn an_endpoint_that_ends_keeps_its_sessions_and_serves_when_no_other_does() {
    let (a, b) = (Backend::http1("a").await, Backend::http1("b").await);
    let mut case = Case::new(&[a.address(), b.address()], BackendPolicy::default());
    case.cluster.session_persistence = Some(Arc::new(SessionPersistence {
        session_name: Some("sid".to_owned()),
        absolute_timeout: None,
        idle_timeout: None,
        carrier: SessionCarrier::Header,
    }));
    let gateway = case.serve().await;
    let mut session = String::new();
    while a.requests() == 0 {
        session = case.get("/").await.header("sid").to_owned();
    }
    let with_session = async || {
        let mut client = http1::Http1Client::connect(at(case.port)).await.unwrap();
        let request = http::Request::get("/")
            .header("host", "x")
            .header("sid", &session);
        let request = request.body(bytes::Bytes::new()).unwrap();
        client.send(request).await.unwrap().status
    };
    let mut ending = case.cluster.clone();
    ending.endpoints[0].is_ready = false;
    ending.endpoints[0].is_ending = true;
    let mut next = Case {
        port: case.port,
        cluster: ending,
        route: case.route.clone(),
    };
    gateway.apply(&next.snapshot("v2")).await;
    let before = (a.requests(), b.requests());
    for _ in 0..5 {
        assert_eq!(with_session().await, 200);
    }
    next.statuses("/", 5).await;
    let after = (a.requests(), b.requests());
    assert_eq!((after.0 - before.0, after.1 - before.1), (5, 5));
    next.cluster.endpoints.truncate(1);
    gateway.apply(&next.snapshot("v3")).await;
    assert_eq!(next.statuses("/", 3).await, [200; 3], "better than nobody");
}
