//! Finds personal data and secrets in plain text: candidates by their shape, then their check digits,
//! ranges and surroundings. Nothing here changes a text.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use ir::ai::RedactionKind;
use memchr::memmem;
use regex_automata::meta::Regex;

use super::number;

/// How far before a find its surroundings are looked at for a word that tells what it is.
pub(super) const CONTEXT_BYTES: usize = 48;
/// API keys of well-known services: how they begin, and how many more characters they have at least.
const KEY_PREFIXES: [(&str, usize); 28] = [
    ("sk-", 20),
    ("sk_live_", 16),
    ("sk_test_", 16),
    ("rk_live_", 16),
    ("rk_test_", 16),
    ("pk_live_", 16),
    ("whsec_", 24),
    ("AKIA", 16),
    ("ASIA", 16),
    ("ghp_", 36),
    ("gho_", 36),
    ("ghu_", 36),
    ("ghs_", 36),
    ("ghr_", 36),
    ("github_pat_", 22),
    ("glpat-", 20),
    ("xoxb-", 20),
    ("xoxp-", 20),
    ("xoxa-", 20),
    ("xapp-", 20),
    ("AIza", 35),
    ("hf_", 30),
    ("npm_", 36),
    ("SG.", 40),
    ("dop_v1_", 60),
    ("pypi-", 50),
    ("gsk_", 40),
    ("ya29.", 30),
];

/// Something that looks for one kind.
pub(super) enum Finder {
    Email,
    Number(number::Kind),
    Iban,
    Ip,
    Mac,
    Crypto,
    UrlCredentials,
    ApiKey,
    Jwt,
    Regex(Box<Regex>),
}

impl Finder {
    /// Absent when the expression does not compile, which the configuration has seen to.
    pub(super) fn of(kind: &RedactionKind) -> Option<Self> {
        Some(match kind {
            RedactionKind::Email => Self::Email,
            RedactionKind::Phone => Self::Number(number::Kind::Phone),
            RedactionKind::CreditCard => Self::Number(number::Kind::Card),
            RedactionKind::UsSsn => Self::Number(number::Kind::Ssn),
            RedactionKind::UsItin => Self::Number(number::Kind::Itin),
            RedactionKind::UsPassport => Self::Number(number::Kind::Passport),
            RedactionKind::UkNhs => Self::Number(number::Kind::Nhs),
            RedactionKind::Iban => Self::Iban,
            RedactionKind::Ip => Self::Ip,
            RedactionKind::Mac => Self::Mac,
            RedactionKind::CryptoAddress => Self::Crypto,
            RedactionKind::UrlCredentials => Self::UrlCredentials,
            RedactionKind::ApiKey => Self::ApiKey,
            RedactionKind::Jwt => Self::Jwt,
            RedactionKind::Regex(source) => {
                let limits = Regex::config()
                    .nfa_size_limit(Some(1 << 20))
                    .hybrid_cache_capacity(1 << 20);
                Self::Regex(Box::new(
                    Regex::builder().configure(limits).build(source).ok()?,
                ))
            }
        })
    }

    /// Adds what it finds.
    pub(super) fn find(&self, text: &str, add: &mut dyn FnMut(Range<usize>)) {
        match self {
            Self::Email => email(text, add),
            Self::Number(kind) => number::find(*kind, text, add),
            Self::Iban => iban(text, add),
            Self::Ip => {
                ipv4(text, add);
                ipv6(text, add);
            }
            Self::Mac => mac(text, add),
            Self::Crypto => crypto(text, add),
            Self::UrlCredentials => url_credentials(text, add),
            Self::ApiKey => api_key(text, add),
            Self::Jwt => jwt(text, add),
            Self::Regex(regex) => regex
                .find_iter(text)
                .filter(|found| !found.is_empty())
                .for_each(|found| add(found.range())),
        }
    }
}

/// The longest piece around `at` whose characters are all of that kind.
fn span(text: &str, at: usize, is_part: impl Fn(char) -> bool) -> Range<usize> {
    let start = text[..at]
        .char_indices()
        .rev()
        .take_while(|(_, c)| is_part(*c))
        .last()
        .map_or(at, |(start, _)| start);
    let end = text[at..]
        .find(|c| !is_part(c))
        .map_or(text.len(), |end| at + end);
    start..end
}

/// True when a word stands shortly before `at`, in any case.
pub(super) fn is_near(text: &str, at: usize, words: &[&str]) -> bool {
    let mut from = at.saturating_sub(CONTEXT_BYTES);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    let before = text[from..at].to_lowercase();
    words.iter().any(|word| before.contains(word))
}

fn email(text: &str, add: &mut dyn FnMut(Range<usize>)) {
    let is_local = |c: char| c.is_alphanumeric() || "._%+'-".contains(c);
    let is_domain = |c: char| c.is_alphanumeric() || ".-".contains(c);
    for at in memchr::memchr_iter(b'@', text.as_bytes()) {
        let local = span(text, at, is_local).start;
        let local = local
            + (text[local..at].len()
                - text[local..at]
                    .trim_start_matches(['.', '\'', '-', '%'])
                    .len());
        let domain = span(text, at + 1, is_domain);
        if domain.start != at + 1 {
            continue;
        }
        let host = text[at + 1..domain.end].trim_end_matches(['.', '-']);
        let Some((name, top)) = host.rsplit_once('.') else {
            continue;
        };
        let is_top = top.chars().count() >= 2 && top.chars().all(char::is_alphabetic);
        let is_name = !name.is_empty() && name.split('.').all(|label| !label.is_empty());
        if is_top && is_name && local < at && !text[..at].ends_with('.') {
            add(local..at + 1 + host.len());
        }
    }
}

/// Lengths of account numbers by country.
const IBAN_LENGTHS: &str = "AD24AE23AL28AT20AZ28BA20BE16BG22BH22BR29BY28CH21CR22CY28CZ24DE22DK18DO28EE20EG29ES24FI18FO18FR27GB22GE22GI23GL18GR27GT28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20LB28LC32LI21LT20LU20LV21MC27MD24ME22MK19MR27MT31MU30NL18NO15PK24PL28PS29PT25QA29RO24RS22SA24SC31SE24SI19SK24SM27ST25SV28TL23TN24TR26UA29VA22VG24XK20";

fn iban(text: &str, add: &mut dyn FnMut(Range<usize>)) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at + 15 <= bytes.len() {
        let is_start = bytes[at].is_ascii_alphabetic()
            && bytes[at + 1].is_ascii_alphabetic()
            && (bytes[at + 2].is_ascii_digit() || bytes[at + 2] == b' ')
            && (at == 0 || !bytes[at - 1].is_ascii_alphanumeric());
        match is_start.then(|| iban_end(bytes, at)).flatten() {
            Some(end) => {
                add(at..end);
                at = end;
            }
            None => at += 1,
        }
    }
}

fn iban_end(bytes: &[u8], start: usize) -> Option<usize> {
    let country = [
        bytes[start].to_ascii_uppercase(),
        bytes[start + 1].to_ascii_uppercase(),
    ];
    let known = IBAN_LENGTHS
        .as_bytes()
        .chunks(4)
        .find(|entry| entry[..2] == country)?;
    let length = usize::from(known[2] - b'0') * 10 + usize::from(known[3] - b'0');
    let mut symbols = Vec::with_capacity(length);
    let mut at = start;
    while symbols.len() < length {
        let byte = *bytes.get(at)?;
        if byte.is_ascii_alphanumeric() {
            symbols.push(byte.to_ascii_uppercase());
        } else if !(byte == b' ' || byte == b'-') || !bytes.get(at + 1)?.is_ascii_alphanumeric() {
            return None;
        }
        at += 1;
    }
    if bytes.get(at).is_some_and(u8::is_ascii_alphanumeric) {
        return None;
    }
    let rest = symbols[4..]
        .iter()
        .chain(&symbols[..4])
        .fold(0_u32, |rest, symbol| {
            if symbol.is_ascii_digit() {
                (rest * 10 + u32::from(symbol - b'0')) % 97
            } else {
                (rest * 100 + u32::from(symbol - b'A') + 10) % 97
            }
        });
    (rest == 1 && symbols[2].is_ascii_digit() && symbols[3].is_ascii_digit()).then_some(at)
}

fn ipv4(text: &str, add: &mut dyn FnMut(Range<usize>)) {
    let is_part = |c: char| c.is_ascii_digit() || c == '.';
    let mut from = 0;
    while let Some(found) = text[from..].find(|c: char| c.is_ascii_digit()) {
        let at = from + found;
        let whole = span(text, at, is_part);
        from = whole.end;
        let end = at + text[at..whole.end].trim_end_matches('.').len();
        let before = text[..at].chars().next_back();
        let is_alone = !before
            .is_some_and(|c| c.is_alphanumeric() || "._-:".contains(c) && c != ':')
            && !text[whole.end..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
        let is_version = is_near(text, at, &["version", "release"]);
        if is_alone && !is_version && text[at..end].parse::<Ipv4Addr>().is_ok() {
            add(at..end);
        }
    }
}

fn ipv6(text: &str, add: &mut dyn FnMut(Range<usize>)) {
    let is_part = |c: char| c.is_ascii_hexdigit() || c == ':' || c == '.';
    let mut from = 0;
    while let Some(found) = memchr::memchr(b':', &text.as_bytes()[from..]) {
        let whole = span(text, from + found, is_part);
        from = whole.end.max(from + found + 1);
        let is_bounded = |c: Option<char>| !c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let candidate = text[whole.clone()].trim_end_matches('.');
        // A colon that ends a sentence is no part of it, but two are.
        let candidate = match candidate.strip_suffix(':') {
            Some(shorter) if !shorter.ends_with(':') => shorter,
            _ => candidate,
        };
        if !candidate.contains(|c: char| c.is_ascii_digit())
            || !is_bounded(text[..whole.start].chars().next_back())
            || !is_bounded(text[whole.end..].chars().next())
        {
            continue;
        }
        if candidate.parse::<Ipv6Addr>().is_ok() {
            add(whole.start..whole.start + candidate.len());
        }
    }
}

fn mac(text: &str, add: &mut dyn FnMut(Range<usize>)) {
    let bytes = text.as_bytes();
    let mut at = 2;
    while at + 15 <= bytes.len() {
        let separator = bytes[at];
        if !matches!(separator, b':' | b'-') {
            at += 1;
            continue;
        }
        let start = at - 2;
        let is_group = |group: usize| {
            let from = start + 3 * group;
            bytes[from].is_ascii_hexdigit()
                && bytes[from + 1].is_ascii_hexdigit()
                && (group == 5 || bytes[from + 2] == separator)
        };
        let is_edge = |byte: Option<&u8>| {
            !byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == separator)
        };
        let before = start.checked_sub(1).and_then(|at| bytes.get(at));
        if (0..6).all(is_group) && is_edge(before) && is_edge(bytes.get(start + 17)) {
            add(start..start + 17);
            at = start + 19;
        } else {
            at += 1;
        }
    }
}

fn crypto(text: &str, add: &mut dyn FnMut(Range<usize>)) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if !bytes[at].is_ascii_alphanumeric() {
            at += 1;
            continue;
        }
        let length = bytes[at..].iter().position(|b| !b.is_ascii_alphanumeric());
        let end = length.map_or(bytes.len(), |length| at + length);
        if is_crypto(&bytes[at..end]) {
            add(at..end);
        }
        at = end;
    }
}

fn is_crypto(word: &[u8]) -> bool {
    if let Some(hex) = word.strip_prefix(b"0x") {
        return hex.len() == 40 && hex.iter().all(u8::is_ascii_hexdigit);
    }
    if word.len() >= 14 && word.len() <= 90 && word[..3].eq_ignore_ascii_case(b"bc1") {
        return is_bech32(word);
    }
    // Base58 leaves out 0, O, I and l. Its check needs a hash; a mixture of cases and digits stands in.
    let is_base58 = |b: &u8| b.is_ascii_alphanumeric() && !b"0OIl".contains(b);
    (26..=35).contains(&word.len())
        && matches!(word[0], b'1' | b'3')
        && word.iter().all(is_base58)
        && word[1..].iter().any(u8::is_ascii_digit)
        && word.iter().any(u8::is_ascii_lowercase)
        && word.iter().any(u8::is_ascii_uppercase)
}

/// The checksum of BIP 173 and BIP 350.
fn is_bech32(word: &[u8]) -> bool {
    const SYMBOLS: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    const GENERATORS: [u32; 5] = [
        0x3b6a_57b2,
        0x2650_8e6d,
        0x1ea1_19fa,
        0x3d42_33dd,
        0x2a14_62b3,
    ];
    let symbol = |byte: &u8| SYMBOLS.iter().position(|s| *s == byte.to_ascii_lowercase());
    let values: Option<Vec<usize>> = word[3..].iter().map(symbol).collect();
    let Some(values) = values else {
        return false;
    };
    // "bc", expanded: its high bits, a zero, its low bits.
    let values = [3, 3, 0, 2, 3].into_iter().chain(values);
    let sum = values.fold(1_u32, |sum, value| {
        let top = sum >> 25;
        let value = u32::try_from(value).unwrap_or(0);
        GENERATORS
            .iter()
            .enumerate()
            .filter(|(bit, _)| top >> bit & 1 == 1)
            .fold((sum & 0x01ff_ffff) << 5 ^ value, |sum, (_, generator)| {
                sum ^ generator
            })
    });
    sum == 1 || sum == 0x2bc8_30a3
}

fn url_credentials(text: &str, add: &mut dyn FnMut(Range<usize>)) {
    for at in memmem::find_iter(text.as_bytes(), "://") {
        let scheme = span(text, at, |c| c.is_ascii_alphanumeric() || "+.-".contains(c)).start;
        let rest = &text[at + 3..];
        let end = rest
            .find(|c: char| c.is_whitespace() || "/\"'<>`?#".contains(c))
            .unwrap_or(rest.len());
        // What ends a sentence is no part of a host.
        let end = rest[..end]
            .trim_end_matches(|c: char| !c.is_alphanumeric())
            .len();
        let Some((user, host)) = rest[..end].rsplit_once('@') else {
            continue;
        };
        if scheme < at && user.contains(':') && !host.is_empty() {
            add(scheme..at + 3 + end);
        }
    }
}

/// Characters of keys and tokens.
pub(super) fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

fn api_key(text: &str, add: &mut dyn FnMut(Range<usize>)) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if !is_key_byte(bytes[at]) {
            at += 1;
            continue;
        }
        let length = bytes[at..].iter().position(|b| !is_key_byte(*b));
        let end = length.map_or(bytes.len(), |length| at + length);
        let word = text[at..end].trim_end_matches(['.', '-']);
        // A key may follow a name without space, as in `key.sk-…`; only the word's begin is looked at.
        let is_key = word.len() >= 20
            && KEY_PREFIXES.iter().any(|(prefix, more)| {
                word.strip_prefix(prefix).is_some_and(|rest| {
                    rest.len() >= *more && rest.bytes().any(|b| b.is_ascii_digit())
                        || rest.len() >= 2 * *more && !rest.contains('.')
                })
            });
        if is_key {
            add(at..at + word.len());
        }
        at = end;
    }
}

fn jwt(text: &str, add: &mut dyn FnMut(Range<usize>)) {
    let bytes = text.as_bytes();
    let mut from = 0;
    while let Some(found) = memmem::find(&bytes[from..], b"eyJ") {
        let at = from + found;
        let length = bytes[at..].iter().position(|b| !is_key_byte(*b));
        let end = length.map_or(bytes.len(), |length| at + length);
        from = end;
        let is_first = at == 0 || !is_key_byte(bytes[at - 1]);
        let parts: Vec<&str> = text[at..end].split('.').collect();
        if let [head, claims, signature, ..] = parts.as_slice()
            && is_first
            && head.len() >= 10
            && claims.len() >= 4
        {
            add(at..at + head.len() + claims.len() + signature.len() + 2);
        }
    }
}
