//! The JSON schema of devbox.toml (draft 2020-12), made from [`keys`](crate::spec::keys).
//!
//! For editors and other tools. It knows the form of every value; what depends on several keys, on
//! files or on the host, only the parser knows.

use serde_json::{Map, Value, json};

use crate::spec::grammar;
use crate::spec::keys;
use crate::spec::shape::{Key, Presence, Shape, Table, Variant};

/// The schema.
#[must_use]
pub fn schema() -> Value {
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "devbox.toml",
    });
    if let (Value::Object(whole), Value::Object(top)) = (&mut schema, table(&keys::SPEC, None)) {
        whole.extend(top);
    }
    schema
}

fn table(table: &Table, only_type: Option<&str>) -> Value {
    let mut properties = Map::new();
    let mut required = vec![];
    let mut groups: Vec<(&str, Vec<&str>)> = vec![];
    for key in table.keys {
        properties.insert(key.name.to_owned(), property(key, only_type));
        match key.presence {
            Presence::Required => required.push(key.name),
            Presence::Default(_) => {}
            Presence::OneOf(group) => match groups.iter_mut().find(|(name, _)| *name == group) {
                Some((_, names)) => names.push(key.name),
                None => groups.push((group, vec![key.name])),
            },
        }
    }
    let mut schema = json!({
        "type": "object",
        "description": table.about,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    });
    if !groups.is_empty() {
        let one_of = |names: &[&str]| -> Vec<Value> {
            names.iter().map(|name| json!({ "required": [name] })).collect()
        };
        let all: Vec<Value> =
            groups.iter().map(|(_, names)| json!({ "oneOf": one_of(names) })).collect();
        schema["allOf"] = Value::Array(all);
    }
    schema
}

fn property(key: &Key, only_type: Option<&str>) -> Value {
    let mut schema = match only_type {
        Some(name) if key.name == "type" => json!({ "const": name }),
        _ => shape(&key.shape),
    };
    let default = match key.presence {
        Presence::Default(words) => format!(" Default: {words}."),
        Presence::Required | Presence::OneOf(_) => String::new(),
    };
    schema["description"] = Value::String(format!("{}{default}", key.about));
    schema
}

fn shape(shape_of: &Shape) -> Value {
    match shape_of {
        Shape::Text(g) => json!({ "type": "string", "pattern": g.pattern, "maxLength": g.longest }),
        Shape::Choice(values) => json!({ "enum": values }),
        Shape::Integer(from, to) => json!({ "type": "integer", "minimum": from, "maximum": to }),
        Shape::Boolean => json!({ "type": "boolean" }),
        Shape::Size(..) => {
            json!({ "type": "string", "pattern": "^(0|[1-9][0-9]*)(B|KiB|MiB|GiB|TiB)$" })
        }
        Shape::Duration(..) => json!({ "type": "string", "pattern": "^(0|[1-9][0-9]*)[smh]$" }),
        Shape::Set(item) => json!({ "type": "array", "items": shape(item), "uniqueItems": true }),
        Shape::Environment => json!({
            "type": "object",
            "propertyNames": { "pattern": grammar::VARIABLE.pattern, "maxLength": grammar::VARIABLE.longest },
            "additionalProperties": { "type": "string", "pattern": r"^[^\x00]*$" },
        }),
        Shape::Values => values(),
        Shape::Table(of) => table(of, None),
        Shape::Variants(variants) => one_of(variants),
        Shape::Named(names, of, defaults) => json!({
            "type": "object",
            "propertyNames": { "pattern": names.pattern, "maxLength": names.longest },
            "minProperties": 1,
            "additionalProperties": with_defaults_of(of, defaults),
        }),
        Shape::List(of) => json!({ "type": "array", "items": table(of, None) }),
        Shape::ListOfVariants(variants) => json!({ "type": "array", "items": one_of(variants) }),
    }
}

/// Texts, whole numbers, true and false, and arrays and tables of these, by name.
fn values() -> Value {
    json!({
        "type": "object",
        "propertyNames": { "pattern": grammar::VARIABLE.pattern, "maxLength": grammar::VARIABLE.longest },
        "additionalProperties": { "type": ["string", "integer", "boolean", "array", "object"] },
    })
}

/// A table that takes from another one what it does not say itself.
fn with_defaults_of(of: &Table, defaults: &Table) -> Value {
    let mut schema = table(of, None);
    for key in of.keys.iter().filter(|key| defaults.keys.iter().any(|d| d.name == key.name)) {
        let words = format!("{} Default: as in `[{}]`.", key.about, defaults.path);
        schema["properties"][key.name]["description"] = Value::String(words);
    }
    schema
}

fn one_of(variants: &[Variant]) -> Value {
    let all: Vec<Value> = variants.iter().map(|v| table(v.table, Some(v.name))).collect();
    json!({ "oneOf": all })
}
