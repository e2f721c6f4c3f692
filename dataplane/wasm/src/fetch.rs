//! Modules from elsewhere: fetched by URL or pulled from an OCI registry, within limits, and checked.
//!
//! [`Fetcher::fetch`] is called before a configuration is compiled, never by a request. What a tenant
//! writes decides where the data plane connects to, so every address is looked at, after names were
//! resolved and on each redirect too ([`address`]). What was fetched is kept for a while, so that
//! plugins share it; whoever names a tag gets what the tag meant the first time.

mod address;
mod archive;
mod get;
mod image;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ir::SecretText;
use sha2::{Digest as _, Sha256};

use self::get::{Getter, Named};

/// What every module begins with.
const MAGIC: &[u8] = b"\0asm";
/// How often a server is asked that does not answer well.
const ATTEMPTS: u32 = 3;
/// The pause before the second attempt; the next one is twice as long.
const BACK_OFF: Duration = Duration::from_millis(250);
/// How many bytes of modules are kept; a larger one is kept alone.
const KEPT_BYTES: usize = 64 * 1024 * 1024;

/// Where a module is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An absolute URL.
    Url(String),
    /// An OCI image.
    Image {
        /// `registry/repository:tag` or `registry/repository@sha256:digest`.
        reference: String,
        /// A Docker configuration (`.dockerconfigjson`) with the registry's credentials.
        credentials: Option<SecretText>,
    },
}

/// What one module may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Size of the module.
    pub bytes_max: u64,
    /// Time for all of it, attempts and pauses included.
    pub time_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes_max: ir::wasm::MODULE_BYTES_MAX,
            time_max: Duration::from_secs(30),
        }
    }
}

/// A module and its SHA-256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The bytes.
    pub module: Bytes,
    /// Their SHA-256.
    pub digest: [u8; 32],
}

/// Why there is no module.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It is no URL, or of a scheme that is not taken.
    #[error("{0} is not an https URL")]
    Url(String),
    /// It leads to where a tenant must not send the data plane.
    #[error(
        "{0} is a private, link-local or loopback address: serve modules from a public one, or set \
         wasm.fetch.allowPrivateAddresses"
    )]
    Address(String),
    /// Nobody answers there.
    #[error("{host} cannot be reached: {cause}")]
    Connect {
        /// Name or address.
        host: String,
        /// What happened.
        cause: String,
    },
    /// Another answer than 200.
    #[error("{host} answers with status {status}{hint}")]
    Status {
        /// Name or address.
        host: String,
        /// The status.
        status: u16,
        /// What to look at.
        hint: &'static str,
    },
    /// It sends from one place to the next.
    #[error("{0} redirects too often")]
    Redirects(String),
    /// It is larger than it may be.
    #[error("the module is larger than {0} bytes, which it may have")]
    TooLarge(u64),
    /// It took too long.
    #[error("the module did not come within {0:?}")]
    Time(Duration),
    /// What came is something else.
    #[error("the module has sha256:{found}, but sha256:{wanted} is wanted")]
    Digest {
        /// Of what came.
        found: String,
        /// What was asked for.
        wanted: String,
    },
    /// What came is no module.
    #[error("what {0} sends is no WebAssembly module")]
    NotAModule(String),
    /// An image without a module in it.
    #[error("the image {0}")]
    Image(String),
    /// The credentials cannot be read.
    #[error("the pull secret {0}")]
    Credentials(String),
    /// Nothing can be fetched here.
    #[error("modules cannot be fetched: {0}")]
    Setup(String),
}

impl FetchError {
    /// One word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Url(_) | Self::Address(_) => "refused",
            Self::Connect { .. } | Self::Setup(_) => "unreachable",
            Self::Status { .. } | Self::Redirects(_) => "status",
            Self::TooLarge(_) => "too_large",
            Self::Time(_) => "timeout",
            Self::Digest { .. } => "digest",
            Self::NotAModule(_) | Self::Image(_) => "invalid",
            Self::Credentials(_) => "credentials",
        }
    }

    /// True when another attempt may end better.
    fn is_passing(&self) -> bool {
        match self {
            Self::Connect { .. } => true,
            Self::Status { status, .. } => *status == 429 || *status >= 500,
            _ => false,
        }
    }
}

/// Fetches modules, and keeps some; the default one knows public addresses and the system's
/// authorities alone.
#[derive(Debug, Default)]
pub struct Fetcher {
    getter: Getter,
    kept: Mutex<Kept>,
}

impl Fetcher {
    /// `allows_inside` lets tenants name private addresses; `authorities` are PEM certificates that
    /// servers of modules are trusted by, beside the system's.
    pub fn new(allows_inside: bool, authorities: Vec<u8>) -> Self {
        Self {
            getter: Getter::new(allows_inside, authorities),
            kept: Mutex::default(),
        }
    }

    /// The module of that source; with a `digest` no other is taken.
    pub async fn fetch(
        &self,
        source: &Source,
        digest: Option<[u8; 32]>,
        limits: &Limits,
    ) -> Result<Fetched, FetchError> {
        let key = key_of(source);
        if let Some(found) = self.kept().find(&key, digest) {
            return within(found, limits);
        }
        let fetching = self.attempts(source, limits);
        let module = tokio::time::timeout(limits.time_max, fetching)
            .await
            .map_err(|_| FetchError::Time(limits.time_max))??;
        if !module.starts_with(MAGIC) {
            return Err(FetchError::NotAModule(place_of(source)));
        }
        let found: [u8; 32] = Sha256::digest(&module).into();
        if let Some(wanted) = digest.filter(|wanted| *wanted != found) {
            return Err(FetchError::Digest {
                found: hex(&found),
                wanted: hex(&wanted),
            });
        }
        let fetched = Fetched {
            module,
            digest: found,
        };
        self.kept().put(key, &fetched);
        Ok(fetched)
    }

    /// What is kept of that source turned out to be of no use.
    pub fn forget(&self, source: &Source) {
        let key = key_of(source);
        self.kept().0.retain(|(known, _)| *known != key);
    }

    async fn attempts(&self, source: &Source, limits: &Limits) -> Result<Bytes, FetchError> {
        let mut pause = BACK_OFF;
        for _ in 1..ATTEMPTS {
            match self.once(source, limits).await {
                Err(error) if error.is_passing() => {
                    tracing::debug!(%error, "fetching a module is tried again");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                outcome => return outcome,
            }
        }
        self.once(source, limits).await
    }

    async fn once(&self, source: &Source, limits: &Limits) -> Result<Bytes, FetchError> {
        match source {
            Source::Url(url) => {
                let url = get::parse(url)?;
                let named = Named::by(url.host_str().unwrap_or_default());
                let answer = self.getter.get(url, named, &[], limits.bytes_max).await?;
                answer.success()
            }
            Source::Image {
                reference,
                credentials,
            } => image::pull(&self.getter, reference, credentials.as_ref(), limits).await,
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key of what is kept; whoever has other credentials does not get what these opened.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    place: Arc<str>,
    credentials: Option<[u8; 32]>,
}

fn key_of(source: &Source) -> Key {
    match source {
        Source::Url(url) => Key {
            place: url.as_str().into(),
            credentials: None,
        },
        Source::Image {
            reference,
            credentials,
        } => Key {
            place: format!("oci://{reference}").into(),
            credentials: credentials
                .as_ref()
                .map(|text| Sha256::digest(text.expose()).into()),
        },
    }
}

/// For messages: a URL without what may be a password in it.
fn place_of(source: &Source) -> String {
    match source {
        Source::Url(url) => get::parse(url).map_or_else(
            |_| "the server".to_owned(),
            |url| url.host_str().unwrap_or_default().to_owned(),
        ),
        Source::Image { reference, .. } => reference.clone(),
    }
}

fn within(found: Fetched, limits: &Limits) -> Result<Fetched, FetchError> {
    match found.module.len() as u64 > limits.bytes_max {
        true => Err(FetchError::TooLarge(limits.bytes_max)),
        false => Ok(found),
    }
}

/// Modules that were fetched, the newest last.
#[derive(Debug, Default)]
struct Kept(VecDeque<(Key, Fetched)>);

impl Kept {
    fn find(&self, key: &Key, digest: Option<[u8; 32]>) -> Option<Fetched> {
        let mut all = self.0.iter();
        let found = all.find(|(known, fetched)| match digest {
            // The same bytes from another place that is open to all.
            Some(digest) => {
                fetched.digest == digest && (known == key || known.credentials.is_none())
            }
            None => known == key,
        });
        found.map(|(_, fetched)| fetched.clone())
    }

    fn put(&mut self, key: Key, fetched: &Fetched) {
        self.0.retain(|(known, _)| *known != key);
        self.0.push_back((key, fetched.clone()));
        let bytes = |all: &VecDeque<(Key, Fetched)>| {
            let lengths = all.iter().map(|(_, fetched)| fetched.module.len());
            lengths.sum::<usize>()
        };
        while self.0.len() > 1 && bytes(&self.0) > KEPT_BYTES {
            self.0.pop_front();
        }
    }
}

fn hex(digest: &[u8]) -> String {
    let mut text = String::with_capacity(2 * digest.len());
    for byte in digest {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
