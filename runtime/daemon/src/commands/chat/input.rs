//! What a person typed: a message, a command, or not all of it yet.

/// Begins and ends a message of several lines.
const QUOTES: &str = "\"\"\"";

/// Something that was typed to its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// Nothing.
    Empty,
    /// For the model.
    Message(String),
    /// `/help`
    Help,
    /// `/clear`
    Clear,
    /// `/system`, with the new text or to show it.
    System(Option<String>),
    /// `/model`, with the new one or to show it.
    Model(Option<String>),
    /// `/save FILE`
    Save(String),
    /// `/quit`
    Quit,
    /// A slash and a word that is no command.
    Unknown(String),
    /// A command that lacks something.
    Wants(&'static str),
}

impl Input {
    /// Reads what was typed. A message that begins with a slash is written with two.
    pub(super) fn read(text: &str) -> Self {
        let text = text.trim();
        if text.is_empty() {
            return Self::Empty;
        }
        if let Some(rest) = text.strip_prefix("//") {
            return Self::Message(format!("/{}", message(rest)));
        }
        let Some(command) = text.strip_prefix('/') else { return Self::Message(message(text)) };
        let (word, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = Some(message(rest.trim())).filter(|rest| !rest.is_empty());
        match word {
            "help" | "?" => Self::Help,
            "clear" | "new" => Self::Clear,
            "system" => Self::System(rest),
            "model" => Self::Model(rest),
            "save" => rest.map_or(Self::Wants("/save FILE"), Self::Save),
            "quit" | "exit" | "bye" => Self::Quit,
            other => Self::Unknown(other.to_owned()),
        }
    }
}

/// Whether more lines belong to what was typed: it ends with a backslash, or its quotes are open.
pub(super) fn goes_on(text: &str) -> bool {
    match text.matches(QUOTES).count() {
        0 => text.ends_with('\\'),
        quotes => quotes % 2 == 1,
    }
}

/// Without the marks that hold several lines together.
fn message(text: &str) -> String {
    if text.contains(QUOTES) {
        return text.replace(QUOTES, "").trim().to_owned();
    }
    text.replace("\\\n", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_one_and_of_several_lines() {
        for (typed, said) in [
            ("hello", "hello"),
            ("  hello  ", "hello"),
            ("one\\\ntwo", "one\ntwo"),
            ("\"\"\"one\ntwo\\\n\"\"\"", "one\ntwo\\"),
            ("look: \"\"\"a\nb\"\"\"", "look: a\nb"),
            ("//etc is a folder", "/etc is a folder"),
            ("1/2 is a half", "1/2 is a half"),
        ] {
            assert_eq!(Input::read(typed), Input::Message(said.to_owned()), "{typed:?}");
        }
        assert_eq!(Input::read(" \n "), Input::Empty);
    }

    #[test]
    fn lines_are_waited_for_as_long_as_something_is_open() {
        for (typed, open) in [
            ("hello", false),
            ("hello\\", true),
            ("one\\\ntwo", false),
            ("\"\"\"", true),
            ("\"\"\"one\ntwo", true),
            ("\"\"\"one\ntwo\"\"\"", false),
            ("\"\"\"a\"\"\" and \"\"\"b", true),
            ("", false),
        ] {
            assert_eq!(goes_on(typed), open, "{typed:?}");
        }
    }

    #[test]
    fn commands_and_what_they_lack() {
        assert_eq!(Input::read("/help"), Input::Help);
        assert_eq!(Input::read("/system Be brief."), Input::System(Some("Be brief.".to_owned())));
        assert_eq!(Input::read("/system"), Input::System(None));
        assert_eq!(Input::read("/system \"\"\"a\nb\"\"\""), Input::System(Some("a\nb".to_owned())));
        assert_eq!(Input::read("/model  qwen "), Input::Model(Some("qwen".to_owned())));
        assert_eq!(Input::read("/save"), Input::Wants("/save FILE"));
        assert_eq!(Input::read("/save a b.md"), Input::Save("a b.md".to_owned()));
        assert_eq!(Input::read("/bye"), Input::Quit);
        assert_eq!(Input::read("/hlep me"), Input::Unknown("hlep".to_owned()));
    }
}
