//! Filters, every variant.

use ir::Filter;
use ir::filter::{
    Cors, DirectResponse, ExternalAuth, ExternalAuthProtocol, HeaderEdit, Mirror, PathEdit,
    Redirect, Rewrite, Scheme,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use super::route::target;
use super::{any_text, exact_hostname, header_value, name, path};

pub(super) fn filters() -> impl Strategy<Value = Vec<Filter>> {
    vec(filter(), 0..3)
}

pub(super) fn filter() -> impl Strategy<Value = Filter> {
    let unsupported = (name(), any_text());
    prop_oneof![
        header_edit().prop_map(Filter::RequestHeaders),
        header_edit().prop_map(Filter::ResponseHeaders),
        redirect().prop_map(Filter::Redirect),
        rewrite().prop_map(Filter::Rewrite),
        mirror().prop_map(Filter::Mirror),
        cors().prop_map(Filter::Cors),
        external_auth().prop_map(Filter::ExternalAuth),
        (200..600u16, any_text(), header_value()).prop_map(|(status, body, content_type)| {
            Filter::DirectResponse(DirectResponse {
                status,
                body: body.into(),
                content_type,
            })
        }),
        unsupported.prop_map(|(name, reason)| Filter::Unsupported { name, reason }),
    ]
}

pub(super) fn header_edit() -> impl Strategy<Value = HeaderEdit> {
    let pairs = || vec(("x-[a-z]{1,3}", header_value()), 0..3);
    (pairs(), pairs(), vec("x-[a-z]{1,3}", 0..3)).prop_map(|(set, add, remove)| HeaderEdit {
        set,
        add,
        remove,
    })
}

pub(super) fn path_edit() -> impl Strategy<Value = PathEdit> {
    prop_oneof![
        path().prop_map(PathEdit::Full),
        path().prop_map(PathEdit::Prefix)
    ]
}

pub(super) fn redirect() -> impl Strategy<Value = Redirect> {
    let scheme = of(select(vec![Scheme::Http, Scheme::Https]));
    let hostname = of(exact_hostname().prop_map(|name| name.as_str().to_owned()));
    let status = select(vec![301, 302, 303, 307, 308]);
    (scheme, hostname, of(path_edit()), of(1..=u16::MAX), status).prop_map(
        |(scheme, hostname, path, port, status)| Redirect {
            scheme,
            hostname,
            path,
            port,
            status,
        },
    )
}

pub(super) fn rewrite() -> impl Strategy<Value = Rewrite> {
    let hostname = of(exact_hostname().prop_map(|name| name.as_str().to_owned()));
    (hostname, path_edit(), any::<bool>()).prop_map(|(hostname, path, has_path)| Rewrite {
        path: (has_path || hostname.is_none()).then_some(path),
        hostname,
    })
}

pub(super) fn mirror() -> impl Strategy<Value = Mirror> {
    (target(), 1..=u32::MAX, any::<u32>()).prop_map(|(backend, denominator, part)| Mirror {
        backend,
        fraction: (part % denominator, denominator),
    })
}

pub(super) fn words() -> impl Strategy<Value = Vec<String>> {
    vec("[A-Za-z-]{1,4}|[*]", 0..3)
}

pub(super) fn cors() -> impl Strategy<Value = Cors> {
    let origins = vec("https://[a-z]{1,3}\\.example(:[0-9]{2})?|[*]", 0..3);
    let max_age = 0..=i32::MAX.unsigned_abs();
    (origins, words(), words(), words(), any::<bool>(), max_age).prop_map(
        |(origins, methods, headers, exposed, allow_credentials, max_age_seconds)| Cors {
            allow_origins: origins,
            allow_methods: methods,
            allow_headers: headers,
            expose_headers: exposed,
            allow_credentials,
            max_age_seconds,
        },
    )
}

pub(super) fn external_auth() -> impl Strategy<Value = ExternalAuth> {
    let names = || vec("x-[a-z]{1,3}", 0..3);
    let http = (prop_oneof![Just(String::new()), path()], names(), names()).prop_map(
        |(path_prefix, allowed_headers, allowed_response_headers)| ExternalAuthProtocol::Http {
            path_prefix,
            allowed_headers,
            allowed_response_headers,
        },
    );
    let grpc = names().prop_map(|allowed_headers| ExternalAuthProtocol::Grpc { allowed_headers });
    (target(), prop_oneof![http, grpc], any::<u32>()).prop_map(
        |(backend, protocol, forward_body_bytes_max)| ExternalAuth {
            backend,
            protocol,
            forward_body_bytes_max,
        },
    )
}
