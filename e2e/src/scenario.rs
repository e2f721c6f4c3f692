//! A folder of manifests with backends behind it, and the gateway that serves it.
//!
//! A [`Scenario`] gathers files, backends and certificates; [`Scenario::serve`] starts `standalone`
//! on it and gives a [`Running`] to ask. Backends answer with their own name, `namespace/name`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use bytes::Bytes;
use dataplane_testkit::Backend;
use dataplane_testkit::backend::Kind;
use dataplane_testkit::certificate::{Authority, Identity};
use dataplane_testkit::client::grpc::{self, GrpcReply};
use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::client::tls::{TlsClient, TlsStream};
use dataplane_testkit::client::{Response, http1};
use http::Request;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::gateway::Standalone;
use crate::manifest;
use crate::ports::Ports;

/// Header fields of a request, or metadata of a call.
pub type Fields<'a> = &'a [(&'a str, &'a str)];

/// What a gateway is started on.
pub struct Scenario {
    folder: TempDir,
    backends: BTreeMap<String, Backend>,
    certificates: BTreeMap<String, Identity>,
    authority: Authority,
}

impl Scenario {
    /// An empty folder.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            folder: tempfile::tempdir()?,
            backends: BTreeMap::new(),
            certificates: BTreeMap::new(),
            authority: Authority::new("e2e"),
        })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Who vouches for the certificates.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The certificate in a Secret that [`Self::certificate`] wrote.
    pub fn identity(&self, secret: &str) -> &Identity {
        &self.certificates[secret]
    }

    /// The backend behind a Service.
    pub fn of(&self, service: &str) -> &Backend {
        &self.backends[service]
    }

    /// Copies a file into the folder, as it is.
    pub fn copy(&self, from: &Path) -> anyhow::Result<()> {
        let name = from.file_name().context("it has no name")?;
        // Copied by content: files of a module cache are read-only.
        let text = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        fs::write(self.folder().join(name), text)?;
        Ok(())
    }

    /// Writes a file of the folder; readers see the old text or the new one.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder().join(name);
        let draft = self.folder().join(format!(".{name}.draft"));
        fs::write(&draft, text)?;
        fs::rename(&draft, &path)?;
        Ok(path)
    }

    /// Writes objects to a file of the folder.
    pub fn add(&self, name: &str, objects: impl IntoIterator<Item = Value>) -> anyhow::Result<()> {
        self.write(name, &manifest::file(objects))?;
        Ok(())
    }

    /// Starts an HTTP/1.1 backend behind the Service `key`.
    pub async fn backend(&mut self, key: &str, port: u16) -> anyhow::Result<()> {
        self.backend_of(Kind::Http1, key, port).await
    }

    /// Starts a backend behind the Service `key`.
    pub async fn backend_of(&mut self, kind: Kind, key: &str, port: u16) -> anyhow::Result<()> {
        let backend = Backend::start(key, kind).await;
        self.keep(backend, key, port)
    }

    /// Starts a backend behind the Service `key` that speaks TLS, with a certificate for `name`.
    pub async fn secured_backend(
        &mut self,
        kind: Kind,
        key: &str,
        port: u16,
        name: &str,
    ) -> anyhow::Result<()> {
        let identity = self.authority.server(&[name]);
        let backend = Backend::start_tls(key, kind, &identity).await;
        self.keep(backend, key, port)
    }

    fn keep(&mut self, backend: Backend, key: &str, port: u16) -> anyhow::Result<()> {
        let name = format!("service-{}.yaml", key.replace('/', "-"));
        self.add(&name, manifest::service(key, port, backend.address()))?;
        self.backends.insert(key.to_owned(), backend);
        Ok(())
    }

    /// Writes a Secret with a certificate for these names.
    pub fn certificate(&mut self, key: &str, names: &[&str]) -> anyhow::Result<()> {
        let identity = self.authority.server(names);
        let name = format!("secret-{}.yaml", key.replace('/', "-"));
        self.add(&name, [manifest::certificate(key, &identity)])?;
        self.certificates.insert(key.to_owned(), identity);
        Ok(())
    }

    /// Starts the gateway on the folder, whose manifests have listeners at these ports. The system
    /// it runs on trusts the scenario's authority.
    pub async fn serve(self, ports: &[u16]) -> anyhow::Result<Running> {
        let ports = Ports::for_written(ports)?;
        // Hidden from the gateway, which reads manifests only.
        let authorities = self.folder().join(".authority.pem");
        fs::write(&authorities, self.authority.pem())?;
        let gateway = Standalone::start_trusting(self.folder(), &ports, &authorities).await?;
        Ok(Running {
            gateway,
            ports,
            scenario: self,
        })
    }
}

/// A gateway that serves a scenario. Ports are those of the manifests.
pub struct Running {
    /// The gateway.
    pub gateway: Standalone,
    /// Where its listeners are.
    pub ports: Ports,
    /// What it serves.
    pub scenario: Scenario,
}

impl Running {
    /// Sends GET over a new connection.
    pub async fn get(&self, port: u16, host: &str, path: &str) -> anyhow::Result<Response> {
        let address = self.ports.address(port);
        let response = http1::get(address, host, path).await;
        response.with_context(|| format!("GET http://{host}:{port}{path}"))
    }

    /// Sends GET with header fields over a new connection.
    pub async fn get_with(
        &self,
        port: u16,
        host: &str,
        path: &str,
        fields: Fields<'_>,
    ) -> anyhow::Result<Response> {
        self.send(port, "GET", host, path, fields).await
    }

    /// Sends a request without a body over a new connection.
    pub async fn send(
        &self,
        port: u16,
        method: &str,
        host: &str,
        path: &str,
        fields: Fields<'_>,
    ) -> anyhow::Result<Response> {
        let mut client = Http1Client::connect(self.ports.address(port)).await?;
        let mut request = Request::builder().method(method).uri(path);
        request = request.header("host", host);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let response = client.send(request.body(Bytes::new())?).await;
        response.with_context(|| format!("{method} http://{host}:{port}{path}"))
    }

    /// Which backends answer how often, for `count` requests over one connection.
    pub async fn spread(
        &self,
        port: u16,
        host: &str,
        path: &str,
        count: usize,
    ) -> anyhow::Result<BTreeMap<String, usize>> {
        let client = Http1Client::connect(self.ports.address(port)).await?;
        spread(client, host, path, count).await
    }

    /// A TLS connection with ALPN to the host `name`.
    pub async fn tls(
        &self,
        port: u16,
        name: &str,
        alpn: &[&str],
    ) -> anyhow::Result<TlsStream<TcpStream>> {
        let client = TlsClient::trusting(self.scenario.authority()).alpn(alpn);
        let stream = client.connect(self.ports.address(port), name).await;
        stream.with_context(|| format!("TLS with {name}:{port}"))
    }

    /// Sends GET by HTTPS and HTTP/1.1.
    pub async fn get_tls(&self, port: u16, host: &str, path: &str) -> anyhow::Result<Response> {
        let stream = self.tls(port, host, &["http/1.1"]).await?;
        let response = Http1Client::over(stream).get(host, path).await;
        response.with_context(|| format!("GET https://{host}:{port}{path}"))
    }

    /// Calls a method over TLS and HTTP/2.
    pub async fn call_tls(
        &self,
        port: u16,
        host: &str,
        path: &str,
        metadata: Fields<'_>,
    ) -> anyhow::Result<GrpcReply> {
        let stream = self.tls(port, host, &["h2"]).await?;
        let client = Http2Client::over(stream).await?;
        let reply = grpc::unary(&client, host, path, metadata, b"hello").await;
        reply.with_context(|| format!("call https://{host}:{port}{path}"))
    }

    /// What an object is told, see [`crate::admin::Admin::told`].
    pub async fn told(&self, kind: &str, key: &str) -> Vec<String> {
        self.gateway.control_plane.told(kind, key).await
    }
}

/// Which backends answer how often.
pub async fn spread<S>(
    mut client: Http1Client<S>,
    host: &str,
    path: &str,
    count: usize,
) -> anyhow::Result<BTreeMap<String, usize>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut seen = BTreeMap::new();
    for _ in 0..count {
        let response = client.get(host, path).await?;
        let who = match response.header("x-backend") {
            "" => response.status.to_string(),
            backend => backend.to_owned(),
        };
        *seen.entry(who).or_insert(0) += 1;
    }
    Ok(seen)
}
