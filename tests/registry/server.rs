//! Debian's `docker-registry` on a free port.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A registry that runs; it ends with this.
pub(crate) struct Registry {
    child: Child,
    pub(crate) port: u16,
    _data: tempfile::TempDir,
}

impl Registry {
    /// Starts one; none, with a word about it, if the host has none.
    pub(crate) fn start(test: &str) -> Option<Self> {
        Self::with(test, "", None)
    }

    /// As [`Registry::start`], with `more` below `http:` of its configuration, and a file of accounts.
    pub(crate) fn with(test: &str, more: &str, accounts: Option<&Path>) -> Option<Self> {
        let program = which::which_in("docker-registry", std::env::var_os("PATH"), "/");
        let Ok(program) =
            program.or_else(|_| which::which_in("docker-registry", Some("/usr/bin"), "/"))
        else {
            eprintln!("not run: {test}: `docker-registry` is not installed");
            return None;
        };
        let data = tempfile::tempdir().expect("folder");
        let port = free_port();
        let accounts = accounts.map_or(String::new(), |path| {
            format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", path.display())
        });
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http:\n  addr: 127.0.0.1:{port}\n{more}{accounts}",
            data.path().join("data").display()
        );
        let path = data.path().join("config.yml");
        std::fs::write(&path, config).expect("written");
        let child = Command::new(program)
            .arg("serve")
            .arg(&path)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let registry = Registry { child, port, _data: data };
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(Instant::now() < deadline, "the registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }

    pub(crate) fn repository(&self, name: &str) -> String {
        format!("oci://127.0.0.1:{}/{name}", self.port)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Python's web server, which knows no ranges; it ends with this.
pub(crate) struct Site {
    child: Child,
    pub(crate) url: String,
}

impl Site {
    pub(crate) fn start(folder: &Path) -> Self {
        let mut child = Command::new("python3")
            .args(["-u", "-m", "http.server", "--bind", "127.0.0.1", "0"])
            .current_dir(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let mut line = String::new();
        let mut out = std::io::BufReader::new(child.stdout.take().expect("piped"));
        std::io::BufRead::read_line(&mut out, &mut line).expect("says where");
        let port: u16 = line.split(' ').nth(5).and_then(|w| w.parse().ok()).expect(&line);
        Site { child, url: format!("http://127.0.0.1:{port}") }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("port");
    listener.local_addr().expect("address").port()
}
