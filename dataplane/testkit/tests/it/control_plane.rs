//! The fake control plane, seen by the generated client.

use std::time::Duration;

use dataplane_testkit::certificate::{Authority, Identity};
use dataplane_testkit::control_plane::Settings;
use dataplane_testkit::{ControlPlane, SnapshotBuilder, until, within};
use ir::Snapshot;
use ir::wire::configuration_discovery_service_client::ConfigurationDiscoveryServiceClient;
use ir::wire::{DiscoveryRequest, DiscoveryResponse, DiscoveryResultStatus};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Status, Streaming};

type Client = ConfigurationDiscoveryServiceClient<Channel>;

fn endpoint(control_plane: &ControlPlane, scheme: &str) -> Endpoint {
    Endpoint::from_shared(format!("{scheme}://{}", control_plane.address())).unwrap()
}

async fn client(control_plane: &ControlPlane) -> Client {
    let channel = endpoint(control_plane, "http").connect().await.unwrap();
    Client::new(channel).accept_compressed(CompressionEncoding::Gzip)
}

async fn open(
    client: &mut Client,
) -> Result<(mpsc::Sender<DiscoveryRequest>, Streaming<DiscoveryResponse>), Status> {
    let (requests, receiver) = mpsc::channel(8);
    let first = DiscoveryRequest {
        node_id: "node".to_owned(),
        ..DiscoveryRequest::default()
    };
    requests.send(first).await.unwrap();
    let stream = client
        .stream_configuration(ReceiverStream::new(receiver))
        .await?;
    Ok((requests, stream.into_inner()))
}

fn snapshot(version: &str) -> Snapshot {
    SnapshotBuilder::new(version).build()
}

#[tokio::test]
async fn pushes_reach_the_client_and_answers_the_test() {
    let control_plane = ControlPlane::start().await;
    let mut client = client(&control_plane).await;
    let (requests, mut responses) = open(&mut client).await.unwrap();
    assert_eq!(control_plane.opened().await.node_id, "node");

    control_plane.push_snapshot(&snapshot("v1")).await;
    let push = within("a push", responses.message())
        .await
        .unwrap()
        .unwrap();
    assert_eq!((push.version.as_str(), push.nonce.as_str()), ("v1", "v1"));
    for status in [
        DiscoveryResultStatus::DiscoveryAck,
        DiscoveryResultStatus::DiscoveryNack,
    ] {
        let answer = DiscoveryRequest {
            version: push.version.clone(),
            result_status: status.into(),
            ..DiscoveryRequest::default()
        };
        requests.send(answer).await.unwrap();
    }
    control_plane.acked("v1").await;
    control_plane.nacked("v1").await;

    let next = SnapshotBuilder::from(&snapshot("v1"), "v2")
        .http_listener("edge/gw/http", 8080)
        .build();
    control_plane.push_change(&snapshot("v1"), &next).await;
    let push = within("a delta", responses.message())
        .await
        .unwrap()
        .unwrap();
    let delta = push.delta.unwrap();
    assert_eq!(
        (delta.base_version.as_str(), delta.version.as_str()),
        ("v1", "v2")
    );
    assert_eq!(delta.listeners.len(), 1);

    control_plane.heartbeat().await;
    let heartbeat = within("a heartbeat", responses.message()).await.unwrap();
    assert_eq!(heartbeat, Some(DiscoveryResponse::default()));
}

#[tokio::test]
async fn a_greeting_comes_first_and_streams_can_be_refused_and_ended() {
    let control_plane = ControlPlane::start().await;
    let mut client = client(&control_plane).await;
    control_plane.refuse(Some(Status::unavailable("not now")));
    assert_eq!(
        open(&mut client).await.unwrap_err().code(),
        Code::Unavailable
    );

    control_plane.refuse(None);
    control_plane.greet_with(&snapshot("v1"));
    let (_requests, mut responses) = open(&mut client).await.unwrap();
    let greeting = within("a greeting", responses.message()).await.unwrap();
    assert_eq!(greeting.unwrap().version, "v1");
    control_plane
        .end_streams(Some(Status::aborted("superseded")))
        .await;
    let end = within("the end", responses.message()).await.unwrap_err();
    assert_eq!(end.code(), Code::Aborted);
    assert_eq!(control_plane.streams_opened(), 1);
}

#[tokio::test]
async fn cut_connections_break_streams_and_a_successor_takes_the_address() {
    let control_plane = ControlPlane::start().await;
    let address = control_plane.address();
    let mut client = client(&control_plane).await;
    let (_requests, mut responses) = open(&mut client).await.unwrap();
    control_plane.cut_connections();
    assert!(within("the end", responses.message()).await.is_err());
    let deadline = Duration::from_secs(5);
    until(deadline, async || control_plane.streams_open() == 0).await;

    control_plane.stop().await;
    let successor = Settings::default().address(address).start().await;
    let mut again = self::client(&successor).await;
    assert!(open(&mut again).await.is_ok());
}

#[tokio::test]
async fn health_is_what_the_test_says() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;
    let check = async |control_plane: &ControlPlane| {
        let channel = endpoint(control_plane, "http").connect().await.unwrap();
        let service = dataplane_testkit::control_plane::SERVICE.to_owned();
        let answer = HealthClient::new(channel)
            .check(HealthCheckRequest { service })
            .await;
        answer.map(|answer| answer.into_inner().status)
    };
    let control_plane = Settings::default().health().start().await;
    assert_eq!(check(&control_plane).await.unwrap(), 1);
    control_plane.set_healthy(false).await;
    assert_eq!(check(&control_plane).await.unwrap(), 2);
    let without = ControlPlane::start().await;
    assert_eq!(
        check(&without).await.unwrap_err().code(),
        Code::Unimplemented
    );
}

#[tokio::test]
async fn with_an_authority_only_its_clients_come_in() {
    let authority = Authority::new("test");
    let settings = Settings::default().tls(&authority.server(&["cp.test"]));
    let control_plane = settings.client_authority(&authority).start().await;
    let try_with = async |identity: Option<Identity>| {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(authority.pem()))
            .domain_name("cp.test");
        if let Some(identity) = identity {
            let pair = (identity.chain_pem, identity.key_pem);
            tls = tls.identity(tonic::transport::Identity::from_pem(pair.0, pair.1));
        }
        let endpoint = endpoint(&control_plane, "https").tls_config(tls).unwrap();
        let mut client = Client::new(endpoint.connect_lazy());
        open(&mut client).await.is_ok()
    };
    assert!(try_with(Some(authority.client("node"))).await);
    assert!(!try_with(Some(Authority::new("other").client("node"))).await);
    assert!(!try_with(None).await);
}
