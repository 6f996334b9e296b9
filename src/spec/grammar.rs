//! The grammars of strings in devbox.toml, each as a check, a regular expression and words.
//!
//! The regular expressions serve the JSON schema; a test holds them against the checks.

/// A grammar of strings.
pub struct Grammar {
    /// What is expected, to stand after "expected".
    pub expected: &'static str,
    /// The same as a regular expression (ECMA-262 and Rust alike), matched on the whole string.
    pub pattern: &'static str,
    /// Longest string in bytes.
    pub longest: usize,
    /// Whether a string that is not too long is of this grammar.
    pub check: fn(&str) -> bool,
    /// What people often get wrong, put right; tried in this order for a suggestion.
    pub repairs: &'static [fn(&str) -> String],
}

const TRIM: fn(&str) -> String = |s| s.trim().to_owned();
const LOWER: fn(&str) -> String = |s| s.trim().to_lowercase();
const NO_SLASH: fn(&str) -> String = |s| s.trim_end_matches('/').to_owned();
const DASHES: fn(&str) -> String = |s| s.trim().to_lowercase().replace(['_', ' ', '.'], "-");

impl Grammar {
    /// Whether `text` is of this grammar.
    #[must_use]
    pub fn accepts(&self, text: &str) -> bool {
        text.len() <= self.longest && (self.check)(text)
    }
}

impl std::fmt::Debug for Grammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.pattern)
    }
}

/// A label of a host name (RFC 1123, section 2.1), lower case.
pub static LABEL: Grammar = Grammar {
    expected: "1 to 63 lower-case letters, digits and `-`, with a letter or digit at both ends",
    pattern: "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
    longest: 63,
    check: |s| all(s, |c| alnum(c) || c == b'-') && !s.starts_with('-') && !s.ends_with('-'),
    repairs: &[LOWER, DASHES],
};

/// A disk's serial number; virtio has room for 20 bytes (virtio 1.2, section 5.2.6.1).
pub static DISK_NAME: Grammar = Grammar {
    expected: "1 to 20 lower-case letters, digits and `-`, with a letter or digit at both ends",
    pattern: "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
    longest: 20,
    check: |s| all(s, |c| alnum(c) || c == b'-') && !s.starts_with('-') && !s.ends_with('-'),
    repairs: &[LOWER, DASHES],
};

/// SemVer 2.0.0 without build metadata.
pub static VERSION: Grammar = Grammar {
    expected: "three numbers with dots, such as \"1.0.0\"",
    pattern: r"^(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})(-[0-9A-Za-z]+([.-][0-9A-Za-z]+)*)?$",
    longest: 64,
    check: |s| {
        let (core, pre) = s.split_once('-').map_or((s, None), |(core, pre)| (core, Some(pre)));
        let number = |n: &str| {
            n.len() <= 9 && all(n, |c| c.is_ascii_digit()) && (n == "0" || !n.starts_with('0'))
        };
        let word = |w: &str| all(w, |c| c.is_ascii_alphanumeric());
        core.split('.').count() == 3
            && core.split('.').all(number)
            && pre.is_none_or(|pre| pre.split(['.', '-']).all(word))
    },
    repairs: &[
        |s| s.trim().trim_start_matches('v').to_owned(),
        |s| format!("{}.0", s.trim().trim_start_matches('v')),
        |s| format!("{}.0.0", s.trim().trim_start_matches('v')),
    ],
};

/// A Debian suite by code name (`bookworm`).
pub static SUITE: Grammar = Grammar {
    expected: "a suite's code name, such as \"bookworm\"",
    pattern: "^[a-z][a-z0-9.-]*$",
    longest: 64,
    check: |s| first(s, |c| c.is_ascii_lowercase()) && all(s, |c| alnum(c) || b".-".contains(&c)),
    repairs: &[LOWER],
};

/// An archive area (`main`, `non-free-firmware`).
pub static COMPONENT: Grammar = Grammar {
    expected: "an archive component, such as \"main\"",
    pattern: "^[a-z][a-z0-9-]*$",
    longest: 64,
    check: |s| first(s, |c| c.is_ascii_lowercase()) && all(s, |c| alnum(c) || c == b'-'),
    repairs: &[LOWER],
};

/// A binary package's name (Debian Policy 5.6.7). A name that ends in `-` would tell apt to remove.
pub static PACKAGE: Grammar = Grammar {
    expected: "a Debian package name",
    pattern: "^[a-z0-9][a-z0-9+.-]*[a-z0-9+.]$",
    longest: 128,
    check: |s| {
        s.len() >= 2
            && first(s, alnum)
            && all(s, |c| alnum(c) || b"+.-".contains(&c))
            && !s.ends_with('-')
    },
    repairs: &[LOWER],
};

/// An address of a package archive: http or https, no user, query or fragment, nothing that apt's
/// sources format would read as a separator.
pub static MIRROR: Grammar = Grammar {
    expected: "an http:// or https:// address without user name, such as \"http://deb.debian.org/debian\"",
    pattern: r"^https?://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[A-Za-z0-9._~%+-]+)*/?$",
    longest: 512,
    check: |s| {
        address(s).is_some_and(|path| {
            let path = path.strip_suffix('/').unwrap_or(path);
            path.is_empty()
                || path
                    .strip_prefix('/')
                    .is_some_and(|p| p.split('/').all(|part| all(part, segment)))
        })
    },
    repairs: &[TRIM],
};

/// An address of a file.
pub static URL: Grammar = Grammar {
    expected: "an http:// or https:// address of a file",
    pattern: r"^https?://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?/[!$&-;=?-Z_a-z~%]+$",
    longest: 2048,
    check: |s| {
        address(s).is_some_and(|path| {
        path.len() > 1
            && path.starts_with('/')
            && all(path, |c| {
                matches!(c, b'!' | b'$' | b'&'..=b';' | b'=' | b'?'..=b'Z' | b'_' | b'a'..=b'z' | b'~' | b'%')
            })
    })
    },
    repairs: &[TRIM],
};

/// SHA-256 in hex.
pub static SHA256: Grammar = Grammar {
    expected: "64 hex digits",
    pattern: "^[0-9A-Fa-f]{64}$",
    longest: 64,
    check: |s| s.len() == 64 && all(s, |c| c.is_ascii_hexdigit()),
    repairs: &[TRIM, |s| s.trim().trim_start_matches("sha256:").to_owned()],
};

/// A fingerprint of an OpenPGP key of version 4 (RFC 9580, section 5.5.4.2).
pub static FINGERPRINT: Grammar = Grammar {
    expected: "40 hex digits, the fingerprint of a key",
    pattern: "^[0-9A-Fa-f]{40}$",
    longest: 40,
    check: |s| s.len() == 40 && all(s, |c| c.is_ascii_hexdigit()),
    repairs: &[TRIM, |s| s.split_whitespace().collect(), |s| s.trim_start_matches("0x").to_owned()],
};

/// A path on the host, relative to the spec's folder or absolute.
pub static HOST_PATH: Grammar = Grammar {
    expected: "a path, relative to the folder of devbox.toml",
    pattern: r"^[^\x00]+$",
    longest: 4096,
    check: |s| !s.is_empty() && !s.contains('\0'),
    repairs: &[],
};

/// A place that holds boxes, without the one that is meant there: what `registry::Address` reads.
pub static BOX_PLACE: Grammar = Grammar {
    expected: "a place of boxes without a tag: \"oci://HOST/REPOSITORY\", \"dir:FOLDER\", \"file:///FOLDER\" or \"https://HOST/FOLDER\"",
    pattern: r"^(oci://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]([a-z0-9._-]*[a-z0-9])?)+|dir:[^\x00-\x1f:@]+|file:///[^\x00-\x1f:@]+|https?://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[A-Za-z0-9._~%+-]+)*/?)$",
    longest: 512,
    check: |s| {
        let folder = |s: &str| all(s, |c| c >= b' ' && !b":@".contains(&c));
        let name = |part: &str| {
            all(part, |c| alnum(c) || b"._-".contains(&c))
                && first(part, alnum)
                && part.bytes().last().is_some_and(alnum)
        };
        if let Some(rest) = s.strip_prefix("oci://") {
            return authority(rest)
                .and_then(|path| path.strip_prefix('/'))
                .is_some_and(|path| path.split('/').all(name));
        }
        if let Some(path) = s.strip_prefix("file:///").or_else(|| s.strip_prefix("dir:")) {
            return folder(path);
        }
        (MIRROR.check)(s)
    },
    repairs: &[TRIM, NO_SLASH],
};

/// A range of versions, or one; what it says is looked at when it is decoded.
pub static BOX_VERSION: Grammar = Grammar {
    expected: "a version such as \"1.2.0\" or a range such as \"^1.2\" or \">=1.2, <2\"",
    pattern: r"^[0-9A-Za-z.*^~<>=, -]+$",
    longest: 128,
    check: |s| all(s, |c| c.is_ascii_alphanumeric() || b".*^~<>=, -".contains(&c)),
    repairs: &[TRIM],
};

/// A tag of a registry (OCI Distribution Specification 1.1, "Pulling manifests").
pub static TAG: Grammar = Grammar {
    expected: "a name of letters, digits and `.`, `_`, `-`",
    pattern: "^[A-Za-z0-9_][A-Za-z0-9._-]*$",
    longest: 128,
    check: |s| {
        first(s, |c| c.is_ascii_alphanumeric() || c == b'_')
            && all(s, |c| c.is_ascii_alphanumeric() || b"._-".contains(&c))
    },
    repairs: &[TRIM],
};

/// A box: a place of boxes or a name in the own store, and perhaps the digest of its manifest.
pub static BOX: Grammar = Grammar {
    expected: "a place of boxes without a tag, such as \"oci://HOST/REPOSITORY\", or the name of a box in your own store",
    pattern: r"^(oci://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]([a-z0-9._-]*[a-z0-9])?)+|dir:[^\x00-\x1f:@]+|file:///[^\x00-\x1f:@]+|https?://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[A-Za-z0-9._~%+-]+)*/?|[a-z0-9]([a-z0-9-]*[a-z0-9])?)(@sha256:[0-9a-f]{64})?$",
    longest: 600,
    check: |s| {
        let place = match s.split_once('@') {
            None => s,
            Some((place, digest)) => match digest.strip_prefix("sha256:") {
                Some(hex)
                    if hex.len() == 64
                        && all(hex, |c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c)) =>
                {
                    place
                }
                _ => return false,
            },
        };
        (BOX_PLACE.check)(place) || (LABEL.check)(place)
    },
    repairs: &[TRIM, NO_SLASH],
};

/// A public key as OpenSSH writes it, or a file of them.
pub static SIGNER: Grammar = Grammar {
    expected: "a key as in a `.pub` file, `ssh-ed25519 AAAA…`, or the path of a file with such lines, relative to the folder of devbox.toml",
    pattern: r"^[^\x00]+$",
    longest: 4096,
    check: |s| !s.is_empty() && !s.contains('\0'),
    repairs: &[],
};

/// Places of boxes, with `*` and `?` in their names. One that no place can have would cover nothing, unseen.
pub static BOX_PATTERN: Grammar = Grammar {
    expected: "the address of a place without a tag, such as \"oci://registry.example/team/*\", \"dir:/srv/boxes\" or \"https://boxes.example/*\"",
    pattern: r"^(\*|oci://[A-Za-z0-9._*?:\[\]-]*\*|oci://[A-Za-z0-9._*?:\[\]-]+(/[a-z0-9._*?-]+)+|(dir:[/*]|file:///)[^\x00-\x1f\x7f]*|https?://[A-Za-z0-9._*?:\[\]-]+(/[A-Za-z0-9._~%*?+-]*)*)$",
    longest: 512,
    check: |s| {
        let host = |c: u8| c.is_ascii_alphanumeric() || b"._*?:[]-".contains(&c);
        let folder = ["dir:/", "dir:*", "file:///"];
        if let Some(path) = folder.iter().find_map(|begin| s.strip_prefix(begin)) {
            return path.bytes().all(|c| c >= 0x20 && c != 0x7f);
        }
        if let Some(rest) = s.strip_prefix("oci://") {
            return match rest.split_once('/') {
                None => all(rest, host) && rest.ends_with('*'),
                Some((name, path)) => {
                    all(name, host)
                        && path
                            .split('/')
                            .all(|part| all(part, |c| alnum(c) || b"._*?-".contains(&c)))
                }
            };
        }
        match s.strip_prefix("http://").or_else(|| s.strip_prefix("https://")) {
            None => s == "*",
            Some(rest) => {
                let (name, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                let inner = |c: u8| c.is_ascii_alphanumeric() || b"._~%*?+-/".contains(&c);
                all(name, host) && path.bytes().all(inner)
            }
        }
    },
    repairs: &[TRIM],
};

/// An absolute path in the guest that names one file in one spelling: no `.`, `..`, `//`, control
/// characters or slash at the end.
pub static GUEST_PATH: Grammar = Grammar {
    expected: "an absolute path in the guest, without `.`, `..`, `//` and a `/` at the end",
    pattern: r"^(/([^./\x00-\x1f\x7f][^/\x00-\x1f\x7f]*|\.[^./\x00-\x1f\x7f][^/\x00-\x1f\x7f]*|\.\.[^/\x00-\x1f\x7f]+))+$",
    longest: 4095,
    check: |s| {
        s.strip_prefix('/').is_some_and(|rest| {
            rest.split('/').all(|part| {
                !matches!(part, "" | "." | "..") && part.bytes().all(|c| c >= 0x20 && c != 0x7f)
            })
        })
    },
    repairs: &[NO_SLASH],
};

/// A path inside a folder that is named beside it: no way out, and one spelling.
pub static RELATIVE: Grammar = Grammar {
    expected: "a path inside the folder, without `.`, `..`, `//` and a `/` at either end",
    pattern: r"^([^./\x00-\x1f\x7f-][^/\x00-\x1f\x7f]*|\.[^./\x00-\x1f\x7f][^/\x00-\x1f\x7f]*|\.\.[^/\x00-\x1f\x7f]+)(/([^./\x00-\x1f\x7f][^/\x00-\x1f\x7f]*|\.[^./\x00-\x1f\x7f][^/\x00-\x1f\x7f]*|\.\.[^/\x00-\x1f\x7f]+))*$",
    longest: 1024,
    check: |s| {
        // An option of the program that reads it begins with `-`.
        !s.starts_with('-')
            && s.split('/').all(|part| {
                !matches!(part, "" | "." | "..") && part.bytes().all(|c| c >= 0x20 && c != 0x7f)
            })
    },
    repairs: &[NO_SLASH, |s| s.trim_start_matches("./").to_owned()],
};

/// A name as configuration tools have them: of a tag, a group, a state, a package, a service.
pub static WORD: Grammar = Grammar {
    expected: "one word of letters, digits and `_.:+@-`, with a letter, digit or `_` in front",
    pattern: "^[A-Za-z0-9_][A-Za-z0-9_.:+@-]*$",
    longest: 128,
    check: |s| {
        first(s, |c| c.is_ascii_alphanumeric() || c == b'_')
            && all(s, |c| c.is_ascii_alphanumeric() || b"_.:+@-".contains(&c))
    },
    repairs: &[TRIM],
};

/// An item of Chef's run list.
pub static RUN_ITEM: Grammar = Grammar {
    expected: "an item of a run list, such as \"recipe[nginx]\"",
    pattern: r"^(recipe|role)\[[A-Za-z0-9_.:@-]+\]$",
    longest: 256,
    check: |s| {
        let inner = s.strip_prefix("recipe[").or_else(|| s.strip_prefix("role["));
        inner
            .and_then(|rest| rest.strip_suffix(']'))
            .is_some_and(|name| all(name, |c| c.is_ascii_alphanumeric() || b"_.:@-".contains(&c)))
    },
    repairs: &[|s| format!("recipe[{}]", s.trim())],
};

/// A container image by its digest.
pub static IMAGE: Grammar = Grammar {
    expected: "an image by its digest, such as \"docker.io/library/busybox@sha256:\" and 64 hex digits",
    pattern: "^[A-Za-z0-9][A-Za-z0-9._:/-]*@sha256:[0-9a-f]{64}$",
    longest: 512,
    check: |s| {
        s.split_once("@sha256:").is_some_and(|(name, digest)| {
            first(name, |c| c.is_ascii_alphanumeric())
                && all(name, |c| c.is_ascii_alphanumeric() || b"._:/-".contains(&c))
                && digest.len() == 64
                && all(digest, |c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
        })
    },
    repairs: &[],
};

/// A port, with its protocol if it is not TCP.
pub static PORT: Grammar = Grammar {
    expected: "a port, such as \"80\" or \"53/udp\"",
    pattern: "^([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])(/(tcp|udp))?$",
    longest: 9,
    check: |s| {
        let number = s.strip_suffix("/tcp").or_else(|| s.strip_suffix("/udp")).unwrap_or(s);
        all(number, |c| c.is_ascii_digit())
            && !number.starts_with('0')
            && number.parse::<u16>().is_ok()
    },
    repairs: &[TRIM],
};

/// A pattern of rsync: one line, and no option of ours for it begins with a sign of its own.
pub static RSYNC_PATTERN: Grammar = Grammar {
    expected: "one line of 1 to 4096 bytes",
    pattern: r"^[^\x00-\x1f\x7f-\x9f]+$",
    longest: 4096,
    check: |s| !s.is_empty() && !s.chars().any(char::is_control),
    repairs: &[],
};

/// A shell script.
pub static SCRIPT: Grammar = Grammar {
    expected: "a script that is not empty",
    pattern: r"^[^\x00]*[^\x00\x09\x0a\x0d\x20][^\x00]*$",
    longest: 1 << 20,
    check: |s| !s.contains('\0') && s.bytes().any(|c| !matches!(c, b'\t' | b'\n' | b'\r' | b' ')),
    repairs: &[],
};

/// A title that people read: one line.
pub static TITLE: Grammar = Grammar {
    expected: "one line of 1 to 80 bytes",
    pattern: r"^[^\x00-\x1f\x7f-\x9f]+$",
    longest: 80,
    check: |s| !s.is_empty() && !s.chars().any(char::is_control),
    repairs: &[TRIM],
};

/// A volume label of an ISO 9660 image, as our writer takes it.
pub static VOLUME: Grammar = Grammar {
    expected: "1 to 16 letters, digits and `_.-`",
    pattern: "^[A-Za-z0-9_.-]+$",
    longest: 16,
    check: |s| all(s, |c| c.is_ascii_alphanumeric() || b"_.-".contains(&c)),
    repairs: &[TRIM],
};

/// A name of the FAT filesystem, short or long.
pub static FLOPPY_NAME: Grammar = Grammar {
    expected: "a file name of letters, digits and `_.-`, with a letter or digit in front",
    pattern: "^[A-Za-z0-9][A-Za-z0-9_.-]*$",
    longest: 60,
    check: |s| {
        first(s, |c| c.is_ascii_alphanumeric())
            && all(s, |c| c.is_ascii_alphanumeric() || b"_.-".contains(&c))
    },
    repairs: &[TRIM],
};

/// An entry that a user may add to QEMU's firmware configuration device (QEMU's docs/specs/fw_cfg); a name has 56
/// bytes there, the last one zero.
pub static FW_CFG: Grammar = Grammar {
    expected: "a name such as \"opt/com.coreos/config\", of at most 55 bytes",
    pattern: "^opt/[A-Za-z0-9_][A-Za-z0-9_./-]*$",
    longest: 55,
    check: |s| {
        s.strip_prefix("opt/").is_some_and(|rest| {
            first(rest, |c| c.is_ascii_alphanumeric() || c == b'_')
                && all(rest, |c| c.is_ascii_alphanumeric() || b"_./-".contains(&c))
        })
    },
    repairs: &[TRIM, |s| format!("opt/{}", s.trim().trim_start_matches('/'))],
};

/// A kernel's command line; x86 takes 2047 bytes (`COMMAND_LINE_SIZE`).
pub static CMDLINE: Grammar = Grammar {
    expected: "one line of 1 to 2047 bytes",
    pattern: r"^[^\x00-\x1f\x7f-\x9f]+$",
    longest: 2047,
    check: |s| !s.is_empty() && !s.chars().any(char::is_control),
    repairs: &[TRIM],
};

/// What is typed; [`crate::spec::boot_command`] knows more.
pub static TYPED: Grammar = Grammar {
    expected: "text, and keys in `<>`",
    pattern: r"^[^\x00]+$",
    longest: 16 << 10,
    check: |s| !s.is_empty() && !s.contains('\0'),
    repairs: &[],
};

/// Permission bits in octal.
pub static MODE: Grammar = Grammar {
    expected: "permission bits as an octal string, such as \"0644\"",
    pattern: "^0?[0-7]{3,4}$",
    longest: 5,
    check: |s| {
        all(s, |c| (b'0'..=b'7').contains(&c))
            && (3..=4).contains(&s.strip_prefix('0').filter(|r| r.len() >= 3).unwrap_or(s).len())
    },
    repairs: &[TRIM, |s| s.trim_start_matches("0o").to_owned()],
};

/// A calendar day (RFC 3339, `full-date`).
pub static DATE: Grammar = Grammar {
    expected: "a day, such as \"2027-06-30\"",
    pattern: "^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
    longest: 10,
    check: |s| {
        s.len() == 10
            && s.bytes().enumerate().all(|(i, c)| match i {
                4 | 7 => c == b'-',
                _ => c.is_ascii_digit(),
            })
    },
    repairs: &[TRIM, |s| s.trim().replace(['/', '.'], "-")],
};

/// A package with the one version that it must have.
pub static PINNED_PACKAGE: Grammar = Grammar {
    expected: "a package with its version, such as \"cloud-agent=1.4.2\"",
    pattern: "^[a-z0-9][a-z0-9+.-]*[a-z0-9+.]=[A-Za-z0-9.+:~-]+$",
    longest: 256,
    check: |s| {
        s.split_once('=').is_some_and(|(name, version)| {
            (PACKAGE.check)(name)
                && all(version, |c| c.is_ascii_alphanumeric() || b".+:~-".contains(&c))
        })
    },
    repairs: &[TRIM],
};

/// The digest of a folder and all below it.
pub static TREE_DIGEST: Grammar = Grammar {
    expected: "`tree1:` and 64 lower-case hex digits",
    pattern: "^tree1:[0-9a-f]{64}$",
    longest: 70,
    check: |s| {
        s.strip_prefix("tree1:").is_some_and(|hex| {
            hex.len() == 64 && all(hex, |c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
        })
    },
    repairs: &[LOWER, |s| format!("tree1:{}", s.trim())],
};

/// `user` or `user:group`, by name or number.
pub static OWNER: Grammar = Grammar {
    expected: "`user` or `user:group`",
    pattern: "^([a-z_][a-z0-9_-]{0,31}|[0-9]{1,9})(:([a-z_][a-z0-9_-]{0,31}|[0-9]{1,9}))?$",
    longest: 65,
    check: |s| {
        let part = |p: &str| (USER.check)(p) || (p.len() <= 9 && all(p, |c| c.is_ascii_digit()));
        s.split(':').count() <= 2 && s.split(':').all(part)
    },
    repairs: &[LOWER],
};

/// A name of a user account, as Debian's `adduser` takes it.
pub static USER: Grammar = Grammar {
    expected: "a user name of 1 to 32 lower-case letters, digits, `_` and `-`",
    pattern: "^[a-z_][a-z0-9_-]{0,31}$",
    longest: 32,
    check: |s| {
        s.len() <= 32
            && first(s, |c| c.is_ascii_lowercase() || c == b'_')
            && all(s, |c| alnum(c) || b"_-".contains(&c))
    },
    repairs: &[LOWER],
};

/// An IPv4 address.
pub static IPV4: Grammar = Grammar {
    expected: "an IPv4 address of this host, such as \"127.0.0.1\"",
    pattern: r"^((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])$",
    longest: 15,
    check: |s| s.parse::<std::net::Ipv4Addr>().is_ok(),
    repairs: &[TRIM],
};

/// A range of IPv4 addresses (RFC 4632).
pub static SUBNET: Grammar = Grammar {
    expected: "a range of IPv4 addresses, such as \"10.77.0.0/24\"",
    pattern: r"^((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])/(3[0-2]|[12]?[0-9])$",
    longest: 18,
    check: |s| {
        let number = |n: &str| n == "0" || !n.starts_with('0');
        s.split_once('/').is_some_and(|(address, prefix)| {
            address.parse::<std::net::Ipv4Addr>().is_ok()
                && all(prefix, |c| c.is_ascii_digit())
                && number(prefix)
                && prefix.parse::<u8>().is_ok_and(|n| n <= 32)
        })
    },
    repairs: &[TRIM, |s| format!("{}/24", s.trim())],
};

/// A name of an environment variable (POSIX.1-2017, 8.1), not limited to upper case.
pub static VARIABLE: Grammar = Grammar {
    expected: "a variable name of letters, digits and `_`, without a digit in front",
    pattern: "^[A-Za-z_][A-Za-z0-9_]*$",
    longest: 128,
    check: |s| {
        first(s, |c| c.is_ascii_alphabetic() || c == b'_')
            && all(s, |c| c.is_ascii_alphanumeric() || c == b'_')
    },
    repairs: &[|s| s.trim().replace(['-', '.', ' '], "_")],
};

/// Every grammar, for tests.
#[cfg(test)]
pub(crate) static ALL: &[&Grammar] = &[
    &LABEL,
    &VERSION,
    &SUITE,
    &COMPONENT,
    &PACKAGE,
    &MIRROR,
    &URL,
    &SHA256,
    &HOST_PATH,
    &BOX_PLACE,
    &BOX_VERSION,
    &TAG,
    &BOX,
    &DISK_NAME,
    &GUEST_PATH,
    &RELATIVE,
    &WORD,
    &RUN_ITEM,
    &IMAGE,
    &PORT,
    &SCRIPT,
    &TITLE,
    &DATE,
    &VOLUME,
    &FLOPPY_NAME,
    &FW_CFG,
    &CMDLINE,
    &TYPED,
    &PINNED_PACKAGE,
    &TREE_DIGEST,
    &MODE,
    &OWNER,
    &USER,
    &IPV4,
    &SUBNET,
    &VARIABLE,
    &BOX_PATTERN,
    &SIGNER,
];

fn alnum(c: u8) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn all(s: &str, good: impl Fn(u8) -> bool) -> bool {
    !s.is_empty() && s.bytes().all(good)
}

fn first(s: &str, good: impl Fn(u8) -> bool) -> bool {
    s.bytes().next().is_some_and(good)
}

fn segment(c: u8) -> bool {
    c.is_ascii_alphanumeric() || b"._~%+-".contains(&c)
}

/// What follows scheme, host and port of an http(s) address.
fn address(s: &str) -> Option<&str> {
    authority(s.strip_prefix("http://").or_else(|| s.strip_prefix("https://"))?)
}

/// What follows a host and its port.
fn authority(rest: &str) -> Option<&str> {
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = match authority.split_once(':') {
        Some((host, port)) if port.len() <= 5 && all(port, |c| c.is_ascii_digit()) => host,
        Some(_) => return None,
        None => authority,
    };
    let ends = |c: &u8| c.is_ascii_alphanumeric();
    let good = all(host, |c| c.is_ascii_alphanumeric() || b".-".contains(&c))
        && host.as_bytes().first().is_some_and(ends)
        && host.as_bytes().last().is_some_and(ends);
    good.then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;

    /// The pattern matched as JSON schema validators do, with the length that the schema says.
    fn by_pattern(grammar: &Grammar, text: &str) -> bool {
        let pattern = regex::Regex::new(grammar.pattern).expect("the pattern compiles");
        text.len() <= grammar.longest && pattern.is_match(text)
    }

    #[test]
    fn check_and_pattern_agree_on_strings_made_from_the_pattern_and_damaged_ones() {
        let mut runner = TestRunner::deterministic();
        for grammar in ALL {
            let inner = grammar.pattern.trim_start_matches('^').trim_end_matches('$');
            let strings = proptest::string::string_regex(inner).expect("a generator");
            let strange = r"[ -~\t\n\x00\x7fäß€.:/-]{1}";
            let damage = proptest::string::string_regex(strange).expect("a generator");
            for _ in 0..400 {
                let made = strings.new_tree(&mut runner).expect("a string").current();
                let odd = damage.new_tree(&mut runner).expect("a string").current();
                let at =
                    (0..=made.chars().count()).new_tree(&mut runner).expect("a place").current();
                let mut damaged: String = made.chars().take(at).collect();
                damaged.push_str(&odd);
                damaged.extend(made.chars().skip(at));
                for text in [made, damaged] {
                    let (a, b) = (grammar.accepts(&text), by_pattern(grammar, &text));
                    assert_eq!(a, b, "{text:?} against {}", grammar.pattern);
                }
            }
        }
    }

    #[test]
    fn grammars_take_what_they_should_and_refuse_the_near_miss() {
        let cases: &[(&Grammar, &[&str], &[&str])] = &[
            (&LABEL, &["web-1", "a", "0"], &["", "-a", "a-", "Web", "a.b", "a_b"]),
            (&VERSION, &["1.0.0", "0.0.1-rc.1"], &["1.0", "01.0.0", "1.0.0+b", "v1.0.0", "1.0.0-"]),
            (
                &PACKAGE,
                &["g++", "libc6", "python3.11"],
                &["a", "curl-", "Curl", "a=1", "?essential", "-o"],
            ),
            (
                &MIRROR,
                &["http://deb.debian.org/debian", "https://h:80/a/"],
                &["ftp://a", "http://u:p@h/", "http://h/a b", "http://h/?x"],
            ),
            (&URL, &["https://h/a.img?x=1"], &["https://h", "http://h/ a", "file:///a"]),
            (
                &BOX_PLACE,
                &[
                    "oci://r.example:5000/team/web",
                    "dir:boxes",
                    "file:///srv/boxes",
                    "https://h/a/",
                ],
                &[
                    "oci://r.example",
                    "oci://h/Web",
                    "oci://h/web:1.0.0",
                    "dir:",
                    "web",
                    "oci://u@h/a",
                ],
            ),
            (
                &BOX,
                &["debian-12", "oci://r.example/base", "dir:../boxes"],
                &["oci://h/base:1.0.0", "oci://h/base@sha256:00", "Base", "base@", "a b"],
            ),
            (&BOX_VERSION, &["^1.2", "1.2.0-rc.1", ">=1.2, <2", "*"], &["", "1.2+b", "v|1"]),
            (&TAG, &["stable", "_a.b-c"], &["", "-a", ".a", "a b", "a/b"]),
            (&GUEST_PATH, &["/a/.b/..c"], &["a", "/", "/a/", "/a//b", "/a/../b", "/a/.", "/a\nb"]),
            (&DISK_NAME, &["data", "0-a"], &["", "-a", "a-", "A", "x23456789012345678901"]),
            (&DATE, &["2027-06-30"], &["", "2027-6-30", "2027/06/30", "2027-06-301"]),
            (
                &PINNED_PACKAGE,
                &["cloud-agent=1.4.2", "g++=4:12.2~rc1-1+b2"],
                &["a=", "=1", "agent", "Agent=1", "a b=1", "agent=1 2"],
            ),
            (&TREE_DIGEST, &[], &["tree1:", "sha256:00", "tree1:0g"]),
            (&MODE, &["644", "0644", "4755", "04755"], &["", "0", "999", "00644x", "77777"]),
            (&OWNER, &["root", "dev:dev", "1000:1000"], &[":a", "a:", "a:b:c", "Root"]),
            (&IPV4, &["0.0.0.0", "127.0.0.1"], &["1.2.3", "01.2.3.4", "::1", "256.1.1.1"]),
            (
                &SUBNET,
                &["10.0.0.0/8", "0.0.0.0/0"],
                &["10.0.0.0", "10.0.0.0/33", "10.0.0.0/08", "::/0"],
            ),
            (&VARIABLE, &["A_1", "_a"], &["1A", "A-B", "A=B", ""]),
            (
                &BOX_PATTERN,
                &[
                    "*",
                    "oci://*",
                    "oci://R.example:5000/team/*",
                    "dir:/srv/*",
                    "dir:*",
                    "https://h",
                    "http://h/*",
                ],
                &[
                    "",
                    "oci://h",
                    "oci://h/web:1.0.0",
                    "oci://h/web@sha256",
                    "oci://h/Web",
                    "dir:boxes",
                    "h/*",
                ],
            ),
        ];
        for (grammar, good, bad) in cases {
            for text in *good {
                assert!(grammar.accepts(text), "{text:?} against {}", grammar.pattern);
            }
            for text in *bad {
                assert!(!grammar.accepts(text), "{text:?} against {}", grammar.pattern);
            }
        }
    }
}
