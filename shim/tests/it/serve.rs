//! The discovery service against a data plane's client, over real connections.

use std::time::Duration;

use ir::wire::{ConfigViolation, DiscoveryRequest, StatusReport};
use ir::{decode, delta};
use shim::settings::GrpcRuntime;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::support::{DEADLINE, Server, Stream, hello};

fn quick() -> GrpcRuntime {
    GrpcRuntime {
        keepalive_time: Duration::from_millis(300),
        ..GrpcRuntime::default()
    }
}

#[tokio::test]
async fn the_first_push_is_whole_and_later_ones_are_deltas() {
    let server = Server::start(GrpcRuntime::default()).await;
    let version = server.publish(&[("a", "1"), ("b", "1")]);
    let mut stream = server.open(hello("dp", "")).await;
    let full = stream.apply().await;
    assert_eq!(full.version, version);
    let wire = full.snapshot.unwrap();
    assert_eq!(
        (wire.id.as_str(), wire.http_routes.len()),
        (version.as_str(), 2)
    );
    assert_eq!(wire.compatibility_profile, "full-v1");
    assert_eq!(wire.required_features, ["core.v1", "route.labels.v1"]);
    let held = decode::snapshot(wire).unwrap();

    let next = server.publish(&[("a", "1"), ("b", "2"), ("c", "1")]);
    let push = stream.apply().await;
    assert_ne!(push.nonce, full.nonce);
    assert!(push.snapshot.is_none());
    let wire = push.delta.unwrap();
    assert_eq!((&wire.base_version, &wire.version), (&version, &next));
    assert_eq!(wire.http_routes.len(), 2, "only what differs");
    assert!(
        wire.type_versions
            .values()
            .all(|version| !version.is_empty())
    );
    let applied = delta::apply(&held, &decode::delta(wire).unwrap()).unwrap();
    let current = server.store.current().unwrap();
    assert_eq!(applied.http_routes, current.snapshot.http_routes);

    server.wait_for_node("dp", |node| node.acks == 2).await;
    let node = server.node("dp");
    assert_eq!((node.full_pushes, node.delta_pushes), (1, 1));
    assert_eq!(node.acked_version, next);
}

#[tokio::test]
async fn a_returning_data_plane_is_brought_up_to_date_by_what_changed() {
    let server = Server::start(GrpcRuntime::default()).await;
    let first = server.publish(&[("a", "1")]);
    let mut stream = server.open(hello("dp", "")).await;
    stream.apply().await;
    server.wait_for_node("dp", |node| node.acks == 1).await;
    drop(stream);
    server.wait_for_node("dp", |node| !node.connected).await;
    server.publish(&[("a", "2")]);
    let last = server.publish(&[("a", "3"), ("b", "1")]);

    let mut stream = server.open(hello("dp", &first)).await;
    let wire = stream.apply().await.delta.unwrap();
    assert_eq!((wire.base_version, wire.version), (first, last));
    assert_eq!(wire.http_routes.len(), 2);
}

#[tokio::test]
async fn a_version_that_is_not_remembered_is_answered_with_the_whole() {
    let server = Server::start_with(GrpcRuntime::default(), None, 1).await;
    let forgotten = server.publish(&[("a", "1")]);
    server.publish(&[("a", "2")]);
    server.publish(&[("a", "3")]);
    for (node, held) in [("dp-1", forgotten.as_str()), ("dp-2", "from-elsewhere")] {
        let mut stream = server.open(hello(node, held)).await;
        assert!(stream.apply().await.snapshot.is_some(), "holding {held}");
    }
}

#[tokio::test]
async fn a_data_plane_that_holds_the_current_version_is_left_alone() {
    let server = Server::start(quick()).await;
    let version = server.publish(&[("a", "1")]);
    let mut stream = server.open(hello("dp", &version)).await;
    for _ in 0..3 {
        let response = stream.next().await.unwrap().unwrap();
        assert!(response.snapshot.is_none() && response.delta.is_none());
    }
    assert_eq!(server.node("dp").version, version);
    let next = server.publish(&[("a", "2")]);
    assert_eq!(stream.apply().await.delta.unwrap().version, next);
}

#[tokio::test]
async fn heartbeats_are_empty_and_come_every_third_of_the_keepalive_time() {
    let server = Server::start(quick()).await;
    let mut stream = server.open(hello("dp", "")).await;
    let started = std::time::Instant::now();
    for _ in 0..4 {
        let heartbeat = stream.next().await.unwrap().unwrap();
        let expected = ir::wire::DiscoveryResponse {
            live_replicas: 1,
            ..ir::wire::DiscoveryResponse::default()
        };
        assert_eq!(heartbeat, expected);
    }
    // The first comes at once, to say that the stream is open.
    assert!(started.elapsed() >= Duration::from_millis(290));
}

#[tokio::test]
async fn an_old_client_gets_the_whole_each_time() {
    let server = Server::start(GrpcRuntime::default()).await;
    let version = server.publish(&[("a", "1")]);
    let old = DiscoveryRequest {
        accepts_delta: false,
        ..hello("dp", &version)
    };
    let mut stream = server.open(old).await;
    assert_eq!(stream.apply().await.snapshot.unwrap().id, version);
    let next = server.publish(&[("a", "2")]);
    assert_eq!(stream.apply().await.snapshot.unwrap().id, next);
}

#[tokio::test]
async fn a_client_without_labels_is_not_sent_any() {
    let server = Server::start(GrpcRuntime::default()).await;
    server.publish(&[("a", "1")]);
    let rows: [(&[&str], &str, usize); 3] = [
        (&[], "legacy-pre-negotiation-v1", 0),
        (&["core.v1"], "compat-v1__core_v1", 0),
        (
            &["route.labels.v1"],
            "compat-v1__core_v1__route_labels_v1",
            1,
        ),
    ];
    for (features, profile, labels) in rows {
        let request = DiscoveryRequest {
            supported_features: features.iter().map(|f| (*f).to_owned()).collect(),
            ..hello(profile, "")
        };
        let mut stream = server.open(request).await;
        let snapshot = stream.apply().await.snapshot.unwrap();
        assert_eq!(snapshot.compatibility_profile, profile);
        assert_eq!(snapshot.http_routes[0].labels.len(), labels, "{profile}");
        assert_eq!(snapshot.required_features.len(), 1 + labels, "{profile}");
    }
}

#[tokio::test]
async fn a_snapshot_refused_for_no_object_in_it_is_sent_once_more_and_then_the_stream_ends() {
    let server = Server::start(GrpcRuntime::default()).await;
    let good = server.publish(&[("a", "1")]);
    let mut stream = server.open(hello("dp", "")).await;
    stream.apply().await;
    let bad = server.publish(&[("a", "bad")]);

    let first = stream.push().await;
    assert!(first.delta.is_some());
    stream.nack(&first, "rules[0]: does not compile").await;
    let second = stream.push().await;
    assert_eq!(second.version, bad);
    assert!(
        second.snapshot.is_some(),
        "whole, in case the delta was at fault"
    );
    stream
        .send(DiscoveryRequest {
            version: second.version.clone(),
            nonce: second.nonce.clone(),
            result_status: ir::wire::DiscoveryResultStatus::DiscoveryNack.into(),
            error_detail: "still does not compile".to_owned(),
            violations: vec![ConfigViolation {
                object: "HTTPRoute default/other".to_owned(),
                path: "rules[0]".to_owned(),
                message: "is wrong".to_owned(),
            }],
            ..DiscoveryRequest::default()
        })
        .await;
    assert_eq!(stream.end().await.code(), Code::FailedPrecondition);

    server.wait_for_node("dp", |node| !node.connected).await;
    let node = server.node("dp");
    assert_eq!(node.nacks, 2);
    assert_eq!(node.acked_version, good);
    assert_eq!(node.error_detail, "still does not compile");
    assert_eq!(node.violations[0].object, "HTTPRoute default/other");
    assert_eq!(node.last_termination, Some("refused"));

    let mut stream = server.open(hello("dp", &good)).await;
    assert!(
        stream.apply().await.snapshot.is_some(),
        "a fresh whole snapshot"
    );
    server
        .wait_for_node("dp", |node| node.acked_version == bad)
        .await;
    assert_eq!(server.node("dp").error_detail, "");
}

#[tokio::test]
async fn a_newer_snapshot_takes_the_place_of_a_refused_one() {
    let server = Server::start(GrpcRuntime::default()).await;
    server.publish(&[("a", "bad")]);
    let mut stream = server.open(hello("dp", "")).await;
    let refused = stream.push().await;
    let good = server.publish(&[("a", "good")]);
    stream.nack(&refused, "no").await;
    assert_eq!(stream.apply().await.version, good);
    server
        .wait_for_node("dp", |node| node.acked_version == good)
        .await;
}

#[tokio::test]
async fn a_plain_request_without_a_version_asks_for_the_whole() {
    let server = Server::start(GrpcRuntime::default()).await;
    server.publish(&[("a", "1")]);
    let mut stream = server.open(hello("dp", "")).await;
    stream.apply().await;
    let version = server.publish(&[("a", "2")]);
    assert!(stream.push().await.delta.is_some());
    stream.send(hello("dp", "")).await;
    let resent = stream.apply().await;
    assert_eq!(resent.snapshot.unwrap().id, version);
}

#[tokio::test]
async fn a_second_stream_of_a_node_ends_the_first() {
    let server = Server::start(GrpcRuntime::default()).await;
    server.publish(&[("a", "1")]);
    let mut first = server.open(hello("dp", "")).await;
    first.apply().await;
    let mut second = server.open(hello("dp", "")).await;
    second.apply().await;
    assert_eq!(first.end().await.code(), Code::Aborted);
    server.wait_for_node("dp", |node| node.acks == 2).await;
    assert!(server.node("dp").connected);
    assert_eq!(server.nodes.connected(), 1);
}

#[tokio::test]
async fn a_push_left_unanswered_ends_the_stream_and_marks_the_node() {
    let runtime = GrpcRuntime {
        snapshot_ack_timeout: Duration::from_millis(100),
        ..GrpcRuntime::default()
    };
    let server = Server::start(runtime).await;
    server.publish(&[("a", "1")]);
    let mut stream = server.open(hello("dp", "")).await;
    stream.push().await;
    assert_eq!(stream.end().await.code(), Code::DeadlineExceeded);
    server.wait_for_node("dp", |node| !node.connected).await;
    assert!(server.node("dp").stale);
    assert!(server.metric("xds_snapshot_ack_timeouts_total 1"));
    assert!(server.metric("xds_stream_terminations_total{reason=\"ack_timeout\"} 1"));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let runtime = GrpcRuntime {
        snapshot_send_timeout: Duration::from_millis(100),
        ..GrpcRuntime::default()
    };
    let server = Server::start(runtime).await;
    let names: Vec<String> = (0..2_000).map(|n| format!("route-{n}")).collect();
    let routes: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    server.publish(&routes);
    let channel = server
        .endpoint()
        .initial_stream_window_size(1_000)
        .connect()
        .await
        .unwrap();
    let client =
        ir::wire::configuration_discovery_service_client::ConfigurationDiscoveryServiceClient::new(
            channel,
        );
    let stream = Stream::open(client, hello("dp", "")).await;
    server
        .wait_for_node("dp", |node| node.last_termination == Some("send_timeout"))
        .await;
    assert!(server.metric("xds_snapshot_send_timeouts_total 1"));
    // The server lets go of the connection as well, although nobody reads the end of the stream.
    tokio::time::timeout(DEADLINE, stream.requests.closed())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_slow_stream_sees_only_the_newest_snapshot() {
    let server = Server::start(GrpcRuntime::default()).await;
    server.publish(&[("a", "1")]);
    let mut stream = server.open(hello("dp", "")).await;
    let first = stream.push().await;
    server
        .wait_for_node("dp", |node| node.full_pushes == 1)
        .await;
    for n in 2..50 {
        server.publish(&[("a", &n.to_string())]);
        tokio::task::yield_now().await;
    }
    let last = server.publish(&[("a", "last")]);
    stream.ack(&first).await;
    assert_eq!(stream.apply().await.version, last);
    server
        .wait_for_node("dp", |node| node.acked_version == last)
        .await;
    let node = server.node("dp");
    assert_eq!(node.full_pushes + node.delta_pushes, 2);
}

#[tokio::test]
async fn node_ids_are_asked_for_and_never_change() {
    let server = Server::start(GrpcRuntime::default()).await;
    let mut nameless = server.open(hello("", "")).await;
    assert_eq!(nameless.end().await.code(), Code::InvalidArgument);
    let mut changing = server.open(hello("dp", "")).await;
    changing.send(hello("other", "")).await;
    assert_eq!(changing.end().await.code(), Code::InvalidArgument);
    let mut implied = server.open(hello("dp", "")).await;
    implied.send(hello("", "")).await;
    server.publish(&[("a", "1")]);
    implied.apply().await;
}

#[tokio::test]
async fn status_reports_need_a_name_and_a_stream() {
    let server = Server::start(GrpcRuntime::default()).await;
    let version = server.publish(&[("a", "1")]);
    let mut client = server.client().await;
    let mut report = async |node_id: &str| {
        let report = StatusReport {
            node_id: node_id.to_owned(),
            version: version.clone(),
            ready: true,
            message: "snapshot applied".to_owned(),
            detail: Some(ir::wire::StatusDetail {
                http_routes: 7,
                ..ir::wire::StatusDetail::default()
            }),
            ..StatusReport::default()
        };
        client
            .report_status(report)
            .await
            .map(tonic::Response::into_inner)
    };
    assert_eq!(report(" ").await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(
        report("dp").await.unwrap_err().code(),
        Code::FailedPrecondition
    );
    let mut stream = server.open(hello("dp", "")).await;
    stream.apply().await;
    assert!(report("dp").await.unwrap().accepted);
    let node = server.node("dp");
    assert!(node.ready);
    assert_eq!(node.serving.unwrap().http_routes, 7);
    assert!(server.metric("xds_status_report_rejections_total{reason=\"unknown_node\"} 1"));
}

#[tokio::test]
async fn health_follows_the_first_snapshot() {
    let server = Server::start(GrpcRuntime::default()).await;
    let mut health = HealthClient::new(server.endpoint().connect().await.unwrap());
    let service = "gateway.control.v1.ConfigurationDiscoveryService";
    let mut status = async || {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        health
            .check(request)
            .await
            .map(|response| response.into_inner().status())
    };
    let wait = async {
        while !matches!(status().await, Ok(ServingStatus::NotServing)) {}
        server.publish(&[]);
        while !matches!(status().await, Ok(ServingStatus::Serving)) {}
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap();
}

#[tokio::test]
async fn answers_are_compressed_for_a_client_that_takes_gzip() {
    let server = Server::start(GrpcRuntime::default()).await;
    server.publish(&[("a", "1")]);
    for (takes_gzip, encoding) in [(true, Some("gzip")), (false, None)] {
        let mut client = server.client().await;
        if takes_gzip {
            client = client.accept_compressed(CompressionEncoding::Gzip);
        }
        let requests = tokio_stream::once(hello("dp", ""));
        let response = client.stream_configuration(requests).await.unwrap();
        let given = response.metadata().get("grpc-encoding");
        assert_eq!(given.and_then(|value| value.to_str().ok()), encoding);
    }
}

#[tokio::test]
async fn a_shutdown_ends_streams_and_refuses_reports() {
    let server = Server::start(GrpcRuntime::default()).await;
    server.publish(&[("a", "1")]);
    let mut stream = server.open(hello("dp", "")).await;
    stream.apply().await;
    server.shutdown.cancel();
    assert_eq!(stream.end().await.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_connection_that_is_old_enough_is_told_to_come_back() {
    let runtime = GrpcRuntime {
        max_connection_age: Some(Duration::from_millis(100)),
        ..GrpcRuntime::default()
    };
    let server = Server::start(runtime).await;
    server.publish(&[("a", "1")]);
    let mut stream = server.open(hello("dp", "")).await;
    stream.apply().await;
    assert_eq!(stream.end().await.code(), Code::Unavailable);
    server
        .wait_for_node("dp", |node| node.last_termination == Some("connection_age"))
        .await;
}

#[tokio::test]
async fn only_a_connection_without_streams_is_idle() {
    let runtime = GrpcRuntime {
        max_connection_idle: Some(Duration::from_millis(100)),
        max_connection_age_grace: Duration::from_millis(50),
        ..quick()
    };
    let server = Server::start(runtime).await;
    server.publish(&[("a", "1")]);
    let mut stream = server.open(hello("dp", "")).await;
    stream.apply().await;
    let mut idle = TcpStream::connect(server.addr).await.unwrap();
    let mut bytes = Vec::new();
    let closed = tokio::time::timeout(DEADLINE, idle.read_to_end(&mut bytes));
    // Closed or reset: either way it is gone.
    drop(closed.await.unwrap());
    let next = server.publish(&[("a", "2")]);
    assert_eq!(
        stream.apply().await.version,
        next,
        "the stream kept its connection"
    );
}
