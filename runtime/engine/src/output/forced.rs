//! Tests: the grammar of each family allows what the family writes, nothing else, and the splitter reads it back.

use std::sync::Arc;

use llguidance::{
    Matcher, ParserFactory,
    api::TopLevelGrammar,
    toktrie::{ApproximateTokEnv, TokRxInfo, TokTrie},
};
use serde_json::json;

use super::{format::CALLS, grammar::call_grammar, *};
use crate::api::Token;

/// A vocabulary of single bytes and these control tokens.
const CONTROLS: [&str; 6] =
    ["<|end|>", "[TOOL_CALLS]", "[ARGS]", "<｜tool▁calls▁begin｜>", "<|channel|>", "<|message|>"];

fn controls() -> Vec<(String, Token)> {
    CONTROLS.iter().zip(256..).map(|(text, id)| ((*text).to_owned(), id)).collect()
}

fn tool() -> Tool {
    Tool {
        name: "set_timer".into(),
        description: String::new(),
        parameters: json!({"type": "object", "required": ["minutes", "label"], "additionalProperties": false,
            "properties": {
                "minutes": {"$ref": "#/$defs/minutes"}, "label": {"type": "string"},
                "tone": {"enum": ["low", "high"]}, "loud": {"type": "boolean"}},
            "$defs": {"minutes": {"type": "integer", "minimum": 1, "maximum": 60}}}),
    }
}

fn other() -> Tool {
    Tool { name: "stop".into(), description: String::new(), parameters: serde_json::Value::Null }
}

/// Whether the grammar for `tools` takes the text as a whole.
fn takes(format: &str, tools: &[&Tool], parallel: bool, text: &str) -> bool {
    let words: Vec<Vec<u8>> = (0..=255)
        .map(|byte: u8| if byte == 0xff { vec![] } else { vec![byte] })
        .chain(CONTROLS.iter().map(|text| [&[0xff], text.as_bytes()].concat()))
        .collect();
    let info = TokRxInfo::new(u32::try_from(words.len()).unwrap(), 256);
    let env = Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, &words)));
    let factory = ParserFactory::new_simple(&(env as _)).unwrap();
    let format = CALLS.iter().find(|known| known.name == format).unwrap();
    let lark = call_grammar(format, tools, parallel, &controls());
    let parser = factory.create_parser(TopLevelGrammar::from_lark(lark.clone()));
    let mut matcher = Matcher::new(Ok(parser.unwrap_or_else(|error| panic!("{}: {error:#}\n{lark}", format.name))));
    let mut rest = text.as_bytes();
    while let Some(&byte) = rest.first() {
        // Text cannot spell a control token.
        let (token, used) = match CONTROLS.iter().position(|control| rest.starts_with(control.as_bytes())) {
            Some(index) => (256 + u32::try_from(index).unwrap(), CONTROLS[index].len()),
            None => (u32::from(byte), 1),
        };
        if matcher.try_consume_tokens(&[token]).unwrap() != 1 {
            return false;
        }
        rest = &rest[used..];
    }
    matcher.is_accepting().unwrap()
}

/// What the families write: one call, then two where the family makes several.
fn written() -> Vec<(&'static str, &'static str, Option<&'static str>)> {
    vec![
        (
            "hermes",
            "<tool_call>\n{\"name\": \"set_timer\", \"arguments\": {\"minutes\": 5, \"label\": \"tea ü\"}}\n</tool_call>",
            Some("\n<tool_call>\n{\"name\": \"stop\", \"arguments\": {}}\n</tool_call>"),
        ),
        (
            "qwen3-coder",
            "<tool_call>\n<function=set_timer>\n<parameter=minutes>\n5\n</parameter>\n<parameter=label>\ntea ü\n</parameter>\n</function>\n</tool_call>",
            Some("\n<tool_call>\n<function=stop>\n</function>\n</tool_call>"),
        ),
        (
            "glm",
            "<tool_call>set_timer\n<arg_key>minutes</arg_key>\n<arg_value>5</arg_value>\n<arg_key>label</arg_key>\n<arg_value>tea ü</arg_value>\n</tool_call>",
            Some("\n<tool_call>stop\n</tool_call>"),
        ),
        (
            "minimax-m2",
            "<minimax:tool_call>\n<invoke name=\"set_timer\">\n<parameter name=\"minutes\">5</parameter>\n<parameter name=\"label\">tea ü</parameter>\n</invoke>\n</minimax:tool_call>",
            None,
        ),
        (
            "seed-oss",
            "<seed:tool_call>\n<function=set_timer>\n<parameter=minutes>5</parameter>\n<parameter=label>tea ü</parameter>\n</function>\n</seed:tool_call>",
            Some("\n<seed:tool_call>\n<function=stop>\n</function>\n</seed:tool_call>"),
        ),
        ("llama3", "{\"name\": \"set_timer\", \"parameters\": {\"minutes\": 5, \"label\": \"tea ü\"}}", None),
        (
            "mistral",
            "[TOOL_CALLS][{\"name\": \"set_timer\", \"arguments\": {\"minutes\": 5, \"label\": \"tea ü\"}}]",
            None,
        ),
        (
            "mistral-args",
            "[TOOL_CALLS]set_timer[ARGS]{\"minutes\": 5, \"label\": \"tea ü\"}",
            Some("[TOOL_CALLS]stop[ARGS]{}"),
        ),
        (
            "deepseek-v3",
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>set_timer\n```json\n{\"minutes\": 5, \"label\": \"tea ü\"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            None,
        ),
        (
            "deepseek-v3.1",
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>set_timer<｜tool▁sep｜>{\"minutes\": 5, \"label\": \"tea ü\"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            None,
        ),
        (
            "kimi-k2",
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.set_timer:0<|tool_call_argument_begin|>{\"minutes\": 5, \"label\": \"tea ü\"}<|tool_call_end|><|tool_calls_section_end|>",
            None,
        ),
        (
            "harmony",
            "<|channel|>commentary to=functions.set_timer <|constrain|>json<|message|>{\"minutes\": 5, \"label\": \"tea ü\"}",
            None,
        ),
        (
            "gemma4",
            "<|tool_call>call:set_timer{minutes:5,label:<|\"|>tea ü<|\"|>}<tool_call|>",
            Some("<|tool_call>call:stop{}<tool_call|>"),
        ),
        (
            "function-gemma",
            "<start_function_call>call:set_timer{minutes:5,label:<escape>tea ü<escape>}<end_function_call>",
            Some("<start_function_call>call:stop{}<end_function_call>"),
        ),
        (
            "nemotron",
            "<TOOLCALL>[{\"name\": \"set_timer\", \"arguments\": {\"minutes\": 5, \"label\": \"tea ü\"}}]</TOOLCALL>",
            None,
        ),
        (
            "apriel",
            "<tool_calls>[{\"name\": \"set_timer\", \"arguments\": {\"minutes\": 5, \"label\": \"tea ü\"}}]</tool_calls>",
            None,
        ),
        (
            "command-r7b",
            "<|START_ACTION|>[\n    {\"tool_name\": \"set_timer\", \"parameters\": {\"minutes\": 5, \"label\": \"tea ü\"}}\n]<|END_ACTION|>",
            None,
        ),
        ("lfm2", "<|tool_call_start|>[set_timer(minutes=5,label=\"tea ü\")]<|tool_call_end|>", None),
        (
            "phi4",
            "<|tool_call|>[{\"name\": \"set_timer\", \"arguments\": {\"minutes\": 5, \"label\": \"tea ü\"}}]<|/tool_call|>",
            None,
        ),
        (
            "granite",
            "<|tool_call|>[{\"name\": \"set_timer\", \"arguments\": {\"minutes\": 5, \"label\": \"tea ü\"}}]",
            None,
        ),
    ]
}

fn read_back(format: &str, text: &str) -> Vec<(String, serde_json::Value)> {
    let formats = Formats::of("", |_| false).named(Some(format), Some("none")).unwrap();
    let mut parser = OutputParser::new(formats, vec![tool(), other()], false, 0);
    let mut events = parser.push(text);
    events.extend(parser.finish(""));
    assert_eq!(parser.failures(), 0, "{format}: {events:?}");
    let call = |event| match event {
        Event::ToolCall(call) => (call.name, serde_json::from_str(&call.arguments).unwrap()),
        other => panic!("{format}: {other:?}"),
    };
    events.into_iter().map(call).collect()
}

#[test]
fn what_a_family_writes_is_allowed_and_read_back() {
    let (timer, stop) = (tool(), other());
    let tools = [&timer, &stop];
    let expected = ("set_timer".to_owned(), json!({"minutes": 5, "label": "tea ü"}));
    let written = written();
    for format in CALLS {
        let (name, one, more) = written.iter().find(|(name, ..)| *name == format.name).expect("an example of each");
        assert!(takes(name, &tools, true, one), "{name}: {one}");
        assert!(takes(name, &[&timer], false, one), "{name}, this tool alone: {one}");
        assert!(!takes(name, &[&stop], false, one), "{name}: another tool is required");
        assert_eq!(read_back(name, one), std::slice::from_ref(&expected), "{name}");
        for (right, wrong) in [("5", "99"), ("5", "x"), ("set_timer", "set_alarm"), ("minutes", "hours")] {
            let damaged = one.replacen(right, wrong, 1);
            assert!(!takes(name, &tools, true, &damaged), "{name} allows {damaged}");
        }
        assert!(!takes(name, &tools, true, "Well,"), "{name} allows talk");
        if let Some(more) = more {
            let two = format!("{one}{more}");
            assert!(takes(name, &tools, true, &two), "{name}: {two}");
            assert!(!takes(name, &[&timer], false, &two), "{name}: one call was asked for");
            assert_eq!(read_back(name, &two), [expected.clone(), ("stop".to_owned(), json!({}))], "{name}");
        }
    }
}

#[test]
fn optional_parameters_may_come_and_texts_are_held_to_their_enum() {
    let timer = tool();
    let takes = |format: &str, text: &str| takes(format, &[&timer], false, text);
    let xml = |tone: &str| {
        format!(
            "<tool_call>\n<function=set_timer>\n<parameter=minutes>\n5\n</parameter>\n<parameter=label>\na\nb\n</parameter>\n<parameter=tone>\n{tone}\n</parameter>\n</function>\n</tool_call>"
        )
    };
    assert!(takes("qwen3-coder", &xml("low")) && !takes("qwen3-coder", &xml("lower")));
    let braces = |rest: &str| format!("<|tool_call>call:set_timer{{minutes:5,label:<|\"|>a<|\"|>{rest}}}<tool_call|>");
    for (rest, may) in [
        (",tone:<|\"|>low<|\"|>", true),
        (",tone:<|\"|>low<|\"|>,loud:true", true),
        (",loud:false", true),
        (",tone:low", false),
        (",loud:1", false),
    ] {
        assert_eq!(takes("gemma4", &braces(rest)), may, "{rest}");
    }
    assert!(takes("lfm2", "<|tool_call_start|>[set_timer(minutes=5,label=\"a\",loud=true)]<|tool_call_end|>"));
}

#[test]
fn nothing_is_required_where_all_is_optional() {
    let mut relaxed = tool();
    relaxed.parameters["required"] = json!([]);
    for pairs in ["", "minutes:5", "tone:<|\"|>low<|\"|>", "minutes:5,loud:true"] {
        let text = format!("<|tool_call>call:set_timer{{{pairs}}}<tool_call|>");
        assert!(takes("gemma4", &[&relaxed], false, &text), "{text}");
    }
    assert!(!takes("gemma4", &[&relaxed], false, "<|tool_call>call:set_timer{,loud:true}<tool_call|>"));
}

#[test]
fn a_model_that_repeats_its_call_comes_to_an_end() {
    let stop = other();
    let calls = |n: usize| "[TOOL_CALLS]stop[ARGS]{}".repeat(n);
    assert!(takes("mistral-args", &[&stop], true, &calls(8)) && !takes("mistral-args", &[&stop], true, &calls(9)));
}
