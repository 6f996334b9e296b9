//! Answers that are no success: what a server says of them, in a person's words.

use std::time::Duration;

use reqwest::{Response, StatusCode, header};
use serde::Deserialize;

use super::{Ended, Http};
use crate::error::{Error, Result};
use crate::source::fetch::sent_away;

/// How long is waited for what a server says of its failure.
const EXPLAINED: Duration = Duration::from_secs(5);
/// Bytes of an answer that is an error.
const MAX_ERROR: u64 = 64 << 10;

impl Http {
    /// The response, if its status is one of success.
    ///
    /// # Errors
    /// It is another one: with what the server says about it.
    pub(in crate::registry) async fn good(
        &self,
        what: &str,
        response: Response,
    ) -> Result<Response> {
        Ok(self.judged(what, response).await??)
    }

    /// The response, if its status is one of success; else what the server says about it.
    ///
    /// # Errors
    /// It sends away, or somebody stops it.
    pub(in crate::registry) async fn judged(
        &self,
        what: &str,
        response: Response,
    ) -> Result<Result<Response, Refused>> {
        let status = response.status();
        if status.is_success() {
            return Ok(Ok(response));
        }
        if let Some(error) = sent_away(&format!("cannot {what}"), &response) {
            return Err(error);
        }
        let mut said = vec![];
        let _ = self.stopping(what, self.take(what, response, 0, MAX_ERROR, &mut said)).await?;
        Ok(Err(Refused { what: what.to_owned(), status, said }))
    }

    /// What a server that cannot do it now says of that; one whose disk is full has to be helped first.
    pub(super) async fn busy(&self, what: &str, response: Response) -> Ended {
        let status = response.status();
        let after = response.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok());
        let after = after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        let mut said = vec![];
        let read = self.take(what, response, 0, MAX_ERROR, &mut said);
        let _ = tokio::time::timeout(EXPLAINED, read).await;
        if status == StatusCode::INSUFFICIENT_STORAGE {
            return answered(what, status, &said).into();
        }
        let mut why = format!("the server answers {status}");
        for problem in problems(&said) {
            why = format!("{why}; {problem}");
        }
        Ended::Lost(why, after)
    }
}

/// Another server than the one that was asked wants to know who asks: it is not told.
pub(super) fn sent_on(what: &str, response: &Response) -> Error {
    let to = response.url().origin().ascii_serialization();
    Error::failed(format!("cannot {what}: it is sent on to a server that wants to know who asks"))
        .cause(format!("`{to}` answers {}", response.status()))
        .hint("Credentials are shown to the registry alone; tell whoever runs it that it sends on without an answer.")
}

/// What a registry says of an error (OCI Distribution Specification 1.1, "Error Codes").
#[derive(Deserialize)]
struct Said {
    errors: Vec<Problem>,
}

#[derive(Deserialize)]
struct Problem {
    code: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    detail: serde_json::Value,
}

/// Characters of each that are shown.
const SHOWN: usize = 300;

/// An answer that is an error.
pub(in crate::registry) struct Refused {
    what: String,
    status: StatusCode,
    said: Vec<u8>,
}

impl Refused {
    /// Whether it says that what a manifest names is not there.
    pub(in crate::registry) fn lacks_a_blob(&self) -> bool {
        parsed(&self.said).iter().any(|problem| problem.code == "MANIFEST_BLOB_UNKNOWN")
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        let error = answered(&refused.what, refused.status, &refused.said);
        match refused.lacks_a_blob() {
            true => error.hint(
                "Run the same command again: what the registry lost by itself is sent again.",
            ),
            false => error,
        }
    }
}

impl From<Refused> for Ended {
    fn from(refused: Refused) -> Self {
        Ended::Failed(refused.into())
    }
}

/// Its problems; none if it is no registry's answer.
fn parsed(said: &[u8]) -> Vec<Problem> {
    serde_json::from_slice::<Said>(said).map_or(vec![], |said| said.errors)
}

/// Its first problems, a line each.
fn problems(said: &[u8]) -> Vec<String> {
    let shown = |problem: &Problem| {
        let detail = match &problem.detail {
            serde_json::Value::Null => String::new(),
            serde_json::Value::Object(members) if members.is_empty() => String::new(),
            detail => format!(" ({detail})"),
        };
        let text = format!("{}: {}{detail}", problem.code, problem.message);
        text.chars().take(SHOWN).collect()
    };
    parsed(said).iter().take(3).map(shown).collect()
}

fn answered(what: &str, status: StatusCode, said: &[u8]) -> Error {
    let mut error = Error::failed(format!("cannot {what}: the server answers {status}"));
    for problem in problems(said) {
        error = error.cause(problem);
    }
    match status {
        StatusCode::INSUFFICIENT_STORAGE => {
            error.hint("Have space made on the registry, then run the same command again: what it has is not sent again.")
        }
        StatusCode::FORBIDDEN => {
            error.hint("Log in with `docker login` or `skopeo login` as somebody who may do this.")
        }
        StatusCode::NOT_FOUND => error.hint("Check the address."),
        _ => error,
    }
}
