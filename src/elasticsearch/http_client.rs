//! The HTTP client for a cluster: TLS, proxies and timeouts.

use std::time::Duration;

use reqwest::Url;

use super::{ClientError, Connection, KibanaAddress, Trust, tls};
use crate::error_chain::causes;
use crate::proxies::Proxies;
use crate::secrets::redact;

/// Timeout of a single response. Storing a part on a busy cluster takes long; eland uses the same timeout.
const TIMEOUT: Duration = Duration::from_secs(300);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// Builds the HTTP client for a connection.
///
/// # Errors
/// When certificates or keys cannot be read.
pub(super) fn build(
    connection: &Connection,
    proxies: &Proxies,
) -> Result<reqwest::Client, ClientError> {
    let uses_tls = |address: &Url| {
        let proxy = proxies.on_the_way_to(address);
        address.scheme() == "https" || proxy.is_some_and(|proxy| proxy.starts_with("https:"))
    };
    let kibana = connection.kibana.iter().map(KibanaAddress::url);
    let uses_tls = connection.addresses.iter().chain(kibana).any(uses_tls);
    let tls =
        tls::configuration(&connection.trust, connection.client_certificate.as_ref(), uses_tls)?;
    if connection.trust == Trust::Anyone {
        tracing::warn!(
            "the cluster's certificate is not verified: anyone on the network path can read and change what is sent"
        );
    }
    let builder = reqwest::Client::builder();
    let builder = if connection.proxies { builder } else { builder.no_proxy() };
    // Some proxies close a connection after a response without announcing it, and the next request on it would be lost.
    let is_relayed =
        |address: &Url| address.scheme() == "http" && proxies.on_the_way_to(address).is_some();
    let builder = match connection.addresses.iter().any(is_relayed) {
        true => builder.pool_max_idle_per_host(0),
        false => builder,
    };
    builder
        .user_agent(concat!("rust-eland/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(TIMEOUT)
        // A redirect would carry the credentials somewhere else.
        .redirect(reqwest::redirect::Policy::none())
        .tls_backend_preconfigured(tls)
        // Each response carries the certificate of the server.
        .tls_info(true)
        .build()
        .map_err(|error| ClientError::Tls(redact(&causes(&error))))
}
