use std::collections::BTreeMap;

use super::*;
use crate::{
    api::{Speaker, ToolCall},
    output::Formats,
};

fn none() -> BTreeMap<String, Value> {
    BTreeMap::new()
}

const CHATML: &str = "{%- if tools %}<|im_start|>tools {{ tools | tojson }}<|im_end|>\n{% endif -%}\
    {% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.strip() }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

fn template() -> ChatTemplate {
    let special = vec!["<|im_start|>".into(), "<|im_end|>".into(), String::new()];
    ChatTemplate::new(CHATML, String::new(), "<|im_end|>".into(), special).expect("parses")
}

#[test]
fn a_conversation_renders() {
    let rendered =
        template().render(&[Message::system("be brief"), Message::user(" hi ")], &[], &none()).expect("renders");
    assert_eq!(
        rendered.0,
        ["<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"]
    );
}

#[test]
fn tools_keep_pythons_spacing_and_key_order() {
    let tool = Tool { name: "f".into(), description: "<d>".into(), parameters: json!({"b": [1, 2], "a": "x"}) };
    let rendered = template().render(&[Message::user("hi")], &[tool], &none()).expect("renders");
    let expected = r#"[{"type": "function", "function": {"name": "f", "description": "<d>", "parameters": {"b": [1, 2], "a": "x"}}}]"#;
    assert!(rendered.0[0].contains(expected), "{}", rendered.0[0]);
}

#[test]
fn special_tokens_in_a_message_are_disarmed() {
    let rendered = template().render(&[Message::user("a<|im_end|>b")], &[], &none()).expect("renders");
    assert_eq!(rendered.0.len(), 2);
    assert!(rendered.0[0].ends_with("a<") && rendered.0[1].starts_with("|im_end|>b"));
    assert_eq!(
        rendered.0.concat(),
        template().render(&[Message::user("a<|im_end|>b")], &[], &none()).expect("renders").0.concat()
    );
}

#[test]
fn a_template_that_loops_forever_runs_out_of_fuel() {
    let source = "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}";
    let template = ChatTemplate::new(source, String::new(), String::new(), Vec::new()).expect("parses");
    let error = template.render(&[Message::user("hi")], &[], &none()).expect_err("must stop");
    assert!(error.to_string().contains("fuel"), "{error}");
}

#[test]
fn the_templates_own_refusal_is_passed_on() {
    let template = ChatTemplate::new("{{ raise_exception('no system role') }}", String::new(), String::new(), vec![])
        .expect("parses");
    let error = template.render(&[Message::user("hi")], &[], &none()).expect_err("refuses");
    assert!(error.to_string().contains("no system role"), "{error}");
}

fn compiled(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, "<s>".into(), "</s>".into(), vec!["<s>".into(), "</s>".into()]).expect("parses")
}

fn weather_call(id: &str) -> Message {
    Message {
        tool_calls: vec![ToolCall {
            id: id.into(),
            name: "weather".into(),
            arguments: "{\"b\": [true, null], \"a\": \"ü\"}".into(),
        }],
        ..Message::assistant("")
    }
}

fn format_named(name: &str) -> &'static CallFormat {
    Formats::of("", |_| false).named(Some(name), None).expect("known").calls
}

fn result_of(id: &str) -> Message {
    Message { tool_call_id: Some(id.into()), ..Message::new(Speaker::Tool, "sunny") }
}

fn weather_tool() -> Tool {
    Tool { name: "weather".into(), description: "d".into(), parameters: json!({"type": "object", "properties": {}}) }
}

fn conversation(id: &str) -> Vec<Message> {
    vec![Message::user("hi"), weather_call(id), result_of(id)]
}

#[track_caller]
fn rendered(source: &str, messages: &[Message]) -> String {
    compiled(source).render(messages, &[], &none()).expect("renders").0.concat()
}

#[test]
fn what_templates_of_the_field_use_works() {
    let two = [Message::assistant(" be brief "), Message::user("a|b")];
    let cases = [
        (
            "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{{ ns.last }}",
            "1",
        ),
        ("{% for m in messages[1:] %}{{ m['content'] }}{% endfor %}", "a|b"),
        ("{% for m in messages[::-1] %}{{ m.role }},{% endfor %}", "user,assistant,"),
        ("{{ messages[0].content | trim }}|{{ messages[0]['content'].strip() }}", "be brief|be brief"),
        ("{{ messages[0].content is string }}{{ messages is iterable and messages is not mapping }}", "TrueTrue"),
        (
            "{{ messages[1].content.split('|')[-1] }}{{ 'x' if messages[1].content.startswith('a') and not messages[1].content.endswith('a') }}",
            "bx",
        ),
        (
            "{% for k, v in {'a': 1, 'b': 2} | items %}{{ k }}{{ v }}{% endfor %}{% for k, v in {'c': 3}.items() %}{{ k }}{{ v }}{% endfor %}",
            "a1b2c3",
        ),
        ("{{ {'a': [1, {}], 'b': '<'} | tojson }}", r#"{"a": [1, {}], "b": "<"}"#),
        ("{{ {'b': [1], 'a': []} | tojson(indent=2) }}", "{\n  \"b\": [\n    1\n  ],\n  \"a\": []\n}"),
        (
            "{{ {'b': 1, 'a': 2} | tojson(ensure_ascii=False, sort_keys=true, separators=(',', ':')) }}",
            r#"{"a":2,"b":1}"#,
        ),
        (
            "{{ bos_token }}{% for i in range(3) %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}{{ messages | length }}",
            "<s>022",
        ),
        (
            "{% macro show(m, loud=false) %}{{ m.content | upper if loud else m.content }}{% endmacro %}{{ show(messages[1], loud=true) }}",
            "A|B",
        ),
        (
            "{{ messages[0].get('name') or messages[0].get('role', 'x') }}{{ 'no' if messages[0].nothing is not defined }}",
            "assistantno",
        ),
        (
            "{{ 'a' ~ 1 ~ none }}{{ ['x', 'y'] | join('-') }}{{ messages | map(attribute='role') | list | last }}",
            "a1Nonex-yuser",
        ),
        ("{%- if tools is defined and tools is not none %}tools{% else %}no tools{% endif -%}", "no tools"),
    ];
    for (source, expected) in cases {
        assert_eq!(rendered(source, &two), expected, "{source}");
    }
}

#[test]
fn the_time_is_told_as_templates_ask_for_it() {
    let today = rendered("{{ strftime_now('%d %b %Y') }}|{{ now().strftime('%Y-%m-%d') }}|{{ now() }}", &[]);
    let [written, digits, whole] = today.split('|').collect::<Vec<_>>()[..] else { panic!("{today}") };
    let date: jiff::civil::Date = digits.parse().expect("a date");
    assert_eq!(written, date.strftime("%d %b %Y").to_string());
    assert!(whole.starts_with(digits) && whole.len() == "2026-01-01 00:00:00".len(), "{whole}");
    let error = compiled("{{ strftime_now('%Ö') }}").render(&[], &[], &none()).expect_err("no such format");
    assert!(error.to_string().contains("%Ö"), "{error}");
}

#[test]
fn variables_reach_the_template_and_replace_nothing_of_the_engine() {
    let template = compiled(
        "{{ 'think' if enable_thinking is defined and enable_thinking else 'answer' }} {{ documents[0].title }} {{ messages | length }}",
    );
    let variables = BTreeMap::from([
        ("enable_thinking".to_owned(), json!(true)),
        ("documents".to_owned(), json!([{"title": "a</s>b"}])),
    ]);
    let rendered = template.render(&[Message::user("x")], &[], &variables).expect("renders");
    assert_eq!(rendered.0, ["think a<", "/s>b 1"], "special tokens in variables are disarmed too");
    for name in RESERVED {
        let error = template.render(&[], &[], &BTreeMap::from([(name.to_owned(), json!([]))])).expect_err(name);
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn special_tokens_in_tools_and_calls_are_disarmed() {
    let source = "{% for t in tools %}{{ t.function.description }}{% endfor %}{% for m in messages %}{% if m.tool_calls %}{{ m.tool_calls[0].function.arguments | tojson }}{% endif %}{% endfor %}";
    let tool = Tool { description: "x</s>y".into(), ..weather_tool() };
    let mut call = weather_call("1");
    call.tool_calls[0].arguments = "{\"a\": \"</s>\"}".into();
    let pieces = compiled(source).render(&[call], &[tool], &none()).expect("renders").0;
    assert_eq!(pieces, ["x<", "/s>y{\"a\": \"<", "/s>\"}"]);
}

#[test]
fn arguments_come_as_the_template_wants_them() {
    let loops = |show: &str| {
        format!("{{% for m in messages %}}{{% for c in m.tool_calls or [] %}}{show}{{% endfor %}}{{% endfor %}}")
    };
    let json = r#"{"b": [true, null], "a": "ü"}"#;
    assert_eq!(rendered(&loops("{{ c.function.arguments | tojson }}"), &conversation("1")), json);
    assert_eq!(rendered(&loops("{{ '```' + c['function']['arguments'] }}"), &conversation("1")), format!("```{json}"));
    assert_eq!(
        rendered(&loops("{% for k, v in c.function.arguments.items() %}{{ k }};{% endfor %}"), &conversation("1")),
        "b;a;"
    );
    // Shown as they are, which an object would be as Python writes it.
    assert_eq!(rendered(&loops("{{ c.function.arguments }}"), &conversation("1")), json);
    // Calls that are shown only where there is no content, joined to it as text.
    let as_first_r1 = "{% for m in messages %}{% if m.role == 'assistant' and m['content'] is none %}{% for c in m.tool_calls %}{{ c.function.name + c.function.arguments }}{% endfor %}{% elif m.role == 'assistant' %}{{ m['content'] }}{% endif %}{% endfor %}";
    assert_eq!(rendered(as_first_r1, &conversation("1")), format!("weather{json}"));
    // A template that would write the word for nothing gets an empty text.
    let careless = loops("{{ m.content }}{{ c.function.arguments | tojson }}");
    assert_eq!(rendered(&careless, &conversation("1")), json);
}

#[test]
fn results_name_their_tool_and_ids_are_what_the_family_takes() {
    let source = "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.function.arguments | tojson }}{{ c.id }} {% endfor %}{% if m.role == 'tool' %}{{ m.name }} {{ m.tool_call_id }}{% endif %}{% endfor %}";
    let shown = |format| {
        let mut template = compiled(source);
        template.set_calls(format_named(format));
        let text = template.render(&conversation("call_7_1"), &[], &none()).expect("renders").0.concat();
        text.split_once('}').expect("arguments").1.to_owned()
    };
    assert_eq!(shown("hermes"), "call_7_1 weather call_7_1");
    assert_eq!(shown("kimi-k2"), "functions.weather:0 weather functions.weather:0");
    let nine = shown("mistral");
    let [call, name, result] = nine.split(' ').collect::<Vec<_>>()[..] else { panic!("{nine}") };
    assert!(
        call.len() == 9 && call.bytes().all(|b| b.is_ascii_alphanumeric()) && call == result && name == "weather",
        "{nine}"
    );
}

#[test]
fn a_template_without_tools_is_told_of_them_in_the_conversation() {
    let plain = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}";
    let template = compiled(plain);
    assert!(!template.shows_tools());
    let mut messages = conversation("1");
    messages.insert(0, Message::system("be brief"));
    let text = template.render(&messages, &[weather_tool()], &none()).expect("renders").0.concat();
    let (system, rest) = text.split_once("<user>").expect("a user turn");
    assert!(
        system.starts_with("<system>be brief\n\n")
            && system.contains("\"name\":\"weather\"")
            && system.contains("<tool_call>"),
        "{system}"
    );
    assert_eq!(
        rest,
        "hi<assistant><tool_call>\n{\"name\": \"weather\", \"arguments\": {\"b\": [true, null], \"a\": \"ü\"}}\n</tool_call>\
         <user><tool_response>\nsunny\n</tool_response>"
    );
    // In the model's own form, if that is known.
    let mut template = compiled(plain);
    template.set_calls(format_named("mistral-args"));
    let text = template.render(&messages, &[weather_tool()], &none()).expect("renders").0.concat();
    assert!(text.contains("[TOOL_CALLS]name_of_the_function[ARGS]{"), "{text}");
    assert!(text.contains("<assistant>[TOOL_CALLS]weather[ARGS]{\"b\": [true, null]"), "{text}");
    // Without tools nothing is added.
    assert_eq!(rendered(plain, &[Message::user("hi")]), "<user>hi");
    // A template that takes no system turn gets them with the user's.
    let strict = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}<{{ m.role }}>{{ m.content }}{% endfor %}";
    let text = compiled(strict).render(&[Message::user("hi")], &[weather_tool()], &none()).expect("renders").0.concat();
    assert!(text.starts_with("<user>") && text.contains("weather") && text.ends_with("\n\nhi"), "{text}");
    assert_eq!(rendered(strict, &[Message::system("be brief"), Message::user("hi")]), "<user>be brief\n\nhi");
    // A template that shows tools and no calls: results stay what they are.
    let half = "{{ tools | default([]) | tojson }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}";
    let text = rendered(half, &conversation("1"));
    assert!(text.contains("<assistant><tool_call>") && text.ends_with("<tool>sunny"), "{text}");
    let names = "{{ tools | default([]) | tojson }}{% for m in messages %}{{ m.name }}{{ m.content }}{% endfor %}";
    assert!(rendered(names, &conversation("1")).ends_with("</tool_call>weathersunny"));
    assert!(compiled("{% if tools %}{{ tools | tojson }}{% endif %}").shows_tools());
    // Templates that ask for the length of tools that are not there expect nothing instead.
    assert_eq!(
        rendered("{% if tools is not none and tools | length > 0 %}tools{% endif %}ok", &[Message::user("hi")]),
        "ok"
    );
}

#[test]
fn the_end_of_a_prompt_is_found() {
    let rendered = |text: &str| Rendered(vec!["x".into(), text.into()]);
    assert!(rendered("<|im_start|>assistant\n<think>\n").ends_with("<think>"));
    assert!(rendered("<|channel>thought\n").ends_with("<|channel>thought\n"));
    assert!(!rendered("<think></think>").ends_with("<think>") && !rendered("y").ends_with(""));
}

#[test]
fn a_template_for_one_call_a_turn_gets_the_calls_one_by_one() {
    let source = "{% for m in messages %}{% if m.tool_calls %}{% if m.tool_calls | length != 1 %}{{ raise_exception('single calls') }}\
        {% endif %}[{{ m.content }}{{ m.tool_calls[0].id }}{{ m.tool_calls[0].function.arguments | tojson }}]{% else %}\
        <{{ m.role }}{{ m.content }}>{% endif %}{% endfor %}";
    let call = |id: &str| ToolCall { id: id.into(), name: "f".into(), arguments: "{}".into() };
    let mut messages = vec![
        Message::user("hi"),
        Message { tool_calls: vec![call("a"), call("b"), call("c")], ..Message::assistant("both:") },
        Message { content: "for b".into(), ..result_of("b") },
        Message { content: "for a".into(), ..result_of("a") },
        Message::assistant("done"),
    ];
    assert_eq!(rendered(source, &messages), "<userhi>[both:a{}]<toolfor a>[b{}]<toolfor b>[c{}]<assistantdone>");
    // One that shows the first of several loses none either, nor one that shows calls only where there is no text.
    let first = "{% for m in messages %}{% if m.tool_calls %}{{ m.tool_calls[0].id }}{{ m.tool_calls[0].function.arguments | tojson }}{% endif %}{{ m.content }};{% endfor %}";
    assert_eq!(rendered(first, &messages), "hi;a{}both:;for a;b{};for b;c{};done;");
    let either = "{% for m in messages %}{% if m.content %}{{ m.content }}{% else %}{% for c in m.tool_calls %}{{ c.id }}{{ c.function.arguments | tojson }}{% endfor %}{% endif %};{% endfor %}";
    assert_eq!(rendered(either, &messages), "hi;both:;a{}b{}c{};for b;for a;done;");
    // A template that takes several gets them as they are.
    let several = "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.id }}{{ c.function.arguments | tojson }}{% endfor %};{% endfor %}";
    assert_eq!(rendered(several, &messages), ";a{}b{}c{};;;;");
    // Turns that must alternate do so where results are turns of the user.
    let alternating = "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}{% endif %}<{{ m.role }}>{{ m.content }}{% endfor %}";
    messages.truncate(4);
    let text = rendered(alternating, &messages);
    assert!(
        text.ends_with("<user><tool_response>\nfor b\n</tool_response>\n<tool_response>\nfor a\n</tool_response>"),
        "{text}"
    );
}
