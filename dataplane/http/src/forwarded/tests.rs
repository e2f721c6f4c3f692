//! Whom a chain leads to, for every way of writing it and every kind of trust.

use proptest::prelude::*;

use super::*;

const PEER: &str = "10.0.0.1";

fn trusted(hops: u8, sources: &[&str]) -> TrustedProxies {
    TrustedProxies {
        hops,
        sources: sources.iter().map(|text| text.parse().unwrap()).collect(),
    }
}

fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
    let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).unwrap();
    let fields = fields.iter();
    fields
        .map(|(name, text)| (name.clone(), value(text)))
        .collect()
}

fn x_forwarded(trusted: &TrustedProxies, fields: &[(HeaderName, &str)]) -> Chain {
    Chain::by_x_forwarded(PEER.parse().unwrap(), trusted, &headers(fields))
}

fn rfc_7239(trusted: &TrustedProxies, text: &str) -> Chain {
    let fields = headers(&[(header::FORWARDED, text)]);
    Chain::by_forwarded(PEER.parse().unwrap(), trusted, &fields)
}

#[test]
fn the_chain_is_followed_as_far_as_it_is_trusted() {
    let blocks = &["10.0.0.0/8", "fd00::/8"][..];
    for (hops, sources, said, expected) in [
        // Nobody is trusted.
        (0, &[][..], "1.1.1.1", "10.0.0.1"),
        // By number.
        (1, &[], "1.1.1.1", "1.1.1.1, 10.0.0.1"),
        (1, &[], "9.9.9.9, 1.1.1.1", "1.1.1.1, 10.0.0.1"),
        (
            2,
            &[],
            "9.9.9.9, 1.1.1.1, 10.0.0.2",
            "1.1.1.1, 10.0.0.2, 10.0.0.1",
        ),
        (2, &[], "1.1.1.1", "1.1.1.1, 10.0.0.1"),
        (1, &[], "", "10.0.0.1"),
        // By address.
        (0, blocks, "1.1.1.1", "1.1.1.1, 10.0.0.1"),
        (0, blocks, "9.9.9.9, 1.1.1.1", "1.1.1.1, 10.0.0.1"),
        (
            0,
            blocks,
            "9.9.9.9,1.1.1.1 ,10.0.0.3, fd00::7",
            "1.1.1.1, 10.0.0.3, fd00::7, 10.0.0.1",
        ),
        (
            0,
            blocks,
            "10.0.0.4, 10.0.0.3",
            "10.0.0.4, 10.0.0.3, 10.0.0.1",
        ),
        (0, &["192.0.2.0/24"], "1.1.1.1", "10.0.0.1"),
        // By both.
        (1, blocks, "10.0.0.4, 10.0.0.3", "10.0.0.3, 10.0.0.1"),
        (5, blocks, "9.9.9.9, 1.1.1.1", "1.1.1.1, 10.0.0.1"),
        // What cannot be read ends the chain.
        (0, blocks, "1.1.1.1, unknown", "10.0.0.1"),
        (
            0,
            blocks,
            "1.1.1.1, _hidden, 10.0.0.3",
            "10.0.0.3, 10.0.0.1",
        ),
        (0, blocks, "1.1.1.1, , 10.0.0.3", "10.0.0.3, 10.0.0.1"),
        (0, blocks, "1.1.1.1,", "10.0.0.1"),
        (0, blocks, ",,,,", "10.0.0.1"),
    ] {
        let chain = x_forwarded(&trusted(hops, sources), &[(FOR, said)]);
        assert_eq!(
            chain.to_x_forwarded(),
            expected,
            "{hops} {sources:?} {said:?}"
        );
        let client = expected.split(", ").next().unwrap();
        assert_eq!(chain.client(), client.parse().ok(), "{said:?}");
    }
}

#[test]
fn several_fields_are_one_list() {
    let fields = [(FOR, "9.9.9.9, 1.1.1.1"), (FOR, "10.0.0.3")];
    let chain = x_forwarded(&trusted(0, &["10.0.0.0/8"]), &fields);
    assert_eq!(chain.to_x_forwarded(), "1.1.1.1, 10.0.0.3, 10.0.0.1");
}

#[test]
fn addresses_are_read_in_every_form_and_nothing_else_is() {
    for (text, expected) in [
        ("192.0.2.7", Some("192.0.2.7")),
        ("192.0.2.7:4711", Some("192.0.2.7")),
        ("\"192.0.2.7:4711\"", Some("192.0.2.7")),
        ("2001:db8::7", Some("2001:db8::7")),
        ("2001:DB8:0::7", Some("2001:db8::7")),
        ("[2001:db8::7]", Some("2001:db8::7")),
        ("[2001:db8::7]:4711", Some("2001:db8::7")),
        ("\"[2001:db8::7]:4711\"", Some("2001:db8::7")),
        ("::ffff:192.0.2.7", Some("192.0.2.7")),
        ("[::ffff:192.0.2.7]:1", Some("192.0.2.7")),
        ("fe80::1%eth0", None),
        ("[fe80::1%1]:80", None),
        ("192.0.2", None),
        ("192.0.2.07", None),
        ("192.0.2.256", None),
        ("0x7f.1", None),
        ("2130706433", None),
        ("192.0.2.7:99999", None),
        ("[192.0.2.7]", None),
        ("192.0.2.7/8", None),
        ("unknown", None),
        ("_secret", None),
        ("example.com", None),
        ("", None),
        ("\"", None),
        ("\u{7f}", None),
    ] {
        let expected = expected.map(|text| text.parse().unwrap());
        assert_eq!(address(text.as_bytes()), expected, "{text:?}");
    }
}

#[test]
fn forwarded_is_read_as_rfc_7239_writes_it() {
    let blocks = trusted(0, &["10.0.0.0/8", "fd00::/8"]);
    let host = HeaderValue::from_static("ours");
    for (text, expected) in [
        (
            "for=192.0.2.60;proto=https;by=203.0.113.43",
            "for=192.0.2.60;host=ours;proto=https, for=10.0.0.1",
        ),
        (
            "For=\"[2001:db8:cafe::17]:4711\"",
            "for=\"[2001:db8:cafe::17]\";host=ours;proto=http, for=10.0.0.1",
        ),
        (
            "for=192.0.2.43, for=198.51.100.17",
            "for=198.51.100.17;host=ours;proto=http, for=10.0.0.1",
        ),
        (
            "for=1.1.1.1;host=a.example;proto=https, for=10.0.0.9;host=b.example",
            "for=1.1.1.1;host=a.example;proto=https, for=10.0.0.9, for=10.0.0.1",
        ),
        (
            "for=1.1.1.1;host=\"a.example:8443\";by=\"_x,y\"",
            "for=1.1.1.1;host=\"a.example:8443\";proto=http, for=10.0.0.1",
        ),
        (
            "for=1.1.1.1 ; proto=http , for=\"[fd00::9]\";",
            "for=1.1.1.1;host=ours;proto=http, for=\"[fd00::9]\", for=10.0.0.1",
        ),
        // Hidden, garbage, said twice.
        ("for=unknown", "for=10.0.0.1;host=ours;proto=http"),
        ("for=_gazonk", "for=10.0.0.1;host=ours;proto=http"),
        ("by=1.1.1.1", "for=10.0.0.1;host=ours;proto=http"),
        (
            "for=1.1.1.1;for=2.2.2.2",
            "for=10.0.0.1;host=ours;proto=http",
        ),
        ("for", "for=10.0.0.1;host=ours;proto=http"),
        ("proto=https", "for=10.0.0.1;host=ours;proto=http"),
        (
            "for=1.1.1.1;proto=gopher;host=\"a b\"",
            "for=1.1.1.1;host=ours;proto=http, for=10.0.0.1",
        ),
        // A stranger's open quote does not swallow what a proxy added.
        (
            "for=\"9.9.9.9, for=1.1.1.1",
            "for=1.1.1.1;host=ours;proto=http, for=10.0.0.1",
        ),
        (
            "for=9.9.9.9;x=\"\\, for=1.1.1.1",
            "for=1.1.1.1;host=ours;proto=http, for=10.0.0.1",
        ),
    ] {
        let chain = rfc_7239(&blocks, text);
        let scheme = chain.origin.scheme.unwrap_or(Scheme::Http);
        let host = chain.origin.host.as_ref().unwrap_or(&host);
        assert_eq!(chain.to_forwarded(scheme, host), expected, "{text}");
    }
}

#[test]
fn what_was_asked_for_is_taken_from_the_proxy_next_to_us() {
    let fields = [
        (FOR, "1.1.1.1"),
        (PROTO, "http, HTTPS"),
        (HOST, "evil.example, Shop.example:8443"),
        (PORT, "1, 443"),
    ];
    let origin = x_forwarded(&trusted(1, &[]), &fields).origin;
    assert_eq!(origin.scheme, Some(Scheme::Https));
    assert_eq!(origin.host.unwrap(), "shop.example:8443");
    assert_eq!(origin.port, Some(443));
    for (name, garbage) in [
        (PROTO, "ftp"),
        (PROTO, "https, "),
        (HOST, "a b"),
        (HOST, "user@host"),
        (HOST, "a/b"),
        (PORT, "0"),
        (PORT, "65536"),
        (PORT, "+80"),
        (PORT, "80x"),
    ] {
        let origin = x_forwarded(&trusted(1, &[]), &[(name, garbage)]).origin;
        assert_eq!(origin, Origin::default(), "{garbage:?}");
    }
}

#[test]
fn a_chain_has_an_end() {
    let endless = "10.0.0.9,".repeat(7000) + "10.0.0.9";
    let all = trusted(0, &["10.0.0.0/8"]);
    let chain = x_forwarded(&all, &[(FOR, &endless)]);
    assert_eq!(
        chain.addresses.len(),
        usize::from(TrustedProxies::HOPS_MAX) + 1
    );
    let endless = "for=10.0.0.9;by=\"\\\"".repeat(3000);
    let chain = rfc_7239(&all, &endless);
    assert!(chain.addresses.len() <= 2);
}

proptest! {
    #[test]
    fn any_value_is_survived_and_what_is_written_can_be_read_again(
        text in "([0-9.:,;=\"\\\\ \\[\\]]|for=|10\\.0\\.0\\.[1-9]|[!-~]){0,60}",
        hops in 0..4_u8,
    ) {
        for sources in [&[][..], &["10.0.0.0/8"]] {
            let trusted = trusted(hops, sources);
            let one = x_forwarded(&trusted, &[(FOR, &text), (HOST, &text), (PROTO, &text)]);
            let other = rfc_7239(&trusted, &text);
            for chain in [one, other] {
                let all = TrustedProxies { hops: TrustedProxies::HOPS_MAX, sources: Vec::new() };
                let written = chain.to_x_forwarded();
                let (client, rest) = chain.addresses.split_last().unwrap();
                let again = x_forwarded(&all, &[(FOR, written.to_str().unwrap())]);
                prop_assert_eq!(again.client(), Some(*client));
                prop_assert_eq!(&again.addresses[1..=rest.len()], rest);
                let written = chain.to_forwarded(Scheme::Https, &HeaderValue::from_static("h:1"));
                let again = rfc_7239(&all, written.to_str().unwrap());
                prop_assert_eq!(again.client(), Some(*client));
                prop_assert_eq!(again.origin.scheme, Some(Scheme::Https));
            }
        }
    }
}
