//! The JSON Schema 2020-12 of `locara.json`, from the types.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::{Manifest, host_owned};

/// Where the schema of this version lives.
const ID: &str = "https://locara.dev/schema/v1/locara.schema.json";

/// The schema, as JSON. It accepts at least what [`Manifest::parse`] accepts; some rules (a draft that is its own role, a
/// floor above the ceiling) only the parser knows.
#[must_use]
pub fn schema() -> Value {
    let root = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Manifest>();
    let mut value = root.to_value();
    tidy(&mut value);
    value["$id"] = ID.into();
    value["$defs"]["NotTheHosts"] = json!({
        "description": "Threads, GPU layers, memory mapping, locking, KV types, batching and unloading are the host's. `locara check` tells the reason for each.",
        "not": {"pattern": host_owned::pattern()}
    });
    value
}

/// Removes what serde would accept or Rust knows and a manifest has not: `null` for an absent key, widths of integers.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(object) => {
            tidy_object(object);
            object.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

fn tidy_object(object: &mut Map<String, Value>) {
    // Only where `format` is a keyword: in `properties` it would be an object.
    if object.get("format").is_some_and(Value::is_string) {
        object.remove("format");
    }
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [kind] = types.as_slice() {
            let kind = kind.clone();
            object.insert("type".to_owned(), kind);
        }
    }
    let null = json!({"type": "null"});
    if let Some(Value::Array(choices)) = object.get_mut("anyOf")
        && choices.contains(&null)
    {
        choices.retain(|choice| *choice != null);
        if let [Value::Object(only)] = choices.as_slice() {
            let only = only.clone();
            object.remove("anyOf");
            object.extend(only);
        }
    }
}
