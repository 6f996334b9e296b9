//! `devbox digest` and `devbox parity` on images that are wrapped in archives and compression, made
//! by the programs that people use; and that nothing of the host but the input is read or written.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs a program that must succeed; looks in `sbin` too.
fn tool(dir: &Path, program: &str, args: &[&str]) -> Output {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let out = Command::new(program).args(args).env("PATH", path).current_dir(dir).output();
    let out = out.unwrap_or_else(|e| panic!("{program} is needed for this test: {e}"));
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    out
}

/// A folder with `disk.raw`, an ext4 filesystem, and an empty folder for scratch files.
struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let lab = Lab { dir: tempfile::tempdir().expect("tempdir") };
        std::fs::create_dir(lab.path("scratch")).expect("mkdir");
        std::fs::create_dir(lab.path("files")).expect("mkdir");
        std::fs::write(lab.path("files/motd"), "hello\n".repeat(5000)).expect("write");
        lab.tool("mke2fs", &["-q", "-t", "ext4", "-d", "files", "disk.raw", "16M"]);
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn tool(&self, program: &str, args: &[&str]) {
        tool(self.dir.path(), program, args);
    }

    fn sh(&self, script: &str) {
        self.tool("sh", &["-ec", script]);
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("DEVBOX_HOME", self.path("home"))
            .env("TMPDIR", self.path("scratch"))
            // cargo sets it, and the loader would look there.
            .env_remove("LD_LIBRARY_PATH")
            .current_dir(self.dir.path());
        command
    }

    fn devbox(&self, args: &[&str]) -> Output {
        let out = self.command(env!("CARGO_BIN_EXE_devbox")).args(args).output();
        let out = out.expect("devbox runs");
        let left = std::fs::read_dir(self.path("scratch")).expect("readable").count();
        assert_eq!(left, 0, "a scratch file was left behind");
        out
    }
}

#[test]
fn an_image_matches_itself_however_it_is_wrapped() {
    let lab = Lab::new();
    lab.sh("gzip -k disk.raw; xz -0 -k disk.raw; zstd -q disk.raw; \
            tar --format=oldgnu --sparse -czf disk.tar.gz disk.raw; tar -cf disk.tar disk.raw; \
            qemu-img convert -f raw -O qcow2 disk.raw box.img; \
            echo '{\"provider\":\"libvirt\",\"format\":\"qcow2\"}' > metadata.json; \
            tar -czf lab.box metadata.json box.img");
    for name in ["disk.raw.gz", "disk.raw.xz", "disk.raw.zst", "disk.tar.gz", "disk.tar", "lab.box"]
    {
        for level in ["disk", "content", "tree"] {
            let out = lab.devbox(&["parity", "disk.raw", name, "--level", level]);
            let stderr = String::from_utf8_lossy(&out.stderr);
            assert_eq!(out.status.code(), Some(0), "{name}: {stderr}");
            assert!(stderr.contains("read from "), "{name}: {stderr}");
        }
    }
    let out = lab.devbox(&["digest", "disk.tar.gz", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert_eq!(json["notes"][0], "read from `disk.raw` in a gzip-compressed tar archive");
}

#[test]
fn what_cannot_be_unpacked_is_exit_3_and_leaves_nothing() {
    let lab = Lab::new();
    lab.sh("cp disk.raw other.raw; tar -cf two.tar disk.raw other.raw; \
            gzip -c disk.raw > cut.gz; truncate -s -100 cut.gz; \
            yes | head -c 100M | zstd -q > bomb.zst");
    for (name, word) in [
        ("two.tar", "holds 2 disks"),
        ("cut.gz", "damaged or cut short"),
        ("bomb.zst", "`--max-ratio`"),
    ] {
        let out = lab.devbox(&["digest", name]);
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(3), "{name}: {stderr}");
        assert!(stderr.contains(word) && out.stdout.is_empty(), "{name}: {stderr}");
    }
}

/// strace(1) sees every file that is named to the kernel. Besides the program's own start and the
/// kernel's word on processors, only the input and devbox's own folders are opened, and only a file
/// without a name is written.
#[test]
fn no_file_of_the_host_is_read_or_written_but_the_input() {
    let lab = Lab::new();
    lab.sh("tar --sparse -czf disk.tar.gz disk.raw; cp disk.raw other.raw; tar -czf two.tar.gz disk.raw other.raw");
    for (name, code) in [("disk.tar.gz", 0), ("two.tar.gz", 3)] {
        let devbox = env!("CARGO_BIN_EXE_devbox");
        let out = lab
            .command("strace")
            .args(["-f", "-qq", "-o", "trace", "-e", "trace=%file,openat2,socket", "--"])
            .args([devbox, "digest", name])
            .output()
            .unwrap_or_else(|e| panic!("strace is needed for this test: {e}"));
        assert_eq!(out.status.code(), Some(code), "{}", String::from_utf8_lossy(&out.stderr));
        let trace = std::fs::read_to_string(lab.path("trace")).expect("trace");
        // What devbox remembers about images it keeps in its own folders.
        let home = lab.path("home").display().to_string();
        let scratch = format!("\"{}\"", lab.path("scratch").display());
        let (mut inputs, mut scratches) = (0, 0);
        for line in trace.lines() {
            // `1234 openat(AT_FDCWD, "path", FLAGS) = 3`
            let call = line.split_once(' ').map_or(line, |(_, call)| call.trim_start());
            let path = call.split('"').nth(1).unwrap_or_default();
            let looks = [
                "execve",
                "access",
                "readlink",
                "newfstatat",
                "statx",
                "stat",
                "lstat",
                "getcwd",
                "faccessat2",
                "statfs",
            ];
            let is_look = looks.iter().any(|name| call.starts_with(&format!("{name}(")));
            let system = [
                "/lib",
                "/usr/lib",
                "/etc/ld.so",
                "/proc/",
                "/sys/fs/cgroup",
                "/sys/devices/system/cpu",
            ];
            let is_open = call.starts_with("openat(") || call.starts_with("open(");
            let writes =
                ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"].iter().any(|f| call.contains(f));
            if path.starts_with(&home) {
                continue;
            }
            if is_open && path == name && !writes {
                inputs += 1;
            } else if is_open && call.contains(&scratch) && call.contains("O_TMPFILE") {
                scratches += 1;
            } else if is_open && !writes {
                assert!(system.iter().any(|s| path.starts_with(s)), "{name}: {line}");
            } else {
                // `???(`: the whole process ended before this thread made its call.
                let other = ["+++", "---", "???("].iter().any(|s| call.starts_with(s));
                assert!(is_look || other, "{name}: {line}");
            }
        }
        assert!(inputs >= 1 && scratches == 1, "{inputs} {scratches}: {trace}");
    }
}
