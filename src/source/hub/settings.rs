//! Settings of the hub and its cache, read from options and environment in one place.

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

/// The caller's options for the hub. They take precedence over the environment.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct HubOptions {
    /// The access token.
    pub access_token: Option<Token>,
    /// A file with certificates to trust in addition to the system's, in PEM format.
    pub ca_certs: Option<PathBuf>,
    /// Whether only the cache may be used.
    pub offline: bool,
}

/// All settings of the hub's client.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HubSettings {
    /// The hub or a mirror. The path ends with a slash.
    pub(super) endpoint: Url,
    /// Other addresses of the hub. The endpoint may redirect to them, and the token may be sent to them.
    pub hub_addresses: Vec<Url>,
    /// The access token. It is sent only to the endpoint and to `hub_addresses`.
    pub token: Option<Token>,
    /// The folder of the cache, with one folder per repository.
    pub cache: PathBuf,
    /// Whether only the cache may be used.
    pub offline: bool,
    /// Whether snapshots consist of links to blobs. Otherwise they consist of files.
    pub links: bool,
    /// A file with certificates to trust in addition to the system's, in PEM format.
    pub ca_certs: Option<PathBuf>,
    /// Time to wait for the next data of a connection.
    pub read_timeout: Duration,
    /// Time to wait for the hub's listing if the model is complete in the cache.
    pub listing_timeout: Duration,
    /// Upper limit of the wait after a first failure. The limit doubles for each further wait.
    pub backoff: Duration,
    /// The download of large files over several connections.
    pub ranges: RangeSettings,
}

/// Settings for the download of large files in ranges.
#[derive(Debug, Clone)]
pub struct RangeSettings {
    /// The bytes of the smallest file that is downloaded in ranges.
    pub smallest_file: u64,
    /// The bytes of a range.
    pub length: u64,
    /// Number of ranges that are downloaded at a time.
    pub connections: usize,
}

impl Default for RangeSettings {
    /// Eight ranges of 4 MiB for files of 64 MiB and more, which takes at most 32 MiB of memory.
    fn default() -> Self {
        Self { smallest_file: 64 << 20, length: 4 << 20, connections: 8 }
    }
}

/// An access token. Its debug form does not show it.
#[derive(Clone)]
pub struct Token {
    secret: Secret,
    /// The setting or file that holds the token, for messages.
    pub(super) origin: &'static str,
}

/// The origin of tokens that `hf auth login` has stored.
pub(super) const TOKEN_FILE: &str = "the token file of `hf auth login`";

impl Token {
    /// Trims white space around a token. Returns `None` if nothing else is in the text.
    #[must_use]
    pub fn new(secret: &str, origin: &'static str) -> Option<Self> {
        let secret = secret.trim();
        (!secret.is_empty()).then(|| Self { secret: Secret::new(secret), origin })
    }

    /// Names another setting or file as the origin of the token, for messages.
    #[must_use]
    pub fn from_origin(self, origin: &'static str) -> Self {
        Self { origin, ..self }
    }

    /// The value of the `Authorization` header.
    pub(super) fn header(&self) -> String {
        format!("Bearer {}", self.secret.expose())
    }
}

impl FromStr for Token {
    type Err = Infallible;

    fn from_str(secret: &str) -> Result<Self, Infallible> {
        Ok(Self { secret: Secret::new(secret.trim()), origin: "the options" })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(from {}, …)", self.origin)
    }
}

const ENDPOINT: &str = "https://huggingface.co";
/// Other addresses that lead to the hub.
const HUB_ADDRESSES: [&str; 2] = [ENDPOINT, "https://hf.co"];
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const LISTING_TIMEOUT: Duration = Duration::from_secs(10);
const BACKOFF: Duration = Duration::from_millis(500);

impl HubSettings {
    /// Settings for an endpoint and a cache, without a token.
    ///
    /// # Errors
    /// If the endpoint is not an http or https address, or contains a user and a password.
    pub fn new(endpoint: &str, cache: PathBuf) -> Result<Self, HubError> {
        Ok(Self {
            endpoint: endpoint_url(endpoint)?,
            hub_addresses: HUB_ADDRESSES.into_iter().filter_map(|it| it.parse().ok()).collect(),
            token: None,
            cache,
            offline: false,
            links: true,
            ca_certs: None,
            read_timeout: READ_TIMEOUT,
            listing_timeout: LISTING_TIMEOUT,
            backoff: BACKOFF,
            ranges: RangeSettings::default(),
        })
    }

    /// Reads the same environment variables as Python's huggingface_hub.
    ///
    /// # Errors
    /// If the value of a variable is not valid, or no folder for the cache can be determined.
    pub fn from_environment(options: HubOptions) -> Result<Self, HubError> {
        Self::from(options, |name| env::var_os(name).filter(|value| !value.is_empty()))
    }

    fn from(
        options: HubOptions,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, HubError> {
        let text = |name: &str| variable(name).and_then(|value| value.into_string().ok());
        let is_true = |name: &str| text(name).map(|value| is_true(&value));
        let home = variable("HOME").or_else(|| variable("USERPROFILE")).map(PathBuf::from);
        let path = |name: &str| Some(expanded(&variable(name)?, home.as_ref(), &variable));
        let hf_home = path("HF_HOME").or_else(|| {
            let cache = path("XDG_CACHE_HOME").or(home.as_ref().map(|home| home.join(".cache")))?;
            Some(cache.join("huggingface"))
        });
        let cache = path("HF_HUB_CACHE")
            .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| hf_home.as_ref().map(|home| home.join("hub")))
            .ok_or_else(|| HubError::Setting {
                name: "HF_HOME",
                reason: "neither HF_HOME nor HOME is set, so there is no folder for the cache"
                    .into(),
            })?;
        let mut settings = Self::new(text("HF_ENDPOINT").as_deref().unwrap_or(ENDPOINT), cache)?;
        settings.offline = options.offline
            || is_true("HF_HUB_OFFLINE").or_else(|| is_true("TRANSFORMERS_OFFLINE")) == Some(true);
        settings.links = is_true("HF_HUB_DISABLE_SYMLINKS") != Some(true);
        settings.ca_certs = options.ca_certs;
        let seconds = |name: &'static str, default| {
            let Some(seconds) = text(name) else { return Ok(default) };
            let seconds = seconds.trim().parse().ok().filter(|seconds| *seconds > 0);
            let reason = "the value must be a positive number of seconds".to_owned();
            seconds.map(Duration::from_secs).ok_or(HubError::Setting { name, reason })
        };
        settings.read_timeout = seconds("HF_HUB_DOWNLOAD_TIMEOUT", READ_TIMEOUT)?;
        settings.listing_timeout = seconds("HF_HUB_ETAG_TIMEOUT", LISTING_TIMEOUT)?;
        let implicit = is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN") != Some(true);
        let stored = || {
            let path = path("HF_TOKEN_PATH").or_else(|| Some(hf_home.as_ref()?.join("token")))?;
            Token::new(&fs::read_to_string(path).ok()?, TOKEN_FILE)
        };
        // An empty option or variable counts as not set.
        let option = options.access_token.filter(|token| !token.secret.expose().is_empty());
        settings.token = option.or_else(|| {
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

    /// Whether an address belongs to the hub, so that the token may be sent to it.
    pub(super) fn is_hub(&self, url: &Url) -> bool {
        let is_same = |hub: &Url| url.origin() == hub.origin();
        is_same(&self.endpoint) || self.hub_addresses.iter().any(is_same)
    }

    /// The address of the endpoint for an address of the hub. Mirrors pass on the hub's answers with the hub's own addresses.
    pub(super) fn at_endpoint(&self, url: Url) -> Url {
        let hub = self.hub_addresses.iter().find(|hub| hub.origin() == url.origin());
        if hub.is_none() || url.origin() == self.endpoint.origin() {
            return url;
        }
        let mut moved = self.endpoint.clone();
        moved.set_path(&format!("{}{}", self.endpoint.path(), url.path().trim_start_matches('/')));
        moved.set_query(url.query());
        moved
    }

    /// The address of a page of the hub, for messages.
    pub(super) fn page(&self, path: &str) -> String {
        format!("{}/{path}", self.endpoint.as_str().trim_end_matches('/'))
    }
}

/// Host name and port of an address, for messages. The rest of the address may contain a signature.
pub(super) fn host(url: &Url) -> String {
    let name = url.host_str().unwrap_or("(no host)");
    url.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"))
}

/// Whether the value of a variable means "yes" to huggingface_hub.
fn is_true(value: &str) -> bool {
    ["1", "ON", "YES", "TRUE"].contains(&value.to_ascii_uppercase().as_str())
}

/// Whether HF_HUB_DISABLE_PROGRESS_BARS is set, with which huggingface_hub shows no progress bars.
#[must_use]
pub fn progress_bars_are_disabled() -> bool {
    env::var("HF_HUB_DISABLE_PROGRESS_BARS").is_ok_and(|value| is_true(&value))
}

/// A path with `~` and `$VARIABLE` replaced, as Python's `expanduser` and `expandvars` do. Variables that are not set stay as they are.
fn expanded(
    path: &OsString,
    home: Option<&PathBuf>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> PathBuf {
    let Some(text) = path.to_str() else { return path.into() };
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        let (name, length) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some((name, _)) => (name, name.len() + 2),
            None => {
                let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
                let end = after.find(|c| !is_name(c)).unwrap_or(after.len());
                (&after[..end], end)
            }
        };
        result += before;
        match variable(name).and_then(|value| value.into_string().ok()) {
            Some(value) if !name.is_empty() => result += &value,
            _ => result += &format!("${}", &after[..length]),
        }
        rest = &after[length..];
    }
    let path = PathBuf::from(result + rest);
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) if text.starts_with('~') => home.join(rest),
        _ => path,
    }
}

fn endpoint_url(address: &str) -> Result<Url, HubError> {
    // The value may contain a password, so no message repeats it.
    let invalid =
        |reason: &str| HubError::Setting { name: "HF_ENDPOINT", reason: reason.to_owned() };
    let no_address = || invalid("the value must start with http:// or https:// and a host");
    let mut url = Url::parse(address.trim()).map_err(|_| no_address())?;
    if !["http", "https"].contains(&url.scheme()) || !url.has_host() {
        return Err(no_address());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid(
            "the value contains a user and a password; set HF_TOKEN to a token instead",
        ));
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
    fn cache_folder_is_that_of_python() {
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
        let user = ("USER", "me");
        for (value, expected) in [
            ("~/a/$USER/hub", "/home/me/a/me/hub"),
            ("$HOME/${USER}_x", "/home/me/me_x"),
            ("/data/$UNSET/${UNSET}/$", "/data/$UNSET/${UNSET}/$"),
            ("/data/~/x${", "/data/~/x${"),
        ] {
            let cache = cache(&[home, user, ("HF_HUB_CACHE", value)]).unwrap();
            assert_eq!(cache, Path::new(expected), "{value}");
        }
    }

    #[test]
    fn token_is_the_first_that_is_set_and_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        fs::write(&file, "hf_file\n").unwrap();
        let hf_home = ("HF_HOME", folder.path().to_str().unwrap());
        let header = |options, variables: &[(&str, &str)]| {
            let settings = read(options, variables).unwrap();
            assert!(!format!("{settings:?}").contains("hf_"), "{settings:?}");
            settings.token.map(|token| token.header())
        };
        let option = || HubOptions {
            access_token: Token::new("hf_option", "the options"),
            ..HubOptions::default()
        };
        let variable = ("HF_TOKEN", " hf_variable ");
        let expected = |token: &str| Some(format!("Bearer {token}"));
        assert_eq!(header(HubOptions::default(), &[hf_home]), expected("hf_file"));
        assert_eq!(header(HubOptions::default(), &[hf_home, variable]), expected("hf_variable"));
        assert_eq!(header(option(), &[hf_home, variable]), expected("hf_option"));
        let other = ("HF_TOKEN_PATH", file.to_str().unwrap());
        assert_eq!(
            header(HubOptions::default(), &[("HF_HOME", "/none"), other]),
            expected("hf_file")
        );
        let without = ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1");
        assert_eq!(header(HubOptions::default(), &[hf_home, variable, without]), None);
    }

    #[test]
    fn environment_sets_offline_links_timeouts_and_endpoint() {
        let home = ("HF_HOME", "/h");
        let offline =
            |variables: &[(&str, &str)]| read(HubOptions::default(), variables).unwrap().offline;
        assert!(
            offline(&[home, ("HF_HUB_OFFLINE", "1")])
                && offline(&[home, ("HF_HUB_OFFLINE", "true")])
        );
        assert!(!offline(&[home, ("HF_HUB_OFFLINE", "0")]) && !offline(&[home]));
        let settings = |variables: &[(&str, &str)]| read(HubOptions::default(), variables);
        assert!(settings(&[home]).unwrap().links);
        let disabled = settings(&[home, ("HF_HUB_DISABLE_SYMLINKS", "yes")]).unwrap();
        assert!(!disabled.links);
        let timeout = settings(&[home, ("HF_HUB_ETAG_TIMEOUT", "3")]).unwrap().listing_timeout;
        assert_eq!(timeout, Duration::from_secs(3));
        assert!(settings(&[home, ("HF_HUB_DOWNLOAD_TIMEOUT", "0")]).is_err());
        let endpoint = |address| read(HubOptions::default(), &[home, ("HF_ENDPOINT", address)]);
        let url = endpoint("https://mirror.example/hf").unwrap().url(&["api", "refs/pr/1"]);
        assert_eq!(url.as_str(), "https://mirror.example/hf/api/refs%2Fpr%2F1");
        for address in ["mirror", "ftp://x", "https://me:secret@x"] {
            let error = endpoint(address).unwrap_err().to_string();
            assert!(error.contains("HF_ENDPOINT") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn addresses_of_the_hub_are_rewritten_for_a_mirror() {
        let settings = HubSettings::new("https://mirror.example/hf", "/c".into()).unwrap();
        let moved = |address: &str| settings.at_endpoint(address.parse().unwrap()).to_string();
        assert_eq!(
            moved("https://huggingface.co/api/models/a/tree/x?cursor=1"),
            "https://mirror.example/hf/api/models/a/tree/x?cursor=1"
        );
        assert_eq!(moved("https://cdn.example/x"), "https://cdn.example/x");
        assert!(settings.is_hub(&"https://hf.co/x".parse().unwrap()));
        assert!(!settings.is_hub(&"http://hf.co/x".parse().unwrap()));
        assert!(!settings.is_hub(&"https://cdn.example/x".parse().unwrap()));
    }
}
