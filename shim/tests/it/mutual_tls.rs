//! TLS towards data planes: who gets in, and what happens when the files change.

use std::path::Path;
use std::time::Duration;

use dataplane_testkit::certificate::{Authority, Identity};
use ir::wire::configuration_discovery_service_client::ConfigurationDiscoveryServiceClient;
use shim::settings::{GrpcRuntime, TlsFiles};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::support::{DEADLINE, Server, Stream, hello};

fn write_pair(folder: &Path, pair: &Identity) {
    pair.write(folder, "tls").unwrap();
}

async fn server(folder: &Path, client_ca: Option<&Authority>) -> Server {
    let client_ca_path = client_ca.map(|ca| {
        let path = folder.join("ca.crt");
        std::fs::write(&path, ca.pem()).unwrap();
        path
    });
    let tls = TlsFiles {
        cert_path: folder.join("tls.crt"),
        key_path: folder.join("tls.key"),
        require_client_cert: client_ca_path.is_some(),
        client_ca_path,
    };
    Server::start_with(GrpcRuntime::default(), Some(tls), 4).await
}

async fn connect(
    server: &Server,
    trusted: &Authority,
    identity: Option<&Identity>,
) -> Result<Channel, tonic::transport::Error> {
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(trusted.pem()))
        .domain_name("shim.test");
    if let Some(pair) = identity {
        tls = tls.identity(tonic::transport::Identity::from_pem(
            &pair.chain_pem,
            &pair.key_pem,
        ));
    }
    let address = format!("https://{}", server.addr);
    let endpoint = Endpoint::from_shared(address)
        .unwrap()
        .timeout(Duration::from_secs(5));
    endpoint.tls_config(tls).unwrap().connect().await
}

/// True when a stream can be opened and brings a snapshot.
async fn is_served(server: &Server, trusted: &Authority, identity: Option<&Identity>) -> bool {
    let Ok(channel) = connect(server, trusted, identity).await else {
        return false;
    };
    // With TLS 1.3 a client learns only after its handshake that its certificate was refused.
    let mut client = ConfigurationDiscoveryServiceClient::new(channel.clone());
    let probe = client
        .stream_configuration(tokio_stream::once(hello("probe", "")))
        .await;
    if probe.is_err() {
        return false;
    }
    let client = ConfigurationDiscoveryServiceClient::new(channel);
    Stream::open(client, hello("dp", ""))
        .await
        .apply()
        .await
        .snapshot
        .is_some()
}

#[tokio::test]
async fn a_data_plane_needs_a_certificate_of_the_right_authority() {
    let (ours, theirs) = (Authority::new("one"), Authority::new("other"));
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path(), &ours.server(&["shim.test"]));
    let server = server(folder.path(), Some(&ours)).await;
    server.publish(&[("a", "1")]);
    let good = ours.client("dp");
    let bad = theirs.client("dp");
    assert!(is_served(&server, &ours, Some(&good)).await);
    assert!(
        !is_served(&server, &ours, Some(&bad)).await,
        "a foreign certificate"
    );
    assert!(!is_served(&server, &ours, None).await, "no certificate");
    assert!(
        !is_served(&server, &theirs, Some(&good)).await,
        "a client that does not trust us"
    );
}

#[tokio::test]
async fn changed_files_serve_new_connections_and_broken_ones_change_nothing() {
    let (first, second) = (Authority::new("one"), Authority::new("other"));
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path(), &first.server(&["shim.test"]));
    let server = server(folder.path(), None).await;
    server.publish(&[("a", "1")]);
    assert!(is_served(&server, &first, None).await);

    let renewal = second.server(&["shim.test"]);
    write_pair(
        folder.path(),
        &Identity {
            key_pem: "half a key".to_owned(),
            ..renewal.clone()
        },
    );
    let look = async {
        // Longer than the interval at which files are looked at.
        for _ in 0..6 {
            tokio::time::sleep(Duration::from_millis(250)).await;
            assert!(
                is_served(&server, &first, None).await,
                "the last good pair stays"
            );
        }
        write_pair(folder.path(), &renewal);
        while !is_served(&server, &second, None).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, look).await.unwrap();
}
