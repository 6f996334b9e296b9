//! Databases that SQLite itself made, by Python's module, whose rows it reads beside us.

use super::*;

use crate::digest::FileDigest;

/// Makes a database in a file and prints the digest of all rows, each with its length before it.
/// Arguments: path, page size, rows, further pragmas.
const MAKE: &str = r"
import hashlib, random, sqlite3, sys
path, page, rows, pragmas = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
chance = random.Random(7)
db = sqlite3.connect(path)
for pragma in [f'page_size={page}'] + pragmas.split():
    db.execute('PRAGMA ' + pragma)
db.execute('CREATE TABLE Other (a, b)')
db.execute('CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)')
db.execute('CREATE INDEX of_other ON Other (a, b)')
for i in range(rows):
    long = chance.choice([1, 40, 440, 441, 4000, 70000 if i % 50 == 0 else 900])
    db.execute('INSERT INTO Packages (blob) VALUES (?)', (chance.randbytes(chance.randint(0, long)),))
    db.execute('INSERT INTO Other VALUES (?, ?)', (i, 1.5))
db.commit()
db.execute('DELETE FROM Packages WHERE hnum % 7 = 3')
db.commit()
all = hashlib.sha256()
for blob, in db.execute('SELECT blob FROM Packages ORDER BY hnum'):
    all.update(b'%d:' % len(blob) + blob)
db.close()
print(all.hexdigest())
";

/// A database, and the digest that Python has of its rows.
fn made(page: u32, rows: u32, pragmas: &str) -> (Vec<u8>, String) {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("db");
    let out = std::process::Command::new("python3")
        .args(["-c", MAKE])
        .arg(&path)
        .args([page.to_string(), rows.to_string(), pragmas.to_owned()])
        .output()
        .expect("python3 is needed for this test");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let bytes = std::fs::read(&path).expect("read");
    (bytes, String::from_utf8(out.stdout).expect("ASCII").trim().to_owned())
}

/// The digest of all rows, as Python computes it.
fn read(bytes: &[u8]) -> Result<String, Damage> {
    let mut all = vec![];
    let there = Database::open(bytes)?.rows(b"packages", &mut |row| {
        let [Value::Null, Value::Blob(blob)] = row else { return Err("another row".into()) };
        all.extend(format!("{}:", blob.len()).bytes());
        all.extend_from_slice(blob);
        Ok(())
    })?;
    if there { Ok(FileDigest::of(&all).hex()) } else { Err("no table".into()) }
}

#[test]
fn rows_are_those_that_sqlite_has_at_every_page_size() {
    for shift in 9..=16 {
        let (bytes, digest) = made(1 << shift, 5000 >> (shift - 9).min(3), "");
        assert_eq!(read(&bytes).as_deref(), Ok(digest.as_str()), "pages of {}", 1 << shift);
    }
}

#[test]
fn what_else_a_database_may_have_does_not_matter() {
    for pragmas in ["auto_vacuum=1", "journal_mode=wal", "user_version=9 auto_vacuum=2"] {
        let (mut bytes, digest) = made(1024, 300, pragmas);
        assert_eq!(read(&bytes).as_deref(), Ok(digest.as_str()), "{pragmas}");
        bytes.extend([1; 5000]);
        assert_eq!(read(&bytes).as_deref(), Ok(digest.as_str()), "behind the end");
    }
    let (none, _) = made(512, 0, "");
    let empty = FileDigest::of(b"").hex();
    assert_eq!(read(&none), Ok(empty));
    let (other, _) = made(512, 0, "encoding='UTF-16'");
    assert_eq!(read(&other), Err("its text is not in UTF-8".into()));
}

#[test]
fn damage_is_an_error_and_never_a_panic_or_a_shorter_table() {
    let (bytes, digest) = made(512, 60, "");
    for len in (0..bytes.len()).step_by(97) {
        assert!(read(&bytes[..len]).is_err(), "cut off at {len}");
    }
    // Of a file that says nothing of its size.
    let mut silent = bytes.clone();
    silent[28..32].fill(0);
    assert_eq!(read(&silent), Ok(digest));
    for len in (0..silent.len()).step_by(512) {
        // Pages of other tables and free ones are not missed.
        if let Ok(found) = read(&silent[..len]) {
            assert_eq!(Ok(found), read(&silent), "cut off at {len}");
        }
    }
    let mut state = 7u64;
    let mut chance = |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut refused = 0;
    for _ in 0..20_000 {
        let mut broken = bytes.clone();
        for _ in 0..=chance(3) {
            // Mostly where the structure is: at the beginnings of pages.
            let page = chance(bytes.len() / 512) * 512;
            let at = if chance(2) == 0 { page + chance(16) } else { page + chance(512) };
            broken[at] = [0, 1, 0xff, 0x80, chance(256) as u8][chance(5)];
        }
        refused += usize::from(read(&broken).is_err());
    }
    assert!(refused > 2000, "{refused}");
}

#[test]
fn pages_that_lead_to_themselves_end() {
    let (bytes, digest) = made(512, 400, "");
    let interior = bytes.chunks_exact(512).enumerate().skip(1);
    let interior: Vec<_> = interior.filter(|(_, page)| page[0] == 5).map(|(i, _)| i).collect();
    let mut refused = 0;
    for i in interior {
        let mut ring = bytes.clone();
        ring[i * 512 + 8..i * 512 + 12].copy_from_slice(&(i as u32 + 1).to_be_bytes());
        match read(&ring) {
            // A page of the other table.
            Ok(same) => assert_eq!(same, digest),
            Err(e) => {
                assert_eq!(e, format!("page {} is used twice", i + 1));
                refused += 1;
            }
        }
    }
    assert!(refused > 1, "{refused}");
}
