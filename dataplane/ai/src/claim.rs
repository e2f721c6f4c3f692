//! One claim of a JSON web token, to tell callers apart by.
//!
//! The token is not verified here: whoever lets a caller in has done so. A token that was made up gets
//! an account of its own and nothing else.

use crate::json::{Members, Text};

/// A token that is longer is not looked at.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// The value of a claim: a string as it reads, anything else as it is written.
pub fn claim(token: &str, name: &str) -> Option<String> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let payload = token.split('.').nth(1)?;
    let json = String::from_utf8(base64url(payload)?).ok()?;
    let value = Members::read(&json).ok()?.take(name)?;
    Some(match Text::of(value) {
        Some(text) => text.plain().into_owned(),
        None => value.get().to_owned(),
    })
}

/// RFC 4648 5, without padding.
fn base64url(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut held) = (0_u32, 0);
    for symbol in text.trim_end_matches('=').bytes() {
        let value = match symbol {
            b'A'..=b'Z' => symbol - b'A',
            b'a'..=b'z' => symbol - b'a' + 26,
            b'0'..=b'9' => symbol - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_read_from_the_middle_of_a_token() {
        // {"sub":"alice","tenant":42}
        let token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSIsInRlbmFudCI6NDJ9.x";
        assert_eq!(claim(token, "sub").as_deref(), Some("alice"));
        assert_eq!(claim(token, "tenant").as_deref(), Some("42"));
        for (token, name) in [
            (token, "aud"),
            ("a.b", "sub"),
            ("", "sub"),
            ("a.!!.c", "sub"),
        ] {
            assert_eq!(claim(token, name), None, "{token} {name}");
        }
    }
}
