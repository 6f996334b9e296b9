//! How one shows who one is: what a server asks for, and what it is told (RFC 7235; the token protocol of the
//! distribution registries, `docs/spec/auth/token.md` of distribution/distribution).

use base64ct::{Base64, Encoding as _};
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{RequestBuilder, Url};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::credentials::Credentials;
use super::http::{Ended, Http};
use crate::error::{Error, Result};

/// Largest answer with a token.
const MAX_TOKEN: u64 = 1 << 20;

/// Credentials, and what they came to.
pub struct Auth {
    credentials: Option<Credentials>,
    /// What is asked of a token, as in `repository:web:pull`.
    scope: String,
    header: Mutex<Option<HeaderValue>>,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Auth({})", self.scope)
    }
}

/// What a server asks for.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

impl Auth {
    /// Shows `credentials` when it is asked; `scope` is what the work needs.
    #[must_use]
    pub fn new(credentials: Option<Credentials>, scope: String) -> Self {
        Auth { credentials, scope, header: Mutex::new(None) }
    }

    /// Whether a token is asked for with a body that nobody else may have.
    pub(super) fn sends_secret(&self) -> bool {
        matches!(self.credentials, Some(Credentials::Identity(_)))
    }

    /// What the server has accepted, or none yet.
    pub(super) async fn header(&self) -> Option<HeaderValue> {
        self.header.lock().await.clone()
    }

    /// What to show after an answer with these `headers` to a request that showed `shown`; `over_tls`: it came so.
    ///
    /// # Errors
    /// The server asks for what is not known, or gives no token.
    pub(super) async fn answer(
        &self,
        http: &Http,
        what: &str,
        headers: &HeaderMap,
        over_tls: bool,
        shown: Option<HeaderValue>,
    ) -> Result<HeaderValue, Ended> {
        let mut kept = self.header.lock().await;
        // Another request was faster.
        if let Some(header) = kept.as_ref().filter(|header| Some(*header) != shown.as_ref()) {
            return Ok(header.clone());
        }
        let header = match challenge(headers) {
            Some(Challenge::Bearer { realm, service }) => {
                let token = self.token(http, what, over_tls, &realm, service.as_deref()).await?;
                secret(&format!("Bearer {token}"))
            }
            // The same password again would not help.
            Some(Challenge::Basic) if shown.is_none() => match &self.credentials {
                Some(Credentials::Password { user, password }) => secret(&basic(user, password)),
                _ => return Err(Self::refused(what).into()),
            },
            Some(Challenge::Basic) => return Err(Self::refused(what).into()),
            None => return Err(Self::refused(what).cause("it does not say how to log in").into()),
        };
        let header =
            header.ok_or_else(|| Self::refused(what).cause("the credentials are no text"))?;
        *kept = Some(header.clone());
        Ok(header)
    }

    async fn token(
        &self,
        http: &Http,
        what: &str,
        over_tls: bool,
        realm: &str,
        service: Option<&str>,
    ) -> Result<String, Ended> {
        let url = Url::parse(realm).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let Some(url) = url else {
            let why = "the server names no address that gives tokens";
            return Err(Self::refused(what).cause(why).into());
        };
        // Who was asked over TLS does not have a password sent over anything else.
        if url.scheme() == "http" && over_tls && self.credentials.is_some() {
            return Err(Self::refused(what)
                .cause(format!("it wants the password sent without TLS, to `{url}`"))
                .into());
        }
        let response = http.token(what, self.token_request(http, url, service)).await?;
        let status = response.status();
        if !status.is_success() {
            let why = format!("the server that gives tokens answers {status}");
            return Err(Self::refused(what).cause(why).into());
        }
        let bytes = http.bounded(response, MAX_TOKEN).await;
        let token = bytes.and_then(|bytes| serde_json::from_slice::<Token>(&bytes).ok());
        token.and_then(|token| token.token.or(token.access_token)).ok_or_else(|| {
            Self::refused(what).cause("the server that gives tokens gives none").into()
        })
    }

    fn token_request(&self, http: &Http, mut url: Url, service: Option<&str>) -> RequestBuilder {
        if let Some(Credentials::Identity(identity)) = &self.credentials {
            let mut form = url::form([
                ("grant_type", "refresh_token"),
                ("client_id", "devbox"),
                ("refresh_token", identity.as_str()),
                ("scope", self.scope.as_str()),
            ]);
            if let Some(service) = service {
                form = format!("{form}&{}", url::form([("service", service)]));
            }
            let form_type = "application/x-www-form-urlencoded";
            return http.discreet().post(url).header("content-type", form_type).body(form);
        }
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            query.append_pair("scope", &self.scope);
        }
        let request = http.client().get(url);
        match &self.credentials {
            Some(Credentials::Password { user, password }) => {
                request.basic_auth(user, Some(password))
            }
            _ => request,
        }
    }

    /// Nobody may do this without other credentials.
    pub(super) fn refused(what: &str) -> Error {
        Error::failed(format!("cannot {what}: the server wants to know who asks"))
            .hint("Log in with `docker login` or `skopeo login`; devbox reads what they keep.")
    }
}

/// A header that is not shown.
fn secret(text: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", Base64::encode_string(format!("{user}:{password}").as_bytes()))
}

/// Forms as in the body of a request.
mod url {
    use reqwest::Url;

    /// `a=b&c=d`, each part escaped.
    pub(super) fn form<const N: usize>(pairs: [(&str, &str); N]) -> String {
        let Ok(mut url) = Url::parse("http://form/") else { return String::new() };
        url.query_pairs_mut().extend_pairs(pairs);
        url.query().unwrap_or_default().to_owned()
    }
}

/// The way that is preferred of those that the server offers.
fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let mut found = None;
    for value in headers.get_all(WWW_AUTHENTICATE) {
        let Ok(text) = value.to_str() else { continue };
        let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
        if scheme.eq_ignore_ascii_case("bearer") {
            let parameters = parameters(rest);
            let of = |name: &str| {
                parameters
                    .iter()
                    .find(|(key, _)| key.eq_ignore_ascii_case(name))
                    .map(|(_, v)| v.clone())
            };
            if let Some(realm) = of("realm") {
                return Some(Challenge::Bearer { realm, service: of("service") });
            }
        } else if scheme.eq_ignore_ascii_case("basic") {
            found = Some(Challenge::Basic);
        }
    }
    found
}

/// `name="value", …`; values can have commas.
fn parameters(text: &str) -> Vec<(String, String)> {
    let (mut all, mut rest) = (vec![], text);
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([' ', ',']).to_owned();
        let value;
        (value, rest) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        all.push((name, value.trim().to_owned()));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(values: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, value.parse().expect("header"));
        }
        challenge(&headers)
    }

    #[test]
    fn a_token_is_preferred_to_a_password() {
        let bearer = r#"Bearer realm="https://a.example/token?x=1,2",service="r, s",scope="repository:a:pull""#;
        let token = |service: Option<&str>| Challenge::Bearer {
            realm: "https://a.example/token?x=1,2".to_owned(),
            service: service.map(str::to_owned),
        };
        assert_eq!(asked(&["Basic realm=\"x\"", bearer]), Some(token(Some("r, s"))));
        assert_eq!(asked(&[r#"bearer Realm="https://a.example/token?x=1,2""#]), Some(token(None)));
        assert_eq!(asked(&["Basic realm=x"]), Some(Challenge::Basic));
        assert_eq!(asked(&["Bearer service=x", "Negotiate"]), None);
        assert_eq!(asked(&[]), None);
    }

    #[test]
    fn what_is_secret_is_not_shown() {
        let header = secret(&basic("me", "pw")).expect("text");
        assert_eq!(header.to_str().expect("text"), "Basic bWU6cHc=");
        assert!(!format!("{header:?}").contains("bWU6"));
        assert_eq!(url::form([("a", "b c&d"), ("e", "ü")]), "a=b+c%26d&e=%C3%BC");
    }
}
