//! `type = "salt"`: `salt-call --local` in the guest.

use serde_json::json;

use super::Running;
use super::tree::{TREE, shell_line};
use crate::error::Result;
use crate::spec::Salt;

impl Running<'_> {
    pub(super) async fn salt(&self, salt: &Salt) -> Result<()> {
        self.program(
            &["salt-call"],
            "Install Salt in the guest by an earlier step: its minion from its vendor's packages, or `salt` of PyPI.",
        )
        .await?;
        self.make_tree(&["conf", "pillar"]).await?;
        self.put_tree(&salt.source, "source").await?;
        if let Some(pillar) = &salt.pillar {
            self.put_tree(pillar, "pillar").await?;
        }
        self.write_tree("conf/minion", settings(salt)).await?;
        let line = format!("exec {}", shell_line(&words(salt)));
        let home = [("HOME", format!("{TREE}/home"))];
        let lines = self.in_guest(TREE, &line, &home).await?;
        self.say(changed(&lines), "salt");
        if salt.idempotent {
            let lines = self.in_guest(TREE, &line, &home).await?;
            self.converged(changed(&lines), "salt")?;
        }
        self.remove_tree().await
    }
}

/// The number of changes in the summary: `Succeeded: 3 (changed=1)`, and nothing in brackets where there was none.
fn changed(lines: &[String]) -> Option<u64> {
    let line = lines.iter().rev().find_map(|line| line.strip_prefix("Succeeded:"))?;
    let (number, more) = line.split_once('(').unwrap_or((line, ""));
    number.trim().parse::<u64>().ok()?;
    let mut counts = more.trim().trim_end_matches(')').split(", ");
    match counts.find_map(|count| count.strip_prefix("changed=")) {
        Some(count) => count.parse().ok(),
        None => Some(0),
    }
}

/// The minion's configuration, in JSON, which is YAML too (docs.saltproject.io, "Configuring the
/// Salt minion"): every path is in the step's folder.
fn settings(salt: &Salt) -> String {
    json!({
        "file_client": "local",
        "id": "build",
        "root_dir": TREE,
        "file_roots": { "base": [format!("{TREE}/source")] },
        "pillar_roots": { "base": [format!("{TREE}/pillar")] },
        "cachedir": format!("{TREE}/cache"),
        "pki_dir": format!("{TREE}/pki"),
        "sock_dir": format!("{TREE}/run"),
        "log_file": format!("{TREE}/log"),
        "grains": salt.grains,
    })
    .to_string()
}

fn words(salt: &Salt) -> Vec<String> {
    let mut words: Vec<String> =
        ["salt-call", "--local", "--config-dir"].map(str::to_owned).to_vec();
    words.push(format!("{TREE}/conf"));
    // Without it a state that failed ends with 0.
    words.extend(["--retcode-passthrough", "--no-color", "state.apply"].map(str::to_owned));
    if !salt.states.is_empty() {
        words.push(salt.states.join(","));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_read_in_the_summary() {
        // As salt 3007 writes it.
        let summary = |succeeded: &str| {
            ["Summary for local", "------------", succeeded, "Failed:    0", "------------"]
                .map(str::to_owned)
        };
        assert_eq!(changed(&summary("Succeeded: 2 (changed=1)")), Some(1));
        assert_eq!(changed(&summary("Succeeded: 2")), Some(0));
        assert_eq!(changed(&summary("Succeeded: 2 (unchanged=1, changed=2)")), Some(2));
        assert_eq!(changed(&summary("    Data failed to compile:")), None);
    }

    #[test]
    fn salt_applies_the_states_or_what_top_says() {
        let mut salt = Salt {
            source: "/s".into(),
            states: vec![],
            pillar: None,
            grains: [("role".to_owned(), "web".into())].into(),
            idempotent: false,
        };
        let start = "salt-call --local --config-dir /tmp/.devbox-work/conf --retcode-passthrough --no-color state.apply";
        assert_eq!(words(&salt).join(" "), start);
        salt.states = vec!["base".to_owned(), "web.tls".to_owned()];
        assert_eq!(words(&salt).join(" "), format!("{start} base,web.tls"));
        let settings: serde_json::Value = serde_json::from_str(&settings(&salt)).expect("JSON");
        assert_eq!(settings["grains"]["role"], "web");
        assert_eq!(settings["file_roots"]["base"][0], "/tmp/.devbox-work/source");
    }
}
