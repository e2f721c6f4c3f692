//! Ids of requests: which ones are taken over, and how new ones are made.
//!
//! Pure. They are for finding a request in several logs and keep nothing secret, so they come from the
//! worker's own sequence of numbers, not from the system.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use dataplane_telemetry::trace_context::HEX_DIGITS;

/// `X-Request-Id`.
pub(crate) const NAME: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id that is taken over.
const BYTES_MAX: usize = 128;
/// `xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx`.
const UUID_BYTES: usize = 36;
/// Where each octet of a UUID stands in its text.
const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];

/// True for an id that can stand in any log: neither empty nor long, letters, digits and `-_.~+/=:@`.
pub(crate) fn is_sound(id: &[u8]) -> bool {
    let is_sound = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~+/=:@".contains(byte);
    (1..=BYTES_MAX).contains(&id.len()) && id.iter().all(is_sound)
}

/// A UUID of version 4 (RFC 9562 5.4) of these random bits.
pub(crate) fn uuid(high: u64, low: u64) -> HeaderValue {
    let high = high & !0xf000 | 0x4000;
    let low = low & !(0b11 << 62) | 0b10 << 62;
    let bits = u128::from(high) << 64 | u128::from(low);
    let mut text = [b'-'; UUID_BYTES];
    for (octet, at) in bits.to_be_bytes().into_iter().zip(PLACES) {
        text[at..at + 2].copy_from_slice(&HEX_DIGITS[usize::from(octet)]);
    }
    HeaderValue::from_maybe_shared(Bytes::copy_from_slice(&text))
        .unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sound_ids_are_taken_over() {
        let longest = "x".repeat(BYTES_MAX);
        let longer = "x".repeat(BYTES_MAX + 1);
        for (id, expected) in [
            ("4bf92f35-77b3-4da6-a3ce-929d0e0e4736", true),
            ("Root=1-67891233-abcdef012345678912345678", true),
            ("a", true),
            ("A.b_c~d+e/f=g:h@i", true),
            (&longest, true),
            (&longer, false),
            ("", false),
            ("a b", false),
            ("a,b", false),
            ("a\"b", false),
            ("a\\b", false),
            ("a\tb", false),
            ("<script>", false),
            ("${jndi:x}", false),
            ("é", false),
        ] {
            assert_eq!(is_sound(id.as_bytes()), expected, "{id:?}");
        }
    }

    #[test]
    fn an_id_is_a_uuid_of_version_4() {
        for (high, low, expected) in [
            (0, 0, "00000000-0000-4000-8000-000000000000"),
            (u64::MAX, u64::MAX, "ffffffff-ffff-4fff-bfff-ffffffffffff"),
            (
                0x0123_4567_89ab_cdef,
                0xfedc_ba98_7654_3210,
                "01234567-89ab-4def-bedc-ba9876543210",
            ),
        ] {
            let id = uuid(high, low);
            assert_eq!(id, expected);
            assert!(is_sound(id.as_bytes()));
        }
    }
}
