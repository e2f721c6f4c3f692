//! TLS of the admin listener, from files.

use dataplane_testkit::certificate::Authority;
use dataplane_testkit::client::tls::{TlsClient, agreed};
use dataplane_testkit::within;
use dataplane_tls::{AdminTls, AdminTlsError, Alpn};
use tokio::io::duplex;

#[tokio::test]
async fn files_are_served_over_http_1() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("test");
    let identity = authority.server(&["admin.test"]);
    let (certificate, key) = identity.write(folder.path(), "admin").unwrap();
    let tls = AdminTls::from_files(&certificate, &key).unwrap();
    let (near, far) = duplex(16 * 1024);
    let client = TlsClient::trusting(&authority).alpn(&["h2", "http/1.1"]);
    let (server, client) = within("a handshake", async {
        tokio::join!(tls.accept(far), client.over(near, "admin.test"))
    })
    .await;
    assert_eq!(server.unwrap().session().alpn, Some(Alpn::Http1));
    assert!(agreed(&client.unwrap()).leaf == identity.leaf);
}

#[test]
fn unusable_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("test");
    let one = authority
        .server(&["a.test"])
        .write(folder.path(), "one")
        .unwrap();
    let two = authority
        .server(&["a.test"])
        .write(folder.path(), "two")
        .unwrap();
    let gone = folder.path().join("gone");
    let mismatch = AdminTls::from_files(&one.0, &two.1).err().unwrap();
    assert!(
        matches!(mismatch, AdminTlsError::Certificate { .. }),
        "{mismatch}"
    );
    let missing = AdminTls::from_files(&one.0, &gone).err().unwrap();
    assert!(missing.to_string().contains("gone"), "{missing}");
}
