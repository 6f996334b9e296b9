//! `type = "chef"`: `cinc-solo` or `chef-solo` in the guest.

use serde_json::json;

use super::Running;
use super::tree::{TREE, shell_line};
use crate::error::Result;
use crate::spec::Chef;

impl Running<'_> {
    pub(super) async fn chef(&self, chef: &Chef) -> Result<()> {
        let program = self
            .program(
                &["cinc-solo", "chef-solo"],
                "Install Cinc or Chef in the guest by an earlier step, from its vendor's packages.",
            )
            .await?;
        self.make_tree(&[]).await?;
        self.put_tree(&chef.source, "source").await?;
        self.write_tree("solo.rb", settings()).await?;
        self.write_tree("node.json", node(chef)).await?;
        let line = format!("exec {}", shell_line(&words(program)));
        self.in_guest(TREE, &line, &[("HOME", format!("{TREE}/home"))]).await?;
        self.remove_tree().await
    }
}

/// Its configuration (docs.chef.io, "solo.rb"): every path is in the step's folder.
fn settings() -> String {
    let mut text = String::new();
    for (name, folder) in [
        ("cookbook_path", "source/cookbooks"),
        ("role_path", "source/roles"),
        ("environment_path", "source/environments"),
        ("data_bag_path", "source/data_bags"),
        ("node_path", "nodes"),
        ("file_cache_path", "cache"),
        ("file_backup_path", "backup"),
        ("checksum_path", "checksums"),
    ] {
        text.push_str(&format!("{name} \"{TREE}/{folder}\"\n"));
    }
    text
}

/// The node's attributes with what is run.
fn node(chef: &Chef) -> String {
    let mut node = json!(chef.attributes);
    node["run_list"] = json!(chef.run_list);
    node.to_string()
}

fn words(program: &str) -> Vec<String> {
    let mut words = vec![program.to_owned(), "--config".to_owned(), format!("{TREE}/solo.rb")];
    words.extend(["--json-attributes".to_owned(), format!("{TREE}/node.json")]);
    words.push("--no-color".to_owned());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chef_reads_and_writes_in_the_steps_folder_alone() {
        let chef = Chef {
            source: "/c".into(),
            run_list: vec!["recipe[base]".to_owned(), "role[web]".to_owned()],
            attributes: [("port".to_owned(), 80.into())].into(),
        };
        assert_eq!(node(&chef), r#"{"port":80,"run_list":["recipe[base]","role[web]"]}"#);
        assert!(settings().lines().all(|line| line.contains("\"/tmp/.devbox-work/")));
        assert_eq!(
            words("cinc-solo").join(" "),
            "cinc-solo --config /tmp/.devbox-work/solo.rb --json-attributes /tmp/.devbox-work/node.json --no-color"
        );
    }
}
