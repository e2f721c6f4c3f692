//! AI services and token policies: every spelling that the parts of the system use.

use std::num::NonZeroU64;

use super::report::{At, Quoted, Report, optional};
use super::value;
use crate::ai::{
    AiAuth, AiAuthKind, AiFormat, AiProvider, AiService, OnLimit, TokenPolicy, TokenScope,
};
use crate::wire;

/// The largest factor by which a budget may be exceeded.
const BURST_MAX: f64 = 1_000_000.0;

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
    Some(AiService {
        provider: provider?,
        format,
        model: item.model,
        auth: auth?.flatten(),
        timeout: timeout?,
        endpoint: value::non_empty(endpoint?),
        retries_max: item.retry_max_retries,
        retry_backoff: backoff?,
    })
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
    let scope = match plain(&item.scope).as_str() {
        "" | "apikey" | "perapikey" => TokenScope::ApiKey,
        "global" => TokenScope::Global,
        "route" | "perroute" | "path" => TokenScope::Route,
        "model" | "permodel" => TokenScope::Model,
        "user" | "peruser" => TokenScope::User,
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
    })
}

/// A word in lower case without the separators in which spellings differ.
pub(super) fn plain(word: &str) -> String {
    word.chars()
        .filter(|c| !matches!(c, '-' | '_' | ' '))
        .map(|c| c.to_ascii_lowercase())
        .collect()
}
