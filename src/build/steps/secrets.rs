//! The secrets of a build's steps: read once, handed to the steps that name them, and taken out of
//! whatever is told to anybody.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use base64ct::{Base64Unpadded, Base64UrlUnpadded, Encoding as _};
use fs_err as fs;

use crate::build::seal::planted;
use crate::build::seal::search::Search;
use crate::error::{Error, Result};
use crate::event::{Event, Events, Sink};
use crate::spec::{Secret, Step};

/// A shorter text occurs by chance: it could be neither taken out nor searched for.
const SHORTEST: usize = 8;
/// One read of this size keeps the search busy.
const PIECE: usize = 1 << 20;
/// More is no secret; bounds what a wrong path can cost.
const LONGEST: u64 = 64 << 10;

/// The values of all secrets of a spec.
#[derive(Clone, Default)]
pub(in crate::build) struct Secrets {
    all: Vec<Value>,
    /// In which forms they could be told, with their names; the longest first.
    forms: Vec<Trace>,
}

#[derive(Clone)]
struct Value {
    step: usize,
    name: String,
    value: String,
}

/// A text that must occur nowhere, and which secret it is of.
#[derive(Clone, PartialEq, Eq)]
pub struct Trace {
    /// The secret's name.
    pub name: String,
    /// The text.
    pub text: String,
}

/// Names alone.
impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trace({})", self.name)
    }
}

/// Names alone.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.all.iter().map(|secret| &secret.name)).finish()
    }
}

impl Secrets {
    /// Reads the values of all steps' secrets.
    ///
    /// # Errors
    /// One is not there, or is no text that could be kept secret: names the step, the secret and
    /// where it was looked for.
    pub(in crate::build) fn read(steps: &[Step]) -> Result<Self> {
        let mut all = vec![];
        for step in steps {
            for (name, origin) in &step.secrets {
                let value = read(origin).and_then(checked).map_err(|e| {
                    e.context(format!("the secret `{name}` of `{}` cannot be used", step.name))
                })?;
                all.push(Value { step: step.number, name: name.clone(), value });
            }
        }
        let mut forms: Vec<Trace> = vec![];
        for Value { name, value, .. } in &all {
            for text in told(value) {
                if forms.iter().all(|form| form.text != text) {
                    forms.push(Trace { name: name.clone(), text });
                }
            }
        }
        forms.sort_by_key(|form| std::cmp::Reverse(form.text.len()));
        Ok(Secrets { all, forms })
    }

    /// Names and values of one step.
    pub(in crate::build) fn of(&self, step: &Step) -> impl Iterator<Item = (&str, &str)> {
        let number = step.number;
        let own = self.all.iter().filter(move |secret| secret.step == number);
        own.map(|secret| (secret.name.as_str(), secret.value.as_str()))
    }

    /// What must occur nowhere in an image.
    #[must_use]
    pub(in crate::build) fn traces(&self) -> &[Trace] {
        &self.forms
    }

    /// The text with names in place of values. Values may overlap, and one may hold another: all are looked for in the
    /// text as it is, so that nothing is left of either.
    #[must_use]
    pub(in crate::build) fn hide(&self, text: &str) -> String {
        let mut found: Vec<(usize, usize, &str)> = vec![];
        for form in &self.forms {
            let starts = memchr::memmem::find_iter(text.as_bytes(), &form.text);
            found.extend(starts.map(|at| (at, at + form.text.len(), form.name.as_str())));
        }
        found.sort_by_key(|&(start, end, _)| (start, std::cmp::Reverse(end)));
        let mut hidden = String::with_capacity(text.len());
        let (mut told, mut last) = (0, None);
        for (start, end, name) in found {
            if end <= told {
                continue;
            }
            if start >= told {
                hidden.push_str(text.get(told..start).unwrap_or_default());
                last = None;
            }
            if last != Some(name) {
                hidden.push_str(&format!("[secret {name}]"));
            }
            (told, last) = (end, Some(name));
        }
        hidden.push_str(text.get(told..).unwrap_or_default());
        hidden
    }

    /// The same events with names in place of values.
    pub(in crate::build) fn masked(&self, events: &Events) -> Events {
        if self.forms.is_empty() {
            return events.clone();
        }
        Events::new(Masked { secrets: self.clone(), events: events.clone() })
    }

    /// Refuses a layer of a disk that holds a value, whose backing files lie in the folders `within`. What a guest
    /// has deleted is in a layer as well; only the seal trims it.
    ///
    /// # Errors
    /// The layer cannot be read, or it holds a value: names the secret, the files, and what to do.
    pub(in crate::build) fn refuse_in(
        &self,
        layer: &Path,
        within: &[PathBuf],
        step: &str,
    ) -> Result<()> {
        if self.forms.is_empty() {
            return Ok(());
        }
        // Both: a file has its clusters anywhere in the layer, and what was deleted is in no file.
        let name = self.found_in(layer)?;
        let files = planted::files(layer, within, &self.forms)?;
        let what = match name {
            Some(name) => format!("the secret `{name}`"),
            None if files.is_empty() => return Ok(()),
            None => "a secret".to_owned(),
        };
        let mut error = Error::failed(format!("{step} wrote {what} to the disk"));
        if files.is_empty() {
            error = error.detail("no file holds it now; what was deleted is still in the layer");
        }
        for file in files {
            error = error.detail(file);
        }
        Err(error.hint("Let the step keep it in memory, in a variable or in a file below /dev/shm: layers are kept for the next build."))
    }

    /// The name of a secret whose value is somewhere in the file.
    fn found_in(&self, file: &Path) -> Result<Option<&str>> {
        if self.forms.is_empty() {
            return Ok(None);
        }
        let needles: Vec<&[u8]> = self.forms.iter().map(|form| form.text.as_bytes()).collect();
        let mut search = Search::new(&needles);
        let mut file = fs::File::open(file)?;
        let mut buffer = vec![0; PIECE];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                n => search.feed(&buffer[..n]),
            }
        }
        let found = search.found().next();
        let form = self.forms.iter().find(|form| Some(form.text.as_bytes()) == found);
        Ok(form.map(|form| form.name.as_str()))
    }

    /// Overwrites values in a log that another program may still be writing: no byte moves.
    pub(in crate::build) fn scrub(&self, log: &Path) -> Result<()> {
        use std::os::unix::fs::FileExt as _;
        if self.forms.is_empty() || !log.exists() {
            return Ok(());
        }
        let bytes = fs::read(log)?;
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).open(log)?;
        for form in &self.forms {
            for at in memchr::memmem::find_iter(&bytes, &form.text) {
                file.file().write_all_at(&vec![b'*'; form.text.len()], at as u64)?;
            }
        }
        Ok(())
    }
}

fn read(origin: &Secret) -> Result<String> {
    match origin {
        Secret::Env(variable) => match std::env::var(variable) {
            Ok(value) => Ok(value),
            Err(std::env::VarError::NotPresent) => {
                Err(Error::failed(format!("the environment has no `{variable}`"))
                    .hint(format!("Set it for this command: `export {variable}`.")))
            }
            Err(std::env::VarError::NotUnicode(_)) => {
                Err(Error::failed(format!("`{variable}` in the environment is no text")))
            }
        },
        Secret::File(path) => {
            let meta = fs::metadata(path)?;
            if !meta.is_file() || meta.len() > LONGEST {
                let what = format!("`{}` is no file of at most {LONGEST} bytes", path.display());
                return Err(Error::failed(what));
            }
            let text = fs::read_to_string(path)?;
            Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
        }
    }
}

fn checked(value: String) -> Result<String> {
    if value.len() < SHORTEST {
        return Err(Error::failed(format!("it has less than {SHORTEST} bytes"))
            .hint("Use a longer one: so short a text occurs in images by chance, and could not be searched for."));
    }
    if value.chars().any(|c| c.is_control() && c != '\n') {
        return Err(Error::failed("it holds a control character")
            .hint("Store it as text; lines end with a line feed alone."));
    }
    Ok(value)
}

/// How a value could be told: as it is, by lines (output comes by lines), as a shell or JSON quotes it, in base64
/// wherever it stands in what was encoded, and percent-encoded.
fn told(value: &str) -> Vec<String> {
    let mut forms = vec![value.to_owned()];
    if value.contains('\n') {
        forms.extend(value.lines().map(str::trim).filter(|line| !public(line)).map(str::to_owned));
    }
    let plain = forms.clone();
    for text in &plain {
        // What `set -x` of bash and of dash writes.
        forms.extend([r"'\''", "'\"'\"'"].map(|quote| text.replace('\'', quote)));
        let json = serde_json::Value::from(text.as_str()).to_string();
        forms.extend(json.get(1..json.len().saturating_sub(1)).map(str::to_owned));
    }
    for before in 0..3 {
        let bytes = [&[0; 2][..before], value.as_bytes()].concat();
        // Six bits a character: those that other bytes have a part in are left out.
        let inside = (before * 8).div_ceil(6)..bytes.len() * 8 / 6;
        for text in
            [Base64Unpadded::encode_string(&bytes), Base64UrlUnpadded::encode_string(&bytes)]
        {
            forms.extend(text.get(inside.clone()).map(str::to_owned));
        }
    }
    // RFC 3986; some leave `/` as it is, some write small letters, and forms have `+` for a space.
    for kept in ["-._~", "-._~/"] {
        let upper = percent(value, kept, |b| format!("%{b:02X}"));
        forms.push(upper.replace("%20", "+"));
        forms.push(upper);
        forms.push(percent(value, kept, |b| format!("%{b:02x}")));
    }
    forms.retain(|form| form.len() >= SHORTEST);
    forms.sort();
    forms.dedup();
    forms
}

fn percent(value: &str, kept: &str, code: impl Fn(u8) -> String) -> String {
    let as_is = |b: u8| b.is_ascii_alphanumeric() || kept.as_bytes().contains(&b);
    value.bytes().map(|b| if as_is(b) { char::from(b).to_string() } else { code(b) }).collect()
}

/// Lines that private keys of many people have in common, so that they are no secret and in every image: PEM's armour
/// (RFC 7468), and the one that OpenSSH's keys begin with (its PROTOCOL.key: `openssh-key-v1`), host keys among them.
fn public(line: &str) -> bool {
    line.starts_with("-----BEGIN ") || line.starts_with("-----END ") || line.starts_with(OPENSSH)
}

/// `openssh-key-v1` and its NUL in base64, as far as it has whole characters.
const OPENSSH: &str = "b3BlbnNzaC1rZXktdjEA";

struct Masked {
    secrets: Secrets,
    events: Events,
}

impl Sink for Masked {
    fn emit(&self, event: Event) {
        self.events.emit(event.with_texts(&|text| self.secrets.hide(&text)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(value: &str) -> Secrets {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("s");
        std::fs::write(&path, value).expect("written");
        let text = format!(
            "name = \"a\"\nversion = \"1.0.0\"\narch = \"amd64\"\n[source]\ntype = \"packages\"\nsuite = \"bookworm\"\n\
             [[steps]]\ntype = \"shell\"\nname = \"push\"\ninline = \"true\"\nsecrets = {{ TOKEN = {{ file = \"{}\" }} }}\n",
            path.display()
        );
        let spec = crate::spec::parse(&text, Path::new("f"), dir.path()).expect("valid");
        Secrets::read(&spec.steps).expect("read")
    }

    #[test]
    fn a_value_is_hidden_in_every_form_that_a_program_gives_it() {
        let hidden = secrets("hunter2/and more\n");
        for text in [
            "see hunter2/and more!",
            "aHVudGVyMi9hbmQgbW9yZQ==",
            // `user:hunter2/and more`, as in HTTP's basic authentication.
            "dXNlcjpodW50ZXIyL2FuZCBtb3Jl",
            "ab:hunter2/and more in base64: YWI6aHVudGVyMi9hbmQgbW9yZQ",
            "https://h/?t=hunter2%2Fand%20more",
        ] {
            let shown = hidden.hide(text);
            assert!(shown.contains("[secret TOKEN]"), "{text}: {shown}");
            assert!(!shown.contains("hunter2"), "{shown}");
            assert!(!shown.contains("W50ZXIyL2FuZC"), "{shown}");
        }
        assert_eq!(hidden.hide("nothing here"), "nothing here");
        for (value, told) in [
            ("it's a \"word\"", r#"+ TOKEN='it'\''s a "word"'"#),
            ("it's a \"word\"", r#"+ TOKEN='it'"'"'s a "word"'"#),
            ("it's a \"word\"", r#"{"token":"it's a \"word\""}"#),
            ("pass/word and", "pass/word%20and"),
            ("pass/word and", "pass%2fword%20and"),
            ("pass/word and", "pass%2Fword+and"),
        ] {
            let shown = secrets(value).hide(told);
            assert!(shown.contains("[secret TOKEN]") && !shown.contains("word"), "{shown}");
        }
        let key = secrets("-----BEGIN KEY-----\nabcdefghij\nxy\n");
        assert_eq!(key.hide("line abcdefghij."), "line [secret TOKEN].");
        assert!(!format!("{key:?} {:?}", key.traces()).contains("abcdefghij"));
    }

    #[test]
    fn values_that_overlap_leave_nothing_of_each_other() {
        let form = |name: &str, text: &str| Trace { name: name.to_owned(), text: text.to_owned() };
        let forms = vec![
            form("LONG", "abcd-1234-efgh"),
            form("NEXT", "efgh-5678-zz"),
            form("PART", "1234-efg"),
        ];
        let secrets = Secrets { all: vec![], forms };
        for (text, shown) in [
            ("a abcd-1234-efgh b", "a [secret LONG] b"),
            ("a 1234-efg b", "a [secret PART] b"),
            ("a abcd-1234-efgh-5678-zz b", "a [secret LONG][secret NEXT] b"),
            ("abcd-1234-efghabcd-1234-efgh", "[secret LONG][secret LONG]"),
            ("é1234-efgé", "é[secret PART]é"),
            ("", ""),
        ] {
            assert_eq!(secrets.hide(text), shown);
        }
    }

    #[test]
    fn what_all_private_keys_have_in_common_is_no_secret() {
        let first = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ";
        let armour = ["-----BEGIN OPENSSH PRIVATE KEY-----", "-----END OPENSSH PRIVATE KEY-----"];
        let value = format!("{}\n{first}\nAAAAIabcdefghij\n{}", armour[0], armour[1]);
        let key = secrets(&value);
        let texts: Vec<&str> = key.traces().iter().map(|trace| trace.text.as_str()).collect();
        assert!(texts.contains(&"AAAAIabcdefghij") && texts.contains(&value.as_str()), "{texts:?}");
        for line in [armour[0], armour[1], first] {
            assert!(!texts.contains(&line), "{texts:?}");
        }
    }

    #[test]
    fn a_log_keeps_its_length_and_loses_the_value() {
        let dir = tempfile::tempdir().expect("folder");
        let log = dir.path().join("serial.log");
        std::fs::write(&log, "a hunter2hunter2 b hunter2hunter2").expect("written");
        secrets("hunter2hunter2").scrub(&log).expect("scrubbed");
        let text = std::fs::read_to_string(&log).expect("read");
        assert_eq!(text, "a ************** b **************");
    }

    #[test]
    fn what_could_not_be_kept_secret_is_refused() {
        for (value, why) in [("short", "less than 8 bytes"), ("with\ttabs and\r", "control")] {
            assert!(checked(value.to_owned()).expect_err("refused").what().contains(why));
        }
        let e = read(&Secret::Env("DEVBOX_NO_SUCH_VARIABLE".to_owned())).expect_err("absent");
        assert!(e.to_string().contains("hint: Set it"), "{e}");
    }
}
