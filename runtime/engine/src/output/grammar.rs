//! Grammars that force a call in the form that the model was trained on (Lark in llguidance's dialect).

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{
    format::{Body, CallFormat, Shape, Xml},
    schema::Allowed,
};
use crate::api::{Token, Tool};

/// Calls that one forced answer may make: a model that repeats itself must come to an end.
const MAX_CALLS: usize = 8;

/// Properties of an object that are written out; more are a schema that no model follows.
const MAX_PROPERTIES: usize = 128;

/// The grammar for a call of one of `tools`, or for several calls of them where `parallel` and the format allow it.
/// `controls` are the control tokens with their texts: they are no text, so a grammar must name them as tokens.
pub(crate) fn call_grammar(
    format: &CallFormat,
    tools: &[&Tool],
    parallel: bool,
    controls: &[(String, Token)],
) -> String {
    let mut writer = Writer { controls, rules: String::new(), made: 0 };
    let calls: Vec<String> = tools.iter().map(|tool| writer.call(format, tool)).collect();
    let call = writer.rule(&calls.join(" | "));
    let (first, last) = (writer.literal(format.written.first), writer.literal(format.written.last));
    let between = writer.literal(format.written.between);
    let more = if !parallel || format.written.between.is_empty() && !ends_itself(format) {
        String::new()
    } else {
        format!("( {between} {call} ){{0,{}}}", MAX_CALLS - 1)
    };
    format!("start: {first} {call} {more} {last}\n{}", writer.rules)
}

/// Whether calls stand next to each other with nothing between them.
fn ends_itself(format: &CallFormat) -> bool {
    match format.blocks.first().map(|block| &block.body) {
        Some(Body::Named(named)) => !named.after.is_empty() && !named.between.contains(":0"),
        Some(Body::JsonOrNamed(_)) => true,
        _ => false,
    }
}

/// White space between two parts of JSON: a line end and indentation.
const JSON_SPACE: &str = "[ \\n\\t]{1,16}";

/// The schema with a bound on the white space in JSON, unless it sets one itself: a model that may write any amount of it
/// does not stop.
pub(crate) fn with_bounded_space(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Value::Object(inner) = &mut schema {
        inner.entry("x-guidance").or_insert_with(|| json!({"whitespace_pattern": JSON_SPACE}));
    }
    schema
}

struct Writer<'a> {
    controls: &'a [(String, Token)],
    rules: String,
    made: usize,
}

impl Writer<'_> {
    /// A rule of its own; returns its name.
    fn rule(&mut self, expression: &str) -> String {
        self.rule_with("", expression)
    }

    fn rule_with(&mut self, attributes: &str, expression: &str) -> String {
        let name = format!("r{}", self.made);
        self.made += 1;
        // Writing into a string cannot fail.
        let _ = writeln!(self.rules, "{name}{attributes}: {expression}");
        name
    }

    /// A text as it has to be written: control tokens in it by their number, the rest as a string.
    fn literal(&self, text: &str) -> String {
        let mut parts: Vec<String> = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let tokens = self.controls.iter().filter(|(text, _)| !text.is_empty());
            let next = tokens
                .filter_map(|(text, token)| rest.find(text.as_str()).map(|at| (at, text, token)))
                .min_by_key(|(at, text, _)| (*at, usize::MAX - text.len()));
            let Some((at, token_text, token)) = next else {
                parts.push(quoted(rest));
                break;
            };
            if at > 0 {
                parts.push(quoted(&rest[..at]));
            }
            parts.push(format!("<[{token}]>"));
            rest = &rest[at + token_text.len()..];
        }
        parts.join(" ")
    }

    /// Any text up to `end`, which is part of it.
    fn text_until(&mut self, end: &str) -> String {
        let literal = self.literal(end);
        if literal.contains("<[") {
            let text = self.rule("/(?s:.*)/");
            return format!("{text} {literal}");
        }
        self.rule_with(&format!("[suffix={literal}]"), "/(?s:.*)/")
    }

    /// JSON by a schema.
    fn json(&mut self, schema: &Value) -> String {
        self.rule(&format!("%json {}", with_bounded_space(schema)))
    }

    fn call(&mut self, format: &CallFormat, tool: &Tool) -> String {
        let name = Value::String(tool.name.clone()).to_string();
        if let Shape::Json(name_key, arguments_key) = format.written.call {
            let arguments = self.json(&object_schema(tool));
            let before = quoted(&format!("{{\"{name_key}\": {name}, \"{arguments_key}\": "));
            return self.rule(&format!("{before} {arguments} \"}}\""));
        }
        let expression = match format.blocks.first().map(|block| &block.body) {
            Some(Body::Named(named) | Body::JsonOrNamed(named)) => {
                let before = self.literal(named.before);
                let after = self.literal(named.after);
                let between = self.literal(named.between);
                let arguments = self.json(&object_schema(tool));
                format!("{before} {} {between} {arguments} {after}", quoted(&tool.name))
            }
            Some(Body::Xml(xml)) => self.xml(xml, tool),
            Some(Body::Braces(quote)) => {
                let pairs = self.pairs(tool, ":", |writer, schema| writer.braces_value(quote, schema));
                format!("{} {pairs} \"}}\"", quoted(&format!("call:{}{{", tool.name)))
            }
            Some(Body::Python) => {
                let pairs = self.pairs(tool, "=", |writer, schema| writer.json(schema));
                format!("{} {pairs} \")\"", quoted(&format!("{}(", tool.name)))
            }
            Some(Body::Json) | None => {
                // Harmony: the addressee stands in the header.
                let after = self.literal(" <|constrain|>json<|message|>");
                let arguments = self.json(&object_schema(tool));
                format!("{} {after} {arguments}", quoted(&tool.name))
            }
        };
        self.rule(&expression)
    }

    fn xml(&mut self, xml: &Xml, tool: &Tool) -> String {
        let [open, name_end, close] = xml.function;
        let line = if xml.lines { "\n" } else { "" };
        let mut call = self.literal(&format!("{open}{}{name_end}", tool.name));
        for (key, schema, required) in properties(tool) {
            let [open, key_end, value_open, value_close] = xml.parameter;
            let gap = if value_open.is_empty() { "" } else { "\n" };
            let begin = self.literal(&format!("\n{open}{key}{key_end}{gap}{value_open}{line}"));
            let end = format!("{line}{value_close}");
            let value = match bare_texts(&schema) {
                Bare::Any => self.text_until(&end),
                Bare::OneOf(texts) => {
                    let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
                    format!("( {} ) {}", texts.join(" | "), self.literal(&end))
                }
                Bare::No => format!("{} {}", self.json(&schema), self.literal(&end)),
            };
            let parameter = self.rule(&format!("{begin} {value}"));
            let _ = write!(call, " {parameter}{}", if required { "" } else { "?" });
        }
        if !close.is_empty() {
            call.push(' ');
            call.push_str(&self.literal(&format!("\n{close}")));
        }
        call
    }

    /// `key:value` pairs with commas between them: all that are required, then any of the others, in the schema's order.
    fn pairs(&mut self, tool: &Tool, colon: &str, value: impl Fn(&mut Self, &Value) -> String) -> String {
        let mut required = Vec::new();
        let mut others = Vec::new();
        for (key, schema, is_required) in properties(tool) {
            let value = value(self, &schema);
            let pair = self.rule(&format!("{} {value}", quoted(&format!("{key}{colon}"))));
            if is_required { required.push(pair) } else { others.push(pair) }
        }
        if !required.is_empty() {
            let mut all = required.join(" \",\" ");
            for other in others {
                let _ = write!(all, " ( \",\" {other} )?");
            }
            return all;
        }
        // From the back: an optional pair, with or without those after it.
        let mut after = String::new();
        let mut alternatives = Vec::new();
        for other in others.iter().rev() {
            alternatives.push(format!("{other} {after}"));
            after = format!("( \",\" {other} )? {after}");
        }
        if alternatives.is_empty() { String::new() } else { format!("( {} )?", alternatives.join(" | ")) }
    }

    /// A value in Gemma's form. What is inside arrays and objects is not held to the schema: it has no grammar for that form.
    fn braces_value(&mut self, quote: &str, schema: &Value) -> String {
        let quote_literal = self.literal(quote);
        let allowed = Allowed::by(schema, schema);
        match bare_texts(schema) {
            Bare::Any if allowed.any() => {
                let text = self.text_until(quote);
                format!("{quote_literal} {text}")
            }
            Bare::OneOf(texts) => {
                let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
                format!("{quote_literal} ( {} ) {quote_literal}", texts.join(" | "))
            }
            // Numbers and constants are written as in JSON.
            Bare::No if !allowed.array && !allowed.object => self.json(schema),
            Bare::Any | Bare::No => {
                let text = self.text_until(quote);
                let key = self.rule("/[A-Za-z_][A-Za-z0-9_-]*/");
                let (value, list, object) = (self.reserve(), self.reserve(), self.reserve());
                let scalar = self.json(&json!({"type": ["number", "boolean", "null"]}));
                let _ = writeln!(
                    self.rules,
                    "{value}: {quote_literal} {text} | {scalar} | {list} | {object}\n\
                     {list}: \"[\" ( {value} ( \",\" {value} )* )? \"]\"\n\
                     {object}: \"{{\" ( {key} \":\" {value} ( \",\" {key} \":\" {value} )* )? \"}}\""
                );
                match (allowed.array, allowed.object) {
                    (true, false) => list,
                    (false, true) => object,
                    _ => value,
                }
            }
        }
    }

    fn reserve(&mut self) -> String {
        self.made += 1;
        format!("r{}", self.made - 1)
    }
}

/// A string of Lark, which is written as JSON writes strings.
fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

/// The schema of the arguments; whatever it says, they are an object.
fn object_schema(tool: &Tool) -> Value {
    match &tool.parameters {
        Value::Object(schema) if schema.contains_key("type") || schema.contains_key("$ref") => tool.parameters.clone(),
        Value::Object(schema) => {
            let mut schema = schema.clone();
            schema.insert("type".into(), "object".into());
            Value::Object(schema)
        }
        _ => json!({"type": "object"}),
    }
}

/// Each property with its schema and whether it is required.
fn properties(tool: &Tool) -> Vec<(String, Value, bool)> {
    let root = &tool.parameters;
    let required: Vec<&str> =
        root.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let properties = root.get("properties").and_then(Value::as_object).into_iter().flatten();
    properties
        .take(MAX_PROPERTIES)
        .map(|(key, schema)| {
            let mut schema = schema.clone();
            if let Value::Object(inner) = &mut schema {
                // References point into the schema of all arguments.
                for shared in ["$defs", "definitions"] {
                    if let Some(definitions) = root.get(shared) {
                        inner.insert(shared.into(), definitions.clone());
                    }
                }
            }
            (key.clone(), schema, required.contains(&key.as_str()))
        })
        .collect()
}

/// What may stand where values are bare text.
enum Bare {
    Any,
    OneOf(Vec<String>),
    No,
}

fn bare_texts(schema: &Value) -> Bare {
    if let Some(texts) = schema.get("enum").and_then(Value::as_array) {
        let texts: Option<Vec<String>> = texts.iter().map(|text| text.as_str().map(str::to_owned)).collect();
        return texts.filter(|texts| !texts.is_empty()).map_or(Bare::No, Bare::OneOf);
    }
    match schema.get("const") {
        Some(Value::String(text)) => Bare::OneOf(vec![text.clone()]),
        Some(_) => Bare::No,
        None => {
            let allowed = Allowed::by(schema, schema);
            // Where text is one of several types, the schema tells afterwards what it is.
            if allowed.string || !allowed.any() { Bare::Any } else { Bare::No }
        }
    }
}
