//! Paths with escaped and repeated slashes, by listener: what is matched is what is forwarded.

use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::{Backend, SnapshotBuilder};
use ir::listener::EscapedSlashes::{self, Decode, Keep, Redirect, Refuse};
use ir::listener::{ListenerProtocol, ListenerSettings};

use crate::support::{Gateway, at};

/// One listener for each setting, all with the same routes: `/admin` goes to a backend of its own.
async fn serve(
    rows: &[(Option<EscapedSlashes>, Option<bool>)],
) -> (Gateway, [Backend; 2], Vec<u16>) {
    let backends = [Backend::http1("open").await, Backend::http1("admin").await];
    let ports: Vec<_> = rows.iter().map(|_| free_port()).collect();
    let mut builder = SnapshotBuilder::new("v1");
    for (index, (escaped_slashes, merge_slashes)) in rows.iter().enumerate() {
        let name = format!("infra/gw/l{index}");
        let mut listener =
            dataplane_testkit::snapshot::listener(&name, ports[index], ListenerProtocol::Http);
        listener.settings = ListenerSettings {
            escaped_slashes: *escaped_slashes,
            merge_slashes: *merge_slashes,
            ..ListenerSettings::default()
        };
        builder = builder.listener(listener);
    }
    let snapshot = builder
        .route("shop/open", "", "/", "shop/open:80")
        .route("shop/admin", "", "/admin", "shop/admin:80")
        .cluster("shop/open:80", &[backends[0].address()])
        .cluster("shop/admin:80", &[backends[1].address()])
        .build();
    (Gateway::serving(&snapshot).await, backends, ports)
}

/// Status, then the backend and the path it saw, or the place the client is sent to.
async fn ask(port: u16, path: &str, is_http2: bool) -> String {
    let response = if is_http2 {
        let client = Http2Client::connect(at(port)).await.unwrap();
        client.get("x.example:81", path).await.unwrap()
    } else {
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        client.get("x.example:81", path).await.unwrap()
    };
    let seen = response.json();
    let status = response.status.as_u16();
    match status {
        200 => format!(
            "{} {}",
            seen["backend"].as_str().unwrap(),
            seen["path"].as_str().unwrap()
        ),
        307 => format!("307 {}", response.header("location")),
        _ => status.to_string(),
    }
}

#[tokio::test]
async fn escaped_slashes_are_what_the_listener_says() {
    let rows = [None, Some(Keep), Some(Refuse), Some(Decode), Some(Redirect)];
    let settings = rows.map(|setting| (setting, None));
    let (_gateway, _backends, ports) = serve(&settings).await;
    let to = |path: &str| format!("307 http://x.example:81{path}");
    for (path, kept, decoded) in [
        ("/admin%2Fx", "open /admin%2Fx", "/admin/x"),
        ("/a%5cb", "open /a%5Cb", "/a/b"),
        ("/%2fadmin", "open /%2Fadmin", "/admin"),
        (
            "/%2F%2fevil.example/",
            "open /%2F%2Fevil.example/",
            "/evil.example/",
        ),
        ("/open/..%2fadmin/x", "open /open/..%2Fadmin/x", "/admin/x"),
        ("/open%5c..%5cadmin", "open /open%5C..%5Cadmin", "/admin"),
        ("/admin/..%2f..%2f", "admin /admin/..%2F..%2F", "/"),
    ] {
        let backend = if decoded.starts_with("/admin") {
            "admin"
        } else {
            "open"
        };
        let expected = [
            kept.to_owned(),
            kept.to_owned(),
            "400".to_owned(),
            format!("{backend} {decoded}"),
            to(decoded),
        ];
        for (port, (expected, row)) in ports.iter().zip(expected.iter().zip(rows)) {
            for is_http2 in [false, true] {
                assert_eq!(
                    ask(*port, path, is_http2).await,
                    *expected,
                    "{row:?} {path}"
                );
            }
        }
    }
    // What has none is the same everywhere; what is escaped twice is no slash.
    for (path, expected) in [
        ("/a/b", "open /a/b"),
        ("/a//./%61", "open /a/a"),
        ("/admin/../x", "open /x"),
        ("/x/../%61dmin", "admin /admin"),
        ("/admin%252Fx", "open /admin%252Fx"),
        ("/a%zz", "400"),
        ("/a%00", "400"),
    ] {
        for (port, row) in ports.iter().zip(rows) {
            assert_eq!(ask(*port, path, false).await, expected, "{row:?} {path}");
        }
    }
    // Where the client is sent, there it is served.
    assert_eq!(
        ask(ports[4], "/admin%2Fx?q=%2F", false).await,
        to("/admin/x?q=%2F")
    );
    assert_eq!(
        ask(ports[4], "/admin/x?q=%2F", false).await,
        "admin /admin/x"
    );
}

#[tokio::test]
async fn slashes_in_a_row_stay_where_the_listener_wants_them() {
    let settings = [
        (None, Some(true)),
        (None, Some(false)),
        (Some(Redirect), Some(false)),
    ];
    let (_gateway, _backends, ports) = serve(&settings).await;
    for (path, merged, kept) in [
        ("//admin", "admin /admin", "open //admin"),
        ("/admin//x//", "admin /admin/x/", "admin /admin//x//"),
        ("/x//../admin", "admin /admin", "open /x/admin"),
        ("/x/..//admin", "admin /admin", "open //admin"),
    ] {
        for is_http2 in [false, true] {
            assert_eq!(ask(ports[0], path, is_http2).await, merged, "{path}");
            assert_eq!(ask(ports[1], path, is_http2).await, kept, "{path}");
        }
    }
    // Never to another host, though the path begins with two slashes.
    let sent = ask(ports[2], "/%2fevil.example/x", false).await;
    assert_eq!(sent, "307 http://x.example:81//evil.example/x");
}

#[tokio::test]
async fn a_path_that_is_refused_ends_its_connection_and_is_counted() {
    let (gateway, backends, ports) = serve(&[(Some(Refuse), None)]).await;
    let mut client = Http1Client::connect(at(ports[0])).await.unwrap();
    let response = client.get("x.example", "/a%2fb").await.unwrap();
    assert_eq!(response.status, 400);
    assert_eq!(response.header("connection"), "close");
    assert!(
        response
            .text()
            .contains("the path has an escaped slash (bad_request)")
    );
    assert!(client.is_closed().await.unwrap());
    assert_eq!(backends[0].requests(), 0);
    drop(gateway);
}
