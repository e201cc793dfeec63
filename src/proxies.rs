//! The proxies that the environment names: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, as curl reads them.
//!
//! The HTTP library goes through them by itself. Here their secrets are remembered, and errors learn which one was in the way.

use std::env;

use hyper_util::client::proxy::matcher::Matcher;
use percent_encoding::percent_decode_str;
use reqwest::Url;

use crate::secrets::Secret;

/// The variables, the first one set of each row counts.
const VARIABLES: [[&str; 2]; 3] =
    [["HTTPS_PROXY", "https_proxy"], ["HTTP_PROXY", "http_proxy"], ["ALL_PROXY", "all_proxy"]];

/// The proxies of the environment; none by default.
#[derive(Debug, Default)]
pub(crate) struct Proxies(Option<Matcher>);

impl Proxies {
    /// Reads the environment. A value that is no address of a proxy is told, for the HTTP library ignores it.
    pub(crate) fn from_environment() -> Self {
        for [upper, lower] in VARIABLES {
            let first =
                [upper, lower].into_iter().find_map(|name| Some((name, env::var(name).ok()?)));
            let Some((name, value)) = first.filter(|(_, value)| !value.is_empty()) else {
                continue;
            };
            remember(&value);
            let anywhere = Matcher::builder().all(value).build();
            if intercept(&anywhere, "http://example/").is_none() {
                tracing::warn!(
                    "{name} is ignored: it is not the address of a proxy (http://host:port)"
                );
            }
        }
        Self(Some(Matcher::from_system()))
    }

    /// The proxy on the way to an address, without user and password.
    pub(crate) fn on_the_way_to(&self, address: &Url) -> Option<String> {
        intercept(self.0.as_ref()?, address.as_str())
    }
}

fn intercept(matcher: &Matcher, address: &str) -> Option<String> {
    Some(matcher.intercept(&address.parse().ok()?)?.uri().to_string())
}

/// Remembers user and password of a proxy's address in the forms in which they may appear.
fn remember(address: &str) {
    let authority = address.split_once("://").map_or(address, |(_, rest)| rest);
    let Some((user_info, _)) = authority.rsplit_once('@') else { return };
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
    for secret in [user_info, password] {
        let _ = Secret::new(secret);
        let _ = Secret::new(decoded(secret));
    }
    let _ = Secret::new(format!("{}:{}", decoded(user), decoded(password)));
}
