//! Information about a server in the response to `GET /` (contract 1).

use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::Value;

use crate::version::Version;

/// The identity of an Elasticsearch server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServerInfo {
    pub(super) version: Version,
    /// Whether Elastic runs the server and decides on nodes and versions.
    pub(super) serverless: bool,
    /// The uuid of the cluster; `None` for a node that has not joined its cluster.
    pub(super) cluster_uuid: Option<String>,
}

impl ServerInfo {
    /// Parses a response to `GET /`.
    ///
    /// # Errors
    /// The reason why the server is not Elasticsearch.
    pub(super) fn read(headers: &HeaderMap, body: &Value) -> Result<Self, String> {
        let number = body["version"]["number"].as_str().unwrap_or_default();
        let distribution = &body["version"]["distribution"];
        let product = headers.get("x-elastic-product").map(HeaderValue::as_bytes);
        // Releases before 7.14 did not send the header.
        let is_old = body["tagline"] == "You Know, for Search"
            && distribution.is_null()
            && number.parse().is_ok_and(|version: Version| version < Version::OLDEST);
        if product != Some(b"Elasticsearch") && !is_old {
            return Err(if *distribution == "opensearch" {
                format!("it is OpenSearch {number}, which does not have the trained-models API")
            } else {
                "its answer lacks the header X-Elastic-Product".to_owned()
            });
        }
        let uuid = body["cluster_uuid"].as_str().filter(|uuid| *uuid != "_na_");
        Ok(Self {
            version: number.parse()?,
            serverless: body["version"]["build_flavor"] == "serverless",
            cluster_uuid: uuid.map(str::to_owned),
        })
    }

    /// Whether the server has the features of a version. Serverless has all of them; its version number has no meaning.
    pub(super) fn supports(&self, version: Version) -> bool {
        self.serverless || self.version >= version
    }

    /// The reason why another server cannot replace this one, if there is one. A node of another version is also rejected, because
    /// the model was converted for this version.
    pub(super) fn difference(&self, other: &Self) -> Option<String> {
        match (&self.cluster_uuid, &other.cluster_uuid) {
            (Some(ours), Some(theirs)) if ours != theirs => {
                return Some(format!("its cluster uuid is {theirs}, not {ours}"));
            }
            _ => {}
        }
        if self.serverless != other.serverless {
            let kind = |serverless| if serverless { "serverless" } else { "not serverless" };
            return Some(format!("it is {}", kind(other.serverless)));
        }
        (self.version != other.version)
            .then(|| format!("its version is {}, not {}", other.version, self.version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn difference_names_uuid_flavor_and_version() {
        let info = |version: &str, serverless, uuid: Option<&str>| ServerInfo {
            version: version.parse().unwrap(),
            serverless,
            cluster_uuid: uuid.map(str::to_owned),
        };
        let ours = info("9.0.0", false, Some("a"));
        for (other, difference) in [
            (info("9.0.0", false, Some("a")), None),
            (info("9.0.0", false, None), None),
            (info("9.0.0", false, Some("b")), Some("its cluster uuid is b, not a")),
            (info("9.0.0", true, Some("a")), Some("it is serverless")),
            (info("8.19.0", false, Some("a")), Some("its version is 8.19.0, not 9.0.0")),
        ] {
            assert_eq!(ours.difference(&other).as_deref(), difference);
        }
    }
}
