//! The normal form of a path. Laws: the same as a plain reference gives; normalising twice changes
//! nothing; no dot segments, no empty segments where these are merged, never longer than what came.

#![no_main]

use dataplane_http::path::{EscapedSlash, Rules, normalise};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((first, input)) = input.split_first() else {
        return;
    };
    let Ok(path) = std::str::from_utf8(input) else {
        return;
    };
    let mode = match first % 3 {
        0 => EscapedSlash::Refuse,
        1 => EscapedSlash::Keep,
        _ => EscapedSlash::Decode,
    };
    let mode = Rules {
        escaped_slash: mode,
        merge_slashes: first & 0x80 == 0,
    };
    let ours = normalise(path, mode).ok();
    let theirs = reference(input, mode);
    assert_eq!(ours.as_deref(), theirs.as_deref(), "{path:?}");
    let Some(normal) = ours else { return };
    assert!(normal.len() <= path.len());
    assert!(normal.starts_with('/'));
    assert!(!mode.merge_slashes || !normal.contains("//"));
    assert!(
        !normal
            .split('/')
            .any(|segment| segment == "." || segment == "..")
    );
    assert_eq!(normalise(&normal, mode).as_deref(), Ok(&*normal), "twice");
});

/// Step by step, with a list of segments.
fn reference(input: &[u8], mode: Rules) -> Option<String> {
    if input.first() != Some(&b'/')
        || input
            .iter()
            .any(|b| !(0x21..=0x7e).contains(b) || *b == b'\\')
    {
        return None;
    }
    let mut decoded = String::new();
    let mut rest = input;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            decoded.push(char::from(*byte));
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        rest = &rest[2..];
        let byte = u8::from_str_radix(digits, 16).ok()?;
        match char::from(byte) {
            '\0' => return None,
            '/' | '\\' if mode.escaped_slash == EscapedSlash::Refuse => return None,
            '/' | '\\' if mode.escaped_slash == EscapedSlash::Decode => decoded.push('/'),
            plain if plain.is_ascii_alphanumeric() || "-._~".contains(plain) => decoded.push(plain),
            _ => decoded.push_str(&format!("%{byte:02X}")),
        }
    }
    let mut segments: Vec<&str> = Vec::new();
    let mut ends_in_slash = true;
    let mut rest = decoded.split('/').skip(1).peekable();
    while let Some(segment) = rest.next() {
        ends_in_slash = matches!(segment, "" | "." | "..");
        match segment {
            "" if !mode.merge_slashes && rest.peek().is_some() => segments.push(""),
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            other => segments.push(other),
        }
    }
    let mut path = segments
        .iter()
        .fold(String::new(), |path, segment| path + "/" + segment);
    if ends_in_slash {
        path.push('/');
    }
    Some(path)
}
