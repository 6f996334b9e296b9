//! Boot Loader Specification entries (UAPI.1, type 1): `loader/entries/*.conf`.

use super::{Entry, Files, MAX_ENTRIES, MAX_FILE, join, too_much};
use crate::error::Result;

/// One `.conf` file.
#[derive(Debug, Default)]
pub(super) struct Conf {
    /// The file's name without `.conf`.
    pub(super) id: Vec<u8>,
    pub(super) title: Vec<u8>,
    pub(super) kernel: Vec<u8>,
    pub(super) initrd: Vec<Vec<u8>>,
    pub(super) cmdline: Vec<u8>,
    version: Vec<u8>,
}

/// Entries without GRUB, as systemd-boot reads them: the default is the newest, or the one that
/// `loader.conf` names.
pub(super) fn standalone(files: &dyn Files, dir: &[u8]) -> Result<Vec<Entry>> {
    let found = entries(files, dir, &|_| vec![])?;
    let wanted = match files.read(&join(dir, b"loader.conf"), MAX_FILE)? {
        Some(text) => {
            lines(&text).filter(|(key, _)| *key == b"default").map(|(_, v)| v.to_vec()).last()
        }
        None => None,
    };
    let matches = |id: &[u8]| {
        wanted.as_ref().is_some_and(|w| {
            let w = w.strip_suffix(b".conf").unwrap_or(w);
            match w.strip_suffix(b"*") {
                Some(start) => id.starts_with(start),
                None => id == w,
            }
        })
    };
    let default = found.iter().position(|e| matches(&e.id)).unwrap_or(0);
    let entry = |(n, conf): (usize, Conf)| Entry {
        title: conf.title,
        kernel: conf.kernel,
        initrd: conf.initrd,
        cmdline: conf.cmdline,
        default: n == default,
    };
    Ok(found.into_iter().enumerate().map(entry).collect())
}

/// All entries below `<dir>/entries`, the newest first. `variable` gives GRUB's variables, which
/// Fedora's entries use (`options $kernelopts`).
pub(super) fn entries(
    files: &dyn Files,
    dir: &[u8],
    variable: &dyn Fn(&[u8]) -> Vec<u8>,
) -> Result<Vec<Conf>> {
    let dir = join(dir, b"entries");
    let mut names = files.list(&dir)?;
    names.retain(|n| n.ends_with(b".conf"));
    if names.len() > MAX_ENTRIES {
        return Err(too_much("too many entries"));
    }
    let mut found = vec![];
    for name in names {
        if let Some(text) = files.read(&join(&dir, &name), MAX_FILE)? {
            let conf = conf(&name[..name.len() - b".conf".len()], &text, variable);
            if !conf.kernel.is_empty() {
                found.push(conf);
            }
        }
    }
    found.sort_by(|a, b| {
        compare(&b.version, &a.version).then_with(|| compare(&b.id, &a.id)).then(b.id.cmp(&a.id))
    });
    Ok(found)
}

fn conf(id: &[u8], text: &[u8], variable: &dyn Fn(&[u8]) -> Vec<u8>) -> Conf {
    let mut conf = Conf { id: id.to_vec(), title: id.to_vec(), ..Conf::default() };
    let mut options: Vec<Vec<u8>> = vec![];
    for (key, value) in lines(text) {
        match key {
            b"title" => conf.title = value.to_vec(),
            b"version" => conf.version = value.to_vec(),
            b"linux" => conf.kernel = value.to_vec(),
            b"initrd" => conf
                .initrd
                .extend(words(value).map(|w| expand(w, variable)).filter(|w| !w.is_empty())),
            b"options" => {
                options.extend(words(value).map(|w| expand(w, variable)).filter(|w| !w.is_empty()))
            }
            _ => {}
        }
    }
    conf.cmdline = options.join(&b' ');
    conf
}

/// `key value` lines.
fn lines(text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    text.split(|&b| b == b'\n').filter_map(|line| {
        let line = line.trim_ascii();
        if line.first().is_none_or(|&b| b == b'#') {
            return None;
        }
        let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
        Some((&line[..end], line[end..].trim_ascii()))
    })
}

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty())
}

/// A word that is one variable is replaced by its value.
fn expand(word: &[u8], variable: &dyn Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    match word.strip_prefix(b"$") {
        Some(name) => {
            let name = name.strip_prefix(b"{").and_then(|n| n.strip_suffix(b"}")).unwrap_or(name);
            variable(name).trim_ascii().to_vec()
        }
        None => word.to_vec(),
    }
}

/// Versions: runs of digits by value, other bytes by code, as `5.10` is newer than `5.9`.
fn compare(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let digits = |s: &[u8]| s.iter().take_while(|c| c.is_ascii_digit()).count();
        let (da, db) = (digits(a), digits(b));
        if da > 0 && db > 0 {
            let strip = |s: &[u8]| {
                let zeros = s.iter().take_while(|&&c| c == b'0').count();
                s[zeros..].to_vec()
            };
            let (na, nb) = (strip(&a[..da]), strip(&b[..db]));
            let order = na.len().cmp(&nb.len()).then(na.cmp(&nb));
            if order.is_ne() {
                return order;
            }
            (a, b) = (&a[da..], &b[db..]);
            continue;
        }
        match (a.split_first(), b.split_first()) {
            (None, None) => return std::cmp::Ordering::Equal,
            (None, _) => return std::cmp::Ordering::Less,
            (_, None) => return std::cmp::Ordering::Greater,
            (Some((x, ra)), Some((y, rb))) => {
                if x != y {
                    return x.cmp(y);
                }
                (a, b) = (ra, rb);
            }
        }
    }
}
