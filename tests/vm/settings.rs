//! What a person's machine has otherwise than the spec says, on the tiny guest.

use crate::people::{exits, run};
use crate::workbench::Project;

fn guest(project: &Project, command: &str) -> String {
    exits(&mut project.devbox(&["ssh", "-c", command]), 0).out.trim().to_owned()
}

#[test]
fn own_settings_reach_the_machine_are_shown_and_need_a_restart() {
    let project = Project::on_the_tiny_box("settings");
    let local = "[machine]\nmemory = \"320MiB\"\n[[machine.ports]]\nguest = 81\n";
    std::fs::write(project.dir().join("devbox.local.toml"), local).expect("written");
    run(&mut project.devbox(&["up", "--set", "machine.cpus=2"]));
    assert_eq!(guest(&project, "nproc"), "2");
    let kib: u64 = guest(&project, "sed -n 's/^MemTotal: *\\([0-9]*\\).*/\\1/p' /proc/meminfo")
        .parse()
        .expect("a number of KiB");
    // The spec says 256 MiB; the kernel keeps some of it for itself.
    assert!((256 << 10..=320 << 10).contains(&kib), "{kib} KiB");
    let status = project.status();
    let own: Vec<&str> = status["overrides"]
        .as_array()
        .expect("overrides")
        .iter()
        .map(|o| o.as_str().expect("text"))
        .collect();
    assert!(
        own[0].starts_with("memory 320MiB (") && own[0].ends_with("devbox.local.toml)"),
        "{own:?}"
    );
    assert!(own[1].starts_with("ports any:81 ("), "{own:?}");
    assert_eq!(own[2], "cpus 2 (--set)");
    let forwards = status["forwards"].as_array().expect("forwards").clone();
    assert!(forwards.iter().any(|f| f["guest"] == 81), "{forwards:?}");

    // Editors reach it by name, through one line in the configuration of ssh.
    let line = exits(&mut project.devbox(&["ssh-config", "--include"]), 0).out;
    let config = project.dir().join("ssh_config");
    std::fs::write(&config, line).expect("written");
    for name in ["tiny", "tiny.settings"] {
        let mut ssh = std::process::Command::new("ssh");
        let out = run(ssh
            .arg("-F")
            .arg(&config)
            .args([name, "nproc"])
            .stdin(std::process::Stdio::null()));
        assert_eq!(String::from_utf8_lossy(&out.stdout), "2\n");
    }

    // Without the word of the command line the spec holds again, after a restart.
    let said = exits(&mut project.devbox(&["up"]), 0);
    assert!(said.err.contains("the spec gives `tiny` 1 instead of 2 processors"), "{}", said.err);
    assert!(said.err.contains("`devbox reload`"), "{}", said.err);
    assert_eq!(guest(&project, "nproc"), "2");
    run(&mut project.devbox(&["reload"]));
    assert_eq!(guest(&project, "nproc"), "1");
    project.clear();
}

#[test]
fn a_machine_takes_over_the_proxies_of_its_host_where_that_is_wanted() {
    let project = Project::on_the_tiny_box("proxied").with_env("no_proxy", "");
    let environment = |project: &Project| {
        exits(&mut project.devbox(&["ssh", "-c", "cat /etc/environment || :"]), 0).out
    };
    let up = |project: &Project, proxy: &str| {
        let mut command = project.devbox(&["up"]);
        let variables = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "NO_PROXY"];
        for name in variables {
            command.env_remove(name);
        }
        exits(command.env("https_proxy", proxy), 0).err
    };
    let proxy = "http://me:secret@localhost:3128";
    up(&project, proxy);
    assert_eq!(environment(&project), "", "nothing unless it is asked for");
    let local = project.dir().join("devbox.local.toml");
    std::fs::write(&local, "[machine]\nproxy = true\n").expect("written");
    let said = up(&project, proxy);
    assert!(said.contains("https_proxy=http://me:***@10.0.2.2:3128/"), "{said}");
    let found = environment(&project);
    assert!(found.contains("\nHTTPS_PROXY=http://me:secret@10.0.2.2:3128/\n"), "{found}");
    // The same again is nothing to do; another network has none.
    assert!(!up(&project, proxy).contains("https_proxy"));
    let said = up(&project, "");
    assert!(said.contains("no settings of this host any more"), "{said}");
    assert_eq!(environment(&project), "");
    project.clear();
}
