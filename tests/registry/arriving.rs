//! A box's disk is read by QEMU's own programs while it arrives.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use devbox::digest::FileDigest;
use devbox::helper::arriving::{BoxServer, Job, Progress};
use devbox::host::Paths;
use devbox::store::Store;

use crate::boxes::{Home, disk, run, tree};
use crate::proxy::{Fault, Proxy};
use crate::server::Registry;

const PATIENCE: Duration = Duration::from_secs(60);

/// The server of one disk, as `up` would start it.
struct Server {
    home: PathBuf,
    server: BoxServer,
    hex: String,
    child: Option<Child>,
}

impl Server {
    fn new(home: &Path, address: &str, disk: FileDigest) -> Self {
        let paths = paths(home);
        let server = BoxServer::of(&paths, disk);
        std::fs::create_dir_all(server.dir()).expect("folder");
        let job = Job { address: address.to_owned(), plain_http: false, disk };
        std::fs::write(server.dir().join("job"), serde_json::to_vec(&job).expect("json"))
            .expect("written");
        Server { home: home.to_owned(), server, hex: disk.hex(), child: None }
    }

    fn spawn(&mut self) {
        let child = Command::new(env!("CARGO_BIN_EXE_devbox"))
            .args(["box-server", &self.hex])
            .env("DEVBOX_HOME", &self.home)
            .env("XDG_RUNTIME_DIR", self.home.join("run"))
            .env("REGISTRY_AUTH_FILE", self.home.join("no-credentials"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("devbox runs");
        self.child = Some(child);
    }

    /// Starts it, and waits until it can be read from.
    fn start(&mut self) {
        self.spawn();
        let begun = Instant::now();
        while !self.progress().is_some_and(|progress| progress.serves) {
            let ended = self.child.as_mut().is_some_and(|c| c.try_wait().expect("asked").is_some());
            assert!(!ended, "it ended: {}", self.log());
            assert!(begun.elapsed() < PATIENCE, "it does not serve: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn progress(&self) -> Option<Progress> {
        self.server.progress()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.server.log()).unwrap_or_default()
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("killed");
            child.wait().expect("reaped");
        }
    }

    fn address(&self) -> String {
        format!("nbd+unix:///?socket={}", self.server.socket().display())
    }

    /// All of the disk, read by `qemu-img`; its own words where it could not.
    fn read(&self) -> Result<Vec<u8>, String> {
        let out = self.home.join("read");
        let done = Command::new("qemu-img")
            .args(["convert", "-f", "raw", "-O", "raw", &self.address()])
            .arg(&out)
            .output()
            .expect("qemu-img runs");
        match done.status.success() {
            true => Ok(std::fs::read(out).expect("read")),
            false => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
        }
    }

    /// Waits until the box is in the store; what moved.
    fn wait_whole(&self) -> u64 {
        let begun = Instant::now();
        loop {
            if let Some(progress) = self.progress().filter(|progress| progress.whole) {
                return progress.moved;
            }
            assert!(begun.elapsed() < PATIENCE, "it is not whole: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn paths(home: &Path) -> Paths {
    Paths {
        store: home.join("store"),
        machines: home.join("machines"),
        templates: home.join("templates"),
        bundles: home.join("bundles"),
        disks: home.join("disks"),
        settings: home.join("config.toml"),
        cache: home.join("cache"),
        runtime: home.join("run/devbox"),
    }
}

/// A box in a registry: its store, and its disk.
struct Pushed {
    home: Home,
    disk: FileDigest,
    bytes: Vec<u8>,
}

async fn pushed(registry: &Registry) -> Pushed {
    let home = Home::new();
    let path = disk(home.path(), &tree(home.path()), "v1");
    let image = home.add("web", "1.0.0", &path);
    home.push(&image, &registry.repository("team/web")).await.expect("pushed");
    let bytes = std::fs::read(&path).expect("read");
    Pushed { home, disk: image.disk_digest(), bytes }
}

fn found(store: &Store) -> bool {
    store.find("web", "1.0.0").expect("reads").is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_is_read_while_it_arrives_and_is_in_the_store_then() {
    let Some(registry) = Registry::start("a box is read while it arrives") else { return };
    let pushed = pushed(&registry).await;
    let home = Home::new();
    let mut server = Server::new(
        home.path(),
        &format!("{}:1.0.0", registry.repository("team/web")),
        pushed.disk,
    );
    server.start();
    let info = run(home.path(), "qemu-img", &["info", "-f", "raw", &server.address()]);
    assert!(info.contains(&format!("({} bytes)", pushed.bytes.len())), "{info}");
    // Nothing but what is asked for moves while a machine starts.
    run(home.path(), "qemu-io", &["-f", "raw", "-r", "-c", "read 0 64k", &server.address()]);
    std::thread::sleep(Duration::from_secs(2));
    let progress = server.progress().expect("runs");
    assert!(progress.left > progress.total / 2 && progress.left < progress.total, "{progress:?}");
    assert!(!found(&home.store));
    let out = Command::new("qemu-io")
        .args(["-f", "raw", "-c", "write 0 4k", &server.address()])
        .output()
        .expect("qemu-io runs");
    assert!(!out.status.success(), "nobody writes");
    assert!(server.read().expect("read") == pushed.bytes, "other bytes");
    server.wait_whole();
    assert!(found(&home.store));
    home.is_clean();
    assert!(server.read().expect("read") == pushed.bytes, "from the store's own file");
    drop(pushed.home);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_found_again_after_its_socket_or_its_folder_was_removed() {
    let Some(registry) = Registry::start("a server is found again") else { return };
    let pushed = pushed(&registry).await;
    let home = Home::new();
    let address = format!("{}:1.0.0", registry.repository("team/web"));
    let mut server = Server::new(home.path(), &address, pushed.disk);
    server.start();
    std::fs::remove_file(server.server.socket()).expect("removed");
    let begun = Instant::now();
    while !server.server.socket().exists() {
        assert!(begun.elapsed() < PATIENCE, "no socket: {}", server.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    // Not all of it: one that is done would end by itself.
    run(home.path(), "qemu-io", &["-f", "raw", "-r", "-c", "read 0 64k", &server.address()]);
    // Another one in a new folder, while the first has not seen yet that its own is gone.
    std::fs::remove_dir_all(server.server.dir()).expect("removed");
    let mut next = Server::new(home.path(), &address, pushed.disk);
    next.start();
    let mut first = server.child.take().expect("it was started");
    assert!(first.wait().expect("ends").success());
    assert!(next.server.socket().exists(), "{}", next.log());
    assert!(next.read().expect("read") == pushed.bytes, "other bytes");
    drop(pushed.home);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_cut_and_bytes_that_flip_reach_no_reader() {
    let Some(registry) = Registry::start("connections that are cut") else { return };
    let pushed = pushed(&registry).await;
    let proxy = Proxy::start(registry.port).await;
    for round in 0..3usize {
        let home = Home::new();
        let mut server = Server::new(
            home.path(),
            &format!("{}:1.0.0", proxy.repository("team/web")),
            pushed.disk,
        );
        proxy.set(|_| Fault::None);
        server.start();
        let mut count = round;
        proxy.set(move |asked| {
            count += 1;
            match (asked.path.contains("/blobs/"), count % 5) {
                (true, 0) => Fault::Cut(count.wrapping_mul(7919) % 30_000),
                (true, 1) => Fault::Flip(count.wrapping_mul(104_729) % 100_000),
                _ => Fault::None,
            }
        });
        let begun = Instant::now();
        // A read that waited too long is refused, as a guest's is that then stands still.
        let bytes = loop {
            match server.read() {
                Ok(bytes) => break bytes,
                Err(e) => assert!(begun.elapsed() < PATIENCE, "{e}\n{}", server.log()),
            }
        };
        assert!(bytes == pushed.bytes, "other bytes in round {round}");
        proxy.set(|_| Fault::None);
        server.wait_whole();
        home.is_clean();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_is_wrong_where_it_comes_from_is_read_by_nobody() {
    let Some(registry) = Registry::start("a chunk that is wrong") else { return };
    let pushed = pushed(&registry).await;
    let proxy = Proxy::start(registry.port).await;
    let home = Home::new();
    let address = format!("{}:1.0.0", proxy.repository("team/web"));
    let mut server = Server::new(home.path(), &address, pushed.disk);
    server.start();
    // One blob is wrong in one place, whoever asks and however often.
    let victim = std::sync::Arc::new(std::sync::Mutex::new(None::<String>));
    let chosen = victim.clone();
    proxy.set(move |asked| {
        let mut chosen = chosen.lock().expect("lock");
        if asked.path.contains("/blobs/") && chosen.is_none() {
            *chosen = Some(asked.path.to_owned());
        }
        if chosen.as_deref() == Some(asked.path) { Fault::Flip(77) } else { Fault::None }
    });
    let e = server.read().expect_err("not all can be read");
    assert!(e.contains("Input/output error"), "{e}");
    let begun = Instant::now();
    let progress = loop {
        let progress = server.progress().expect("it runs on");
        if progress.hopeless {
            break progress;
        }
        assert!(begun.elapsed() < PATIENCE, "{progress:?}");
        // As a guest would, that stands still and goes on.
        let _ = server.read();
    };
    let why = progress.trouble.expect("said");
    assert!(why.contains("wrong bytes") || why.contains("damaged"), "{why}");
    assert!(!found(&home.store));
    home.is_clean();
    server.kill();
    // Put right, the rest moves and nothing else.
    proxy.set(|_| Fault::None);
    server.start();
    let progress = server.progress().expect("runs");
    assert!(progress.left < progress.total / 4, "{progress:?}: what was right is fetched again");
    assert!(server.read().expect("read") == pushed.bytes, "other bytes");
    server.wait_whole();
    home.is_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_goes_on_with_what_is_here() {
    let Some(registry) = Registry::start("a server that is killed") else { return };
    let pushed = pushed(&registry).await;
    let home = Home::new();
    let address = format!("{}:1.0.0", registry.repository("team/web"));
    let mut server = Server::new(home.path(), &address, pushed.disk);
    for round in 1..=5u64 {
        server.start();
        let uri = server.address();
        let reader = std::thread::spawn(move || {
            let _ = Command::new("qemu-io")
                .args(["-f", "raw", "-r", "-c", &format!("read 0 {}M", 3 * round), &uri])
                .output();
        });
        std::thread::sleep(Duration::from_millis(150 * round));
        server.kill();
        reader.join().expect("ends");
        assert!(!found(&home.store));
        home.store.find("web", "1.0.0").expect("the store can be read");
    }
    server.start();
    let left = server.progress().expect("runs");
    assert!(server.read().expect("read") == pushed.bytes, "other bytes");
    let moved = server.wait_whole();
    assert!(moved <= left.left + (4 << 20), "{moved} moved for {left:?}");
    home.is_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_attempt_left_is_verified_before_it_is_served() {
    let Some(registry) = Registry::start("what an earlier attempt left") else { return };
    let pushed = pushed(&registry).await;
    let home = Home::new();
    // All of it, with damage in a chunk and something where zeros belong.
    let mut left = pushed.bytes.clone();
    let at = left.iter().rposition(|b| *b != 0).expect("data");
    left[at] ^= 1;
    let zeros = left.chunks(4096).position(|block| block.iter().all(|b| *b == 0));
    if let Some(zeros) = zeros {
        left[zeros * 4096 + 7] = 9;
    }
    let partial = home.path().join("store/partial");
    std::fs::create_dir_all(&partial).expect("folder");
    std::fs::write(partial.join(pushed.disk.hex()), &left).expect("written");
    let address = format!("{}:1.0.0", registry.repository("team/web"));
    let mut server = Server::new(home.path(), &address, pushed.disk);
    server.start();
    assert!(server.read().expect("read") == pushed.bytes, "other bytes");
    let moved = server.wait_whole();
    assert!(moved < 2 << 20, "{moved} bytes for one chunk, the index and the tables");
    home.is_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_client_says_ends_its_connection_and_nothing_else() {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;
    let Some(registry) = Registry::start("what no client says") else { return };
    let pushed = pushed(&registry).await;
    let home = Home::new();
    let address = format!("{}:1.0.0", registry.repository("team/web"));
    let mut server = Server::new(home.path(), &address, pushed.disk);
    server.start();
    let go = [&[0u8, 0, 0, 3][..], b"IHAVEOPT", &7u32.to_be_bytes(), &6u32.to_be_bytes(), &[0; 6]]
        .concat();
    for said in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xff; 4096],
        [&[0, 0, 0, 3][..], b"IHAVEOPT", &1u32.to_be_bytes(), &u32::MAX.to_be_bytes()].concat(),
        [&go[..], &[0xff; 28]].concat(),
        // A write that claims 4 GiB.
        [&go[..], &0x2560_9513u32.to_be_bytes(), &[0, 0, 0, 1], &[0; 16], &u32::MAX.to_be_bytes()]
            .concat(),
    ] {
        let mut stream = UnixStream::connect(server.server.socket()).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        let _ = stream.write_all(&said);
        let mut answer = vec![];
        let ended = stream.take(1 << 20).read_to_end(&mut answer);
        let reset = ended.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset);
        assert!(ended.is_ok() || reset, "{ended:?}: it hangs on");
    }
    // Fifty clients that say nothing do not keep the next one out.
    let idle: Vec<UnixStream> =
        (0..50).map(|_| UnixStream::connect(server.server.socket()).expect("connects")).collect();
    assert!(server.read().expect("read") == pushed.bytes, "other bytes");
    drop(idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_guest_was_refused_comes_when_the_connection_is_back() {
    let Some(registry) = Registry::start("what a guest was refused comes") else { return };
    let pushed = pushed(&registry).await;
    let proxy = Proxy::start(registry.port).await;
    let home = Home::new();
    let address = format!("{}:1.0.0", proxy.repository("team/web"));
    let mut server = Server::new(home.path(), &address, pushed.disk);
    server.start();
    proxy.set(|asked| match asked.path.contains("/blobs/") {
        true => Fault::Cut(0),
        false => Fault::None,
    });
    let e = server.read().expect_err("nothing comes");
    assert!(e.contains("Input/output error"), "{e}");
    let until = |waits: bool| {
        let begun = Instant::now();
        loop {
            let progress = server.progress().expect("it runs on");
            if progress.waits == waits {
                return progress;
            }
            assert!(begun.elapsed() < PATIENCE, "{progress:?}\n{}", server.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let progress = until(true);
    assert!(progress.trouble.is_some() && !progress.hopeless, "{progress:?}");
    proxy.set(|_| Fault::None);
    // A guest that stands still asks for nothing.
    let progress = until(false);
    assert_eq!(progress.trouble, None);
    assert!(server.read().expect("read") == pushed.bytes, "other bytes");
    server.wait_whole();
    home.is_clean();
}
