//! Short texts that clients carry for us and can neither read nor change.
//!
//! A [`Sealer`] is made from a secret that all replicas share; what one seals another opens. The
//! construction is deterministic authenticated encryption with a synthetic initialisation vector:
//! the tag is HMAC-SHA-256 over the text, and the key stream is HMAC-SHA-256 over the tag, each
//! under a key of its own derived by HKDF. No number has to be drawn that must never be drawn
//! twice, however long a secret is in use. Who may open what, and for how long, is the caller's.

use std::fmt;

use rustls::SupportedCipherSuite;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::tls13::{Hkdf, OkmBlock};

use crate::provider::provider;

/// Bytes by which a sealed text is longer.
pub const TAG_BYTES: usize = 16;
/// Bytes of one block of the key stream.
const BLOCK_BYTES: usize = 32;

/// Seals and opens.
pub struct Sealer {
    hkdf: &'static dyn Hkdf,
    tag_key: OkmBlock,
    stream_key: OkmBlock,
}

/// No secret could be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    NoRandomness,
    /// The provider lacks what is needed.
    #[error("there is no HMAC-SHA-256")]
    NoAlgorithm,
}

impl Sealer {
    /// One of a secret; `purpose` keeps what is sealed for one thing from being opened for another.
    pub fn new(secret: &[u8], purpose: &str) -> Result<Self, SealError> {
        let SupportedCipherSuite::Tls13(suite) = TLS13_AES_128_GCM_SHA256 else {
            return Err(SealError::NoAlgorithm);
        };
        let hkdf = suite.hkdf_provider;
        let expander = hkdf.extract_from_secret(None, secret);
        let key = |part: &[u8]| expander.expand_block(&[purpose.as_bytes(), &[0], part]);
        Ok(Self {
            hkdf,
            tag_key: key(b"tag"),
            stream_key: key(b"stream"),
        })
    }

    /// One of a secret that ends with the process.
    pub fn ephemeral(purpose: &str) -> Result<Self, SealError> {
        let mut secret = [0; 32];
        let random = provider().secure_random;
        random
            .fill(&mut secret)
            .map_err(|_| SealError::NoRandomness)?;
        Self::new(&secret, purpose)
    }

    /// The text, sealed; the same text is always sealed the same way.
    pub fn seal(&self, text: &[u8]) -> Vec<u8> {
        let tag = self.tag(text);
        let mut sealed = Vec::with_capacity(TAG_BYTES + text.len());
        sealed.extend_from_slice(&tag);
        sealed.extend_from_slice(text);
        self.mix(&tag, &mut sealed[TAG_BYTES..]);
        sealed
    }

    /// The text that was sealed; nothing when it was not sealed under this secret.
    pub fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (tag, mixed) = sealed.split_at_checked(TAG_BYTES)?;
        let mut text = mixed.to_vec();
        self.mix(tag, &mut text);
        is_same(&self.tag(&text), tag).then_some(text)
    }

    fn tag(&self, text: &[u8]) -> [u8; TAG_BYTES] {
        let tag = self.hkdf.hmac_sign(&self.tag_key, text);
        std::array::from_fn(|at| tag.as_ref().get(at).copied().unwrap_or_default())
    }

    /// Mixes the key stream of a tag in, or out.
    fn mix(&self, tag: &[u8], text: &mut [u8]) {
        for (number, block) in (0_u32..).zip(text.chunks_mut(BLOCK_BYTES)) {
            let mut place = [0; TAG_BYTES + 4];
            place[..TAG_BYTES].copy_from_slice(&tag[..TAG_BYTES]);
            place[TAG_BYTES..].copy_from_slice(&number.to_be_bytes());
            let stream = self.hkdf.hmac_sign(&self.stream_key, &place);
            for (byte, key) in block.iter_mut().zip(stream.as_ref()) {
                *byte ^= key;
            }
        }
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

/// Compares without telling by its time where two differ.
fn is_same(a: &[u8; TAG_BYTES], b: &[u8]) -> bool {
    let differences = a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(differences) == 0 && a.len() == b.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(secret: &str) -> Sealer {
        Sealer::new(secret.as_bytes(), "test").unwrap()
    }

    #[test]
    fn what_is_sealed_is_opened_under_the_same_secret_alone() {
        for len in [0, 1, 31, 32, 33, 38, 64, 1000] {
            let text: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let sealed = sealer("one").seal(&text);
            assert_eq!(sealed.len(), len + TAG_BYTES);
            assert_eq!(sealer("one").open(&sealed), Some(text.clone()), "{len}");
            assert_eq!(sealer("two").open(&sealed), None, "{len}");
            let other = Sealer::new(b"one", "other").unwrap();
            assert_eq!(other.open(&sealed), None, "for another purpose");
        }
    }

    #[test]
    fn every_bit_counts() {
        let sealed = sealer("one").seal(b"10.0.0.1:8080 and more than one block of the stream");
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut changed = sealed.clone();
                changed[at] ^= 1 << bit;
                assert_eq!(sealer("one").open(&changed), None, "{at} {bit}");
            }
        }
        for len in 0..sealed.len() {
            assert_eq!(sealer("one").open(&sealed[..len]), None, "{len}");
        }
    }

    #[test]
    fn nothing_of_the_text_can_be_seen() {
        let text = b"10.0.0.1:8080 10.0.0.1:8080 10.0.0.1:8080";
        let sealed = sealer("one").seal(text);
        for window in text.windows(4) {
            assert!(!sealed.windows(4).any(|it| it == window));
        }
        let (a, b) = (sealer("one").seal(b"a"), sealer("one").seal(b"b"));
        assert_ne!(a[..TAG_BYTES], b[..TAG_BYTES]);
    }

    #[test]
    fn secrets_of_the_process_differ() {
        let one = Sealer::ephemeral("test").unwrap();
        let two = Sealer::ephemeral("test").unwrap();
        assert_eq!(two.open(&one.seal(b"text")), None);
        assert_eq!(format!("{one:?}"), "Sealer");
    }
}
