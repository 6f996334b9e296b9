//! The US keyboard, by the names that QEMU gives its keys (`QKeyCode` in qapi/ui.json).

/// A key, by QEMU's name.
pub type Key = &'static str;

/// Packer's names of keys, in lower case.
const SPECIAL: &[(&str, Key)] = &[
    ("bs", "backspace"),
    ("del", "delete"),
    ("enter", "ret"),
    ("return", "ret"),
    ("esc", "esc"),
    ("f1", "f1"),
    ("f2", "f2"),
    ("f3", "f3"),
    ("f4", "f4"),
    ("f5", "f5"),
    ("f6", "f6"),
    ("f7", "f7"),
    ("f8", "f8"),
    ("f9", "f9"),
    ("f10", "f10"),
    ("f11", "f11"),
    ("f12", "f12"),
    ("tab", "tab"),
    ("up", "up"),
    ("down", "down"),
    ("left", "left"),
    ("right", "right"),
    ("spacebar", "spc"),
    ("insert", "insert"),
    ("home", "home"),
    ("end", "end"),
    ("pageup", "pgup"),
    ("pagedown", "pgdn"),
    ("menu", "menu"),
    ("leftalt", "alt"),
    ("rightalt", "alt_r"),
    ("leftctrl", "ctrl"),
    ("rightctrl", "ctrl_r"),
    ("leftshift", "shift"),
    ("rightshift", "shift_r"),
    ("leftsuper", "meta_l"),
    ("rightsuper", "meta_r"),
    ("leftcommand", "meta_l"),
    ("rightcommand", "meta_r"),
    ("leftoption", "alt"),
    ("rightoption", "alt_r"),
];

/// Each key with what it types alone and with shift.
const PRINTED: &[(Key, char, char)] = &[
    ("grave_accent", '`', '~'),
    ("1", '1', '!'),
    ("2", '2', '@'),
    ("3", '3', '#'),
    ("4", '4', '$'),
    ("5", '5', '%'),
    ("6", '6', '^'),
    ("7", '7', '&'),
    ("8", '8', '*'),
    ("9", '9', '('),
    ("0", '0', ')'),
    ("minus", '-', '_'),
    ("equal", '=', '+'),
    ("q", 'q', 'Q'),
    ("w", 'w', 'W'),
    ("e", 'e', 'E'),
    ("r", 'r', 'R'),
    ("t", 't', 'T'),
    ("y", 'y', 'Y'),
    ("u", 'u', 'U'),
    ("i", 'i', 'I'),
    ("o", 'o', 'O'),
    ("p", 'p', 'P'),
    ("bracket_left", '[', '{'),
    ("bracket_right", ']', '}'),
    ("backslash", '\\', '|'),
    ("a", 'a', 'A'),
    ("s", 's', 'S'),
    ("d", 'd', 'D'),
    ("f", 'f', 'F'),
    ("g", 'g', 'G'),
    ("h", 'h', 'H'),
    ("j", 'j', 'J'),
    ("k", 'k', 'K'),
    ("l", 'l', 'L'),
    ("semicolon", ';', ':'),
    ("apostrophe", '\'', '"'),
    ("z", 'z', 'Z'),
    ("x", 'x', 'X'),
    ("c", 'c', 'C'),
    ("v", 'v', 'V'),
    ("b", 'b', 'B'),
    ("n", 'n', 'N'),
    ("m", 'm', 'M'),
    ("comma", ',', '<'),
    ("dot", '.', '>'),
    ("slash", '/', '?'),
];

/// The key of this name in lower case. `lt` is ours: the character that tokens begin with.
pub(super) fn special(name: &str) -> Option<Vec<Key>> {
    if name == "lt" {
        return character('<');
    }
    SPECIAL.iter().find(|(known, _)| *known == name).map(|(_, key)| vec![*key])
}

/// All names that [`special`] knows.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    SPECIAL.iter().map(|(name, _)| *name).chain(["lt"])
}

/// The keys that type a character.
pub(super) fn character(c: char) -> Option<Vec<Key>> {
    match c {
        ' ' => return Some(vec!["spc"]),
        '\t' => return Some(vec!["tab"]),
        _ => {}
    }
    PRINTED.iter().find_map(|&(key, plain, shifted)| match c {
        c if c == plain => Some(vec![key]),
        c if c == shifted => Some(vec!["shift", key]),
        _ => None,
    })
}
