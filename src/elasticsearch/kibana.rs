//! Kibana: the synchronization of its saved objects, after which Kibana lists models that were stored or deleted through the API.

use std::time::Duration;

use reqwest::Url;
use reqwest::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::Value;

use super::{Client, ClientError, Connection};
use crate::error_chain::causes;
use crate::hint::Setting;
use crate::secrets::redact;

/// The address of Kibana, which can contain the path of a space (`/s/SPACE`). The path ends in a slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KibanaAddress(Url);

/// Timeout of the synchronization. Kibana reads all jobs and models of the cluster.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The pages of Kibana's user interface start with this part of the path.
const PAGES: &str = "/app/";

/// Kibana synchronized its saved objects, or did not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct KibanaSync {
    /// Whether Kibana lists the models of the cluster now.
    pub synchronized: bool,
    /// Why not.
    pub problem: Option<String>,
}

impl KibanaAddress {
    /// Reads an address. Credentials in the address are refused, because Kibana gets those of the cluster. The address of a page is
    /// cut before `/app/`.
    ///
    /// # Errors
    /// [`ClientError`] if the address is not http or https, or contains credentials.
    pub fn read(address: &str) -> Result<Self, ClientError> {
        // The address may contain a password, so no message repeats it.
        let setting = Setting::KibanaUrl;
        let invalid = |reason: String| ClientError::Setting { setting, reason };
        let known = Connection::to_url(address).map_err(|error| match error {
            ClientError::Address(reason) => invalid(reason),
            other => invalid(other.to_string()),
        })?;
        if known.credentials.is_some() || known.user.is_some() {
            return Err(invalid(
                "it contains a user name, but Kibana gets the credentials of the cluster".into(),
            ));
        }
        let [url] = known.addresses.as_slice() else {
            return Err(invalid("it is not exactly one address".into()));
        };
        let mut url = url.clone();
        if let Some((base, _)) = url.path().split_once(PAGES) {
            let base = format!("{base}/");
            url.set_path(&base);
        }
        Ok(Self(url))
    }

    pub(super) fn url(&self) -> &Url {
        &self.0
    }
}

impl Client {
    /// Lets Kibana synchronize its saved objects, if the connection names a Kibana. A failure is logged as a warning and changes nothing
    /// in the cluster.
    pub async fn synchronize_kibana(&self) -> Option<KibanaSync> {
        let kibana = self.kibana.as_ref()?;
        let problem = self.ask_kibana(kibana).await.err();
        if let Some(problem) = &problem {
            tracing::warn!(
                "Kibana does not list the change yet, because {} did not synchronize its saved objects: {problem}. Synchronize them in \
                 Kibana: Machine Learning, Trained Models",
                kibana.0
            );
        }
        Some(KibanaSync { synchronized: problem.is_none(), problem })
    }

    async fn ask_kibana(&self, kibana: &KibanaAddress) -> Result<(), String> {
        let url = kibana.0.join("api/ml/saved_objects/sync").map_err(|error| error.to_string())?;
        let mut headers = self.headers.clone();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        // Kibana answers requests of programs only with this header.
        headers.insert(HeaderName::from_static("kbn-xsrf"), HeaderValue::from_static("true"));
        tracing::debug!("> GET {url}");
        let request = self.http.get(url).headers(headers).timeout(TIMEOUT).send();
        let unreachable = |error: reqwest::Error| redact(&causes(&error.without_url()));
        let response = request.await.map_err(unreachable)?;
        let status = response.status();
        let location = location(response.headers());
        let text = response.text().await.map_err(unreachable)?;
        tracing::debug!("< {status} ({} bytes)", text.len());
        let answer: Option<Value> = serde_json::from_str(&text).ok();
        match answer {
            Some(answer) if status.is_success() => problem_of(&answer).map_or(Ok(()), Err),
            Some(answer) => {
                let reason = answer["message"].as_str().or_else(|| answer["error"].as_str());
                Err(format!("{status}: {}", redact(reason.unwrap_or("no reason"))))
            }
            None if status.is_redirection() => Err(format!("{status}: it redirects to {location}")),
            None => {
                Err(format!("{status}, and the answer is not JSON: check the address of Kibana"))
            }
        }
    }
}

fn location(headers: &HeaderMap) -> String {
    let location = headers.get(reqwest::header::LOCATION).and_then(|value| value.to_str().ok());
    redact(location.unwrap_or("another address"))
}

/// The first model that Kibana could not add or remove.
fn problem_of(answer: &Value) -> Option<String> {
    // Another service may answer with any JSON.
    if !answer["savedObjectsCreated"].is_object() {
        return Some("the answer is not that of Kibana: check the address of Kibana".into());
    }
    let changes = ["savedObjectsCreated", "savedObjectsDeleted"].into_iter();
    let mut models = changes
        .filter_map(|change| answer[change]["trained-model"].as_object())
        .flatten()
        .filter(|(_, result)| result["success"] == false);
    models.next().map(|(id, result)| {
        let error = &result["error"];
        let reason = error["message"].as_str().or(error.as_str()).unwrap_or("no reason");
        redact(&format!("Kibana could not change the model {id}: {reason}"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn address_keeps_the_space_and_drops_the_page() {
        let read = |text: &str| KibanaAddress::read(text).map(|address| address.0.to_string());
        assert_eq!(read("https://kibana:5601").unwrap(), "https://kibana:5601/");
        assert_eq!(read("http://host/base/s/team").unwrap(), "http://host/base/s/team/");
        let page = "http://host/s/team/app/ml/trained_models?_g=()";
        assert_eq!(read(page).unwrap(), "http://host/s/team/");
        for wrong in ["kibana:5601", "http://me:hidden@host", "http://a,http://b", "ftp://x"] {
            let message = read(wrong).unwrap_err().to_string();
            assert!(message.contains("Kibana URL") && !message.contains("hidden"), "{message}");
        }
    }

    #[test]
    fn failed_change_of_a_model_is_a_problem() {
        let answer = |changes: Value| {
            problem_of(&json!({"savedObjectsCreated": changes, "savedObjectsDeleted": {}}))
        };
        assert_eq!(answer(json!({"trained-model": {"m": {"success": true}}})), None);
        let failed =
            json!({"trained-model": {"m": {"success": false, "error": {"message": "no"}}}});
        assert_eq!(answer(failed).unwrap(), "Kibana could not change the model m: no");
        assert!(problem_of(&json!({"name": "es"})).unwrap().contains("address of Kibana"));
    }
}
