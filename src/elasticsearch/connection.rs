//! Where the cluster is and how to log in.

use std::fmt;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;

use super::ClientError;

/// How to log in. Its debug form shows no secret.
#[derive(Clone)]
pub enum Credentials {
    /// User and password.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// An API key, encoded or as `id:key`.
    ApiKey(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic { user, .. } => write!(f, "Basic({user}, …)"),
            Self::ApiKey(_) => f.write_str("ApiKey(…)"),
        }
    }
}

impl Credentials {
    /// The value of the `Authorization` header.
    pub(super) fn header(&self) -> String {
        match self {
            Self::Basic { user, password } => {
                format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
            }
            // The encoded form is base64, which has no colon.
            Self::ApiKey(key) if key.contains(':') => format!("ApiKey {}", STANDARD.encode(key)),
            Self::ApiKey(key) => format!("ApiKey {key}"),
        }
    }
}

/// A cluster's address and the way in.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The address, without user and password, its path ending in a slash.
    pub(super) url: Url,
    /// How to log in.
    pub credentials: Option<Credentials>,
    /// Whether any certificate will do.
    pub insecure: bool,
    /// Certificates to trust, in PEM, instead of the system's.
    pub ca_certs: Option<PathBuf>,
}

impl Connection {
    /// Takes an address; user and password in it become the credentials.
    ///
    /// # Errors
    /// When it is not an http or https address.
    pub fn to_url(address: &str) -> Result<Self, ClientError> {
        // The address may hold a password, so no message repeats it.
        let invalid = |reason: &str| ClientError::Address(reason.to_owned());
        let mut url = Url::parse(address).map_err(|e| invalid(&e.to_string()))?;
        if !["http", "https"].contains(&url.scheme()) || !url.has_host() {
            return Err(invalid("it does not begin with http:// or https:// and a host"));
        }
        let decoded = |text: &str| {
            percent_decoded(text).ok_or_else(|| invalid("user or password is not UTF-8"))
        };
        let credentials = match (url.username(), url.password()) {
            ("", None) => None,
            (user, Some(password)) => {
                Some(Credentials::Basic { user: decoded(user)?, password: decoded(password)? })
            }
            (_, None) => return Err(invalid("it names a user without a password")),
        };
        // Neither call can fail for an address with a host.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_query(None);
        url.set_fragment(None);
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Ok(Self { url, credentials, insecure: false, ca_certs: None })
    }

    /// Takes a cloud id: `name:` and the base64 of `host[:port]$elasticsearch-uuid$kibana-uuid`.
    ///
    /// # Errors
    /// When it is not one.
    pub fn to_cloud(cloud_id: &str) -> Result<Self, ClientError> {
        let invalid = || {
            ClientError::Address(
                "the cloud id is not of the form name:base64; copy it from the deployment's page"
                    .into(),
            )
        };
        let (_, encoded) = cloud_id.rsplit_once(':').ok_or_else(invalid)?;
        let decoded = STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let decoded = decoded.ok_or_else(invalid)?;
        let mut parts = decoded.split('$');
        let (host, uuid) = parts.next().zip(parts.next()).ok_or_else(invalid)?;
        let (host, port) = host.split_once(':').unwrap_or((host, "443"));
        if host.is_empty() || uuid.is_empty() {
            return Err(invalid());
        }
        Self::to_url(&format!("https://{uuid}.{host}:{port}"))
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let code = code.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (first, code) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_password_leave_the_address() {
        let connection = Connection::to_url("https://me:p%40ss%3Aw@host:9200/es").unwrap();
        assert_eq!(connection.url.as_str(), "https://host:9200/es/");
        let header = connection.credentials.as_ref().unwrap().header();
        assert_eq!(header, format!("Basic {}", STANDARD.encode("me:p@ss:w")));
        assert!(!format!("{connection:?}").contains("p@ss"));
        for address in ["host:9200", "ftp://host", "https://user@host", "", "https://"] {
            assert!(Connection::to_url(address).is_err(), "{address}");
        }
    }

    #[test]
    fn cloud_ids_name_a_host() {
        let cloud = |text: &str| Connection::to_cloud(&format!("my:{}", STANDARD.encode(text)));
        let url = |text: &str| cloud(text).unwrap().url.to_string();
        assert_eq!(url("eu.cloud.io$abc$def"), "https://abc.eu.cloud.io/");
        assert_eq!(url("eu.cloud.io:9243$abc$def"), "https://abc.eu.cloud.io:9243/");
        assert!(cloud("nothing").is_err() && Connection::to_cloud("x").is_err());
    }

    #[test]
    fn both_forms_of_an_api_key_give_one_header() {
        let encoded = STANDARD.encode("id:key");
        assert_eq!(
            Credentials::ApiKey("id:key".into()).header(),
            Credentials::ApiKey(encoded).header()
        );
    }
}
