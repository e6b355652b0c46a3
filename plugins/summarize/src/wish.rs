//! What the person wants: the arguments, and how they are put to the model.

use locara::Failure;

const USAGE: &str = "usage: summarize [--words N] [--focus TOPIC], with the document as its input";

/// Tokens of an answer when no length was asked for: two long sentences.
const TWO_SENTENCES: u32 = 128;
/// Tokens of a word, generously: small vocabularies spell many words out.
const TOKENS_PER_WORD: u32 = 3;

/// What kind of summary it shall be.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    /// About how long, in words.
    words: Option<u32>,
    /// What matters most.
    focus: Option<String>,
}

impl Wish {
    /// `--words N` and `--focus TOPIC`, in any order.
    pub(crate) fn from_args(args: &[String]) -> Result<Self, Failure> {
        let mut wish = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| Failure::new(format_args!("{arg} needs a value; {USAGE}")));
            match arg.as_str() {
                "--words" => wish.words = Some(words(value()?)?),
                "--focus" => wish.focus = Some(value()?.clone()),
                unknown => return Err(Failure::new(format_args!("unknown argument `{unknown}`; {USAGE}"))),
            }
        }
        Ok(wish)
    }

    /// The question about one part of the document.
    pub(crate) fn ask_for_part(&self, part: &str) -> String {
        self.ask("in one or two sentences", part)
    }

    /// The question about what is left in the end.
    pub(crate) fn ask_for_summary(&self, text: &str) -> String {
        match self.words {
            Some(words) => self.ask(&format!("in about {words} words"), text),
            None => self.ask_for_part(text),
        }
    }

    fn ask(&self, how: &str, text: &str) -> String {
        let focus = self.focus.as_ref().map(|focus| format!(" Focus on {focus}.")).unwrap_or_default();
        format!("Summarize the following part of a document {how}.{focus}\n\n{}", text.trim())
    }

    /// An upper bound for the answer, in tokens.
    pub(crate) fn answer_tokens(&self) -> u32 {
        self.words.map_or(TWO_SENTENCES, |words| words.saturating_mul(TOKENS_PER_WORD)).max(TWO_SENTENCES)
    }
}

fn words(value: &str) -> Result<u32, Failure> {
    match value.parse() {
        Ok(words) if words > 0 => Ok(words),
        _ => Err(Failure::new(format_args!("--words takes a whole number above 0, not `{value}`"))),
    }
}
