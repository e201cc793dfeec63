//! The addresses of a cluster, and the credentials.

use std::path::PathBuf;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use super::{ClientError, KibanaAddress, Trust};
use crate::hint::Setting;
use crate::secrets::Secret;

/// Credentials. The debug form shows no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Credentials {
    /// User and password.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// An API key, encoded or as `id:key`.
    ApiKey(Secret),
    /// An access token, a service account's token or a JWT.
    Bearer(Secret),
}

impl Credentials {
    /// The value of the `Authorization` header.
    fn header(&self) -> Result<HeaderValue, ClientError> {
        // Encoded forms are secrets too.
        let encoded = |text: &str| Secret::new(STANDARD.encode(text));
        let value = match self {
            Self::Basic { user, .. } if user.contains(':') => {
                return Err(ClientError::Setting {
                    setting: Setting::Username,
                    reason: "a user name cannot contain a colon".into(),
                });
            }
            Self::Basic { user, password } => {
                format!("Basic {}", encoded(&format!("{user}:{}", password.expose())).expose())
            }
            // The encoded form is base64, which has no colon.
            Self::ApiKey(key) => {
                let key = key.expose();
                let encoded = if key.contains(':') { encoded(key) } else { Secret::new(key) };
                remember_key(encoded.expose());
                format!("ApiKey {}", encoded.expose())
            }
            Self::Bearer(token) => format!("Bearer {}", token.expose()),
        };
        let mut value = HeaderValue::try_from(value).map_err(|_| ClientError::Setting {
            setting: match self {
                Self::Basic { .. } => Setting::Password,
                Self::ApiKey(_) => Setting::ApiKey,
                Self::Bearer(_) => Setting::Token,
            },
            reason: "it contains characters that a header cannot carry, such as a line break"
                .into(),
        })?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// Registers the key in `base64(id:key)` as a secret.
fn remember_key(encoded: &str) {
    let decoded = STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    if let Some((_, key)) = decoded.as_deref().and_then(|decoded| decoded.split_once(':')) {
        let _ = Secret::new(key);
    }
}

/// A header to send with every request. The value counts as a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeader {
    name: HeaderName,
    value: Secret,
}

impl FromStr for RequestHeader {
    type Err = ClientError;

    /// Reads `Name: value`.
    fn from_str(text: &str) -> Result<Self, ClientError> {
        // The text may be a secret, so no message repeats it.
        let invalid = |reason: &str| invalid_header(reason.to_owned());
        let (name, value) = text
            .split_once(':')
            .ok_or_else(|| invalid("it does not have the form 'Name: value'"))?;
        let value = Secret::new(value.trim());
        let name: HeaderName = name
            .trim()
            .parse()
            .map_err(|_| invalid("the text before the colon is not a header name"))?;
        if HeaderValue::from_str(value.expose()).is_err() {
            return Err(invalid(&format!(
                "the value of {name} contains characters that a header cannot carry"
            )));
        }
        let ours = [
            "accept",
            "content-length",
            "content-type",
            "content-encoding",
            "connection",
            "transfer-encoding",
        ];
        if ours.contains(&name.as_str()) {
            return Err(invalid(&format!("rust-eland sets {name} itself")));
        }
        Ok(Self { name, value })
    }
}

/// The addresses of a cluster, and how to connect and log in.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Connection {
    /// The addresses, at least one, without user and password. The paths end in a slash.
    pub(super) addresses: Vec<Url>,
    /// A user name in the address, without a password.
    pub user: Option<String>,
    /// The credentials.
    pub credentials: Option<Credentials>,
    /// Which certificates are trusted.
    pub trust: Trust,
    /// The client certificate and its private key, both files in PEM form.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// Headers to send with every request.
    pub headers: Vec<RequestHeader>,
    /// The Kibana that lists the models of the cluster. It gets the credentials and the headers of the cluster.
    pub kibana: Option<KibanaAddress>,
    /// Whether to use the proxies from the environment.
    pub proxies: bool,
}

impl Connection {
    /// A connection to an address, or to several separated by commas. A user and password in them become the credentials.
    ///
    /// # Errors
    /// [`ClientError`] if an address is not http or https, or the addresses contain different credentials.
    pub fn to_url(addresses: &str) -> Result<Self, ClientError> {
        let mut connection = Self {
            addresses: Vec::new(),
            user: None,
            credentials: None,
            trust: Trust::System,
            client_certificate: None,
            headers: Vec::new(),
            kibana: None,
            proxies: true,
        };
        for address in separated(addresses) {
            connection.add(address)?;
        }
        Ok(connection)
    }

    fn add(&mut self, address: &str) -> Result<(), ClientError> {
        // The address may contain a password, so no message repeats it.
        let invalid = |reason: &str| ClientError::Address(reason.to_owned());
        let mut url = Url::parse(address).map_err(|e| invalid(&e.to_string()))?;
        if !["http", "https"].contains(&url.scheme()) || !url.has_host() {
            return Err(invalid("it does not start with http:// or https:// and a host"));
        }
        let decoded = |text: &str| {
            let decoded = percent_decode_str(text).decode_utf8();
            decoded.map(String::from).map_err(|_| invalid("user or password is not UTF-8"))
        };
        let user = decoded(url.username())?;
        let credentials = match url.password() {
            None => None,
            Some(password) => {
                // The form in the address.
                let _ = Secret::new(password);
                let password = Secret::new(decoded(password)?);
                Some(Credentials::Basic { user: user.clone(), password })
            }
        };
        let differ = (credentials.is_some()
            && self.credentials.is_some()
            && credentials != self.credentials)
            || (!user.is_empty() && self.user.as_ref().is_some_and(|other| *other != user));
        if differ {
            return Err(ClientError::Address(
                "two addresses contain different credentials, and all must belong to one cluster"
                    .into(),
            ));
        }
        if !user.is_empty() {
            self.user = Some(user);
        }
        self.credentials = credentials.or(self.credentials.take());
        // Neither call can fail for an address with a host.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_query(None);
        url.set_fragment(None);
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        self.addresses.push(url);
        Ok(())
    }

    /// A connection to a cloud id: `name:` and the base64 of `host[:port]$elasticsearch-uuid$kibana-uuid`.
    ///
    /// # Errors
    /// [`ClientError::CloudId`] if the text has another form.
    pub fn to_cloud(cloud_id: &str) -> Result<Self, ClientError> {
        let invalid = || ClientError::CloudId;
        let (_, encoded) = cloud_id.trim().rsplit_once(':').ok_or_else(invalid)?;
        let decoded = STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let decoded = decoded.ok_or_else(invalid)?;
        let mut parts = decoded.split('$');
        let (host, uuid) = parts.next().zip(parts.next()).ok_or_else(invalid)?;
        let (host, port) = host.split_once(':').unwrap_or((host, "443"));
        // A port in the identifier takes precedence.
        let (uuid, port) = uuid.split_once(':').unwrap_or((uuid, port));
        let is_name = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        };
        if !is_name(host) || !is_name(uuid) || port.parse::<u16>().is_err() {
            return Err(invalid());
        }
        Self::to_url(&format!("https://{uuid}.{host}:{port}"))
    }

    /// The headers sent with every request. Secret values are marked as sensitive.
    pub(super) fn headers(&self) -> Result<HeaderMap, ClientError> {
        let mut headers = HeaderMap::new();
        if let Some(credentials) = &self.credentials {
            headers.insert(AUTHORIZATION, credentials.header()?);
        }
        for RequestHeader { name, value } in &self.headers {
            if headers.contains_key(AUTHORIZATION) && name == AUTHORIZATION {
                return Err(invalid_header(
                    "Authorization conflicts with the credentials; set one of them".into(),
                ));
            }
            let value = HeaderValue::from_str(value.expose());
            let mut value = value.map_err(|e| invalid_header(e.to_string()))?;
            value.set_sensitive(true);
            headers.append(name, value);
        }
        Ok(headers)
    }
}

fn invalid_header(reason: String) -> ClientError {
    ClientError::Setting { setting: Setting::Header, reason }
}

/// Splits at the commas before another address. A password may contain commas too.
fn separated(addresses: &str) -> impl Iterator<Item = &str> {
    let starts = |rest: &str| {
        let rest = rest.trim_start();
        rest.is_empty() || rest.starts_with("http://") || rest.starts_with("https://")
    };
    let mut rest = Some(addresses);
    std::iter::from_fn(move || {
        let text = rest?;
        let comma = text.match_indices(',').map(|(at, _)| at).find(|at| starts(&text[at + 1..]));
        let (first, others) = match comma {
            Some(at) => (&text[..at], Some(&text[at + 1..])),
            None => (text, None),
        };
        rest = others.filter(|others| !others.trim().is_empty());
        Some(first.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(connection: &Connection) -> HeaderValue {
        connection.credentials.as_ref().unwrap().header().unwrap()
    }

    #[test]
    fn credentials_in_the_address_are_removed_from_it() {
        let connection = Connection::to_url("https://me:p%40ss%3Aw,x@host:9200/es").unwrap();
        assert_eq!(connection.addresses[0].as_str(), "https://host:9200/es/");
        assert_eq!(header(&connection), format!("Basic {}", STANDARD.encode("me:p@ss:w,x")));
        let shown = format!("{connection:?}");
        assert!(!shown.contains("p@ss") && !shown.contains("p%40ss"), "{shown}");
        assert!(header(&connection).is_sensitive());
        for address in
            ["host:9200", "ftp://host", "", "https://", "https://[::1", "https://a:9200,b:9200"]
        {
            assert!(Connection::to_url(address).is_err(), "{address}");
        }
        let user = Connection::to_url("https://me@[::1]:9200").unwrap();
        assert_eq!((user.user.as_deref(), user.credentials), (Some("me"), None));
        assert_eq!(user.addresses[0].as_str(), "https://[::1]:9200/");
    }

    #[test]
    fn several_addresses_share_credentials() {
        let connection =
            Connection::to_url("http://a:9200, https://me:x@b/p,http://me:x@[::1]:1,").unwrap();
        let addresses: Vec<_> = connection.addresses.iter().map(Url::as_str).collect();
        assert_eq!(addresses, ["http://a:9200/", "https://b/p/", "http://[::1]:1/"]);
        assert!(connection.credentials.is_some());
        assert!(Connection::to_url("http://me:x@a,http://me:y@b").is_err());
        assert!(Connection::to_url("http://me@a,http://you@b").is_err());
    }

    #[test]
    fn cloud_id_is_decoded_to_an_address() {
        let cloud = |text: &str| Connection::to_cloud(&format!("my:{}", STANDARD.encode(text)));
        let url = |text: &str| cloud(text).unwrap().addresses[0].to_string();
        assert_eq!(url("eu.cloud.io$abc$def"), "https://abc.eu.cloud.io/");
        assert_eq!(url("eu.cloud.io$abc"), "https://abc.eu.cloud.io/");
        assert_eq!(url("eu.cloud.io:9243$abc$def"), "https://abc.eu.cloud.io:9243/");
        assert_eq!(url("eu.cloud.io:9243$abc:9244$def"), "https://abc.eu.cloud.io:9244/");
        assert!(cloud("nothing").is_err() && Connection::to_cloud("x").is_err());
        assert!(cloud("evil.io/$a$").is_err() && cloud("x$u:p@evil.io#$").is_err());
    }

    #[test]
    fn credentials_become_an_authorization_header() {
        let value = |credentials: Credentials| credentials.header().unwrap();
        let key = |text: &str| value(Credentials::ApiKey(Secret::new(text)));
        assert_eq!(key("id:key"), key(&STANDARD.encode("id:key")));
        assert_eq!(value(Credentials::Bearer(Secret::new("a.b.c"))), "Bearer a.b.c");
        assert!(Credentials::Bearer(Secret::new("a\nb")).header().is_err());
        let (user, password) = ("a:b".into(), Secret::new("c"));
        assert!(Credentials::Basic { user, password }.header().is_err());
    }

    #[test]
    fn invalid_header_is_refused_without_repeating_it() {
        assert!("X-Tenant: blue".parse::<RequestHeader>().is_ok());
        assert!("X-Empty:".parse::<RequestHeader>().is_ok());
        for wrong in [
            "hidden-value",
            "a b: hidden-value",
            ": hidden-value",
            "X: hidden\nvalue",
            "Accept: hidden",
        ] {
            let message = wrong.parse::<RequestHeader>().unwrap_err().to_string();
            assert!(message.contains("header") && !message.contains("hidden"), "{message}");
        }
        let mut connection = Connection::to_url("http://me:x@host").unwrap();
        connection.headers = vec!["authorization: Basic x".parse().unwrap()];
        assert!(connection.headers().is_err());
        connection.credentials = None;
        assert!(connection.headers().unwrap()["authorization"].is_sensitive());
    }
}
