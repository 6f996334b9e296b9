//! The environment of what a step runs in the guest: the same everywhere, and no value of it on any
//! command line, where every account of a system reads along.

use std::ffi::OsStr;

use crate::exec::quote;
use crate::guest::work::as_root;

/// Where programs are; those that vendors put elsewhere come last.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/puppetlabs/bin:/opt/cinc/bin:/opt/chef/bin";

/// The command that runs a shell line as root in `dir`. Its standard input are the step's own
/// variables, by [`exports`]; the line's own input is empty. (PARITY: times, locale and time zone
/// leak into what programs write.)
pub(super) fn command(dir: &str, line: &str, epoch: i64) -> String {
    let fixed = [
        ("HOME", "/root"),
        ("PATH", PATH),
        ("LC_ALL", "C.UTF-8"),
        ("TZ", "UTC"),
        ("DEBIAN_FRONTEND", "noninteractive"),
        ("SOURCE_DATE_EPOCH", &epoch.to_string()),
    ];
    let words: String = fixed.iter().map(|(name, value)| format!("{name}={value} ")).collect();
    let line = format!("eval \"$(cat)\"; exec < /dev/null; {line}");
    as_root(&format!(
        "cd {} && umask 022 && exec env -i {words}sh -c {}",
        quote(OsStr::new(dir)),
        quote(OsStr::new(&line))
    ))
}

/// Variables as a shell reads them. A later one wins.
pub(super) fn exports<'a>(variables: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let line = |(name, value): (&str, &str)| {
        // Quoted always: a value that a shell would take apart is nobody's to find out.
        format!("export {name}='{}'\n", value.replace('\'', r"'\''"))
    };
    variables.map(line).collect::<String>().into_bytes()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_environment_reaches_the_program_and_no_command_line() {
        let value = "it's $HOME \"quoted\"\nand a second line";
        let line = command("/tmp", "env; cat; tr '\\0' ' ' < /proc/$$/cmdline", 17);
        assert!(!line.contains("quoted"));
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(line.replace("sudo -n ", ""))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut input = child.stdin.take().expect("piped");
        input.write_all(&exports([("NAME", value), ("TZ", "CET")].into_iter())).expect("written");
        drop(input);
        let out = child.wait_with_output().expect("runs");
        let out = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.contains(&format!("NAME={value}\n")), "{out}");
        assert_eq!(out.matches("second line").count(), 1, "{out}");
        assert!(out.lines().any(|l| l == "SOURCE_DATE_EPOCH=17"), "{out}");
        assert!(out.lines().any(|l| l == "TZ=CET"), "{out}");
        assert!(!out.lines().any(|l| l.starts_with("USER=")), "{out}");
    }
}
