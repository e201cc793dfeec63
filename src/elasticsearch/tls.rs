//! TLS: how the certificates of the cluster are verified, and the client certificate.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::{fmt, fs};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use sha2::{Digest, Sha256};

use super::ClientError;
use crate::hint::Setting;

/// Which certificates of the cluster are trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trust {
    /// Certificates that an authority of the operating system signed.
    #[default]
    System,
    /// Certificates that an authority in this file signed. The file is in PEM form.
    Authorities(PathBuf),
    /// The certificate with this fingerprint, and those that it signed.
    Pinned(Fingerprint),
    /// Every certificate.
    Anyone,
}

/// The SHA-256 of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl FromStr for Fingerprint {
    type Err = ClientError;

    /// Parses 64 hexadecimal digits, with or without colons: the forms of Elasticsearch and of openssl.
    fn from_str(text: &str) -> Result<Self, ClientError> {
        let invalid = || {
            let reason = "a SHA-256 has 64 hexadecimal digits, with or without colons".into();
            ClientError::Setting { setting: Setting::CaFingerprint, reason }
        };
        // openssl prints a name before the digits.
        let digits = text.rsplit_once('=').map_or(text, |(_, digits)| digits);
        let digits: Vec<u8> = digits.bytes().filter(|byte| !b": \t\r\n".contains(byte)).collect();
        if digits.len() != 64 {
            return Err(invalid());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let pair = std::str::from_utf8(pair).ok();
            let pair = pair.filter(|pair| pair.bytes().all(|digit| digit.is_ascii_hexdigit()));
            *byte = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or_else(invalid)?;
        }
        Ok(Self(bytes))
    }
}

impl Fingerprint {
    fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The TLS configuration. Reads all files, so that a missing one is reported before any work.
pub(super) fn configuration(
    trust: &Trust,
    client_certificate: Option<&(PathBuf, PathBuf)>,
    is_used: bool,
) -> Result<ClientConfig, ClientError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| ClientError::Tls(error.to_string()))?;
    let builder = match trust {
        Trust::Authorities(path) => builder.with_root_certificates(authorities(path)?),
        Trust::Pinned(fingerprint) => {
            let verifier = Pinned { fingerprint: Some(*fingerprint), provider };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
        Trust::Anyone => {
            let verifier = Pinned { fingerprint: None, provider };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
        // No address uses TLS, so no authorities are needed.
        Trust::System if !is_used => builder.with_root_certificates(RootCertStore::empty()),
        Trust::System => {
            let verifier = rustls_platform_verifier::Verifier::new(provider).map_err(|error| {
                ClientError::Tls(format!(
                    "the certificate authorities of this machine cannot be read: {error}"
                ))
            })?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
    };
    let Some((certificate, key)) = client_certificate else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(Setting::ClientCertificate, certificate)?;
    builder.with_client_auth_cert(chain, private_key(key)?).map_err(|error| {
        ClientError::Certificates {
            setting: Setting::ClientCertificate,
            path: certificate.clone(),
            reason: format!("it cannot be used with the private key {}: {error}", key.display()),
        }
    })
}

fn authorities(path: &Path) -> Result<RootCertStore, ClientError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(Setting::CaCertificates, path)? {
        store
            .add(certificate)
            .map_err(|error| unusable(Setting::CaCertificates, path, &error.to_string()))?;
    }
    Ok(store)
}

fn certificates(
    setting: Setting,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let bytes = fs::read(path).map_err(|error| unusable(setting, path, &error.to_string()))?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(setting, path, &format!("it is damaged: {error}")))?;
    if certificates.is_empty() {
        let reason = if bytes.is_empty() { "it is empty" } else { "it contains no certificate" };
        return Err(unusable(setting, path, reason));
    }
    Ok(certificates)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, ClientError> {
    let unusable = |reason: &str| unusable(Setting::ClientKey, path, reason);
    let bytes = fs::read(path).map_err(|error| unusable(&error.to_string()))?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        pem::Error::NoItemsFound if bytes.windows(9).any(|window| window == b"ENCRYPTED") => {
            unusable("the private key is encrypted")
        }
        pem::Error::NoItemsFound => unusable("it contains no private key"),
        // The original error could contain text of the file.
        _ => unusable("it is damaged"),
    })
}

fn unusable(setting: Setting, path: &Path, reason: &str) -> ClientError {
    ClientError::Certificates { setting, path: path.to_owned(), reason: reason.to_owned() }
}

/// No certificate of the server has the pinned fingerprint.
#[derive(Debug, thiserror::Error)]
#[error("none of the server's certificates has the fingerprint; theirs are {}", .0.join(", "))]
pub(super) struct NotPinned(Vec<String>);

/// Trusts a chain that contains the certificate with a fingerprint. Unlike Elastic's own clients, it also checks that this
/// certificate signed the server's certificate, if it is not the server's own. The host name is not compared, because the authority
/// that Elasticsearch creates at its first start signs only for its own cluster, with the host names of that time. Without a
/// fingerprint, every chain is trusted.
#[derive(Debug)]
struct Pinned {
    fingerprint: Option<Fingerprint>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let believed = ServerCertVerified::assertion();
        let Some(wanted) = self.fingerprint else { return Ok(believed) };
        if Fingerprint::of(end_entity) == wanted {
            return Ok(believed);
        }
        let Some(authority) = intermediates.iter().find(|one| Fingerprint::of(one) == wanted)
        else {
            let presented = std::iter::once(end_entity).chain(intermediates);
            let presented = presented.map(|one| Fingerprint::of(one).to_string()).collect();
            return Err(CertificateError::Other(OtherError(Arc::new(NotPinned(presented)))).into());
        };
        let mut store = RootCertStore::empty();
        store.add(authority.clone())?;
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &store,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        Ok(believed)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprint_is_read_in_every_printed_form() {
        let plain = "00112233445566778899aabbccddeeff".repeat(2);
        let read = |text: &str| text.parse::<Fingerprint>();
        let colons: Vec<_> = (0..32).map(|i| plain[2 * i..2 * i + 2].to_uppercase()).collect();
        let colons = colons.join(":");
        for text in [plain.clone(), colons.clone(), format!("sha256 Fingerprint={colons}\n")] {
            assert_eq!(read(&text).unwrap().to_string(), plain, "{text}");
        }
        for wrong in [
            "",
            "00",
            &plain[2..],
            &format!("{plain}00"),
            &plain.replace('a', "g"),
            &"+1".repeat(32),
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
