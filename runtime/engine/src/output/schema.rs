//! Which types a JSON Schema allows, as far as text needs to be told from other values.

use serde_json::Value;

/// Schemas inside schemas that are looked into; deeper ones allow anything.
const MAX_DEPTH: usize = 8;

/// Types that a schema allows, as JSON Schema names them.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Allowed {
    pub(super) string: bool,
    pub(super) number: bool,
    pub(super) boolean: bool,
    pub(super) null: bool,
    pub(super) object: bool,
    pub(super) array: bool,
}

impl Allowed {
    /// What `schema` allows, which stands in `root`.
    pub(super) fn by(schema: &Value, root: &Value) -> Self {
        let mut allowed = Self::default();
        collect(schema, root, MAX_DEPTH, &mut allowed);
        allowed
    }

    /// Whether the schema says anything of types.
    pub(super) fn any(self) -> bool {
        self.string || self.number || self.boolean || self.null || self.object || self.array
    }

    pub(super) fn takes(self, value: &Value) -> bool {
        match value {
            Value::Null => self.null,
            Value::Bool(_) => self.boolean,
            Value::Number(_) => self.number,
            Value::String(_) => self.string,
            Value::Array(_) => self.array,
            Value::Object(_) => self.object,
        }
    }

    fn add(&mut self, name: &str) {
        match name {
            "string" => self.string = true,
            "number" | "integer" => self.number = true,
            "boolean" => self.boolean = true,
            "null" => self.null = true,
            "object" => self.object = true,
            "array" => self.array = true,
            _ => {}
        }
    }

    fn add_type_of(&mut self, value: &Value) {
        match value {
            Value::Null => self.null = true,
            Value::Bool(_) => self.boolean = true,
            Value::Number(_) => self.number = true,
            Value::String(_) => self.string = true,
            Value::Array(_) => self.array = true,
            Value::Object(_) => self.object = true,
        }
    }
}

/// Adds the types that `schema` allows.
fn collect(schema: &Value, root: &Value, depth: usize, allowed: &mut Allowed) {
    let Some(depth) = depth.checked_sub(1) else { return };
    match schema.get("type") {
        Some(Value::String(name)) => allowed.add(name),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).for_each(|name| allowed.add(name)),
        _ => {}
    }
    let values = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
    values.chain(schema.get("const")).for_each(|value| allowed.add_type_of(value));
    for one_of in ["anyOf", "oneOf", "allOf"] {
        for inner in schema.get(one_of).and_then(Value::as_array).into_iter().flatten() {
            collect(inner, root, depth, allowed);
        }
    }
    if let Some(inner) = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix('#'))
        && let Some(inner) = root.pointer(inner)
    {
        collect(inner, root, depth, allowed);
    }
}
