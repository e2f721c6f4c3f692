//! One AI service of the configuration, compiled: its providers and their order, its models, its keys.
//!
//! Made when a configuration is compiled, read by every call; nothing here changes while it serves. Which
//! cluster's endpoints a provider has is the caller's affair, as is retrying: [`Service::order`] says which
//! provider is asked first and which when that one fails.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use ir::ai::{
    AiAuth, AiAuthKind, AiFormat, AiPrice, AiProvider, AiProviderTls, AiService, AiTarget,
};
use ir::{Secret, SecretText};
use memchr::memmem::Finder;

use crate::call::{Answering, Destination};
use crate::failure::{Failure, FailureReason};
use crate::json::{Object, Text};
use crate::provider::Dialect;
use crate::redact::Redactor;

/// Limit of an answer's tokens where a provider must be told one and nobody has said it.
pub const DEFAULT_MAX_TOKENS: u32 = 4096;
/// Version of Anthropic's API that takes sampling parameters, which clients of other formats send.
const ANTHROPIC_VERSION: &str = "2023-06-01";

/// What is shorter is not looked for in errors.
const SHOWN_BYTES_MIN: usize = 6;
/// What is shorter is not looked for in answers: words such as `ollama` and `not-needed` stand in the
/// place of keys where nobody wants one, and answers may hold them.
const KEY_BYTES_MIN: usize = 16;

/// Why a service cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// Nobody here speaks its dialect.
    #[error("the dialect {0} is not known here, use openai, anthropic or ollama")]
    UnknownDialect(String),
    /// Its base URL is none.
    #[error("the endpoint is not a URL such as https://api.example.com/v1: {0}")]
    BadEndpoint(String),
    /// The secret is not there, or has no such key.
    #[error(
        "the secret {secret} has no value {key}, write the key's name as it stands in the Secret"
    )]
    NoSecret {
        /// `namespace/name`.
        secret: String,
        /// The key looked for.
        key: String,
    },
    /// The value cannot stand in a header field.
    #[error("the value {key} of secret {secret} holds characters that no header field may hold")]
    BadSecret {
        /// `namespace/name`.
        secret: String,
        /// The key looked for.
        key: String,
    },
}

/// A compiled AI service.
#[derive(Debug)]
pub struct Service {
    model: String,
    aliases: BTreeMap<String, String>,
    targets: Vec<Target>,
    weights: u64,
    prices: BTreeMap<String, AiPrice>,
    default_max_tokens: u32,
    pass_client_credentials: bool,
    /// Limit for one exchange.
    pub timeout: Option<Duration>,
    /// How many attempts may follow a failed one.
    pub retries_max: u32,
    /// Least time between attempts; what a provider says in `Retry-After` comes first.
    pub retry_backoff: Option<Duration>,
    /// What is taken out of questions and answers.
    pub redactor: Option<Redactor>,
}

/// One provider of a service.
#[derive(Debug)]
pub struct Target {
    /// Its name, for telemetry (`gen_ai.provider.name`).
    pub provider: String,
    /// What it speaks.
    pub dialect: Dialect,
    /// The model there; empty for the one that was asked for.
    pub model: String,
    /// Key of the cluster that holds its addresses; absent means the service's own.
    pub cluster: Option<String>,
    /// How its certificate is judged, where that is said; of the first provider the cluster says it.
    pub tls: Option<AiProviderTls>,
    weight: u32,
    base: Base,
    headers: Vec<(HeaderName, HeaderValue)>,
    credential: Option<Credential>,
}

/// A base URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Base {
    is_tls: bool,
    authority: String,
    path: String,
    query: Option<String>,
}

/// A header field with a key in it. Its value is marked so that nothing prints it.
struct Credential {
    name: HeaderName,
    value: HeaderValue,
    /// What of it must not come back, the longest first.
    shown: Vec<Shown>,
}

/// A text by which a key is known.
struct Shown {
    bytes: usize,
    finder: Finder<'static>,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: ***", self.name)
    }
}

impl Service {
    /// Compiles a service; `secret` gives Secrets by `namespace/name`.
    pub fn compile<'s>(
        service: &AiService,
        secret: impl Fn(&str) -> Option<&'s Secret>,
    ) -> Result<Self, ServiceError> {
        let first = AiTarget {
            provider: service.provider.clone(),
            format: service.format.clone(),
            model: service.model.clone(),
            auth: service.auth.clone(),
            endpoint: service.endpoint.clone(),
            headers: service.headers.clone(),
            weight: service.weight.get(),
            cluster: None,
            tls: None,
        };
        let mut targets = vec![Target::compile(&first, &secret)?];
        for other in &service.providers {
            targets.push(Target::compile(other, &secret)?);
        }
        Ok(Self {
            model: service.model.clone(),
            aliases: service.aliases.clone(),
            weights: targets.iter().map(|target| u64::from(target.weight)).sum(),
            targets,
            prices: service.prices.clone(),
            default_max_tokens: service
                .default_max_tokens
                .map_or(DEFAULT_MAX_TOKENS, NonZeroU32::get),
            pass_client_credentials: service.pass_client_credentials,
            timeout: service.timeout,
            retries_max: service.retries_max,
            retry_backoff: service.retry_backoff,
            redactor: Redactor::compile(&service.redaction),
        })
    }

    /// Its providers; the first is the service's own.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// The order in which providers are asked: one of those with a weight, drawn by `random`, then all the
    /// others as they stand.
    pub fn order(&self, random: u64) -> impl Iterator<Item = &Target> {
        let mut left = random % self.weights.max(1);
        let drawn = self.targets.iter().position(|target| {
            let weight = u64::from(target.weight);
            let is_it = left < weight;
            left = left.saturating_sub(weight);
            is_it
        });
        let drawn = drawn.unwrap_or(0);
        let others = (0..self.targets.len()).filter(move |at| *at != drawn);
        std::iter::once(drawn)
            .chain(others)
            .filter_map(|at| self.targets.get(at))
    }

    /// The model at the service's first provider for the name that a client used: an alias's meaning, the
    /// service's own model when none was named, and otherwise the name itself.
    pub fn model_for<'m>(&'m self, asked: &'m str) -> &'m str {
        if asked.is_empty() {
            return &self.model;
        }
        self.aliases.get(asked).map_or(asked, String::as_str)
    }

    /// The model that `target` is asked for. Targets beside the first have a model of their own, as names
    /// mean something at one provider only.
    pub fn model_at<'m>(&'m self, target: &'m Target, asked: &'m str) -> &'m str {
        let is_first = self
            .targets
            .first()
            .is_some_and(|first| std::ptr::eq(first, target));
        if is_first || target.model.is_empty() {
            self.model_for(asked)
        } else {
            &target.model
        }
    }

    /// Where a call goes when `target` is asked.
    pub fn destination<'d>(
        &self,
        target: &Target,
        model: &'d str,
        now: u64,
        unique: u64,
    ) -> Destination<'d> {
        Destination {
            dialect: target.dialect,
            model,
            default_max_tokens: self.default_max_tokens,
            is_ollama: target.provider == AiProvider::Ollama.as_str(),
            now,
            unique,
        }
    }

    /// Makes the head of a request to `target` out of the client's: the client's own credentials stay
    /// behind unless the service says otherwise, the gateway's are set.
    pub fn head(&self, target: &Target, answering: &Answering, fields: &mut HeaderMap) {
        let is_converted = answering.is_converted();
        let keeps_own = self.pass_client_credentials && target.credential.is_none();
        let stay_behind: Vec<HeaderName> = fields
            .keys()
            .filter(|name| {
                let name = name.as_str();
                let is_credential = matches!(name, "authorization" | "x-api-key" | "api-key");
                let is_foreign = name.starts_with("openai-") || name.starts_with("anthropic-");
                let is_ours = matches!(
                    name,
                    "cookie" | "content-length" | "accept-encoding" | "expect"
                );
                is_credential && !keeps_own || is_ours || is_foreign && is_converted
            })
            .cloned()
            .collect();
        for name in stay_behind {
            fields.remove(name);
        }
        // Answers are read here, so they must come as they are.
        fields.insert(
            header::ACCEPT_ENCODING,
            HeaderValue::from_static("identity"),
        );
        fields.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        if target.dialect == Dialect::Anthropic && !fields.contains_key("anthropic-version") {
            fields.insert(
                "anthropic-version",
                HeaderValue::from_static(ANTHROPIC_VERSION),
            );
        }
        for (name, value) in &target.headers {
            fields.insert(name, value.clone());
        }
        if let Some(credential) = &target.credential {
            fields.insert(&credential.name, credential.value.clone());
        }
    }

    /// The list of models, from the configuration.
    pub fn models(&self, created: u64) -> String {
        let own = (!self.model.is_empty()).then_some(&self.model);
        let names = own.into_iter().chain(self.aliases.keys());
        let owner = self
            .targets
            .first()
            .map_or("", |target| target.provider.as_str());
        let mut out = String::new();
        let mut list = Object::open(&mut out);
        list.word("object", "list");
        list.list("data", names, |out, name| {
            let mut model = Object::open(out);
            model
                .text("id", &Text::new(name))
                .word("object", "model")
                .number("created", created)
                .text("owned_by", &Text::new(owner));
            model.close();
        });
        list.close();
        out
    }

    /// True for models that the configuration names, which may become labels.
    pub fn names_model(&self, model: &str) -> bool {
        self.model == model
            || self.aliases.values().any(|known| known == model)
            || self.targets.iter().any(|target| target.model == model)
            || self.prices.contains_key(model)
    }

    /// What a model's tokens cost, where the configuration tells.
    pub fn price(&self, model: &str) -> Option<&AiPrice> {
        self.prices.get(model)
    }

    /// Whether a failed attempt is worth another, at this provider or the next.
    pub fn is_retryable(status: StatusCode) -> bool {
        matches!(
            status.as_u16(),
            408 | 409 | 429 | 500 | 502 | 503 | 504 | 529
        )
    }
}

impl Target {
    fn compile<'s>(
        target: &AiTarget,
        secret: &impl Fn(&str) -> Option<&'s Secret>,
    ) -> Result<Self, ServiceError> {
        let dialect = dialect(&target.provider, target.format.as_ref())?;
        let base = match &target.endpoint {
            Some(endpoint) => Base::read(endpoint)?,
            None => Base::read(match dialect {
                Dialect::OpenAi => "https://api.openai.com/v1",
                Dialect::Anthropic => "https://api.anthropic.com",
                Dialect::Ollama => "http://localhost:11434",
            })?,
        };
        let credential = match &target.auth {
            Some(auth) => Some(Credential::compile(auth, dialect, secret)?),
            None => None,
        };
        let field = |(name, value): (&String, &String)| {
            let name = HeaderName::try_from(name.as_str()).ok()?;
            Some((name, HeaderValue::try_from(value.as_str()).ok()?))
        };
        Ok(Self {
            provider: target.provider.as_str().to_owned(),
            dialect,
            model: target.model.clone(),
            cluster: target.cluster.clone(),
            tls: target.tls.clone(),
            weight: target.weight,
            base,
            // What is no header field was refused when the configuration was decoded.
            headers: target.headers.iter().filter_map(field).collect(),
            credential,
        })
    }

    /// True when it is reached over TLS.
    pub fn is_tls(&self) -> bool {
        self.base.is_tls
    }

    /// Host and port as they stand in its base URL.
    pub fn authority(&self) -> &str {
        &self.base.authority
    }

    /// Path and query of a call.
    pub fn path(&self, answering: &Answering) -> String {
        self.base.join(answering.path())
    }

    /// What this provider says in an answer, without the key that it was shown. Nothing is copied where
    /// nothing is found.
    pub fn without_key(&self, said: Bytes) -> Bytes {
        self.cleaned(said, KEY_BYTES_MIN)
    }

    /// The same of an error, where short keys are looked for, too.
    pub fn error_without_key(&self, said: Bytes) -> Bytes {
        self.cleaned(said, SHOWN_BYTES_MIN)
    }

    /// True when the key that this provider was shown stands there.
    pub fn repeats_key(&self, said: &[u8]) -> bool {
        let mut shown = self.shown(SHOWN_BYTES_MIN);
        shown.any(|text| text.finder.find(said).is_some())
    }

    /// Takes out the fields in which this provider repeats the key that it was shown.
    pub fn clean_head(&self, fields: &mut HeaderMap) {
        if self.credential.is_none() {
            return;
        }
        let repeating = fields
            .iter()
            .filter(|(_, value)| self.repeats_key(value.as_bytes()));
        let repeating: Vec<HeaderName> = repeating.map(|(name, _)| name.clone()).collect();
        for name in repeating {
            fields.remove(name);
        }
    }

    fn shown(&self, bytes_min: usize) -> impl Iterator<Item = &Shown> {
        let texts = self.credential.iter().flat_map(|it| &it.shown);
        texts.filter(move |text| text.bytes >= bytes_min)
    }

    fn cleaned(&self, said: Bytes, bytes_min: usize) -> Bytes {
        let mut said = said;
        for text in self.shown(bytes_min) {
            let Some(first) = text.finder.find(&said) else {
                continue;
            };
            let mut clean = BytesMut::with_capacity(said.len());
            let mut at = first;
            while let Some(found) = text.finder.find(&said[at..]) {
                clean.extend_from_slice(&said[..at + found]);
                clean.extend_from_slice(b"***");
                said.advance(at + found + text.bytes);
                at = 0;
            }
            clean.extend_from_slice(&said);
            said = clean.freeze();
        }
        said
    }

    /// What is told when it cannot be reached.
    pub fn unreachable(&self) -> Failure {
        let message = format!("the provider {} cannot be reached", self.provider);
        Failure::new(FailureReason::Unreachable, StatusCode::BAD_GATEWAY, message)
    }

    /// What is told when it takes too long.
    pub fn timed_out(&self) -> Failure {
        let message = format!("the provider {} took too long to answer", self.provider);
        Failure::new(FailureReason::Timeout, StatusCode::GATEWAY_TIMEOUT, message)
    }
}

/// A format decides, else the provider speaks its own.
fn dialect(provider: &AiProvider, format: Option<&AiFormat>) -> Result<Dialect, ServiceError> {
    match (format, provider) {
        (Some(AiFormat::OpenAi), _) | (None, AiProvider::OpenAi) => Ok(Dialect::OpenAi),
        (Some(AiFormat::Anthropic), _) | (None, AiProvider::Anthropic) => Ok(Dialect::Anthropic),
        (Some(AiFormat::Ollama), _) | (None, AiProvider::Ollama) => Ok(Dialect::Ollama),
        (Some(AiFormat::Other(name)), _) | (None, AiProvider::Other(name)) => {
            Err(ServiceError::UnknownDialect(name.clone()))
        }
    }
}

impl Base {
    fn read(url: &str) -> Result<Self, ServiceError> {
        let bad = || ServiceError::BadEndpoint(without_credentials(url));
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let authority = uri.authority().ok_or_else(bad)?;
        if authority.as_str().contains('@') {
            return Err(bad());
        }
        Ok(Self {
            is_tls: uri.scheme_str() != Some("http"),
            authority: authority.as_str().to_owned(),
            path: uri.path().trim_end_matches('/').to_owned(),
            query: uri.query().map(str::to_owned),
        })
    }

    /// The base with a path below it. Bases are written with and without what all paths begin with, so
    /// `/v1` and `/api` are never doubled; a base with another path is taken at its word.
    fn join(&self, path: &str) -> String {
        let below = path
            .strip_prefix("/v1")
            .or_else(|| path.strip_prefix("/api"));
        let below = below.unwrap_or(path);
        let bare = self
            .path
            .strip_suffix("/v1")
            .or_else(|| self.path.strip_suffix("/api"));
        let is_openai = matches!(
            path,
            "/v1/chat/completions" | "/v1/completions" | "/v1/embeddings" | "/v1/responses"
        );
        let mut joined = match bare {
            Some(bare) => format!("{bare}{path}"),
            // `https://host/openai` names the whole base of OpenAI's paths.
            None if is_openai && !self.path.is_empty() => format!("{}{below}", self.path),
            None => format!("{}{path}", self.path),
        };
        if let Some(query) = &self.query {
            joined.push('?');
            joined.push_str(query);
        }
        joined
    }
}

fn without_credentials(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((_, host)) => format!("***@{host}"),
        None => url.to_owned(),
    }
}

impl Credential {
    fn compile<'s>(
        auth: &AiAuth,
        dialect: Dialect,
        secret: &impl Fn(&str) -> Option<&'s Secret>,
    ) -> Result<Self, ServiceError> {
        let key = auth.secret_key.as_deref();
        let name = || key.unwrap_or("(its only one)").to_owned();
        let missing = || ServiceError::NoSecret {
            secret: auth.secret_ref.to_string(),
            key: name(),
        };
        let values = &secret(&auth.secret_ref).ok_or_else(missing)?.values;
        let text = match key {
            Some(key) => values.get(key),
            None if values.len() == 1 => values.values().next(),
            None => None,
        };
        let text: &SecretText = text.ok_or_else(missing)?;
        let plain = text.expose().trim();
        let mut written = zeroize::Zeroizing::new(String::new());
        match auth.kind {
            AiAuthKind::Bearer => written.push_str("Bearer "),
            AiAuthKind::Basic => written.push_str("Basic "),
            AiAuthKind::ApiKey | AiAuthKind::Header => {}
        }
        if auth.kind == AiAuthKind::Basic && plain.contains(':') {
            written.push_str(&base64(plain.as_bytes()));
        } else {
            written.push_str(plain);
        }
        let bad = || ServiceError::BadSecret {
            secret: auth.secret_ref.to_string(),
            key: name(),
        };
        let shown = shown(plain, &written);
        let mut value = HeaderValue::from_str(&written).map_err(|_| bad())?;
        value.set_sensitive(true);
        let own = match (auth.kind, dialect) {
            (AiAuthKind::ApiKey, Dialect::Anthropic) => "x-api-key",
            (AiAuthKind::ApiKey, _) => "api-key",
            _ => "authorization",
        };
        let field = auth.header.as_deref().unwrap_or(own);
        let name = HeaderName::try_from(field).map_err(|_| bad())?;
        Ok(Self { name, value, shown })
    }
}

/// The texts by which a key could be known: as it stands in the Secret, as it is sent, a password without
/// its user, and each of these as JSON spells it.
fn shown(plain: &str, written: &str) -> Vec<Shown> {
    let sent = written.rsplit(' ').next().unwrap_or(written);
    let password = plain
        .split_once(':')
        .map_or(plain, |(_, password)| password);
    let mut texts = Vec::new();
    for text in [plain, sent, password] {
        let quoted = zeroize::Zeroizing::new(text.replace('\\', "\\\\").replace('"', "\\\""));
        // Some writers of JSON escape this one, too.
        texts.push(zeroize::Zeroizing::new(quoted.replace('/', "\\/")));
        texts.push(quoted);
        texts.push(zeroize::Zeroizing::new(text.to_owned()));
    }
    // Shorter ones are no secrets, and would be found in any text.
    texts.retain(|text| text.len() >= SHOWN_BYTES_MIN);
    texts.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    texts.dedup();
    let finders = texts.iter().map(|text| Shown {
        bytes: text.len(),
        finder: Finder::new(text.as_bytes()).into_owned(),
    });
    finders.collect()
}

/// User and password as RFC 7617 wants them.
fn base64(bytes: &[u8]) -> zeroize::Zeroizing<String> {
    const SYMBOLS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = zeroize::Zeroizing::new(String::with_capacity(bytes.len().div_ceil(3) * 4));
    for chunk in bytes.chunks(3) {
        let bits = chunk
            .iter()
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - chunk.len()));
        for symbol in 0..4_usize {
            if symbol > chunk.len() {
                out.push('=');
            } else {
                let at = bits >> (18 - 6 * symbol) & 63;
                out.push(char::from(SYMBOLS[at as usize]));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests;
