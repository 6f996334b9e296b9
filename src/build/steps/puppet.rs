//! `type = "puppet"`: `puppet apply` in the guest.

use super::Running;
use super::tree::{TREE, shell_line};
use crate::error::Result;
use crate::spec::Puppet;

/// What the run's shell says when puppet changed something.
const CHANGED: &str = "devbox: puppet changed something";

impl Running<'_> {
    pub(super) async fn puppet(&self, puppet: &Puppet) -> Result<()> {
        self.program(
            &["puppet"],
            "Install it in the guest, by an earlier step or `source.packages` (Debian: `puppet`).",
        )
        .await?;
        self.make_tree(&["conf", "code/environments/production", "var"]).await?;
        self.put_tree(&puppet.source, "source").await?;
        self.write_tree("conf/puppet.conf", settings()).await?;
        let line = line(puppet);
        let home = [("HOME", format!("{TREE}/home"))];
        let lines = self.in_guest(TREE, &line, &home).await?;
        self.say(Some(changed(&lines)), "puppet");
        if puppet.idempotent {
            let lines = self.in_guest(TREE, &line, &home).await?;
            self.converged(Some(changed(&lines)), "puppet")?;
        }
        self.remove_tree().await
    }
}

/// Puppet keeps its state beside its configuration, so that the image keeps none of it.
fn settings() -> String {
    format!(
        "[main]\nlogdir = {TREE}/var/log\nrundir = {TREE}/var/run\npublicdir = {TREE}/var/public\nssldir = {TREE}/var/ssl\n"
    )
}

/// The line for the guest's shell. With detailed exit codes puppet ends with 0 when there was nothing to
/// change, 2 after changes, and with 1, 4 or 6 when something failed (puppet-apply(8)).
fn line(puppet: &Puppet) -> String {
    let source = format!("{TREE}/source");
    let mut words: Vec<String> =
        ["puppet", "apply", "--detailed-exitcodes", "--color=false"].map(str::to_owned).to_vec();
    words.push(format!("--confdir={TREE}/conf"));
    words.push(format!("--codedir={TREE}/code"));
    words.push(format!("--vardir={TREE}/var"));
    words.push(format!(
        "--modulepath={source}/{}:/usr/share/puppet/modules:/etc/puppetlabs/code/modules:/opt/puppetlabs/puppet/modules",
        puppet.modules
    ));
    if let Some(hiera) = &puppet.hiera {
        words.push(format!("--hiera_config={source}/{hiera}"));
    }
    words.push(format!("{source}/{}", puppet.manifest));
    format!(
        "{}; s=$?; if [ $s = 2 ]; then echo '{CHANGED}'; exit 0; fi; exit $s",
        shell_line(&words)
    )
}

/// How many runs changed something: puppet tells no number.
fn changed(lines: &[String]) -> u64 {
    u64::from(lines.iter().any(|line| line == CHANGED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_guests_own_configuration_is_used() {
        let mut puppet = Puppet {
            source: "/p".into(),
            manifest: "manifests/site.pp".to_owned(),
            modules: "modules".to_owned(),
            hiera: None,
            idempotent: false,
        };
        let text = line(&puppet);
        assert!(
            text.starts_with(
                "puppet apply --detailed-exitcodes --color=false --confdir=/tmp/.devbox-work/conf "
            ),
            "{text}"
        );
        assert!(text.contains(" /tmp/.devbox-work/source/manifests/site.pp; s=$?"), "{text}");
        assert!(!text.contains("hiera"), "{text}");
        puppet.hiera = Some("hiera.yaml".to_owned());
        assert!(line(&puppet).contains(" --hiera_config=/tmp/.devbox-work/source/hiera.yaml "));
    }

    #[test]
    fn the_exit_code_tells_changes_from_failures() {
        for (code, ends, says) in [(0, 0, 0), (2, 0, 1), (1, 1, 0), (4, 4, 0), (6, 6, 0)] {
            let tail = line(&Puppet {
                source: "/p".into(),
                manifest: "m".to_owned(),
                modules: "m".to_owned(),
                hiera: None,
                idempotent: false,
            });
            let tail = tail.split_once("; s=$?").map(|(_, tail)| tail.to_owned()).expect("a tail");
            let script = format!("(exit {code}); s=$?{tail}");
            let out =
                std::process::Command::new("sh").args(["-c", &script]).output().expect("runs");
            let lines: Vec<String> =
                String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect();
            assert_eq!((out.status.code(), changed(&lines)), (Some(ends), says), "{code}");
        }
    }
}
