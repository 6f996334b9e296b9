//! Hands a machine what it takes over from this host: its proxies, and certificates that were added to it.

use std::path::Path;
use std::time::Duration;

use fs_err as fs;

use crate::digest::{hex, sha256};
use crate::error::{Error, Result};
use crate::event::Events;
use crate::guest::host_settings::{HostSettings, PROXY_VARIABLES, script, seen_by_guest};
use crate::machine::instance::Instance;
use crate::machine::record::Record;
use crate::project::Run;
use crate::project::as_root::Script;
use crate::project::network::Plan;
use crate::spec::Machine;

/// Where an administrator adds certificates (update-ca-certificates(8), update-ca-trust(8), trust(1)).
const CERTIFICATES: [&str; 3] = [
    "/usr/local/share/ca-certificates",
    "/etc/pki/ca-trust/source/anchors",
    "/etc/ca-certificates/trust-source/anchors",
];
/// Bytes of all of them; an authority's certificate has some thousands.
const MOST: usize = 1 << 20;
/// The guest makes its list of all certificates anew, which takes an emulated one a while.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Gives the machine what it wants of this host, if that is not what it has. Its lock is held, and it
/// is ready.
///
/// # Errors
/// The certificates cannot be read, or the guest cannot take them.
pub(super) async fn hand_over(
    machine: &Machine,
    network: Option<&Plan>,
    instance: &Instance,
    record: &mut Record,
    run: Run<'_>,
    events: &Events,
) -> Result<()> {
    let mut settings = HostSettings::default();
    if machine.proxy {
        settings.proxies = proxies(|name| std::env::var(name).ok(), events);
        if let Some(network) = network {
            past_proxies(&mut settings.proxies, &network.near());
        }
    }
    if machine.certificates {
        settings.certificates = certificates(&CERTIFICATES.map(Path::new))?;
    }
    let nothing = settings == HostSettings::default();
    let script = script(&settings);
    let digest = (!nothing).then(|| hex(&sha256(script.as_bytes())));
    if record.host_settings == digest {
        return Ok(());
    }
    let title = "handing over the settings of this host";
    Script { title, timeout: TIMEOUT }.run(script, instance, record, run, events).await?;
    record.host_settings = digest;
    instance.save(record)?;
    let name = instance.name();
    for (variable, value) in &settings.proxies {
        events.note(format!("`{name}` has {variable}={}", without_password(value)));
    }
    match settings.certificates.len() {
        0 => {}
        1 => events.note(format!("`{name}` trusts a certificate of this host")),
        n => events.note(format!("`{name}` trusts {n} certificates of this host")),
    }
    if nothing {
        events.note(format!("`{name}` has no settings of this host any more"));
    }
    Ok(())
}

/// The proxies of the environment; a name in lower case is the stronger one, as for curl(1).
fn proxies(
    variable: impl Fn(&str) -> Option<String>,
    events: &Events,
) -> Vec<(&'static str, String)> {
    let mut found = vec![];
    for name in PROXY_VARIABLES {
        let value = variable(name).or_else(|| variable(&name.to_ascii_uppercase()));
        let Some(value) = value.filter(|value| !value.is_empty()) else { continue };
        match seen_by_guest(name, &value) {
            Some(seen) => found.push((name, seen)),
            None => {
                events.warn(format!("{name} of this host is not handed over: it is no address"))
            }
        }
    }
    found
}

/// No proxy is asked for what is `near`: it could not reach the machines of a private network.
fn past_proxies(proxies: &mut Vec<(&'static str, String)>, near: &str) {
    const NAME: &str = "no_proxy";
    if proxies.is_empty() {
        return;
    }
    match proxies.iter_mut().find(|(name, _)| *name == NAME) {
        Some((_, value)) => *value = format!("{value},{near}"),
        None => proxies.extend(seen_by_guest(NAME, near).map(|value| (NAME, value))),
    }
}

/// `http://me:***@proxy:3128/`.
fn without_password(address: &str) -> String {
    let hidden = || {
        let (scheme, rest) = address.split_once("://")?;
        let (user, place) = rest.rsplit_once('@')?;
        let (user, _) = user.split_once(':')?;
        Some(format!("{scheme}://{user}:***@{place}"))
    };
    hidden().unwrap_or_else(|| address.to_owned())
}

/// The certificates in PEM below these folders, each once, by the names of their files.
fn certificates(folders: &[&Path]) -> Result<Vec<(String, String)>> {
    let mut found: Vec<(String, String)> = vec![];
    let mut total = 0;
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        for entry in walkdir::WalkDir::new(folder).follow_links(true).sort_by_file_name() {
            let entry = entry.map_err(|e| {
                Error::failed(format!("cannot read the certificates in `{}`", folder.display()))
                    .cause(e)
            })?;
            if !entry.file_type().is_file() {
                continue;
            }
            // Some are in another form, DER; they say nothing that a script could hand over as text.
            let Ok(pem) = String::from_utf8(fs::read(entry.path())?) else { continue };
            let known = found.iter().any(|(_, other)| *other == pem);
            if known || !pem.contains("-----BEGIN CERTIFICATE-----") {
                continue;
            }
            total += pem.len();
            if total > MOST {
                return Err(Error::failed(format!(
                    "this host has more than {} KiB of added certificates",
                    MOST >> 10
                ))
                .hint("Put those that the machine needs into its image, and remove `certificates` from `[machine]`."));
            }
            let stem = entry.path().file_stem().unwrap_or_default().to_string_lossy();
            let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            let name: String = stem.chars().map(|c| if fits(c) { c } else { '_' }).collect();
            found.push((format!("{}-{name}", found.len()), pem));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_of_the_network_are_reached_without_the_proxy() {
        let near = "web,web.shop,10.77.0.0/24";
        let mut none = vec![];
        past_proxies(&mut none, near);
        assert!(none.is_empty());
        let proxy = ("http_proxy", "http://proxy:3128/".to_owned());
        let mut without = vec![proxy.clone()];
        past_proxies(&mut without, near);
        assert_eq!(without[1], ("no_proxy", format!("localhost,127.0.0.1,{near}")));
        let mut with = vec![proxy, ("no_proxy", ".corp".to_owned())];
        past_proxies(&mut with, near);
        assert_eq!(with[1], ("no_proxy", format!(".corp,{near}")));
    }

    #[test]
    fn added_certificates_are_found_once_and_other_files_are_none() {
        let dir = tempfile::tempdir().expect("dir");
        let pem = |text: &str| format!("-----BEGIN CERTIFICATE-----\n{text}\n");
        std::fs::create_dir(dir.path().join("corp")).expect("made");
        for (name, text) in [
            ("corp/the root.crt", pem("a")),
            ("same.crt", pem("a")),
            ("other.crt", pem("b")),
            ("README", "nothing".to_owned()),
        ] {
            std::fs::write(dir.path().join(name), text).expect("written");
        }
        std::fs::write(dir.path().join("der.crt"), [0x30, 0x82, 0xff]).expect("written");
        let found = certificates(&[dir.path(), Path::new("/nonexistent")]).expect("read");
        assert_eq!(found, [("0-the_root".to_owned(), pem("a")), ("1-other".to_owned(), pem("b"))]);
        std::fs::write(dir.path().join("z.crt"), pem(&"x".repeat(MOST))).expect("written");
        let e = certificates(&[dir.path()]).expect_err("too many");
        assert!(e.what().contains("1024 KiB"), "{e}");
    }

    #[test]
    fn a_password_is_not_shown() {
        assert_eq!(without_password("http://me:x@p:1/"), "http://me:***@p:1/");
        assert_eq!(without_password("http://p:1/"), "http://p:1/");
    }
}
