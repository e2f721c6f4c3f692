//! Objects that a data plane refuses are left out, told of, and come back.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ir::decode;
use ir::wire::configuration_discovery_service_client::ConfigurationDiscoveryServiceClient;
use ir::wire::{ConfigViolation, DiscoveryRequest, DiscoveryResponse, DiscoveryResultStatus};
use shim::cluster_view::Kind;
use shim::conditions::{ConditionType, ObjectStatus, Truth};
use shim::control_plane::{ControlPlane, Source};
use shim::pipeline::State;
use shim::settings::Settings;
use shim::translate::{self, Classes, PartName, Refused, translate};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::folder::view;
use crate::support::{DEADLINE, Stream, hello};

const GATEWAY: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: shop}
spec:
  gatewayClassName: any
  listeners:
    - {name: one, protocol: HTTP, port: 8080}
    - {name: two, protocol: HTTP, port: 8081}
";

fn route(name: &str, host: &str) -> String {
    format!(
        "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: shop}}
spec:
  parentRefs: [{{name: web}}]
  hostnames: [{host}]
  rules: [{{filters: [{{type: RequestRedirect, requestRedirect: {{statusCode: 302}}}}]}}]
"
    )
}

fn settings() -> translate::Settings {
    translate::Settings {
        classes: Classes::Any,
        ..translate::Settings::default()
    }
}

/// A control plane on a folder with one Gateway and the routes `a` and `b`.
struct Shim {
    control_plane: ControlPlane,
    folder: tempfile::TempDir,
    _stop: DropGuard,
}

impl Shim {
    async fn start(retry_after: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("gateway.yaml"), GATEWAY).unwrap();
        write_routes(folder.path(), "a.test");
        let anywhere = "127.0.0.1:0".parse().unwrap();
        let shutdown = CancellationToken::new();
        let control_plane = ControlPlane::start(
            Settings {
                grpc_addr: anywhere,
                admin_addr: anywhere,
                quarantine_retry_after: retry_after,
                ..Settings::default()
            },
            Source::Files(vec![folder.path().to_owned()]),
            settings(),
            shutdown.clone(),
        )
        .await
        .unwrap();
        Self {
            control_plane,
            folder,
            _stop: shutdown.drop_guard(),
        }
    }

    async fn connect(&self, node_id: &str) -> Client {
        let address = format!("http://{}", self.control_plane.grpc_addr);
        let channel = tonic::transport::Endpoint::from_shared(address).unwrap();
        let client = ConfigurationDiscoveryServiceClient::new(channel.connect().await.unwrap());
        let mut client = Client {
            stream: Stream::open(client, hello(node_id, "")).await,
            held: ir::Snapshot::default(),
        };
        client.held.version = ir::Version::new("none");
        client
    }

    /// Waits until the state looks as claimed.
    async fn wait(&self, claim: impl Fn(&State) -> bool) -> Arc<State> {
        let mut state = self.control_plane.state.clone();
        let waited = tokio::time::timeout(DEADLINE, state.wait_for(|state| claim(state))).await;
        waited.expect("the state never got there").unwrap().clone()
    }

    async fn get(&self, path: &str) -> serde_json::Value {
        let addr = self.control_plane.admin_addr;
        let response = dataplane_testkit::client::http1::get(addr, "admin", path);
        response.await.unwrap().json()
    }
}

fn write_routes(folder: &Path, host: &str) {
    let routes = route("a", host) + &route("b", "b.test");
    std::fs::write(folder.join("routes.yaml"), routes).unwrap();
}

/// A data plane that applies what it is sent, or says what it refuses.
struct Client {
    stream: Stream,
    held: ir::Snapshot,
}

impl Client {
    /// What the push makes of the configuration.
    fn result(&self, push: &DiscoveryResponse) -> ir::Snapshot {
        match (&push.snapshot, &push.delta) {
            (Some(whole), _) => decode::snapshot(whole.clone()).unwrap(),
            (_, Some(delta)) => {
                ir::delta::apply(&self.held, &decode::delta(delta.clone()).unwrap()).unwrap()
            }
            _ => panic!("an empty push"),
        }
    }

    /// Takes the next push; refuses it for `object` when that is in it. Gives its keys.
    async fn answer(&mut self, object: &str) -> (bool, Vec<String>) {
        let push = self.stream.push().await;
        let next = self.result(&push);
        let listeners = next
            .listeners
            .iter()
            .map(|it| format!("Listener {}", it.name));
        let routes = next
            .http_routes
            .iter()
            .map(|it| format!("HTTPRoute {}", it.key));
        let keys: Vec<String> = listeners.chain(routes).collect();
        let is_refused = keys.iter().any(|key| key == object);
        let mut answer = DiscoveryRequest {
            version: push.version.clone(),
            nonce: push.nonce.clone(),
            result_status: DiscoveryResultStatus::DiscoveryAck.into(),
            ..DiscoveryRequest::default()
        };
        if is_refused {
            answer.result_status = DiscoveryResultStatus::DiscoveryNack.into();
            answer.error_detail = "in short".to_owned();
            answer.violations = vec![ConfigViolation {
                object: object.to_owned(),
                path: "port".to_owned(),
                message: "cannot be bound".to_owned(),
            }];
        } else {
            self.held = next;
        }
        self.stream.send(answer).await;
        (is_refused, keys)
    }

    /// Refuses `object` until it is gone; gives what is left.
    async fn settle(&mut self, object: &str) -> Vec<String> {
        loop {
            let (is_refused, keys) = self.answer(object).await;
            if !is_refused {
                return keys;
            }
        }
    }
}

fn condition(status: &ObjectStatus, part: &str, kind: ConditionType) -> (Truth, String) {
    let mut all = status.all_conditions();
    let found = all.find(|(name, condition)| name == part && condition.kind == kind);
    let (_, condition) = found.unwrap();
    (
        condition.status,
        format!("{} {}", condition.reason, condition.message),
    )
}

const ALL: [&str; 4] = [
    "Listener shop/web/one",
    "Listener shop/web/two",
    "HTTPRoute shop/a",
    "HTTPRoute shop/b",
];

fn without(object: &str) -> Vec<&str> {
    ALL.into_iter().filter(|known| *known != object).collect()
}

#[tokio::test]
async fn a_refused_object_is_left_out_and_its_condition_says_why() {
    for object in ["Listener shop/web/two", "HTTPRoute shop/a"] {
        let shim = Shim::start(DEADLINE * 10).await;
        let mut client = shim.connect("dp-1").await;
        assert_eq!(client.answer(object).await.1, ALL);
        assert_eq!(client.answer(object).await.1, ALL, "sent once more");
        assert_eq!(client.answer(object).await.1, without(object));

        let state = shim.wait(|state| !state.quarantine.is_empty()).await;
        let gateway = state.translation.status(Kind::Gateway, "shop/web").unwrap();
        let told = if object.starts_with("Listener") {
            let (accepted, why) = condition(gateway, "listener two", ConditionType::Accepted);
            assert_eq!(accepted, Truth::False);
            assert!(why.starts_with("PortUnavailable "), "{why}");
            condition(gateway, "listener two", ConditionType::Programmed)
        } else {
            assert_eq!(gateway.listeners[0].attached_routes, 1);
            let route = state.translation.status(Kind::HttpRoute, "shop/a").unwrap();
            condition(route, "parent shop/web", ConditionType::Accepted)
        };
        assert_eq!(told.0, Truth::False);
        let words = "data plane dp-1 refused it: port: cannot be bound";
        assert!(told.1.contains(words), "{}", told.1);
        let (programmed, _) = condition(gateway, "listener one", ConditionType::Programmed);
        assert_eq!(programmed, Truth::True);

        let status = shim.get("/api/v1/status").await;
        let kept = &status["quarantine"][0];
        assert_eq!(kept["object"], object);
        assert_eq!(kept["nodes"]["dp-1"]["message"], "cannot be bound");
        let clients = shim.get("/api/v1/clients").await;
        assert_eq!(clients[0]["quarantine"][0], object);
        assert_eq!(clients[0]["connected"], true);
        assert_eq!(
            clients[0]["streams"], 1,
            "the stream has stood all the time"
        );
    }
}

#[tokio::test]
async fn it_comes_back_when_it_changes() {
    let shim = Shim::start(DEADLINE * 10).await;
    let mut client = shim.connect("dp").await;
    let object = "HTTPRoute shop/a";
    assert_eq!(client.settle(object).await, without(object));
    write_routes(shim.folder.path(), "other.test");
    assert_eq!(client.settle("nothing").await, ALL);
    let state = shim.wait(|state| state.quarantine.is_empty()).await;
    let route = state.translation.status(Kind::HttpRoute, "shop/a").unwrap();
    let (accepted, _) = condition(route, "parent shop/web", ConditionType::Accepted);
    assert_eq!(accepted, Truth::True);
}

#[tokio::test]
async fn it_is_tried_again_ever_later_and_one_refusal_is_enough() {
    let retry_after = Duration::from_millis(100);
    let shim = Shim::start(retry_after).await;
    let mut client = shim.connect("dp").await;
    let object = "Listener shop/web/two";
    assert_eq!(client.settle(object).await, without(object));
    let mut left_out = std::time::Instant::now();
    let held = client.held.version.clone();
    for (refusals, times) in [(1, 1), (2, 2), (3, 4)] {
        let (is_refused, _) = client.answer(object).await;
        assert!(is_refused);
        assert!(
            left_out.elapsed() + Duration::from_millis(50) >= retry_after * times,
            "after {:?}, refusal {refusals}",
            left_out.elapsed()
        );
        left_out = std::time::Instant::now();
        shim.wait(|state| {
            state
                .quarantine
                .iter()
                .any(|kept| !kept.tried && kept.refusals > refusals)
        })
        .await;
    }
    // It was never sent anything but the attempts: what is published in between is what it holds.
    assert_eq!(client.held.version, held);
    let current = shim.control_plane.store.current().unwrap();
    assert_eq!(current.snapshot.version, held);

    assert_eq!(client.answer("nothing").await.1, ALL);
    let state = shim.wait(|state| state.quarantine.is_empty()).await;
    let gateway = state.translation.status(Kind::Gateway, "shop/web").unwrap();
    let (programmed, _) = condition(gateway, "listener two", ConditionType::Programmed);
    assert_eq!(programmed, Truth::True);
}

#[tokio::test]
async fn what_one_data_plane_refuses_is_left_out_for_all() {
    let shim = Shim::start(DEADLINE * 10).await;
    let object = "Listener shop/web/one";
    let mut other = shim.connect("dp-1").await;
    assert_eq!(other.answer("nothing").await.1, ALL);
    let mut client = shim.connect("dp-2").await;
    assert_eq!(client.settle(object).await, without(object));
    assert_eq!(other.answer("nothing").await.1, without(object));
}

#[test]
fn leaving_out_is_a_step_after_translation_and_can_be_undone() {
    let text = GATEWAY.to_owned() + &route("a", "a.test") + &route("b", "b.test");
    let (view, settings) = (view(&text), settings());
    let fresh = translate(&view, &settings, None);
    let list: Vec<Refused> = ALL
        .iter()
        .map(|object| Refused {
            part: PartName::parse(object).unwrap(),
            path: String::new(),
            message: "no".to_owned(),
            is_tried: false,
        })
        .collect();
    let reduced = fresh.clone().without(&list);
    assert!(reduced.snapshot().listeners.is_empty() && reduced.snapshot().http_routes.is_empty());
    let gateway = reduced.status(Kind::Gateway, "shop/web").unwrap();
    let (programmed, _) = condition(gateway, "", ConditionType::Programmed);
    assert_eq!(programmed, Truth::False, "nothing of it is served");
    assert_eq!(gateway.listeners[0].attached_routes, 0);

    let again = translate(&view, &settings, Some(&reduced));
    for undone in [again, reduced.without(&[])] {
        assert_eq!(undone.snapshot(), fresh.snapshot());
        assert!(undone.statuses().eq(fresh.statuses()));
    }
}
