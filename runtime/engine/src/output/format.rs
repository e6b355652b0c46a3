//! How the model families write reasoning and tool calls, as data, and which of it a model writes.
//!
//! Taken from the families' published chat templates. A format belongs here if it can be told apart by its tags; what a
//! family writes without any tag is a call only where the format says so and the tool is one that was offered.

/// How a family marks its reasoning.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reasoning {
    /// How it is named in settings and in what is shown of a model.
    pub(crate) name: &'static str,
    /// Opens reasoning; empty if the family has none.
    pub(crate) open: &'static str,
    /// Closes it; what the model says next is the answer.
    pub(crate) close: &'static str,
    /// Stands in the template or among the tokens of a model that reasons so.
    mark: &'static str,
}

/// Reasoning formats. The first that fits is taken, the last one fits always.
pub(crate) const REASONING: &[Reasoning] = &[
    Reasoning {
        name: "harmony",
        open: "<|channel|>analysis<|message|>",
        close: "<|end|><|start|>assistant<|channel|>final<|message|>",
        mark: "<|channel|>",
    },
    Reasoning { name: "gemma4", open: "<|channel>thought\n", close: "<channel|>", mark: "<|channel>thought" },
    Reasoning { name: "seed", open: "<seed:think>", close: "</seed:think>", mark: "<seed:think>" },
    Reasoning { name: "magistral", open: "[THINK]", close: "[/THINK]", mark: "[THINK]" },
    Reasoning { name: "command-r", open: "<|START_THINKING|>", close: "<|END_THINKING|>", mark: "<|START_THINKING|>" },
    Reasoning {
        name: "apriel",
        open: "Here are my reasoning steps:\n",
        close: "[BEGIN FINAL RESPONSE]",
        mark: "[BEGIN FINAL RESPONSE]",
    },
    Reasoning { name: "think", open: "<think>", close: "</think>", mark: "think>" },
    Reasoning { name: "none", open: "", close: "", mark: "" },
];

/// How a family writes tool calls.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CallFormat {
    /// How it is named in settings and in what is shown of a model.
    pub(crate) name: &'static str,
    /// All of these stand in the template of a model that writes so.
    marks: &'static [&'static str],
    /// A token that only models of this family have, for templates that show tools and leave out how to call them.
    token: Option<&'static str>,
    /// What begins a call. Empty for harmony, whose messages are split by their headers.
    pub(crate) blocks: &'static [Block],
    /// How a call is written when one is forced.
    pub(crate) written: Written,
    /// What the ids of calls in a history must look like.
    pub(crate) ids: Ids,
}

/// A stretch of the answer that holds calls.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// Begins it. Empty: it is the whole answer, and begins with an object that names a tool that was offered.
    pub(crate) open: &'static str,
    /// Ends it. Empty: it goes on to the end of the answer.
    pub(crate) close: &'static str,
    /// What is inside.
    pub(crate) body: Body,
}

impl Block {
    /// Whether the text is part of its markup.
    pub(crate) fn holds(&self, text: &str) -> bool {
        let inner: &[&str] = match &self.body {
            Body::Json | Body::Python => &[],
            Body::Named(named) | Body::JsonOrNamed(named) => &[named.before, named.between, named.after, "[CALL_ID]"],
            Body::Xml(xml) => {
                return self.open.contains(text)
                    || self.close.contains(text)
                    || xml.function.iter().chain(&xml.parameter).any(|tag| tag.contains(text));
            }
            Body::Braces(quote) => &[quote],
        };
        [self.open, self.close].iter().chain(inner).any(|tag| tag.contains(text))
    }
}

/// What is inside a [`Block`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// Objects with a name and arguments, one after the other or in arrays.
    Json,
    /// Names, each with a JSON object of arguments.
    Named(Named),
    /// [`Body::Json`] if it begins with a bracket, else [`Body::Named`].
    JsonOrNamed(Named),
    /// Elements for the function and each of its parameters; values are bare text.
    Xml(Xml),
    /// `call:name{key:value}`; strings stand between two of the text given.
    Braces(&'static str),
    /// `[name(key=value)]` with literals of Python, or [`Body::Json`].
    Python,
}

/// A name with a JSON object.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// Stands before the name.
    pub(crate) before: &'static str,
    /// Stands between name and arguments.
    pub(crate) between: &'static str,
    /// Stands after the arguments.
    pub(crate) after: &'static str,
}

/// Elements around name, keys and values.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Xml {
    /// Before the name, after it, and at the end of the call. The name ends with its line if they are empty.
    pub(crate) function: [&'static str; 3],
    /// Before the key, after it, before the value, after it.
    pub(crate) parameter: [&'static str; 4],
    /// Values stand on lines of their own.
    pub(crate) lines: bool,
}

/// How a forced call is written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// Before the first call.
    pub(crate) first: &'static str,
    /// Between two calls. Empty: there is one call at most.
    pub(crate) between: &'static str,
    /// After the last call.
    pub(crate) last: &'static str,
    /// The call.
    pub(crate) call: Shape,
}

/// The form of one forced call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// An object; the keys of name and arguments.
    Json(&'static str, &'static str),
    /// As the body of the format's first block reads it.
    AsRead,
}

/// What the ids of calls in a history must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ids {
    /// Anything.
    Free,
    /// Nine letters and digits: Mistral's templates refuse others.
    Nine,
    /// `functions.name:n`, counted from 0: Kimi's templates show nothing else of the name.
    Counted,
}

const fn tagged(open: &'static str, close: &'static str, body: Body) -> Block {
    Block { open, close, body }
}

const HERMES: Written = Written {
    first: "<tool_call>\n",
    between: "\n</tool_call>\n<tool_call>\n",
    last: "\n</tool_call>",
    call: Shape::Json("name", "arguments"),
};

const fn array(first: &'static str, last: &'static str, name: &'static str, arguments: &'static str) -> Written {
    Written { first, between: ", ", last, call: Shape::Json(name, arguments) }
}

const fn as_read(first: &'static str, between: &'static str, last: &'static str) -> Written {
    Written { first, between, last, call: Shape::AsRead }
}

/// What Qwen3-Coder writes.
pub(crate) const FUNCTION_XML: Xml = Xml {
    function: ["<function=", ">", "</function>"],
    parameter: ["<parameter=", ">", "", "</parameter>"],
    lines: true,
};

/// `name[ARGS]{…}`.
const MISTRAL_ARGS: Named = Named { before: "[TOOL_CALLS]", between: "[ARGS]", after: "" };

/// Tool-call formats. The first that fits is taken: those that are told apart by more come first.
pub(crate) const CALLS: &[CallFormat] = &[
    CallFormat {
        name: "harmony",
        marks: &["<|channel|>", "<|message|>"],
        token: Some("<|constrain|>"),
        blocks: &[],
        written: as_read("<|channel|>commentary to=functions.", "", ""),
        ids: Ids::Free,
    },
    CallFormat {
        name: "deepseek-v3",
        marks: &["<｜tool▁call▁begin｜>", "```json"],
        token: None,
        blocks: &[tagged(
            "<｜tool▁calls▁begin｜>",
            "<｜tool▁calls▁end｜>",
            Body::Named(Named {
                before: "<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
                between: "\n```json\n",
                after: "\n```<｜tool▁call▁end｜>",
            }),
        )],
        written: as_read("<｜tool▁calls▁begin｜>", "\n", "<｜tool▁calls▁end｜>"),
        ids: Ids::Free,
    },
    CallFormat {
        name: "deepseek-v3.1",
        marks: &["<｜tool▁call▁begin｜>"],
        token: Some("<｜tool▁calls▁begin｜>"),
        blocks: &[tagged(
            "<｜tool▁calls▁begin｜>",
            "<｜tool▁calls▁end｜>",
            Body::Named(Named {
                before: "<｜tool▁call▁begin｜>",
                between: "<｜tool▁sep｜>",
                after: "<｜tool▁call▁end｜>",
            }),
        )],
        written: as_read("<｜tool▁calls▁begin｜>", "", "<｜tool▁calls▁end｜>"),
        ids: Ids::Free,
    },
    CallFormat {
        name: "kimi-k2",
        marks: &["<|tool_calls_section_begin|>"],
        token: Some("<|tool_calls_section_begin|>"),
        blocks: &[tagged(
            "<|tool_calls_section_begin|>",
            "<|tool_calls_section_end|>",
            Body::Named(Named {
                before: "<|tool_call_begin|>functions.",
                between: ":0<|tool_call_argument_begin|>",
                after: "<|tool_call_end|>",
            }),
        )],
        written: as_read("<|tool_calls_section_begin|>", "", "<|tool_calls_section_end|>"),
        ids: Ids::Counted,
    },
    CallFormat {
        name: "minimax-m2",
        marks: &["<minimax:tool_call>"],
        token: Some("<minimax:tool_call>"),
        blocks: &[tagged(
            "<minimax:tool_call>",
            "</minimax:tool_call>",
            Body::Xml(Xml {
                function: ["<invoke name=\"", "\">", "</invoke>"],
                parameter: ["<parameter name=\"", "\">", "", "</parameter>"],
                lines: false,
            }),
        )],
        written: as_read("<minimax:tool_call>\n", "\n", "\n</minimax:tool_call>"),
        ids: Ids::Free,
    },
    CallFormat {
        name: "seed-oss",
        marks: &["<seed:tool_call>"],
        token: Some("<seed:tool_call>"),
        blocks: &[tagged(
            "<seed:tool_call>",
            "</seed:tool_call>",
            Body::Xml(Xml {
                function: ["<function=", ">", "</function>"],
                parameter: ["<parameter=", ">", "", "</parameter>"],
                lines: false,
            }),
        )],
        written: as_read("<seed:tool_call>\n", "\n</seed:tool_call>\n<seed:tool_call>\n", "\n</seed:tool_call>"),
        ids: Ids::Free,
    },
    CallFormat {
        name: "gemma4",
        marks: &["<|tool_call>call:"],
        token: Some("<|tool_call>"),
        blocks: &[tagged("<|tool_call>", "<tool_call|>", Body::Braces("<|\"|>"))],
        written: as_read("<|tool_call>", "<tool_call|><|tool_call>", "<tool_call|>"),
        ids: Ids::Free,
    },
    CallFormat {
        name: "function-gemma",
        marks: &["<start_function_call>"],
        token: Some("<start_function_call>"),
        blocks: &[tagged("<start_function_call>", "<end_function_call>", Body::Braces("<escape>"))],
        written: as_read("<start_function_call>", "<end_function_call><start_function_call>", "<end_function_call>"),
        ids: Ids::Free,
    },
    CallFormat {
        name: "glm",
        marks: &["<tool_call>", "<arg_key>"],
        token: Some("<arg_key>"),
        blocks: &[tagged(
            "<tool_call>",
            "</tool_call>",
            Body::Xml(Xml {
                function: ["", "", ""],
                parameter: ["<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"],
                lines: false,
            }),
        )],
        written: as_read("<tool_call>", "\n</tool_call>\n<tool_call>", "\n</tool_call>"),
        ids: Ids::Free,
    },
    CallFormat {
        name: "qwen3-coder",
        marks: &["<tool_call>", "<function=", "<parameter="],
        token: None,
        blocks: &[tagged("<tool_call>", "</tool_call>", Body::Xml(FUNCTION_XML))],
        written: as_read(HERMES.first, HERMES.between, HERMES.last),
        ids: Ids::Free,
    },
    CallFormat {
        name: "mistral-args",
        marks: &["[TOOL_CALLS]", "[ARGS]"],
        token: Some("[ARGS]"),
        blocks: &[tagged("[TOOL_CALLS]", "", Body::JsonOrNamed(MISTRAL_ARGS))],
        written: as_read("", "", ""),
        ids: Ids::Nine,
    },
    CallFormat {
        name: "mistral",
        marks: &["[TOOL_CALLS]"],
        token: Some("[TOOL_CALLS]"),
        blocks: &[tagged("[TOOL_CALLS]", "", Body::JsonOrNamed(MISTRAL_ARGS))],
        written: array("[TOOL_CALLS][", "]", "name", "arguments"),
        ids: Ids::Nine,
    },
    CallFormat {
        name: "nemotron",
        marks: &["<TOOLCALL>"],
        token: Some("<TOOLCALL>"),
        blocks: &[tagged("<TOOLCALL>", "</TOOLCALL>", Body::Json)],
        written: array("<TOOLCALL>[", "]</TOOLCALL>", "name", "arguments"),
        ids: Ids::Free,
    },
    CallFormat {
        name: "apriel",
        marks: &["<tool_calls>["],
        token: None,
        blocks: &[tagged("<tool_calls>", "</tool_calls>", Body::Json)],
        written: array("<tool_calls>[", "]</tool_calls>", "name", "arguments"),
        ids: Ids::Free,
    },
    CallFormat {
        name: "command-r7b",
        marks: &["<|START_ACTION|>"],
        token: Some("<|START_ACTION|>"),
        blocks: &[tagged("<|START_ACTION|>", "<|END_ACTION|>", Body::Json)],
        written: array("<|START_ACTION|>[\n    ", "\n]<|END_ACTION|>", "tool_name", "parameters"),
        ids: Ids::Free,
    },
    CallFormat {
        name: "lfm2",
        marks: &["<|tool_call_start|>"],
        token: Some("<|tool_call_start|>"),
        blocks: &[tagged("<|tool_call_start|>", "<|tool_call_end|>", Body::Python)],
        written: as_read("<|tool_call_start|>[", ", ", "]<|tool_call_end|>"),
        ids: Ids::Free,
    },
    CallFormat {
        name: "phi4",
        marks: &["<|tool_call|>", "<|/tool_call|>"],
        token: Some("<|/tool_call|>"),
        blocks: &[tagged("<|tool_call|>", "<|/tool_call|>", Body::Json)],
        written: array("<|tool_call|>[", "]<|/tool_call|>", "name", "arguments"),
        ids: Ids::Free,
    },
    CallFormat {
        name: "granite",
        marks: &["<|tool_call|>"],
        token: Some("<|tool_call|>"),
        blocks: &[tagged("<|tool_call|>", "", Body::Json)],
        written: array("<|tool_call|>[", "]", "name", "arguments"),
        ids: Ids::Free,
    },
    CallFormat {
        name: "llama3",
        marks: &["\"parameters\"", "<|eot_id|>"],
        token: Some("<|python_tag|>"),
        blocks: &[
            tagged("", "", Body::Json),
            tagged("<|python_tag|>", "", Body::Json),
            tagged("<function=", "</function>", Body::Named(Named { before: "", between: ">", after: "" })),
        ],
        written: Written { first: "", between: "", last: "", call: Shape::Json("name", "parameters") },
        ids: Ids::Free,
    },
    CallFormat {
        name: "hermes",
        marks: &[],
        token: None,
        blocks: &[tagged("<tool_call>", "</tool_call>", Body::Json)],
        written: HERMES,
        ids: Ids::Free,
    },
];

/// What one model writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Formats {
    /// Its tool calls.
    pub(crate) calls: &'static CallFormat,
    /// Its reasoning.
    pub(crate) reasoning: &'static Reasoning,
}

impl Formats {
    /// What a model with this template writes. `has_token` tells whether a text is one token of its vocabulary.
    pub(crate) fn of(template: &str, has_token: impl Fn(&str) -> bool) -> Self {
        let in_template =
            |format: &&CallFormat| !format.marks.is_empty() && format.marks.iter().all(|mark| template.contains(mark));
        let in_vocabulary = |format: &&CallFormat| format.token.is_some_and(&has_token);
        // A template with Hermes' tag says more than a token that the vocabulary brings along.
        let tagged = || template.contains("<tool_call>").then_some(hermes());
        let calls = CALLS
            .iter()
            .find(in_template)
            .or_else(tagged)
            .or_else(|| CALLS.iter().find(in_vocabulary))
            .unwrap_or(hermes());
        let reasons = |reasoning: &&Reasoning| {
            template.contains(reasoning.mark) || (!reasoning.open.is_empty() && has_token(reasoning.open))
        };
        Self { calls, reasoning: REASONING.iter().find(reasons).unwrap_or(no_reasoning()) }
    }

    /// Formats by name; `None` leaves what is there.
    ///
    /// # Errors
    /// What is unknown, and the names that exist.
    pub(crate) fn named(self, calls: Option<&str>, reasoning: Option<&str>) -> Result<Self, String> {
        let calls = match calls {
            None => self.calls,
            Some(name) => CALLS
                .iter()
                .find(|format| format.name == name)
                .ok_or_else(|| unknown("tool-call format", name, CALLS.iter().map(|format| format.name).collect()))?,
        };
        let reasoning = match reasoning {
            None => self.reasoning,
            Some(name) => REASONING.iter().find(|format| format.name == name).ok_or_else(|| {
                unknown("reasoning format", name, REASONING.iter().map(|format| format.name).collect())
            })?,
        };
        Ok(Self { calls, reasoning })
    }

    /// Whether messages are split by harmony's headers instead of by tags.
    pub(crate) fn has_headers(self) -> bool {
        self.calls.name == "harmony" || self.reasoning.name == "harmony"
    }
}

fn unknown(what: &str, name: &str, mut known: Vec<&str>) -> String {
    known.sort_unstable();
    format!("{what} {name:?} is unknown; known are {}", known.join(", "))
}

/// The format that a model is taught in a system message if its template does not speak of tools.
pub(crate) fn hermes() -> &'static CallFormat {
    &CALLS[CALLS.len() - 1]
}

fn no_reasoning() -> &'static Reasoning {
    &REASONING[REASONING.len() - 1]
}
