//! Runs `grub.cfg` as far as the menu depends on it: variables, conditions, `grubenv`, included
//! files, `menuentry`, `submenu`, `blscfg`.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::script::{self, Part, Statement, Word};
use super::{Entry, Files, MAX_ENTRIES, MAX_FILE, bls, environment, join, too_much};
use crate::error::Result;

/// Most statements that one menu may run.
const MAX_STEPS: u32 = 100_000;
/// Deepest call of functions and included files.
const MAX_CALLS: u32 = 16;
/// Longest command after its variables are put in, in bytes: values can be doubled again and again.
const MAX_COMMAND: usize = 8 << 10;
/// Most variables, and most functions.
const MAX_NAMES: usize = 512;

/// The entries of `<dir>/grub.cfg`; none if there is no such file.
pub(super) fn entries(files: &dyn Files, dir: &[u8]) -> Result<Vec<Entry>> {
    let Some(text) = files.read(&join(dir, b"grub.cfg"), MAX_FILE)? else { return Ok(vec![]) };
    let mut run = Run {
        files,
        variables: BTreeMap::new(),
        functions: BTreeMap::new(),
        menu: vec![],
        boot: None,
        steps: 0,
        calls: 0,
        count: 0,
    };
    // What GRUB itself sets before it runs the file (GRUB manual, section "Special environment
    // variables"; `feature_*` in its `normal` module).
    run.set(b"prefix", dir);
    run.set(b"config_directory", dir);
    run.set(b"grub_platform", b"pc");
    for feature in [
        "menuentry_id",
        "menuentry_options",
        "timeout_style",
        "platform_search_hint",
        "default_font_path",
        "200_final",
        "all_video_module",
        "nativedisk_cmd",
        "ntldr",
    ] {
        run.set(format!("feature_{feature}").as_bytes(), b"y");
    }
    run.all(&script::parse(&text)?)?;
    let default = run.get(b"default").to_vec();
    Ok(flatten(run.menu, &default))
}

/// An item of a menu.
struct Item {
    title: Vec<u8>,
    id: Vec<u8>,
    what: What,
}

enum What {
    /// No kernel: firmware setup, a chain loader.
    Other,
    Linux(Boot),
    Submenu(Vec<Item>),
}

/// What the commands inside an entry collected.
#[derive(Default)]
struct Boot {
    kernel: Option<Vec<u8>>,
    initrd: Vec<Vec<u8>>,
    cmdline: Vec<u8>,
}

struct Run<'a> {
    files: &'a dyn Files,
    variables: BTreeMap<Vec<u8>, Vec<u8>>,
    functions: BTreeMap<Vec<u8>, Rc<[Statement]>>,
    menu: Vec<Item>,
    /// Present inside a menu entry.
    boot: Option<Boot>,
    steps: u32,
    calls: u32,
    count: usize,
}

impl Run<'_> {
    fn get(&self, name: &[u8]) -> &[u8] {
        self.variables.get(name).map_or(&[], Vec::as_slice)
    }

    fn set(&mut self, name: &[u8], value: &[u8]) {
        self.variables.insert(name.to_vec(), value.to_vec());
    }

    /// Runs statements; the answer of the last one.
    fn all(&mut self, statements: &[Statement]) -> Result<bool> {
        let mut answer = true;
        for statement in statements {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return Err(too_much("too many statements to run"));
            }
            answer = self.one(statement)?;
        }
        Ok(answer)
    }

    fn one(&mut self, statement: &Statement) -> Result<bool> {
        match statement {
            Statement::Function(name, body) => {
                let name = self.expand(name)?.concat();
                if self.functions.len() >= MAX_NAMES {
                    return Err(too_much("too many functions"));
                }
                self.functions.insert(name, Rc::from(body.as_slice()));
                Ok(true)
            }
            Statement::If(branches) => {
                for (condition, body) in branches {
                    if self.all(condition)? {
                        return self.all(body);
                    }
                }
                Ok(true)
            }
            Statement::Command(words, block) => {
                let mut args = vec![];
                let mut length = 0;
                for word in words {
                    let words = self.expand(word)?;
                    length += words.iter().map(|w| w.len() + 1).sum::<usize>();
                    if length > MAX_COMMAND {
                        return Err(too_much("a command that is too long"));
                    }
                    args.extend(words);
                }
                if self.variables.len() > MAX_NAMES {
                    return Err(too_much("too many variables"));
                }
                self.command(&args, block.as_deref())
            }
        }
    }

    fn expand(&self, word: &Word) -> Result<Vec<Vec<u8>>> {
        let mut out: Vec<Vec<u8>> = vec![];
        // Whether the next piece is glued to the last word.
        let mut open = false;
        for part in word {
            match part {
                Part::Literal(text) => glue(&mut out, &mut open, text),
                Part::Variable { name, quoted: true } => glue(&mut out, &mut open, self.get(name)),
                Part::Variable { name, quoted: false } => {
                    let value = self.get(name);
                    for (n, piece) in value.split(u8::is_ascii_whitespace).enumerate() {
                        open &= n == 0;
                        if !piece.is_empty() {
                            glue(&mut out, &mut open, piece);
                        }
                    }
                }
            }
            if out.iter().map(Vec::len).sum::<usize>() > MAX_COMMAND {
                return Err(too_much("a command that is too long"));
            }
        }
        Ok(out)
    }

    fn command(&mut self, args: &[Vec<u8>], block: Option<&[Statement]>) -> Result<bool> {
        let Some((name, rest)) = args.split_first() else { return Ok(true) };
        match name.as_slice() {
            b"menuentry" | b"submenu" => {
                self.item(name == b"submenu", rest, block.unwrap_or_default())?;
                return Ok(true);
            }
            b"set" => {
                for arg in rest {
                    self.assign(arg);
                }
            }
            b"unset" => {
                for arg in rest {
                    self.variables.remove(arg);
                }
            }
            b"load_env" => return self.load_env(rest),
            b"[" | b"test" => return self.test(rest),
            b"source" | b"." | b"configfile" => return self.include(name, rest),
            b"linux" | b"linux16" | b"linuxefi" => self.linux(rest),
            b"initrd" | b"initrd16" | b"initrdefi" => {
                if let Some(boot) = &mut self.boot {
                    boot.initrd = rest.iter().map(|path| on_this_disk(path)).collect();
                }
            }
            b"blscfg" => self.bls()?,
            b"false" => return Ok(false),
            // What a boot would find out: it has no effect on the menu's text, and is taken to work.
            b"true" | b"insmod" | b"search" | b"export" | b"echo" | b"loadfont" | b"save_env" => {}
            _ => {
                if let Some(body) = self.functions.get(name).cloned() {
                    return self.call(|run| run.all(&body));
                }
                return Ok(self.assign(name));
            }
        }
        Ok(true)
    }

    /// `name=value`; false if it is none.
    fn assign(&mut self, arg: &[u8]) -> bool {
        let Some(at) = arg.iter().position(|&b| b == b'=') else { return false };
        self.set(&arg[..at], &arg[at + 1..]);
        true
    }

    fn call(&mut self, work: impl FnOnce(&mut Self) -> Result<bool>) -> Result<bool> {
        if self.calls >= MAX_CALLS {
            return Err(too_much("calls nested too deep"));
        }
        self.calls += 1;
        let answer = work(self);
        self.calls -= 1;
        answer
    }

    fn load_env(&mut self, args: &[Vec<u8>]) -> Result<bool> {
        let (mut path, mut only) = (join(self.get(b"prefix"), b"grubenv"), vec![]);
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            if let Some(file) = arg.strip_prefix(b"--file=") {
                path = on_this_disk(file);
            } else if matches!(arg.as_slice(), b"-f" | b"--file") {
                path = args.next().map_or(path, |file| on_this_disk(file));
            } else if !arg.starts_with(b"-") {
                only.push(arg);
            }
        }
        let Some(block) = self.files.read(&path, MAX_FILE)? else { return Ok(false) };
        for (name, value) in environment::variables(&block) {
            if only.is_empty() || only.contains(&&name) {
                self.set(&name, &value);
            }
        }
        Ok(true)
    }

    fn include(&mut self, how: &[u8], args: &[Vec<u8>]) -> Result<bool> {
        let Some(path) = args.last() else { return Ok(false) };
        let Some(text) = self.files.read(&on_this_disk(path), MAX_FILE)? else { return Ok(false) };
        if how == b"configfile" {
            self.menu.clear();
        }
        let statements = script::parse(&text)?;
        self.call(|run| run.all(&statements))
    }

    /// An entry's block is run at once, with the variables of this moment. GRUB runs it when the
    /// entry is chosen, after the whole file; no generator of such files depends on that.
    fn item(&mut self, submenu: bool, args: &[Vec<u8>], block: &[Statement]) -> Result<()> {
        self.count += 1;
        if self.count > MAX_ENTRIES {
            return Err(too_much("too many entries"));
        }
        let (mut title, mut id) = (None, None);
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_slice() {
                b"--id" => id = args.next().cloned(),
                b"--class" | b"--users" | b"--hotkey" | b"--source" => {
                    args.next();
                }
                option if option.starts_with(b"--") => {
                    id = option.strip_prefix(b"--id=").map_or(id, |i| Some(i.to_vec()));
                }
                _ => {
                    title.get_or_insert_with(|| arg.clone());
                }
            }
        }
        let title = title.unwrap_or_default();
        let outside = self.variables.clone();
        let what = if submenu {
            let menu = std::mem::take(&mut self.menu);
            self.call(|run| run.all(block))?;
            What::Submenu(std::mem::replace(&mut self.menu, menu))
        } else {
            let boot = self.boot.replace(Boot::default());
            self.call(|run| run.all(block))?;
            match std::mem::replace(&mut self.boot, boot) {
                Some(boot) if boot.kernel.is_some() => What::Linux(boot),
                _ => What::Other,
            }
        };
        self.variables = outside;
        self.menu.push(Item { id: id.unwrap_or_else(|| title.clone()), title, what });
        Ok(())
    }

    fn linux(&mut self, args: &[Vec<u8>]) {
        let Some(boot) = &mut self.boot else { return };
        let Some((kernel, words)) = args.split_first() else { return };
        boot.kernel = Some(on_this_disk(kernel));
        let words: Vec<_> = words.iter().map(|w| kernel_word(w)).collect();
        boot.cmdline = words.join(&b' ');
    }

    /// `blscfg` (Fedora's patch of GRUB): the entries of `loader/entries` beside the menu's own.
    fn bls(&mut self) -> Result<()> {
        let variable = |name: &[u8]| self.get(name).to_vec();
        let prefix = variable(b"prefix");
        let boot = prefix.rsplitn(2, |&b| b == b'/').nth(1).unwrap_or_default();
        for entry in bls::entries(self.files, &join(boot, b"loader"), &variable)? {
            self.count += 1;
            if self.count > MAX_ENTRIES {
                return Err(too_much("too many entries"));
            }
            let boot =
                Boot { kernel: Some(entry.kernel), initrd: entry.initrd, cmdline: entry.cmdline };
            self.menu.push(Item { title: entry.title, id: entry.id, what: What::Linux(boot) });
        }
        Ok(())
    }

    /// `[ … ]` (GRUB manual, section "test"), without parentheses.
    fn test(&self, args: &[Vec<u8>]) -> Result<bool> {
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).filter(|a| *a != b"]").collect();
        for any in args.split(|a| *a == b"-o") {
            let mut all = true;
            for one in any.split(|a| *a == b"-a") {
                all &= self.simple_test(one)?;
            }
            if all {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn simple_test(&self, args: &[&[u8]]) -> Result<bool> {
        let number = |text: &[u8]| -> i64 {
            std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()).unwrap_or(0)
        };
        Ok(match args {
            [b"!", rest @ ..] if !rest.is_empty() => !self.simple_test(rest)?,
            [b"-n", text] => !text.is_empty(),
            [b"-z", text] => text.is_empty(),
            [b"-f", path] => self.files.size(&on_this_disk(path))?.is_some(),
            [b"-s", path] => self.files.size(&on_this_disk(path))?.is_some_and(|n| n > 0),
            [b"-d", path] => !self.files.list(&on_this_disk(path))?.is_empty(),
            [b"-e", path] => {
                let path = on_this_disk(path);
                self.files.size(&path)?.is_some() || !self.files.list(&path)?.is_empty()
            }
            [text] => !text.is_empty(),
            [a, b"=" | b"==", b] => a == b,
            [a, b"!=", b] => a != b,
            [a, b"-eq", b] => number(a) == number(b),
            [a, b"-ne", b] => number(a) != number(b),
            [a, b"-lt", b] => number(a) < number(b),
            [a, b"-le", b] => number(a) <= number(b),
            [a, b"-gt", b] => number(a) > number(b),
            [a, b"-ge", b] => number(a) >= number(b),
            _ => false,
        })
    }
}

fn glue(out: &mut Vec<Vec<u8>>, open: &mut bool, text: &[u8]) {
    match out.last_mut() {
        Some(last) if *open => last.extend_from_slice(text),
        _ => out.push(text.to_vec()),
    }
    *open = true;
}

/// The path without the device in front: `(hd0,gpt2)/vmlinuz`.
fn on_this_disk(path: &[u8]) -> Vec<u8> {
    match (path.first(), path.iter().position(|&b| b == b')')) {
        (Some(b'('), Some(end)) => path[end + 1..].to_vec(),
        _ => path.to_vec(),
    }
}

/// One word of the command line as GRUB hands it to the kernel (`grub_create_loader_cmdline`):
/// in double quotes if it has a blank, with quotes and backslashes escaped.
fn kernel_word(word: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    for &byte in word {
        if matches!(byte, b'\\' | b'\'' | b'"') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    if word.contains(&b' ') {
        out.insert(0, b'"');
        out.push(b'"');
    }
    out
}

/// The menu as a list, with the default one marked.
fn flatten(menu: Vec<Item>, default: &[u8]) -> Vec<Entry> {
    let chosen = choose(&menu, default).unwrap_or_default();
    let mut out = vec![];
    walk(menu, &[], Some(&chosen), &mut out);
    out
}

fn walk(menu: Vec<Item>, above: &[u8], chosen: Option<&[usize]>, out: &mut Vec<Entry>) {
    for (n, item) in menu.into_iter().enumerate() {
        let title = if above.is_empty() { item.title } else { [above, b">", &item.title].concat() };
        let inside = chosen.and_then(|c| c.strip_prefix(&[n]));
        match item.what {
            What::Other => {}
            What::Submenu(menu) => walk(menu, &title, inside, out),
            What::Linux(boot) => out.push(Entry {
                title,
                kernel: boot.kernel.unwrap_or_default(),
                initrd: boot.initrd,
                cmdline: boot.cmdline,
                default: inside.is_some_and(<[usize]>::is_empty),
            }),
        }
    }
}

/// The position of the default entry (GRUB manual, section "default"): a number, a title or an id,
/// with `>` between levels; the first entry where nothing fits.
fn choose(menu: &[Item], default: &[u8]) -> Option<Vec<usize>> {
    let named = |menu: &[Item], name: &[u8]| match std::str::from_utf8(name)
        .ok()
        .and_then(|n| n.parse::<usize>().ok())
    {
        Some(number) => Some(number).filter(|n| *n < menu.len()),
        None => menu.iter().position(|i| i.id == name || i.title == name),
    };
    let (mut position, mut here) = (vec![], menu);
    for name in default.split(|&b| b == b'>') {
        let Some(n) = named(here, name) else { break };
        position.push(n);
        match &here[n].what {
            What::Submenu(items) => here = items,
            _ => return Some(position),
        }
    }
    // A submenu, or nothing: the first entry from here on.
    loop {
        let first = here.first()?;
        position.push(0);
        match &first.what {
            What::Submenu(items) => here = items,
            _ => return Some(position),
        }
    }
}
