//! Unified diffs, as `patch` and `git apply` take them.

use std::fmt::Write as _;

/// Lines around a change.
const CONTEXT: usize = 3;
/// Texts with more lines are shown as replaced: the table of what they share would be large.
const LONGEST: usize = 4000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Same,
    Old,
    New,
}

/// The difference of two texts at `path`; empty if there is none. No old text: a new file.
pub(super) fn unified(path: &str, old: Option<&str>, new: &str) -> String {
    if old == Some(new) {
        return String::new();
    }
    let from = old.map_or_else(|| "/dev/null".to_owned(), |_| format!("a/{path}"));
    let mut out = format!("--- {from}\n+++ b/{path}\n");
    let a: Vec<&str> = old.unwrap_or("").split_inclusive('\n').collect();
    let b: Vec<&str> = new.split_inclusive('\n').collect();
    let steps = steps(&a, &b);
    // Each change with what is around it; those that meet are one hunk.
    let mut at = 0;
    while let Some(first) = (at..steps.len()).find(|i| steps[*i] != Step::Same) {
        let start = first.saturating_sub(CONTEXT).max(at);
        let mut end = first + 1;
        while let Some(next) =
            (end..steps.len().min(end + 2 * CONTEXT + 1)).find(|i| steps[*i] != Step::Same)
        {
            end = next + 1;
        }
        let end = (end + CONTEXT).min(steps.len());
        let count = |steps: &[Step], but: Step| steps.iter().filter(|step| **step != but).count();
        let (x, y) = (count(&steps[..start], Step::New), count(&steps[..start], Step::Old));
        let (m, n) = (count(&steps[start..end], Step::New), count(&steps[start..end], Step::Old));
        // An empty side names the line before it.
        let line = |at: usize, count: usize| at + usize::from(count > 0);
        let _ = writeln!(out, "@@ -{},{m} +{},{n} @@", line(x, m), line(y, n));
        let (mut x, mut y) = (x, y);
        for step in &steps[start..end] {
            let (mark, text) = match step {
                Step::Same => (' ', a[x]),
                Step::Old => ('-', a[x]),
                Step::New => ('+', b[y]),
            };
            x += usize::from(*step != Step::New);
            y += usize::from(*step != Step::Old);
            out.push(mark);
            out.push_str(text);
            if !text.ends_with('\n') {
                out.push_str("\n\\ No newline at end of file\n");
            }
        }
        at = end;
    }
    out
}

/// The longest common subsequence of lines, and what is around it.
fn steps(a: &[&str], b: &[&str]) -> Vec<Step> {
    if a.len() > LONGEST || b.len() > LONGEST {
        return [vec![Step::Old; a.len()], vec![Step::New; b.len()]].concat();
    }
    let width = b.len() + 1;
    let mut longest = vec![0u32; (a.len() + 1) * width];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            longest[i * width + j] = match a[i] == b[j] {
                true => longest[(i + 1) * width + j + 1] + 1,
                false => longest[(i + 1) * width + j].max(longest[i * width + j + 1]),
            };
        }
    }
    let (mut i, mut j, mut steps) = (0, 0, vec![]);
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            (i, j) = (i + 1, j + 1);
            steps.push(Step::Same);
        } else if i < a.len()
            && (j == b.len() || longest[(i + 1) * width + j] >= longest[i * width + j + 1])
        {
            i += 1;
            steps.push(Step::Old);
        } else {
            j += 1;
            steps.push(Step::New);
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_shown_with_what_is_around_it() {
        let old = "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n13\n";
        let new = "1\n2\n3\n4\nfive\n6\n7\n8\n9\n10\n11\n12\n13\n14";
        assert_eq!(
            unified("x", Some(old), new),
            "--- a/x\n+++ b/x\n@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n\
             @@ -11,3 +11,4 @@\n 11\n 12\n 13\n+14\n\\ No newline at end of file\n"
        );
        assert_eq!(unified("n", None, "a\n"), "--- /dev/null\n+++ b/n\n@@ -0,0 +1,1 @@\n+a\n");
        assert_eq!(unified("x", Some(old), old), "");
    }

    #[test]
    fn patch_makes_the_new_text_of_it() {
        let folder = tempfile::tempdir().expect("a folder");
        if which::which("patch").is_err() {
            return;
        }
        let mut state = 7u64;
        let mut next = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % bound
        };
        for _ in 0..60 {
            let old: Vec<String> = (0..next(40)).map(|_| format!("line {}\n", next(9))).collect();
            let mut new = old.clone();
            for _ in 0..next(6) {
                let at = next(new.len() as u64 + 1) as usize;
                if next(2) == 0 || at == new.len() {
                    new.insert(at, format!("new {}\n", next(9)));
                } else {
                    new.remove(at);
                }
            }
            let (old, new) = (old.concat(), new.concat());
            if old == new || old.is_empty() || new.is_empty() {
                continue;
            }
            std::fs::write(folder.path().join("x"), &old).expect("written");
            std::fs::write(folder.path().join("d"), unified("x", Some(&old), &new))
                .expect("written");
            let done = std::process::Command::new("patch")
                .args(["-s", "-p1", "-i", "d"])
                .current_dir(folder.path())
                .status();
            assert!(done.expect("patch runs").success());
            assert_eq!(std::fs::read_to_string(folder.path().join("x")).expect("read"), new);
        }
    }
}
