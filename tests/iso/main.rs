//! Boxes from an installer that runs in a real guest: the whole way, and what is said when it does not work.

mod medium;
#[expect(dead_code, reason = "here the raw disk with all drivers is enough")]
#[path = "../support/tiny.rs"]
mod tiny;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use devbox::digest::FileDigest;

/// What is typed or given to every kernel here.
const CMDLINE: &str = "console=ttyS0,115200 no_timer_check quiet";

/// A project with a home of its own, and the medium as its source.
struct Project {
    dir: tempfile::TempDir,
}

impl Project {
    /// `source` are more keys of `[source]`, and what follows.
    async fn new(source: &str) -> Self {
        let iso = medium::medium().await;
        let sha256 = FileDigest::of(&std::fs::read(&iso).expect("the medium")).hex();
        let project = Project { dir: tempfile::tempdir().expect("a folder") };
        project.write(
            "devbox.toml",
            &format!(
                "name = \"tiny\"\nversion = \"1.0.0-dev\"\narch = \"amd64\"\n\
                 [machine]\ncpus = 1\nmemory = \"512MiB\"\n\
                 [source]\ntype = \"iso\"\npath = \"{}\"\nsha256 = \"{sha256}\"\ndisk = \"512MiB\"\n\
                 timeout = \"10m\"\n{source}",
                iso.display()
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

    fn change(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path("devbox.toml")).expect("read");
        assert!(text.contains(from), "{from}");
        self.write("devbox.toml", &text.replace(from, to));
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_devbox"));
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null());
        command.env("DEVBOX_HOME", self.path("home")).env("XDG_RUNTIME_DIR", self.dir.path());
        command.output().expect("devbox runs")
    }

    /// What a build that works says.
    fn built(&self, args: &[&str]) -> String {
        let out = self.run(args);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(0), "{said}");
        self.nothing_half();
        said
    }

    /// What a build that fails says.
    fn failed(&self) -> String {
        let out = self.run(&["build"]);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(1), "{said}");
        assert!(said.contains("serial log: ") && said.contains("/install/serial.log"), "{said}");
        self.nothing_half();
        said
    }

    /// No disk of an installation that did not come to its end counts as one.
    fn nothing_half(&self) {
        let work = self.path("home/cache/build");
        let folders: Vec<_> = list(&work).into_iter().filter(|p| p.is_dir()).collect();
        assert!(folders.is_empty(), "{folders:?}");
        let disks = list(&self.path("home/cache/installed"));
        let half = disks.iter().find(|p| p.extension().is_some_and(|e| e == "partial"));
        assert_eq!(half, None);
    }

    fn installed_disks(&self) -> usize {
        let disks = list(&self.path("home/cache/installed"));
        disks.iter().filter(|p| p.extension().is_some_and(|e| e == "qcow2")).count()
    }
}

fn list(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return vec![] };
    entries.filter_map(|e| Some(e.ok()?.path())).collect()
}

/// A kernel of the medium with these words, and these answers.
fn direct(words: &str, answers: &str) -> String {
    format!(
        "{answers}\n[source.boot]\ntype = \"kernel\"\nkernel = \"vmlinuz\"\ninitrd = \"initrd\"\n\
         cmdline = \"{CMDLINE} {words}\"\n"
    )
}

#[tokio::test]
async fn answers_of_every_kind_arrive_and_the_system_is_provisioned_after_a_reboot() {
    let source = direct(
        "answer={{ http }}/sub/web.cfg answer=cd:OEMDRV:ks.cfg answer=fw:opt/org.example/conf answer=initrd:in/initrd.cfg answer=floppy then=second",
        "answers = [{ type = \"http\", source = \"web.cfg\", name = \"sub/web.cfg\" },\n\
         { type = \"cd\", label = \"OEMDRV\", source = \"ks.cfg\" },\n\
         { type = \"fw-cfg\", source = \"fw.cfg\", name = \"opt/org.example/conf\" },\n\
         { type = \"floppy\", source = \"floppy.cfg\" },\n\
         { type = \"initrd\", source = \"initrd.cfg\", name = \"in/initrd.cfg\" }]",
    ) + "[[steps]]\ntype = \"shell\"\nscript = \"check.sh\"\n";
    let project = Project::new(&source).await;
    project.write("web.cfg", "by http for {{ hostname }}, {{ left.alone }}\n");
    project.write("ks.cfg", "by cd\n");
    project.write("fw.cfg", "by fw\n");
    project.write("floppy.cfg", "by floppy\n");
    project.write("initrd.cfg", "by initrd\n");
    project.write(
        "check.sh",
        "[ -e /etc/installed ]\nprintf 'by http for tiny, {{ left.alone }}\\nby cd\\nby fw\\nby initrd\\nby floppy\\n' | cmp - /etc/answers\n",
    );
    let said = project.built(&["build"]);
    assert!(
        said.contains("the guest reboots, and starts from its disk without the CDs (1 of 3)"),
        "{said}"
    );
    assert!(said.contains("installed, ") && said.contains("booted, ssh answers"), "{said}");
    assert!(!said.contains("never asked"), "{said}");

    // Another step: the installer does not run again. Another answer: it does, and finds the same system.
    project.write("check.sh", "[ -e /etc/answers ]\n");
    let said = project.built(&["build"]);
    assert!(said.contains("from the same inputs, reusing its disk"), "{said}");
    assert!(!said.contains("Installing from"), "{said}");
    assert_eq!(project.installed_disks(), 1);
}

#[tokio::test]
async fn what_the_installer_reaches_is_locked_and_another_host_ends_the_build_there() {
    let port = serving();
    let words =
        format!("answer={{{{ http }}}}/a.cfg answer=http://10.0.2.2:{port}/more then=poweroff");
    let project =
        Project::new(&direct(&words, "answers = [{ type = \"http\", source = \"a.cfg\" }]")).await;
    project.write("a.cfg", "by http\n");
    project.built(&["lock"]);
    let lock = std::fs::read_to_string(project.path("devbox.lock")).expect("written");
    // The server of the answers, whose port is another one each time, is not there.
    let hosts =
        format!("hosts = [\n  {{ installer = true, host = \"host\", port = {port} }},\n]\n");
    assert!(lock.contains(&hosts), "{lock}");
    let again = project.run(&["lock"]);
    let said = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(said.contains("`devbox.lock` is up to date"), "from the cache: {said}");

    project.write("devbox.lock", &lock.replace(&format!("port = {port}"), "port = 9"));
    let fails = |args: &[&str]| {
        let out = project.run(args);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(1), "{said}");
        let what =
            format!("the installer reached `host:{port}`, which `devbox.lock` does not have");
        assert!(said.contains(&what), "{said}");
        assert!(said.contains("devbox lock --update hosts"), "{said}");
        assert!(!said.contains("Sealing"), "{said}");
        project.nothing_half();
        said
    };
    let said = fails(&["build", "--locked"]);
    assert!(said.contains("the installed disk is in the cache"), "{said}");
    let said = fails(&["build", "--locked", "--reinstall"]);
    assert!(said.contains("Installing from"), "{said}");
    assert_eq!(project.installed_disks(), 1, "the one before stays");
}

/// A web server that gives every client the same; the guest reaches it as 10.0.2.2.
fn serving() -> u16 {
    use std::io::{BufRead as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let Ok(read) = stream.try_clone() else { continue };
            let lines = std::io::BufReader::new(read).lines().map_while(Result::ok);
            for _ in lines.take_while(|line| !line.is_empty()) {}
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nmore\n");
        }
    });
    port
}

#[tokio::test]
async fn a_boot_command_is_typed_when_its_prompt_is_there_and_the_first_reboot_can_be_the_end() {
    let project = Project::new(
        "end = \"reboot\"\nreboots = 0\n\
         [[source.answers]]\ntype = \"http\"\nsource = \"a.cfg\"\n\
         [[source.answers]]\ntype = \"http\"\nsource = \"never.cfg\"\n\
         [source.boot]\ntype = \"command\"\nwait = \"1s\"\n\
         command = '''\n\
         <waitfor \"boot:\" 3m>\n\
         install answer={{ http }}/a.cfgX<bs> <leftShiftOn>t<leftShiftOff><bs>then=reboot<enter>\n\
         <waitfor \"installer: has its answers\" 5m>\n\
         '''\n",
    )
    .await;
    project.write("a.cfg", "typed\n");
    project.write("never.cfg", "never\n");
    let said = project.built(&["build"]);
    assert!(said.contains("`boot:` is there"), "{said}");
    assert!(said.contains("`installer: has its answers` is there"), "{said}");
    assert!(said.contains("the installer never asked for the answer file `never.cfg`"), "{said}");
    assert!(!said.contains("answer file `a.cfg`"), "{said}");
}

#[tokio::test]
async fn an_installer_that_never_asks_for_its_answers_is_told_as_that() {
    let project = Project::new(&format!(
        "start_timeout = \"40s\"\n{}",
        direct("then=poweroff", "answers = [{ type = \"http\", source = \"preseed.cfg\" }, { type = \"cd\", label = \"cidata\", source = \"preseed.cfg\" }]")
    ))
    .await;
    project.write("preseed.cfg", "x\n");
    let said = project.failed();
    assert!(said.contains("the installer did not start within 40s"), "{said}");
    assert!(said.contains("the installer never asked for the answer file `preseed.cfg`"), "{said}");
    assert!(said.contains("read from the CD `cidata`: "), "{said}");
    assert!(said.contains("| installer: no answers, waiting"), "{said}");
    assert!(said.contains("screenshot: "), "{said}");
    assert_eq!(project.installed_disks(), 0);
}

#[tokio::test]
async fn an_installer_that_does_nothing_is_not_waited_for_until_the_end() {
    let project =
        Project::new(&format!("start_timeout = \"15s\"\n{}", direct("mode=asleep", ""))).await;
    let said = project.failed();
    assert!(
        said.contains("the installer did not start within 15s: it wrote nothing to the disk"),
        "{said}"
    );
    assert!(said.contains("start_timeout"), "{said}");
}

#[tokio::test]
async fn a_system_that_reboots_and_reboots_is_a_loop() {
    let project = Project::new(&format!(
        "reboots = 2\n{}",
        direct(
            "answer=initrd:a.cfg then=loop",
            "answers = [{ type = \"initrd\", source = \"a.cfg\" }]"
        )
    ))
    .await;
    project.write("a.cfg", "x\n");
    let said = project.failed();
    assert!(said.contains("(2 of 2)"), "{said}");
    assert!(
        said.contains("the guest rebooted 3 times and did not power itself off: a reboot loop"),
        "{said}"
    );
    assert_eq!(project.installed_disks(), 0);
}

#[tokio::test]
async fn what_cannot_be_found_or_does_not_come_is_named() {
    let project = Project::new(
        "[source.boot]\ntype = \"command\"\nwait = \"1s\"\ncommand = '<waitfor \"login:\" 20s>'\n",
    )
    .await;
    let said = project.failed();
    assert!(said.contains("`login:` did not come within 20 s"), "{said}");
    assert!(said.contains("| boot:"), "the screen is shown: {said}");

    project.change(
        "type = \"command\"\nwait = \"1s\"\ncommand = '<waitfor \"login:\" 20s>'",
        "type = \"kernel\"\nkernel = \"casper/vmlinuz\"",
    );
    let out = project.run(&["build"]);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("the medium has no `casper/vmlinuz`"), "{said}");
}

#[tokio::test]
#[expect(clippy::print_stderr, reason = "what was not run has to be seen")]
async fn a_disk_of_the_host_that_gets_full_ends_an_installation_at_once() {
    if !rustix::process::geteuid().is_root() {
        eprintln!(
            "not run: a_disk_of_the_host_that_gets_full_ends_an_installation_at_once: only root can mount a small filesystem"
        );
        return;
    }
    let answers = "answers = [{ type = \"initrd\", source = \"a.cfg\" }]";
    let project = Project::new(&direct("answer=initrd:a.cfg then=off", answers)).await;
    project.write("a.cfg", "x\n");
    let small = Small::mount(project.path("home"));
    let start = std::time::Instant::now();
    let said = project.failed();
    assert!(said.contains("the host could not write the disk"), "{said}");
    assert!(said.contains("no space is left on the host's disk"), "{said}");
    assert!(start.elapsed() < std::time::Duration::from_secs(180), "{:?}: {said}", start.elapsed());
    assert_eq!(project.installed_disks(), 0);
    drop(small);
}

/// A filesystem that is too small for the system, gone with the value.
struct Small(PathBuf);

impl Small {
    fn mount(at: PathBuf) -> Self {
        std::fs::create_dir_all(&at).expect("a folder");
        let mut mount = Command::new("mount");
        let status = mount.args(["-t", "tmpfs", "-o", "size=48m", "none"]).arg(&at).status();
        assert!(status.expect("mount").success());
        Small(at)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
