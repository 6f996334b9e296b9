//! What no report shows: that it differs is said, never how.

use std::sync::LazyLock;

use globset::GlobSet;

pub use self::words::{TOKENS, line, lines, split};
use super::globs::set;
use super::os_path;

mod words;

/// Stands in place of what was taken out.
pub const REDACTED: &str = "(redacted)";

/// Files whose contents are secrets: passwords, private keys, tokens, the data of cloud instances.
const SECRET: &[&str] = &[
    "etc/{shadow,gshadow}{,-}",
    "etc/ssh/ssh_host_*_key",
    "{root,home/*}/.ssh/{id_*,identity,*_key,*.pem}",
    "**/{.netrc,_netrc,.pgpass,.my.cnf,.npmrc,.pypirc,.git-credentials,.htpasswd,.vault-token}",
    "**/.{aws,azure,docker,kube,gnupg,config/gcloud}/**",
    "etc/{ssl/private,pki/tls/private,letsencrypt,wireguard,openvpn,ipsec.d/private}/**",
    "etc/{ipsec.secrets,ppp/chap-secrets,ppp/pap-secrets,krb5.keytab,machine-id,apt/auth.conf}",
    "etc/apt/auth.conf.d/**",
    "etc/{NetworkManager/system-connections,netplan,wpa_supplicant,rancher,kubernetes/pki}/**",
    "var/lib/cloud/**",
    "var/lib/{systemd/random-seed,systemd/credential.secret,urandom/**,private/**,kubelet/pki/**}",
    "**/*.{key,pem,p12,pfx,jks,keystore,keytab,kdbx,gpg,asc}",
    "**/*{secret,password,passwd,credential,token}*",
];

/// Of those above, files that hold no secret though their name says so.
const PLAIN: &[&str] = &["etc/passwd{,-}", "etc/pam.d/**", "usr/share/keyrings/**"];

static SECRET_SET: LazyLock<GlobSet> = LazyLock::new(|| set(SECRET.iter().copied(), true));
static PLAIN_SET: LazyLock<GlobSet> = LazyLock::new(|| set(PLAIN.iter().copied(), true));

/// Whether what is in the file at this path, from the root without a leading `/`, is never shown.
#[must_use]
pub fn is_secret(path: &[u8]) -> bool {
    SECRET_SET.is_match(os_path(path)) && !PLAIN_SET.is_match(os_path(path))
}

/// Whether a text holds a private key, wherever it lies.
#[must_use]
pub fn holds_key(text: &str) -> bool {
    text.contains("PRIVATE KEY-----") || text.contains("PRIVATE KEY BLOCK-----")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_can_be_read() {
        assert_eq!(SECRET_SET.len(), SECRET.len());
        assert_eq!(PLAIN_SET.len(), PLAIN.len());
    }

    #[test]
    fn files_that_hold_secrets_are_known_by_their_path() {
        for path in [
            "etc/shadow",
            "etc/gshadow-",
            "etc/ssh/ssh_host_rsa_key",
            "home/dev/.ssh/id_ed25519",
            "root/.netrc",
            "srv/app/.aws/credentials",
            "etc/ssl/private/web.key",
            "srv/API_TOKEN.txt",
            "var/lib/cloud/seed/nocloud/user-data",
        ] {
            assert!(is_secret(path.as_bytes()), "{path}");
        }
        for path in ["etc/passwd", "etc/fstab", "etc/ssh/sshd_config", "etc/pam.d/passwd"] {
            assert!(!is_secret(path.as_bytes()), "{path}");
        }
        assert!(holds_key("-----BEGIN OPENSSH PRIVATE KEY-----\n"));
    }
}
