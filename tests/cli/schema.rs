//! `devbox schema`, held against the parser by an independent validator.

use std::path::Path;

use jsonschema::Validator;
use serde_json::Value;

use crate::{Sandbox, repository, shipped};

fn validator(s: &Sandbox) -> Validator {
    let out = s.devbox().arg("schema").output().expect("it runs");
    assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
    let schema: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    jsonschema::draft202012::meta::validate(&schema).expect("a schema of draft 2020-12");
    Validator::new(&schema).expect("it compiles")
}

fn json(toml: &str) -> Value {
    toml::from_str(toml).expect("TOML")
}

const SHA: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[test]
fn the_examples_and_the_template_fit_the_schema() {
    let s = Sandbox::new();
    let validator = validator(&s);
    assert!(s.run(&["init", "web"]).starts_with("exit 0"));
    let mut files = vec![s.project().join("devbox.toml")];
    files.extend(shipped());
    for file in files {
        let text = std::fs::read_to_string(&file).expect("read");
        let errors: Vec<String> =
            validator.iter_errors(&json(&text)).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{}: {errors:?}", file.display());
    }
}

/// Each case goes through both: what the schema refuses the parser must refuse, and what is wrong in
/// form the schema must see.
#[test]
fn schema_and_parser_agree_on_form() {
    let s = Sandbox::new();
    let validator = validator(&s);
    s.write("f", "x");
    let head = "name = \"a\"\nversion = \"1.0.0\"\n";
    let packages = "[source]\ntype = \"packages\"\nsuite = \"bookworm\"\n";
    let source = |body: &str| format!("{head}[source]\n{body}\n");
    let rest = |body: &str| format!("{head}{packages}{body}\n");
    let good = [
        rest(""),
        rest("packages = [\"g++\"]\ndisk = \"3GiB\"\ncomponents = [\"main\"]"),
        rest("[[steps]]\ntype = \"shell\"\ninline = \"x\"\nenv = { A = \"b\" }\ntimeout = \"1h\""),
        rest(
            "[[steps]]\ntype = \"file\"\nsource = \"f\"\ntarget = \"/etc/f\"\nmode = \"0600\"\nowner = \"1:2\"",
        ),
        rest(
            "[[steps]]\ntype = \"shell\"\ninline = \"x\"\nretries = 2\nonly = [\"amd64\"]\nsecrets = { A = { env = \"B\" }, C = { file = \"no-such\" } }",
        ),
        rest(
            "[[steps]]\ntype = \"template\"\nsource = \"f\"\ntarget = \"/f\"\nvars = { a = 1, b = [true, \"x\"], c = { d = \"e\" } }",
        ),
        rest("[[steps]]\ntype = \"ansible\"\nsource = \".\"\nplaybook = \"f\"\ntags = [\"a\"]"),
        rest(&format!("[[steps]]\ntype = \"images\"\npull = [\"h/x@sha256:{SHA}\"]")),
        rest("[[steps]]\ntype = \"test\"\nports = [\"53/udp\", \"65535\"]"),
        rest(
            "[seal]\nepoch = 1700000000\n[machine]\ncpus = 1\nfirmware = \"uefi\"\n[[machine.ports]]\nguest = 80",
        ),
        rest(
            "[machines.a]\ncpus = 1\n[machines.b-1]\ndepends_on = [\"a\"]\nports = [{ guest = 80 }]",
        ),
        rest("[[mounts]]\nsource = \".\"\ntarget = \"/work\"\nwritable = true"),
        rest("[[mounts]]\ntype = \"rsync\"\nsource = \".\"\ntarget = \"/w\"\nexclude = [\"/a*\"]"),
        source(&format!("type = \"image\"\npath = \"f\"\nsha256 = \"{SHA}\"")),
        source("type = \"image\"\nurl = \"https://h/x.img\"\nchecksums = \"https://h/SHA256SUMS\""),
    ];
    let bad = [
        head.to_owned(),
        rest("x = 1"),
        rest("packages = \"vim\""),
        rest("packages = [\"vim\", \"vim\"]"),
        rest("packages = [\"vim-\"]"),
        rest("disk = 3"),
        rest("disk = \"3G\""),
        rest("[machine]\ncpus = 0"),
        rest("[machine]\ncpus = 1.5"),
        rest("[machine]\nmemory = \"01GiB\""),
        rest("[machine]\ndepends_on = []"),
        rest("[machines]"),
        rest("[machines.A]"),
        rest("[machines.a]\ndepends_on = [\"a_\"]"),
        rest("[machines.a]\ncpus = 0"),
        rest("machines = []"),
        rest("[[machine.ports]]\nhost = 80"),
        rest("[[machine.ports]]\nguest = 65536"),
        rest("[[machine.ports]]\nguest = 80\nhost_ip = \"1.2.3\""),
        rest("[[steps]]\ntype = \"shell\""),
        rest("[[steps]]\ntype = \"shell\"\ninline = \"x\"\nscript = \"f\""),
        rest("[[steps]]\ntype = \"shell\"\ninline = \"x\"\ntarget = \"/x\""),
        rest("[[steps]]\ntype = \"shell\"\ninline = \"x\"\nenv = { \"1\" = \"b\" }"),
        rest("[[steps]]\ntype = \"shell\"\ninline = \"x\"\nenv = { A = 1 }"),
        rest("[[steps]]\ntype = \"file\"\nsource = \"f\"\ntarget = \"etc/f\""),
        rest("[[steps]]\ntype = \"dance\""),
        rest("[[steps]]\ntype = \"shell\"\ninline = \"x\"\nsecrets = { A = {} }"),
        rest("[[steps]]\ntype = \"shell\"\ninline = \"x\"\nsecrets = { A = \"value\" }"),
        rest("[[steps]]\ntype = \"shell\"\ninline = \"x\"\nretries = -1"),
        rest("[[steps]]\ntype = \"template\"\nsource = \"f\"\ntarget = \"/f\"\nvars = { a = 1.5 }"),
        rest("[[steps]]\ntype = \"ansible\"\nsource = \".\"\nplaybook = \"../f\""),
        rest("[[steps]]\ntype = \"images\"\npull = [\"busybox:latest\"]"),
        rest("[[steps]]\ntype = \"test\"\nports = [\"65536\"]"),
        rest("[[steps]]\ninline = \"x\""),
        rest("[[mounts]]\nsource = \".\""),
        rest("[[mounts]]\nsource = \".\"\ntarget = \"work\""),
        rest("[[mounts]]\nsource = \".\"\ntarget = \"/a/../b\""),
        rest("[[mounts]]\nsource = \".\"\ntarget = \"/a\"\ntype = \"nfs\""),
        rest("[[mounts]]\nsource = \".\"\ntarget = \"/a\"\nwritable = \"yes\""),
        rest("[[mounts]]\ntype = \"rsync\"\nsource = \".\"\ntarget = \"/a\"\nexclude = [\"\"]"),
        rest("[seal]\nepoch = 0"),
        source("type = \"image\"\npath = \"f\""),
        source(&format!(
            "type = \"image\"\npath = \"f\"\nurl = \"http://h/x\"\nsha256 = \"{SHA}\""
        )),
        source("type = \"image\"\npath = \"f\"\nsha256 = \"12\""),
        source("type = \"iso\""),
        source("suite = \"bookworm\""),
    ];
    for (cases, fits) in [(&good[..], true), (&bad[..], false)] {
        for text in cases {
            assert_eq!(validator.is_valid(&json(text)), fits, "schema: {text}");
            s.write("devbox.toml", text);
            assert_eq!(s.run(&["validate"]).starts_with("exit 0"), fits, "parser: {text}");
        }
    }
}

#[test]
fn the_reference_page_is_up_to_date() {
    let page = std::fs::read_to_string(repository("docs/spec.md")).expect("docs/spec.md");
    let (_, rest) = page.split_once("<!-- keys: begin -->\n").expect("the first mark");
    let (keys, _) = rest.split_once("<!-- keys: end -->").expect("the second mark");
    let expected = devbox::spec::reference::reference();
    if keys.trim() != expected.trim() {
        // The new text stands where a person can copy it from.
        let new = Path::new(env!("CARGO_TARGET_TMPDIR")).join("reference.md");
        std::fs::write(&new, &expected).expect("written");
        panic!(
            "docs/spec.md is out of date; put the text of `{}` between its marks",
            new.display()
        );
    }
}
