//! The client as it runs: a real channel to a control plane on loopback.

use std::sync::Arc;
use std::time::Duration;

use dataplane_testkit::control_plane::{ControlPlane, Settings as Listen};
use dataplane_testkit::{DEADLINE, until, within};
use dataplane_xds::State;
use dataplane_xds::status::Detail;
use ir::wire::{
    BackendCluster, ConfigSnapshot, DiscoveryResponse, DiscoveryResultStatus, WasmPluginConfig,
};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status as GrpcStatus;

use crate::support::{Client, delta, holding, settings, snapshot, whole};

const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn a_full_snapshot_and_a_delta_are_applied_and_acknowledged() {
    let control_plane = Listen::default().health().start().await;
    let client = Client::start(settings(control_plane.address()));
    let hello = control_plane.opened().await;
    assert_eq!(
        (hello.node_id.as_str(), hello.cluster.as_str()),
        ("node-1", "edge")
    );
    assert_eq!(hello.version, "");
    assert_eq!(hello.subscriptions, ["*"]);
    assert!(hello.accepts_delta);

    control_plane.heartbeat().await;
    control_plane.push(snapshot("1")).await;
    assert_eq!(control_plane.acked("1").await.nonce, "1");
    control_plane.push(delta("1", "2")).await;
    assert_eq!(control_plane.acked("2").await.nonce, "2");
    assert_eq!(client.seen(), ["1", "1..2"]);

    let report = client
        .until("up to date", |report| {
            report.version.as_deref() == Some("2")
        })
        .await;
    assert!(report.connected && report.last_applied_unix_ms.is_some());
    assert_eq!((report.snapshots_applied, report.stream_reconnects), (2, 0));
    assert_eq!(client.metrics.xds.snapshots_applied.value(), 1);
    assert_eq!(client.metrics.xds.deltas_applied.value(), 1);
    assert_eq!(client.metrics.xds.connected.value(), 1);
}

#[tokio::test]
async fn status_is_reported_after_an_acknowledgement_and_at_a_pace() {
    let control_plane = ControlPlane::start().await;
    let client = Client::start(settings(control_plane.address()));
    client.status.set_detail(Detail {
        http_routes: 7,
        ..Detail::default()
    });
    control_plane.opened().await;
    control_plane.push(snapshot("1")).await;
    let applied = control_plane.report(|report| report.version == "1").await;
    assert_eq!(
        (applied.node_id.as_str(), applied.message.as_str()),
        ("node-1", "snapshot applied")
    );
    assert!(applied.ready && applied.observed_at.is_some());
    assert_eq!(applied.detail.unwrap().http_routes, 7);
    control_plane
        .report(|report| report.version.is_empty() && report.ready)
        .await;
}

#[tokio::test]
async fn a_report_that_is_not_taken_leaves_the_stream_alone() {
    let (control_plane, client) = holding(settings).await;
    control_plane.refuse_reports(Some(GrpcStatus::failed_precondition("no such node")));
    client
        .until("refused", |report| report.report_failures >= 3)
        .await;
    control_plane.push(snapshot("2")).await;
    control_plane.acked("2").await;
    assert_eq!(client.status.report().stream_reconnects, 0);
}

#[tokio::test]
async fn a_refusal_names_the_refused_version_and_its_faults() {
    let (control_plane, client) = holding(settings).await;
    control_plane.push(snapshot("bad-2")).await;
    let nack = control_plane.nacked("bad-2").await;
    assert_eq!(nack.nonce, "bad-2");
    assert_eq!(
        nack.error_detail,
        "HTTPRoute shop/cart: rules[0]: no such backend"
    );
    assert_eq!(nack.violations[0].object, "HTTPRoute shop/cart");
    assert_eq!(nack.violations[0].path, "rules[0]");

    let report = client
        .until("told", |report| report.last_nack.is_some())
        .await;
    assert_eq!(report.version.as_deref(), Some("1"));
    assert_eq!(report.last_nack.unwrap().version, "bad-2");
    assert!(report.last_error.unwrap().contains("no such backend"));
    assert!(report.last_error_unix_ms.is_some());
    assert_eq!(client.metrics.xds.snapshots_nacked.value(), 1);
}

#[tokio::test]
async fn a_panic_while_applying_is_a_refusal_and_the_next_update_applies() {
    let (control_plane, client) = holding(settings).await;
    control_plane.push(snapshot("panic-2")).await;
    assert!(
        control_plane
            .nacked("panic-2")
            .await
            .error_detail
            .contains("internal error")
    );
    control_plane.push(snapshot("3")).await;
    control_plane.acked("3").await;
    assert_eq!(client.seen(), ["1", "panic-2", "3"]);
}

#[tokio::test]
async fn the_held_version_is_acknowledged_without_being_applied_again() {
    let (control_plane, client) = holding(settings).await;
    control_plane.push(snapshot("1")).await;
    control_plane.acked("1").await;
    assert_eq!(client.seen(), ["1"]);
    assert_eq!(client.metrics.xds.snapshots_skipped.value(), 1);
}

#[tokio::test]
async fn a_delta_from_an_unknown_base_is_answered_with_a_plain_request() {
    let (control_plane, client) = holding(settings).await;
    control_plane.push(delta("8", "9")).await;
    let request = control_plane.opened().await;
    assert_eq!(
        request.result_status(),
        DiscoveryResultStatus::DiscoveryUnspecified
    );
    assert_eq!(
        (request.version.as_str(), request.accepts_delta),
        ("", true)
    );
    control_plane.push(snapshot("9")).await;
    control_plane.acked("9").await;
    assert_eq!(client.seen(), ["1", "9"]);
    assert_eq!(control_plane.streams_opened(), 1);
}

#[tokio::test]
async fn a_killed_control_plane_is_found_again_and_told_the_held_version() {
    let (control_plane, client) = holding(settings).await;
    control_plane
        .push(DiscoveryResponse {
            type_versions: [("type".to_owned(), "t2".to_owned())].into(),
            ..snapshot("2")
        })
        .await;
    control_plane.acked("2").await;
    let address = control_plane.address();
    control_plane.stop().await;
    let report = client.until("lost", |report| !report.connected).await;
    assert_eq!(report.version.as_deref(), Some("2"));
    let report = client
        .until("dialling", |report| report.connect_failures >= 3)
        .await;
    assert!(
        report
            .last_error
            .unwrap()
            .contains("check that it is reachable")
    );

    let control_plane = Listen::default().address(address).health().start().await;
    let hello = control_plane.opened().await;
    assert_eq!(hello.version, "2");
    assert_eq!(hello.type_versions["type"], "t2");
    let report = client.until("connected", |report| report.connected).await;
    assert!(report.stream_reconnects >= 3);
    control_plane.push(delta("2", "3")).await;
    control_plane.acked("3").await;
}

#[tokio::test]
async fn a_stream_that_is_ended_or_cut_is_replaced() {
    let (control_plane, client) = holding(settings).await;
    let ends = [None, Some(GrpcStatus::unavailable("shutting down"))];
    for status in ends {
        control_plane.end_streams(status).await;
        assert_eq!(control_plane.opened().await.version, "1");
    }
    control_plane.cut_connections();
    assert_eq!(control_plane.opened().await.version, "1");
    assert_eq!(client.status.report().stream_failures, 3);
}

#[tokio::test]
async fn a_refused_stream_is_tried_again() {
    let control_plane = ControlPlane::start().await;
    control_plane.refuse(Some(GrpcStatus::invalid_argument("who are you")));
    let client = Client::start(settings(control_plane.address()));
    let report = client
        .until("refused", |report| report.connect_failures >= 2)
        .await;
    assert!(report.last_error.unwrap().contains("who are you"));
    control_plane.refuse(None);
    control_plane.opened().await;
}

#[tokio::test]
async fn no_stream_is_opened_to_a_control_plane_that_is_not_serving() {
    let control_plane = Listen::default().health().start().await;
    control_plane.set_healthy(false).await;
    let client = Client::start(settings(control_plane.address()));
    let report = client
        .until("backing off", |report| report.connect_failures >= 3)
        .await;
    assert!(report.last_error.unwrap().contains("not serving"));
    assert_eq!(control_plane.streams_opened(), 0);

    control_plane.set_healthy(true).await;
    control_plane.opened().await;
    client.until("connected", |report| report.connected).await;
    control_plane.set_healthy(false).await;
    client
        .until("backing off again", |report| report.stream_failures == 1)
        .await;
}

#[tokio::test]
async fn a_control_plane_without_a_health_service_is_healthy() {
    let control_plane = ControlPlane::start().await;
    let client = Client::start(settings(control_plane.address()));
    control_plane.opened().await;
    control_plane.push(snapshot("1")).await;
    control_plane.acked("1").await;
    assert_eq!(client.status.report().connect_failures, 0);
}

#[tokio::test]
async fn a_silent_stream_is_replaced() {
    let (control_plane, client) = holding(|address| {
        let mut settings = settings(address);
        settings.timing.stale_stream_timeout = Duration::from_millis(300);
        settings
    })
    .await;
    assert_eq!(control_plane.opened().await.version, "1");
    assert!(
        client
            .status
            .report()
            .last_error
            .unwrap()
            .contains("silent")
    );
}

#[tokio::test]
async fn silence_makes_what_is_held_stale_until_the_next_message() {
    let (control_plane, client) = holding(|address| {
        let mut settings = settings(address);
        settings.timing.freshness_timeout = Duration::from_millis(200);
        settings
    })
    .await;
    client.until("stale", |report| report.stale).await;
    assert_eq!(client.metrics.xds.snapshot_stale.value(), 1);
    control_plane.heartbeat().await;
    client.until("fresh", |report| !report.stale).await;
}

#[tokio::test]
async fn heartbeats_count_while_an_update_is_being_applied() {
    let (control_plane, client) = holding(|address| {
        let mut settings = settings(address);
        settings.timing.stale_stream_timeout = Duration::from_millis(800);
        settings
    })
    .await;
    control_plane.push(snapshot("slow-2")).await;
    let end = Instant::now() + Duration::from_millis(1600);
    while Instant::now() < end {
        control_plane.heartbeat().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    client.permits.add_permits(1);
    control_plane.acked("slow-2").await;
    assert_eq!(control_plane.streams_opened(), 1);
}

#[tokio::test]
async fn updates_that_come_during_an_apply_are_applied_in_order() {
    let (control_plane, client) = holding(settings).await;
    control_plane.push(snapshot("slow-2")).await;
    control_plane.push(delta("slow-2", "3")).await;
    for version in ["4", "5", "6", "7"] {
        control_plane.push(snapshot(version)).await;
    }
    client.permits.add_permits(1);
    for version in ["slow-2", "3", "4", "5", "6", "7"] {
        control_plane.acked(version).await;
    }
    assert_eq!(
        client.seen(),
        ["1", "slow-2", "slow-2..3", "4", "5", "6", "7"]
    );
}

#[tokio::test]
async fn a_stream_cut_during_an_apply_is_replaced_after_it() {
    let (control_plane, client) = holding(settings).await;
    control_plane.push(snapshot("slow-2")).await;
    client.until("cut", |_| client.seen().len() == 2).await;
    control_plane.cut_connections();
    client.until("lost", |report| !report.connected).await;
    client.permits.add_permits(1);
    assert_eq!(control_plane.opened().await.version, "slow-2");
}

#[tokio::test]
async fn a_snapshot_of_64_mib_arrives_as_it_is_and_as_gzip() {
    for listen in [Listen::default().uncompressed(), Listen::default()] {
        let control_plane = listen.start().await;
        let client = Client::start(settings(control_plane.address()));
        control_plane.opened().await;
        control_plane.push(heavy("1", 64 * MIB)).await;
        // Unoptimised code takes its time for this much, on a busy machine many seconds.
        let is_applied = async || client.status.report().version.is_some();
        until(DEADLINE * 6, is_applied).await;
        control_plane.acked("1").await;
    }
}

#[tokio::test]
async fn a_message_past_the_limit_ends_the_stream_and_nothing_else() {
    let (control_plane, client) = holding(|address| {
        let mut settings = settings(address);
        settings.message_bytes_max = MIB;
        settings
    })
    .await;
    control_plane.push(heavy("2", 2 * MIB)).await;
    assert_eq!(control_plane.opened().await.version, "1");
    let error = client.status.report().last_error.unwrap();
    assert!(error.contains("limit"), "{error}");
    assert!(error.contains("xdsTransport.maxMessageBytes"), "{error}");
    control_plane.push(snapshot("3")).await;
    control_plane.acked("3").await;
}

/// A snapshot of at least so many bytes.
fn heavy(version: &str, bytes: usize) -> DiscoveryResponse {
    let block: Vec<u8> = (0..=255).collect();
    let content = block.repeat(bytes.div_ceil(block.len()));
    let module = WasmPluginConfig {
        name: "heavy".to_owned(),
        wasm_bytes: content,
        ..WasmPluginConfig::default()
    };
    whole(ConfigSnapshot {
        id: version.to_owned(),
        backends: vec![BackendCluster {
            name: "heavy".to_owned(),
            wasm_plugin: Some(module),
            ..BackendCluster::default()
        }],
        ..ConfigSnapshot::default()
    })
}

#[tokio::test]
async fn a_stopped_client_is_disconnected() {
    let (control_plane, mut client) = holding(settings).await;
    client.shutdown.send(true).unwrap();
    within("the end of the client", &mut client.task)
        .await
        .unwrap();
    until(DEADLINE, async || control_plane.streams_open() == 0).await;
    let report = client.status.report();
    assert_eq!(
        (report.connected, report.state),
        (false, State::Disconnected)
    );
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["connected"], false);
    assert_eq!(json["state"], "DISCONNECTED");
    assert_eq!(json["stream_reconnects"], 0);
    assert_eq!(json["node_id"], "node-1");
}

#[tokio::test]
async fn a_client_whose_owner_is_gone_stops() {
    let (_control_plane, mut client) = holding(settings).await;
    drop(std::mem::replace(
        &mut client.shutdown,
        watch::channel(false).0,
    ));
    within("the end of the client", &mut client.task)
        .await
        .unwrap();
    assert_eq!(client.status.report().state, State::Disconnected);
}

#[tokio::test]
async fn a_stop_waits_for_an_update_that_finishes_and_abandons_one_that_does_not() {
    for finishes in [true, false] {
        let (control_plane, mut client) = holding(settings).await;
        control_plane.push(snapshot("slow-2")).await;
        client.until("applying", |_| client.seen().len() == 2).await;
        client.shutdown.send(true).unwrap();
        client
            .until("stopping", |report| report.state == State::Disconnected)
            .await;
        assert!(!client.task.is_finished(), "an update is being applied");
        client.permits.add_permits(usize::from(finishes));
        within("the end of the client", &mut client.task)
            .await
            .unwrap();
        assert_eq!(client.permits.available_permits(), 0, "it went on");
        let is_gone = async || Arc::strong_count(&client.permits) == 1;
        until(DEADLINE, is_gone).await;
    }
}
