//! Where the hub and its cache are: what options and environment say, read in one place.

use std::convert::Infallible;
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use reqwest::Url;

use super::HubError;
use crate::secrets::Secret;

/// What the command line says about the hub.
#[derive(Debug, Clone, Default)]
pub struct HubOptions {
    /// `--hub-access-token`.
    pub access_token: Option<Token>,
    /// `--hub-ca-certs`.
    pub ca_certs: Option<PathBuf>,
    /// `--offline`.
    pub offline: bool,
}

/// All that the hub's client goes by.
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// The hub or a mirror; its path ends in a slash.
    pub(super) endpoint: Url,
    /// Sent to the endpoint, and to nobody else.
    pub token: Option<Token>,
    /// The folder with a folder per repository.
    pub cache: PathBuf,
    /// Only the cache may be used.
    pub offline: bool,
    /// Certificates to trust beside the system's, in PEM.
    pub ca_certs: Option<PathBuf>,
    /// How long the other side may be silent.
    pub read_timeout: Duration,
    /// How long to wait after a first failure; doubled after each.
    pub backoff: Duration,
}

/// An access token. Its debug form does not show it.
#[derive(Clone)]
pub struct Token {
    secret: Secret,
    /// Where it came from, for messages.
    pub(super) origin: &'static str,
}

impl Token {
    /// Takes what the user gives; surrounding white space is none of it. Nothing where nothing is left.
    #[must_use]
    pub fn new(secret: &str, origin: &'static str) -> Option<Self> {
        let secret = secret.trim();
        (!secret.is_empty()).then(|| Self { secret: Secret::new(secret), origin })
    }

    /// The value of the `Authorization` header.
    pub(super) fn header(&self) -> String {
        format!("Bearer {}", self.secret.expose())
    }
}

impl FromStr for Token {
    type Err = Infallible;

    fn from_str(secret: &str) -> Result<Self, Infallible> {
        let origin = "--hub-access-token or HUB_ACCESS_TOKEN";
        Ok(Self { secret: Secret::new(secret.trim()), origin })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(from {}, …)", self.origin)
    }
}

const ENDPOINT: &str = "https://huggingface.co";
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const BACKOFF: Duration = Duration::from_millis(500);

impl HubSettings {
    /// Settings for an endpoint and a cache, with no token.
    ///
    /// # Errors
    /// When the endpoint is no http or https address, or carries user and password.
    pub fn new(endpoint: &str, cache: PathBuf) -> Result<Self, HubError> {
        Ok(Self {
            endpoint: endpoint_url(endpoint)?,
            token: None,
            cache,
            offline: false,
            ca_certs: None,
            read_timeout: READ_TIMEOUT,
            backoff: BACKOFF,
        })
    }

    /// Reads the environment as Python's huggingface_hub does, with the options before it.
    ///
    /// # Errors
    /// When a variable cannot be used, or there is no folder for the cache.
    pub fn from_environment(options: HubOptions) -> Result<Self, HubError> {
        Self::from(options, |name| env::var_os(name).filter(|value| !value.is_empty()))
    }

    fn from(
        options: HubOptions,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, HubError> {
        let text = |name: &str| variable(name).and_then(|value| value.into_string().ok());
        let is_true = |name: &str| {
            let on = |value: String| {
                ["1", "ON", "YES", "TRUE"].contains(&value.to_ascii_uppercase().as_str())
            };
            text(name).map(on)
        };
        let home = variable("HOME").or_else(|| variable("USERPROFILE")).map(PathBuf::from);
        let path = |name: &str| {
            let path = PathBuf::from(variable(name)?);
            Some(match (path.strip_prefix("~"), &home) {
                (Ok(rest), Some(home)) => home.join(rest),
                _ => path,
            })
        };
        let hf_home = path("HF_HOME").or_else(|| {
            let cache = path("XDG_CACHE_HOME").or(home.as_ref().map(|home| home.join(".cache")))?;
            Some(cache.join("huggingface"))
        });
        let cache = path("HF_HUB_CACHE")
            .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| hf_home.as_ref().map(|home| home.join("hub")))
            .ok_or_else(|| HubError::Setting {
                name: "HF_HOME",
                reason: "neither it nor HOME is set, so there is no place for the cache; set it to a folder".into(),
            })?;
        let mut settings = Self::new(text("HF_ENDPOINT").as_deref().unwrap_or(ENDPOINT), cache)?;
        settings.offline = options.offline
            || is_true("HF_HUB_OFFLINE").or_else(|| is_true("TRANSFORMERS_OFFLINE")) == Some(true);
        settings.ca_certs = options.ca_certs;
        if let Some(seconds) = text("HF_HUB_DOWNLOAD_TIMEOUT") {
            let seconds = seconds.parse().ok().filter(|seconds| *seconds > 0);
            settings.read_timeout =
                seconds.map(Duration::from_secs).ok_or_else(|| HubError::Setting {
                    name: "HF_HUB_DOWNLOAD_TIMEOUT",
                    reason: "it is not a number of seconds".into(),
                })?;
        }
        let implicit = is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN") != Some(true);
        let stored = || {
            let path = path("HF_TOKEN_PATH").or_else(|| Some(hf_home.as_ref()?.join("token")))?;
            Token::new(&fs::read_to_string(path).ok()?, "the token file")
        };
        // An empty variable is as good as none.
        let given = options.access_token.filter(|token| !token.secret.expose().is_empty());
        settings.token = given.or_else(|| {
            let named = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]
                .into_iter()
                .find_map(|name| Token::new(&text(name)?, name));
            named.or_else(stored).filter(|_| implicit)
        });
        Ok(settings)
    }

    /// The address of a path below the endpoint. The parts are encoded.
    pub(super) fn url(&self, parts: &[&str]) -> Url {
        let mut url = self.endpoint.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(parts);
        }
        url
    }

    /// Whether an address is the endpoint's own, so that the token may go there.
    pub(super) fn is_endpoint(&self, url: &Url) -> bool {
        url.origin() == self.endpoint.origin()
    }

    /// The endpoint without a slash at its end.
    pub(super) fn page(&self, path: &str) -> String {
        format!("{}/{path}", self.endpoint.as_str().trim_end_matches('/'))
    }
}

/// Name and port of an address, for messages: the rest of it may hold signatures.
pub(super) fn host(url: &Url) -> String {
    let name = url.host_str().unwrap_or("(no host)");
    url.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"))
}

fn endpoint_url(address: &str) -> Result<Url, HubError> {
    // It may hold a password, so no message repeats it.
    let invalid =
        |reason: &str| HubError::Setting { name: "HF_ENDPOINT", reason: reason.to_owned() };
    let mut url = Url::parse(address.trim()).map_err(|error| invalid(&error.to_string()))?;
    if !["http", "https"].contains(&url.scheme()) || !url.has_host() {
        return Err(invalid("it does not begin with http:// or https:// and a host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("it carries user and password; give a token in HF_TOKEN instead"));
    }
    url.set_query(None);
    url.set_fragment(None);
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;

    use super::*;

    fn read(options: HubOptions, variables: &[(&str, &str)]) -> Result<HubSettings, HubError> {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        HubSettings::from(options, |name| variables.get(name).map(OsString::from))
    }

    #[test]
    fn the_cache_is_where_python_has_it() {
        let cache = |variables: &[(&str, &str)]| {
            read(HubOptions::default(), variables).map(|settings| settings.cache)
        };
        let home = ("HOME", "/home/me");
        let of_home = Path::new("/home/me/.cache/huggingface/hub");
        assert_eq!(cache(&[home]).unwrap(), of_home);
        let xdg = ("XDG_CACHE_HOME", "/xdg");
        assert_eq!(cache(&[home, xdg]).unwrap(), Path::new("/xdg/huggingface/hub"));
        let hf_home = ("HF_HOME", "~/hf");
        assert_eq!(cache(&[home, xdg, hf_home]).unwrap(), Path::new("/home/me/hf/hub"));
        let older = ("HUGGINGFACE_HUB_CACHE", "/older");
        assert_eq!(cache(&[home, hf_home, older]).unwrap(), Path::new("/older"));
        assert_eq!(cache(&[older, ("HF_HUB_CACHE", "/c")]).unwrap(), Path::new("/c"));
        assert!(cache(&[]).is_err());
    }

    #[test]
    fn tokens_come_in_order_and_are_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        fs::write(&file, "hf_file\n").unwrap();
        let hf_home = ("HF_HOME", folder.path().to_str().unwrap());
        let header = |options, variables: &[(&str, &str)]| {
            let settings = read(options, variables).unwrap();
            assert!(!format!("{settings:?}").contains("hf_"), "{settings:?}");
            settings.token.map(|token| token.header())
        };
        let given = || HubOptions {
            access_token: Token::new("hf_given", "--hub-access-token"),
            ..HubOptions::default()
        };
        let variable = ("HF_TOKEN", " hf_variable ");
        let expected = |token: &str| Some(format!("Bearer {token}"));
        assert_eq!(header(HubOptions::default(), &[hf_home]), expected("hf_file"));
        assert_eq!(header(HubOptions::default(), &[hf_home, variable]), expected("hf_variable"));
        assert_eq!(header(given(), &[hf_home, variable]), expected("hf_given"));
        let other = ("HF_TOKEN_PATH", file.to_str().unwrap());
        assert_eq!(
            header(HubOptions::default(), &[("HF_HOME", "/none"), other]),
            expected("hf_file")
        );
        let without = ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1");
        assert_eq!(header(HubOptions::default(), &[hf_home, variable, without]), None);
    }

    #[test]
    fn offline_and_endpoint_are_read() {
        let home = ("HF_HOME", "/h");
        let offline =
            |variables: &[(&str, &str)]| read(HubOptions::default(), variables).unwrap().offline;
        assert!(
            offline(&[home, ("HF_HUB_OFFLINE", "1")])
                && offline(&[home, ("HF_HUB_OFFLINE", "true")])
        );
        assert!(!offline(&[home, ("HF_HUB_OFFLINE", "0")]) && !offline(&[home]));
        let endpoint = |address| read(HubOptions::default(), &[home, ("HF_ENDPOINT", address)]);
        let url = endpoint("https://mirror.example/hf").unwrap().url(&["api", "refs/pr/1"]);
        assert_eq!(url.as_str(), "https://mirror.example/hf/api/refs%2Fpr%2F1");
        for address in ["mirror", "ftp://x", "https://me:secret@x"] {
            let error = endpoint(address).unwrap_err().to_string();
            assert!(error.contains("HF_ENDPOINT") && !error.contains("secret"), "{error}");
        }
    }
}
