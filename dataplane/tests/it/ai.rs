//! AI services through the whole data plane, against providers that the test plays.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;
use dataplane_testkit::SnapshotBuilder;
use dataplane_testkit::client::Response;
use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::snapshot::{cluster, free_port};
use http::{Method, Request};
use ir::ai::{AiAuth, AiAuthKind, AiProvider, AiService, AiTarget};
use ir::cluster::ClusterProtocol;
use ir::secret::{Secret, SecretText};

use crate::support::{Gateway, at, http_route};

mod budgets;
mod canaries;
mod chat;
mod early;
mod failing;
mod hostile;
mod keys;
mod large;
mod limits;
mod many;
mod plugged;
mod provider;
mod redaction;
mod rest;
mod streams;
mod traces;

use provider::{Answer, Provider};

/// Key of the service's cluster.
const SERVICE: &str = "shop/llm";
/// What no provider's client may ever see.
const KEY: &str = "sk-canary-0123456789abcdef";

/// A service of that provider at that address, with a key.
fn service(kind: AiProvider, at: &Provider) -> AiService {
    service_at(kind, at.url())
}

/// The same at any address.
pub(crate) fn service_at(kind: AiProvider, url: String) -> AiService {
    AiService {
        provider: kind,
        format: None,
        model: "the-model".to_owned(),
        auth: Some(auth()),
        timeout: None,
        endpoint: Some(url),
        retries_max: 0,
        retry_backoff: None,
        aliases: BTreeMap::new(),
        headers: BTreeMap::new(),
        weight: NonZeroU32::MIN,
        providers: Vec::new(),
        redaction: Vec::new(),
        default_max_tokens: None,
        pass_client_credentials: false,
        prices: BTreeMap::new(),
    }
}

fn auth() -> AiAuth {
    AiAuth {
        kind: AiAuthKind::Bearer,
        secret_ref: "shop/key".into(),
        secret_key: Some("token".to_owned()),
        header: None,
    }
}

/// Another provider, which is asked when those before it fail.
fn fallback(kind: AiProvider, at: &Provider, model: &str) -> AiTarget {
    AiTarget {
        provider: kind,
        format: None,
        model: model.to_owned(),
        auth: Some(auth()),
        endpoint: Some(at.url()),
        headers: BTreeMap::new(),
        weight: 0,
        cluster: None,
        tls: None,
    }
}

fn secret(value: &str) -> Secret {
    let values = BTreeMap::from([("token".to_owned(), SecretText::new(value.to_owned()))]);
    Secret {
        key: "shop/key".into(),
        certificate: None,
        htpasswd: None,
        oidc_client_secret: None,
        values,
    }
}

/// One route for everything to one AI service.
struct Case {
    port: u16,
    cluster: ir::Cluster,
    key: String,
}

impl Case {
    fn new(service: AiService) -> Self {
        let mut cluster = cluster(SERVICE, ClusterProtocol::Http, &[]);
        cluster.ai_service = Some(Arc::new(service));
        Self {
            port: free_port(),
            cluster,
            key: KEY.to_owned(),
        }
    }

    fn snapshot(&self, version: &str) -> ir::Snapshot {
        SnapshotBuilder::new(version)
            .http_listener("infra/gw/http", self.port)
            .http_route(http_route("shop/r", "", "/", &[(SERVICE, 1)]))
            .add_cluster(self.cluster.clone())
            .secret(secret(&self.key))
            .build()
    }

    async fn serve(&self) -> Gateway {
        self.serve_with(|_| ()).await
    }

    async fn serve_with(&self, change: impl FnOnce(&mut dataplane_http::Settings)) -> Gateway {
        let snapshot = self.snapshot("v1");
        Gateway::with(&snapshot, |bootstrap| change(&mut bootstrap.http)).await
    }

    async fn connect(&self) -> Http1Client {
        Http1Client::connect(at(self.port)).await.unwrap()
    }

    async fn post(&self, path: &str, body: &str) -> Response {
        self.connect().await.send(post(path, body)).await.unwrap()
    }

    async fn chat(&self, body: &str) -> Response {
        self.post("/v1/chat/completions", body).await
    }
}

fn post(path: &str, body: &str) -> Request<Bytes> {
    Request::builder()
        .method(Method::POST)
        .uri(path)
        .header("host", "x")
        .header("content-type", "application/json")
        .header("authorization", "Bearer of-the-client")
        .header("content-length", body.len())
        .body(Bytes::copy_from_slice(body.as_bytes()))
        .unwrap()
}
