//! AI services and token policies by chance.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};

use ir::ai::{
    AiAuth, AiAuthKind, AiFormat, AiPrice, AiProvider, AiProviderTls, AiService, AiTarget, OnLimit,
    Redaction, RedactionAction, RedactionKind, TokenPolicy, TokenScope,
};
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use super::cluster::backend_tls;
use super::{any_text, duration, name, reference};

fn provider() -> impl Strategy<Value = AiProvider> {
    use AiProvider::{Anthropic, Ollama, OpenAi};
    prop_oneof![
        select(vec![OpenAi, Anthropic, Ollama]),
        "x[a-z]{1,3}".prop_map(AiProvider::Other),
    ]
}

fn format() -> impl Strategy<Value = AiFormat> {
    use AiFormat::{Anthropic, Ollama, OpenAi};
    prop_oneof![
        select(vec![OpenAi, Anthropic, Ollama]),
        "x[a-z]{1,3}".prop_map(AiFormat::Other),
    ]
}

fn auth() -> impl Strategy<Value = AiAuth> {
    use AiAuthKind::{ApiKey, Basic, Bearer};
    let kind = select(vec![ApiKey, Basic, Bearer]);
    (
        kind,
        reference(),
        of(name()),
        of("x-[a-z]{1,3}"),
        any::<bool>(),
    )
        .prop_map(|(kind, secret_ref, secret_key, header, own)| AiAuth {
            kind: match &header {
                Some(_) if own => AiAuthKind::Header,
                _ => kind,
            },
            secret_ref,
            secret_key,
            header,
        })
}

fn endpoint() -> impl Strategy<Value = Option<String>> {
    of("https://[a-z]{1,3}\\.example")
}

fn headers() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map("x-[a-z]{1,3}", "[a-z]{0,3}", 0..3)
}

fn target() -> impl Strategy<Value = AiTarget> {
    let place = (
        endpoint(),
        headers(),
        of("[a-z]{1,3}/[a-z]{1,3}:80"),
        of(provider_tls()),
    );
    (
        provider(),
        of(format()),
        any_text(),
        of(auth()),
        any::<u32>(),
        place,
    )
        .prop_map(|(provider, format, model, auth, weight, place)| AiTarget {
            provider,
            format,
            model,
            auth,
            endpoint: place.0,
            headers: place.1,
            weight,
            cluster: place.2,
            tls: place.3,
        })
}

fn provider_tls() -> impl Strategy<Value = AiProviderTls> {
    backend_tls().prop_map(|tls| AiProviderTls {
        hostname: tls.hostname,
        ca_pems: tls.ca_pems,
    })
}

fn redaction() -> impl Strategy<Value = Redaction> {
    use RedactionAction::{Block, Detect, Mask, Tokenize};
    use RedactionKind as Kind;
    let kinds = vec![
        Kind::Email,
        Kind::Phone,
        Kind::CreditCard,
        Kind::Iban,
        Kind::UsSsn,
        Kind::UsItin,
        Kind::UsPassport,
        Kind::UkNhs,
        Kind::Ip,
        Kind::Mac,
        Kind::CryptoAddress,
        Kind::UrlCredentials,
        Kind::ApiKey,
        Kind::Jwt,
    ];
    let kind = prop_oneof![
        4 => select(kinds),
        1 => "EMP-[0-9]{1,3}".prop_map(|pattern| Kind::Regex(pattern.into())),
    ];
    let action = select(vec![Block, Detect, Mask, Tokenize]);
    (kind, action).prop_map(|(kind, action)| Redaction { kind, action })
}

fn price() -> impl Strategy<Value = AiPrice> {
    (0.0..100.0f64, of(0.0..100.0f64), 0.0..100.0f64).prop_map(|(input, cached_input, output)| {
        AiPrice {
            input,
            cached_input,
            output,
        }
    })
}

pub(super) fn service() -> impl Strategy<Value = AiService> {
    let times = (of(duration()), of(duration()), any::<u32>());
    let own = (
        btree_map(name(), name(), 0..3),
        headers(),
        1..=u32::MAX,
        vec(target(), 0..3),
        vec(redaction(), 0..3),
        any::<u32>(),
        any::<bool>(),
        btree_map(name(), price(), 0..3),
    );
    (
        provider(),
        of(format()),
        any_text(),
        of(auth()),
        endpoint(),
        times,
        own,
    )
        .prop_map(
            |(provider, format, model, auth, endpoint, times, own)| AiService {
                provider,
                format,
                model,
                auth,
                timeout: times.0,
                endpoint,
                retries_max: times.2,
                retry_backoff: times.1,
                aliases: own.0,
                headers: own.1,
                weight: NonZeroU32::new(own.2).unwrap(),
                providers: own.3,
                redaction: own.4,
                default_max_tokens: NonZeroU32::new(own.5),
                pass_client_credentials: own.6,
                prices: own.7,
            },
        )
}

pub(super) fn token_policy() -> impl Strategy<Value = TokenPolicy> {
    use OnLimit::{Degrade, Queue, Reject, Warn};
    use TokenScope::{ApiKey, Global, Model, Route, SourceIp, User};
    let scope = prop_oneof![
        select(vec![ApiKey, Global, Model, Route, User, SourceIp]),
        "x-[a-z]{1,3}".prop_map(TokenScope::Header),
        name().prop_map(TokenScope::JwtClaim),
    ];
    let on_limit = select(vec![Reject, Queue, Degrade, Warn]);
    let limits = proptest::array::uniform3(any::<u64>().prop_map(NonZeroU64::new));
    let own = (of(name()), any::<bool>());
    (limits, scope, 0.001..1000.0f64, on_limit, own).prop_map(
        |(limits, scope, burst, on_limit, own)| TokenPolicy {
            tokens_per_minute: limits[0],
            tokens_per_hour: limits[1],
            requests_per_minute: limits[2],
            scope,
            burst,
            on_limit,
            degrade_to: own.0,
            is_dry_run: own.1,
        },
    )
}
