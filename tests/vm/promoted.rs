//! What was changed in a machine becomes a change of its spec, on the tiny guest.

use std::path::{Path, PathBuf};

use crate::people::{exits, run};
use crate::workbench::Project;

/// All files below `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut todo) = (vec![], vec![folder.to_owned()]);
    while let Some(folder) = todo.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_dir() { todo.push(path) } else { found.push(path) }
        }
    }
    found
}

#[test]
fn files_links_and_modes_become_steps_and_no_secret_does() {
    let project = Project::on_the_tiny_box("promoted");
    run(&mut project.devbox(&["up"]));
    exits(&mut project.devbox(&["promote"]), 0);
    let script = r#"
mkdir -p /etc/app /opt/tool && umask 022
printf 'color = "blue"\n' > /etc/app/app.conf
printf 'user = me\npassword = hunter2planted\n' > /etc/app/db.conf
printf 'tokenplanted-ghp_0123456789\n' > /etc/app/note
printf -- '-----BEGIN OPENSSH PRIVATE KEY-----\nkeyplanted\n' > /etc/app/mine
printf 'root:$y$hashplanted:1::::::\n' > /etc/shadow
printf 'onlymineplanted\n' > /etc/app/closed && chmod 600 /etc/app/closed
printf '\000\001' > /opt/tool/data
ln -s /etc/app/app.conf /opt/tool/link
chmod 700 /srv 2> /dev/null || mkdir -m 700 /srv
rm /etc/os-release
sync
"#;
    exits(&mut project.devbox(&["ssh", "-c", script]), 0);
    let spec = project.dir().join("devbox.toml");
    let before = std::fs::read_to_string(&spec).expect("a spec");
    let said = exits(&mut project.devbox(&["promote"]), 0);
    for line in [
        "+++ b/devbox.toml",
        "+++ b/promoted/etc/app/app.conf",
        "+color = \"blue\"",
        "Binary files /dev/null and b/promoted/opt/tool/data differ",
        "+target = \"/etc/app/app.conf\"",
        "+ln -sfn -- /etc/app/app.conf /opt/tool/link",
        "+rm -rf -- /etc/os-release",
    ] {
        assert!(said.out.contains(line), "{line} in {}", said.out);
    }
    for secret in ["/etc/shadow", "/etc/app/db.conf", "/etc/app/mine", "/etc/app/note"] {
        assert!(said.err.contains(&format!("left out: {secret}: a secret")), "{}", said.err);
    }
    assert_eq!(std::fs::read_to_string(&spec).expect("a spec"), before, "only printed");

    exits(&mut project.devbox(&["promote", "--write"]), 0);
    let after = std::fs::read_to_string(&spec).expect("a spec");
    assert!(after.starts_with(&before), "{after}");
    exits(&mut project.devbox(&["validate"]), 0);
    let copied = project.dir().join("promoted/etc/app/app.conf");
    assert_eq!(std::fs::read_to_string(copied).expect("copied"), "color = \"blue\"\n");
    let written: String = files(&project.dir().join("promoted"))
        .iter()
        .chain([&spec])
        .map(|path| String::from_utf8_lossy(&std::fs::read(path).expect("read")).into_owned())
        .collect();
    let all = [said.out, said.err, written].concat();
    for secret in ["hunter2planted", "tokenplanted", "keyplanted", "hashplanted", "onlymineplanted"]
    {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
    project.clear();
}
