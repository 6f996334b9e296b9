//! `[[steps]]`: what every step has. Each kind's own keys are read in `kinds`.

mod kinds;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use crate::spec::keys;
use crate::spec::problem::shown;
use crate::spec::reader::{Collector, Reader};
use crate::spec::shape::Key;
use crate::spec::types::{Action, Arch, Secret, Step};

/// Long enough for an installation in an emulated guest.
const TIMEOUT: Duration = Duration::from_secs(600);
/// What a server that is busy for a moment needs.
const PAUSE: Duration = Duration::from_secs(5);

/// The steps that are for this architecture.
pub(super) fn steps(
    top: &Reader<'_, '_>,
    dir: &Path,
    arch: Option<Arch>,
    c: &mut Collector,
) -> Vec<Step> {
    let mut names: HashMap<String, usize> = HashMap::new();
    let mut steps = vec![];
    for (i, kind, table) in top.variants(&keys::STEPS, c) {
        let name = table.text(&keys::STEP_NAME, c);
        if let Some(at) = &name
            && let Some(before) = names.insert(at.value.clone(), i)
        {
            let what = format!("steps[{before}] is named `{}` too", shown(&at.value));
            c.report(&at.path, at.span.clone(), what).hint = Some(
                "Give each step its own name, so that a message says which one it is.".to_owned(),
            );
        }
        let timeout = table.duration(&keys::STEP_TIMEOUT, c).unwrap_or(TIMEOUT);
        let retries = table.integer(&keys::STEP_RETRIES, c).map_or(0, |at| at.value);
        let pause = table.duration(&keys::STEP_PAUSE, c).unwrap_or(PAUSE);
        let action = kinds::action(kind, &table, dir, c);
        let runs = !matches!(kind, "file" | "template");
        let env = if runs { table.environment(&keys::STEP_ENV, c) } else { None };
        let env = env.unwrap_or_default();
        let secrets = if runs { secrets(&table, dir, c) } else { BTreeMap::new() };
        check_secrets(&table, &env, &secrets, action.as_ref(), c);
        let is_for = is_for(&table, arch, c);
        let number = i + 1;
        let name = name.map_or_else(|| format!("step {number}"), |at| at.value);
        if let Some(action) = action.filter(|_| is_for) {
            let retries = u32::try_from(retries).unwrap_or(0);
            steps.push(Step { number, name, action, env, secrets, timeout, retries, pause });
        }
    }
    steps
}

/// `only` and `except`. The steps of a spec make one image; what can differ is its architecture.
fn is_for(table: &Reader<'_, '_>, arch: Option<Arch>, c: &mut Collector) -> bool {
    let mut names = |key: &Key| {
        let set = table.has(key).then(|| table.set(key, c).unwrap_or_default());
        set.map(|set| set.into_iter().map(|at| at.value).collect::<Vec<_>>())
    };
    let (only, except) = (names(&keys::STEP_ONLY), names(&keys::STEP_EXCEPT));
    if only.is_some() && except.is_some() {
        let at = table.place_of(&keys::STEP_EXCEPT);
        c.report(&at.path, at.span, "`only` and `except` exclude each other").hint =
            Some("Remove one of the two.".to_owned());
    }
    let has = |list: Vec<String>| arch.is_some_and(|arch| list.iter().any(|a| a == arch.as_str()));
    only.is_none_or(has) && !except.is_some_and(has)
}

fn secrets(table: &Reader<'_, '_>, dir: &Path, c: &mut Collector) -> BTreeMap<String, Secret> {
    let mut secrets = BTreeMap::new();
    if !table.has(&keys::STEP_SECRETS) {
        return secrets;
    }
    for (name, origin) in table.named(&keys::STEP_SECRETS, c) {
        let env = origin.text(&keys::SECRET_ENV, c).map(|at| Secret::Env(at.value));
        // Whoever only reads the spec need not have the secret.
        let file = origin.text(&keys::SECRET_FILE, c).map(|at| Secret::File(dir.join(at.value)));
        if let Some(secret) = env.or(file) {
            secrets.insert(name.value, secret);
        }
    }
    secrets
}

/// A name means one thing, and a password is a secret that there is.
fn check_secrets(
    table: &Reader<'_, '_>,
    env: &BTreeMap<String, String>,
    secrets: &BTreeMap<String, Secret>,
    action: Option<&Action>,
    c: &mut Collector,
) {
    if let Some(name) = secrets.keys().find(|name| env.contains_key(*name)) {
        let at = table.place_of(&keys::STEP_SECRETS);
        c.report(&at.path, at.span, format!("`{name}` is in `env` too")).hint =
            Some("Remove it there; a secret's value stands in no spec.".to_owned());
    }
    if let Some(Action::Ansible(ansible)) = action
        && let Some(name) = &ansible.vault_password
        && !secrets.contains_key(name)
    {
        let at = table.place_of(&keys::ANSIBLE_VAULT);
        c.report(&at.path, at.span, format!("there is no secret `{name}`")).hint =
            Some(format!("Add `secrets = {{ {name} = {{ env = \"{name}\" }} }}`."));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Spec, digest, parse};

    fn spec(steps: &str) -> Spec {
        parse(&text(steps), Path::new("devbox.toml"), Path::new("/")).expect("valid")
    }

    fn text(steps: &str) -> String {
        format!(
            "name = \"a\"\nversion = \"1.0.0\"\narch = \"amd64\"\n[source]\ntype = \"packages\"\nsuite = \"bookworm\"\n{steps}"
        )
    }

    fn refused(steps: &str) -> String {
        let problems = parse(&text(steps), Path::new("devbox.toml"), Path::new("/"));
        let problems = problems.expect_err("refused");
        problems.list().iter().map(|problem| format!("{}\n", problem.what)).collect()
    }

    const FIRST: &str = "[[steps]]\ntype = \"shell\"\ninline = \"true\"\n";

    #[test]
    fn a_step_for_another_architecture_is_as_if_it_did_not_stand_there() {
        let both = spec(&format!("{FIRST}only = [\"arm64\"]\n{FIRST}except = [\"arm64\"]\n"));
        let [step] = &both.steps[..] else { panic!("{:?}", both.steps) };
        assert_eq!((step.number, step.name.as_str()), (2, "step 2"));
        let alone = digest::spec1(&spec(FIRST), None).expect("digested");
        assert_eq!(digest::spec1(&both, None).expect("digested"), alone);
        let said = refused(&format!("{FIRST}only = [\"arm64\"]\nexcept = [\"amd64\"]\n"));
        assert!(said.contains("`only` and `except` exclude each other"), "{said}");
    }

    #[test]
    fn of_a_secret_the_name_is_an_input_and_where_it_comes_from_is_not() {
        let of = |more: &str| {
            let spec = spec(&format!("{FIRST}{more}\n"));
            digest::step(&spec.steps[0]).expect("digested")
        };
        let one = of("secrets = { A = { env = \"X\" } }");
        assert_eq!(of("secrets = { A = { file = \"no-such-file\" } }\nretries = 3"), one);
        assert_ne!(of("secrets = { B = { env = \"X\" } }"), one);
        assert_ne!(of(""), one);
        let said = refused(&format!("{FIRST}env = {{ A = \"1\" }}\nsecrets.A.env = \"X\"\n"));
        assert!(said.contains("`A` is in `env` too"), "{said}");
    }

    #[test]
    fn a_vaults_password_is_one_of_the_secrets() {
        let said = refused(
            "[[steps]]\ntype = \"ansible\"\nsource = \"etc\"\nplaybook = \"passwd\"\nvault_password = \"V\"\n",
        );
        assert!(said.contains("there is no secret `V`"), "{said}");
        let said = refused("[[steps]]\ntype = \"ansible\"\nsource = \"etc\"\n");
        assert!(said.contains("there is no `playbook.yml` in `/etc`"), "{said}");
        let said = refused("[[steps]]\ntype = \"test\"\n");
        assert!(said.contains("the step does nothing"), "{said}");
    }
}
