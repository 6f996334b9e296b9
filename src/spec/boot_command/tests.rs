use super::*;

fn taps(text: &str) -> Vec<Vec<Key>> {
    let actions = parse(text).expect("valid");
    actions
        .into_iter()
        .map(|action| match action {
            Action::Tap(keys) => keys,
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn every_printable_character_has_its_keys() {
    for c in ' '..='~' {
        let keys = taps(&c.to_string());
        assert_eq!(keys.len(), 1, "{c:?}");
        let shifted = c.is_ascii_uppercase() || "~!@#$%^&*()_+{}|:\"<>?".contains(c);
        assert_eq!(keys[0].len() == 2, shifted, "{c:?}");
    }
    assert_eq!(taps("aB<enter>"), [vec!["a"], vec!["shift", "b"], vec!["ret"]]);
    assert_eq!(
        taps("< 1<lt>a>"),
        [
            vec!["shift", "comma"],
            vec!["spc"],
            vec!["1"],
            vec!["shift", "comma"],
            vec!["a"],
            vec!["shift", "dot"]
        ]
    );
}

#[test]
fn every_key_of_packer_has_a_name_in_any_case_and_can_be_held() {
    for name in keyboard::names() {
        let keys = special(name).expect("known");
        for spelling in [name.to_owned(), name.to_uppercase()] {
            assert_eq!(parse(&format!("<{spelling}>")), Ok(vec![Action::Tap(keys.clone())]));
            let held = parse(&format!("<{spelling}On><{spelling}Off>"));
            let both = vec![Action::Press(keys.clone()), Action::Release(keys.clone())];
            assert_eq!(held, Ok(both), "{spelling}");
        }
    }
    assert_eq!(
        parse("<leftCtrlOn><aOn><aOff><BOn><leftCtrlOff>"),
        Ok(vec![
            Action::Press(vec!["ctrl"]),
            Action::Press(vec!["a"]),
            Action::Release(vec!["a"]),
            Action::Press(vec!["shift", "b"]),
            Action::Release(vec!["ctrl"]),
        ])
    );
}

#[test]
fn pauses_are_seconds_or_durations_of_go() {
    let seconds = |s| Ok(vec![Action::Wait(Duration::from_secs(s))]);
    assert_eq!(parse("<wait>"), seconds(1));
    assert_eq!(parse("<wait15>"), seconds(15));
    assert_eq!(parse("<WAIT1m20s>"), seconds(80));
    assert_eq!(parse("<wait1.5h>"), seconds(5400));
    assert_eq!(parse("<wait250ms>"), Ok(vec![Action::Wait(Duration::from_millis(250))]));
    for bad in ["<waits>", "<wait1d>", "<wait5m3>", "<wait99999h>", "<wait18446744073709551615>"] {
        let faults = parse(bad).expect_err(bad);
        assert!(faults[0].what.contains("says no pause"), "{faults:?}");
    }
}

#[test]
fn a_text_is_waited_for_with_a_deadline() {
    let wait = |text: &str, timeout| {
        Ok(vec![Action::WaitFor { text: text.to_owned(), timeout: Duration::from_secs(timeout) }])
    };
    assert_eq!(parse("<waitfor \"boot: \">"), wait("boot: ", 300));
    assert_eq!(parse("<waitFor \"a > \\\"b\\\"\" 90>"), wait("a > \"b\"", 90));
    assert_eq!(parse("<waitfor \"Login\" 2m>"), wait("Login", 120));
    for bad in [
        "<waitfor>",
        "<waitfor boot:>",
        "<waitfor \"\">",
        "<waitfor \"a\" soon>",
        "<waitfor \"a\" 0s>",
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn lines_are_joined_and_their_indent_is_not_typed() {
    assert_eq!(taps("a\n  b \n\tc"), [["a"], ["b"], ["spc"], ["c"]]);
}

#[test]
fn every_fault_is_told_with_its_place() {
    let faults = parse("ab<entre>ü<wait").expect_err("faults");
    let shown: Vec<_> = faults.iter().map(|f| (f.at, f.what.as_str(), f.hint.as_str())).collect();
    assert_eq!(
        shown,
        [
            (3, "there is no key `<entre>`", "Did you mean `<enter>`?"),
            (
                10,
                "`ü` is on no US keyboard",
                "Write it in another way: only printable ASCII can be typed."
            ),
            (
                11,
                "a `<` begins a token that no `>` ends",
                "Add the `>`; a `<` that is meant to be typed is `<lt>`."
            ),
        ]
    );
}
