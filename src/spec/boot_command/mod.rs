//! What is typed into an installer's boot loader: Packer's grammar of `boot_command`, and `<waitfor "text" 30s>`.
//! Text and tokens become a list of actions; nothing is typed here.

mod keyboard;
#[cfg(test)]
mod tests;
pub mod variables;

use std::time::Duration;

pub use keyboard::Key;
use keyboard::{character, special};

use crate::spec::problem::{nearest, shown};

/// How long `<waitfor "text">` waits when it does not say so itself.
pub const WAIT_FOR: Duration = Duration::from_secs(300);
/// The longest pause: nothing sensible is waited for longer, and sums stay far from any limit.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// The most characters of a token: longer, and a quote or a `>` is missing.
const TOKEN: usize = 512;

/// One thing that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// These keys go down in this order, and up again.
    Tap(Vec<Key>),
    /// These keys go down and stay there.
    Press(Vec<Key>),
    /// These keys go up.
    Release(Vec<Key>),
    /// Nothing is typed for so long.
    Wait(Duration),
    /// Nothing is typed until this text is on the serial console or the screen.
    WaitFor {
        /// The text.
        text: String,
        /// Then it did not come.
        timeout: Duration,
    },
}

/// What is wrong with a command, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Counted in characters, from 1.
    pub at: usize,
    /// A lower-case fragment.
    pub what: String,
    /// What to do, a full sentence.
    pub hint: String,
}

/// The actions of a command, whose variables were replaced. Line breaks, and the blanks that a line begins with, are
/// not typed.
///
/// # Errors
/// A token is not known or not ended, or a character is on no US keyboard: each with its place.
pub fn parse(command: &str) -> Result<Vec<Action>, Vec<Fault>> {
    let (mut actions, mut faults) = (vec![], vec![]);
    let chars: Vec<char> = command.chars().collect();
    let (mut at, mut line_begins) = (0, false);
    while let Some(&c) = chars.get(at) {
        let here = at;
        at += 1;
        match c {
            '\n' | '\r' => {
                line_begins = true;
                continue;
            }
            ' ' | '\t' if line_begins => continue,
            '<' if chars.get(at).is_some_and(char::is_ascii_alphanumeric) => {
                match token(&chars[at..]) {
                    Some((text, length)) => {
                        at += length;
                        match action(&text) {
                            Ok(action) => actions.push(action),
                            Err((what, hint)) => faults.push(Fault { at: here + 1, what, hint }),
                        }
                    }
                    None => {
                        let what = "a `<` begins a token that no `>` ends".to_owned();
                        let hint = "Add the `>`; a `<` that is meant to be typed is `<lt>`.";
                        faults.push(Fault { at: here + 1, what, hint: hint.to_owned() });
                    }
                }
            }
            c => match character(c) {
                Some(keys) => actions.push(Action::Tap(keys)),
                None => {
                    let what = format!("`{}` is on no US keyboard", shown(&c.to_string()));
                    let hint = "Write it in another way: only printable ASCII can be typed.";
                    faults.push(Fault { at: here + 1, what, hint: hint.to_owned() });
                }
            },
        }
        line_begins = false;
    }
    if faults.is_empty() { Ok(actions) } else { Err(faults) }
}

/// What stands before the next `>` that is in no quotes, and the characters that it takes with the `>`.
fn token(chars: &[char]) -> Option<(String, usize)> {
    let (mut text, mut quoted, mut escaped) = (String::new(), false, false);
    for (n, &c) in chars.iter().enumerate().take(TOKEN) {
        match c {
            '>' if !quoted => return Some((text, n + 1)),
            '"' if !escaped => quoted = !quoted,
            '\n' if !quoted => return None,
            _ => {}
        }
        escaped = quoted && c == '\\' && !escaped;
        text.push(c);
    }
    None
}

type Wrong = (String, String);

fn action(token: &str) -> Result<Action, Wrong> {
    let lower = token.to_ascii_lowercase();
    if let Some(rest) = lower.strip_prefix("waitfor") {
        return wait_for(&token[token.len() - rest.len()..], token);
    }
    if let Some(rest) = lower.strip_prefix("wait") {
        return pause(rest, token).map(Action::Wait);
    }
    if let Some(keys) = special(&lower) {
        return Ok(Action::Tap(keys));
    }
    for (ending, held) in [("on", true), ("off", false)] {
        let Some(name) = lower.strip_suffix(ending) else { continue };
        // A single character is itself, in the case that it has.
        let mut letters = token[..name.len()].chars();
        let single = letters.next().filter(|_| letters.next().is_none());
        if let Some(keys) = special(name).or_else(|| single.and_then(character)) {
            return Ok(if held { Action::Press(keys) } else { Action::Release(keys) });
        }
    }
    let known = keyboard::names().chain(["wait", "waitfor"]);
    let hint = match nearest(&lower, known) {
        Some(meant) => format!("Did you mean `<{meant}>`?"),
        None => "Write a `<` that is meant to be typed as `<lt>`.".to_owned(),
    };
    Err((format!("there is no key `<{}>`", shown(token)), hint))
}

/// The pause of `<wait>`, `<wait5>` and `<wait1m30s>`: seconds, or a duration as Go writes it.
fn pause(text: &str, token: &str) -> Result<Duration, Wrong> {
    let wrong = || {
        let what = format!("`<{}>` says no pause", shown(token));
        (what, "Write `<wait>`, `<wait10>` for seconds, or `<wait1m30s>`.".to_owned())
    };
    if text.is_empty() {
        return Ok(Duration::from_secs(1));
    }
    let pause = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => go_duration(text).ok_or_else(wrong)?,
    };
    if pause > LONGEST { Err(wrong()) } else { Ok(pause) }
}

/// A duration as Go's `time.ParseDuration` takes it, without a sign: `1m30s`, `1.5h`, `300ms`.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        sum += number.parse::<f64>().ok()? * seconds;
        rest = after;
    }
    Duration::try_from_secs_f64(sum).ok()
}

/// ` "text"` or ` "text" 30s`.
fn wait_for(rest: &str, token: &str) -> Result<Action, Wrong> {
    let wrong = || {
        let what = format!("`<{}>` names no text", shown(token));
        (what, "Write `<waitfor \"boot:\">` or `<waitfor \"boot:\" 60s>`.".to_owned())
    };
    let mut chars = rest.trim_start().chars();
    if chars.next() != Some('"') {
        return Err(wrong());
    }
    let mut text = String::new();
    loop {
        match chars.next() {
            Some('"') => break,
            Some('\\') => text.push(chars.next().ok_or_else(wrong)?),
            Some(c) => text.push(c),
            None => return Err(wrong()),
        }
    }
    let timeout = match chars.as_str().trim() {
        "" => WAIT_FOR,
        word => pause(&word.to_ascii_lowercase(), token)?,
    };
    if text.trim().is_empty() || timeout.is_zero() {
        Err(wrong())
    } else {
        Ok(Action::WaitFor { text, timeout })
    }
}
