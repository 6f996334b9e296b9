//! The DSSE envelope, version 1 of its protocol: a payload, its type, signatures over both.

use base64ct::{Base64, Base64Url, Encoding as _};
use serde::{Deserialize, Serialize};

use super::{MAX_BYTES, json, refused, shown};
use crate::error::{Error, Result};

/// Most signatures of one envelope that are looked at, so that a hostile one costs little time.
const MAX_SIGNATURES: usize = 16;

/// An envelope, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// How the payload is to be understood.
    pub payload_type: String,
    /// What is signed, together with its type.
    pub payload: Vec<u8>,
    /// The signatures.
    pub signatures: Vec<Signed>,
}

/// One signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// Which key made it, as a hint to find the key; it is not signed itself.
    pub keyid: String,
    /// The signature's bytes.
    pub sig: Vec<u8>,
}

/// The form in a file. Members that are not known are ignored, as the protocol wants it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Json {
    payload_type: String,
    payload: String,
    signatures: Vec<JsonSigned>,
}

#[derive(Serialize, Deserialize)]
struct JsonSigned {
    /// The protocol lets it be absent; here it has to be there, so that no byte of it can be changed
    /// unseen.
    keyid: String,
    sig: String,
}

impl Envelope {
    /// The bytes that are signed.
    #[must_use]
    pub fn pae(&self) -> Vec<u8> {
        pae(&self.payload_type, &self.payload)
    }

    /// The file's text: JSON, one member a line.
    #[must_use]
    pub fn to_json(&self) -> String {
        let signatures = self.signatures.iter().map(|one| JsonSigned {
            keyid: one.keyid.clone(),
            sig: Base64::encode_string(&one.sig),
        });
        let json = Json {
            payload_type: self.payload_type.clone(),
            payload: Base64::encode_string(&self.payload),
            signatures: signatures.collect(),
        };
        let mut text = serde_json::to_string_pretty(&json).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// Kind `Trust`: it is too large, or no envelope.
    pub fn parse(text: &[u8]) -> Result<Self> {
        if text.len() as u64 > MAX_BYTES {
            return Err(no_envelope(format!("it is larger than {MAX_BYTES} bytes")));
        }
        let json: Json = json::read(text).map_err(no_envelope)?;
        match json.signatures.len() {
            0 => return Err(no_envelope("it has no signature")),
            n if n > MAX_SIGNATURES => {
                return Err(no_envelope(format!(
                    "it has {n} signatures; {MAX_SIGNATURES} are read"
                )));
            }
            _ => {}
        }
        let signatures = json
            .signatures
            .into_iter()
            .map(|one| Ok(Signed { keyid: one.keyid, sig: decode("a signature", &one.sig)? }));
        Ok(Envelope {
            payload_type: json.payload_type,
            payload: decode("the payload", &json.payload)?,
            signatures: signatures.collect::<Result<_>>()?,
        })
    }
}

/// DSSE's encoding of a type and a body, of which neither can pass for a part of the other one.
#[must_use]
pub fn pae(payload_type: &str, body: &[u8]) -> Vec<u8> {
    // Lengths are in bytes, as those of a `str` are.
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), body.len());
    [head.as_bytes(), body].concat()
}

/// Base64 in the one or the other alphabet, as the protocol wants it, and each in its one spelling.
fn decode(what: &str, text: &str) -> Result<Vec<u8>> {
    Base64::decode_vec(text)
        .or_else(|_| Base64Url::decode_vec(text))
        .map_err(|_| no_envelope(format!("{what} is not base64")))
}

fn no_envelope(why: impl std::fmt::Display) -> Error {
    refused("it is not a DSSE envelope")
        .cause(shown(why))
        .hint("Fetch it again, or have the images compared and signed again.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    /// The first one is the protocol's own example; the others follow its rules: lengths count bytes,
    /// of nothing there are 0, and a body may be any bytes.
    #[test]
    fn the_pae_is_the_protocol_s() {
        assert_eq!(
            pae("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
        assert_eq!(
            pae("application/vnd.ex\u{e4}mple+json", b"{}"),
            "DSSEv1 29 application/vnd.ex\u{e4}mple+json 2 {}".as_bytes()
        );
        assert_eq!(pae("", b""), b"DSSEv1 0  0 ");
        assert_eq!(pae("a", b"\xfb\xff 1 "), b"DSSEv1 1 a 5 \xfb\xff 1 ");
    }

    /// The protocol's own example, which is signed by a key that is not of SSH.
    #[test]
    fn the_protocol_s_example_is_read_and_so_is_the_other_alphabet() {
        let text = r#"{"payload": "aGVsbG8gd29ybGQ=",
            "payloadType": "http://example.com/HelloWorld",
            "signatures": [{"keyid": "1", "sig": "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA=="}]}"#;
        let read = Envelope::parse(text.as_bytes()).expect("an envelope");
        assert_eq!(read.payload, b"hello world");
        assert_eq!((read.signatures[0].keyid.as_str(), read.signatures[0].sig.len()), ("1", 64));
        assert_eq!(Envelope::parse(read.to_json().as_bytes()).expect("again"), read);
        let other = text.replace('+', "-");
        assert_eq!(Envelope::parse(other.as_bytes()).expect("URL-safe"), read);
        let unknown = text.replacen('{', r#"{"extension": {"a": [1]}, "#, 1);
        assert_eq!(Envelope::parse(unknown.as_bytes()).expect("more members"), read);
    }

    #[test]
    fn what_is_no_envelope_is_refused() {
        let large = " ".repeat(usize::try_from(MAX_BYTES).expect("small") + 1);
        let signed = r#"{"keyid": "1", "sig": "AAAA"}"#;
        let many = vec![signed; MAX_SIGNATURES + 1].join(",");
        let with = |payload: &str, signatures: &str| {
            format!(
                r#"{{"payload": "{payload}", "payloadType": "a", "signatures": [{signatures}]}}"#
            )
        };
        Envelope::parse(with("AA==", signed).as_bytes()).expect("a small one");
        let cases = [
            (large.as_str(), "larger than"),
            ("[]", "invalid length"),
            (r#"["a", "AA==", [["1", "AAAA"]]]"#, "not spelled as it has to be"),
            ("", "EOF"),
            (r#"{"payload": "", "payload": "", "payloadType": "a", "signatures": []}"#, "twice"),
            (&with("AA==", ""), "no signature"),
            (&with("AA==", &many), "17 signatures"),
            (&with("AA=", signed), "the payload is not base64"),
            (&with("AB==", signed), "the payload is not base64"),
            (&with("A A=", signed), "the payload is not base64"),
            (&with("-+AA", signed), "the payload is not base64"),
            (&with("AA==", r#"{"keyid": "1", "sig": "\n"}"#), "a signature is not base64"),
            (&with("AA==", r#"{"sig": "AAAA"}"#), "missing field `keyid`"),
            (&with("AA==", r#"{"keyid": 1, "sig": "AAAA"}"#), "invalid type"),
        ];
        for (text, why) in cases {
            let e = Envelope::parse(text.as_bytes()).expect_err("refused");
            assert_eq!(e.kind(), Kind::Trust);
            assert!(e.to_string().contains(why), "{e}");
        }
    }
}
