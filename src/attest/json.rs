//! JSON in which no object names a member twice: of two values, one reader takes the first and another
//! one the last, and only one of them was meant to be signed.

use std::fmt;

use serde::Serialize;
use serde::de::{
    Deserialize, DeserializeOwned, Deserializer, Error as _, MapAccess, SeqAccess, Visitor,
};
use serde_json::{Map, Number, Value};

/// Parses one document.
///
/// # Errors
/// It is no JSON, an object names a member twice, or it is nested too deeply.
pub fn parse(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice::<Strict>(bytes).map(|strict| strict.0)
}

/// Reads one document as a `T`, whose members have to stand in it as `T` would write them. (serde takes
/// a list for a structure too, which is no other reader's idea of one.) Others may stand beside them.
///
/// # Errors
/// As [`parse`]; it is no `T`, or one that is spelled differently.
pub fn read<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let value = parse(bytes).map_err(|e| e.to_string())?;
    let read: T = serde_json::from_value(value.clone()).map_err(|e| e.to_string())?;
    match serde_json::to_value(&read).is_ok_and(|written| holds(&value, &written)) {
        true => Ok(read),
        false => Err("a member is not spelled as it has to be".to_owned()),
    }
}

/// Whether all that is in `part` is in `whole`.
fn holds(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(name, part)| whole.get(name).is_some_and(|whole| holds(whole, part)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(w, p)| holds(w, p))
        }
        _ => whole == part,
    }
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Any).map(Strict)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut values = vec![];
        while let Some(Strict(value)) = from.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some((name, Strict(value))) = from.next_entry::<String, Strict>()? {
            if members.contains_key(&name) {
                return Err(A::Error::custom(format!("`{name}` is there twice")));
            }
            members.insert(name, value);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_once_reads_as_usual() {
        let text = r#"{"a": [1, -2, 0.5, true, null, "\u00e4"], "b": {"a": {}}}"#;
        let usual: Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(parse(text.as_bytes()).expect("JSON"), usual);
    }

    #[test]
    fn a_member_twice_is_refused_at_any_depth() {
        for text in [
            r#"{"a": 1, "a": 1}"#,
            r#"{"a": 1, "\u0061": 2}"#,
            r#"[{"b": [{"a": 1, "b": 2, "a": 3}]}]"#,
        ] {
            let e = parse(text.as_bytes()).expect_err("twice");
            assert!(e.to_string().contains("`a` is there twice"), "{e}");
        }
    }

    #[test]
    fn hostile_documents_are_errors() {
        let deep = "[".repeat(100_000);
        let open = format!("{}1", r#"{"a":"#.repeat(10_000));
        for text in
            [deep.as_bytes(), open.as_bytes(), b"", b"{}{}", b"{\"a\"", b"\"\xff\"", b"\"\\ud800\""]
        {
            parse(text).expect_err("no JSON");
        }
    }

    #[test]
    fn a_structure_is_an_object() {
        #[derive(Debug, Serialize, serde::Deserialize)]
        struct Point {
            x: u8,
            names: Vec<String>,
        }
        let good = br#"{"names": ["a"], "x": 1, "y": {}}"#;
        let point: Point = read(good).expect("more members may stand there");
        assert_eq!((point.x, point.names.len()), (1, 1));
        for text in [r#"[1, ["a"]]"#, r#"{"x": 1}"#, r#"{"x": 256, "names": []}"#, "null"] {
            read::<Point>(text.as_bytes()).expect_err(text);
        }
        assert!(serde_json::from_str::<Point>(r#"[1, ["a"]]"#).is_ok(), "serde's idea of it");
    }
}
