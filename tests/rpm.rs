//! Systems that rpm itself installed packages into: what devbox reads in its database is what rpm says.
//! Only root can install; elsewhere the test says so and ends.
#![expect(clippy::print_stderr, reason = "what could not run here has to be seen")]

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where rpm's database is in each system.
const DATABASE: &str = "/var/lib/rpm";

/// Packages and the systems that they are installed in.
struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    /// `None` for a plain user, for whom rpm cannot change its root folder.
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().expect("tempdir");
        if std::fs::metadata(dir.path()).expect("metadata").uid() != 0 {
            eprintln!("not run: only root can install packages of rpm");
            return None;
        }
        Some(Lab { dir })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Builds a package from the lines of a spec after its head; the file's path.
    fn build(&self, name: &str, version: &str, spec: &str) -> PathBuf {
        let file = self.path(&format!("{name}.spec"));
        let head = format!(
            "Name: {name}\nVersion: {version}\nRelease: 1\nSummary: a test\nLicense: none\n{spec}"
        );
        std::fs::write(&file, head).expect("write");
        let top = format!("_topdir {}", self.path("top").display());
        let rpms = format!("_rpmdir {}", self.path("rpms").display());
        let form = "_rpmfilename %%{NAME}-%%{VERSION}.rpm";
        let file = file.display().to_string();
        let define = ["--define", &top, "--define", &rpms, "--define", form];
        run("rpmbuild", &[&["-bb", "--quiet", &file], &define[..]].concat());
        self.path("rpms").join(format!("{name}-{version}.rpm"))
    }

    fn rpm(&self, system: &str, args: &[&str]) -> String {
        let root = self.path(system);
        std::fs::create_dir_all(&root).expect("mkdir");
        let root = root.display().to_string();
        run("rpm", &[&["--root", &root, "--dbpath", DATABASE], args].concat())
    }

    /// What rpm finds changed; it fails where it finds something.
    fn rpm_verify(&self, system: &str) -> String {
        let out = Command::new("rpm")
            .arg("--root")
            .arg(self.path(system))
            .args(["--dbpath", DATABASE, "-Va"])
            .output()
            .expect("rpm runs");
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    fn install(&self, system: &str, packages: &[&Path]) {
        let mut args = vec!["-U", "--nodeps", "--noscripts", "--nosignature", "--oldpackage"];
        args.extend(packages.iter().map(|path| path.to_str().expect("UTF-8")));
        self.rpm(system, &args);
    }

    fn devbox(&self, args: &[&str]) -> (i32, String) {
        let out = Command::new(env!("CARGO_BIN_EXE_devbox"))
            .args(args)
            .current_dir(self.dir.path())
            .env("DEVBOX_HOME", self.path("home"))
            .output()
            .expect("devbox runs");
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert!(!stderr.contains("panicked"), "{stderr}");
        let stdout = String::from_utf8_lossy(&out.stdout);
        (out.status.code().expect("a code"), format!("{stdout}{stderr}"))
    }

    /// The digest that a system has by what rpm itself lists.
    fn expected(&self, system: &str) -> String {
        let form = r"rpm %{NAME} %|ARCH?{%{ARCH}}:{\\e}| %{EVR} \\e\n";
        let listed = self.rpm(system, &["-qa", "--qf", form]);
        let mut lines: Vec<_> = listed.lines().map(str::to_owned).collect();
        assert!(!lines.is_empty(), "rpm lists nothing");
        lines.sort_unstable_by_key(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let file = self.path("preimage");
        std::fs::write(&file, format!("devbox/pkgs/1\n{}\n", lines.join("\n"))).expect("write");
        let sum = run("sha256sum", &[file.to_str().expect("UTF-8")]);
        format!("pkgs1:{}", &sum[..64])
    }
}

fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).env("LC_ALL", "C.UTF-8").output();
    let out = out.unwrap_or_else(|e| panic!("{program} is needed for this test: {e}"));
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("UTF-8")
}

const ALPHA: &str = "BuildArch: noarch
Epoch: 3
%description
x
%install
mkdir -p %{buildroot}/etc %{buildroot}/usr/bin %{buildroot}/var
echo program of %{version} > %{buildroot}/usr/bin/alpha
echo setting > %{buildroot}/etc/alpha.conf
echo made > %{buildroot}/var/ghost
%files
%config /etc/alpha.conf
/usr/bin/alpha
%ghost /var/ghost
";

/// Long enough a header for many overflow pages; digests by MD5 as old packages have them.
const MANY: &str = "BuildArch: noarch
%global _binary_filedigest_algorithm 1
%description
x
%install
mkdir -p %{buildroot}/usr/share/many
for i in $(seq 600); do echo $i > %{buildroot}/usr/share/many/file-with-a-long-name-$i; done
%files
/usr/share/many
";

/// Forty packages in one spec: the table has more than one level then.
fn crowd() -> String {
    use std::fmt::Write as _;
    let mut spec = "BuildArch: noarch\n%description\nx\n%install\n".to_owned();
    for i in 0..40 {
        let (name, about) = (format!("member-{i}"), "long ".repeat(1200));
        write!(spec, "%package -n {name}\nSummary: x\n%description -n {name}\n{about}\n")
            .expect("text");
        writeln!(spec, "%files -n {name}").expect("text");
    }
    spec
}

#[test]
fn packages_and_their_files_are_those_that_rpm_says() {
    let Some(lab) = Lab::new() else { return };
    let alpha = lab.build("alpha", "1.0", ALPHA);
    let newer = lab.build("alpha", "1.1", ALPHA);
    let many = lab.build("many", "2", MANY);
    lab.build("crowd", "1", &crowd());
    let crowd: Vec<_> = (0..40).map(|i| lab.path(&format!("rpms/member-{i}-1.rpm"))).collect();
    let mut all: Vec<&Path> = vec![&alpha, &many];
    all.extend(crowd.iter().map(PathBuf::as_path));
    lab.install("a", &all);

    // rpm, SQLite and devbox agree.
    assert_eq!(lab.rpm("a", &["-qa"]).lines().count(), 42);
    let database = lab.path("a").join("var/lib/rpm/rpmdb.sqlite");
    let count = "import sqlite3, sys
print(*sqlite3.connect(sys.argv[1]).execute('SELECT count(*), max(length(blob)) FROM Packages').fetchone())";
    let said = run("python3", &["-c", count, database.to_str().expect("UTF-8")]);
    let (rows, longest) = said.trim().split_once(' ').expect("two numbers");
    assert_eq!(rows, "42");
    assert!(longest.parse::<u32>().expect("a number") > 10 * 4096, "{longest}");
    let digest = ["digest", "--root", "a", "--level", "packages"];
    let (code, out) = lab.devbox(&digest);
    assert_eq!((code, out.trim()), (0, lab.expected("a").as_str()));

    // The same packages again, and a newer one of them.
    run(
        "cp",
        &["-a", lab.path("a").to_str().expect("UTF-8"), lab.path("b").to_str().expect("UTF-8")],
    );
    let packages = ["parity", "dir:a", "dir:b", "--level", "packages"];
    let (code, out) = lab.devbox(&packages);
    assert_eq!(code, 0, "{out}");
    lab.install("b", &[&newer]);
    let (code, out) = lab.devbox(&packages);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("alpha 3:1.0-1 -> 3:1.1-1"), "{out}");
    let tree = ["parity", "dir:a", "dir:b", "--level", "tree", "--all"];
    let (code, out) = lab.devbox(&tree);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("/usr/bin/alpha") && out.contains("[alpha]"), "{out}");
    assert!(!out.contains("~ modified"), "{out}");

    // Changed by hand: a file of each kind of digest, configuration, and what is no file of the package.
    std::fs::write(lab.path("b").join("usr/bin/alpha"), "else\n").expect("write");
    std::fs::write(lab.path("b").join("usr/share/many/file-with-a-long-name-7"), "x\n")
        .expect("write");
    std::fs::write(lab.path("b").join("etc/alpha.conf"), "mine\n").expect("write");
    std::fs::write(lab.path("b").join("var/ghost"), "x\n").expect("write");
    let (_, json) = lab.devbox(&[&tree[..], &["--json"]].concat());
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let group = |path: &str| {
        let all = json["differences"].as_array().expect("differences");
        let one = all.iter().find(|one| one["path"] == path).expect(path);
        (
            one["group"].as_str().expect("a group"),
            one["package"].as_str(),
            one["details"][0].as_str(),
        )
    };
    let changed = Some("as packaged on the first side, changed on the second");
    let modified = "files.package-modified";
    assert_eq!(group("/usr/bin/alpha"), (modified, Some("alpha"), changed));
    let file = "/usr/share/many/file-with-a-long-name-7";
    assert_eq!(group(file), (modified, Some("many"), changed));
    assert_eq!(group("/etc/alpha.conf"), ("config.etc", Some("alpha"), changed));
    assert_eq!(group("/var/ghost"), ("packages.changed", Some("alpha"), None));
    let verified = lab.rpm_verify("b");
    assert!(verified.contains("/usr/bin/alpha") && verified.contains("name-7"), "{verified}");

    // A manifest knows them without the database.
    let (code, out) = lab.devbox(&["manifest", "dir:b", "-o", "b.manifest"]);
    assert_eq!(code, 0, "{out}");
    let (code, out) = lab.devbox(&["parity", "b.manifest", "dir:b", "--level", "packages"]);
    assert_eq!(code, 0, "{out}");

    // A writer that was killed: what it wrote last is not in the database.
    let killed = "import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute('PRAGMA journal_mode=wal')
db.execute('DELETE FROM Packages WHERE hnum = 2')
db.commit()
os._exit(0)";
    run("python3", &["-c", killed, database.to_str().expect("UTF-8")]);
    let (code, out) = lab.devbox(&digest);
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("rpmdb.sqlite-wal") && out.contains("--rebuilddb"), "{out}");
    // As the message says.
    lab.rpm("a", &["--rebuilddb"]);
    let (code, out) = lab.devbox(&digest);
    assert_eq!((code, out.trim()), (0, lab.expected("a").as_str()));
}
