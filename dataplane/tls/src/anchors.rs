//! Authorities that certificates are judged by, each within its own dates only, which webpki leaves to us.
//!
//! Those of listeners (`verify.rs`) and of policies for backends (`client/trust.rs`) alike.

use std::ops::RangeInclusive;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Trust anchors, and when they are trusted.
#[derive(Clone, Debug)]
pub(crate) struct Anchors {
    all: Arc<RootCertStore>,
    /// When the first of them are trusted, in their order; further ones always are.
    dates: Vec<RangeInclusive<u64>>,
}

impl Anchors {
    /// Those of PEM texts; certificates that cannot serve as anchors are passed over. There may be none.
    pub(crate) fn of(pems: &[String]) -> Self {
        let mut all = RootCertStore::empty();
        let mut dates = Vec::new();
        for pem in pems {
            let certificates = CertificateDer::pem_slice_iter(pem.as_bytes());
            for certificate in certificates.filter_map(Result::ok) {
                let of_it = dates_of(&certificate);
                if all.add(certificate).is_ok() {
                    dates.push(of_it);
                }
            }
        }
        let all = Arc::new(all);
        Self { all, dates }
    }

    /// Those, and others that are always trusted.
    pub(crate) fn and(mut self, others: &RootCertStore) -> Self {
        let all = Arc::make_mut(&mut self.all);
        all.roots.extend(others.roots.iter().cloned());
        self
    }

    /// All of them, in whatever time.
    pub(crate) fn all(&self) -> &Arc<RootCertStore> {
        &self.all
    }

    /// Those that are trusted at that time.
    pub(crate) fn at(&self, now: UnixTime) -> Arc<RootCertStore> {
        let now = now.as_secs();
        if self.dates.iter().all(|dates| dates.contains(&now)) {
            return Arc::clone(&self.all);
        }
        let is_good = |index: usize| {
            let dates = self.dates.get(index);
            dates.is_none_or(|dates| dates.contains(&now))
        };
        let roots = self.all.roots.iter().enumerate();
        let roots = roots.filter(|(index, _)| is_good(*index));
        let roots = roots.map(|(_, root)| root.clone()).collect();
        Arc::new(RootCertStore { roots })
    }
}

impl From<Arc<RootCertStore>> for Anchors {
    /// Anchors that are always trusted.
    fn from(all: Arc<RootCertStore>) -> Self {
        let dates = Vec::new();
        Self { all, dates }
    }
}

/// When a certificate is good, in seconds since 1970; never when it cannot be told.
fn dates_of(certificate: &CertificateDer<'_>) -> RangeInclusive<u64> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
        return RangeInclusive::new(1, 0);
    };
    let validity = certificate.validity();
    // Before 1970 is as good as 1970.
    let seconds = |timestamp: i64| timestamp.max(0).unsigned_abs();
    seconds(validity.not_before.timestamp())..=seconds(validity.not_after.timestamp())
}
