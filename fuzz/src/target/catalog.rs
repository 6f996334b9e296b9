//! A Vagrant catalog, and the range of versions that somebody asks of it.

use super::checks;
use crate::digest::FileDigest;
use crate::import::catalog::{Catalog, Wanted};
use crate::import::offer::Offer;
use crate::import::version::Range;

/// A line with a range, then the catalog.
pub fn catalog(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (range, text) = data.split_at(at);
    let range = match Range::parse(&String::from_utf8_lossy(range)) {
        Ok(range) => range,
        Err(e) => {
            checks::message(&e.to_string());
            Range::default()
        }
    };
    if let Some(read) = Catalog::parse(text, "catalog") {
        match read {
            Ok(catalog) => chosen(&catalog, range),
            Err(e) => checks::message(&e.to_string()),
        }
    }
    let offer = Offer {
        name: "web".into(),
        version: "1.2.0".into(),
        arch: "amd64".into(),
        url: "https://boxes.example/web.box".into(),
        sha256: FileDigest::of(b"box"),
        replace: true,
    };
    match offer.added_to(Some(text), "catalog") {
        // What was written is taken as it is the next time.
        Ok(text) => {
            assert_eq!(offer.added_to(Some(text.as_bytes()), "catalog").expect("again"), text)
        }
        Err(e) => checks::message(&e.to_string()),
    }
}

fn chosen(catalog: &Catalog, range: Range) {
    match catalog.choose(&Wanted { range: range.clone(), provider: None, arch: "amd64" }, "catalog")
    {
        Ok(choice) => {
            assert!(range.holds(&choice.version));
            if let Some(hex) = choice.checksum {
                assert!(
                    matches!(hex.len(), 64 | 128) && hex.bytes().all(|b| b.is_ascii_hexdigit())
                );
            }
        }
        Err(e) => checks::message(&e.to_string()),
    }
}
