//! What `remote.sh` shows where no devbox can run: the package managers' own files.

use crate::error::{Error, Result};
use crate::parity::packages::rpm::not_whole;
use crate::parity::packages::{Database, Packages};

/// The packages by the script's answer: `unread WHAT`, `beside PATH END` for a database that is not whole, or
/// `file PATH SIZE` with the bytes and a line end; then `end`.
///
/// # Errors
/// Kind `Undetermined`: the answer is cut, a database is not read or damaged, or there is none.
pub(super) fn packages(mut text: &[u8]) -> Result<Packages> {
    let broken = || {
        Error::undetermined("the answer is broken")
            .hint("Try again: a package manager may have been at work.")
    };
    let mut found = vec![];
    loop {
        let end = text.iter().position(|b| *b == b'\n').ok_or_else(broken)?;
        let line = std::str::from_utf8(&text[..end]).map_err(|_| broken())?;
        text = &text[end + 1..];
        if line == "end" && text.is_empty() {
            return Packages::of_databases(&found);
        }
        if let Some(what) = line.strip_prefix("unread ") {
            return Err(Error::undetermined(format!("{what} is not read")));
        }
        if let Some((path, end)) =
            line.strip_prefix("beside ").and_then(|rest| rest.rsplit_once(' '))
        {
            return Err(not_whole(path.as_bytes(), format!("{path}{end}").as_bytes()));
        }
        let (path, size) = line
            .strip_prefix("file ")
            .and_then(|rest| rest.rsplit_once(' '))
            .and_then(|(path, size)| Some((path, size.parse::<usize>().ok()?)))
            .ok_or_else(broken)?;
        let (contents, rest) = text.split_at_checked(size).ok_or_else(broken)?;
        text = rest.strip_prefix(b"\n").ok_or_else(broken)?;
        found.push(Database { path: path.as_bytes(), text: contents });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_are_read_as_those_of_an_image() {
        let one = "Package: a\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n";
        let text = format!("file /var/lib/dpkg/status {}\n{one}\nend\n", one.len());
        let packages = packages(text.as_bytes()).expect("read");
        assert_eq!(packages.list().len(), 1);
        assert_eq!(packages.list()[0].name, b"a");
    }

    #[test]
    fn a_database_that_is_not_whole_says_what_to_do() {
        let text =
            b"beside /var/lib/rpm/rpmdb.sqlite -wal\nfile /var/lib/rpm/rpmdb.sqlite 1\nx\nend\n";
        let e = packages(text).expect_err("some of it is elsewhere").to_string();
        assert!(e.contains("`/var/lib/rpm/rpmdb.sqlite` is not whole"), "{e}");
    }

    #[test]
    fn what_is_cut_or_unread_is_no_answer() {
        for text in [
            "",
            "end",
            "end\nmore\n",
            "file /var/lib/dpkg/status 5\nabc",
            "file /var/lib/dpkg/status 2\nabc\nend\n",
            "file /etc/passwd 1\na\nend\n",
            "unread the rpm database `/x`\nend\n",
            "file /var/lib/rpm/rpmdb.sqlite 1\nx\nend\n",
            "beside /var/lib/rpm/rpmdb.sqlite\nend\n",
            "end\n",
        ] {
            let e = packages(text.as_bytes()).expect_err(text);
            assert_eq!(e.kind().exit_code(), 3, "{text}");
        }
    }
}
