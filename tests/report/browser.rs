//! The page in a real browser: headless Chromium, without network.

use std::io::Read as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use devbox::parity::report::plain::plain;

use crate::lab::{Lab, text};
use crate::{pair, told};

/// A proxy that answers nothing and remembers who asked.
struct Network {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Network {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let asked = Arc::new(Mutex::new(vec![]));
        let seen = Arc::clone(&asked);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut head = [0; 512];
                let n = stream.read(&mut head).unwrap_or(0);
                let line = String::from_utf8_lossy(&head[..n]).lines().next().map(str::to_owned);
                if let Ok(mut seen) = seen.lock() {
                    seen.push(line.unwrap_or_default());
                }
            }
        });
        Network { port, asked }
    }

    /// What pages asked for. Chromium itself looks for updates, the time and what else a version of it wants, always
    /// at hosts of its maker; the page that is tested has none of these names in it.
    fn asked(&self) -> Vec<String> {
        let asked = self.asked.lock().expect("the list").clone();
        asked.into_iter().filter(|line| !MAKERS.iter().any(|host| line.contains(host))).collect()
    }
}

/// Where Chromium asks on its own.
const MAKERS: [&str; 3] = [".google.com", ".googleapis.com", ".gstatic.com"];

/// Opens a page, and returns what the browser prints.
fn open(network: &Network, page: &Path, fragment: &str, options: &[&str]) -> String {
    let home = tempfile::tempdir().expect("tempdir");
    let out = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        .args(["--no-first-run", "--disable-background-networking", "--disable-component-update"])
        .args(["--disable-sync", "--disable-extensions", "--hide-scrollbars", "--mute-audio"])
        .args(["--virtual-time-budget=3000", "--proxy-bypass-list=<-loopback>"])
        .arg(format!("--proxy-server=http://127.0.0.1:{}", network.port))
        .arg(format!("--user-data-dir={}", home.path().display()))
        .args(options)
        .arg(format!("file://{}{fragment}", page.display()))
        .env("HOME", home.path())
        .output()
        .expect("chromium is needed for this test");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("UTF-8")
}

fn page(lab: &Lab, a: &str, b: &str) -> PathBuf {
    let (_, out) = lab.devbox(&["parity", a, b, "-o", "r.html"]);
    let page = lab.path("r.html");
    assert!(page.exists(), "{out}");
    page
}

/// The attributes of the groups that a browser shows, from its tree as text.
fn shown(dom: &str) -> Vec<String> {
    let groups = dom.split("<details class=\"group ").skip(1);
    let heads = groups.filter_map(|rest| rest.split('>').next());
    let shown = heads.filter(|head| !head.contains(" hidden=\"\""));
    let id = |head: &str| Some(head.split("data-group=\"").nth(1)?.split('"').next()?.to_owned());
    shown.filter_map(id).collect()
}

#[test]
fn the_page_works_in_a_browser_and_nothing_in_a_name_does() {
    let lab = Lab::new();
    pair::make(&lab);
    let page = page(&lab, "a.raw", "b.raw");
    let told = told::by_html(&std::fs::read_to_string(&page).expect("read"));
    let source = std::fs::read_to_string(&page).expect("read");
    for outside in ["google", "gstatic", "src=", "href="] {
        assert!(!source.contains(outside), "{outside}");
    }
    let network = Network::new();

    let dom = open(&network, &page, "", &["--dump-dom"]);
    assert!(dom.contains("data-verdict=\"different\"") && dom.contains("> different <small>"));
    assert_eq!(shown(&dom).into_iter().collect::<std::collections::BTreeSet<_>>(), told.groups);
    // The script ran: the filter is there.
    assert!(dom.contains("<form class=\"filter\" id=\"form\">"), "{dom}");

    // No name became an element, a script or an attribute, and no text runs the other way.
    assert!(dom.contains("<title>different: a.raw and b.raw</title>"));
    assert_eq!(dom.matches("<script").count(), 1);
    for inert in ["onmouseover=\"", "onmouseover='", "<!--", "\u{202e}", "\u{1b}"] {
        assert!(!dom.contains(inert), "{inert:?}");
    }
    assert_eq!(plain("\u{202e}olleh"), "\\u{202e}olleh");
    assert!(dom.contains("\\u{202e}olleh") && dom.contains("&lt;script&gt;"), "{dom}");

    let filtered = open(&network, &page, "#filter=sudo", &["--dump-dom"]);
    assert_eq!(shown(&filtered), ["access.sudo"]);
    assert!(filtered.contains("data-filter=\"sudo\"") && filtered.contains("open=\"\""));
    assert!(
        filtered.contains(&format!("1 of {} groups, 2 entries", told.groups.len())),
        "{filtered}"
    );
    let none = open(&network, &page, "#filter=no%20such%20thing", &["--dump-dom"]);
    assert_eq!(shown(&none), Vec::<String>::new());
    let opened = open(&network, &page, "#boot.command-line", &["--dump-dom"]);
    let group = opened.split("id=\"boot.command-line\"").nth(1).expect("the group");
    assert!(group.split('>').next().is_some_and(|head| head.contains("open=\"\"")));
    assert_eq!(network.asked(), Vec::<String>::new());

    // The network would have noticed.
    let asking = lab.path("asking.html");
    std::fs::write(&asking, "<img src='http://example.invalid/x'>").expect("write");
    open(&network, &asking, "", &["--dump-dom"]);
    assert!(network.asked().iter().any(|line| line.contains("example.invalid")));
}

/// Pictures of the page, for people to look at: `target/tmp/report/*.png`.
#[test]
fn pages_of_every_width_fit_and_have_their_colours() {
    let lab = Lab::new();
    pair::make(&lab);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report");
    std::fs::create_dir_all(&folder).expect("mkdir");
    let network = Network::new();
    for (name, b) in [("different", "b.raw"), ("equal", "a.raw")] {
        let page = page(&lab, "a.raw", b);
        std::fs::copy(&page, folder.join(format!("{name}.html"))).expect("copy");
        for (size, width, height) in [("phone", 390, 1600), ("desktop", 1280, 1400)] {
            let mut pictures = vec![];
            for dark in [false, true] {
                let picture = folder
                    .join(format!("{name}-{size}-{}.png", if dark { "dark" } else { "light" }));
                _ = std::fs::remove_file(&picture);
                let (to, window) = (
                    format!("--screenshot={}", text(&picture)),
                    format!("--window-size={width},{height}"),
                );
                let scheme =
                    format!("--blink-settings=preferredColorScheme={}", if dark { 0 } else { 1 });
                open(&network, &page, "#filter=etc", &[&to, &window, &scheme]);
                pictures.push(std::fs::read(&picture).expect("a picture"));
            }
            assert!(pictures.iter().all(|png| png.starts_with(b"\x89PNG")));
            assert_ne!(pictures[0], pictures[1], "light and dark look alike");
        }
    }
}
