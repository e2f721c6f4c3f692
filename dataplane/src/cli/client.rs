//! Asks an admin API: finds it, shows the token, reads the answer within limits.
//!
//! Used by `show.rs` for every command. One connection for each request; a data plane that hangs is
//! given up after some seconds. What a refusal says is passed on as it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use ir::cluster::BackendTls;
use ir::listener::TlsVersion;
use ir::secret::Certificate;
use ir::{Hostname, SecretText};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use dataplane_tls::{BackendTrust, CertificateDetails, ClientTls, Offer};

use super::Asking;
use crate::bootstrap::Bootstrap;

/// Largest answer; a page of a list is far smaller, a snapshot may come near.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// Until there is a connection, and until an answer is complete.
const PATIENCE: Duration = Duration::from_secs(30);

/// An admin API and how to get into it.
pub(super) struct Client {
    /// `host:port`.
    authority: String,
    token: Option<SecretText>,
    tls: Option<ClientTls>,
}

/// An answer that is no refusal.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) text: String,
    /// The path of the next page.
    pub(super) next: Option<String>,
}

impl Client {
    /// Puts together what the options and the bootstrap file say, the options first.
    pub(super) fn find(config: &Path, asking: &Asking) -> anyhow::Result<Self> {
        let local = local(config, asking)?;
        let token = match &asking.token_file {
            Some(path) => Some(SecretText::new(read(path)?.trim().to_owned())),
            None => local.as_ref().and_then(|it| it.admin.token.clone()),
        };
        let certificate = local.as_ref().and_then(|it| it.admin.tls.as_ref());
        let url = match (&asking.admin, &local) {
            (Some(url), _) => url.clone(),
            (None, Some(local)) => {
                let scheme = if certificate.is_some() {
                    "https"
                } else {
                    "http"
                };
                let mut address = local.admin.address;
                if address.ip().is_unspecified() {
                    let here: std::net::IpAddr = match address.is_ipv4() {
                        true => std::net::Ipv4Addr::LOCALHOST.into(),
                        false => std::net::Ipv6Addr::LOCALHOST.into(),
                    };
                    address.set_ip(here);
                }
                format!("{scheme}://{address}")
            }
            (None, None) => "http://127.0.0.1:19080".to_owned(),
        };
        let (is_tls, authority) = match url.split_once("://") {
            None => (false, url.as_str()),
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some((scheme, _)) => bail!("{scheme}:// is neither http:// nor https://"),
        };
        let authority = authority.trim_end_matches('/');
        ensure!(
            authority
                .rsplit_once(':')
                .is_some_and(|(_, port)| port.parse::<u16>().is_ok()),
            "{url} names no port, write it as in http://127.0.0.1:19080"
        );
        let certificate = certificate.map(|(certificate, _)| certificate.clone());
        let tls = is_tls.then(|| trust(asking, authority, certificate));
        Ok(Self {
            authority: authority.to_owned(),
            token,
            tls: tls.transpose()?,
        })
    }

    /// Where it is.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// The value of a path.
    pub(super) async fn value(&self, path: &str) -> anyhow::Result<Value> {
        self.value_after(path, Duration::ZERO).await
    }

    /// The value of a path that takes that long to answer.
    pub(super) async fn value_after(&self, path: &str, time: Duration) -> anyhow::Result<Value> {
        let reply = self.exchange(Method::GET, path, None, time).await?;
        serde_json::from_str(&reply.text)
            .with_context(|| format!("{} answers {path} with no JSON", self.authority))
    }

    /// GET.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Reply> {
        self.send(Method::GET, path, None).await
    }

    /// Anything, with a body of JSON.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Reply> {
        self.exchange(method, path, body, Duration::ZERO).await
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        time: Duration,
    ) -> anyhow::Result<Reply> {
        let exchange = async {
            let stream = TcpStream::connect(&self.authority).await;
            let stream = stream.with_context(|| {
                format!(
                    "no data plane answers at {}; is it running, and is --admin right?",
                    self.authority
                )
            })?;
            match &self.tls {
                None => self.speak(stream, method, path, body).await,
                Some(tls) => {
                    let stream = tls.connect(stream, Offer::Http1).await.with_context(|| {
                        format!(
                            "no TLS with {}; --ca and --server-name say whom to trust",
                            self.authority
                        )
                    })?;
                    self.speak(stream, method, path, body).await
                }
            }
        };
        let ended = timeout(PATIENCE + time, exchange).await;
        ended.map_err(|_| anyhow!("{} did not answer within {PATIENCE:?}", self.authority))?
    }

    async fn speak<S>(
        &self,
        stream: S,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Reply>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.authority);
        if let Some(token) = &self.token {
            let value = format!("Bearer {}", token.expose());
            request = request.header(header::AUTHORIZATION, value);
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map(ToString::to_string).unwrap_or_default();
        let request = request.body(Full::new(Bytes::from(body)));
        let request = request.with_context(|| format!("{path} cannot be asked for"))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request).await;
        let response = response
            .with_context(|| format!("{} speaks no HTTP; is it an https one?", self.authority))?;
        let status = response.status();
        let link = response.headers().get(header::LINK);
        let next = link.and_then(|link| next_page(link.to_str().ok()?));
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect();
        let body = body
            .await
            .map_err(|error| anyhow!("the answer broke off: {error}"))?;
        connection.abort();
        let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        if status.is_success() || is_told_by_status(path, status) {
            return Ok(Reply { text, next });
        }
        let problem: Value = serde_json::from_str(&text).unwrap_or_default();
        let detail = problem["detail"]
            .as_str()
            .or_else(|| problem["error"].as_str());
        let detail = detail.unwrap_or_else(|| text.trim());
        bail!("{status}: {detail}")
    }
}

/// A 503 of `/readyz` is an answer.
fn is_told_by_status(path: &str, status: StatusCode) -> bool {
    path == "/readyz" && status == StatusCode::SERVICE_UNAVAILABLE
}

/// `</v1/routes?…>; rel="next"`.
fn next_page(link: &str) -> Option<String> {
    let (path, rest) = link.strip_prefix('<')?.split_once('>')?;
    rest.contains("rel=\"next\"").then(|| path.to_owned())
}

/// The bootstrap file of the data plane on this machine, when it is needed and there is one.
fn local(config: &Path, asking: &Asking) -> anyhow::Result<Option<Bootstrap>> {
    let is_needed = asking.admin.is_none() || asking.token_file.is_none();
    if !is_needed || !config.exists() {
        return Ok(None);
    }
    match Bootstrap::load(Some(config), |name| std::env::var(name).ok()) {
        Ok(bootstrap) => Ok(Some(bootstrap)),
        // Who says where to ask may have no business with the file here.
        Err(_) if asking.admin.is_some() => Ok(None),
        Err(error) => Err(error).context("use --admin to ask without the bootstrap file"),
    }
}

/// Whom an https admin API is trusted by.
fn trust(asking: &Asking, authority: &str, local: Option<PathBuf>) -> anyhow::Result<ClientTls> {
    dataplane_tls::install_crypto_provider();
    let file = asking.ca.clone().or(local);
    let pem = file.as_deref().map(read).transpose()?;
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host);
    let first_name = || {
        let certificate = Certificate::new(pem.clone()?, SecretText::new(String::new())).ok()?;
        let details = CertificateDetails::of(&certificate).ok()?;
        let mut names = details.names.into_iter();
        names.find(|name| !name.starts_with('*'))
    };
    let is_address = host
        .trim_matches(['[', ']'])
        .parse::<std::net::IpAddr>()
        .is_ok();
    let name = match &asking.server_name {
        Some(name) => name.clone(),
        // Certificates are looked at by name; an address stands for the name in its certificate.
        None if is_address => first_name().with_context(|| {
            format!("{host} is an address, say with --server-name which name its certificate has")
        })?,
        None => host.to_owned(),
    };
    let policy = BackendTls {
        hostname: Hostname::new(&name).with_context(|| format!("{name} is no name"))?,
        use_system_ca_certificates: pem.is_none(),
        ca_pems: pem.into_iter().collect(),
        subject_alt_names: Vec::new(),
        min_version: TlsVersion::V1_2,
        max_version: TlsVersion::V1_3,
    };
    let trust = BackendTrust::compile(&Arc::new(policy))?;
    Ok(ClientTls::compile(&trust, None)?)
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_next_page_is_followed() {
        for (link, next) in [
            (
                "</v1/routes?limit=1&continue=a>; rel=\"next\"",
                Some("/v1/routes?limit=1&continue=a"),
            ),
            ("</v1/routes>; rel=\"prev\"", None),
            ("/v1/routes", None),
            ("", None),
        ] {
            assert_eq!(next_page(link).as_deref(), next, "{link}");
        }
    }
}
