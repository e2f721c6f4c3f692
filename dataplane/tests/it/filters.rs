//! Filters seen from outside: what the client and the services behind the gateway get.

use bytes::Bytes;
use dataplane_testkit::SnapshotBuilder;
use dataplane_testkit::client::Response;
use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::snapshot::free_port;
use http::{Method, Request};
use ir::Filter;

use crate::support::{Gateway, at, http_route};

mod auth;
pub(crate) mod capture;
mod cors;
mod mirror;
mod order;

/// A gateway with the listener `infra/gw/http` and one route whose one rule has these filters.
async fn serving(
    filters: Vec<Filter>,
    backend_filters: Vec<Filter>,
    clusters: impl FnOnce(SnapshotBuilder) -> SnapshotBuilder,
) -> (Gateway, u16) {
    let port = free_port();
    let mut route = http_route("shop/r", "", "/", &[("shop/b:80", 1)]);
    route.rules[0].filters = filters;
    route.rules[0].backends[0].filters = backend_filters;
    let snapshot = SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .http_route(route);
    let gateway = Gateway::serving(&clusters(snapshot).build()).await;
    (gateway, port)
}

fn request(method: Method, path: &str, fields: &[(&str, &str)]) -> Request<Bytes> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Bytes::new()).unwrap()
}

/// Asks over HTTP/1.1 and over HTTP/2; both answers.
async fn both(port: u16, method: Method, path: &str, fields: &[(&str, &str)]) -> [Response; 2] {
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    let mut one = request(method.clone(), path, fields);
    let host = "x.example.com".parse().unwrap();
    one.headers_mut().insert("host", host);
    let first = client.send(one).await.unwrap();
    let client = Http2Client::connect(at(port)).await.unwrap();
    let url = format!("http://x.example.com{path}");
    let second = client.send(request(method, &url, fields)).await.unwrap();
    [first, second]
}
