//! The kinds of `[[steps]]`.

use std::path::{Path, PathBuf};

use crate::spec::decode::files::{Expect, resolve};
use crate::spec::keys;
use crate::spec::reader::{Collector, Reader};
use crate::spec::shape::Key;
use crate::spec::types::{Action, Ansible, Checks, Chef, Images, Puppet, Salt, Script, Template};

/// What the step does; `None` if something needed is missing or wrong, which `c` then knows.
pub(super) fn action(
    kind: &str,
    table: &Reader<'_, '_>,
    dir: &Path,
    c: &mut Collector,
) -> Option<Action> {
    match kind {
        "shell" => shell(table, dir, c),
        "file" => file(table, dir, c),
        "template" => template(table, dir, c).map(Action::Template),
        "ansible" => ansible(table, dir, c).map(Action::Ansible),
        "puppet" => puppet(table, dir, c).map(Action::Puppet),
        "chef" => chef(table, dir, c).map(Action::Chef),
        "salt" => salt(table, dir, c).map(Action::Salt),
        "images" => images(table, dir, c).map(Action::Images),
        _ => test(table, dir, c).map(Action::Test),
    }
}

fn path(
    table: &Reader<'_, '_>,
    key: &Key,
    dir: &Path,
    expect: Expect,
    c: &mut Collector,
) -> Option<PathBuf> {
    let at = table.text(key, c)?;
    Some(resolve(&at, dir, expect, c))
}

fn paths(
    table: &Reader<'_, '_>,
    key: &Key,
    dir: &Path,
    expect: Expect,
    c: &mut Collector,
) -> Vec<PathBuf> {
    let all = table.has(key).then(|| table.set(key, c)).flatten().unwrap_or_default();
    all.iter().map(|at| resolve(at, dir, expect, c)).collect()
}

fn words(table: &Reader<'_, '_>, key: &Key, c: &mut Collector) -> Vec<String> {
    let all = table.has(key).then(|| table.set(key, c)).flatten().unwrap_or_default();
    all.into_iter().map(|at| at.value).collect()
}

/// A file inside a folder that is named beside it.
fn inside(
    table: &Reader<'_, '_>,
    key: &Key,
    folder: Option<&PathBuf>,
    default: &str,
    c: &mut Collector,
) -> Option<String> {
    let given = table.text(key, c);
    let name = given.map_or_else(|| default.to_owned(), |at| at.value);
    let folder = folder.filter(|folder| folder.is_dir())?;
    if !folder.join(&name).exists() {
        let at = table.place_of(key);
        let what = format!("there is no `{name}` in `{}`", folder.display());
        c.report(&at.path, at.span, what).hint =
            Some(format!("Make the file, or name another one with `{}`.", key.name));
    }
    Some(name)
}

fn shell(table: &Reader<'_, '_>, dir: &Path, c: &mut Collector) -> Option<Action> {
    let inline = table.text(&keys::STEP_INLINE, c).map(|at| Script::Inline(at.value));
    let script = path(table, &keys::STEP_SCRIPT, dir, Expect::File, c).map(Script::File);
    Some(Action::Shell { script: inline.or(script)? })
}

fn file(table: &Reader<'_, '_>, dir: &Path, c: &mut Collector) -> Option<Action> {
    let source = path(table, &keys::STEP_SOURCE, dir, Expect::FileOrFolder, c);
    let (target, mode, owner) = place(table, c);
    Some(Action::File { source: source?, target: target?, mode, owner })
}

fn template(table: &Reader<'_, '_>, dir: &Path, c: &mut Collector) -> Option<Template> {
    let source = path(table, &keys::TEMPLATE_SOURCE, dir, Expect::File, c);
    let vars = table.values(&keys::TEMPLATE_VARS, c).unwrap_or_default();
    let (target, mode, owner) = place(table, c);
    Some(Template { source: source?, vars, target: target?, mode, owner })
}

/// Where a file goes: `target`, `mode`, `owner`.
fn place(table: &Reader<'_, '_>, c: &mut Collector) -> (Option<String>, Option<u32>, String) {
    let target = table.text(&keys::STEP_TARGET, c).map(|at| at.value);
    let mode = table.text(&keys::STEP_MODE, c);
    let mode = mode.and_then(|at| u32::from_str_radix(&at.value, 8).ok());
    let owner = table.text(&keys::STEP_OWNER, c).map(|at| at.value);
    (target, mode, owner.unwrap_or_else(|| "root:root".to_owned()))
}

fn ansible(table: &Reader<'_, '_>, dir: &Path, c: &mut Collector) -> Option<Ansible> {
    let source = path(table, &keys::ANSIBLE_FOLDER, dir, Expect::Folder, c);
    let playbook = inside(table, &keys::ANSIBLE_PLAYBOOK, source.as_ref(), "playbook.yml", c);
    let place = table.text(&keys::ANSIBLE_WHERE, c);
    let ansible = Ansible {
        source: source?,
        playbook: playbook.unwrap_or_default(),
        in_guest: place.is_some_and(|at| at.value == "guest"),
        roles: paths(table, &keys::ANSIBLE_ROLES, dir, Expect::Folder, c),
        requirements: path(table, &keys::ANSIBLE_REQUIREMENTS, dir, Expect::File, c),
        extra_vars: table.values(&keys::ANSIBLE_VARS, c).unwrap_or_default(),
        groups: words(table, &keys::ANSIBLE_GROUPS, c),
        tags: words(table, &keys::ANSIBLE_TAGS, c),
        skip_tags: words(table, &keys::ANSIBLE_SKIP_TAGS, c),
        vault_password: table.text(&keys::ANSIBLE_VAULT, c).map(|at| at.value),
        idempotent: table.boolean(&keys::STEP_IDEMPOTENT, c).unwrap_or(false),
    };
    Some(ansible)
}

fn puppet(table: &Reader<'_, '_>, dir: &Path, c: &mut Collector) -> Option<Puppet> {
    let source = path(table, &keys::PUPPET_FOLDER, dir, Expect::Folder, c);
    let manifest = inside(table, &keys::PUPPET_MANIFEST, source.as_ref(), "manifests/site.pp", c);
    let modules = if table.has(&keys::PUPPET_MODULES) {
        inside(table, &keys::PUPPET_MODULES, source.as_ref(), "modules", c)
    } else {
        None
    };
    let hiera = if table.has(&keys::PUPPET_HIERA) {
        inside(table, &keys::PUPPET_HIERA, source.as_ref(), "hiera.yaml", c)
    } else {
        None
    };
    let idempotent = table.boolean(&keys::STEP_IDEMPOTENT, c).unwrap_or(false);
    let modules = modules.unwrap_or_else(|| "modules".to_owned());
    Some(Puppet { source: source?, manifest: manifest?, modules, hiera, idempotent })
}

fn chef(table: &Reader<'_, '_>, dir: &Path, c: &mut Collector) -> Option<Chef> {
    let source = path(table, &keys::CHEF_FOLDER, dir, Expect::Folder, c);
    let run_list = words(table, &keys::CHEF_RUN_LIST, c);
    let attributes = table.values(&keys::CHEF_ATTRIBUTES, c).unwrap_or_default();
    if table.has(&keys::CHEF_RUN_LIST) && run_list.is_empty() {
        let at = table.place_of(&keys::CHEF_RUN_LIST);
        c.report(&at.path, at.span, "nothing would run").hint =
            Some("Name a recipe, such as `\"recipe[base]\"`.".to_owned());
    }
    Some(Chef { source: source?, run_list, attributes })
}

fn salt(table: &Reader<'_, '_>, dir: &Path, c: &mut Collector) -> Option<Salt> {
    let source = path(table, &keys::SALT_FOLDER, dir, Expect::Folder, c);
    let states = words(table, &keys::SALT_STATES, c);
    let pillar = path(table, &keys::SALT_PILLAR, dir, Expect::Folder, c);
    let grains = table.values(&keys::SALT_GRAINS, c).unwrap_or_default();
    let idempotent = table.boolean(&keys::STEP_IDEMPOTENT, c).unwrap_or(false);
    Some(Salt { source: source?, states, pillar, grains, idempotent })
}

fn images(table: &Reader<'_, '_>, dir: &Path, c: &mut Collector) -> Option<Images> {
    let images = Images {
        engine: table.text(&keys::IMAGES_ENGINE, c).map(|at| at.value),
        archives: paths(table, &keys::IMAGES_ARCHIVES, dir, Expect::File, c),
        pull: words(table, &keys::IMAGES_PULL, c),
    };
    let none = images.archives.is_empty() && images.pull.is_empty();
    something(none, table, "Add `archives` or `pull`.", c);
    Some(images)
}

fn test(table: &Reader<'_, '_>, dir: &Path, c: &mut Collector) -> Option<Checks> {
    let checks = Checks {
        commands: words(table, &keys::TEST_COMMANDS, c),
        files: words(table, &keys::TEST_FILES, c),
        packages: words(table, &keys::TEST_PACKAGES, c),
        services: words(table, &keys::TEST_SERVICES, c),
        ports: words(table, &keys::TEST_PORTS, c),
        goss: path(table, &keys::TEST_GOSS, dir, Expect::File, c),
    };
    let none = checks == Checks::default();
    something(
        none,
        table,
        "Add `commands`, `files`, `packages`, `services`, `ports` or `goss`.",
        c,
    );
    Some(checks)
}

/// A step that would do nothing is a mistake.
fn something(none: bool, table: &Reader<'_, '_>, hint: &str, c: &mut Collector) {
    let keys = [&keys::IMAGES_ARCHIVES, &keys::IMAGES_PULL, &keys::TEST_COMMANDS];
    let named = keys.iter().any(|key| table.has(key));
    if none {
        let at = table.at();
        let what = if named { "the step's lists are empty" } else { "the step does nothing" };
        c.report(&at.path, at.span, what).hint = Some(hint.to_owned());
    }
}
