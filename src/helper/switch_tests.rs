//! Frames as real datagrams, between sockets as QEMU makes them.

use super::*;

/// Far above the microseconds that a frame takes.
const SOON: Duration = Duration::from_secs(10);
const BROADCAST: [u8; 6] = [0xff; 6];

fn mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

fn frame(to: [u8; 6], from: [u8; 6], content: &[u8]) -> Vec<u8> {
    [&to[..], &from[..], &[8, 0][..], content].concat()
}

/// A switch and the cards of machines 0, 1, ….
struct Lab {
    dir: tempfile::TempDir,
    switch: Switch,
    cards: Vec<UnixDatagram>,
}

impl Lab {
    fn new(machines: u8) -> Lab {
        let dir = tempfile::tempdir().expect("a folder");
        let cards = (0..machines)
            .map(|n| UnixDatagram::bind(dir.path().join(format!("card{n}"))).expect("a socket"));
        let cards = cards.collect();
        let mut lab = Lab { dir, switch: Switch::new(), cards };
        (0..machines).for_each(|n| assert!(lab.serve(n)));
        lab
    }

    fn port(&self, n: u8) -> PathBuf {
        self.dir.path().join(format!("port{n}"))
    }

    fn serve(&mut self, n: u8) -> bool {
        let (port, card) = (self.port(n), self.dir.path().join(format!("card{n}")));
        self.switch.serve(&format!("m{n}"), mac(n), &port, &card).expect("served")
    }

    async fn send(&self, n: u8, frame: &[u8]) {
        // As QEMU does. Tokio would wait for room in the wrong socket.
        let (card, port) = (&self.cards[usize::from(n)], self.port(n));
        let port = SocketAddrUnix::new(port).expect("a short path");
        let sent = async {
            while let Err(e) = sendto(card, frame, SendFlags::DONTWAIT, &port) {
                assert_eq!(e, rustix::io::Errno::AGAIN);
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, sent).await.expect("room");
    }

    /// The next frame that reaches machine `n`.
    async fn next(&self, n: u8) -> Vec<u8> {
        let mut buffer = vec![0; 4096];
        let got = self.cards[usize::from(n)].recv(&mut buffer);
        let length = tokio::time::timeout(SOON, got).await.expect("a frame").expect("received");
        buffer.truncate(length);
        buffer
    }

    fn insist_on_nothing(&self, n: u8) {
        let got = self.cards[usize::from(n)].try_recv(&mut [0; 4096]);
        assert_eq!(got.expect_err("nothing").kind(), std::io::ErrorKind::WouldBlock, "machine {n}");
    }
}

#[tokio::test]
async fn a_frame_reaches_whom_it_is_for_and_nobody_else() {
    let lab = Lab::new(3);
    let (one, all) = (frame(mac(1), mac(0), b"for one"), frame(BROADCAST, mac(0), b"for all"));
    lab.send(0, &one).await;
    lab.send(0, &frame(mac(9), mac(0), b"for nobody")).await;
    lab.send(0, &frame(mac(0), mac(0), b"for itself")).await;
    lab.send(0, &all).await;
    assert_eq!(lab.next(1).await, one);
    assert_eq!(lab.next(1).await, all);
    assert_eq!(lab.next(2).await, all);
    // The largest frame there is, whole.
    let large = frame(mac(0), mac(2), &[7; LARGEST - HEADER]);
    lab.send(2, &large).await;
    assert_eq!(lab.next(0).await, large);
    (0..3).for_each(|n| lab.insist_on_nothing(n));
}

#[tokio::test]
async fn a_hostile_guest_cannot_speak_for_another_one() {
    let lab = Lab::new(3);
    for bad in [
        frame(mac(1), mac(2), b"as machine 2"),
        frame(mac(1), BROADCAST, b"as all"),
        frame(mac(1), mac(0), &[0; LARGEST - HEADER + 1]),
        frame(mac(1), mac(0), b"")[..HEADER - 1].to_vec(),
        vec![],
        vec![0; 3000],
    ] {
        lab.send(0, &bad).await;
    }
    // Nor can a program that knows a machine's port.
    let stranger = UnixDatagram::bind(lab.dir.path().join("stranger")).expect("a socket");
    let good = frame(mac(1), mac(0), b"good");
    for socket in [&stranger, &UnixDatagram::unbound().expect("a socket"), &lab.cards[2]] {
        socket.send_to(&good, lab.port(0)).await.expect("sent");
    }
    lab.send(0, &good).await;
    assert_eq!(lab.next(1).await, good);
    (0..3).for_each(|n| lab.insist_on_nothing(n));
    // Said once, however often it happens.
    let log = Log::at(&lab.dir.path().join("log"));
    lab.switch.report(&log);
    lab.send(0, &frame(mac(1), mac(2), b"again")).await;
    lab.send(0, &good).await;
    lab.next(1).await;
    lab.switch.report(&log);
    let text = std::fs::read_to_string(lab.dir.path().join("log")).expect("a log");
    assert_eq!(text.matches("`m0` sends frames that are not its own").count(), 1, "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[tokio::test]
async fn a_machine_that_stands_still_takes_nothing_from_the_others() {
    let lab = Lab::new(3);
    // Machine 1 reads nothing: far more than its socket holds.
    for _ in 0..5000 {
        lab.send(0, &frame(mac(1), mac(0), &[1; 1400])).await;
    }
    let good = frame(mac(2), mac(0), b"good");
    lab.send(0, &good).await;
    assert_eq!(lab.next(2).await, good);
    // It goes on with what it had room for, and with what comes then.
    let mut kept = 0;
    while lab.cards[1].try_recv(&mut [0; 4096]).is_ok() {
        kept += 1;
    }
    assert!(kept > 0 && kept < 5000, "{kept}");
    let late = frame(mac(1), mac(2), b"late");
    lab.send(2, &late).await;
    assert_eq!(lab.next(1).await, late);
}

#[tokio::test]
async fn a_switch_that_was_killed_is_replaced_on_the_same_sockets() {
    let mut lab = Lab::new(2);
    // What a killed one leaves: files that nobody listens on.
    std::mem::take(&mut lab.switch.tasks).into_iter().for_each(drop);
    lab.switch = Switch::new();
    let good = frame(mac(1), mac(0), b"good");
    let port = SocketAddrUnix::new(lab.port(0)).expect("a short path");
    let nobody_listens = async {
        while sendto(&lab.cards[0], &good, SendFlags::DONTWAIT, &port).is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, nobody_listens).await.expect("refused");
    assert!(lab.port(0).exists());
    assert!(lab.serve(0) && lab.serve(1));
    lab.send(0, &good).await;
    assert_eq!(lab.next(1).await, good);
    // A socket that was removed is made anew, one that is there stays.
    std::fs::remove_file(lab.port(0)).expect("removed");
    assert!(lab.serve(0) && !lab.serve(1));
    lab.send(0, &good).await;
    assert_eq!(lab.next(1).await, good);
    // A machine that ended has no port.
    lab.switch.retain(&["m0"]);
    assert!(lab.port(0).exists() && !lab.port(1).exists());
    lab.send(0, &frame(BROADCAST, mac(0), b"anybody?")).await;
    lab.insist_on_nothing(1);
}
