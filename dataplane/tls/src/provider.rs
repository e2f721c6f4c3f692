//! The cryptography behind every handshake: ring, chosen once.
//!
//! Configurations built here name the provider themselves; the process-wide default is installed
//! for libraries that ask for one (tonic, pingora). Nothing else in the workspace picks a provider.

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, ring};

/// Makes ring the provider of the whole process; called first thing in `main`. Calling it again,
/// or after another provider was installed, does nothing.
pub fn install_crypto_provider() {
    // An error only says that there is one already.
    let _ = ring::default_provider().install_default();
}

/// The provider, whose suites all have forward secrecy and AEAD.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(ring::default_provider()));
    PROVIDER.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_has_forward_secrecy_and_aead() {
        for suite in &provider().cipher_suites {
            let name = format!("{:?}", suite.suite());
            let forward_secret = name.starts_with("TLS13_") || name.starts_with("TLS_ECDHE_");
            let aead = name.contains("_GCM_") || name.contains("_CHACHA20_POLY1305_");
            assert!(forward_secret && aead, "{name}");
        }
    }

    #[test]
    fn installing_twice_is_harmless() {
        install_crypto_provider();
        install_crypto_provider();
        assert!(CryptoProvider::get_default().is_some());
    }
}
