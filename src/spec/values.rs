//! Values for other programs: what JSON, YAML and TOML say in the same way.

use serde_json::Value;
use toml::de::DeValue;

use crate::spec::reader::{At, Collector};

/// The largest whole number that every reader of JSON keeps: 2^53 - 1 (RFC 8259, section 6).
const LARGEST: i64 = (1 << 53) - 1;

/// The value with everything in it; reports what cannot be one.
pub(super) fn value(at: &At<&DeValue<'_>>, c: &mut Collector) -> Option<Value> {
    let inner = |value, path, span| At { value, path, span };
    match at.value {
        DeValue::String(text) => Some(Value::String(text.clone().into_owned())),
        DeValue::Boolean(b) => Some(Value::Bool(*b)),
        DeValue::Integer(number) => {
            let n = i64::from_str_radix(number.as_str(), number.radix()).ok();
            let n = n.filter(|n| (-LARGEST..=LARGEST).contains(n));
            if n.is_none() {
                let what = "the number is larger than every program reads it";
                c.report(&at.path, at.span.clone(), what).hint =
                    Some("Put it in quotes.".to_owned());
            }
            n.map(Value::from)
        }
        DeValue::Array(items) => {
            let items = items.iter().enumerate().map(|(i, item)| {
                value(&inner(item.get_ref(), format!("{}[{i}]", at.path), item.span()), c)
            });
            items.collect::<Vec<_>>().into_iter().collect::<Option<Vec<_>>>().map(Value::Array)
        }
        DeValue::Table(table) => {
            let mut map = serde_json::Map::new();
            for (name, item) in table {
                let path = format!("{}.{}", at.path, name.get_ref());
                let item = value(&inner(item.get_ref(), path, item.span()), c)?;
                map.insert(name.get_ref().clone().into_owned(), item);
            }
            Some(Value::Object(map))
        }
        DeValue::Float(_) | DeValue::Datetime(_) => {
            let problem =
                c.report(&at.path, at.span.clone(), "wrong type: no value for another program");
            problem.expected =
                Some("a string, a whole number, `true` or `false`, an array or a table".to_owned());
            problem.hint = Some("Put the value in quotes.".to_owned());
            None
        }
    }
}
