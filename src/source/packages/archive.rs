//! The archive: which mirror serves the build, and what its signed index says.

use std::process::Stdio;

use fs_err as fs;
use tokio_util::sync::CancellationToken;

use super::recipe;
use crate::digest;
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::exec::{self, tools};
use crate::source::disk::preflight::KEYRING;
use crate::source::disk::scratch::Scratch;
use crate::source::signature;
use crate::spec::types::{Arch, Packages};

/// Fetches with the host's proxy and credentials, as `apt-get` would.
const APT_HELPER: &str = "/usr/lib/apt/apt-helper";

/// One suite as the build sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Suite {
    /// `bookworm-security`.
    pub(super) name: String,
    /// Where the build fetches it: the host's mirror, or the spec's.
    pub(super) mirror: String,
    /// Date of its index, seconds since 1970 UTC.
    pub(super) date: i64,
    /// Digest of what the index says about the packages that can be installed.
    pub(super) packages: String,
    /// The compressed lists of packages: path below the suite, and SHA-256, as the signed index has them.
    pub(super) lists: Vec<(String, String)>,
}

/// Finds a mirror for each suite and reads its index.
///
/// # Errors
/// No index can be fetched, its signature is bad, or it lacks a component or the architecture.
pub(super) async fn suites(
    spec: &Packages,
    arch: Arch,
    scratch: &Scratch,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<Vec<Suite>> {
    let host = host_mirrors(scratch, cancel).await?;
    let mut suites = vec![];
    for (name, security) in recipe::suites(spec) {
        let own = if security { &spec.security_mirror } else { &spec.mirror };
        let mut mirrors: Vec<&str> = vec![];
        mirrors.extend(host_mirror(&host, &name, &spec.components, arch));
        if !mirrors.contains(&own.trim_end_matches('/')) {
            mirrors.push(own.trim_end_matches('/'));
        }
        let mut result = Err(Error::failed(format!("no mirror is known for `{name}`")));
        for (i, mirror) in mirrors.iter().enumerate() {
            result = read(&name, mirror, spec, arch, scratch, cancel).await;
            match &result {
                Ok(_) => break,
                Err(e) if e.kind() == Kind::Interrupted => break,
                Err(_) if i + 1 < mirrors.len() => {
                    events.warn(format!(
                        "the host's own mirror does not serve `{name}`; using the spec's"
                    ));
                }
                Err(_) => {}
            }
        }
        suites.push(result?);
    }
    Ok(suites)
}

/// Each mirror of the spec with the host's mirror that serves its suites.
///
/// # Errors
/// `cancel` was cancelled.
pub(super) async fn stand_ins(
    spec: &Packages,
    arch: Arch,
    scratch: &Scratch,
    cancel: &CancellationToken,
) -> Result<Vec<(String, String)>> {
    let host = host_mirrors(scratch, cancel).await?;
    let mut pairs: Vec<(String, String)> = vec![];
    for (name, security) in recipe::suites(spec) {
        let own = if security { &spec.security_mirror } else { &spec.mirror };
        if let Some(mirror) = host_mirror(&host, &name, &spec.components, arch)
            && !pairs.iter().any(|(known, _)| known == own)
        {
            pairs.push((own.clone(), mirror.to_owned()));
        }
    }
    Ok(pairs)
}

/// One line of `apt-get indextargets`.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    suite: String,
    component: String,
    arch: String,
    uri: String,
}

async fn host_mirrors(scratch: &Scratch, cancel: &CancellationToken) -> Result<Vec<Target>> {
    let mut command = tools::APT_GET.command()?;
    command.args([
        "indextargets",
        "--format",
        "$(ORIGIN)|$(CODENAME)|$(COMPONENT)|$(ARCHITECTURE)|$(REPO_URI)",
        "Created-By: Packages",
    ]);
    command.stdin(scratch.stdin()?);
    // A host without sources, or one whose apt is broken, has no mirror of its own.
    match exec::group::run(command, |_| {}, cancel).await {
        Ok(out) => Ok(targets(&String::from_utf8_lossy(&out))),
        Err(e) if e.kind() == Kind::Interrupted => Err(e),
        Err(_) => Ok(vec![]),
    }
}

/// Debian's own suites, fetched over a network: another archive may use the same code name, and a
/// path of the host cannot be read inside a namespace.
fn targets(text: &str) -> Vec<Target> {
    let parse = |line: &str| {
        let mut fields = line.split('|');
        let (origin, suite) = (fields.next()?, fields.next()?);
        let (component, arch, uri) = (fields.next()?, fields.next()?, fields.next()?);
        let network = uri.starts_with("http://") || uri.starts_with("https://");
        (origin == "Debian" && network).then(|| Target {
            suite: suite.to_owned(),
            component: component.to_owned(),
            arch: arch.to_owned(),
            uri: uri.trim_end_matches('/').to_owned(),
        })
    };
    text.lines().filter_map(parse).collect()
}

/// The host's mirror of a suite, if it has all components of it. One for the guest's architecture if the
/// host uses any; else that for its own, since mirrors have more than one host uses.
fn host_mirror<'a>(
    host: &'a [Target],
    suite: &str,
    components: &[String],
    arch: Arch,
) -> Option<&'a str> {
    let has = |uri: &str, component: &str, exact: bool| {
        host.iter().any(|t| {
            t.uri == uri
                && t.suite == suite
                && t.component == component
                && (!exact || t.arch == arch.as_str())
        })
    };
    [true, false].into_iter().find_map(|exact| {
        let all = |uri: &&str| components.iter().all(|c| has(uri, c, exact));
        host.iter().map(|t| t.uri.as_str()).find(all)
    })
}

/// Fetches a file of the archive as `apt-get` would.
pub(super) async fn fetch(
    address: String,
    to: &std::path::Path,
    scratch: &Scratch,
    cancel: &CancellationToken,
) -> Result<()> {
    let mut fetch = std::process::Command::new(APT_HELPER);
    fetch.args(["-o", "Acquire::Retries=3", "download-file"]);
    fetch.arg(address).arg(to).stdin(scratch.stdin()?);
    exec::group::run(fetch, |_| {}, cancel).await.map(drop)
}

async fn read(
    name: &str,
    mirror: &str,
    spec: &Packages,
    arch: Arch,
    scratch: &Scratch,
    cancel: &CancellationToken,
) -> Result<Suite> {
    let signed = scratch.dir().join("InRelease");
    let text = scratch.dir().join("Release");
    for file in [&signed, &text] {
        let _ = fs::remove_file(file);
    }
    let address = format!("{mirror}/dists/{name}/InRelease");
    if let Err(e) = fetch(address, &signed, scratch, cancel).await {
        if e.kind() == Kind::Interrupted {
            return Err(e);
        }
        // The command line would name the host's mirror; what the user can check is in the spec.
        let mut error = Error::failed(format!("cannot fetch the index of `{name}`"));
        if mirror == spec.mirror.trim_end_matches('/')
            || mirror == spec.security_mirror.trim_end_matches('/')
        {
            for line in e.details() {
                error = error.detail(line.clone());
            }
        }
        return Err(error.hint(
            "Check the network, and `suite`, `mirror` and `security_mirror` in `[source]`.",
        ));
    }
    let mut check = tools::GPGV.command()?;
    check.args(["--quiet", "--status-fd", "1", "--keyring", KEYRING, "--output"]);
    check.arg(&text).arg(&signed).stdin(Stdio::null());
    // Not the exit code: an index has several signatures, and an older keyring lacks some keys.
    let status = check.output().map_err(|e| Error::failed("cannot start `gpgv`").cause(e))?.stdout;
    proven(name, &String::from_utf8_lossy(&status))?;
    let release = fs::read_to_string(&text)?;
    let Index { date, packages, lists } = parse(name, &release, &spec.components, arch)?;
    Ok(Suite { name: name.to_owned(), mirror: mirror.to_owned(), date, packages, lists })
}

/// Whether the status lines of `gpgv` prove an index.
///
/// # Errors
/// Kind `Trust`: no key of the keyring that is neither expired nor revoked has signed it, or something else was
/// signed; each signature by name.
fn proven(name: &str, status: &str) -> Result<()> {
    let Err(found) = signature::proven(status) else { return Ok(()) };
    let error = Error::new(Kind::Trust, format!("the index of `{name}` has no good signature"));
    let error = found.into_iter().fold(error, |e, one| e.detail(format!("found: {one}")));
    Err(error
        .detail(format!("keyring: {KEYRING}"))
        .hint("Update the keys with `sudo apt-get install debian-archive-keyring`; if that does not help, do not trust this mirror."))
}

/// What a signed index says.
#[derive(Debug)]
struct Index {
    date: i64,
    packages: String,
    lists: Vec<(String, String)>,
}

/// The date of an index, and a digest over its lines about the packages of these components. The
/// date is not part of it: indexes are dated anew several times a day without any change.
fn parse(name: &str, release: &str, components: &[String], arch: Arch) -> Result<Index> {
    let wrong = |what: &str| Error::failed(format!("the index of `{name}` {what}"));
    let field = |key: &str| {
        release.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(": ")).map(str::trim)
    };
    if field("Codename") != Some(name) && field("Suite") != Some(name) {
        return Err(wrong("is of another suite")
            .detail(format!("it says: {}", field("Codename").unwrap_or("nothing"))));
    }
    let date = field("Date").ok_or_else(|| wrong("has no date"))?;
    // RFC 2822 knows the zone as `GMT` or as a number.
    let date = jiff::fmt::rfc2822::parse(&date.replace(" UTC", " +0000"))
        .map_err(|e| wrong("has an unreadable date").cause(e))?;

    let sums = release.lines().skip_while(|l| *l != "SHA256:").skip(1);
    let sums: Vec<&str> = sums.take_while(|l| l.starts_with(' ')).collect();
    let mut relevant = String::new();
    let mut lists = vec![];
    for component in components {
        let file = format!(" {component}/binary-{}/Packages", arch.as_str());
        let line = sums.iter().find(|l| l.ends_with(&file)).ok_or_else(|| {
            wrong(&format!("has no component `{component}` for `{}`", arch.as_str()))
                .hint("Check `components` in `[source]`.")
        })?;
        relevant.push_str(line.trim());
        relevant.push('\n');
        let packed = format!("{file}.xz");
        if let Some(line) = sums.iter().find(|l| l.ends_with(&packed))
            && let Some(sum) = line.split_whitespace().next()
        {
            lists.push((packed.trim().to_owned(), sum.to_ascii_lowercase()));
        }
    }
    let packages = digest::hex(&digest::sha256(relevant.as_bytes()));
    Ok(Index { date: date.timestamp().as_second(), packages, lists })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASE: &str = "Origin: Debian\nSuite: oldstable\nCodename: bookworm\n\
        Date: Sat, 11 Jul 2026 10:16:37 UTC\nMD5Sum:\n 00 1 main/binary-amd64/Packages\n\
        SHA256:\n aa 12 main/binary-amd64/Packages\n bb 13 main/binary-amd64/Packages.xz\n\
        \x20cc 14 contrib/binary-amd64/Packages\n";

    fn main() -> Vec<String> {
        vec!["main".to_owned()]
    }

    #[test]
    fn an_index_is_proven_by_one_good_signature_and_none_that_is_bad() {
        const VALID: &str = "[GNUPG:] VALIDSIG AA 2026-01-01 1 0 4 0 22 8 01 BB\n";
        let good = format!("[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG 12 A name\n{VALID}");
        let (expired, revoked, bad, unknown) = (
            format!("[GNUPG:] EXPKEYSIG 34 A name\n{VALID}"),
            format!("[GNUPG:] REVKEYSIG 56 A name\n{VALID}"),
            "[GNUPG:] BADSIG 78 A name\n".to_owned(),
            "[GNUPG:] ERRSIG 90 22 8 01 1 9 CC\n".to_owned(),
        );
        proven("bookworm", &good).expect("good");
        // Debian signs by an old key too, as long as some systems know no other.
        for beside in [&expired, &revoked, &unknown] {
            proven("bookworm", &format!("{beside}{good}")).expect("one is enough");
        }
        for (status, word) in [
            (&expired, "a key that has expired, key BB"),
            (&revoked, "a key that was revoked, key BB"),
            (&bad, "the file was changed, or is another one, key 78"),
            (&format!("{good}{bad}"), "the file was changed, or is another one, key 78"),
            (&unknown, "a key that is not among the keys, key 90"),
            (&VALID.to_owned(), "keyring: "),
            (&String::new(), "keyring: "),
        ] {
            let e = proven("bookworm", status).expect_err(word);
            assert_eq!(e.kind(), Kind::Trust);
            assert!(e.details().iter().any(|line| line.contains(word)), "{word}: {e}");
        }
    }

    #[test]
    fn the_digest_covers_the_packages_and_not_the_date() {
        let of = |text: &str| parse("bookworm", text, &main(), Arch::Amd64).expect("a good index");
        let first = of(RELEASE);
        assert_eq!(first.date, 1_783_764_997);
        assert_eq!(first.lists, [("main/binary-amd64/Packages.xz".to_owned(), "bb".to_owned())]);
        let next = of(&RELEASE.replace("11 Jul", "12 Jul").replace("Sat", "Sun"));
        assert_eq!((next.date - first.date, &next.packages), (86_400, &first.packages));
        assert_ne!(of(&RELEASE.replace(" aa 12", " ab 12")).packages, first.packages);
    }

    #[test]
    fn an_index_of_another_suite_or_without_the_component_is_refused() {
        assert!(parse("trixie", RELEASE, &main(), Arch::Amd64).is_err());
        let e = parse("bookworm", RELEASE, &["nonsense".to_owned()], Arch::Amd64);
        assert!(e.expect_err("refused").to_string().contains("no component `nonsense`"));
    }

    #[test]
    fn only_debians_own_suites_with_all_components_count_as_a_mirror() {
        let text = "Docker|bookworm|main|amd64|https://other.example/linux\n\
            Debian|bookworm|main|amd64|http://mirror.example/debian/\n\
            Debian|bookworm|contrib|amd64|http://mirror.example/debian/\n\
            Debian|bookworm|main|amd64|file:/srv/debian/\n\
            Debian|bookworm-security|main|arm64|http://mirror.example/security/\n";
        let host = targets(text);
        let both = vec!["main".to_owned(), "contrib".to_owned()];
        let found = host_mirror(&host, "bookworm", &both, Arch::Amd64);
        assert_eq!(found, Some("http://mirror.example/debian"));
        let more = vec!["main".to_owned(), "non-free".to_owned()];
        assert_eq!(host_mirror(&host, "bookworm", &more, Arch::Amd64), None);
        // A mirror for another architecture only where there is none for this one.
        let security = host_mirror(&host, "bookworm-security", &main(), Arch::Amd64);
        assert_eq!(security, Some("http://mirror.example/security"));
        let both = targets(
            "Debian|bookworm|main|amd64|http://amd64.example/debian\n\
             Debian|bookworm|main|arm64|http://arm64.example/debian\n",
        );
        let arm64 = host_mirror(&both, "bookworm", &main(), Arch::Arm64);
        assert_eq!(arm64, Some("http://arm64.example/debian"));
    }
}
