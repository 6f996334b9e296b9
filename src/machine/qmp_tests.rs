//! The monitor's client against a server that misbehaves, and against the real QEMU.

use std::path::PathBuf;
use std::time::Duration;

use qapi::qmp as schema;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixListener;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::{Failure, Qmp};

const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(10);

/// The server's end of one connection.
struct Server {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
}

impl Server {
    async fn command(&mut self) -> Value {
        let mut line = String::new();
        self.read.read_line(&mut line).await.expect("a command");
        serde_json::from_str(&line).expect("JSON")
    }

    async fn say(&mut self, text: &str) {
        self.write.write_all(format!("{text}\r\n").as_bytes()).await.expect("sent");
    }

    async fn answer(&mut self, command: &Value, value: &Value) {
        self.say(&json!({"return": value, "id": command["id"]}).to_string()).await;
    }
}

/// A client, and a server that has greeted it.
async fn pair() -> (Qmp, Server, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("dir");
    let path: PathBuf = dir.path().join("qmp.sock");
    let listener = UnixListener::bind(&path).expect("bind");
    let serve = async {
        let (stream, _) = listener.accept().await.expect("accept");
        let (read, write) = stream.into_split();
        let mut server = Server { read: BufReader::new(read), write };
        server.say(r#"{"QMP": {"version": {}, "capabilities": ["oob"]}}"#).await;
        let command = server.command().await;
        assert_eq!(command["execute"], "qmp_capabilities");
        server.answer(&command, &json!({})).await;
        server
    };
    let (qmp, server) = tokio::join!(Qmp::connect(&path, LONG), serve);
    (qmp.expect("connected"), server, dir)
}

#[tokio::test]
async fn an_unknown_event_and_garbage_leave_the_connection_whole() {
    let (qmp, mut server, _dir) = pair().await;
    let mut events = qmp.events();
    server.say(r#"{"event": "FROM_THE_FUTURE", "data": {"x": [1]}, "timestamp": {}}"#).await;
    server.say("this is no JSON \u{fffd}").await;
    server.say(r#"{"neither": "reply nor event"}"#).await;
    server.say(r#"{"return": {}, "id": 4711}"#).await;
    let serve = async {
        let command = server.command().await;
        server.answer(&command, &json!("ok")).await;
    };
    let (value, ()) = tokio::join!(qmp.raw("x", json!({}), LONG), serve);
    assert_eq!(value, Ok(json!("ok")));
    let event = events.recv().await.expect("event");
    assert_eq!((event.name.as_str(), &event.data), ("FROM_THE_FUTURE", &json!({"x": [1]})));
}

#[tokio::test]
async fn a_late_reply_never_answers_for_another_command() {
    let (qmp, mut server, _dir) = pair().await;
    assert_eq!(qmp.raw("slow", json!({}), SHORT).await, Err(Failure::TimedOut(SHORT)));
    let late = server.command().await;
    let serve = async {
        let command = server.command().await;
        assert_ne!(command["id"], late["id"]);
        server.answer(&late, &json!("late")).await;
        server.answer(&command, &json!("mine")).await;
        // A second answer to the same command.
        server.answer(&command, &json!("again")).await;
        let command = server.command().await;
        server.answer(&command, &json!("third")).await;
    };
    let ask = async {
        let second = qmp.raw("second", json!({}), LONG).await;
        (second, qmp.raw("third", json!({}), LONG).await)
    };
    let ((second, third), ()) = tokio::join!(ask, serve);
    assert_eq!((second, third), (Ok(json!("mine")), Ok(json!("third"))));
}

#[tokio::test]
async fn answers_out_of_order_find_their_commands() {
    let (qmp, mut server, _dir) = pair().await;
    let serve = async {
        let (a, b) = (server.command().await, server.command().await);
        server.answer(&b, &b["execute"]).await;
        server.answer(&a, &a["execute"]).await;
    };
    let (a, b, ()) =
        tokio::join!(qmp.raw("a", json!({}), LONG), qmp.raw("b", json!({}), LONG), serve);
    assert_eq!((a, b), (Ok(json!("a")), Ok(json!("b"))));
}

#[tokio::test]
async fn a_lost_connection_ends_waiting_and_later_commands() {
    let (qmp, mut server, _dir) = pair().await;
    let serve = async {
        server.command().await;
        drop(server);
    };
    let (value, ()) = tokio::join!(qmp.raw("a", json!({}), LONG), serve);
    assert_eq!(value, Err(Failure::Disconnected));
    tokio::time::timeout(LONG, qmp.closed()).await.expect("closed is noticed");
    assert_eq!(qmp.raw("b", json!({}), LONG).await, Err(Failure::Disconnected));
}

#[tokio::test]
async fn a_refusal_and_a_wrong_shape_are_told_apart() {
    let (qmp, mut server, _dir) = pair().await;
    let serve = async {
        let command = server.command().await;
        let error = json!({"class": "DeviceNotFound", "desc": "no such device"});
        server.say(&json!({"error": error, "id": command["id"]}).to_string()).await;
        let command = server.command().await;
        server.answer(&command, &json!([1, 2])).await;
    };
    let ask = async {
        (qmp.execute(schema::query_uuid {}).await, qmp.execute(schema::query_uuid {}).await)
    };
    let ((refused, wrong), ()) = tokio::join!(ask, serve);
    let (class, text) = ("DeviceNotFound".to_owned(), "no such device".to_owned());
    assert_eq!(refused.map(|_| ()), Err(Failure::Rejected { class, text }));
    assert!(matches!(wrong, Err(Failure::Unexpected(_))));
}

#[tokio::test]
async fn silence_instead_of_a_greeting_is_an_error_with_the_sockets_path() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("qmp.sock");
    let _listener = UnixListener::bind(&path).expect("bind");
    let e = Qmp::connect(&path, SHORT).await.expect_err("silence");
    assert!(e.what().contains(&path.display().to_string()), "{e}");
    assert!(e.to_string().contains("no answer within"), "{e}");
    assert_eq!(e.hints().len(), 1, "{e}");
}

#[tokio::test]
async fn the_real_monitor_takes_many_commands_at_once_and_tells_its_end() {
    let dir = tempfile::tempdir().expect("dir");
    let socket = dir.path().join("qmp.sock");
    let mut qemu = tokio::process::Command::new("qemu-system-x86_64")
        .args(["-S", "-machine", "none", "-nodefaults", "-display", "none", "-qmp"])
        .arg(format!("unix:{},server=on,wait=off", socket.display()))
        .kill_on_drop(true)
        .spawn()
        .expect("QEMU is installed where this is tested");
    let mut tries = 0;
    let qmp = loop {
        match Qmp::connect(&socket, LONG).await {
            Ok(qmp) => break qmp,
            Err(e) if tries == 500 => panic!("{e}"),
            Err(_) => tries += 1,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let status = qmp.execute(schema::query_status {}).await.expect("status");
    assert_eq!(status.status, schema::RunState::prelaunch);
    let many = (0..200).map(|_| qmp.execute(schema::query_version {}));
    for version in futures_util::future::join_all(many).await {
        assert!(version.expect("version").qemu.major >= 7);
    }
    let refused = qmp.raw("no-such-command", json!({}), LONG).await;
    assert!(matches!(refused, Err(Failure::Rejected { class, .. }) if class == "CommandNotFound"));
    let mut events = qmp.events();
    qmp.execute(schema::quit {}).await.expect("quit");
    let event = tokio::time::timeout(LONG, events.recv()).await.expect("in time").expect("event");
    assert_eq!(event.name, "SHUTDOWN");
    assert_eq!(
        event.typed::<schema::SHUTDOWN>().expect("typed").reason,
        schema::ShutdownCause::host_qmp_quit
    );
    tokio::time::timeout(LONG, qmp.closed()).await.expect("closed");
    assert!(qemu.wait().await.expect("ended").success());
}
