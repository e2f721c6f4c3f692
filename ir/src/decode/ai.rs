//! AI services and token policies: every spelling that the parts of the system use.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};

use super::report::{At, Quoted, Report, optional};
use super::{tls, value};
use crate::ai::{
    AiAuth, AiAuthKind, AiFormat, AiPrice, AiProvider, AiProviderTls, AiService, AiTarget, OnLimit,
    Redaction, RedactionAction, RedactionKind, TokenPolicy, TokenScope,
};
use crate::{Pattern, wire};

/// The largest factor by which a budget may be exceeded.
const BURST_MAX: f64 = 1_000_000.0;

/// The most further providers of a service, and the most things it takes out of texts.
const PROVIDERS_MAX: usize = 16;
const REDACTIONS_MAX: usize = 64;

pub(super) fn service(
    item: wire::AiServiceConfig,
    at: &At<'_>,
    report: &mut Report,
) -> Option<AiService> {
    let provider = provider(item.provider, at, report);
    let format = format(item.format, at, report);
    let auth = optional(item.auth, at, "auth", report, auth);
    let timeout = value::duration(item.timeout, at, "timeout", report);
    let endpoint = value::optional_url(item.endpoint, &["https", "http"], at, "endpoint", report);
    let backoff = value::duration(item.retry_backoff, at, "retry_backoff", report);
    let headers = headers(item.headers, at, report);
    let providers = list(
        item.providers,
        PROVIDERS_MAX,
        at,
        "providers",
        report,
        target,
    );
    let redaction = list(
        item.redaction,
        REDACTIONS_MAX,
        at,
        "redaction",
        report,
        redaction,
    );
    let prices = prices(item.prices, at, report);
    Some(AiService {
        provider: provider?,
        format,
        model: item.model,
        auth: auth?.flatten(),
        timeout: timeout?,
        endpoint: value::non_empty(endpoint?),
        retries_max: item.retry_max_retries,
        retry_backoff: backoff?,
        aliases: item.aliases,
        headers: headers?,
        weight: NonZeroU32::new(item.weight).unwrap_or(NonZeroU32::MIN),
        providers: providers?,
        redaction: redaction?,
        default_max_tokens: NonZeroU32::new(item.default_max_tokens),
        pass_client_credentials: item.pass_client_credentials,
        prices: prices?,
    })
}

fn list<W, T>(
    items: Vec<W>,
    most: usize,
    at: &At<'_>,
    name: &'static str,
    report: &mut Report,
    decode: fn(W, &At<'_>, &mut Report) -> Option<T>,
) -> Option<Vec<T>> {
    if items.len() > most {
        let count = items.len();
        return report.refuse(
            &at.field(name),
            format_args!("{count} are more than {most}"),
        );
    }
    let decoded: Vec<Option<T>> = items
        .into_iter()
        .enumerate()
        .map(|(index, item)| decode(item, &at.index(name, index), report))
        .collect();
    decoded.into_iter().collect()
}

fn target(item: wire::AiProviderConfig, at: &At<'_>, report: &mut Report) -> Option<AiTarget> {
    let provider = provider(item.provider, at, report);
    let format = format(item.format, at, report);
    let auth = optional(item.auth, at, "auth", report, auth);
    let endpoint = value::optional_url(item.endpoint, &["https", "http"], at, "endpoint", report);
    let headers = headers(item.headers, at, report);
    let tls = optional(item.tls, at, "tls", report, provider_tls);
    Some(AiTarget {
        provider: provider?,
        format,
        model: item.model,
        auth: auth?.flatten(),
        endpoint: value::non_empty(endpoint?),
        headers: headers?,
        weight: item.weight,
        cluster: value::non_empty(item.cluster),
        tls: tls?,
    })
}

fn provider_tls(
    item: wire::AiProviderTls,
    at: &At<'_>,
    report: &mut Report,
) -> Option<AiProviderTls> {
    let judged = wire::BackendTlsValidation {
        hostname: item.hostname,
        use_system_ca_certificates: item.ca_pems.is_empty(),
        ca_pems: item.ca_pems,
        ..wire::BackendTlsValidation::default()
    };
    let judged = tls::backend_tls(judged, at, report)?;
    Some(AiProviderTls {
        hostname: judged.hostname,
        ca_pems: judged.ca_pems,
    })
}

fn headers(
    fields: BTreeMap<String, String>,
    at: &At<'_>,
    report: &mut Report,
) -> Option<BTreeMap<String, String>> {
    let decoded: Vec<_> = fields
        .into_iter()
        .map(|(name, text)| {
            let key = name.clone();
            let at = at.key("headers", &key);
            let name = value::header_name(name, &at, report);
            let text = value::header_value(text, &at, report);
            Some((name?, text?))
        })
        .collect();
    decoded.into_iter().collect()
}

fn prices(
    items: BTreeMap<String, wire::AiPriceConfig>,
    at: &At<'_>,
    report: &mut Report,
) -> Option<BTreeMap<String, AiPrice>> {
    let is_price = |price: f64| price.is_finite() && price >= 0.0;
    let decoded: Vec<_> = items
        .into_iter()
        .map(|(model, item)| {
            let cached = item.cached_input.unwrap_or(0.0);
            if ![item.input, item.output, cached].into_iter().all(is_price) {
                return report.refuse(&at.key("prices", &model), "is not a price, write 0 or more");
            }
            let price = AiPrice {
                input: item.input,
                cached_input: item.cached_input,
                output: item.output,
            };
            Some((model, price))
        })
        .collect();
    decoded.into_iter().collect()
}

fn redaction(item: wire::AiRedactionConfig, at: &At<'_>, report: &mut Report) -> Option<Redaction> {
    let kind = match plain(&item.kind).as_str() {
        "email" => RedactionKind::Email,
        "phone" => RedactionKind::Phone,
        "creditcard" => RedactionKind::CreditCard,
        "iban" => RedactionKind::Iban,
        "usssn" => RedactionKind::UsSsn,
        "usitin" => RedactionKind::UsItin,
        "uspassport" => RedactionKind::UsPassport,
        "uknhs" => RedactionKind::UkNhs,
        "ip" => RedactionKind::Ip,
        "mac" => RedactionKind::Mac,
        "cryptoaddress" => RedactionKind::CryptoAddress,
        "urlcredentials" => RedactionKind::UrlCredentials,
        "apikey" => RedactionKind::ApiKey,
        "jwt" => RedactionKind::Jwt,
        "regex" => match Pattern::new(&item.pattern) {
            Ok(_) if !item.pattern.is_empty() => RedactionKind::Regex(item.pattern.into()),
            Ok(_) => return report.refuse(&at.field("pattern"), "is empty, write an expression"),
            Err(error) => return report.refuse(&at.field("pattern"), error),
        },
        // Letting pass what was to be hidden would be worse than refusing.
        _ => {
            let shown = Quoted(&item.kind);
            return report.refuse(
                &at.field("kind"),
                format_args!("{shown} is not known, nothing would be taken out"),
            );
        }
    };
    let action = match plain(&item.action).as_str() {
        "" | "mask" => RedactionAction::Mask,
        "tokenize" | "tokenise" => RedactionAction::Tokenize,
        "block" => RedactionAction::Block,
        "detect" => RedactionAction::Detect,
        _ => {
            let shown = Quoted(&item.action);
            report.notice(
                &at.field("action"),
                format_args!("{shown} is not known, it is masked"),
            );
            RedactionAction::Mask
        }
    };
    Some(Redaction { kind, action })
}

fn provider(name: String, at: &At<'_>, report: &mut Report) -> Option<AiProvider> {
    match plain(&name).as_str() {
        "openai" => Some(AiProvider::OpenAi),
        "anthropic" => Some(AiProvider::Anthropic),
        "ollama" => Some(AiProvider::Ollama),
        "" => report.refuse(
            &at.field("provider"),
            "is empty, write openai, anthropic or ollama",
        ),
        _ => {
            let shown = Quoted(&name);
            report.notice(
                &at.field("provider"),
                format_args!("{shown} is not known, requests to it fail"),
            );
            Some(AiProvider::Other(name))
        }
    }
}

fn format(name: String, at: &At<'_>, report: &mut Report) -> Option<AiFormat> {
    match plain(&name).as_str() {
        "" => None,
        "openai" | "openaichat" => Some(AiFormat::OpenAi),
        "anthropic" | "anthropicmessages" => Some(AiFormat::Anthropic),
        "ollama" | "ollamachat" => Some(AiFormat::Ollama),
        _ => {
            let shown = Quoted(&name);
            report.notice(
                &at.field("format"),
                format_args!("{shown} is not known, requests to it fail"),
            );
            Some(AiFormat::Other(name))
        }
    }
}

/// Absent when no secret is named: there is nothing to show then.
fn auth(
    item: wire::AiServiceAuthConfig,
    at: &At<'_>,
    report: &mut Report,
) -> Option<Option<AiAuth>> {
    if item.secret_ref.is_empty() {
        if item != wire::AiServiceAuthConfig::default() {
            report.notice(
                &at.field("secret_ref"),
                "is empty, requests go out without credentials",
            );
        }
        return Some(None);
    }
    let kind = match plain(&item.r#type).as_str() {
        "" | "bearer" => AiAuthKind::Bearer,
        "apikey" => AiAuthKind::ApiKey,
        "basic" => AiAuthKind::Basic,
        "header" if !item.header.is_empty() => AiAuthKind::Header,
        _ => {
            let shown = Quoted(&item.r#type);
            report.notice(
                &at.field("type"),
                format_args!("{shown} is not known, bearer is used"),
            );
            AiAuthKind::Bearer
        }
    };
    let secret_ref = value::reference(&item.secret_ref, &at.field("secret_ref"), report);
    let header = match value::non_empty(item.header) {
        Some(name) => value::header_name(name, &at.field("header"), report).map(Some),
        None => Some(None),
    };
    Some(Some(AiAuth {
        kind,
        secret_ref: secret_ref?,
        secret_key: value::non_empty(item.key),
        header: header?,
    }))
}

pub(super) fn token_policy(
    item: wire::TokenPolicyConfig,
    at: &At<'_>,
    report: &mut Report,
) -> Option<TokenPolicy> {
    let header = match value::non_empty(item.header_name) {
        Some(name) => value::header_name(name, &at.field("header_name"), report).map(Some),
        None => Some(None),
    };
    let (header, claim) = (header?, value::non_empty(item.claim_name));
    let scope = match plain(&item.scope).as_str() {
        "" | "apikey" | "perapikey" => TokenScope::ApiKey,
        "global" => TokenScope::Global,
        "route" | "perroute" | "path" => TokenScope::Route,
        "model" | "permodel" => TokenScope::Model,
        "user" | "peruser" => TokenScope::User,
        "sourceip" => TokenScope::SourceIp,
        "header" if header.is_some() => TokenScope::Header(header.unwrap_or_default()),
        "jwtclaim" if claim.is_some() => TokenScope::JwtClaim(claim.unwrap_or_default()),
        _ => {
            let shown = Quoted(&item.scope);
            report.notice(
                &at.field("scope"),
                format_args!("{shown} is not known, the route is used"),
            );
            TokenScope::Route
        }
    };
    let on_limit = match plain(&item.on_limit).as_str() {
        "" | "reject" => OnLimit::Reject,
        "queue" => OnLimit::Queue,
        "degrade" => OnLimit::Degrade,
        "warn" => OnLimit::Warn,
        _ => {
            let shown = Quoted(&item.on_limit);
            report.notice(
                &at.field("on_limit"),
                format_args!("{shown} is not known, requests are refused"),
            );
            OnLimit::Reject
        }
    };
    if !(0.0..=BURST_MAX).contains(&item.burst) {
        return report.refuse(
            &at.field("burst"),
            format_args!("{} is not a factor from 0 to {BURST_MAX}", item.burst),
        );
    }
    Some(TokenPolicy {
        tokens_per_minute: NonZeroU64::new(item.tokens_per_minute),
        tokens_per_hour: NonZeroU64::new(item.tokens_per_hour),
        requests_per_minute: NonZeroU64::new(item.requests_per_minute),
        scope,
        burst: if item.burst == 0.0 { 1.0 } else { item.burst },
        on_limit,
        degrade_to: value::non_empty(item.degrade_to),
        is_dry_run: item.dry_run,
    })
}

/// A word in lower case without the separators in which spellings differ.
pub(super) fn plain(word: &str) -> String {
    word.chars()
        .filter(|c| !matches!(c, '-' | '_' | ' '))
        .map(|c| c.to_ascii_lowercase())
        .collect()
}
