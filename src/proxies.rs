//! Proxies from the environment: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, with the rules of curl.
//!
//! The HTTP library uses these proxies on its own. This module registers their secrets, and finds the proxy of an address for
//! errors.

use std::env;

use hyper_util::client::proxy::matcher::Matcher;
use percent_encoding::percent_decode_str;
use reqwest::Url;

use crate::secrets::Secret;

/// Environment variables. In each row, the first variable that is set counts.
const VARIABLES: [[&str; 2]; 3] =
    [["HTTPS_PROXY", "https_proxy"], ["HTTP_PROXY", "http_proxy"], ["ALL_PROXY", "all_proxy"]];

/// Proxies from the environment. By default, no proxy is used.
#[derive(Debug, Default)]
pub(crate) struct Proxies(Option<Matcher>);

impl Proxies {
    /// Reads the environment. Warns about a value that is not the address of a proxy, because the HTTP library ignores it silently.
    pub(crate) fn from_environment() -> Self {
        for [upper, lower] in VARIABLES {
            let first =
                [upper, lower].into_iter().find_map(|name| Some((name, env::var(name).ok()?)));
            let Some((name, value)) = first.filter(|(_, value)| !value.is_empty()) else {
                continue;
            };
            register_secrets(&value);
            let matcher = Matcher::builder().all(value).build();
            if intercept(&matcher, "http://example/").is_none() {
                tracing::warn!(
                    "{name} is ignored: it is not the address of a proxy (http://host:port)"
                );
            }
        }
        Self(Some(Matcher::from_system()))
    }

    /// The proxy for an address, without user and password.
    pub(crate) fn on_the_way_to(&self, address: &Url) -> Option<String> {
        intercept(self.0.as_ref()?, address.as_str())
    }
}

fn intercept(matcher: &Matcher, address: &str) -> Option<String> {
    Some(matcher.intercept(&address.parse().ok()?)?.uri().to_string())
}

/// Registers user and password of a proxy as secrets, in all forms in which they can appear.
fn register_secrets(address: &str) {
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
