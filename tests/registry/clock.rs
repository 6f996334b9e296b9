//! Certificates of another time: the host's clock may be years off, and the message says what it shows.

use std::path::Path;
use std::time::{Duration, Instant};

use devbox::registry::{Options, Retry};

use crate::boxes::{Home, options, run};
use crate::server::Registry;

/// A certificate of the registry that is valid from `start` to `end` (`YYYYMMDDHHMMSSZ`), and an authority for it.
fn certificate(dir: &Path, name: &str, start: &str, end: &str) {
    let script = format!(
        "key='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
        [ -e ca.crt ] || openssl req -x509 $key -days 30 -subj '/CN=test authority' -keyout ca.key -out ca.crt
        openssl req $key -subj /CN=registry -keyout {name}.key -out {name}.csr
        printf 'subjectAltName=IP:127.0.0.1\\nbasicConstraints=critical,CA:FALSE\\n' > extensions
        printf '[ca]\\ndefault_ca=a\\n[a]\\ndatabase=index\\nserial=serial\\nnew_certs_dir=.\\ndefault_md=sha256\\nunique_subject=no\\npolicy=p\\n[p]\\ncommonName=supplied\\n' > ca.cnf
        : > index; echo 01 > serial
        openssl ca -batch -notext -config ca.cnf -in {name}.csr -cert ca.crt -keyfile ca.key \\
            -startdate {start} -enddate {end} -extfile extensions -out {name}.pem"
    );
    run(dir, "sh", &["-euc", &script]);
}

#[tokio::test]
async fn a_certificate_of_another_time_names_the_clock_at_once() {
    for (name, start, end, said) in [
        ("old", "20010101000000Z", "20020101000000Z", "expired"),
        ("early", "20900101000000Z", "20910101000000Z", "not valid yet"),
    ] {
        let dir = tempfile::tempdir().expect("folder");
        certificate(dir.path(), name, start, end);
        let at = |name: String| dir.path().join(name).display().to_string();
        let (pem, key) = (at(format!("{name}.pem")), at(format!("{name}.key")));
        let tls = format!("  tls: {{certificate: {pem}, key: {key}}}\n");
        let Some(registry) = Registry::with("a clock", &tls, None) else { return };
        let (to, begun) = (Home::new(), Instant::now());
        let with = Options {
            retry: Retry::default(),
            certificates: Some(vec![dir.path().to_owned()]),
            ..options()
        };
        let address = format!("{}:1.0.0", registry.repository("web"));
        let e = to.pull_with(&address, with).await.expect_err("refused").to_string();
        for word in [said, "the clock of this host says 20", "date -u"] {
            assert!(e.contains(word), "`{word}`: {e}");
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        to.is_clean();
    }
}
