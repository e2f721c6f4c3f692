//! One GET, with redirects that are looked at and a body that is bounded.
//!
//! The client is made with the first request, because most data planes never fetch anything.

use std::error::Error as _;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, LOCATION};
use http::{HeaderMap, HeaderName, StatusCode};
use reqwest::{Certificate, Client, Url, redirect};

use super::FetchError;
use super::address::{LeadsInside, Resolver, is_inside, is_this_machine};

/// How often one place may send to another.
const REDIRECTS_MAX: usize = 5;
/// How long a connection may take to come up.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// Header fields of a request.
pub(super) type Fields<'a> = &'a [(HeaderName, &'a str)];

/// What the tenant wrote: only who names this machine is sent there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    ThisMachine,
    Elsewhere,
}

impl Named {
    /// By the host of what was written.
    pub(super) fn by(host: &str) -> Self {
        match is_this_machine(host) {
            true => Self::ThisMachine,
            false => Self::Elsewhere,
        }
    }
}

/// Gets things.
#[derive(Debug, Default)]
pub(super) struct Getter {
    allows_inside: bool,
    authorities: Vec<u8>,
    client: OnceLock<Result<Client, String>>,
}

/// What came.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) host: String,
    pub(super) status: StatusCode,
    pub(super) fields: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// The body of a 200.
    pub(super) fn success(self) -> Result<Bytes, FetchError> {
        let hint = match self.status.as_u16() {
            200 => return Ok(self.body),
            401 | 403 => ": check the credentials",
            404 => ": check the name",
            _ => "",
        };
        Err(FetchError::Status {
            host: self.host,
            status: self.status.as_u16(),
            hint,
        })
    }
}

impl Getter {
    pub(super) fn new(allows_inside: bool, authorities: Vec<u8>) -> Self {
        Self {
            allows_inside,
            authorities,
            client: OnceLock::new(),
        }
    }

    /// Gets `url` for somebody who named this machine himself, or did not. Credentials stay with the
    /// place that they were meant for.
    pub(super) async fn get(
        &self,
        url: Url,
        named: Named,
        fields: Fields<'_>,
        bytes_max: u64,
    ) -> Result<Answer, FetchError> {
        let mut next = url.clone();
        for _ in 0..=REDIRECTS_MAX {
            self.check(&next, named)?;
            let is_elsewhere = next.origin() != url.origin();
            let mut request = self.client()?.get(next.clone());
            for (name, value) in fields {
                if !(is_elsewhere && *name == AUTHORIZATION) {
                    request = request.header(name, *value);
                }
            }
            let response = request
                .send()
                .await
                .map_err(|error| failed(&next, &error))?;
            let target = response.headers().get(LOCATION);
            let target = target.filter(|_| response.status().is_redirection());
            let Some(target) = target.and_then(|it| it.to_str().ok()) else {
                return read(response, &next, bytes_max).await;
            };
            next = next
                .join(target)
                .map_err(|_| FetchError::Url(host_of(&next)))?;
        }
        Err(FetchError::Redirects(host_of(&url)))
    }

    /// Whether this place may be asked: https to the public network, and this machine for whoever
    /// named it from the beginning.
    fn check(&self, url: &Url, named: Named) -> Result<(), FetchError> {
        let host = url.host_str().unwrap_or_default();
        let is_here = is_this_machine(host);
        match url.scheme() {
            "https" => {}
            "http" if is_here => {}
            _ => return Err(FetchError::Url(host_of(url))),
        }
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        let is_refused = match literal.parse::<IpAddr>() {
            _ if is_here => named == Named::Elsewhere,
            Ok(address) => is_inside(address),
            Err(_) => false,
        };
        match is_refused && !self.allows_inside {
            true => Err(FetchError::Address(host_of(url))),
            false => Ok(()),
        }
    }

    fn client(&self) -> Result<&Client, FetchError> {
        let client = self.client.get_or_init(|| {
            let resolver = Resolver {
                allows_inside: self.allows_inside,
            };
            let authorities = match self.authorities.is_empty() {
                true => Vec::new(),
                false => Certificate::from_pem_bundle(&self.authorities)
                    .map_err(|error| format!("the authorities cannot be read: {error}"))?,
            };
            Client::builder()
                .dns_resolver(Arc::new(resolver))
                .redirect(redirect::Policy::none())
                .no_proxy()
                .connect_timeout(CONNECT_TIME)
                // Modules are rare: connections need not wait for the next one.
                .pool_max_idle_per_host(0)
                .user_agent("nantian-gateway")
                .tls_certs_merge(authorities)
                .build()
                .map_err(|error| chain(&error))
        });
        client
            .as_ref()
            .map_err(|error| FetchError::Setup(error.clone()))
    }
}

/// A URL that may be asked, as far as its text tells.
pub(super) fn parse(url: &str) -> Result<Url, FetchError> {
    let parsed = Url::parse(url).ok().filter(Url::has_host);
    // Not shown: it may carry a password.
    parsed.ok_or_else(|| FetchError::Url("what is given".to_owned()))
}

async fn read(
    mut response: reqwest::Response,
    url: &Url,
    bytes_max: u64,
) -> Result<Answer, FetchError> {
    let too_large = || FetchError::TooLarge(bytes_max);
    if response.content_length().is_some_and(|it| it > bytes_max) {
        return Err(too_large());
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| failed(url, &error))?
    {
        if (body.len() + chunk.len()) as u64 > bytes_max {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer {
        host: host_of(url),
        status: response.status(),
        fields: response.headers().clone(),
        body: body.freeze(),
    })
}

fn failed(url: &Url, error: &reqwest::Error) -> FetchError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = error.source();
    while let Some(inner) = cause {
        if let Some(inside) = inner.downcast_ref::<LeadsInside>() {
            return FetchError::Address(format!("{} ({})", inside.name, inside.address));
        }
        cause = inner.source();
    }
    FetchError::Connect {
        host: host_of(url),
        cause: error
            .source()
            .map_or_else(|| "it does not answer".to_owned(), chain),
    }
}

/// An error with what caused it; the URL, which may carry a password, is not in there.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

fn host_of(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}
