//! A module from an OCI registry: the manifest, the credentials it takes, and the layer it is in.
//!
//! Written on [`Getter`] and not on a registry client, because what a registry answers (a redirect, a
//! place for tokens) must be looked at like what a tenant wrote. Every layout that is in use is taken:
//! Wasm OCI artifacts in four spellings, and images with one layer that holds `plugin.wasm`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, WWW_AUTHENTICATE};
use ir::SecretText;
use oci_client::Reference;
use reqwest::Url;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::get::{Answer, Getter, Named};
use super::{FetchError, Limits, archive, hex};

/// The largest manifest, and the largest answer with a token.
const MANIFEST_BYTES_MAX: u64 = 4 * 1024 * 1024;
const TOKEN_BYTES_MAX: u64 = 256 * 1024;
/// What manifests come as.
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";
/// Layers that are a module.
const MODULES: [&str; 4] = [
    "application/vnd.module.wasm.content.layer.v1+wasm",
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/wasm",
    "application/vnd.w3c.wasm.component.v1+wasm",
];
/// Layers that are files.
const ARCHIVES: [&str; 2] = [
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
];

/// The module of an image.
pub(super) async fn pull(
    getter: &Getter,
    reference: &str,
    credentials: Option<&SecretText>,
    limits: &Limits,
) -> Result<Bytes, FetchError> {
    let image: Reference = reference
        .parse()
        .map_err(|error| FetchError::Image(format!("{reference:?} has no proper name: {error}")))?;
    let mut registry = Registry::new(getter, &image, credentials)?;
    let tag = image.digest().or_else(|| image.tag()).unwrap_or("latest");
    // No tag has a colon in it.
    if tag.contains(':') && !tag.starts_with("sha256:") {
        let message = "is pinned by a digest that is not SHA-256, and so cannot be checked";
        return Err(FetchError::Image(message.to_owned()));
    }
    let mut manifest = registry.manifest(tag).await?;
    if let Some(entries) = manifest.get("manifests").and_then(Value::as_array) {
        let chosen = of_index(entries)?;
        manifest = registry.manifest(&chosen).await?;
    }
    let (layer, is_archive) = layer(&manifest)?;
    let digest = layer
        .get("digest")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let blob = registry.blob(digest, limits.bytes_max).await?;
    if !is_archive {
        return Ok(blob);
    }
    let bytes_max = limits.bytes_max;
    let unpack = move || archive::module(&blob, bytes_max);
    let unpacked = tokio::task::spawn_blocking(unpack).await;
    let unpacked = unpacked.unwrap_or_else(|_| Err("could not be unpacked".to_owned()));
    unpacked.map_err(FetchError::Image)
}

/// The one of several images that is meant.
fn of_index(entries: &[Value]) -> Result<String, FetchError> {
    let is_wasm = |entry: &&Value| {
        let platform = entry.get("platform");
        let architecture = platform.and_then(|it| it.get("architecture"));
        architecture.and_then(Value::as_str) == Some("wasm")
    };
    let chosen = match entries {
        [only] => Some(only),
        several => several.iter().find(is_wasm),
    };
    let digest = chosen.and_then(|entry| entry.get("digest"));
    let digest = digest.and_then(Value::as_str).map(str::to_owned);
    digest.ok_or_else(|| {
        let message = "is several images, none of which is for architecture wasm";
        FetchError::Image(message.to_owned())
    })
}

/// The layer with the module, and whether it is an archive.
fn layer(manifest: &Value) -> Result<(&Value, bool), FetchError> {
    let layers = manifest.get("layers").and_then(Value::as_array);
    let layers = layers.map(Vec::as_slice).unwrap_or_default();
    let has_kind = |layer: &&Value, kinds: &[&str]| {
        let kind = layer.get("mediaType").and_then(Value::as_str);
        kind.is_some_and(|kind| kinds.contains(&kind))
    };
    if let Some(layer) = layers.iter().find(|layer| has_kind(layer, &MODULES)) {
        return Ok((layer, false));
    }
    match layers {
        [layer] if has_kind(&layer, &ARCHIVES) => Ok((layer, true)),
        _ => Err(FetchError::Image(format!(
            "has {} layers, none of which is a Wasm module, and not just one with plugin.wasm in it",
            layers.len()
        ))),
    }
}

/// One repository of a registry, and the way in.
struct Registry<'a> {
    getter: &'a Getter,
    base: Url,
    named: Named,
    repository: String,
    login: Option<Login>,
    /// The value of `Authorization`, once the registry has asked for one.
    authorization: Option<SecretText>,
}

impl<'a> Registry<'a> {
    fn new(
        getter: &'a Getter,
        image: &Reference,
        credentials: Option<&SecretText>,
    ) -> Result<Self, FetchError> {
        let host = image.resolve_registry();
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let named = Named::by(name);
        let scheme = match named {
            Named::ThisMachine => "http",
            Named::Elsewhere => "https",
        };
        let repository = image.repository().to_owned();
        let base = Url::parse(&format!("{scheme}://{host}/v2/{repository}/"))
            .map_err(|_| FetchError::Url(host.to_owned()))?;
        let login = match credentials {
            Some(text) => Login::find(text, host)?,
            None => None,
        };
        Ok(Self {
            getter,
            base,
            named,
            repository,
            login,
            authorization: None,
        })
    }

    async fn manifest(&mut self, tag: &str) -> Result<Value, FetchError> {
        let path = format!("manifests/{tag}");
        let body = self.get(&path, MANIFESTS, MANIFEST_BYTES_MAX).await?;
        if tag.starts_with("sha256:") {
            check(&body, tag)?;
        }
        serde_json::from_slice(&body)
            .map_err(|_| FetchError::Image("has a manifest that is no JSON".to_owned()))
    }

    async fn blob(&mut self, digest: &str, bytes_max: u64) -> Result<Bytes, FetchError> {
        if !digest.starts_with("sha256:") {
            let message = "has a layer without a SHA-256 digest";
            return Err(FetchError::Image(message.to_owned()));
        }
        let body = self
            .get(&format!("blobs/{digest}"), "*/*", bytes_max)
            .await?;
        check(&body, digest)?;
        Ok(body)
    }

    /// Gets something, with a token if the registry wants one.
    async fn get(&mut self, path: &str, accept: &str, most: u64) -> Result<Bytes, FetchError> {
        let url = self
            .base
            .join(path)
            .map_err(|_| FetchError::Url(path.to_owned()))?;
        let answer = self.ask(url.clone(), accept, most).await?;
        if answer.status.as_u16() != 401 || self.authorization.is_some() {
            return answer.success();
        }
        let Some(authorization) = self.authorize(&answer).await? else {
            return answer.success();
        };
        self.authorization = Some(authorization);
        self.ask(url, accept, most).await?.success()
    }

    async fn ask(&self, url: Url, accept: &str, most: u64) -> Result<Answer, FetchError> {
        let mut fields = vec![(ACCEPT, accept)];
        if let Some(value) = &self.authorization {
            fields.push((AUTHORIZATION, value.expose()));
        }
        self.getter.get(url, self.named, &fields, most).await
    }

    /// What the registry asks for, RFC 9110 section 11.6.1; nothing when it cannot be had.
    async fn authorize(&self, answer: &Answer) -> Result<Option<SecretText>, FetchError> {
        let asked = answer.fields.get(WWW_AUTHENTICATE);
        let asked = asked.and_then(|it| it.to_str().ok()).unwrap_or_default();
        let (scheme, rest) = asked.split_once(' ').unwrap_or((asked, ""));
        let basic = self.login.as_ref().map(Login::basic);
        if scheme.eq_ignore_ascii_case("basic") {
            return Ok(basic);
        }
        let Some(realm) =
            parameter(rest, "realm").filter(|_| scheme.eq_ignore_ascii_case("bearer"))
        else {
            return Ok(None);
        };
        let mut url = Url::parse(&realm).map_err(|_| FetchError::Url(realm))?;
        let scope = parameter(rest, "scope");
        let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.repository));
        url.query_pairs_mut().append_pair("scope", &scope);
        if let Some(service) = parameter(rest, "service") {
            url.query_pairs_mut().append_pair("service", &service);
        }
        let mut fields = Vec::new();
        if let Some(basic) = &basic {
            fields.push((AUTHORIZATION, basic.expose()));
        }
        let asked = self.getter.get(url, self.named, &fields, TOKEN_BYTES_MAX);
        let answer = asked.await?;
        let body: Value = serde_json::from_slice(&answer.success()?).unwrap_or_default();
        let token = ["token", "access_token"]
            .iter()
            .find_map(|name| body.get(name).and_then(Value::as_str));
        Ok(token.map(|token| SecretText::new(format!("Bearer {token}"))))
    }
}

/// A user's name and password.
struct Login(SecretText);

impl Login {
    /// The entry of a Docker configuration for that registry; none is no fault, it may be open.
    fn find(text: &SecretText, registry: &str) -> Result<Option<Self>, FetchError> {
        let wrong = |what: &str| FetchError::Credentials(what.to_owned());
        let config: Value = serde_json::from_str(text.expose())
            .map_err(|_| wrong("is no Docker configuration: it is not JSON"))?;
        let entries = config.get("auths").and_then(Value::as_object);
        let entries = entries.ok_or_else(|| wrong("has no object auths in it"))?;
        let entry = entries.iter().find(|(name, _)| {
            let host = name
                .split_once("://")
                .map_or(name.as_str(), |(_, rest)| rest);
            let host = host.split('/').next().unwrap_or_default();
            host == registry || (host == "docker.io" && registry == "index.docker.io")
        });
        let Some((_, entry)) = entry else {
            return Ok(None);
        };
        let field = |name: &str| entry.get(name).and_then(Value::as_str);
        if let (Some(user), Some(password)) = (field("username"), field("password")) {
            return Ok(Some(Self(SecretText::new(format!("{user}:{password}")))));
        }
        let coded = field("auth").and_then(|it| STANDARD.decode(it.trim()).ok());
        let plain = coded.and_then(|it| String::from_utf8(it).ok());
        let plain = plain.filter(|it| it.contains(':'));
        match plain {
            Some(plain) => Ok(Some(Self(SecretText::new(plain)))),
            None => Err(wrong(
                "has neither username and password nor auth for the registry",
            )),
        }
    }

    fn basic(&self) -> SecretText {
        SecretText::new(format!("Basic {}", STANDARD.encode(self.0.expose())))
    }
}

/// A parameter of a challenge.
fn parameter(challenge: &str, name: &str) -> Option<String> {
    let mut rest = challenge;
    while let Some((key, behind)) = rest.split_once('=') {
        let key = key.trim_start_matches([',', ' ']);
        let (value, next) = match behind.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => behind.split_once(',').unwrap_or((behind, "")),
        };
        if key.eq_ignore_ascii_case(name) {
            return Some(value.to_owned());
        }
        rest = next;
    }
    None
}

/// Whether the bytes are what the registry calls them.
fn check(bytes: &[u8], wanted: &str) -> Result<(), FetchError> {
    let found = hex(&Sha256::digest(bytes));
    match wanted.strip_prefix("sha256:") {
        Some(wanted) if wanted.eq_ignore_ascii_case(&found) => Ok(()),
        _ => Err(FetchError::Digest {
            found,
            wanted: wanted.trim_start_matches("sha256:").to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_challenges_are_read() {
        let text = r#"realm="https://auth.example.com/token",service="registry, one", scope=pull"#;
        assert_eq!(
            parameter(text, "realm").unwrap(),
            "https://auth.example.com/token"
        );
        assert_eq!(parameter(text, "service").unwrap(), "registry, one");
        assert_eq!(parameter(text, "scope").unwrap(), "pull");
        assert_eq!(parameter(text, "none"), None);
        assert_eq!(parameter("realm=\"open", "realm"), None);
    }

    #[test]
    fn logins_are_found_by_registry() {
        let config = r#"{"auths": {
            "https://ghcr.io/v2/": {"username": "ann", "password": "hush"},
            "docker.io": {"auth": "Ym9iOmh1c2g="},
            "broken.example": {"auth": "%"}
        }}"#;
        let config = SecretText::new(config.to_owned());
        let found = |registry| Login::find(&config, registry).map(|it| it.map(|it| it.0));
        assert_eq!(found("ghcr.io").unwrap().unwrap().expose(), "ann:hush");
        assert_eq!(
            found("index.docker.io").unwrap().unwrap().expose(),
            "bob:hush"
        );
        assert!(found("quay.io").unwrap().is_none());
        assert!(matches!(
            found("broken.example"),
            Err(FetchError::Credentials(_))
        ));
        let bad = SecretText::new("[]".to_owned());
        assert!(Login::find(&bad, "ghcr.io").is_err());
    }
}
