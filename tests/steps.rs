//! `[[steps]]` on a real guest: templates, tests, retries, and secrets that stay secret.

#[path = "support/tiny.rs"]
mod tiny;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use devbox::digest::FileDigest;
use devbox::image::container::Options;
use devbox::image::disk::{Disk, Part};

/// Values that occur nowhere but where a test puts them.
const TOKEN: &str = "planted-7f3a9c51e2b84d06";
const PASSWORD: &str = "it's \"planted\" $HOME 5b1e77aa";
/// A secret of several lines, of which those of all such keys stand in programs of the guest.
const KEY: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmU\n\
                   planted40bc9d17e6\n-----END OPENSSH PRIVATE KEY-----\n";

/// A project with a home of its own, on the tiny guest's disk.
struct Project {
    dir: tempfile::TempDir,
}

impl Project {
    async fn new(steps: &str) -> Self {
        Self::of(&tiny::raw(tiny::KERNEL).await, steps)
    }

    fn of(image: &Path, steps: &str) -> Self {
        let sha256 = FileDigest::of(&std::fs::read(image).expect("the tiny disk")).hex();
        let project = Project { dir: tempfile::tempdir().expect("a folder") };
        project.write(
            "devbox.toml",
            &format!(
                "name = \"tiny\"\nversion = \"1.0.0-dev\"\narch = \"amd64\"\noutputs = [\"qcow2\", \"raw\"]\n\n\
                 [source]\ntype = \"image\"\npath = \"{}\"\nsha256 = \"{sha256}\"\n\n{steps}\n\
                 [machine]\ncpus = 1\nmemory = \"512MiB\"\n",
                image.display()
            ),
        );
        project
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("written");
    }

    fn build(&self) -> Output {
        self.build_with(&[], TOKEN)
    }

    fn build_with(&self, args: &[&str], token: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_devbox"));
        command.args(["build", "--json", "--verbose"]).current_dir(self.dir.path());
        command.env("DEVBOX_HOME", self.path("home")).env("XDG_RUNTIME_DIR", self.dir.path());
        command.args(args).env("CI_TOKEN", token).stdin(Stdio::null());
        command.output().expect("devbox runs")
    }

    /// Every file below the project, whose bytes hold one of the values, and is not `allowed`.
    fn leaks(&self, allowed: &[&str]) -> Vec<PathBuf> {
        let files = walkdir::WalkDir::new(self.dir.path()).into_iter().filter_map(Result::ok);
        let files = files.filter(|e| e.file_type().is_file()).map(walkdir::DirEntry::into_path);
        let allowed: Vec<PathBuf> = allowed.iter().map(|name| self.path(name)).collect();
        files.filter(|path| !allowed.contains(path) && holds(path)).collect()
    }
}

/// Whether the file's bytes hold a planted value, as it is or in base64.
fn holds(path: &Path) -> bool {
    let bytes = std::fs::read(path).unwrap_or_default();
    spellings().iter().any(|text| memchr::memmem::find(&bytes, text.as_bytes()).is_some())
}

fn spellings() -> [String; 4] {
    use base64ct::Encoding as _;
    let encoded = base64ct::Base64Unpadded::encode_string(TOKEN.as_bytes());
    // The last character depends on what follows.
    [
        TOKEN.to_owned(),
        PASSWORD.to_owned(),
        encoded[..encoded.len() - 2].to_owned(),
        "planted40bc9d17e6".to_owned(),
    ]
}

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

#[track_caller]
fn tells_nothing(text: &str) {
    for spelling in spellings() {
        assert!(!text.contains(&spelling), "{text}");
    }
}

/// Whether all of the root's journal but its superblock, which begins with the magic number of one, is zeros.
fn journal_is_empty(raw: &Path) {
    let disk = Disk::open(raw, &Options::default()).expect("it opens");
    let is_root =
        |part: &&Part| part.filesystem.as_ref().is_some_and(|f| f.identity().kind == "ext4");
    let root = disk.parts.iter().find(is_root).expect("a filesystem");
    let journal = raw.with_extension("journal");
    let out = Command::new("debugfs")
        .args(["-R", &format!("dump <8> {}", journal.display())])
        .arg(format!("{}?offset={}", raw.display(), root.partition.start))
        .output()
        .expect("debugfs runs");
    let journal = std::fs::read(journal).unwrap_or_else(|e| panic!("{e}: {}", said(&out)));
    assert_eq!(journal[..4], 0xc03b_3998_u32.to_be_bytes());
    let held = journal[4096..].chunks(4096).filter(|block| block.iter().any(|byte| *byte != 0));
    assert_eq!((journal.len() > 1 << 20, held.count()), (true, 0), "{} bytes", journal.len());
}

const WORKING: &str = r##"
[[steps]]
type = "template"
source = "app.conf"
target = "/etc/app.conf"
mode = "0640"
vars = { port = 8080, hosts = ["a", "b"], debug = false }

[[steps]]
type = "shell"
name = "push"
retries = 2
retry_pause = "1s"
secrets = { TOKEN = { env = "CI_TOKEN" }, PASSWORD = { file = "password" }, KEY = { file = "key" } }
env = { PLAIN = "seen" }
inline = '''
test "$(printf '%s\n' "$KEY" | wc -l)" -eq 4
printf '%s\n' "$KEY"
echo "token $TOKEN, password $PASSWORD, plain $PLAIN"
printf %s "$TOKEN" | base64
test "$PASSWORD" = "it's \"planted\" \$HOME 5b1e77aa"
for p in /proc/[0-9]*/cmdline; do
    case $(tr '\0' ' ' < $p 2> /dev/null) in *"$TOKEN"*) echo "on the command line of $p"; exit 3 ;; esac
done
[ -e /run/tried ] || { : > /run/tried; echo "no network for $TOKEN" >&2; exit 9; }
'''

[[steps]]
type = "shell"
name = "never"
only = ["arm64"]
inline = "exit 7"

[[steps]]
type = "test"
name = "checks"
files = ["/etc/app.conf", "/proc"]
ports = ["22"]
commands = ["grep -qx 'listen 8080' /etc/app.conf", "grep -qx 'debug false' /etc/app.conf", "test -z \"${TOKEN-}\""]
"##;

#[tokio::test]
async fn a_template_is_filled_in_a_step_is_tried_again_and_secrets_are_in_nothing_that_stays() {
    let project = Project::new(WORKING).await;
    project.write(
        "app.conf",
        "listen {{ port }}\n{% for h in hosts %}\nhost {{ h }}\n{% endfor %}\ndebug {{ debug }}\n",
    );
    project.write("password", &format!("{PASSWORD}\n"));
    project.write("key", KEY);
    let out = project.build();
    let said = said(&out);
    assert!(out.status.success(), "{said}");
    assert!(
        said.contains("token [secret TOKEN], password [secret PASSWORD], plain seen"),
        "{said}"
    );
    assert!(
        said.contains("step 2 push failed with exit code 9; try 2 of 3 follows in 1 s"),
        "{said}"
    );
    assert!(said.contains("all 6 hold"), "{said}");
    assert!(said.contains("step 4 checks done"), "{said}");
    tells_nothing(&said);
    assert_eq!(project.leaks(&["password", "key"]), Vec::<PathBuf>::new());
    journal_is_empty(&project.path("dist/tiny-1.0.0-dev.raw"));

    // The steps are in the cache, which was not searched for another value; the sealed image is.
    let out = project.build_with(&["--rebuild"], "debug false");
    let said = self::said(&out);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("step 2 push is in the cache"), "{said}");
    assert!(
        said.contains("the image holds the secret `TOKEN` of its steps; it is not kept"),
        "{said}"
    );
    assert!(said.contains("/etc/app.conf holds the secret `TOKEN`"), "{said}");
}

#[tokio::test]
async fn an_image_that_holds_a_secret_is_refused_by_the_file_that_holds_it() {
    let project = Project::new(
        "[[steps]]\ntype = \"shell\"\nname = \"leak\"\nsecrets = { TOKEN = { env = \"CI_TOKEN\" } }\n\
         inline = 'printf \"user:%s\" \"$TOKEN\" | base64 > /etc/netrc'\n",
    )
    .await;
    let out = project.build();
    let said = said(&out);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("the step `leak` wrote the secret `TOKEN` to the disk"), "{said}");
    assert!(said.contains("/etc/netrc holds the secret `TOKEN`"), "{said}");
    assert!(said.contains("hint: Let the step keep it in memory"), "{said}");
    tells_nothing(&said);
    assert!(!project.path("dist").exists());
    assert_eq!(project.leaks(&[]), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_failure_tells_no_secret_in_its_message_and_its_log() {
    let project = Project::of(
        &tiny::qcow2(tiny::KERNEL).await,
        "[[steps]]\ntype = \"shell\"\nname = \"push\"\nsecrets = { TOKEN = { env = \"CI_TOKEN\" } }\n\
         inline = 'echo \"bad $TOKEN\"; echo \"console $TOKEN\" > /dev/console; sleep 1; exit 5'\n\n\
         [[steps]]\ntype = \"test\"\ninline = \"x\"\n",
    );
    let out = project.build();
    assert_eq!(out.status.code(), Some(2), "{}", said(&out));
    let spec = std::fs::read_to_string(project.path("devbox.toml")).expect("read");
    project.write("devbox.toml", &spec.replace("[[steps]]\ntype = \"test\"\ninline = \"x\"\n", ""));
    let out = project.build();
    let said = said(&out);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("| bad [secret TOKEN]"), "{said}");
    tells_nothing(&said);
    let log = said.lines().find_map(|l| l.trim().strip_prefix("serial log: ")).expect("a path");
    let log = std::fs::read_to_string(log).expect("is kept");
    assert!(log.contains(&format!("console {}", "*".repeat(TOKEN.len()))), "{log}");
    assert_eq!(project.leaks(&[]), Vec::<PathBuf>::new());
}

/// Programs in the place of salt and puppet: what devbox reads of them, and how long they may take.
const STAND_INS: &str = r#"
[[steps]]
type = "shell"
name = "programs"
inline = """
mkdir -p /usr/local/bin
cat > /usr/local/bin/salt-call << 'END'
#!/bin/sh
grep -q '"role":"web"' "$3/minion" && test -e /tmp/.devbox-work/source/top.sls || exit 1
if [ -e /run/salted ]; then echo 'Succeeded: 2'; else echo 'Succeeded: 2 (changed=1)'; fi
: > /run/salted
echo 'Failed:    0'
END
printf '#!/bin/sh\\nsleep 6\\n' > /usr/local/bin/puppet
chmod 0755 /usr/local/bin/salt-call /usr/local/bin/puppet
"""

[[steps]]
type = "salt"
name = "states"
source = "states"
grains = { role = "web" }
idempotent = true

[[steps]]
type = "puppet"
name = "two runs"
source = "puppet"
idempotent = true
timeout = "9s"
"#;

#[tokio::test]
async fn a_second_run_shows_whether_it_converged_and_is_within_the_steps_timeout() {
    let project = Project::new(STAND_INS).await;
    for (folder, file) in [("states", "top.sls"), ("puppet/manifests", "site.pp")] {
        std::fs::create_dir_all(project.path(folder)).expect("made");
        project.write(&format!("{folder}/{file}"), "");
    }
    let out = project.build();
    let said = said(&out);
    assert!(said.contains("salt made changes"), "{said}");
    assert!(said.contains("salt changed nothing the second time"), "{said}");
    assert_eq!(out.status.code(), Some(1), "{said}");
    // Each of the two runs is shorter than that.
    assert!(said.contains("step 3 two runs took longer than 9 s and was stopped"), "{said}");
}
