//! The JSON Schemas 2020-12 of `locara.json`, `registry.json` and `locara.toml`, from the types.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::{Config, Manifest, Registry, host_owned};

/// Where the schemas of this version live.
const BASE: &str = "https://locara.dev/schema/v1/";

/// The schema, as JSON. It accepts at least what [`Manifest::parse`] accepts; some rules (a draft that is its own role, a
/// floor above the ceiling) only the parser knows.
#[must_use]
pub fn schema() -> Value {
    let mut value = of::<Manifest>("locara.schema.json");
    value["$defs"]["NotTheHosts"] = json!({
        "description": "Threads, GPU layers, memory mapping, locking, KV types, batching and unloading are the host's. `locara check` tells the reason for each.",
        "not": {"pattern": host_owned::pattern(|_| true)}
    });
    value
}

/// The schema of `registry.json`, as JSON. It accepts at least what [`Registry::parse`] accepts; what must hold between
/// names only the parser knows.
#[must_use]
pub fn registry_schema() -> Value {
    of::<Registry>("registry.schema.json")
}

/// The schema of `locara.toml`, as JSON, for editors that know `#:schema`. It accepts at least what [`Config::parse`]
/// accepts.
#[must_use]
pub fn config_schema() -> Value {
    let mut value = of::<Config>("config.schema.json");
    value["$defs"]["NotTheHosts"] = json!({
        "description": "Threads, GPU layers, memory mapping and locking are the host's own decisions.",
        "not": {"pattern": host_owned::pattern(|entry| entry.nobodys)}
    });
    value
}

fn of<T: JsonSchema>(file: &str) -> Value {
    let root = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
    let mut value = root.to_value();
    tidy(&mut value);
    value["$id"] = format!("{BASE}{file}").into();
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
