//! Failures of requests that last: no further attempt would end otherwise. Where a server may send on to is decided here, too.

use std::fmt;

use reqwest::{Url, redirect};

use super::reason;
use crate::error::Error;

/// Why a redirect is not followed. Its text names no more of an address than server and path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Refused {
    Circle(String),
    TooMany(usize),
    Scheme(String),
    Unprotected(String),
    Elsewhere(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Circle(to) => write!(f, "it sends in a circle, back to `{to}`"),
            Refused::TooMany(most) => write!(f, "it sends on more than {most} times"),
            Refused::Scheme(scheme) => {
                write!(f, "it sends to an address of the kind `{scheme}:`, not of the web")
            }
            Refused::Unprotected(to) => write!(f, "it sends from TLS to `{to}` without"),
            Refused::Elsewhere(to) => write!(f, "it sends who asks for a token on to `{to}`"),
        }
    }
}

impl std::error::Error for Refused {}

/// Follows at most `most` redirects to other addresses of the web, and never from TLS to none.
pub(crate) fn redirects(most: usize) -> redirect::Policy {
    redirect::Policy::custom(move |attempt| match check(attempt.previous(), attempt.url(), most) {
        Ok(()) => attempt.follow(),
        Err(refused) => attempt.error(refused),
    })
}

/// The same for a request whose body is a secret, which is for its server alone.
pub(crate) fn redirects_at_home(most: usize) -> redirect::Policy {
    redirect::Policy::custom(move |attempt| {
        let home = attempt.previous().first().map(Url::origin);
        let checked = match home.is_some_and(|home| home == attempt.url().origin()) {
            true => check(attempt.previous(), attempt.url(), most),
            false => Err(Refused::Elsewhere(shown(attempt.url()))),
        };
        match checked {
            Ok(()) => attempt.follow(),
            Err(refused) => attempt.error(refused),
        }
    })
}

/// `previous`: the addresses that were asked, the first one too.
fn check(previous: &[Url], next: &Url, most: usize) -> Result<(), Refused> {
    if !matches!(next.scheme(), "http" | "https") {
        return Err(Refused::Scheme(next.scheme().chars().take(20).collect()));
    }
    if next.scheme() == "http" && previous.iter().any(|url| url.scheme() == "https") {
        return Err(Refused::Unprotected(shown(next)));
    }
    if previous.contains(next) {
        return Err(Refused::Circle(shown(next)));
    }
    if previous.len() > most {
        return Err(Refused::TooMany(most));
    }
    Ok(())
}

fn shown(url: &Url) -> String {
    let server = url.origin().ascii_serialization();
    format!("{server}{}", url.path()).chars().take(200).collect()
}

/// That an answer sends to what is no address of the web, which no client follows.
pub(crate) fn sent_away(cannot: &str, answer: &reqwest::Response) -> Option<Error> {
    if !answer.status().is_redirection() {
        return None;
    }
    let to = answer.headers().get(reqwest::header::LOCATION)?.to_str().ok()?;
    let to = answer.url().join(to).map_or("?".to_owned(), |to| to.scheme().to_owned());
    let refused = Refused::Scheme(to.chars().take(20).collect());
    Some(sent_on(cannot, &refused.to_string()))
}

fn sent_on(cannot: &str, why: &str) -> Error {
    Error::failed(format!("{cannot}: the server sends from one address to the next"))
        .cause(why)
        .hint("Name the address that it should lead to; if it is your server, mend its redirects.")
}

/// The failure of a request, if it would be the same the next time; `cannot` is how its message begins, as in ``cannot fetch `x` ``.
/// `trust`: the hint how somebody lets devbox trust a server.
pub(crate) fn lasting(cannot: &str, e: &reqwest::Error, trust: &str) -> Option<Error> {
    let why = reason(e);
    if e.is_redirect() {
        return Some(sent_on(cannot, &why));
    }
    if e.is_builder() {
        return Some(Error::failed(cannot).cause(why));
    }
    if is_untrusted(e) {
        let error = Error::failed(format!("{cannot}: the server is not who it should be"));
        return Some(match is_about_time(&why) {
            true => out_of_time(error.cause(why)),
            false => error.cause(why).hint(trust),
        });
    }
    None
}

/// Whether the server's certificate proves nothing here.
pub(crate) fn is_untrusted(e: &reqwest::Error) -> bool {
    e.is_connect() && reason(e).contains("certificate")
}

/// How rustls words a certificate that is valid at another time.
fn is_about_time(why: &str) -> bool {
    let why = why.to_lowercase();
    ["expired", "not valid yet", "notvalidyet"].iter().any(|words| why.contains(words))
}

/// The host's clock may be the one that is wrong.
fn out_of_time(error: Error) -> Error {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC");
    error
        .detail(format!("the clock of this host says {now}"))
        .hint("Compare this host's clock with the right time (`date -u`) and set it; if it is right, the server needs a new certificate.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circles_downgrades_and_other_schemes_are_not_followed() {
        let url = |text: &str| Url::parse(text).expect(text);
        let to = |previous: &[&str], next: &str| {
            let previous: Vec<Url> = previous.iter().map(|text| url(text)).collect();
            check(&previous, &url(next), 3).map_err(|refused| refused.to_string())
        };
        let (a, b) = ("https://a.example/x", "https://b.example/y?secret");
        assert_eq!(to(&[a], b), Ok(()));
        assert_eq!(to(&[a], "https://a.example/x?once"), Ok(()), "another address");
        assert_eq!(to(&["http://a.example/"], "http://a.example/b"), Ok(()));
        assert_eq!(to(&["http://a.example/"], a), Ok(()), "up to TLS");
        for (previous, next, said) in [
            (&[a][..], a, "circle, back to `https://a.example/x`"),
            (&[a, b], b, "circle, back to `https://b.example/y`"),
            (&[a, b, "https://c.example/", "https://d.example/"], "https://e.example/", "3 times"),
            (&[a], "http://a.example/x?secret", "to `http://a.example/x` without"),
            (&["http://o.example/", a], "http://a.example/", "without"),
            (&[a], "file:///etc/passwd", "of the kind `file:`"),
            (&[a], "ftp://a.example/", "of the kind `ftp:`"),
        ] {
            let e = to(previous, next).expect_err(next);
            assert!(e.contains(said) && !e.contains("secret"), "{e}");
        }
    }

    #[test]
    fn a_certificate_of_another_time_is_told_by_rustls_own_words() {
        use rustls_words::*;
        assert!(is_about_time(EXPIRED) && is_about_time(EARLY) && !is_about_time(UNKNOWN));
        let said = out_of_time(Error::failed("x")).to_string();
        assert!(
            said.contains("the clock of this host says 20") && said.contains("date -u"),
            "{said}"
        );
    }

    /// As rustls 0.23 words them.
    mod rustls_words {
        pub(super) const EXPIRED: &str = "invalid peer certificate: certificate expired: verification time 1795423000 (UNIX), but certificate is not valid after 1609459200 (185963800 seconds ago)";
        pub(super) const EARLY: &str = "invalid peer certificate: certificate not valid yet: verification time 1795423000 (UNIX), but certificate is not valid before 1995423000 (200000000 seconds in future)";
        pub(super) const UNKNOWN: &str = "invalid peer certificate: UnknownIssuer";
    }
}
