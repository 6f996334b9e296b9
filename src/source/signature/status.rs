//! What `gpgv` says of signatures on its status lines (GnuPG's doc/DETAILS, "Format of the --status-fd output").

/// One signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signature {
    /// Fingerprint of the primary key, where the key is known; else what names the key: its id or fingerprint.
    pub(super) key: String,
    pub(super) verdict: Verdict,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    /// Another text was signed, or this one was changed.
    Bad,
    Expired,
    KeyExpired,
    KeyRevoked,
    /// The key is none of those that are trusted.
    UnknownKey,
    /// It cannot be checked: an algorithm that is unknown or too weak, or damage.
    Unchecked,
}

impl Verdict {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Verdict::Good => "a good signature",
            Verdict::Bad => {
                "a signature of something else: the file was changed, or is another one"
            }
            Verdict::Expired => "a signature that has expired",
            Verdict::KeyExpired => "a signature of a key that has expired",
            Verdict::KeyRevoked => "a signature of a key that was revoked",
            Verdict::UnknownKey => "a signature of a key that is not among the keys",
            Verdict::Unchecked => {
                "a signature that cannot be checked: too weak, unknown or damaged"
            }
        }
    }
}

/// The signatures, in their order. A verdict comes first, then `VALIDSIG` where the signature itself is right: that
/// alone says nothing, since it follows for a revoked key too.
pub(super) fn signatures(status: &str) -> Vec<Signature> {
    let mut found: Vec<Signature> = vec![];
    let mut pending = false;
    for line in status.lines() {
        let Some(line) = line.strip_prefix("[GNUPG:] ") else { continue };
        let words: Vec<&str> = line.split(' ').collect();
        let named = words.get(1).copied().unwrap_or_default().to_owned();
        let verdict = match words[0] {
            // Right only if `VALIDSIG` follows.
            "GOODSIG" => Verdict::Unchecked,
            "BADSIG" => Verdict::Bad,
            "EXPSIG" => Verdict::Expired,
            "EXPKEYSIG" => Verdict::KeyExpired,
            "REVKEYSIG" => Verdict::KeyRevoked,
            // The sixth word after the id is the reason; 9 is a missing key.
            "ERRSIG" if words.get(6) == Some(&"9") => Verdict::UnknownKey,
            "ERRSIG" => Verdict::Unchecked,
            "VALIDSIG" => {
                let primary = words.get(10).copied();
                if let (Some(last), Some(primary)) = (found.last_mut(), primary) {
                    primary.clone_into(&mut last.key);
                    if std::mem::take(&mut pending) {
                        last.verdict = Verdict::Good;
                    }
                }
                continue;
            }
            _ => continue,
        };
        pending = words[0] == "GOODSIG";
        found.push(Signature { key: named, verdict });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_good_only_by_both_of_its_lines() {
        let valid = "[GNUPG:] VALIDSIG AA 2026-01-01 1 0 4 0 22 8 00 BB\n";
        let of = |status: &str| {
            signatures(status).into_iter().map(|s| (s.key, s.verdict)).collect::<Vec<_>>()
        };
        let good = "[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG 1234 A name\n";
        assert_eq!(of(&format!("{good}{valid}")), [("BB".to_owned(), Verdict::Good)]);
        assert_eq!(of(good), [("1234".to_owned(), Verdict::Unchecked)]);
        assert_eq!(of(valid), []);
        let revoked = format!("[GNUPG:] REVKEYSIG 1234 A\n{valid}");
        assert_eq!(of(&revoked), [("BB".to_owned(), Verdict::KeyRevoked)]);
        let expired = format!("[GNUPG:] EXPKEYSIG 1234 A\n{valid}");
        assert_eq!(of(&expired), [("BB".to_owned(), Verdict::KeyExpired)]);
        let missing = "[GNUPG:] ERRSIG 12 22 8 00 1 9 CC\n[GNUPG:] NO_PUBKEY 12\n";
        assert_eq!(of(missing), [("12".to_owned(), Verdict::UnknownKey)]);
        let weak = format!("[GNUPG:] ERRSIG 12 1 2 00 1 5 CC\n{good}{valid}");
        assert_eq!(of(&weak)[0].1, Verdict::Unchecked);
        assert_eq!(of("[GNUPG:] BADSIG 12 A\nGOODSIG 3\n"), [("12".to_owned(), Verdict::Bad)]);
    }

    #[test]
    fn what_follows_an_error_is_not_made_good() {
        let status = "[GNUPG:] ERRSIG 12 1 2 00 1 5 CC\n[GNUPG:] VALIDSIG AA 2026-01-01 1 0 4 0 22 8 00 BB\n";
        assert_eq!(signatures(status)[0].verdict, Verdict::Unchecked);
    }
}
