//! What the families write, cut everywhere; and the same damaged, which has to stay text word for word.

use proptest::prelude::*;
use serde_json::json;

use super::{
    format::{CALLS, REASONING},
    *,
};

fn formats(calls: &str, reasoning: &str) -> Formats {
    Formats::of("", |_| false).named(Some(calls), Some(reasoning)).expect("known names")
}

fn tools() -> Vec<Tool> {
    let tool = |name: &str, properties: serde_json::Value| Tool {
        name: name.into(),
        description: String::new(),
        parameters: json!({"type": "object", "properties": properties}),
    };
    vec![
        tool("weather", json!({"city": {"type": "string"}, "days": {"type": "integer"}})),
        tool(
            "write",
            json!({"text": {"type": "string"}, "on": {"type": "boolean"}, "note": {"type": ["string", "null"]},
                "lines": {"$ref": "#/$defs/lines"}, "any": {}}),
        ),
    ]
    .into_iter()
    .map(|mut tool| {
        tool.parameters["$defs"] = json!({"lines": {"anyOf": [{"type": "array"}, {"type": "null"}]}});
        tool
    })
    .collect()
}

fn parser(calls: &str, reasoning: &str, opened: bool) -> OutputParser {
    OutputParser::new(formats(calls, reasoning), tools(), opened, 7)
}

fn run<'a>(parser: &mut OutputParser, pieces: impl IntoIterator<Item = &'a str>) -> Vec<Event> {
    let mut events: Vec<Event> = pieces.into_iter().flat_map(|piece| parser.push(piece)).collect();
    let content: String = events
        .iter()
        .filter_map(|event| if let Event::Text(text) = event { Some(text.as_str()) } else { None })
        .collect();
    events.extend(parser.finish(&content));
    let mut joined: Vec<Event> = Vec::new();
    for event in events {
        match (joined.last_mut(), &event) {
            (Some(Event::Text(all)), Event::Text(text)) | (Some(Event::Thinking(all)), Event::Thinking(text)) => {
                all.push_str(text);
            }
            _ => joined.push(event),
        }
    }
    joined
}

/// The events of an answer, which are the same however it is cut.
#[track_caller]
fn events_of(make: impl Fn() -> OutputParser, answer: &str) -> (Vec<Event>, u64) {
    let mut whole = make();
    let expected = run(&mut whole, [answer]);
    let borders: Vec<usize> = answer.char_indices().map(|(at, _)| at).skip(1).collect();
    for &at in &borders {
        let mut parser = make();
        assert_eq!(run(&mut parser, [&answer[..at], &answer[at..]]), expected, "cut at byte {at} of {answer:?}");
        assert_eq!(parser.failures(), whole.failures(), "cut at byte {at} of {answer:?}");
    }
    let mut parser = make();
    let mut chars = answer.char_indices().map(|(at, c)| &answer[at..at + c.len_utf8()]);
    assert_eq!(run(&mut parser, &mut chars), expected, "cut at every byte of {answer:?}");
    (expected, whole.failures())
}

fn text(text: &str) -> Event {
    Event::Text(text.into())
}

fn thought(text: &str) -> Event {
    Event::Thinking(text.into())
}

fn call(n: usize, name: &str, arguments: serde_json::Value) -> Event {
    Event::ToolCall(ToolCall { id: format!("call_7_{n}"), name: name.into(), arguments: arguments.to_string() })
}

fn weather(n: usize) -> Event {
    call(n, "weather", json!({"city": "Köln", "days": 3}))
}

#[track_caller]
fn check(format: &str, reasoning: &str, answer: &str, expected: &[Event]) {
    assert_eq!(events_of(|| parser(format, reasoning, false), answer), (expected.to_vec(), 0), "{format}");
}

/// The answer is no call: it comes out word for word and is counted.
#[track_caller]
fn stays_text(format: &str, answer: &str) {
    let (events, failures) = events_of(|| parser(format, "none", false), answer);
    assert_eq!(events, [text(answer)], "{format}");
    assert!(failures > 0, "{format}: {answer:?} is not counted");
}

/// Damages a good answer in ways that models do: it ends early, or a byte of its structure is missing.
#[track_caller]
fn damaged_stays_text(format: &str, answer: &str, damage: &[(&str, &str)]) {
    for (right, wrong) in damage {
        assert!(answer.contains(right), "{right:?} is not in {answer:?}");
        stays_text(format, &answer.replacen(right, wrong, 1));
    }
}

#[test]
fn hermes() {
    let one = "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Köln\", \"days\": 3}}\n</tool_call>";
    check("hermes", "none", one, &[weather(1)]);
    check("hermes", "none", &format!("I look.\n{one}\n{one}\n"), &[text("I look."), weather(1), weather(2)]);
    check("hermes", "none", &format!("{one}\nDone."), &[weather(1), text("Done.")]);
    check("hermes", "none", one.trim_end_matches("</tool_call>"), &[weather(1)]);
    check("hermes", "think", &format!("<think>\nhm\nm\n</think>\n\n{one}"), &[thought("hm\nm"), weather(1)]);
    damaged_stays_text(
        "hermes",
        one,
        &[("\"name\"", "name"), ("}}", "}"), ("{\"city", "[\"city"), ("\"arguments\"", "\"input\"")],
    );
    // Both spellings of the arguments, and arguments in a string.
    check("hermes", "none", &one.replace("arguments", "parameters"), &[weather(1)]);
    let in_text = r#"<tool_call>{"name": "weather", "arguments": "{\"city\": \"Köln\", \"days\": 3}"}</tool_call>"#;
    check("hermes", "none", in_text, &[weather(1)]);
    check("hermes", "none", "<tool_call>{\"name\":\"now\"}", &[call(1, "now", json!({}))]);
}

#[test]
fn a_closing_tag_inside_an_argument_is_part_of_it() {
    let said = "say </tool_call> or <tool_call>";
    let json = format!("<tool_call>{{\"name\": \"write\", \"arguments\": {{\"text\": \"{said}\"}}}}</tool_call> ok");
    check("hermes", "none", &json, &[call(1, "write", json!({"text": said})), text("ok")]);
    let said = "a </parameter> b\n</tool_call>\n<parameter> </function>";
    let xml =
        format!("<tool_call>\n<function=write>\n<parameter=text>\n{said}\n</parameter>\n</function>\n</tool_call>");
    check("qwen3-coder", "none", &xml, &[call(1, "write", json!({"text": said}))]);
    let said = "a </arg_value> b </tool_call>";
    let glm = format!("<tool_call>write\n<arg_key>text</arg_key>\n<arg_value>{said}</arg_value>\n</tool_call>");
    check("glm", "none", &glm, &[call(1, "write", json!({"text": said}))]);
}

#[test]
fn a_damaged_call_takes_no_good_one_with_it() {
    let good = "<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"Köln\", \"days\": 3}}</tool_call>";
    for bad in [
        "<tool_call>{\"name\": weather}</tool_call>",
        "<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"K}}</tool_call>",
    ] {
        let (events, failures) = events_of(|| parser("hermes", "none", false), &format!("{bad}\n{good}"));
        assert_eq!(events, [text(bad), weather(1)]);
        assert_eq!(failures, 1);
        let (events, _) = events_of(|| parser("hermes", "none", false), &format!("{good} {bad}"));
        assert_eq!(events, [weather(1), text(bad)]);
    }
}

#[test]
fn a_call_that_was_cut_off_stays_text() {
    let whole = "I look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Köln\"";
    stays_text("hermes", whole);
    stays_text("qwen3-coder", "<tool_call>\n<function=weather>\n<parameter=city>\nKöl");
    stays_text("mistral", "[TOOL_CALLS][{\"name\": \"weather\", \"arg");
    stays_text("deepseek-v3.1", "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"city\"");
}

#[test]
fn qwen3_coder() {
    let one = "<tool_call>\n<function=weather>\n<parameter=city>\nKöln\n</parameter>\n<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>";
    check("qwen3-coder", "none", &format!("Ok.\n\n{one}\n{one}"), &[text("Ok."), weather(1), weather(2)]);
    let bare = "<tool_call>\n<function=weather>\n</function>\n</tool_call>";
    check("qwen3-coder", "none", bare, &[call(1, "weather", json!({}))]);
    damaged_stays_text(
        "qwen3-coder",
        one,
        &[("</function>", ""), ("<function=", "<func="), ("=weather>", "=>"), ("3\n</parameter>", "3\n")],
    );
}

#[test]
fn models_mix_the_forms_that_stand_between_the_same_tags() {
    let json = "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Köln\", \"days\": 3}}\n</tool_call>";
    let xml = "<tool_call>\n<function=weather>\n<parameter=city>\nKöln\n</parameter>\n<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>";
    check("hermes", "none", &format!("{xml}{json}"), &[weather(1), weather(2)]);
    check("qwen3-coder", "none", &format!("{json}{xml}"), &[weather(1), weather(2)]);
}

#[test]
fn bare_text_gets_the_type_that_the_schema_gives_it() {
    let args = |pairs: &[(&str, &str)]| {
        let parameters: String =
            pairs.iter().map(|(key, value)| format!("<parameter={key}>\n{value}\n</parameter>\n")).collect();
        format!("<tool_call>\n<function=write>\n{parameters}</function>\n</tool_call>")
    };
    let cases = [
        ("text", "3", json!("3")),
        ("text", "true", json!("true")),
        ("text", "  two\n\nlines ", json!("  two\n\nlines ")),
        ("text", "\"quoted\"", json!("\"quoted\"")),
        ("on", "True", json!(true)),
        ("on", "perhaps", json!("perhaps")),
        ("note", "null", json!(null)),
        ("note", "3", json!("3")),
        ("lines", "[1, \"a\"]", json!([1, "a"])),
        ("any", "{\"a\": 1}", json!({"a": 1})),
        ("any", "some words", json!("some words")),
        ("unknown", "2.5", json!(2.5)),
    ];
    for (key, value, expected) in cases {
        check("qwen3-coder", "none", &args(&[(key, value)]), &[call(1, "write", json!({key: expected}))]);
    }
}

#[test]
fn glm() {
    let one = "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Köln</arg_value>\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>";
    check(
        "glm",
        "think",
        &format!("\n<think>hm</think>\nOk.\n{one}\n{one}"),
        &[thought("hm"), text("Ok."), weather(1), weather(2)],
    );
    check("glm", "none", &one.replace('\n', ""), &[weather(1)]);
    check("glm", "none", "<tool_call>weather</tool_call>", &[call(1, "weather", json!({}))]);
    damaged_stays_text("glm", one, &[("</arg_key>", ""), ("weather", "{}"), ("3</arg_value>", "3")]);
}

#[test]
fn minimax_and_seed() {
    let one = "<minimax:tool_call>\n<invoke name=\"weather\">\n<parameter name=\"city\">Köln</parameter>\n<parameter name=\"days\">3</parameter>\n</invoke>\n<invoke name=\"write\">\n</invoke>\n</minimax:tool_call>";
    check("minimax-m2", "none", one, &[weather(1), call(2, "write", json!({}))]);
    damaged_stays_text("minimax-m2", one, &[("<invoke name=\"weather\">", ""), ("\">Köln", "\" Köln")]);
    let one = "<seed:tool_call>\n<function=weather>\n<parameter=city>Köln</parameter>\n<parameter=days>3</parameter>\n</function>\n</seed:tool_call>";
    check("seed-oss", "seed", &format!("<seed:think>hm</seed:think>{one}"), &[thought("hm"), weather(1)]);
    damaged_stays_text("seed-oss", one, &[("</function>", "")]);
}

#[test]
fn llama() {
    let one = "{\"name\": \"weather\", \"parameters\": {\"city\": \"Köln\", \"days\": 3}}";
    check("llama3", "none", one, &[weather(1)]);
    check("llama3", "none", &format!("\n{{\"type\": \"function\", {}", &one[1..]), &[weather(1)]);
    check("llama3", "none", &format!("{one}; {one}"), &[weather(1), weather(2)]);
    check("llama3", "none", &format!("<|python_tag|>{one}"), &[weather(1)]);
    check("llama3", "none", "<function=weather>{\"city\": \"Köln\", \"days\": 3}</function>", &[weather(1)]);
    damaged_stays_text("llama3", one, &[("}}", "}"), ("\"parameters\"", "\"input\"")]);
    stays_text("llama3", "<|python_tag|>weather.call(city=\"Köln\")");
    // An object with a name is an answer like others, and so is a call in the middle of one.
    check("llama3", "none", "{\"name\": \"Ada\", \"born\": 1815}", &[text("{\"name\": \"Ada\", \"born\": 1815}")]);
    check("llama3", "none", &format!("Like this: {one} is a call"), &[text(&format!("Like this: {one} is a call"))]);
}

#[test]
fn mistral() {
    let object = "{\"name\": \"weather\", \"arguments\": {\"city\": \"Köln\", \"days\": 3}, \"id\": \"abcdefghi\"}";
    check("mistral", "none", &format!("[TOOL_CALLS][{object}, {object}]"), &[weather(1), weather(2)]);
    check("mistral", "none", &format!("Ok. [TOOL_CALLS] [{object}]"), &[text("Ok."), weather(1)]);
    let arguments = "{\"city\": \"Köln\", \"days\": 3}";
    for format in ["mistral", "mistral-args"] {
        let args = format!("[TOOL_CALLS]weather[ARGS]{arguments}");
        check(format, "none", &format!("{args}{args}"), &[weather(1), weather(2)]);
        check(format, "none", &format!("[TOOL_CALLS]weather{arguments}"), &[weather(1)]);
        check(format, "none", &format!("[TOOL_CALLS]weather[CALL_ID]abc[ARGS]{arguments}"), &[weather(1)]);
    }
    check(
        "mistral-args",
        "magistral",
        &format!("[THINK]hm[/THINK]Ok.[TOOL_CALLS]weather[ARGS]{arguments}"),
        &[thought("hm"), text("Ok."), weather(1)],
    );
    damaged_stays_text("mistral", &format!("[TOOL_CALLS][{object}]"), &[("\"name\"", "\"nom\""), ("}]", "]")]);
    damaged_stays_text("mistral-args", &format!("[TOOL_CALLS]weather[ARGS]{arguments}"), &[("weather", ""), ("{", "")]);
}

#[test]
fn deepseek() {
    let arguments = "{\"city\": \"Köln\", \"days\": 3}";
    let v3 =
        format!("<｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{arguments}\n```<｜tool▁call▁end｜>");
    let section = |calls: &str| format!("<｜tool▁calls▁begin｜>{calls}<｜tool▁calls▁end｜>");
    check(
        "deepseek-v3",
        "think",
        &format!("<think>hm</think>Ok.{}", section(&format!("{v3}\n{v3}"))),
        &[thought("hm"), text("Ok."), weather(1), weather(2)],
    );
    damaged_stays_text("deepseek-v3", &section(&v3), &[("```<", "<"), ("weather", "")]);
    let v31 = format!("<｜tool▁call▁begin｜>weather<｜tool▁sep｜>{arguments}<｜tool▁call▁end｜>");
    check("deepseek-v3.1", "think", &section(&format!("{v31}{v31}")), &[weather(1), weather(2)]);
    damaged_stays_text("deepseek-v3.1", &section(&v31), &[("<｜tool▁call▁end｜>", ""), ("{", "")]);
    // The calls before the damage count, the rest stays text.
    let (events, failures) = events_of(|| parser("deepseek-v3.1", "think", false), &section(&format!("{v31}oh")));
    assert_eq!((events, failures), (vec![weather(1), text("oh<｜tool▁calls▁end｜>")], 1));
}

#[test]
fn kimi() {
    let one = "<|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>{\"city\": \"Köln\", \"days\": 3}<|tool_call_end|>";
    let section = |calls: &str| format!("<|tool_calls_section_begin|>{calls}<|tool_calls_section_end|>");
    let two = section(&format!("{one}{}", one.replace(":0", ":1")));
    check("kimi-k2", "think", &format!("<think>hm</think>{two}"), &[thought("hm"), weather(1), weather(2)]);
    damaged_stays_text(
        "kimi-k2",
        &section(one),
        &[("functions.weather", "functions."), ("<|tool_call_end|>", ""), ("\"city\"", "city")],
    );
}

#[test]
fn gemma() {
    let one = "<|tool_call>call:weather{city:<|\"|>Köln<|\"|>,days:3}<tool_call|>";
    check(
        "gemma4",
        "gemma4",
        &format!("<|channel>thought\nhm<channel|>Ok.{one}{one}"),
        &[thought("hm"), text("Ok."), weather(1), weather(2)],
    );
    let nested = "<|tool_call>call:write{text:<|\"|>a, \"b\" <tool_call|> }<|\"|>,any:{<|\"|>k<|\"|>:[1,-2.5,true,null],x:<|\"|><|\"|>}}<tool_call|>";
    check(
        "gemma4",
        "none",
        nested,
        &[call(1, "write", json!({"text": "a, \"b\" <tool_call|> }", "any": {"k": [1, -2.5, true, null], "x": ""}}))],
    );
    damaged_stays_text("gemma4", one, &[("call:", ""), ("3}", "3"), ("weather{", "weather"), ("Köln<|\"|>", "Köln")]);
    let one = "<start_function_call>call:weather{city:<escape>Köln<escape>,days:3}<end_function_call>";
    check("function-gemma", "none", &format!("{one}{one}"), &[weather(1), weather(2)]);
    damaged_stays_text("function-gemma", one, &[("call:", "")]);
}

#[test]
fn families_with_arrays() {
    let array = "[{\"name\": \"weather\", \"arguments\": {\"city\": \"Köln\", \"days\": 3}}]";
    for (format, open, close) in [
        ("nemotron", "<TOOLCALL>", "</TOOLCALL>"),
        ("apriel", "<tool_calls>", "</tool_calls>"),
        ("phi4", "<|tool_call|>", "<|/tool_call|>"),
        ("granite", "<|tool_call|>", ""),
        ("lfm2", "<|tool_call_start|>", "<|tool_call_end|>"),
    ] {
        check(format, "none", &format!("Ok.{open}{array}{close}"), &[text("Ok."), weather(1)]);
        damaged_stays_text(format, &format!("{open}{array}{close}"), &[("\"name\"", "\"nom\""), ("}}", "}")]);
    }
    let command = "<|START_THINKING|>hm<|END_THINKING|><|START_ACTION|>[\n    {\"tool_call_id\": \"0\", \"tool_name\": \"weather\", \"parameters\": {\"city\": \"Köln\", \"days\": 3}}\n]<|END_ACTION|>";
    check("command-r7b", "command-r", command, &[thought("hm"), weather(1)]);
}

#[test]
fn pythonic_calls() {
    let one = "<|tool_call_start|>[weather(city=\"Köln\", days=3), write(text='it\\'s \\u00e4\\n\\ud83d\\ude00', on=True, any={'a': [1, None]})]<|tool_call_end|>";
    let second = call(2, "write", json!({"text": "it's ä\n😀", "on": true, "any": {"a": [1, null]}}));
    check("lfm2", "none", &format!("{one}Ok."), &[weather(1), second, text("Ok.")]);
    damaged_stays_text(
        "lfm2",
        one,
        &[("weather(", "weather"), ("city=", ""), ("days=3", "days=three"), ("\\ud83d\\ude00", "\\ud83d")],
    );
}

#[test]
fn harmony_messages() {
    let analysis = "<|channel|>analysis<|message|>hm\nm<|end|>";
    let call_message = "<|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{\"city\": \"Köln\", \"days\": 3}<|call|>";
    check(
        "harmony",
        "harmony",
        &format!("{analysis}<|start|>assistant<|channel|>final<|message|>Hello\n<|return|>"),
        &[thought("hm\nm"), text("Hello\n")],
    );
    check("harmony", "harmony", &format!("{analysis}{call_message}"), &[thought("hm\nm"), weather(1)]);
    // The last token ends generation and is not seen.
    check("harmony", "harmony", call_message.trim_end_matches("<|call|>"), &[weather(1)]);
    let other_order = " to=functions.weather<|channel|>commentary json<|message|>{\"city\": \"Köln\", \"days\": 3}";
    check("harmony", "harmony", other_order, &[weather(1)]);
    check("harmony", "harmony", "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant", &[text("I look.")]);
    check("harmony", "harmony", "No header, no <|end|>", &[text("No header, no ")]);
    check("harmony", "none", analysis, &[text("hm\nm")]);
    let literal = "<|channel|>commentary to=functions.write<|message|>{\"text\": \"a <|end|> b\"}<|call|>";
    check("harmony", "harmony", literal, &[call(1, "write", json!({"text": "a <|end|> b"}))]);
    let damaged = call_message.replace("{\"city", "{city");
    let (events, failures) = events_of(|| parser("harmony", "harmony", false), &damaged);
    assert_eq!((events, failures), (vec![text(&damaged)], 1));
    let (events, failures) =
        events_of(|| parser("harmony", "harmony", false), "<|channel|>analysis to=python code<|message|>1+1");
    assert_eq!((events, failures), (vec![text("<|channel|>analysis to=python code<|message|>1+1")], 1));
}

#[test]
fn a_prompt_that_opens_reasoning_is_followed() {
    let make = || parser("hermes", "think", true);
    let (events, _) = events_of(make, "\nhm </thi\n</think>\n\nHello <think> \n");
    assert_eq!(events, [thought("hm </thi"), text("Hello")]);
    let (events, _) = events_of(make, "<think>\nagain</think>Hi");
    assert_eq!(events, [thought("again"), text("Hi")]);
    let (events, _) = events_of(make, "never closed\n");
    assert_eq!(events, [thought("never closed\n")]);
    let mut parser = make();
    assert_eq!(parser.reasoning_close(), Some("</think>"));
    parser.push("x</think>y");
    assert_eq!(parser.reasoning_close(), None);
    let mut parser = self::parser("harmony", "harmony", false);
    parser.push("<|channel|>analysis<|message|>hm");
    let close = parser.reasoning_close().expect("inside");
    assert_eq!(parser.push(close), []);
    assert_eq!((parser.push("Hi"), parser.reasoning_close()), (vec![text("Hi")], None));
}

#[test]
fn without_tools_and_reasoning_the_markup_is_text() {
    let make = || OutputParser::new(formats("hermes", "none"), Vec::new(), false, 0);
    let (events, failures) = events_of(make, " <think> <tool_call>{} \n");
    assert_eq!((events, failures), (vec![text(" <think> <tool_call>{} \n")], 0));
    assert!(!make().reads("<tool_call>"));
}

#[test]
fn calls_of_another_family_are_counted() {
    for answer in [
        "[TOOL_CALLS]weather[ARGS]{}",
        "so:\n<function=weather>{}</function>",
        "{\"name\": \"weather\", \"arguments\": {}}",
    ] {
        stays_text("hermes", answer);
    }
    check("hermes", "none", "{\"name\": \"Ada\"}", &[text("{\"name\": \"Ada\"}")]);
}

#[test]
fn a_model_that_never_closes_its_call_does_not_fill_memory() {
    for format in ["hermes", "mistral", "harmony"] {
        let mut parser = parser(format, "none", false);
        let open = match format {
            "hermes" => "<tool_call>",
            "mistral" => "[TOOL_CALLS]",
            _ => "<|channel|>commentary to=functions.f<|message|>",
        };
        parser.push(open);
        let piece = "x".repeat(1024);
        let mut said = 0;
        for _ in 0..300 {
            for event in parser.push(&piece) {
                let Event::Text(text) = event else { panic!("{event:?}") };
                said += text.len();
            }
        }
        assert!(said > MAX_CALL_BYTES, "{format}: {said}");
    }
}

#[test]
fn closing_tags_without_end_are_read_a_bounded_number_of_times() {
    let mut parser = parser("hermes", "none", false);
    let answer = format!("<tool_call>{{\"name\": \"{}", "</tool_call>".repeat(200));
    assert_eq!(run(&mut parser, [answer.as_str()]), [text(&answer)]);
}

#[test]
fn control_tokens_that_are_markup_are_read() {
    let reads = |format: &str, reasoning: &str, token: &str| parser(format, reasoning, false).reads(token);
    assert!(reads("llama3", "none", "<|python_tag|>"));
    assert!(reads("mistral-args", "none", "[ARGS]"));
    assert!(reads("harmony", "harmony", "<|constrain|>"));
    assert!(reads("deepseek-v3.1", "none", "<｜tool▁sep｜>"));
    assert!(reads("hermes", "think", "</think>"));
    assert!(reads("gemma4", "gemma4", "<|channel>"));
    assert!(
        !reads("hermes", "think", "<|im_end|>") && !reads("hermes", "none", "</think>") && !reads("hermes", "none", "")
    );
}

#[test]
fn every_format_is_known_by_its_template_and_by_its_name() {
    let of = |template: &str, tokens: &[&str]| {
        let formats = Formats::of(template, |text| tokens.contains(&text));
        (formats.calls.name, formats.reasoning.name)
    };
    assert_eq!(of("<tool_call>\n{\"name\"… </think>", &[]), ("hermes", "think"));
    assert_eq!(of("<tool_call>\n<function=f>\n<parameter=p>", &["<think>"]), ("qwen3-coder", "think"));
    assert_eq!(of("<tool_call>{name}<arg_key>", &[]), ("glm", "none"));
    assert_eq!(of("{\"name\": n, \"parameters\": p} <|eot_id|>", &["<|python_tag|>"]), ("llama3", "none"));
    assert_eq!(of("'[TOOL_CALLS]' + name + '[ARGS]' [THINK]", &[]), ("mistral-args", "magistral"));
    assert_eq!(of("[TOOL_CALLS] [", &[]), ("mistral", "none"));
    assert_eq!(of("<｜tool▁call▁begin｜>…```json… </think>", &[]), ("deepseek-v3", "think"));
    assert_eq!(of("<｜tool▁call▁begin｜>", &[]), ("deepseek-v3.1", "none"));
    assert_eq!(of("tools | tojson", &["<|tool_calls_section_begin|>"]), ("kimi-k2", "none"));
    assert_eq!(of("<|channel|>analysis<|message|>", &[]), ("harmony", "harmony"));
    assert_eq!(of("<|tool_call>call: <|channel>thought", &[]), ("gemma4", "gemma4"));
    assert_eq!(of("<seed:tool_call><function=<parameter= <seed:think>", &[]), ("seed-oss", "seed"));
    assert_eq!(of("<|tool_call|><|/tool_call|>", &[]), ("phi4", "none"));
    assert_eq!(of("<|tool_call|>", &[]), ("granite", "none"));
    assert_eq!(of("nothing", &[]), ("hermes", "none"));
    for (index, format) in CALLS.iter().enumerate() {
        assert_eq!(formats(format.name, "none").calls, &CALLS[index], "two formats are called {}", format.name);
    }
    for (index, reasoning) in REASONING.iter().enumerate() {
        assert_eq!(formats("hermes", reasoning.name).reasoning, &REASONING[index]);
    }
    let error = Formats::of("", |_| false).named(Some("herms"), None).expect_err("unknown");
    assert!(error.contains("herms") && error.contains("hermes") && error.contains("mistral-args"), "{error}");
}

/// Arguments of the kinds that tools take; in bare text only those come back that no schema has to tell apart.
fn any_arguments() -> impl Strategy<Value = serde_json::Map<String, serde_json::Value>> {
    let text = "[ -~äß😀\\n]{0,12}".prop_map(|text| json!(text));
    let list = prop::collection::vec(0..9_i64, 0..3).prop_map(|list| json!({"k": list}));
    let value =
        prop_oneof![text.clone(), any::<bool>().prop_map(|b| json!(b)), any::<i64>().prop_map(|n| json!(n)), list];
    prop::collection::vec((prop::sample::select(vec!["city", "text", "x_1", "y"]), value), 0..4)
        .prop_map(|pairs| pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

proptest! {
    /// However harmony's messages are cut and damaged, the same comes out of them.
    #[test]
    fn harmony_does_not_depend_on_cuts(
        pieces in prop::collection::vec(
            "(<\\|channel\\|>|<\\|message\\|>|<\\|end\\|>|<\\|start\\|>|assistant|analysis|final| to=functions.f|<\\|call|[{}\"<|a: ]){0,4}",
            0..12
        ),
    ) {
        let whole: String = pieces.concat();
        let mut cut = parser("harmony", "harmony", false);
        let events = run(&mut cut, pieces.iter().map(String::as_str));
        let mut uncut = parser("harmony", "harmony", false);
        prop_assert_eq!(events, run(&mut uncut, [whole.as_str()]));
        prop_assert_eq!(cut.failures(), uncut.failures());
    }

    /// What is written in a family's form is read back as it was.
    #[test]
    fn calls_are_read_as_they_were_written(
        format in 0..CALLS.len(),
        calls in prop::collection::vec((prop::sample::select(vec!["weather", "write_2", "ns.f-1"]), any_arguments()), 1..4),
    ) {
        let format = &CALLS[format];
        let one = matches!(format.name, "harmony");
        let calls: Vec<_> = calls.into_iter().take(if one { 1 } else { 4 }).collect();
        // Each parameter has the type of its value, or bare text could not be told from other values.
        let tools: Vec<Tool> = calls
            .iter()
            .map(|(name, arguments)| {
                let type_of = |value: &serde_json::Value| if value.is_string() { json!({"type": "string"}) } else { json!({}) };
                let properties: serde_json::Map<_, _> =
                    arguments.iter().map(|(key, value)| (key.clone(), type_of(value))).collect();
                Tool { name: (*name).into(), description: String::new(), parameters: json!({"properties": properties}) }
            })
            .collect();
        let names: std::collections::BTreeSet<_> = calls.iter().map(|(name, _)| name).collect();
        prop_assume!(names.len() == calls.len());
        let text = write_calls(format, calls.iter().map(|(name, arguments)| (*name, arguments)));
        let mut parser = OutputParser::new(formats(format.name, "none"), tools, false, 7);
        let events = run(&mut parser, [text.as_str()]);
        let expected: Vec<Event> = calls
            .iter()
            .enumerate()
            .map(|(n, (name, arguments))| call(n + 1, name, serde_json::Value::Object(arguments.clone())))
            .collect();
        prop_assert_eq!(events, expected, "{}: {}", format.name, text);
    }

    /// Whatever the model says and however it is cut, no text is lost and nothing panics.
    #[test]
    fn nothing_is_lost(
        format in 0..CALLS.len(),
        pieces in prop::collection::vec(
            "(<think>|</think>|<tool_call>|</tool_call>|<tool|<function=|<parameter=|</parameter>|</function>|\\[TOOL_CALLS\\]|<arg_key>|</arg_key>|<\\|channel\\|>|[a<{}\": \\n]){0,4}",
            0..12
        ),
    ) {
        let all: String = pieces.concat();
        let formats = formats(CALLS[format].name, "none");
        prop_assume!(!formats.has_headers());
        let parser = || OutputParser::new(formats, tools(), false, 0);
        let events = run(&mut parser(), pieces.iter().map(String::as_str));
        prop_assert_eq!(&events, &run(&mut parser(), [all.as_str()]));
        if events.iter().all(|event| matches!(event, Event::Text(_))) {
            let said: String = events.iter().map(|event| match event { Event::Text(text) => text.as_str(), _ => "" }).collect();
            prop_assert_eq!(said, all);
        }
    }
}
