//! A real Vagrant starts an exported box. Only when asked for, since it needs libvirtd and a box that
//! boots: `DEVBOX_VAGRANT=dist/hello-1.0.0.box`.

use std::path::Path;
use std::process::Command;

use crate::desk::said;

const VAGRANTFILE: &str = r#"Vagrant.configure("2") do |config|
  config.vm.box = "devbox/exported"
  config.vm.boot_timeout = 900
  config.vm.provider :libvirt do |libvirt|
    libvirt.driver = File.writable?("/dev/kvm") && ENV["DEVBOX_VAGRANT_KVM"] ? "kvm" : "qemu"
    libvirt.cpu_mode = "maximum"
    libvirt.memory = 1024
    libvirt.graphics_type = "none"
  end
end
"#;

#[test]
#[expect(clippy::print_stderr, reason = "a test that could not run says so")]
fn a_real_vagrant_starts_the_box() {
    let Ok(file) = std::env::var("DEVBOX_VAGRANT") else {
        eprintln!(
            "not run: a real Vagrant starts the box: minutes, and libvirtd; DEVBOX_VAGRANT=FILE.box"
        );
        return;
    };
    let file = Path::new(&file).canonicalize().expect("the box is there");
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("Vagrantfile"), VAGRANTFILE).expect("written");
    let vagrant = |args: &[&str]| {
        let mut command = Command::new("vagrant");
        command.args(args).current_dir(dir.path()).env("VAGRANT_HOME", dir.path().join("home"));
        command.env("VAGRANT_CHECKPOINT_DISABLE", "1").env("VAGRANT_NO_COLOR", "1");
        command.output().expect("vagrant runs")
    };
    let ran = |args: &[&str]| {
        let out = vagrant(args);
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{args:?}: {text}{}", said(&out));
        text
    };
    ran(&["box", "add", "--name", "devbox/exported", file.to_str().expect("UTF-8")]);
    let up = vagrant(&["up", "--provider=libvirt"]);
    let seen = up
        .status
        .success()
        .then(|| ran(&["ssh", "-c", "id -un; sudo -n id -u; cut -c1-11 .ssh/authorized_keys"]));
    let keys = seen.is_some().then(|| ran(&["ssh", "-c", "cat .ssh/authorized_keys"]));
    vagrant(&["destroy", "-f"]);
    vagrant(&["box", "remove", "-f", "devbox/exported"]);
    let shown = String::from_utf8_lossy(&up.stdout).into_owned();
    assert!(up.status.success(), "{shown}{}", said(&up));
    let seen = seen.expect("seen");
    assert!(seen.starts_with("vagrant\r\n0\r\n") || seen.starts_with("vagrant\n0\n"), "{seen}");
    // The key that everybody has is gone.
    assert!(!keys.expect("seen").contains("vagrant insecure public key"));
}
