//! [`ServerCertificate`]: who issued the certificate of a server, and how long the certificate is valid.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use x509_parser::parse_x509_certificate;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;

const DAY: u64 = 24 * 60 * 60;

/// The certificate that a server presented in the TLS handshake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerCertificate {
    /// Distinguished name of the server, such as `CN=es01`.
    pub subject: String,
    /// Distinguished name of the authority that signed the certificate.
    pub issuer: String,
    /// Last day on which the certificate is valid, such as `2027-05-20`.
    pub not_after: String,
    /// Whole days until the certificate expires; negative if it has expired.
    pub days_left: i64,
}

impl ServerCertificate {
    /// Reads a certificate in DER form. `None` if the bytes are no certificate.
    pub(super) fn read(der: &[u8], now: SystemTime) -> Option<Self> {
        let (_, certificate) = parse_x509_certificate(der).ok()?;
        let not_after = certificate.validity().not_after;
        Some(Self {
            subject: name(certificate.subject()),
            issuer: name(certificate.issuer()),
            not_after: date(not_after),
            days_left: days_until(not_after.timestamp(), now),
        })
    }
}

/// A name as text. x509-parser cannot print names whose strings have an unusual type.
fn name(name: &X509Name<'_>) -> String {
    let text = name.to_string();
    if text.is_empty() { "a name that cannot be shown".to_owned() } else { text }
}

fn date(time: ASN1Time) -> String {
    time.to_datetime().date().to_string()
}

/// Whole days between now and a time in seconds since 1970, rounded down.
pub(super) fn days_until(seconds: i64, now: SystemTime) -> i64 {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    seconds.saturating_sub(i64::try_from(now).unwrap_or(i64::MAX)).div_euclid(DAY as i64)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn issuer_and_days_left_are_read() {
        let mut params = CertificateParams::new(vec!["es01".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "es01");
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2026, 1, 11);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let at = |days: u64| {
            // There are 20,454 days from 1970-01-01 to 2026-01-01.
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs((20_454 + days) * DAY + 60);
            ServerCertificate::read(certificate.der(), now).unwrap()
        };
        let read = at(0);
        assert_eq!((read.subject.as_str(), read.issuer.as_str()), ("CN=es01", "CN=es01"));
        assert_eq!((read.not_after.as_str(), read.days_left), ("2026-01-11", 9));
        assert_eq!(at(12).days_left, -3);
        assert_eq!(ServerCertificate::read(b"not a certificate", SystemTime::now()), None);
    }
}
