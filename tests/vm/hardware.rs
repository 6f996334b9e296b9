//! What a spec may ask of a machine's hardware, on guests that really boot: another architecture, Secure
//! Boot, a TPM.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::people::{exits, run};
use crate::workbench::{Project, disk_with, insist};

/// A project on its own box of the tiny guest with this kernel.
fn project(name: &str, kernel: &str, arch: &str, machine: &str) -> Project {
    let (disk, sha256) = disk_with(kernel);
    let spec = format!(
        "name = \"{name}\"\nversion = \"1.0.0\"\narch = \"{arch}\"\n\n[source]\ntype = \"image\"\n\
         path = \"{}\"\nsha256 = \"{sha256}\"\n\n\
         [machine]\ncpus = 1\nmemory = \"512MiB\"\ntimeout = \"3m\"\n{machine}",
        disk.display()
    );
    Project::new(name, &spec).alone()
}

fn in_guest(project: &Project, script: &str) -> String {
    let out = run(&mut project.devbox(&["ssh", "-c", script]));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// Processes whose command line names something in the project's devbox home.
fn processes(project: &Project, program: &str) -> usize {
    let home = project.devbox_home().to_string_lossy().into_owned();
    let all = fs::read_dir("/proc").expect("/proc").flatten();
    all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).into_owned())
        .filter(|line| line.split('\0').next().is_some_and(|first| first.ends_with(program)))
        .filter(|line| line.contains(&home))
        .count()
}

fn insist_on_no_tpm_left(project: &Project) {
    let began = Instant::now();
    while processes(project, "swtpm") > 0 {
        assert!(began.elapsed() < Duration::from_secs(30), "the TPM outlives its machine");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_guest_of_arm64_is_built_booted_and_started_from_a_template() {
    let project = project("armed", "cloud-arm64", "arm64", "");
    run(&mut project.devbox(&["build"]));
    // The second start is warm: the first one has made the template.
    for _ in 0..2 {
        let up = exits(&mut project.devbox(&["up"]), 0);
        assert!(up.err.contains("the guest is aarch64 and this host is"), "{}", up.err);
        assert!(up.err.contains("from the template"), "{}", up.err);
        assert_eq!(in_guest(&project, "uname -m"), "aarch64");
        project.clear();
    }
}

#[test]
fn secure_boot_starts_what_is_signed_and_nothing_else_and_a_tpm_keeps_what_it_was_given() {
    let hardware = "secure_boot = true\ntpm = true\n";
    let signed = project("signed", "cloud-amd64-signed", "amd64", hardware);
    run(&mut signed.devbox(&["build"]));
    let up = exits(&mut signed.devbox(&["up"]), 0);
    assert!(up.err.contains("a machine with a TPM does not start from a template"), "{}", up.err);
    // What the kernel read from the firmware's variables, and did about it.
    let kernel = in_guest(&signed, "sudo dmesg | grep -i -e 'secure boot'");
    assert!(kernel.contains("secureboot: Secure boot enabled"), "{kernel}");
    assert!(kernel.contains("Kernel is locked down from EFI Secure Boot"), "{kernel}");
    assert_eq!(in_guest(&signed, "cat /sys/class/tpm/tpm0/tpm_version_major"), "2");
    assert_eq!(processes(&signed, "swtpm"), 1);
    // What was measured at boot is there again when the memory is.
    let measured = "cat /sys/class/tpm/tpm0/pcr-sha256/7";
    let seven = in_guest(&signed, measured);
    assert!(seven.len() == 64 && seven.chars().any(|c| c != '0'), "{seven}");
    run(&mut signed.devbox(&["suspend", "--to-disk"]));
    insist_on_no_tpm_left(&signed);
    run(&mut signed.devbox(&["resume"]));
    assert_eq!(in_guest(&signed, measured), seven);
    let state = tpm_state(&signed);
    assert!(state.is_file(), "the TPM keeps nothing");
    run(&mut signed.devbox(&["halt", "-f"]));
    insist_on_no_tpm_left(&signed);
    assert!(state.is_file(), "the TPM is gone with its process");
    signed.clear();
    assert!(!state.exists());
}

/// Where the emulator of the only machine keeps its TPM.
fn tpm_state(project: &Project) -> std::path::PathBuf {
    let machines = project.devbox_home().join("machines");
    let found = walkdir::WalkDir::new(machines).into_iter().flatten();
    let found = found.filter(|entry| entry.file_name() == "tpm2-00.permall");
    found.map(walkdir::DirEntry::into_path).next().unwrap_or_else(|| Path::new("/nowhere").into())
}

#[test]
fn what_nobody_signed_does_not_start_with_secure_boot() {
    let hardware = "secure_boot = true\n";
    let unsigned = project("unsigned", "cloud-amd64", "amd64", hardware);
    run(&mut unsigned.devbox(&["build"]));
    let up = exits(&mut unsigned.devbox(&["up", "--cold", "--timeout", "40s"]), 1);
    insist(&up, &["unsigned"]);
    let log = exits(&mut unsigned.devbox(&["logs"]), 0);
    assert!(!log.out.contains("Linux version"), "an unsigned kernel ran: {}", log.out);
    unsigned.clear();
}
