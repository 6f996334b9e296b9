//! Work on several machines at once, in an order: each begins when those that it comes after have
//! ended well.

use futures_util::future::join_all;
use tokio::sync::watch;

use crate::error::{Error, Kind, Result};

/// One piece of work.
#[derive(Debug)]
pub(super) struct Node<T> {
    /// The machine.
    pub(super) name: String,
    /// The machines whose work comes first; others than the nodes' names count for nothing. The
    /// nodes make no cycle, which the spec makes sure of.
    pub(super) after: Vec<String>,
    /// What the work is given.
    pub(super) item: T,
}

/// How one piece of work ended.
#[derive(Debug)]
pub(super) enum End<U> {
    /// Well.
    Done(U),
    /// It failed.
    Failed(Error),
    /// It was not begun, since the work on this machine did not end well.
    Skipped(String),
}

/// Does all the work; a failure stops only what comes after it. The answers stand in the order of
/// the nodes.
pub(super) async fn run<T, U>(
    nodes: Vec<Node<T>>,
    work: impl AsyncFn(&str, T) -> Result<U>,
) -> Vec<(String, End<U>)> {
    let names: Vec<String> = nodes.iter().map(|node| node.name.clone()).collect();
    // What each has come to: nothing yet, or whether it ended well.
    let ended: Vec<watch::Sender<Option<bool>>> =
        nodes.iter().map(|_| watch::channel(None).0).collect();
    let one = async |i: usize, node: Node<T>| {
        for before in &node.after {
            let Some(j) = names.iter().position(|name| name == before) else { continue };
            let mut watched = ended[j].subscribe();
            let well = watched.wait_for(Option::is_some).await.is_ok_and(|end| *end == Some(true));
            if !well {
                ended[i].send_replace(Some(false));
                return (node.name, End::Skipped(before.clone()));
            }
        }
        let result = work(&node.name, node.item).await;
        ended[i].send_replace(Some(result.is_ok()));
        (node.name, result.map_or_else(End::Failed, End::Done))
    };
    join_all(nodes.into_iter().enumerate().map(|(i, node)| one(i, node))).await
}

/// One answer for all: what was done, or why not all was. The error of a single machine is its own;
/// for several, `what` says what they are not (`not up`), and each has its part in the message.
pub(super) fn together<U>(ends: Vec<(String, End<U>)>, what: &str) -> Result<Vec<(String, U)>> {
    let all = ends.len();
    let (mut done, mut failed, mut parts) = (vec![], vec![], vec![]);
    for (name, end) in ends {
        match end {
            End::Done(value) => done.push((name, value)),
            End::Failed(e) if all == 1 => return Err(e),
            End::Failed(e) => {
                parts.push(format!("{name}: {e}"));
                failed.push(e.kind());
            }
            End::Skipped(before) => {
                parts.push(format!("{name}: left alone, since `{before}` failed"))
            }
        }
    }
    if parts.is_empty() {
        return Ok(done);
    }
    // What was interrupted was not tried; one real failure outweighs it, unless all was stopped.
    let kind = match failed.iter().find(|kind| **kind == Kind::Interrupted) {
        Some(kind) => *kind,
        None => Kind::Failed,
    };
    let mut error = Error::new(kind, format!("{} of {all} machines are {what}", parts.len()));
    for part in parts {
        error = error.detail(part);
    }
    Err(error.hint("Do what is said there, then run the same command again."))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn node(name: &str, after: &[&str]) -> Node<()> {
        let after = after.iter().map(|n| (*n).to_owned()).collect();
        Node { name: name.to_owned(), after, item: () }
    }

    #[tokio::test]
    async fn each_begins_after_what_it_needs_and_the_rest_at_once() {
        let said = Mutex::new(vec![]);
        let say = |text: String| said.lock().expect("no panic").push(text);
        let nodes = vec![node("web", &["db", "elsewhere"]), node("db", &[]), node("log", &[])];
        let ends = run(nodes, async |name, ()| {
            say(format!("{name} begins"));
            tokio::task::yield_now().await;
            say(format!("{name} ends"));
            Ok(())
        })
        .await;
        assert!(together(ends, "not up").is_ok());
        assert_eq!(
            *said.lock().expect("no panic"),
            ["db begins", "log begins", "db ends", "log ends", "web begins", "web ends"]
        );
    }

    #[tokio::test]
    async fn a_failure_stops_what_comes_after_it_and_nothing_else() {
        let nodes = vec![node("a", &[]), node("b", &["a"]), node("c", &["b"]), node("d", &[])];
        let ends = run(nodes, async |name, ()| match name {
            "a" => Err(Error::failed("no disk").hint("Make room.")),
            _ => Ok(()),
        })
        .await;
        assert!(matches!(&ends[3].1, End::Done(())));
        let e = together(ends, "not up").expect_err("failed");
        assert_eq!((e.what(), e.kind()), ("3 of 4 machines are not up", Kind::Failed));
        assert_eq!(
            e.details(),
            [
                "a: no disk\nhint: Make room.",
                "b: left alone, since `a` failed",
                "c: left alone, since `b` failed"
            ]
        );
    }

    #[tokio::test]
    async fn one_machine_alone_has_its_own_error_and_an_interrupt_stays_one() {
        let one = run(vec![node("a", &[])], async |_, ()| Err::<(), _>(Error::failed("why"))).await;
        assert_eq!(together(one, "not up").expect_err("failed").what(), "why");
        let nodes = vec![node("a", &[]), node("b", &[])];
        let two = run(nodes, async |name, ()| match name {
            "a" => Err(Error::failed("why")),
            _ => Err::<(), _>(Error::interrupted("interrupted")),
        });
        assert_eq!(together(two.await, "x").expect_err("failed").kind(), Kind::Interrupted);
    }
}
