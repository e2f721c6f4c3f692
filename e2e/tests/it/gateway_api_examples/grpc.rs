//! Examples with GRPCRoutes. The Services say nothing of their protocol: a GRPCRoute implies HTTP/2.

use dataplane_testkit::backend::Kind;
use dataplane_testkit::client::grpc;
use dataplane_testkit::client::http2::Http2Client;

use e2e::scenario::Fields;
use e2e::{Running, Scenario};

use super::{assert_share, example, with_parent};

const UNIMPLEMENTED: i32 = 12;

/// Which backend answers a call, or with which status it ends.
async fn called(it: &Running, host: &str, path: &str, metadata: Fields<'_>) -> String {
    let reply = it.call_tls(50051, host, path, metadata).await.unwrap();
    if reply.status == Some(0) {
        assert_eq!(reply.messages, ["hello"], "{host}{path}");
    }
    match reply.headers.get("x-backend") {
        Some(name) => name.to_str().unwrap().to_owned(),
        None => format!("status {}", reply.status.unwrap_or(-1)),
    }
}

async fn backends(it: &mut Scenario, services: &[&str]) {
    for service in services {
        let key = format!("default/{service}");
        it.backend_of(Kind::Grpc, &key, 50051).await.unwrap();
    }
    let names = ["example.com", "*.example.com"];
    it.certificate("default/example-com-cert", &names).unwrap();
}

async fn check(it: &Running, rows: &[(&str, &str, Fields<'_>, &str)]) {
    for (host, path, metadata, expected) in rows {
        let expected = match *expected {
            "" => format!("status {UNIMPLEMENTED}"),
            backend => format!("default/{backend}"),
        };
        assert_eq!(
            called(it, host, path, metadata).await,
            expected,
            "{host}{path}"
        );
    }
}

#[tokio::test]
async fn basic_grpc_matches_method_and_header() {
    let Some(mut it) = example(&["basic-grpc.yaml"]) else {
        return;
    };
    backends(&mut it, &["my-service1", "my-service2"]).await;
    let it = it.serve(&[50051]).await.unwrap();
    let host = "example.com";
    let magic: Fields<'_> = &[("magic", "foo")];
    let rows: [(&str, &str, Fields<'_>, &str); 5] = [
        (host, "/com.example.User/Login", &[], "my-service1"),
        (host, "/com.example.User/Logout", &[], ""),
        (host, "/com.example.Things/DoThing", magic, "my-service2"),
        (host, "/com.example.Things/DoThing", &[], ""),
        ("www.example.com", "/com.example.User/Login", &[], ""),
    ];
    check(&it, &rows).await;
}

#[tokio::test]
async fn grpc_routing_chooses_by_host_method_and_header() {
    let Some(mut it) = example(&[
        "grpc-routing/gateway.yaml",
        "grpc-routing/foo-grpcroute.yaml",
        "grpc-routing/bar-grpcroute.yaml",
    ]) else {
        return;
    };
    backends(
        &mut it,
        &["example-svc", "foo-svc", "bar-svc", "bar-svc-canary"],
    )
    .await;
    let it = it.serve(&[50051]).await.unwrap();
    let canary: Fields<'_> = &[("env", "canary")];
    let rows: [(&str, &str, Fields<'_>, &str); 6] = [
        ("example.com", "/any.Service/Method", &[], "example-svc"),
        ("foo.example.com", "/com.example/Login", &[], "foo-svc"),
        ("foo.example.com", "/com.example/Logout", &[], ""),
        ("bar.example.com", "/any.Service/Method", &[], "bar-svc"),
        (
            "bar.example.com",
            "/any.Service/Method",
            canary,
            "bar-svc-canary",
        ),
        ("baz.example.com", "/com.example/Login", &[], ""),
    ];
    check(&it, &rows).await;
}

#[tokio::test]
async fn reflection_grpcroute_opens_a_whole_service() {
    let Some(mut it) = example(&[
        "grpc-routing/gateway.yaml",
        "grpc-routing/reflection-grpcroute.yaml",
    ]) else {
        return;
    };
    backends(&mut it, &["example-svc", "foo-svc"]).await;
    let it = it.serve(&[50051]).await.unwrap();
    let host = "foo.example.com";
    let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let rows: [(&str, &str, Fields<'_>, &str); 4] = [
        (host, "/com.example.User/Login", &[], "foo-svc"),
        (host, reflection, &[], "foo-svc"),
        (host, "/com.example.User/Logout", &[], ""),
        (host, "/grpc.reflection.v1alpha.ServerReflection/X", &[], ""),
    ];
    check(&it, &rows).await;
}

#[tokio::test]
async fn grpc_filter_adds_metadata() {
    let Some(mut it) = with_parent("grpc-filter.yaml") else {
        return;
    };
    // This backend tells what it saw, which a gRPC one does not.
    it.backend_of(Kind::Http2, "default/my-filter-svc1", 50051)
        .await
        .unwrap();
    let it = it.serve(&[80]).await.unwrap();
    let client = Http2Client::connect(it.ports.address(80)).await.unwrap();
    let request = http::Request::post("http://my.filter.com/a.B/C")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(bytes::Bytes::new())
        .unwrap();
    let answer = client.send(request).await.unwrap();
    assert_eq!(
        answer.json()["headers"]["my-header"],
        serde_json::json!(["foo"])
    );
}

#[tokio::test]
async fn grpc_traffic_split_2_is_ninety_to_ten() {
    let Some(mut it) = with_parent("traffic-splitting/grpc-traffic-split-2.yaml") else {
        return;
    };
    for service in ["default/foo-v1", "default/foo-v2"] {
        it.backend_of(Kind::Grpc, service, 50051).await.unwrap();
    }
    let it = it.serve(&[80]).await.unwrap();
    let client = Http2Client::connect(it.ports.address(80)).await.unwrap();
    let mut seen = std::collections::BTreeMap::new();
    for _ in 0..400 {
        let reply = grpc::unary(&client, "foo.example.com", "/a.B/C", &[], b"x").await;
        let reply = reply.unwrap();
        let who = reply.headers["x-backend"].to_str().unwrap().to_owned();
        *seen.entry(who).or_insert(0) += 1;
    }
    assert_share(&seen, "default/foo-v1", 90.0);
    assert_share(&seen, "default/foo-v2", 10.0);
}
