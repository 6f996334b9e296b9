//! The ids of a server's user namespace: the host's user has those of the guest's account, and the guest's
//! other accounts have what this user was given for such namespaces (subuid(5)).
//!
//! Without other ids a plain user's namespace may not change groups, which the servers do first.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use crate::error::{Error, Result};
use crate::exec::{self, Tool, tools};
use crate::guest::folder::Ids;

/// For root where nobody gave it a range: ids above those of people and of containers (systemd's
/// documentation, "Users, Groups, UIDs and GIDs on systemd Systems").
const FREE: Range = Range { start: 0x7000_0000, count: 65_536 };

/// The ranges of this user; root can do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ranges {
    users: Option<Range>,
    groups: Option<Range>,
}

/// Ids of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    start: u32,
    count: u32,
}

/// One line of a `uid_map` (user_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    inside: u32,
    outside: u32,
    count: u32,
}

impl Ranges {
    /// Those of the user who runs this.
    ///
    /// # Errors
    /// A plain user has none.
    pub(super) fn of_this_user() -> Result<Self> {
        let me = rustix::process::geteuid().as_raw();
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let name = name_in(&text("/etc/passwd"), me);
        let range = |path: &str, own: &str| {
            let given = range_in(&text(path), &name, me);
            given.or((me == 0 && covers(&text(own), FREE)).then_some(FREE))
        };
        let ranges = Ranges {
            users: range("/etc/subuid", "/proc/self/uid_map"),
            groups: range("/etc/subgid", "/proc/self/gid_map"),
        };
        if me != 0 && (ranges.users.is_none() || ranges.groups.is_none()) {
            return Err(Error::failed(format!(
                "`type = \"virtiofs\"` needs a range of ids for the user `{name}` in /etc/subuid and /etc/subgid"
            ))
            .hint("Give your user one with `sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 \"$USER\"`; or set `type = \"9p\"`, which needs none."));
        }
        Ok(ranges)
    }

    /// Gives the process `pid`, which waits in a new user namespace, its ids: this user is `owner` there.
    ///
    /// # Errors
    /// The host does not allow it.
    pub(super) fn apply(&self, pid: u32, owner: Ids) -> Result<()> {
        let (me, my_group) = (rustix::process::geteuid(), rustix::process::getegid().as_raw());
        let groups = extents(owner.gid, my_group, self.groups);
        let users = extents(owner.uid, me.as_raw(), self.users);
        if me.is_root() {
            let write = |file: &str, extents: &[Extent]| {
                fs_err::write(format!("/proc/{pid}/{file}"), lines(extents))
            };
            write("gid_map", &groups)?;
            write("uid_map", &users)?;
            return Ok(());
        }
        program(tools::NEWGIDMAP, pid, &groups)?;
        program(tools::NEWUIDMAP, pid, &users)
    }
}

fn program(tool: Tool, pid: u32, extents: &[Extent]) -> Result<()> {
    let mut command: Command = tool.command()?;
    command.arg(pid.to_string());
    for extent in extents {
        command.args([extent.inside, extent.outside, extent.count].map(|n| n.to_string()));
    }
    exec::output(command.stderr(Stdio::piped())).map(|_| ())
}

fn lines(extents: &[Extent]) -> String {
    let mut text = String::new();
    for e in extents {
        let _ = writeln!(text, "{} {} {}", e.inside, e.outside, e.count);
    }
    text
}

/// `outside` is `inside` there; the ids around it are those of `range`.
fn extents(inside: u32, outside: u32, range: Option<Range>) -> Vec<Extent> {
    let mut all = vec![Extent { inside, outside, count: 1 }];
    // The kernel takes no id twice.
    let fits = |range: &Range| !(range.start..=range.start + (range.count - 1)).contains(&outside);
    let Some(range) = range.filter(fits) else { return all };
    let below = inside.min(range.count);
    let above = (range.count - below).min(u32::MAX - 1 - inside);
    if below > 0 {
        all.push(Extent { inside: 0, outside: range.start, count: below });
    }
    if above > 0 {
        all.push(Extent { inside: inside + 1, outside: range.start + below, count: above });
    }
    all
}

/// The first range of this user in a text as /etc/subuid has it: `name:start:count`.
fn range_in(text: &str, name: &str, id: u32) -> Option<Range> {
    let number = id.to_string();
    text.lines().find_map(|line| {
        let mut words = line.trim().split(':');
        let (whose, start, count) = (words.next()?, words.next()?, words.next()?);
        let (start, count): (u32, u32) = (start.parse().ok()?, count.parse().ok()?);
        let whole = count > 0 && start.checked_add(count - 1).is_some();
        (whole && (whose == name || whose == number)).then_some(Range { start, count })
    })
}

/// Whether a namespace with this `uid_map` has the range: in a container it may not.
fn covers(map: &str, range: Range) -> bool {
    let end = u64::from(range.start) + u64::from(range.count);
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        match (numbers.next(), numbers.nth(1)) {
            (Some(Ok(inside)), Some(Ok(count))) => {
                inside <= u64::from(range.start) && end <= inside + count
            }
            _ => false,
        }
    })
}

/// The name of the account in a text as /etc/passwd has it; the number where there is none.
fn name_in(text: &str, id: u32) -> String {
    let mut accounts = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let own = accounts.find(|words| words.get(2).is_some_and(|word| *word == id.to_string()));
    own.map_or_else(|| id.to_string(), |words| words[0].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_has_the_accounts_id_and_the_range_is_around_it() {
        let range = Some(Range { start: 100_000, count: 65_536 });
        assert_eq!(
            lines(&extents(1000, 501, range)),
            "1000 501 1\n0 100000 1000\n1001 101000 64536\n"
        );
        assert_eq!(lines(&extents(0, 501, range)), "0 501 1\n1 100000 65536\n");
        assert_eq!(lines(&extents(70_000, 501, range)), "70000 501 1\n0 100000 65536\n");
        assert_eq!(lines(&extents(1000, 0, None)), "1000 0 1\n");
        // An id of the range itself: the range cannot be used with it.
        assert_eq!(lines(&extents(5, 100_001, range)), "5 100001 1\n");
        let all = Some(Range { start: 1, count: u32::MAX });
        assert_eq!(
            lines(&extents(u32::MAX - 2, 0, all)),
            "4294967293 0 1\n0 1 4294967293\n4294967294 4294967294 1\n"
        );
    }

    #[test]
    fn a_users_range_is_found_by_name_or_number() {
        let text = "ada:100000:65536\nbad:1\nbad:x:1\nbad:4294967295:2\nbad:7:0\n501:200000:10\n";
        let found = |name, id| range_in(text, name, id).map(|r| (r.start, r.count));
        assert_eq!(found("ada", 500), Some((100_000, 65_536)));
        assert_eq!(found("bob", 501), Some((200_000, 10)));
        assert_eq!(found("bad", 1), None);
        assert!(covers("         0          0 4294967295\n", FREE));
        assert!(!covers("0 100000 65536\n65536 1 5\nbroken\n", FREE));
        let passwd = "root:x:0:0:root:/root:/bin/sh\nada:x:500:500::/home/ada:/bin/sh\n";
        assert_eq!(name_in(passwd, 500), "ada");
        assert_eq!(name_in(passwd, 7), "7");
    }
}
