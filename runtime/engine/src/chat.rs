//! Conversations to prompt text, through the chat template that the model file brings.
//!
//! The template is a foreign program: it runs in minijinja with a fuel limit and sees nothing but the conversation.

use minijinja::{Environment, Error, ErrorKind, Value, syntax::SyntaxConfig, value::Serde};
use serde::Serialize;
use serde_json::json;

use crate::api::{EngineError, Message, Speaker, Tool};

/// Instructions that a template may execute; a long conversation with tools takes some ten thousand.
const FUEL: u64 = 20_000_000;

/// Characters of Unicode's private use area, one of which marks places where special tokens in messages were broken up.
const BREAKS: std::ops::RangeInclusive<char> = '\u{f8e0}'..='\u{f8ff}';

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
    special: Vec<String>,
}

/// A rendered prompt: pieces that are tokenised one by one, special tokens parsed. One piece unless a message tried to
/// smuggle in special tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered(pub Vec<String>);

impl ChatTemplate {
    /// Compiles a template. `special` are the texts of the control tokens: in messages they are kept from being parsed.
    ///
    /// # Errors
    /// [`EngineError::Unsupported`] with the template's own error and line.
    pub fn new(source: &str, bos: String, eos: String, special: Vec<String>) -> Result<Self, EngineError> {
        let mut environment = Environment::new();
        environment.set_fuel(Some(FUEL));
        // As Hugging Face renders templates.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| EngineError::Failed(format!("template syntax: {error}")))?);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", to_json);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_template_owned("chat", source.to_owned()).map_err(|error| {
            EngineError::Unsupported(format!("the chat template of the model does not parse: {error}"))
        })?;
        Ok(Self { environment, bos, eos, special: special.into_iter().filter(|text| !text.is_empty()).collect() })
    }

    /// The prompt of a conversation, up to where the model speaks.
    ///
    /// # Errors
    /// [`EngineError::InvalidRequest`] with what the template says against the conversation.
    pub fn render(&self, messages: &[Message], tools: &[Tool]) -> Result<Rendered, EngineError> {
        let smuggled = messages.iter().any(|m| self.special.iter().any(|special| m.content.contains(special.as_str())));
        let mark = smuggled
            .then(|| BREAKS.into_iter().find(|mark| !messages.iter().any(|m| m.content.contains(*mark))))
            .flatten();
        if smuggled && mark.is_none() {
            return Err(EngineError::InvalidRequest(
                "a message holds special tokens of the model and every private-use mark that could disarm them".into(),
            ));
        }
        let messages: Vec<_> = messages.iter().map(|message| self.as_json(message, mark)).collect();
        let tools: Option<Vec<_>> = (!tools.is_empty()).then(|| {
            tools
                .iter()
                .map(|tool| {
                    json!({"type": "function", "function": {
                        "name": tool.name, "description": tool.description, "parameters": tool.parameters}})
                })
                .collect()
        });
        let text = self
            .environment
            .get_template("chat")
            .and_then(|template| {
                let mut known = json!({"messages": messages, "add_generation_prompt": true,
                    "bos_token": self.bos, "eos_token": self.eos});
                if let Some(tools) = tools {
                    known["tools"] = tools.into();
                }
                template.render(Serde(known))
            })
            .map_err(|error| {
                EngineError::InvalidRequest(format!(
                    "the chat template of the model refuses this conversation: {error}"
                ))
            })?;
        Ok(Rendered(match mark {
            Some(mark) => text.split(mark).map(str::to_owned).collect(),
            None => vec![text],
        }))
    }

    /// Whether the prompt text already begins with the begin-of-sequence token.
    pub(crate) fn adds_bos(&self, text: &str) -> bool {
        !self.bos.is_empty() && text.starts_with(&self.bos)
    }

    fn as_json(&self, message: &Message, mark: Option<char>) -> serde_json::Value {
        let role = match message.speaker {
            Speaker::System => "system",
            Speaker::User => "user",
            Speaker::Assistant => "assistant",
            Speaker::Tool => "tool",
        };
        let mut content = message.content.clone();
        if let Some(mark) = mark {
            for special in &self.special {
                let first = special.chars().next().map_or(0, char::len_utf8);
                let broken = format!("{}{mark}{}", &special[..first], &special[first..]);
                content = content.replace(special.as_str(), &broken);
            }
        }
        let mut value = json!({"role": role, "content": content});
        if !message.tool_calls.is_empty() {
            value["tool_calls"] = message
                .tool_calls
                .iter()
                .map(|call| {
                    let arguments = serde_json::from_str(&call.arguments)
                        .unwrap_or_else(|_| serde_json::Value::String(call.arguments.clone()));
                    json!({"type": "function", "id": call.id, "function": {"name": call.name, "arguments": arguments}})
                })
                .collect();
        }
        if let Some(id) = &message.tool_call_id {
            value["tool_call_id"] = json!(id);
        }
        value
    }
}

/// `tojson` as the field's templates expect it: Python's separators, no HTML escapes.
fn to_json(value: &Value) -> Result<Value, Error> {
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, PythonStyle);
    value.serialize(&mut serializer).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    String::from_utf8(out)
        .map(Value::from_safe_string)
        .map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
}

/// `", "` and `": "`, as `json.dumps` writes them: models were trained on that spacing.
struct PythonStyle;

impl serde_json::ser::Formatter for PythonStyle {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }
    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }
    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHATML: &str = "{%- if tools %}<|im_start|>tools {{ tools | tojson }}<|im_end|>\n{% endif -%}\
        {% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.strip() }}<|im_end|>\n{% endfor %}\
        {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

    fn template() -> ChatTemplate {
        let special = vec!["<|im_start|>".into(), "<|im_end|>".into(), String::new()];
        ChatTemplate::new(CHATML, String::new(), "<|im_end|>".into(), special).expect("parses")
    }

    #[test]
    fn a_conversation_renders() {
        let rendered = template().render(&[Message::system("be brief"), Message::user(" hi ")], &[]).expect("renders");
        assert_eq!(
            rendered.0,
            ["<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"]
        );
    }

    #[test]
    fn tools_keep_pythons_spacing_and_key_order() {
        let tool = Tool { name: "f".into(), description: "<d>".into(), parameters: json!({"b": [1, 2], "a": "x"}) };
        let rendered = template().render(&[Message::user("hi")], &[tool]).expect("renders");
        let expected = r#"[{"type": "function", "function": {"name": "f", "description": "<d>", "parameters": {"b": [1, 2], "a": "x"}}}]"#;
        assert!(rendered.0[0].contains(expected), "{}", rendered.0[0]);
    }

    #[test]
    fn special_tokens_in_a_message_are_disarmed() {
        let rendered = template().render(&[Message::user("a<|im_end|>b")], &[]).expect("renders");
        assert_eq!(rendered.0.len(), 2);
        assert!(rendered.0[0].ends_with("a<") && rendered.0[1].starts_with("|im_end|>b"));
        assert_eq!(
            rendered.0.concat(),
            template().render(&[Message::user("a<|im_end|>b")], &[]).expect("renders").0.concat()
        );
    }

    #[test]
    fn a_template_that_loops_forever_runs_out_of_fuel() {
        let source = "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}";
        let template = ChatTemplate::new(source, String::new(), String::new(), Vec::new()).expect("parses");
        let error = template.render(&[Message::user("hi")], &[]).expect_err("must stop");
        assert!(error.to_string().contains("fuel"), "{error}");
    }

    #[test]
    fn the_templates_own_refusal_is_passed_on() {
        let template =
            ChatTemplate::new("{{ raise_exception('no system role') }}", String::new(), String::new(), vec![])
                .expect("parses");
        let error = template.render(&[Message::user("hi")], &[]).expect_err("refuses");
        assert!(error.to_string().contains("no system role"), "{error}");
    }
}
