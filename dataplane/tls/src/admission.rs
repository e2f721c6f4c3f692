//! By what a client was let in, so that a connection does not outlive what it was let in by.
//!
//! Made at the end of a handshake and kept by whoever serves the connection, who asks
//! [`ServerTls::admits`](crate::ServerTls::admits) before each request. What a listener asks of its
//! clients may have changed by then: another authority, or a certificate where none was asked for.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use crate::listener::TlsListener;

/// What a client showed, and the listener that took it.
#[derive(Clone)]
pub struct Admission {
    by: Arc<TlsListener>,
    chain: Option<Arc<[CertificateDer<'static>]>>,
    /// The listener as it was when somebody asked last, and whether it would take the client.
    judged: RefCell<Option<(Arc<TlsListener>, bool)>>,
}

impl Admission {
    pub(crate) fn new(by: Arc<TlsListener>, chain: Option<&[CertificateDer<'static>]>) -> Self {
        Self {
            by,
            chain: chain.map(Arc::from),
            judged: RefCell::default(),
        }
    }

    pub(crate) fn listener(&self) -> &Arc<str> {
        &self.by.name
    }

    /// True when that listener would take the client for the same as it was taken for.
    pub(crate) fn holds_at(&self, now: &Arc<TlsListener>) -> bool {
        if Arc::ptr_eq(&self.by, now) {
            return true;
        }
        let mut judged = self.judged.borrow_mut();
        if let Some((known, verdict)) = &*judged
            && Arc::ptr_eq(known, now)
        {
            return *verdict;
        }
        let verdict = self.by.asks_the_same(now) || self.is_the_same_client_at(now);
        *judged = Some((now.clone(), verdict));
        verdict
    }

    fn is_the_same_client_at(&self, now: &TlsListener) -> bool {
        let chain = self.chain.as_deref();
        // Judged as a resumed session is: the whole chain, as of now.
        let before = self.by.clients.judge(chain, true);
        let after = now.clients.judge(chain, true);
        after.is_ok() && before == after
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission")
            .field("listener", self.listener())
            .field("has_certificate", &self.chain.is_some())
            .finish_non_exhaustive()
    }
}
