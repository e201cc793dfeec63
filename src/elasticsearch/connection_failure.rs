//! Why there is no answer, and what to do about it.

use std::error::Error;
use std::{fmt, io};

use rustls::{AlertDescription, CertificateError, InvalidMessage};

use super::tls::NotPinned;

/// Why there is no answer. Its display form is what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionFailure {
    /// The host's name is not known.
    Resolve,
    /// Nothing listens at the port.
    Refused,
    /// Nothing answers in time.
    TimedOut,
    /// The connection broke, or the answer was cut.
    Broken,
    /// The certificate is signed by an authority that is not trusted.
    UnknownIssuer,
    /// The certificate is one of another host.
    WrongHost,
    /// The certificate has expired, or is not yet valid.
    Expired,
    /// No certificate that the server presents has the fingerprint that was given.
    Fingerprint,
    /// The certificate is its own authority, which `--ca-certs` cannot express.
    SelfSigned,
    /// Something else is wrong with the certificate.
    Certificate,
    /// No common version or method of TLS, or a broken handshake.
    Tls,
    /// The server wants a certificate of ours, or does not trust the one that it got.
    ClientCertificate,
    /// TLS was spoken to a port that does not speak it.
    PlainServer,
    /// The first connection was closed without an answer, as Elasticsearch does when TLS is wanted.
    ClosedUnanswered,
    /// Plain HTTP was spoken to a port that does not speak it.
    TlsServer,
    /// The proxy wants credentials.
    ProxyCredentials,
    /// The proxy does not connect to the cluster.
    Proxy,
    /// Anything else.
    Other,
}

impl ConnectionFailure {
    /// Tells what kind of failure it is.
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
                // What a TLS server says to a plain request is an alert, which is no line of HTTP.
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

    /// Whether it may pass by itself.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(
            self,
            Self::Resolve
                | Self::Refused
                | Self::TimedOut
                | Self::Broken
                | Self::Proxy
                | Self::Other
        )
    }
}

impl fmt::Display for ConnectionFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "Nobody knows a host of this name: is it written right?",
            Self::Refused => "Nothing listens there: are address and port right, and is the cluster up?",
            Self::TimedOut => {
                "Nothing answers there: are address and port right, and does a firewall or a proxy stand in between?"
            }
            Self::Broken => "The connection broke: try again",
            Self::UnknownIssuer => {
                "The certificate is not signed by an authority that is trusted here: name the cluster's CA with --ca-certs \
                 (config/certs/http_ca.crt of the cluster) or give its fingerprint with --ca-fingerprint"
            }
            Self::WrongHost => {
                "The certificate is one for other names: use one of them in the address"
            }
            Self::Expired => "Renew the cluster's certificate, and see that this machine's clock is right",
            Self::Fingerprint => {
                "Compare --ca-fingerprint with what Elasticsearch printed at its first start; if it is right, the \
                 server does not send its CA (then give --ca-certs), or someone else answers there"
            }
            Self::SelfSigned => {
                "The certificate is its own authority: give its fingerprint with --ca-fingerprint"
            }
            Self::Tls => "The server's TLS does not fit: versions 1.2 and 1.3 are spoken here",
            Self::Certificate => "Renew the cluster's certificate",
            Self::ClientCertificate => {
                "Give one that the cluster, or the proxy before it, trusts, with --client-cert and --client-key"
            }
            Self::PlainServer => "The port does not speak TLS: write http:// instead of https://",
            Self::ClosedUnanswered => "If the port speaks TLS, write https:// instead of http://",
            Self::TlsServer => "The port seems to speak TLS: write https:// instead of http://",
            Self::ProxyCredentials => {
                "Put the proxy's user and password into the address in HTTPS_PROXY or HTTP_PROXY (http://user:password@host:port)"
            }
            Self::Proxy => {
                "The proxy does not connect to the cluster: is it allowed to, are its user and password right, and is the \
                 cluster up? NO_PROXY names hosts to reach without it"
            }
            Self::Other => "Is the address right, and the cluster up?",
        })
    }
}

/// An error and its causes, outermost first. What an i/o error wraps is not among its sources, only what that wraps.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = match error.downcast_ref::<io::Error>() {
            Some(error) => error.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => error.source(),
        };
        Some(error)
    })
}

/// What failed, to the innermost cause. That a request failed, the reader knows.
pub(super) fn causes(error: &(dyn Error + 'static)) -> String {
    const EMPTY: [&str; 4] = [
        "error sending request",
        "client error (",
        "request or response body error",
        "error decoding response body",
    ];
    let mut texts: Vec<String> = Vec::new();
    for error in chain(error) {
        // Such an error has a debug form alone.
        let text = match error.downcast_ref() {
            Some(rustls::Error::InvalidCertificate(CertificateError::Other(error))) => {
                format!("invalid peer certificate: {}", error.0)
            }
            _ => error.to_string(),
        };
        if error.is::<rustls::Error>() {
            // Already said by the i/o error around it.
            texts.pop();
        }
        if texts.last() != Some(&text) {
            texts.push(text);
        }
    }
    let first = texts.iter().position(|text| !EMPTY.iter().any(|empty| text.starts_with(empty)));
    texts.split_off(first.unwrap_or(0)).join(": ")
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_server_that_does_not_answer_in_time() {
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
