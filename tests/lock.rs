//! `devbox lock` and `devbox build --locked`, with the tiny guest as source image and servers of this test as the world.

#[path = "support/tiny.rs"]
mod tiny;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use devbox::digest::FileDigest;

/// A web server on this host; the guest reaches it as 10.0.2.2. It answers whatever it is told to.
struct Server {
    port: u16,
    answer: Arc<Mutex<String>>,
}

impl Server {
    fn new(answer: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let answer = Arc::new(Mutex::new(answer.to_owned()));
        let said = Arc::clone(&answer);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let Ok(read) = stream.try_clone() else { continue };
                let lines = BufReader::new(read).lines().map_while(Result::ok);
                for _ in lines.take_while(|line| !line.is_empty()) {}
                let body = said.lock().expect("no panic").clone();
                let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(format!("{head}{body}").as_bytes());
            }
        });
        Server { port, answer }
    }

    fn says(&self, answer: &str) {
        answer.clone_into(&mut self.answer.lock().expect("no panic"));
    }
}

struct Project {
    dir: tempfile::TempDir,
    image: PathBuf,
}

impl Project {
    async fn new() -> Self {
        Project {
            dir: tempfile::tempdir().expect("a folder"),
            image: tiny::qcow2(tiny::KERNEL).await,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The image comes by a checksum file, as a publisher's would.
    fn spec(&self, version: &str, steps: &str) {
        let digest = FileDigest::of(&std::fs::read(&self.image).expect("the tiny disk"));
        let name = self.image.file_name().expect("a name").to_string_lossy();
        self.write("SHA256SUMS", &format!("{}  {name}\n", digest.hex()));
        self.write("devbox.toml", &format!(
            "name = \"tiny\"\nversion = \"{version}\"\narch = \"amd64\"\n\n[source]\ntype = \"image\"\n\
             path = \"{}\"\nchecksums = \"SHA256SUMS\"\n\n{steps}\n[machine]\ncpus = 1\nmemory = \"512MiB\"\n",
            self.image.display()
        ));
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("written");
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_devbox"));
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null());
        command.env("DEVBOX_HOME", self.path("home")).env("XDG_RUNTIME_DIR", self.dir.path());
        command.output().expect("devbox runs")
    }

    /// Ends with this code; both outputs.
    fn ends(&self, code: i32, args: &[&str]) -> String {
        let out = self.run(args);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = format!("{}{}", text(&out.stdout), text(&out.stderr));
        assert_eq!(out.status.code(), Some(code), "{args:?}: {said}");
        said
    }

    fn lock(&self) -> String {
        std::fs::read_to_string(self.path("devbox.lock")).expect("a lock")
    }
}

/// Nothing of what a test left runs on.
impl Drop for Project {
    fn drop(&mut self) {
        if self.path("home/machines").exists() {
            self.run(&["destroy", "-f"]);
        }
    }
}

fn has(text: &str, part: &str) {
    assert!(text.contains(part), "`{part}` is not in:\n{text}");
}

/// A step that installs the version of a package that a server has, as far as a package database is concerned.
fn installs(port: u16) -> String {
    format!(
        "[[steps]]\ntype = \"shell\"\nname = \"install\"\ninline = \"\"\"\nmkdir -p /var/lib/dpkg\n\
         v=$(wget -q -O - http://10.0.2.2:{port}/version)\n\
         printf 'Package: tool\\nStatus: install ok installed\\nArchitecture: all\\nVersion: %s\\n' $v > /var/lib/dpkg/status\n\"\"\"\n"
    )
}

#[tokio::test]
async fn a_locked_build_brings_what_is_locked_or_says_what_is_otherwise() {
    let server = Server::new("1.0");
    let project = Project::new().await;
    project.spec("1.0.0-dev", &installs(server.port));
    has(&project.ends(2, &["build", "--locked"]), "there is no `devbox.lock`");
    has(&project.ends(2, &["lock", "--check"]), "there is no `devbox.lock`");

    has(&project.ends(0, &["lock"]), "`devbox.lock` was written: 3 inputs, 1 host, 1 package");
    let lock = project.lock();
    has(&lock, "{ name = \"tool\", arch = \"all\", version = \"1.0\", step = true }");
    has(&lock, "{ name = \"source\", digest = \"sha256:");
    has(&project.ends(0, &["lock", "--check"]), "`devbox.lock` fits: 3 inputs");
    let again = project.ends(0, &["lock"]);
    has(&again, "step 1 install is in the cache");
    has(&again, "`devbox.lock` is up to date");
    assert_eq!(project.lock(), lock, "the same bytes");

    // What is in the cache, or in the store, is what is locked.
    has(&project.ends(0, &["build", "--locked"]), "step 1 install is in the cache");
    has(&project.ends(0, &["build", "--locked"]), "is in the store");
    // A new version of the box is no other spec.
    project.spec("1.1.0-dev", &installs(server.port));
    has(&project.ends(0, &["lock", "--check"]), "fits");

    // The world has moved on: a plain build takes and tells it, a locked one says so before there is a box.
    server.says("2.0");
    let plain = project.ends(0, &["build", "--no-cache"]);
    has(
        &plain,
        "what the image has after its steps is not what `devbox.lock` has: `tool` is locked at 1.0 and is 2.0; `devbox lock` takes",
    );
    let other = project.ends(1, &["build", "--locked"]);
    has(&other, "the stored box is not what is locked: `tool` is locked at 1.0 and is 2.0");
    has(&other, "what the image has after its steps is not what `devbox.lock` has");
    has(&other, "`tool` is locked at 1.0 and is 2.0");
    let update = project.ends(0, &["lock", "--update", "tool"]);
    has(&update, "`tool` is locked at 1.0 and is 2.0");
    has(&project.ends(0, &["build", "--locked"]), "tiny:1.1.0-dev");
    has(&project.ends(2, &["lock", "--update", "tol"]), "`tol` is nothing that `devbox.lock` has");
}

#[tokio::test]
async fn a_lock_that_does_not_fit_is_told_and_refused_before_anything_is_built() {
    let project = Project::new().await;
    let step = "[[steps]]\ntype = \"shell\"\nname = \"one\"\nscript = \"one.sh\"\n";
    project.write("one.sh", "true\n");
    project.spec("1.0.0-dev", step);
    project.ends(0, &["lock"]);
    let lock = project.lock();

    project.write("one.sh", "exit 0\n");
    let check = project.ends(1, &["lock", "--check"]);
    has(&check, "`step one: script` was changed: sha256:");
    let locked = project.ends(2, &["build", "--locked"]);
    has(&locked, "`devbox.lock` does not fit the spec");
    has(&locked, "`step one` was changed: step1:");
    let plain = project.ends(0, &["build"]);
    has(&plain, "`devbox.lock` is stale: `step one` was changed");
    has(&plain, "and 1 more; it is not kept to; `devbox lock` makes it anew");
    assert_eq!(project.lock(), lock, "a build writes no lock");
    has(&project.ends(0, &["lock", "--update", "one"]), "`step one: script` was changed");
    assert!(!project.ends(0, &["build"]).contains("stale"));

    // The publisher's file lists another image by now: the lock knows which one it was.
    let name = project.image.file_name().expect("a name").to_string_lossy().into_owned();
    project.write("SHA256SUMS", &format!("{}  {name}\n", "0".repeat(64)));
    has(&project.ends(0, &["lock", "--check"]), "fits");
    project.ends(0, &["build", "--locked"]);
    project.ends(0, &["build", "--rebuild"]);
    // One that does not fit holds nothing fast.
    project.write("one.sh", "exit\n");
    has(&project.ends(1, &["build", "--rebuild"]), "is not the expected image");

    project.spec("1.0.0-dev", step);
    project.write("devbox.lock", &lock.replace("[tools]", "<<<<<<< HEAD\n[tools]"));
    has(
        &project.ends(2, &["build", "--locked"]),
        "`devbox.lock` is no lock that this devbox reads",
    );
    has(&project.ends(2, &["build"]), "is no lock that this devbox reads");
    has(&project.ends(2, &["up"]), "is no lock that this devbox reads");
}

#[tokio::test]
async fn up_makes_its_machine_from_what_is_locked() {
    let project = Project::new().await;
    let step = "[[steps]]\ntype = \"shell\"\nname = \"one\"\nscript = \"one.sh\"\n";
    project.write("one.sh", "true\n");
    project.spec("1.0.0-dev", step);
    has(&project.ends(2, &["up", "--locked"]), "there is no `devbox.lock`");
    project.ends(0, &["lock"]);
    // Only the lock knows by now which image it was.
    let name = project.image.file_name().expect("a name").to_string_lossy().into_owned();
    project.write("SHA256SUMS", &format!("{}  {name}\n", "0".repeat(64)));
    let up = project.ends(0, &["up"]);
    has(&up, "the box tiny:1.0.0-dev is not in the store; building it first");
    has(&up, "step 1 one is in the cache");
    assert!(!up.contains("stale"), "{up}");
    has(&project.ends(0, &["up", "--locked"]), "runs already");

    // A machine that is there is no reason to pass over that the lock does not fit.
    project.write("one.sh", "exit 0\n");
    let refused = project.ends(2, &["up", "--locked"]);
    has(&refused, "`devbox.lock` does not fit the spec");
    has(&refused, "`step one: script` was changed");
    project.ends(0, &["destroy", "-f"]);
    let text = std::fs::read_to_string(project.path("devbox.toml")).expect("read");
    project.write("devbox.toml", &text.replace("1.0.0-dev", "2.0.0-dev"));
    let stale = project.ends(1, &["up"]);
    has(&stale, "`devbox.lock` is stale: `step one` was changed");
    has(&stale, "is not the expected image");
}

#[tokio::test]
async fn a_locked_build_fails_at_the_step_that_reaches_another_host() {
    let first = Server::new("");
    let second = Server::new("the same content");
    let own = format!("http://10.0.2.2:{}/x", first.port);
    let other = format!("http://10.0.2.2:{}/x", second.port);
    first.says(&own);
    let project = Project::new().await;
    let step = |name: &str, line: &str| {
        format!("[[steps]]\ntype = \"shell\"\nname = \"{name}\"\ninline = \"\"\"\n{line}\n\"\"\"\n")
    };
    let steps = [
        step("quiet", "echo quiet > /etc/quiet"),
        // Nothing answers there: that it was tried is what counts.
        step("calls", "nc -w 1 192.0.2.1 81 < /dev/null || true"),
        step("fetch", &format!("u=$(wget -q -O - {own})\nwget -q -O /etc/x $u")),
    ]
    .concat();
    project.spec("1.0.0-dev", &steps);
    has(&project.ends(0, &["lock"]), "7 inputs, 2 hosts, 0 packages");
    let lock = project.lock();
    has(&lock, "{ step = \"calls\", host = \"192.0.2.1\", port = 81 },");
    has(&lock, &format!("{{ step = \"fetch\", host = \"host\", port = {} }},", first.port));
    assert!(!lock.contains("quiet\", host"), "{lock}");
    // What is in the cache is known to have reached this.
    has(&project.ends(0, &["lock"]), "is up to date");
    has(&project.ends(0, &["build", "--locked"]), "tiny:1.0.0-dev");
    has(&project.ends(0, &["build", "--locked", "--no-cache"]), "tiny:1.0.0-dev");

    first.says(&other);
    let said = project.ends(1, &["build", "--locked", "--no-cache"]);
    has(
        &said,
        &format!(
            "the step `fetch` reached `host:{}`, which `devbox.lock` does not have",
            second.port
        ),
    );
    has(&said, "devbox lock --update hosts");
    assert!(!said.contains("Sealing"), "{said}");
    // The layer of a step that failed for this is not in the cache.
    let said = project.ends(1, &["build", "--locked", "--rebuild", "--from-step", "fetch"]);
    has(&said, &format!("reached `host:{}`", second.port));
    // A build that does not keep to the lock leaves one in the cache, which tells what it reached.
    let told = project.ends(0, &["build", "--from-step", "fetch"]);
    has(&told, &format!("warning: the step `fetch` reached `host:{}`", second.port));
    let said = project.ends(1, &["build", "--locked", "--rebuild"]);
    has(&said, &format!("the step `fetch` reached `host:{}`", second.port));
    has(&said, "the step is in the cache");
    let said = project.ends(0, &["lock", "--update", "hosts"]);
    has(&said, &format!("the step `fetch` reaches `host:{}`, which is not locked", second.port));
    has(&project.ends(0, &["build", "--locked", "--rebuild"]), "tiny:1.0.0-dev");
}
