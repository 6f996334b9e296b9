//! What is never written into a spec or beside it: keys, passwords, tokens.

use crate::parity::explain::redact::TOKENS;

/// Files by name: whoever has one is somebody.
const NAMES: &[(&str, &str)] = &[
    ("etc/shadow", "password hashes"),
    ("etc/gshadow", "password hashes"),
    ("etc/security/opasswd", "password hashes"),
    ("etc/krb5.keytab", "keys"),
    ("etc/machine-id", "identity of the machine"),
    ("etc/ppp/pap-secrets", "passwords"),
    ("etc/ppp/chap-secrets", "passwords"),
];
/// Folders whose files are secrets.
const FOLDERS: &[(&str, &str)] = &[
    ("etc/ssl/private/", "keys"),
    ("etc/pki/private/", "keys"),
    ("etc/wireguard/", "keys"),
    ("etc/NetworkManager/system-connections/", "passwords"),
    ("etc/letsencrypt/", "keys"),
    ("etc/credstore/", "keys"),
    ("etc/credstore.encrypted/", "keys"),
];
/// Last parts of a name, or all of it.
const ENDINGS: &[&str] = &[
    ".key",
    ".pem",
    ".p12",
    ".pfx",
    ".jks",
    ".keytab",
    ".kdbx",
    ".gpg",
    ".asc",
    ".netrc",
    ".pgpass",
    ".npmrc",
    ".pypirc",
    ".htpasswd",
    ".env",
    ".kubeconfig",
    "id_rsa",
    "id_ecdsa",
    "id_ed25519",
    "id_dsa",
    "authorized_keys",
    "known_hosts",
];
/// Words in a name.
const WORDS: &[&str] =
    &["secret", "password", "passwd", "token", "credential", "ssh_host_", "private"];
/// How keys in files begin.
const KEYS: &[&str] = &["PRIVATE KEY-----", "PuTTY-User-Key-File", "AGE-SECRET-KEY-"];
/// Settings whose value is a secret, before `=` or `:`.
const SETTINGS: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "api_key",
    "apikey",
    "api-key",
    "access_key",
    "private_key",
    "secret_key",
    "auth_key",
    "client_secret",
    "requirepass",
    "psk",
    "_authtoken",
];

/// Why the file at `path` must not be copied, if so; `private` says that only its owner may read it.
pub(super) fn reason(path: &str, contents: &[u8], private: bool) -> Option<&'static str> {
    if let Some((_, why)) =
        NAMES.iter().find(|(name, _)| path == *name || path == format!("{name}-"))
    {
        return Some(why);
    }
    if let Some((_, why)) = FOLDERS.iter().find(|(folder, _)| path.starts_with(folder)) {
        return Some(why);
    }
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    // A certificate's public part is no secret, but tells nobody that it is one.
    if ENDINGS.iter().any(|end| name.ends_with(end)) || WORDS.iter().any(|word| name.contains(word))
    {
        return Some("its name says that it is a secret");
    }
    if private {
        return Some("only its owner may read it");
    }
    let text = String::from_utf8_lossy(contents);
    if KEYS.iter().chain(&TOKENS).any(|mark| text.contains(mark)) {
        return Some("it contains a key or a token");
    }
    text.lines().any(is_secret_setting).then_some("it contains a password or a token")
}

/// Whether a line sets a secret: its name holds one of the words, and its value is not empty.
fn is_secret_setting(line: &str) -> bool {
    let line = line.trim().to_ascii_lowercase();
    // An address with a password in it.
    let address = line.split("://").skip(1).any(|rest| {
        let authority = rest.split(['/', ' ', '"']).next().unwrap_or("");
        authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
    });
    if address {
        return true;
    }
    if line.starts_with(['#', ';']) {
        return false;
    }
    SETTINGS.iter().any(|word| {
        let Some(at) = line.find(word) else { return false };
        // What follows the name, up to the value: `password = x`, `"token": "x"`, `requirepass x`.
        let rest = line[at + word.len()..].trim_start_matches(['"', '\'', ' ', '\t']);
        match rest.strip_prefix(['=', ':']) {
            Some(value) => !value.trim_matches(['"', '\'', ' ', '\t', ',']).is_empty(),
            None => !rest.is_empty() && at == 0 && *word == "requirepass",
        }
    })
}

#[cfg(test)]
mod tests {
    use super::reason;

    #[test]
    fn what_is_a_secret_is_told_by_name_rights_and_contents() {
        for (path, contents) in [
            ("etc/shadow", "root:*:1::::::\n"),
            ("etc/shadow-", "root:*:1::::::\n"),
            ("etc/ssh/ssh_host_rsa_key", ""),
            ("etc/ssl/private/web", ""),
            ("etc/nginx/site.pem", ""),
            ("opt/app/.env", ""),
            ("etc/app/API_TOKEN", "abc"),
            ("etc/app.conf", "-----BEGIN OPENSSH PRIVATE KEY-----\n"),
            ("etc/app.conf", "user = me\npassword = hunter2\n"),
            ("etc/app.conf", "{\"token\": \"abc\"}"),
            ("etc/app.conf", "export AWS_SECRET_ACCESS_KEY=abc"),
            ("etc/app.conf", "url=postgres://me:pw@db/app"),
            ("etc/app.conf", "x ghp_0123456789"),
            ("etc/redis.conf", "requirepass hunter2"),
        ] {
            assert!(reason(path, contents.as_bytes(), false).is_some(), "{path}: {contents}");
        }
        assert!(reason("etc/app.conf", b"a = 1\n", true).is_some());
        for (path, contents) in [
            ("etc/app.conf", "a = 1\n"),
            ("etc/ssh/sshd_config", "PasswordAuthentication no\n# password = x\n"),
            ("etc/app.conf", "password =\n"),
            ("etc/app.conf", "see https://example.org/a:b@c\n"),
            ("srv/site/index.html", "<h1>hello</h1>"),
        ] {
            assert_eq!(reason(path, contents.as_bytes(), false), None, "{path}: {contents}");
        }
    }
}
