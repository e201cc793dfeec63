//! Authentication and authorization of requests (contract, 12).

use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::errors::ApiError;
use crate::options::{Credential, Privilege, Secret};

/// Sender of a request.
#[derive(Debug, Clone)]
pub(crate) struct Principal {
    /// Name in error messages.
    name: String,
    privilege: Privilege,
}

/// Authenticates a request. Without configured credentials every request is accepted.
pub(crate) fn authenticate(
    credentials: &[Credential],
    headers: &HeaderMap,
    path: &str,
) -> Result<Principal, ApiError> {
    if credentials.is_empty() {
        return Ok(Principal { name: "user [_anonymous]".into(), privilege: Privilege::Manage });
    }
    let missing = || {
        ApiError::unauthenticated(format!(
            "missing authentication credentials for REST request [{path}]"
        ))
    };
    let unknown = || {
        ApiError::unauthenticated(format!(
            "unable to authenticate with provided credentials and anonymous access is not allowed for REST request [{path}]"
        ))
    };
    let header = headers.get(header::AUTHORIZATION).ok_or_else(missing)?;
    let header = header.to_str().map_err(|_| missing())?;
    let (scheme, supplied) = header.split_once(' ').ok_or_else(missing)?;
    let supplied = supplied.trim();
    let find = |secret: &Secret| credentials.iter().find(|credential| credential.secret == *secret);
    if scheme.eq_ignore_ascii_case("basic") {
        let decoded =
            STANDARD.decode(supplied).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let decoded = decoded.ok_or_else(missing)?;
        let (name, password) = decoded.split_once(':').ok_or_else(missing)?;
        let secret = Secret::User { name: name.to_owned(), password: password.to_owned() };
        let credential = find(&secret).ok_or_else(|| {
            ApiError::unauthenticated(format!(
                "unable to authenticate user [{name}] for REST request [{path}]"
            ))
        })?;
        Ok(Principal { name: format!("user [{name}]"), privilege: credential.privilege })
    } else if scheme.eq_ignore_ascii_case("apikey") {
        let credential = find(&Secret::ApiKey(supplied.to_owned())).ok_or_else(unknown)?;
        let decoded = STANDARD.decode(supplied).unwrap_or_default();
        let id = decoded.split(|byte| *byte == b':').next().unwrap_or_default();
        let name = format!("API key id [{}]", String::from_utf8_lossy(id));
        Ok(Principal { name, privilege: credential.privilege })
    } else if scheme.eq_ignore_ascii_case("bearer") {
        let credential = find(&Secret::Token(supplied.to_owned())).ok_or_else(unknown)?;
        Ok(Principal { name: "service account".into(), privilege: credential.privilege })
    } else {
        Err(missing())
    }
}

impl Principal {
    /// Whether the sender has a privilege.
    pub(crate) fn holds(&self, privilege: Privilege) -> bool {
        self.privilege >= privilege
    }

    /// User name without the brackets used in error messages.
    pub(crate) fn user(&self) -> &str {
        self.name.split_once('[').map_or(&*self.name, |(_, name)| name.trim_end_matches(']'))
    }

    /// Rejects an action if the sender lacks the privilege.
    pub(crate) fn authorize(&self, action: &str, needed: Privilege) -> Result<(), ApiError> {
        if self.holds(needed) {
            return Ok(());
        }
        let granting = match needed {
            Privilege::None => return Ok(()),
            Privilege::Monitor => "monitor_ml,monitor,manage_ml,manage,all",
            Privilege::Manage => "manage_ml,manage,all",
        };
        Err(ApiError::forbidden(format!(
            "action [{action}] is unauthorized for {} with effective roles [viewer], this action is granted by the cluster privileges [{granting}]",
            self.name
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(authorization: Option<&str>) -> Result<Principal, ApiError> {
        let credentials = [
            Credential::user("elastic", "pass:word"),
            Credential::user("reader", "x").allowed(Privilege::Monitor),
            Credential::api_key("aWQ6a2V5"),
            Credential::token("AAEAAWVs"),
        ];
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        }
        authenticate(&credentials, &headers, "/")
    }

    fn basic(text: &str) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    #[test]
    fn credentials_are_distinguished() {
        assert!(ask(Some(&basic("elastic:pass:word"))).is_ok());
        assert!(ask(Some("ApiKey aWQ6a2V5")).is_ok());
        assert!(ask(Some("Bearer AAEAAWVs")).is_ok());
        assert_eq!(
            ask(None).unwrap_err().reason(),
            "missing authentication credentials for REST request [/]"
        );
        assert_eq!(
            ask(Some(&basic("elastic:wrong"))).unwrap_err().reason(),
            "unable to authenticate user [elastic] for REST request [/]"
        );
        for wrong in ["ApiKey aWQ6a2V6", "ApiKey id:key", "Bearer x", "Basic ???", "nonsense"] {
            assert_eq!(ask(Some(wrong)).unwrap_err().status, 401, "{wrong}");
        }
    }

    #[test]
    fn privilege_includes_lower_privileges() {
        let reader = ask(Some(&basic("reader:x"))).unwrap();
        assert!(reader.authorize("cluster:monitor/x", Privilege::Monitor).is_ok());
        let refused = reader.authorize("cluster:admin/x", Privilege::Manage).unwrap_err();
        assert_eq!(refused.status, 403);
        assert!(refused.reason().starts_with(
            "action [cluster:admin/x] is unauthorized for user [reader] with effective roles"
        ));
    }
}
