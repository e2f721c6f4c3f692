//! TLS and mutual TLS towards the control plane, with certificates that rotate.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use dataplane_testkit::certificate::Authority;
use dataplane_testkit::control_plane::Settings as Listen;
use dataplane_xds::{Settings, TlsFiles};
use tokio::net::TcpListener;

use crate::support::{Client, settings, snapshot};

#[tokio::test]
async fn rotated_certificates_are_used_from_the_next_dial_on() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    write_client_files(folder.path(), &old);
    let control_plane = listen_with_tls(&old).start().await;
    let address = control_plane.address();
    let client = Client::start(tls_settings(address, folder.path()));
    control_plane.opened().await;
    control_plane.push(snapshot("1")).await;
    control_plane.acked("1").await;

    control_plane.stop().await;
    let control_plane = listen_with_tls(&new).address(address).start().await;
    let before = client.status.report().connect_failures;
    client
        .until("refusing", |report| report.connect_failures > before + 2)
        .await;
    assert_eq!(control_plane.streams_opened(), 0);

    write_client_files(folder.path(), &new);
    assert_eq!(control_plane.opened().await.version, "1");
}

#[tokio::test]
async fn a_control_plane_that_wants_a_certificate_gets_no_stream_without_one() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("authority");
    write_client_files(folder.path(), &authority);
    let control_plane = listen_with_tls(&authority).start().await;
    let mut settings = tls_settings(control_plane.address(), folder.path());
    settings.tls.as_mut().unwrap().identity = None;
    let client = Client::start(settings);
    client
        .until("refused", |report| report.connect_failures >= 2)
        .await;
    assert_eq!(control_plane.streams_opened(), 0);
    let error = client.status.report().last_error.unwrap();
    assert!(error.contains("xdsTls.certPath"), "{error}");
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_named_as_what_to_check() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("authority");
    write_client_files(folder.path(), &Authority::new("other"));
    authority.write(folder.path(), "ca").unwrap();
    let control_plane = listen_with_tls(&authority).start().await;
    let client = Client::start(tls_settings(control_plane.address(), folder.path()));
    client
        .until("refused", |report| report.connect_failures >= 2)
        .await;
    assert_eq!(control_plane.streams_opened(), 0);
    let error = client.status.report().last_error.unwrap();
    assert!(error.contains("signed by an authority"), "{error}");
}

#[tokio::test]
async fn a_handshake_that_nobody_answers_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    write_client_files(folder.path(), &Authority::new("authority"));
    // The kernel accepts the connection; nobody ever speaks.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut settings = tls_settings(silent.local_addr().unwrap(), folder.path());
    settings.connect_timeout = Duration::from_millis(100);
    let client = Client::start(settings);
    let report = client
        .until("given up", |report| report.connect_failures >= 2)
        .await;
    let error = report.last_error.unwrap();
    assert!(
        error.contains("no connection to https://127.0.0.1"),
        "{error}"
    );
    assert!(error.contains("within 100 ms"), "{error}");
}

#[tokio::test]
async fn a_key_that_is_none_is_named_and_read_again_at_the_next_dial() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("authority");
    write_client_files(folder.path(), &authority);
    std::fs::write(folder.path().join("tls.key"), "nonsense").unwrap();
    let control_plane = listen_with_tls(&authority).start().await;
    let client = Client::start(tls_settings(control_plane.address(), folder.path()));
    let report = client
        .until("refused", |report| report.connect_failures >= 1)
        .await;
    let error = report.last_error.unwrap();
    assert!(
        error.contains("the certificates in xdsTls cannot be used"),
        "{error}"
    );

    write_client_files(folder.path(), &authority);
    control_plane.opened().await;
}

fn listen_with_tls(authority: &Authority) -> Listen {
    Listen::default()
        .health()
        .tls(&authority.server(&["control-plane.test"]))
        .client_authority(authority)
}

fn tls_settings(address: SocketAddr, folder: &Path) -> Settings {
    let mut settings = settings(address);
    settings.tls = Some(TlsFiles {
        ca: folder.join("ca.crt"),
        identity: Some((folder.join("tls.crt"), folder.join("tls.key"))),
        domain_name: Some("control-plane.test".to_owned()),
    });
    settings
}

fn write_client_files(folder: &Path, authority: &Authority) {
    authority.write(folder, "ca").expect("the folder is there");
    authority
        .client("node-1")
        .write(folder, "tls")
        .expect("the folder is there");
}
