//! The kernel and the first programs of the tiny guest, with LVM2 of this host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use devbox::event::Events;
use devbox::host;
use devbox::host::Arch;
use devbox::machine::Machine;
use devbox::machine::config::{
    Accelerator, Config, DirectKernel, Disk, DiskFormat, Firmware, Lifetime, Network,
};
use tokio_util::sync::CancellationToken;

/// Under emulation on a busy host; alone it takes a tenth of it.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the guest has of this repository: name there, contents, whether it is run.
const FILES: [(&str, &str, bool); 4] = [
    ("begin", include_str!("../fixtures/lvm/begin"), false),
    ("make", include_str!("../fixtures/lvm/make"), true),
    ("show", include_str!("../fixtures/lvm/show"), true),
    ("etc/lvm/lvm.conf", include_str!("../fixtures/lvm/lvm.conf"), false),
];

/// The programs of this host that the guest has.
pub(crate) const PROGRAMS: [&str; 2] = ["lvm", "dmsetup"];

/// Directories of programs.
pub(crate) const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs a program in `folder` that must succeed; its standard output.
pub(crate) fn run(folder: &Path, program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).current_dir(folder).env("PATH", PATH).output();
    let out = out.unwrap_or_else(|e| panic!("{program} does not start: {e}"));
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{program} {args:?}: {errors}");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// A kernel and an initrd from which any number of machines can boot.
pub(crate) struct Guest {
    folder: tempfile::TempDir,
    kernel: PathBuf,
}

impl Guest {
    /// From the tiny guest's root tree; `volumes` is its file of that name.
    pub(crate) fn new(root: &Path, volumes: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let tree = folder.path().join("tree");
        fs::create_dir(&tree).expect("a folder");
        let tar = root.to_str().expect("UTF-8");
        let wanted = ["./boot", "./usr/lib/modules/device-mapper"];
        run(folder.path(), "tar", &[&["-xf", tar], &wanted[..]].concat());
        let boot = |prefix: &str| {
            let entries = fs::read_dir(folder.path().join("boot")).expect("listed");
            let mut paths = entries.map(|e| e.expect("listed").path());
            let found = paths.find(|p| p.to_string_lossy().contains(&format!("/boot/{prefix}")));
            found.unwrap_or_else(|| panic!("the tiny guest has no {prefix}"))
        };
        let kernel = boot("vmlinuz-");
        fs::rename(folder.path().join("usr/lib/modules/device-mapper"), tree.join("device-mapper"))
            .expect("the same folder");
        for (name, text, is_run) in FILES {
            put(&tree.join(name), text.as_bytes(), is_run);
        }
        put(&tree.join("volumes"), volumes.as_bytes(), false);
        for name in PROGRAMS {
            let program = which::which_in(name, Some(PATH), "/").expect("looked for before");
            put(&tree.join("bin").join(name), &fs::read(&program).expect("it reads"), true);
            for library in libraries(&program) {
                let inside = library.strip_prefix("/").expect("an absolute path");
                put(&tree.join(inside), &fs::read(&library).expect("it reads"), true);
            }
        }
        fs::create_dir(tree.join("run")).expect("a folder");
        // The kernel unpacks one archive after the other.
        fs::rename(boot("initrd.img-"), folder.path().join("initrd")).expect("the same folder");
        let pack = "find . | cpio --quiet -o -H newc -R 0:0 | gzip -1 >> ../initrd";
        run(&tree, "sh", &["-ec", pack]);
        Guest { folder, kernel }
    }

    /// Boots into `script` with these disks, of which those can be written that are said to, and
    /// waits for its end; what it had to say.
    pub(crate) async fn run(&self, script: &str, disks: &[(&Path, bool)]) -> Vec<String> {
        let disks = disks.iter().zip(1..).map(|((path, writable), number)| Disk {
            path: path.to_path_buf(),
            format: DiskFormat::Raw,
            read_only: !writable,
            below: None,
            serial: format!("disk{number}"),
        });
        let config = Config {
            name: format!("lvm-{script}"),
            uuid: host::new_uuid().expect("a uuid"),
            cpus: 1,
            memory: 256 << 20,
            arch: Arch::X86_64,
            firmware: Firmware::Bios,
            tpm: false,
            accelerator: Accelerator::Tcg,
            disks: disks.collect(),
            data: vec![],
            seed: None,
            installer: None,
            kernel: Some(DirectKernel {
                kernel: self.kernel.clone(),
                initrd: Some(self.folder.path().join("initrd")),
                append: format!("console=ttyS0,115200 quiet panic=-1 rdinit=/{script}"),
            }),
            network: Network::None,
            rtc: None,
            // Also if this test fails.
            lifetime: Lifetime::WithParent,
            agent: false,
            spare_slots: 0,
            card: None,
            folders: vec![],
            owner: None,
            memory_file: None,
            incoming: None,
        };
        let never = CancellationToken::new();
        let files = self.folder.path().join(format!("{script}-machine"));
        let runtime = self.folder.path().join(format!("{script}-run"));
        let machine = Machine::launch(config, &files, &runtime, &Events::silent(), &never).await;
        let mut machine = machine.unwrap_or_else(|e| panic!("{e}"));
        machine.wait_exit(PATIENCE, &never).await.unwrap_or_else(|e| panic!("{e}"));
        let log = fs::read(machine.serial_log()).expect("a log");
        let log = String::from_utf8_lossy(&log);
        let lines = log.lines().filter_map(|line| line.trim_end().strip_prefix("oracle "));
        let lines: Vec<_> = lines.map(str::to_owned).collect();
        assert_eq!(lines.last().map(String::as_str), Some("done"), "{script} failed:\n{log}");
        lines
    }
}

fn put(path: &Path, bytes: &[u8], is_run: bool) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::create_dir_all(path.parent().expect("below the root")).expect("it makes");
    fs::write(path, bytes).expect("it writes");
    let mode = if is_run { 0o755 } else { 0o644 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("my own file");
}

/// The libraries that a program is linked with, and its loader.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let listed = run(Path::new("/"), "ldd", &[program.to_str().expect("UTF-8")]);
    // `NAME => PATH (ADDRESS)`; the loader is `PATH (ADDRESS)`, and what the kernel brings has no path.
    let words = listed.lines().flat_map(str::split_whitespace);
    words.filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}
