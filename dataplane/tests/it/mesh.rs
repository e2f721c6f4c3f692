//! Listeners that stand for a Service: who is served by which, and that host names do not matter.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::snapshot::{free_port, http_route, listener};
use dataplane_testkit::{Backend, SnapshotBuilder};
use ir::listener::{
    CONSUMER_NAMESPACE, FRONTEND_KIND, FRONTEND_NAME, FRONTEND_NAMESPACE, ListenerProtocol,
};
use ir::snapshot::Workload;
use ir::{Listener, Snapshot};
use tokio::net::TcpSocket;

use crate::support::{Gateway, at};

const ALL: &str = "mesh/shop/cart/20001";
const WEB: &str = "mesh/shop/cart/20001@web";

/// The mesh listener of `shop/cart`, for every client or for workloads of a namespace.
fn frontend(port: u16, consumer: Option<&str>) -> Listener {
    let name = if consumer.is_some() { WEB } else { ALL };
    let mut listener = listener(name, port, ListenerProtocol::Http);
    let pairs = [
        (FRONTEND_KIND, "Service"),
        (FRONTEND_NAMESPACE, "shop"),
        (FRONTEND_NAME, "cart"),
    ];
    let consumer = consumer.map(|namespace| (CONSUMER_NAMESPACE, namespace));
    listener.metadata = pairs
        .into_iter()
        .chain(consumer)
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    listener
}

/// A producer route to `producer`, and a consumer route of namespace `web` to `consumer`.
fn snapshot(version: &str, port: u16, producer: &Backend, consumer: &Backend) -> Snapshot {
    let at_listener = |key: &str, listener: &str, cluster: &str| {
        let mut route = http_route(key, "not.what.clients.say", "/", &[(cluster, 1)]);
        route.listeners = vec![listener.into()];
        route
    };
    SnapshotBuilder::new(version)
        .listener(frontend(port, None))
        .listener(frontend(port, Some("web")))
        .http_route(at_listener("shop/producer", ALL, "shop/p:80"))
        .http_route(at_listener("web/consumer", WEB, "shop/c:80"))
        .cluster("shop/p:80", &[producer.address()])
        .cluster("shop/c:80", &[consumer.address()])
        .build()
}

fn workload(namespace: &str, last: u8) -> Workload {
    Workload {
        namespace: namespace.to_owned(),
        name: format!("pod-{last}"),
        ip: IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)),
    }
}

/// Which backend answers a client at 127.0.0.`last`.
async fn answer(port: u16, last: u8) -> String {
    let socket = TcpSocket::new_v4().unwrap();
    let own = SocketAddr::from(([127, 0, 0, last], 0));
    socket.bind(own).unwrap();
    let stream = socket.connect(at(port)).await.unwrap();
    let response = Http1Client::over(stream).get("cart", "/").await.unwrap();
    assert_eq!(response.status.as_u16(), 200);
    let backend = response.headers.get("x-backend").unwrap();
    backend.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_consumer_route_is_for_workloads_of_its_namespace_alone() {
    let (producer, consumer) = (Backend::http1("p").await, Backend::http1("c").await);
    let port = free_port();
    let mut first = snapshot("v1", port, &producer, &consumer);
    first.workloads = vec![workload("web", 2), workload("other", 3)].into();
    let gateway = Gateway::serving(&first).await;
    for (client, expected) in [(1, "p"), (2, "c"), (3, "p")] {
        assert_eq!(answer(port, client).await, expected, "127.0.0.{client}");
    }

    // Pods come and go: the address is somebody else's now.
    let mut second = snapshot("v2", port, &producer, &consumer);
    second.workloads = vec![workload("web", 3)].into();
    gateway.apply(&second).await;
    for (client, expected) in [(1, "p"), (2, "p"), (3, "c")] {
        assert_eq!(answer(port, client).await, expected, "127.0.0.{client}");
    }
}
