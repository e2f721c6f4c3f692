//! The API server over plain HTTP, through `kubectl proxy`: quick enough for thousands of objects.
//!
//! [`Proxy`] holds the process, [`KubeApi`] one connection to it. Objects are written server-side
//! (`PATCH`, as `kubectl apply --server-side` does), so the same call makes and changes.

use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::snapshot::free_port;
use http::Request;
use serde_json::{Value, json};

use crate::api_server::ApiServer;

/// A method and the media type of its body.
type How = (&'static str, &'static str);
const APPLY: How = ("PATCH", "application/apply-patch+yaml");
const MERGE: How = ("PATCH", "application/merge-patch+json");
const POST: How = ("POST", "application/json");
const GET: How = ("GET", "application/json");
const DELETE: How = ("DELETE", "application/json");

/// Kind, path before the namespace, and name in paths.
const KINDS: &[(&str, &str, &str)] = &[
    ("Gateway", "apis/gateway.networking.k8s.io/v1", "gateways"),
    (
        "ListenerSet",
        "apis/gateway.networking.k8s.io/v1",
        "listenersets",
    ),
    (
        "HTTPRoute",
        "apis/gateway.networking.k8s.io/v1",
        "httproutes",
    ),
    (
        "GRPCRoute",
        "apis/gateway.networking.k8s.io/v1",
        "grpcroutes",
    ),
    ("TLSRoute", "apis/gateway.networking.k8s.io/v1", "tlsroutes"),
    (
        "TCPRoute",
        "apis/gateway.networking.k8s.io/v1alpha2",
        "tcproutes",
    ),
    (
        "UDPRoute",
        "apis/gateway.networking.k8s.io/v1alpha2",
        "udproutes",
    ),
    (
        "ReferenceGrant",
        "apis/gateway.networking.k8s.io/v1beta1",
        "referencegrants",
    ),
    (
        "BackendTLSPolicy",
        "apis/gateway.networking.k8s.io/v1",
        "backendtlspolicies",
    ),
    (
        "XBackendTrafficPolicy",
        "apis/gateway.networking.x-k8s.io/v1alpha1",
        "xbackendtrafficpolicies",
    ),
    (
        "BackendLBPolicy",
        "apis/gateway.nantian.dev/v1alpha1",
        "backendlbpolicies",
    ),
    (
        "RoutePolicy",
        "apis/gateway.nantian.dev/v1alpha1",
        "routepolicies",
    ),
    (
        "SecurityPolicy",
        "apis/gateway.nantian.dev/v1alpha1",
        "securitypolicies",
    ),
    (
        "AIService",
        "apis/gateway.nantian.dev/v1alpha1",
        "aiservices",
    ),
    (
        "TokenPolicy",
        "apis/gateway.nantian.dev/v1alpha1",
        "tokenpolicies",
    ),
    (
        "WasmPlugin",
        "apis/gateway.nantian.dev/v1alpha1",
        "wasmplugins",
    ),
    (
        "DirectResponse",
        "apis/gateway.nantian.dev/v1alpha1",
        "directresponses",
    ),
    (
        "GatewayClass",
        "apis/gateway.networking.k8s.io/v1",
        "gatewayclasses",
    ),
    (
        "ServiceImport",
        "apis/multicluster.x-k8s.io/v1alpha1",
        "serviceimports",
    ),
    ("Namespace", "api/v1", "namespaces"),
    ("Service", "api/v1", "services"),
    ("Secret", "api/v1", "secrets"),
    ("ConfigMap", "api/v1", "configmaps"),
    (
        "EndpointSlice",
        "apis/discovery.k8s.io/v1",
        "endpointslices",
    ),
];

/// `kubectl proxy`; it ends with this.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    address: SocketAddr,
}

impl Proxy {
    /// Starts it and waits until it answers.
    pub async fn start(server: &ApiServer) -> anyhow::Result<Self> {
        let port = free_port();
        let port_flag = format!("--port={port}");
        let mut command = server.kubectl_command(&["proxy", &port_flag]);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let proxy = Self {
            child: child.context("cannot start `kubectl proxy`")?,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
        };
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            if let Ok(mut api) = proxy.connect().await
                && api.get("/readyz").await.is_ok()
            {
                return Ok(proxy);
            }
            ensure!(Instant::now() < end, "`kubectl proxy` does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Where it listens, in plain text.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A connection of one's own.
    pub async fn connect(&self) -> anyhow::Result<KubeApi> {
        let http = Http1Client::connect(self.address).await?;
        Ok(KubeApi {
            http,
            address: self.address,
        })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One connection to the API server.
pub struct KubeApi {
    http: Http1Client,
    address: SocketAddr,
}

/// An object by kind, namespace and name.
#[derive(Clone, Copy, Debug)]
pub struct Name<'a> {
    /// Its kind, one of those the gateway reads.
    pub kind: &'a str,
    /// Its namespace; empty for a kind that has none.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

impl Name<'_> {
    fn path(&self) -> anyhow::Result<String> {
        let known = KINDS.iter().find(|(kind, ..)| *kind == self.kind);
        let (_, api, plural) = known.with_context(|| format!("kind {} is not known", self.kind))?;
        let name = self.name;
        Ok(match self.namespace {
            "" => format!("/{api}/{plural}/{name}"),
            namespace => format!("/{api}/namespaces/{namespace}/{plural}/{name}"),
        })
    }

    /// The manifest with that text under its head; `metadata` is in flow style, without braces.
    pub fn manifest(&self, metadata: &str, body: &str) -> anyhow::Result<String> {
        let known = KINDS.iter().find(|(kind, ..)| *kind == self.kind);
        let (kind, api, _) = known.with_context(|| format!("kind {} is not known", self.kind))?;
        let version = api.trim_start_matches("apis/").trim_start_matches("api/");
        let name = self.name;
        let namespace = match self.namespace {
            "" => String::new(),
            namespace => format!(", namespace: {namespace}"),
        };
        Ok(format!(
            "apiVersion: {version}\nkind: {kind}\n\
             metadata: {{name: {name}{namespace}{metadata}}}\n{body}\n"
        ))
    }
}

/// Where objects of that kind and namespace are.
fn collection(object: &Value) -> anyhow::Result<String> {
    let kind = object["kind"].as_str().unwrap_or_default();
    let known = KINDS.iter().find(|(known, ..)| *known == kind);
    let (_, api, plural) = known.with_context(|| format!("kind {kind} is not known"))?;
    Ok(match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("/{api}/namespaces/{namespace}/{plural}"),
        None => format!("/{api}/{plural}"),
    })
}

impl KubeApi {
    /// Makes the object or changes it; an error is what the API server said.
    pub async fn apply(&mut self, name: Name<'_>, manifest: String) -> anyhow::Result<Value> {
        let path = format!("{}?fieldManager=e2e&force=true", name.path()?);
        self.send(APPLY, &path, manifest).await
    }

    /// Takes an object away; it may be gone already.
    pub async fn delete(&mut self, name: Name<'_>) -> anyhow::Result<()> {
        match self.send(DELETE, &name.path()?, String::new()).await {
            Err(error) if !error.to_string().contains("not found") => Err(error),
            _ => Ok(()),
        }
    }

    /// The object; an error when it is not there.
    pub async fn object(&mut self, name: Name<'_>) -> anyhow::Result<Value> {
        let path = name.path()?;
        self.get(&path).await
    }

    /// What is at a path.
    pub async fn get(&mut self, path: &str) -> anyhow::Result<Value> {
        self.send(GET, path, String::new()).await
    }

    /// Makes an object of a known kind, quicker than [`Self::apply`]; it may be there already.
    pub async fn create(&mut self, object: &Value) -> anyhow::Result<()> {
        let path = collection(object)?;
        match self.send(POST, &path, object.to_string()).await {
            Err(error) if !error.to_string().contains("already exists") => Err(error),
            _ => Ok(()),
        }
    }

    /// Changes an object of a known kind to what `object` says of it (RFC 7396).
    pub async fn merge(&mut self, object: &Value) -> anyhow::Result<()> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let path = format!("{}/{name}", collection(object)?);
        self.send(MERGE, &path, object.to_string()).await?;
        Ok(())
    }

    /// Takes away all objects of a kind in a namespace.
    pub async fn delete_all(&mut self, kind: &str, namespace: &str) -> anyhow::Result<()> {
        let object = json!({ "kind": kind, "metadata": { "namespace": namespace } });
        self.send(DELETE, &collection(&object)?, String::new())
            .await?;
        Ok(())
    }

    async fn send(&mut self, how: How, path: &str, body: String) -> anyhow::Result<Value> {
        let (method, media) = how;
        let request = || {
            let request = Request::builder().method(method).uri(path);
            let request = request.header("host", "localhost");
            let request = request.header("accept", "application/json");
            let request = request.header("content-type", media);
            request.body(Bytes::from(body.clone()))
        };
        let answer = match self.http.send(request()?).await {
            Ok(answer) => answer,
            // The proxy closes connections that rested.
            Err(_) => {
                self.http = Http1Client::connect(self.address).await?;
                self.http.send(request()?).await?
            }
        };
        if answer.status.is_success() {
            return Ok(serde_json::from_slice(answer.text().as_bytes()).unwrap_or_default());
        }
        let said: Value = serde_json::from_slice(answer.text().as_bytes()).unwrap_or_default();
        match said["message"].as_str() {
            Some(message) => bail!("{message}"),
            None => bail!("{method} {path}: {}", answer.status),
        }
    }
}
