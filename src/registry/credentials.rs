//! Who one is at a registry: the files and helper programs that docker and podman keep this in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64ct::{Base64, Base64Unpadded, Encoding as _};
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::exec;

/// Largest file of credentials in bytes.
const MAX: u64 = 4 << 20;
/// What a helper says when it knows nothing of a host (docker/docker-credential-helpers).
const UNKNOWN: &str = "credentials not found";

/// What one shows.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A name and a password, or a token in its place.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// A token that is exchanged for another one.
    Identity(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

/// The file, as far as it is read.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct File {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    identitytoken: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Helped {
    username: String,
    secret: String,
}

/// The files that are looked into, in order.
#[must_use]
pub fn files() -> Vec<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = folder("HOME");
    let docker = folder("DOCKER_CONFIG").or_else(|| Some(home.as_ref()?.join(".docker")));
    let config = folder("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
    [
        folder("REGISTRY_AUTH_FILE"),
        docker.map(|dir| dir.join("config.json")),
        folder("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")),
        config.map(|dir| dir.join("containers/auth.json")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What is kept for the repository at `host`; none if nothing is.
///
/// # Errors
/// A file cannot be read, or a helper fails.
pub fn find(files: &[PathBuf], host: &str, repository: &str) -> Result<Option<Credentials>> {
    for path in files {
        let size = match fs_err::metadata(path) {
            Ok(meta) => meta.len(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e.into()),
        };
        let unreadable = || {
            Error::failed(format!("the credentials in `{}` cannot be read", path.display()))
                .hint("Repair the file, or log in again with `docker login` or `skopeo login`.")
        };
        if size > MAX {
            return Err(unreadable().cause(format!("it has {size} bytes")));
        }
        // A line and a column, and nothing of the text.
        let file: File = serde_json::from_slice(&fs_err::read(path)?)
            .map_err(|e| unreadable().cause(format!("line {}, column {}", e.line(), e.column())))?;
        if let Some(found) = file.find(host, repository, &unreadable)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

impl File {
    fn find(
        &self,
        host: &str,
        repository: &str,
        unreadable: &dyn Fn() -> Error,
    ) -> Result<Option<Credentials>> {
        if let Some(helper) = self.cred_helpers.get(host) {
            return ask(helper, host);
        }
        for key in keys(host, repository) {
            let Some(entry) = self.auths.get(&key) else { continue };
            if let Some(token) = entry.identitytoken.as_ref().filter(|token| !token.is_empty()) {
                return Ok(Some(Credentials::Identity(token.clone())));
            }
            let Some(auth) = entry.auth.as_ref().filter(|auth| !auth.is_empty()) else { continue };
            let bytes = Base64::decode_vec(auth).or_else(|_| Base64Unpadded::decode_vec(auth));
            let text = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let Some((user, password)) = text.as_ref().and_then(|text| text.split_once(':')) else {
                return Err(unreadable()
                    .cause(format!("`auth` of `{key}` is not a name and a password in base64")));
            };
            let (user, password) = (user.to_owned(), password.trim_end_matches('\0').to_owned());
            return Ok(Some(Credentials::Password { user, password }));
        }
        match &self.creds_store {
            Some(helper) => ask(helper, host),
            None => Ok(None),
        }
    }
}

/// The spellings of a repository, the narrowest first: podman keeps credentials of a part of a registry, docker
/// once wrote whole addresses.
fn keys(host: &str, repository: &str) -> Vec<String> {
    let mut keys = vec![];
    let mut path = format!("{host}/{repository}");
    while path.len() > host.len() {
        keys.push(path.clone());
        path.truncate(path.rfind('/').unwrap_or(0));
    }
    keys.extend([
        host.to_owned(),
        format!("https://{host}"),
        format!("https://{host}/v1/"),
        format!("https://{host}/v2/"),
    ]);
    keys
}

/// Asks `docker-credential-<helper>`.
fn ask(helper: &str, host: &str) -> Result<Option<Credentials>> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let program = format!("docker-credential-{helper}");
    let failed = || {
        Error::failed(format!("`{program}` does not give the credentials of `{host}`"))
            .hint(format!("Log in again with `docker login {host}`, or remove the helper from docker's `config.json`."))
    };
    if !helper.chars().all(plain) {
        return Err(failed().cause("its name is not one of a program"));
    }
    let mut command =
        Command::new(which::which(&program).map_err(|_| failed().cause("it is not installed"))?);
    let out = exec::answer(command.arg("get"), host.as_bytes()).map_err(|e| failed().cause(e))?;
    if !out.status.success() {
        let said = [&out.stdout[..], &out.stderr[..]].concat();
        if String::from_utf8_lossy(&said).contains(UNKNOWN) {
            return Ok(None);
        }
        // Its standard output may hold a secret.
        let mut error = failed().cause(out.status);
        for line in exec::last_lines(&out.stderr, 3) {
            error = error.detail(line);
        }
        return Err(error);
    }
    let helped: Helped = serde_json::from_slice(&out.stdout)
        .map_err(|_| failed().cause("it answers with something else than JSON"))?;
    Ok(Some(match helped.username.as_str() {
        "<token>" => Credentials::Identity(helped.secret),
        _ => Credentials::Password { user: helped.username, password: helped.secret },
    }))
}

/// Folders in which docker and podman keep the certificates of one registry.
#[must_use]
pub fn certificates(host: &str) -> Vec<PathBuf> {
    let home =
        std::env::var_os("HOME").map(|home| Path::new(&home).join(".config/containers/certs.d"));
    let system = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
    home.into_iter().chain(system).map(|dir| dir.join(host)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, host: &str, repository: &str) -> Result<Option<Credentials>> {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("config.json");
        fs_err::write(&path, text).expect("written");
        find(&[dir.path().join("absent"), path], host, repository)
    }

    fn password(user: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Password { user: user.to_owned(), password: password.to_owned() })
    }

    #[test]
    fn the_narrowest_entry_counts() {
        let text = format!(
            r#"{{"auths": {{"r.example": {{"auth": "{}"}}, "r.example/team": {{"auth": "{}"}},
                "https://old.example/v1/": {{"auth": "{}"}}, "t.example": {{"identitytoken": "abc"}},
                "empty.example": {{}}}}, "HttpHeaders": {{}}}}"#,
            Base64::encode_string(b"me:a:b"),
            Base64::encode_string(b"team:x"),
            Base64::encode_string(b"old:y"),
        );
        let find = |host, repository| found(&text, host, repository).expect("reads");
        assert_eq!(find("r.example", "web"), password("me", "a:b"));
        assert_eq!(find("r.example", "team/web"), password("team", "x"));
        assert_eq!(find("old.example", "web"), password("old", "y"));
        assert_eq!(find("t.example", "web"), Some(Credentials::Identity("abc".into())));
        assert_eq!(find("empty.example", "web"), None);
        assert_eq!(find("other.example", "web"), None);
        assert_eq!(format!("{:?}", find("r.example", "web")), "Some(Credentials)");
    }

    #[test]
    fn a_damaged_file_is_named_and_not_shown() {
        for text in [r#"{"auths": {"r.example": {"auth": "c2VjcmV0"}}}"#, r#"{"auths": "secret"#] {
            let e = found(text, "r.example", "web").expect_err("damaged").to_string();
            assert!(e.contains("config.json") && !e.contains("secret"), "{e}");
        }
    }

    #[test]
    fn a_helper_that_is_absent_is_named() {
        let text = r#"{"credHelpers": {"r.example": "devbox-test-absent"}}"#;
        let e = found(text, "r.example", "web").expect_err("absent").to_string();
        assert!(e.contains("docker-credential-devbox-test-absent"), "{e}");
        let text = r#"{"credsStore": "../x"}"#;
        assert!(found(text, "r.example", "web").is_err());
    }
}
