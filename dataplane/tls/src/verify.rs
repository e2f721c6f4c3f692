//! Who is trusted: how a listener judges client certificates (Gateway API `FrontendTLSValidation`).
//!
//! `listener.rs` compiles [`Clients`] and puts its verifier into the handshake; `server.rs` asks it
//! once more when the handshake is over. The proof that a client holds its key is always checked,
//! in every mode: only the chain may be forgiven, and then the client counts as anonymous.

use std::sync::Arc;

use ir::listener::{ClientValidation, ClientValidationMode};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
};

use crate::anchors::Anchors;
use crate::provider::provider;

/// Whom a listener lets in.
#[derive(Clone, Debug)]
pub(crate) enum Clients {
    /// Everyone; no certificate is asked for.
    Anyone,
    /// Only holders of a valid certificate.
    Certified(Arc<dyn ClientCertVerifier>),
    /// Everyone; holders of a valid certificate are known by it.
    Fallback(Arc<dyn ClientCertVerifier>),
    /// Nobody.
    Nobody,
}

impl Clients {
    /// Builds the verifier that `validation` asks for; the error says what is wrong with the
    /// trust anchors.
    pub(crate) fn compile(validation: Option<&ClientValidation>) -> Result<Self, String> {
        let Some(validation) = validation else {
            return Ok(Self::Anyone);
        };
        match validation.mode {
            ClientValidationMode::RejectAll => Ok(Self::Nobody),
            ClientValidationMode::AllowValidOnly => {
                Ok(Self::Certified(verifier(&validation.ca_pems)?))
            }
            ClientValidationMode::AllowInsecureFallback => {
                Ok(Self::Fallback(verifier(&validation.ca_pems)?))
            }
        }
    }

    /// What rustls is to use during the handshake.
    pub(crate) fn handshake_verifier(&self) -> Arc<dyn ClientCertVerifier> {
        match self {
            // A listener for nobody ends the connection before a handshake; were it to come to
            // one, no chain would be trusted.
            Self::Anyone | Self::Nobody => WebPkiClientVerifier::no_client_auth(),
            Self::Certified(verifier) => verifier.clone(),
            Self::Fallback(verifier) => Arc::new(Verifier::Forgiving(verifier.clone())),
        }
    }

    /// The leaf of a client that proved itself; nothing for an anonymous one.
    ///
    /// A resumed session brings the chain of its first handshake, which is judged again as of now,
    /// so that a certificate that ended since is noticed.
    pub(crate) fn judge(
        &self,
        chain: Option<&[CertificateDer<'_>]>,
        is_resumed: bool,
    ) -> Result<Option<Vec<u8>>, String> {
        let (verifier, required) = match self {
            Self::Anyone => return Ok(None),
            Self::Nobody => return Err("nobody is let in".to_owned()),
            Self::Certified(verifier) => (verifier, true),
            Self::Fallback(verifier) => (verifier, false),
        };
        let verdict = match chain {
            Some([leaf, ..]) if required && !is_resumed => Ok(leaf.to_vec()),
            Some([leaf, intermediates @ ..]) => verifier
                .verify_client_cert(leaf, intermediates, UnixTime::now())
                .map(|_| leaf.to_vec())
                .map_err(|error| error.to_string()),
            _ => Err("no certificate was shown".to_owned()),
        };
        match verdict {
            Ok(leaf) => Ok(Some(leaf)),
            Err(_) if !required => Ok(None),
            Err(reason) => Err(reason),
        }
    }
}

/// Certificates that cannot serve as anchors are passed over, as long as one can.
fn verifier(ca_pems: &[String]) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let anchors = Anchors::of(ca_pems);
    let inner = by(anchors.all().clone())
        .map_err(|_| "holds no PEM certificate that can be a trust anchor".to_owned())?;
    Ok(Arc::new(Verifier::InTheirDates { anchors, inner }))
}

fn by(anchors: Arc<RootCertStore>) -> Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError> {
    WebPkiClientVerifier::builder_with_provider(anchors, provider()).build()
}

/// A verifier with another view of chains; signatures are checked as they are by it.
#[derive(Debug)]
enum Verifier {
    /// Trusts anchors within their own dates only.
    InTheirDates {
        anchors: Anchors,
        /// Trusts all of them.
        inner: Arc<dyn ClientCertVerifier>,
    },
    /// Asks for a certificate and takes any chain, or none.
    Forgiving(Arc<dyn ClientCertVerifier>),
}

impl Verifier {
    fn inner(&self) -> &dyn ClientCertVerifier {
        match self {
            Self::InTheirDates { inner, .. } | Self::Forgiving(inner) => &**inner,
        }
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        matches!(self, Self::InTheirDates { .. })
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner().root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let Self::InTheirDates { anchors, inner } = self else {
            return Ok(ClientCertVerified::assertion());
        };
        let trusted = anchors.at(now);
        if Arc::ptr_eq(&trusted, anchors.all()) {
            return inner.verify_client_cert(leaf, intermediates, now);
        }
        // Seldom: somebody has left an authority in place that has ended.
        let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let verifier = by(trusted).map_err(|_| unknown)?;
        verifier.verify_client_cert(leaf, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner()
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner()
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner().supported_verify_schemes()
    }
}
