//! Lines of text without what could be a secret in them: the value of a name that says so, the user of an
//! address, a token of a known service, a long run of letters and digits, the hash of a password.
//!
//! Where a value ends is not known of a text whose language is not known; so it ends late: with its quotes if it has
//! any, with the line if the name begins the line, and some lines later if it is a block or not closed.

use super::REDACTED;

/// Words in the name of what is given a value that is a secret.
const NAMES: [&str; 12] = [
    "pass",
    "passwd",
    "pwd",
    "secret",
    "token",
    "apikey",
    "api_key",
    "api-key",
    "credential",
    "private",
    "authorization",
    "bearer",
];
/// Names that say so and are none: login.defs(5), sudoers(5).
const PLAIN_NAMES: [&str; 6] =
    ["PASS_MAX_DAYS", "PASS_MIN_DAYS", "PASS_MIN_LEN", "PASS_WARN_AGE", "NOPASSWD", "PASSWD"];
/// Values that are switches, whatever their names say.
const PLAIN_VALUES: [&str; 10] =
    ["yes", "no", "true", "false", "on", "off", "null", "none", "0", "1"];
/// Where names are looked up (nsswitch.conf(5)): `passwd: files systemd`.
const NAME_SERVICES: [&str; 9] =
    ["files", "systemd", "compat", "sss", "ldap", "winbind", "nis", "db", "extrausers"];
/// How tokens of well-known services begin, each long enough to be nothing else wherever it stands.
pub const TOKENS: [&str; 18] = [
    "AKIA",
    "ASIA",
    "AIza",
    "ghp_",
    "gho_",
    "ghs_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "sk_live_",
    "rk_live_",
    "npm_",
    "pypi-AgE",
    "hvs.",
    "dop_v1_",
    "eyJhbGciOi",
    "SG.",
];
/// The same where a word begins with it.
const BEGINNINGS: [&str; 2] = ["sk-", "eyJ"];
/// A run of letters and digits this long is no word.
const LONG: usize = 24;

/// What the value of a secret asks of the next line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    /// Nothing.
    No,
    /// It goes on to this quote.
    Quote(Quote),
    /// The line ended with `\`.
    Continued,
    /// It is all that is indented further than this: a block of YAML, a continued setting.
    Block(usize),
}

/// A quote, perhaps with a `\` in front, as in a text within a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Quote {
    sign: char,
    escaped: bool,
}

/// Each line of a text as it may be shown.
#[must_use]
pub fn lines(text: &str) -> Vec<String> {
    let mut open = Open::No;
    text.lines()
        .map(|line| {
            let (shown, next) = after(open, line);
            open = next;
            shown
        })
        .collect()
}

/// A line as it may be shown.
#[must_use]
pub fn line(text: &str) -> String {
    scan(text, 0).0
}

/// The words of a command line; what stands in quotes is one.
#[must_use]
pub fn split(text: &str) -> Vec<&str> {
    let mut words = vec![];
    let mut start = None;
    let mut quote = None;
    for (at, c) in text.char_indices() {
        if quote.is_none() && c.is_whitespace() {
            words.extend(start.take().map(|start| &text[start..at]));
            continue;
        }
        start = start.or(Some(at));
        match quote {
            None if matches!(c, '"' | '\'') => quote = Some(c),
            Some(open) if open == c => quote = None,
            _ => {}
        }
    }
    words.extend(start.map(|start| &text[start..]));
    words
}

/// A line that follows what is open.
fn after(open: Open, text: &str) -> (String, Open) {
    let ends = |text: &str| if text.ends_with('\\') { Open::Continued } else { Open::No };
    match open {
        Open::No => scan(text, 0),
        Open::Continued => (REDACTED.to_owned(), ends(text)),
        Open::Quote(quote) => match closing(text, quote) {
            Some(end) => {
                let (rest, next) = scan(text, end);
                (format!("{REDACTED}{rest}"), next)
            }
            None => (REDACTED.to_owned(), open),
        },
        Open::Block(_) if text.trim().is_empty() => (text.to_owned(), open),
        Open::Block(indent) if indentation(text) > indent => {
            (format!("{}{REDACTED}", &text[..indentation(text)]), open)
        }
        Open::Block(_) => scan(text, 0),
    }
}

/// The rest of a line from `at`, without its secrets.
fn scan(text: &str, mut at: usize) -> (String, Open) {
    let mut out = String::with_capacity(text.len());
    let is_pam = is_pam(text);
    while at < text.len() {
        let rest = &text[at..];
        let blank = rest.find(|c| !is_blank(c)).unwrap_or(rest.len());
        out.push_str(&rest[..blank]);
        at += blank;
        let rest = &text[at..];
        let word = &rest[..rest.find(is_blank).unwrap_or(rest.len())];
        let start = if is_pam { None } else { value_of(text, at, word) };
        let Some(start) = start else {
            out.push_str(&one_word(word));
            at += word.len();
            continue;
        };
        // A secret begins at `start`, whose name began at `at`.
        let Some((end, open)) = end_of(text, at, start) else {
            // A switch is a word like any other.
            out.push_str(&text[at..start]);
            at = start;
            continue;
        };
        out.push_str(&text[at..start]);
        if start < end {
            out.push_str(REDACTED);
        }
        if open != Open::No {
            return (out, open);
        }
        at = end;
    }
    (out, Open::No)
}

fn is_blank(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | ',' | ';' | '`')
}

fn indentation(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

/// Where the value begins, if the word at `at` is the name of a secret.
fn value_of(text: &str, at: usize, word: &str) -> Option<usize> {
    if word.contains("://") {
        return None;
    }
    let sign = word.find(['=', ':']);
    let name = &word[..sign.unwrap_or(word.len())];
    if !says_secret(name) || sign.is_none() && word.contains('/') {
        return None;
    }
    let mut start = at + name.len();
    // `name = value`, `"name": "value"`, `name=value`, `name value`.
    let is_between = |c: char| is_blank(c) || matches!(c, '=' | ':' | '>');
    let rest = &text[start..];
    start += rest.find(|c| !is_between(c)).unwrap_or(rest.len());
    Some(start)
}

/// Where the value that begins at `start` ends, and what it asks of the next line; `None` if it is a switch. Its name
/// begins at `name`.
fn end_of(text: &str, name: usize, start: usize) -> Option<(usize, Open)> {
    let value = &text[start..];
    // A comment asks nothing of the lines below it.
    let is_comment = text.trim_start().starts_with(['#', ';']);
    let open = |open: Open| if is_comment { Open::No } else { open };
    let flat = value.trim_end_matches(|c: char| is_blank(c) || matches!(c, '}' | ']' | ')'));
    if flat.is_empty() || is_block(flat) {
        return Some((text.len(), open(Open::Block(indentation(text)))));
    }
    let first = flat.split(is_blank).next().unwrap_or_default();
    let services = |word: &str| NAME_SERVICES.contains(&word) || word.starts_with('[');
    if PLAIN_VALUES.contains(&first.to_ascii_lowercase().as_str())
        || text.starts_with("passwd:") && flat.split_whitespace().all(services)
    {
        return None;
    }
    if let Some(quote) = quoted(&text[..start]) {
        return Some(match closing(value, quote) {
            Some(end) => (start + end, Open::No),
            None => (text.len(), open(Open::Quote(quote))),
        });
    }
    let glued = text[name..start].contains('=') && !text[name..start].contains(char::is_whitespace);
    if glued && !begins_line(&text[..name]) {
        let end = unescaped(value, char::is_whitespace).unwrap_or(value.len());
        return Some((start + end, Open::No));
    }
    Some((text.len(), open(if value.ends_with('\\') { Open::Continued } else { Open::No })))
}

/// The quote in which a text ends, the outer one of two.
fn quoted(text: &str) -> Option<Quote> {
    let mut open: Option<Quote> = None;
    let mut before = ' ';
    let mut rest = text.chars().peekable();
    while let Some(sign) = rest.next() {
        let is_apostrophe = sign == '\''
            && before.is_alphanumeric()
            && rest.peek().is_some_and(|c| c.is_alphanumeric());
        if matches!(sign, '"' | '\'') && !is_apostrophe {
            let quote = Quote { sign, escaped: before == '\\' };
            match open {
                None => open = Some(quote),
                Some(begun) if begun == quote => open = None,
                Some(_) => {}
            }
        }
        before = sign;
    }
    open
}

/// Whether nothing of weight stands in front of a name.
fn begins_line(before: &str) -> bool {
    before.split_whitespace().all(|word| matches!(word, "export" | "set" | "-" | "#" | ";"))
}

/// The header of a block of text (YAML 1.2.2, section 8.1.1), or an opened list.
fn is_block(value: &str) -> bool {
    let mut chars = value.chars();
    matches!(chars.next(), Some('|' | '>' | '[' | '{' | '('))
        && chars.all(|c| c.is_ascii_digit() || matches!(c, '+' | '-' | '\\'))
}

/// The first place of a character that no `\` stands in front of.
fn unescaped(text: &str, is: impl Fn(char) -> bool) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if !escaped && is(c) {
            return Some(at);
        }
        escaped = c == '\\' && !escaped;
    }
    None
}

fn closing(text: &str, quote: Quote) -> Option<usize> {
    if quote.escaped {
        return text.find(['\\', quote.sign].iter().collect::<String>().as_str());
    }
    unescaped(text, |c| c == quote.sign)
}

/// A word that no name of a secret opens.
fn one_word(word: &str) -> String {
    if let Some((scheme, rest)) = word.split_once("://")
        && let Some((user, host)) = rest.rsplit_once('@')
        && !user.contains('/')
    {
        return format!("{scheme}://{REDACTED}@{host}");
    }
    if let Some(at) = word.find(['=', ':']) {
        let (name, value) = (&word[..at], &word[at + 1..]);
        if is_token(value) || value.split([':', '=', '/']).any(is_token) {
            return format!("{name}{}{REDACTED}", &word[at..=at]);
        }
    }
    if is_token(word) { REDACTED.to_owned() } else { word.to_owned() }
}

/// Whether it is a rule of PAM, whose types are named as secrets are (pam.conf(5)).
fn is_pam(text: &str) -> bool {
    let mut words = text.split_ascii_whitespace();
    let kind = words.next().unwrap_or_default().trim_start_matches('-');
    let control = words.next().unwrap_or_default();
    let known = matches!(control, "required" | "requisite" | "sufficient" | "optional");
    matches!(kind, "account" | "auth" | "password" | "session")
        && (known || control.starts_with('['))
        && words.any(|word| word.starts_with("pam_"))
        && !text.contains("pass=")
}

fn says_secret(name: &str) -> bool {
    if PLAIN_NAMES.contains(&name) {
        return false;
    }
    // The last part of a path or of a dotted or dashed name counts as much as the first.
    let name = name.to_ascii_lowercase();
    let parts = || name.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-');
    let name_of_file = name.contains('/');
    !name_of_file
        && (parts().any(|part| NAMES.iter().any(|word| part.contains(word)))
            || parts().any(|part| {
                matches!(part, "key" | "auth") || part.ends_with("_key") || part.ends_with("-key")
            }))
}

/// Whether it is like a token: of a known form, or long with letters and digits in it.
fn is_token(word: &str) -> bool {
    // An identity of a filesystem or a partition, after its tag.
    if is_uuid(word.rsplit('=').next().unwrap_or(word)) {
        return false;
    }
    let known = TOKENS
        .iter()
        .chain(&BEGINNINGS)
        .any(|start| word.starts_with(start) && word.len() >= start.len() + 8);
    // crypt(5): `$6$salt$hash`.
    let hashed = word.starts_with('$') && word.matches('$').count() >= 3;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '_' | '=' | '-');
    let digits = word.chars().filter(char::is_ascii_digit).count();
    let letters = word.chars().filter(char::is_ascii_alphabetic).count();
    let is_path =
        word.contains('/') && !word.contains('+') && word.split('/').all(|p| p.len() < LONG);
    let words = word.split(['-', '_']).count() > 3 && word.split(['-', '_']).all(|p| p.len() < 13);
    let long = word.len() >= LONG
        && word.chars().all(plain)
        && digits >= 3
        && letters >= 3
        && !is_path
        && !words;
    known || hashed || long
}

/// Whether it has the form of a UUID (RFC 9562, section 4).
fn is_uuid(word: &str) -> bool {
    let lengths: Vec<_> = word.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && word.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_shown_without_its_secrets() {
        for (text, shown) in [
            // Up to the end of the line where the name begins it: the value may have blanks.
            ("DB_PASSWORD=hunter2 PORT=80", "DB_PASSWORD=(redacted)"),
            ("export DB_PASSWORD=correct horse", "export DB_PASSWORD=(redacted)"),
            ("linux /vmlinuz luks.password=a\\ b ro", "linux /vmlinuz luks.password=(redacted) ro"),
            ("password: \"hunter2\"", "password: \"(redacted)\""),
            ("password = \"correct horse \\\" battery\" # x", "password = \"(redacted)\" # x"),
            ("password = correct horse", "password = (redacted)"),
            ("ro \\\"luks.password=a b\\\" quiet", "ro \\\"luks.password=(redacted)\\\" quiet"),
            ("token = abc", "token = (redacted)"),
            ("requirepass hunter2", "requirepass (redacted)"),
            (
                "{\"password\": \"a b\", \"user\": \"bob\"}",
                "{\"password\": \"(redacted)\", \"user\": \"bob\"}",
            ),
            ("'password' => 'a b',", "'password' => '(redacted)',"),
            ("Authorization: Bearer abc def", "Authorization: (redacted)"),
            ("url=https://me:pw@example.org/x", "url=https://(redacted)@example.org/x"),
            ("url=https://me:p@w@example.org/x", "url=https://(redacted)@example.org/x"),
            (
                "deb https://user:pw@mirror/debian x main",
                "deb https://(redacted)@mirror/debian x main",
            ),
            ("x ghp_0123456789abcdef y", "x (redacted) y"),
            ("root:$6$salt$abcdef:1:", "root:(redacted)"),
            (
                "Environment=\"API_KEY=abc def\" \"PORT=80\"",
                "Environment=\"API_KEY=(redacted)\" \"PORT=80\"",
            ),
            ("id 0123456789abcdef0123456789abcdef", "id (redacted)"),
            ("auth required pam_mysql.so user=a pass=b", "auth (redacted)"),
        ] {
            assert_eq!(line(text), shown);
        }
        for text in [
            "dev ALL=(ALL) NOPASSWD:ALL",
            "dev ALL=(ALL) NOPASSWD: ALL",
            "deb http://deb.example.org/debian bookworm-security main",
            "ro console=ttyS0,115200 root=/dev/vda1",
            "ExecStart=/usr/bin/python3 -m http.server 8000",
            "UUID=",
            "root=UUID=ae799e22-d363-8f40-b0b8-59bf138b4e11 ro",
            "auth sufficient pam_permit.so",
            "password [success=1 default=ignore] pam_unix.so obscure yescrypt",
            "PasswordAuthentication no",
            "PASS_MAX_DAYS\t99999",
            "passwd:         files systemd",
        ] {
            assert_eq!(line(text), text);
        }
    }

    #[test]
    fn a_value_of_several_lines_is_hidden_to_its_end() {
        for (text, shown) in [
            ("password: |\n  one\n\n  two\nport: 1", "password: ~  ~~  ~port: 1"),
            ("tokens:\n  - one\nport: 1", "tokens:~  ~port: 1"),
            ("password =\n  one\nport = 1", "password =~  ~port = 1"),
            ("secret=\"one\ntwo\" port=1\nx", "secret=\"~\" port=1~x"),
            ("password=one \\\n  two\nx", "password=~~x"),
            ("# It's the password \"\nport = 1", "# It's the password \"~port = 1"),
        ] {
            let all = lines(text).join("~").replace(REDACTED, "");
            assert_eq!(all, shown, "{text:?}");
            assert!(!all.contains("one") && !all.contains("two"), "{all}");
        }
    }

    #[test]
    fn words_in_quotes_are_one() {
        assert_eq!(split(" a  b=\"c d\" 'e f'g "), ["a", "b=\"c d\"", "'e f'g"]);
    }

    proptest::proptest! {
        /// A planted value is never shown, whatever stands around it.
        #[test]
        fn no_planted_value_is_shown(
            before in "[ -~]{0,12}",
            name in "(db_|my\\.|)(password|secret|api_key|token)",
            sign in "(=| = |: |:|\": \"|=\"| \"|='| )",
            after in "[ -~]{0,12}",
        ) {
            let text = format!("{before} {name}{sign}Zq7 planted9 {after}");
            let shown = line(&text);
            // The name has to be a word of its own, and what stands before must not be a value or a rule itself.
            proptest::prop_assert!(!shown.contains("Zq7"), "{text:?} -> {shown:?}");
        }

        /// Whatever the text, it ends, and with as many lines.
        #[test]
        fn any_text_is_read_to_its_end(text in "[ -~\n\\\\\"'|:=]{0,200}") {
            proptest::prop_assert_eq!(lines(&text).len(), text.lines().count());
        }
    }
}
