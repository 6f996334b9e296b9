//! `[parity]`: differences that are meant are exact, directed and dated; all else is a difference.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Two folders that differ in what a policy can declare, and a spec beside them.
struct Desk {
    dir: tempfile::TempDir,
}

const HEAD: &str = "name = \"web\"\nversion = \"1.0.0\"\narch = \"amd64\"\n[source]\ntype = \"packages\"\nsuite = \"bookworm\"\n";

impl Desk {
    fn new() -> Self {
        let desk = Desk { dir: tempfile::tempdir().expect("a folder") };
        for side in ["dev", "cloud"] {
            desk.put(&format!("{side}/etc/os-release"), "ID=lab\n", 0o644);
            desk.put(&format!("{side}/etc/motd"), "hello\n", 0o644);
            desk.put(&format!("{side}/srv/app"), "app\n", 0o755);
        }
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn put(&self, name: &str, text: &str, mode: u32) {
        let path = self.path(name);
        for folder in path.parent().expect("a folder").ancestors() {
            if folder == self.dir.path() {
                break;
            }
            fs::create_dir_all(folder).expect("mkdir");
            fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).expect("chmod");
        }
        fs::write(&path, text).expect("write");
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("chmod");
    }

    fn policy(&self, deltas: &str) {
        let text = format!("{HEAD}\n[parity]\nrequire = \"tree\"\n{}", self.own(deltas));
        fs::write(self.path("devbox.toml"), text).expect("write");
    }

    /// Files that a plain user makes are the user's.
    fn own(&self, deltas: &str) -> String {
        let id = rustix::process::geteuid().as_raw();
        if id == 0 {
            return deltas.to_owned();
        }
        let (uid, gid) = (id, rustix::process::getegid().as_raw());
        deltas
            .replace("why =", &format!("uid = {uid}\ngid = {gid}\nwhy ="))
            .replace(" 0:0\"", &format!(" {uid}:{gid}\""))
    }

    fn parity(&self, more: &[&str]) -> (i32, String) {
        let out = Command::new(env!("CARGO_BIN_EXE_devbox"))
            .args(["parity", "dir:dev", "dir:cloud"])
            .args(more)
            .current_dir(self.dir.path())
            .env("DEVBOX_HOME", self.path("home"))
            .output()
            .expect("devbox runs");
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert!(!stderr.contains("panicked"), "{stderr}");
        let stdout = String::from_utf8_lossy(&out.stdout).into_owned();
        let code = out.status.code().expect("a code");
        (code, if stdout.is_empty() { stderr.into_owned() } else { stdout })
    }

    fn json(&self) -> serde_json::Value {
        let (_, out) = self.parity(&["--json"]);
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"))
    }

    /// The verdict with the problem of the first declaration.
    fn verdict(&self, deltas: &str) -> (String, String) {
        self.policy(deltas);
        let json = self.json();
        let problem = json["policy"]["declared"][0]["problem"].as_str().unwrap_or_default();
        (json["verdict"].as_str().expect("a verdict").to_owned(), problem.to_owned())
    }
}

fn sha256(path: &Path) -> String {
    let out = Command::new("sha256sum").arg(path).output().expect("sha256sum runs");
    String::from_utf8_lossy(&out.stdout)[..64].to_owned()
}

const SUDOERS: &str = "[[parity.delta]]\nonly = \"dev\"\nop = \"add\"\npath = \"/etc/sudoers.d/90-dev\"\nfile = \"files/90-dev\"\nmode = \"0440\"\nwhy = \"password-less sudo for developers\"\n";
const FOLDER: &str = "[[parity.delta]]\nonly = \"dev\"\nop = \"add\"\npath = \"/etc/sudoers.d\"\nmode = \"0755\"\nwhy = \"holds the next one\"\n";

#[test]
fn what_is_declared_is_equivalent_and_told_and_both_sides_have_one_base() {
    let desk = Desk::new();
    desk.put("files/90-dev", "dev ALL=(ALL) NOPASSWD: ALL\n", 0o644);
    desk.put("dev/etc/sudoers.d/90-dev", "dev ALL=(ALL) NOPASSWD: ALL\n", 0o440);
    desk.put("cloud/srv/app", "app of the cloud\n", 0o755);
    desk.put("files/app", "app of the cloud\n", 0o644);
    desk.put("dev/srv/gone", "1\n", 0o644);
    fs::set_permissions(desk.path("cloud/etc/motd"), PermissionsExt::from_mode(0o600))
        .expect("chmod");
    symlink("app", desk.path("cloud/srv/link")).expect("symlink");
    let (base, gone) = (sha256(&desk.path("dev/srv/app")), sha256(&desk.path("dev/srv/gone")));
    let deltas = format!(
        "{FOLDER}{SUDOERS}\
         [[parity.delta]]\nonly = \"cloud\"\nop = \"replace\"\npath = \"/srv/app\"\nfile = \"files/app\"\nmode = \"0755\"\nbase = \"sha256:{base}\"\nwhy = \"the cloud's build\"\n\
         [[parity.delta]]\nonly = \"cloud\"\nop = \"meta\"\npath = \"/etc/motd\"\nmode = \"0600\"\nbase = \"0644 0:0\"\nwhy = \"nobody logs in\"\n\
         [[parity.delta]]\nonly = \"cloud\"\nop = \"add\"\npath = \"/srv/link\"\nlink = \"app\"\nwhy = \"for the agent\"\n"
    );
    let removed = format!(
        "[[parity.delta]]\nonly = \"cloud\"\nop = \"remove\"\npath = \"/srv/gone\"\nbase = \"sha256:{gone}\"\nwhy = \"not in the cloud\"\n"
    );
    desk.policy(&deltas);
    // `remove` has no owner.
    let text = fs::read_to_string(desk.path("devbox.toml")).expect("read");
    fs::write(desk.path("devbox.toml"), text + &removed).expect("write");
    let (code, screen) = desk.parity(&[]);
    assert_eq!(code, 0, "{screen}");
    assert!(screen.starts_with("equivalent at level tree: 6 declared differences\n"), "{screen}");
    assert!(screen.contains("policy1:") && screen.contains("on both sides"), "{screen}");
    assert!(screen.contains("- declared"), "{screen}");
    let (_, all) = desk.parity(&["--all"]);
    assert!(all.contains("password-less sudo for developers"), "{all}");
    let json = desk.json();
    assert_eq!(json["verdict"], "equivalent");
    assert_eq!(json["counts"]["declared"], 6);
    assert_eq!(json["policy"]["base"][0], json["policy"]["base"][1]);
    // One side and the policy are enough for the base: another dev side has the same.
    let before = json["policy"]["base"][1].clone();
    fs::remove_file(desk.path("dev/srv/gone")).expect("remove");
    assert_eq!(desk.json()["policy"]["base"][1], before);
    // Without the policy it is a difference.
    assert_eq!(desk.parity(&["--level", "tree", "--no-policy"]).0, 1);
    // Said the wrong way round it is one, too.
    assert_eq!(desk.parity(&["--dev", "b"]).0, 1);
}

#[test]
fn what_is_not_exactly_as_declared_is_a_difference_with_its_reason() {
    let desk = Desk::new();
    desk.put("files/90-dev", "dev ALL=(ALL) ALL\n", 0o644);
    let both = format!("{SUDOERS}{FOLDER}");
    let (verdict, why) = desk.verdict(&both);
    assert_eq!(verdict, "different", "declared in vain");
    assert!(why.contains("declared in vain"), "{why}");
    assert!(desk.parity(&[]).1.contains("! policy"), "{}", desk.parity(&[]).1);

    desk.put("dev/etc/sudoers.d/90-dev", "dev ALL=(ALL) NOPASSWD: ALL\n", 0o440);
    let (verdict, why) = desk.verdict(&both);
    assert_eq!(
        (verdict.as_str(), why.as_str()),
        ("different", "the dev side has other contents there")
    );

    desk.put("dev/etc/sudoers.d/90-dev", "dev ALL=(ALL) ALL\n", 0o444);
    let (verdict, why) = desk.verdict(&both);
    assert_eq!(verdict, "different");
    assert!(why.contains("mode 0444 on the dev side, not 0440"), "{why}");

    desk.put("dev/etc/sudoers.d/90-dev", "dev ALL=(ALL) ALL\n", 0o440);
    assert_eq!(desk.verdict(&both).0, "equivalent");

    // Its folder alone is not declared.
    assert_eq!(desk.verdict(SUDOERS).0, "different");
    // Beside what is declared nothing may differ.
    desk.put("cloud/etc/other", "x\n", 0o644);
    assert_eq!(desk.verdict(&both).0, "different");
    fs::remove_file(desk.path("cloud/etc/other")).expect("remove");

    // The day on which it ends is its last one.
    let until = |day: &str| both.replacen("why =", &format!("until = \"{day}\"\nwhy ="), 1);
    let (verdict, why) = desk.verdict(&until("2020-02-29"));
    assert_eq!((verdict.as_str(), why.as_str()), ("different", "expired on 2020-02-29"));
    assert_eq!(desk.verdict(&until("2999-12-31")).0, "equivalent");

    // The other side may not have it.
    desk.put("cloud/etc/sudoers.d/90-dev", "dev ALL=(ALL) ALL\n", 0o440);
    let (verdict, why) = desk.verdict(&both);
    assert_eq!(verdict, "different");
    assert!(why.contains("declared in vain: both sides are the same"), "{why}");
    desk.put("cloud/etc/motd", "another\n", 0o644);
    let (_, why) = desk.verdict(&both);
    assert!(why.contains("it is there on the cloud side, too"), "{why}");
}

#[test]
fn what_the_other_side_has_is_pinned_too() {
    let desk = Desk::new();
    desk.put("files/app", "new\n", 0o644);
    let base = sha256(&desk.path("dev/srv/app"));
    desk.put("cloud/srv/app", "new\n", 0o755);
    let delta = format!(
        "[[parity.delta]]\nonly = \"cloud\"\nop = \"replace\"\npath = \"/srv/app\"\nfile = \"files/app\"\nmode = \"0755\"\nbase = \"sha256:{base}\"\nwhy = \"x\"\n"
    );
    assert_eq!(desk.verdict(&delta).0, "equivalent");
    desk.put("dev/srv/app", "tampered\n", 0o755);
    let (verdict, why) = desk.verdict(&delta);
    assert_eq!(verdict, "different");
    assert!(why.contains("the dev side has sha256:") && why.contains("not `base`"), "{why}");
}

#[test]
fn a_folder_is_declared_by_its_digest() {
    let desk = Desk::new();
    desk.put("cloud/srv/agent/bin", "1\n", 0o755);
    desk.put("cloud/srv/agent/etc/conf", "2\n", 0o644);
    let delta = |tree: &str| {
        format!(
            "[[parity.delta]]\nonly = \"cloud\"\nop = \"subtree\"\npath = \"/srv/agent\"\ntree = \"{tree}\"\nwhy = \"provider agent\"\n"
        )
    };
    let (verdict, why) = desk.verdict(&delta(&format!("tree1:{}", "0".repeat(64))));
    assert_eq!(verdict, "different");
    let tree = why.split_whitespace().find(|word| word.starts_with("tree1:")).expect("the digest");
    assert_eq!(desk.verdict(&delta(tree)).0, "equivalent");
    assert_eq!(desk.json()["counts"]["declared"], 4);
    desk.put("cloud/srv/agent/etc/conf", "3\n", 0o644);
    assert_eq!(desk.verdict(&delta(tree)).0, "different");
}

#[test]
fn a_package_is_declared_with_its_version_and_brings_its_own_files_alone() {
    let desk = Desk::new();
    let base = "Package: base\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n\n";
    let agent =
        "Package: agent\nStatus: install ok installed\nArchitecture: all\nVersion: 1.4.2\n\n";
    for side in ["dev", "cloud"] {
        desk.put(
            &format!("{side}/var/lib/dpkg/info/base.list"),
            "/.\n/etc\n/usr\n/usr/sbin\n/usr/sbin/base\n",
            0o644,
        );
        desk.put(&format!("{side}/usr/sbin/base"), "base\n", 0o755);
    }
    desk.put("dev/var/lib/dpkg/status", base, 0o644);
    desk.put("cloud/var/lib/dpkg/status", &format!("{agent}{base}"), 0o644);
    desk.put("cloud/usr/sbin/agent", "agent\n", 0o755);
    desk.put("cloud/usr/share/agent/doc", "doc\n", 0o644);
    let list = "/.\n/usr\n/usr/sbin\n/usr/sbin/agent\n/usr/share\n/usr/share/agent\n/usr/share/agent/doc\n";
    desk.put("cloud/var/lib/dpkg/info/agent.list", list, 0o644);
    let md5 = |text: &str| {
        desk.put("sum", text, 0o644);
        let out = Command::new("md5sum").arg(desk.path("sum")).output().expect("md5sum runs");
        String::from_utf8_lossy(&out.stdout)[..32].to_owned()
    };
    let sums =
        format!("{}  usr/sbin/agent\n{}  usr/share/agent/doc\n", md5("agent\n"), md5("doc\n"));
    desk.put("cloud/var/lib/dpkg/info/agent.md5sums", &sums, 0o644);
    let delta = |version: &str| {
        let text = format!(
            "[[parity.delta]]\nonly = \"cloud\"\nop = \"package\"\npackage = \"agent={version}\"\nprotected = true\nwhy = \"provider agent\"\n"
        );
        fs::write(
            desk.path("devbox.toml"),
            format!("{HEAD}\n[parity]\nrequire = \"tree\"\n{text}"),
        )
        .expect("write");
        let json = desk.json();
        let problem =
            json["policy"]["declared"][0]["problem"].as_str().unwrap_or_default().to_owned();
        (json["verdict"].as_str().expect("a verdict").to_owned(), problem)
    };
    let (verdict, why) = delta("1.4.2");
    assert_eq!(verdict, "equivalent", "{why}: {}", desk.parity(&["--all"]).1);
    assert_eq!(desk.json()["policy"]["base"][0], desk.json()["policy"]["base"][1]);
    let (verdict, why) = delta("1.4.1");
    assert_eq!((verdict.as_str(), why.as_str()), ("different", "the cloud side has version 1.4.2"));
    // A file that is not as the package brought it is nobody's.
    desk.put("cloud/usr/sbin/agent", "tampered\n", 0o755);
    assert_eq!(delta("1.4.2").0, "different");
    desk.put("cloud/usr/sbin/agent", "agent\n", 0o755);
    // Nor is another record in the list of packages.
    let other = base
        .replace("Version: 1", "Version: 1\nConffiles:\n /etc/x 0123456789abcdef0123456789abcdef");
    desk.put("cloud/var/lib/dpkg/status", &format!("{agent}{other}"), 0o644);
    assert_eq!(delta("1.4.2").0, "different");
}

#[test]
fn what_makes_no_sense_is_refused_with_the_place_in_the_file() {
    let desk = Desk::new();
    desk.put("files/x", "x\n", 0o644);
    let delta = |rest: &str| format!("[[parity.delta]]\nonly = \"dev\"\nwhy = \"x\"\n{rest}");
    for (rest, word) in [
        ("op = \"add\"\npath = \"/usr/bin/x\"\nfile = \"files/x\"\n", "needs `protected = true`"),
        (
            "op = \"add\"\npath = \"/srv/x\"\nfile = \"files/x\"\nmode = \"4755\"\n",
            "needs `protected = true`",
        ),
        ("op = \"remove\"\npath = \"/srv/x\"\n", "needs `base`"),
        ("op = \"remove\"\npath = \"/srv/x\"\nbase = \"sha256:1\"\n", "not the digest of a file"),
        (
            "op = \"meta\"\npath = \"/srv/x\"\nmode = \"0600\"\nbase = \"0644\"\n",
            "a mode and an owner",
        ),
        ("op = \"subtree\"\npath = \"/srv/x\"\n", "needs `tree`"),
        ("op = \"package\"\npackage = \"agent\"\n", "with its version"),
        ("op = \"add\"\npath = \"/srv/x\"\nfile = \"files/none\"\n", "there is no"),
        ("op = \"add\"\npath = \"/srv/x\"\nfile = \"files/x\"\nlink = \"y\"\n", "a file or a link"),
        (
            "op = \"remove\"\npath = \"/srv/x\"\nfile = \"files/x\"\nbase = \"sha256:1\"\n",
            "means nothing",
        ),
        ("op = \"add\"\npath = \"/srv/x\"\nuntil = \"2027-02-30\"\n", "no day of the calendar"),
    ] {
        let text = format!("{HEAD}\n[parity]\n{}", delta(rest));
        fs::write(desk.path("devbox.toml"), text).expect("write");
        let (code, said) = desk.parity(&["--policy", "devbox.toml", "--level", "tree"]);
        assert_eq!(code, 2, "{rest}: {said}");
        assert!(said.contains(word), "{rest}: {said}");
    }
    let (code, said) = desk.parity(&["--policy", "nothing.toml", "--level", "tree"]);
    assert_eq!(code, 2, "{said}");
}
