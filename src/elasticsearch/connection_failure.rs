//! [`ConnectionFailure`]: the reason why a server did not respond.

use std::io;

use rustls::{AlertDescription, CertificateError, InvalidMessage};

use super::tls::NotPinned;
use crate::error_chain::chain;
use crate::hint::{Hint, Setting, hint};

/// Reason why a server did not respond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionFailure {
    /// The host name cannot be resolved.
    Resolve,
    /// Nothing listens on the port.
    Refused,
    /// There was no answer in time.
    TimedOut,
    /// The connection broke, or the answer was incomplete.
    Broken,
    /// The certificate is signed by an authority that is not trusted.
    UnknownIssuer,
    /// The certificate belongs to another host.
    WrongHost,
    /// The certificate has expired, or is not yet valid.
    Expired,
    /// No certificate of the server has the expected fingerprint.
    Fingerprint,
    /// The certificate is its own authority, which a list of authorities cannot express.
    SelfSigned,
    /// Something else is wrong with the certificate.
    Certificate,
    /// The TLS handshake failed, for example without a common version.
    Tls,
    /// The server requires a client certificate, or does not trust the one it received.
    ClientCertificate,
    /// The address says https, and the port does not use TLS.
    PlainServer,
    /// The first connection was closed without an answer, as Elasticsearch does when it expects TLS.
    ClosedUnanswered,
    /// The address says http, and the port uses TLS.
    TlsServer,
    /// The proxy requires credentials.
    ProxyCredentials,
    /// The proxy does not connect to the cluster.
    Proxy,
    /// The proxy itself cannot be reached.
    ProxyUnreachable,
    /// Anything else.
    Other,
}

impl ConnectionFailure {
    /// The kind of failure that an error of the HTTP client reports.
    pub(super) fn of(error: &reqwest::Error) -> Self {
        if error.is_dns() {
            return Self::Resolve;
        }
        let mut failure = if error.is_timeout() {
            Self::TimedOut
        } else if error.is_connect() {
            Self::Other
        } else {
            Self::Broken
        };
        for error in chain(error) {
            if let Some(error) = error.downcast_ref::<rustls::Error>() {
                return Self::of_tls(error);
            }
            if let Some(error) = error.downcast_ref::<io::Error>()
                && error.kind() == io::ErrorKind::ConnectionRefused
            {
                failure = Self::Refused;
            }
            // These types are private to the HTTP library.
            match error.to_string().as_str() {
                "tunnel error: proxy authorization required" => return Self::ProxyCredentials,
                "tunnel error: unsuccessful" | "tunnel error: unexpected end of file" => {
                    return Self::Proxy;
                }
                // A TLS server answers a plain request with an alert, which is not HTTP.
                "invalid HTTP version parsed" => return Self::TlsServer,
                _ => {}
            }
        }
        failure
    }

    fn of_tls(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(error) => match error {
                CertificateError::UnknownIssuer => Self::UnknownIssuer,
                CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. } => Self::WrongHost,
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => Self::Expired,
                CertificateError::Other(error) if error.0.is::<NotPinned>() => Self::Fingerprint,
                CertificateError::Other(error) if error.0.to_string() == "CaUsedAsEndEntity" => {
                    Self::SelfSigned
                }
                _ => Self::Certificate,
            },
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::PlainServer,
            rustls::Error::AlertReceived(
                AlertDescription::CertificateRequired
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateExpired
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::UnknownCA
                | AlertDescription::AccessDenied,
            ) => Self::ClientCertificate,
            _ => Self::Tls,
        }
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(
            self,
            Self::Resolve
                | Self::Refused
                | Self::TimedOut
                | Self::Broken
                | Self::Proxy
                | Self::ProxyUnreachable
                | Self::Other
        )
    }
}

impl ConnectionFailure {
    /// What the user can do about the failure.
    #[must_use]
    pub fn hint(self) -> Hint {
        match self {
            Self::Resolve => hint!("Check the host name: the name service does not have it."),
            Self::Refused => {
                hint!("Check the address and the port, and whether the cluster is running.")
            }
            Self::TimedOut => hint!(
                "Check the address and the port, and whether a firewall or a proxy blocks the connection."
            ),
            Self::Broken => hint!("Try again."),
            Self::UnknownIssuer => hint!(
                "Set ",
                Setting::CaCertificates,
                " to the certificate authority of the cluster (config/certs/http_ca.crt), or set its fingerprint with ",
                Setting::CaFingerprint,
                "."
            ),
            Self::WrongHost => {
                hint!("Use one of the host names in the certificate as the address.")
            }
            Self::Expired => {
                hint!("Renew the certificate of the cluster, and check the clock of this machine.")
            }
            Self::Fingerprint => hint!(
                "Compare ",
                Setting::CaFingerprint,
                " with the fingerprint that Elasticsearch printed at its first start. If both are equal, the server does not send \
                 its certificate authority: set ",
                Setting::CaCertificates,
                " instead. Otherwise another server may have answered."
            ),
            Self::SelfSigned => hint!(
                "The certificate is its own authority: set its fingerprint with ",
                Setting::CaFingerprint,
                "."
            ),
            Self::Tls => hint!("Enable TLS 1.2 or 1.3 on the server."),
            Self::Certificate => hint!("Renew the certificate of the cluster."),
            Self::ClientCertificate => hint!(
                "Set ",
                Setting::ClientCertificate,
                " and ",
                Setting::ClientKey,
                " to a certificate that the cluster, or the proxy in front of it, trusts."
            ),
            Self::PlainServer => {
                hint!("The port does not use TLS: write http:// instead of https://.")
            }
            Self::ClosedUnanswered => {
                hint!("If the port uses TLS, write https:// instead of http://.")
            }
            Self::TlsServer => {
                hint!("The port appears to use TLS: write https:// instead of http://.")
            }
            Self::ProxyCredentials => hint!(
                "Put the user name and password of the proxy into the address in HTTPS_PROXY or HTTP_PROXY \
                 (http://user:password@host:port)."
            ),
            Self::Proxy => hint!(
                "The proxy does not connect to the cluster. Check its rules, its user name and password, and whether the cluster is \
                 running. NO_PROXY lists hosts that are reached without the proxy."
            ),
            Self::ProxyUnreachable => hint!(
                "Check the address of the proxy in HTTPS_PROXY, HTTP_PROXY or ALL_PROXY, and whether the proxy is running. NO_PROXY lists \
                 hosts that are reached without the proxy."
            ),
            Self::Other => hint!("Check the address, and whether the cluster is running."),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;
    use crate::error_chain::causes;

    #[test]
    fn silent_server_is_a_timeout() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let error = runtime.block_on(async {
            let client =
                reqwest::Client::builder().no_proxy().read_timeout(Duration::from_millis(20));
            client.build().unwrap().get(url).send().await.unwrap_err()
        });
        assert_eq!(ConnectionFailure::of(&error), ConnectionFailure::TimedOut);
        assert!(causes(&error).contains("timed out"), "{}", causes(&error));
    }
}
