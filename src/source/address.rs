//! A web address that can be shown: without the secrets that it may carry.

use std::fmt;

use reqwest::Url;

use crate::error::{Error, Result};

/// An `http` or `https` address. Its text hides user, password, query and fragment.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(Url);

impl Address {
    /// Parses an address.
    ///
    /// # Errors
    /// It is not an absolute `http` or `https` address.
    pub fn parse(text: &str) -> Result<Self> {
        // The text itself stays out of the message: it may hold a password.
        let url = Url::parse(text)
            .map_err(|e| Error::usage("the address of the source cannot be parsed").cause(e))?;
        let address = Address(url);
        match address.0.scheme() {
            "http" | "https" => Ok(address),
            other => Err(Error::usage(format!("`{address}` cannot be fetched"))
                .cause(format!("its scheme is `{other}`"))
                .hint("Use an `https://` or `http://` address, or `path` for a local file.")),
        }
    }

    /// The last component of the path: the name that checksum files list.
    #[must_use]
    pub fn file_name(&self) -> Option<&str> {
        self.0.path_segments()?.next_back().filter(|name| !name.is_empty())
    }

    /// Whether nobody on the way can change what is fetched.
    #[must_use]
    pub fn is_protected(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// The whole address, for the request alone.
    pub(super) fn url(&self) -> Url {
        self.0.clone()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.clone();
        shown.set_query(None);
        shown.set_fragment(None);
        // Neither can fail for a scheme with a host; and without user there is nothing to hide.
        let secret = shown.set_username("").and(shown.set_password(None)).is_err();
        if secret {
            return f.write_str("<address>");
        }
        write!(f, "{shown}{}", if self.0.query().is_some() { "?…" } else { "" })
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let address =
            Address::parse("https://me:pw@host.example:8443/a/b.qcow2?sig=abc#x").expect("good");
        assert_eq!(address.to_string(), "https://host.example:8443/a/b.qcow2?…");
        assert_eq!(format!("{address:?}"), address.to_string());
        assert_eq!(address.file_name(), Some("b.qcow2"));
        let e = Address::parse("ftp://me:pw@host.example/x").expect_err("not http");
        assert!(!e.to_string().contains("pw"), "{e}");
        let e = Address::parse("https://me:pw@/x y").expect_err("no host");
        assert!(!e.to_string().contains("pw"), "{e}");
    }
}
