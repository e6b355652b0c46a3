//! `locara chat`: a conversation with a model of the running host.
//!
//! At a terminal it is a prompt with history and commands; what is piped in is answered once. It is a client like any other
//! and must never load a model itself.

mod input;
mod prompt;

use std::io::{IsTerminal, Read as _, Write as _};

use serde_json::{Value, json};

use self::{
    input::Input,
    prompt::{Prompt, Typed},
};
use super::{
    answer::{Answer, Piece, answer},
    client::Client,
    progress::Waiting,
};
use crate::{
    cli::ChatArgs,
    exit::Exit,
    failure::{Failure, io},
    host,
    paths::Paths,
    print,
};

/// Longest text that is read from a pipe, bytes. The host bounds bodies too, and says so.
const PIPE_MOST: u64 = 64 << 20;

const HELP: &str = "\
/system [TEXT]  show or set what the model is told before the conversation
/model [NAME]   show or change the model; the conversation goes on
/clear          begin a new conversation
/save FILE      write the conversation into a file
/quit           end; Ctrl-D does too

A line that ends with \\ goes on, and so does everything between two \"\"\".
Ctrl-C stops an answer. A message that begins with / is written with //.";

pub(super) fn run(args: &ChatArgs, as_json: bool) -> Result<Exit, Failure> {
    let paths = Paths::find()?;
    let client = Client::new(&paths)?;
    let runtime = host::runtime()?;
    if !std::io::stdin().is_terminal() {
        return once(&runtime, &client, args, as_json);
    }
    if as_json {
        return Err(Failure::new(Exit::Failure, "a conversation at a terminal has no JSON")
            .help("pipe the question in: echo QUESTION | locara chat --json"));
    }
    runtime.block_on(check(&client, &args.model))?;
    let mut talk = Talk { model: args.model.clone(), system: args.system.clone(), turns: Vec::new() };
    let mut prompt = Prompt::new(paths.data().join("chat_history"))?;
    print::say!("{}", print::dim(&format!("talking to {}; /help shows commands", talk.model)));
    loop {
        match prompt.read()? {
            Typed::Text(text) => match Input::read(&text) {
                Input::Quit => break,
                input => take(&runtime, &client, &mut talk, input),
            },
            Typed::Interrupted => print::say!("{}", print::dim("/quit or Ctrl-D ends")),
            Typed::End => break,
        }
        if print::lost().is_some() {
            break;
        }
    }
    Ok(Exit::Success)
}

/// Whether there is a host that knows the model.
async fn check(client: &Client, model: &str) -> Result<(), Failure> {
    client.hello().await?;
    client.post("/api/show", &json!({ "model": model })).await?;
    Ok(())
}

/// A conversation.
struct Talk {
    model: String,
    system: Option<String>,
    /// Roles and texts.
    turns: Vec<(&'static str, String)>,
}

impl Talk {
    fn body(&self) -> Value {
        json!({"model": self.model, "messages": self.messages()})
    }

    fn messages(&self) -> Vec<Value> {
        let system = self.system.iter().map(|text| ("system", text));
        let turns = self.turns.iter().map(|(role, text)| (*role, text));
        system.chain(turns).map(|(role, text)| json!({"role": role, "content": text})).collect()
    }

    /// For people, who may want to read it anywhere.
    fn as_markdown(&self) -> String {
        let system = self.system.iter().map(|text| ("system", text));
        let turns = self.turns.iter().map(|(role, text)| (*role, text));
        system.chain(turns).map(|(role, text)| format!("## {role}\n\n{}\n\n", text.trim_end())).collect()
    }

    fn save(&self, file: &str) -> Result<(), Failure> {
        // A file that is there stays as it is.
        let mut out = fs_err::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(file)
            .map_err(|error| io("save the conversation", error).help("name a file that is not there yet"))?;
        out.write_all(self.as_markdown().as_bytes()).map_err(|error| io("save the conversation", error))
    }
}

/// Does what was typed. A failure is shown and the conversation goes on.
fn take(runtime: &tokio::runtime::Runtime, client: &Client, talk: &mut Talk, input: Input) {
    match input {
        Input::Empty | Input::Quit => {}
        Input::Help => print::say!("{HELP}"),
        Input::Clear => {
            talk.turns.clear();
            print::say!("{}", print::dim("a new conversation"));
        }
        Input::System(Some(text)) => talk.system = Some(text),
        Input::System(None) => print::say!("{}", talk.system.as_deref().unwrap_or("nothing is set")),
        Input::Model(None) => print::say!("{}", talk.model),
        Input::Model(Some(model)) => match runtime.block_on(check(client, &model)) {
            Ok(()) => talk.model = model,
            Err(failure) => print::failure(&failure),
        },
        Input::Save(file) => match talk.save(&file) {
            Ok(()) => print::say!("{}", print::dim(&format!("saved in {file}"))),
            Err(failure) => print::failure(&failure),
        },
        Input::Unknown(word) => print::say!("there is no command /{word}; /help shows those that there are"),
        Input::Wants(usage) => print::say!("write {usage}"),
        Input::Message(text) => {
            talk.turns.push(("user", text));
            match runtime.block_on(speak(client, talk)) {
                Ok(answer) if answer.text.is_empty() => _ = talk.turns.pop(),
                Ok(answer) => talk.turns.push(("assistant", answer.text)),
                Err(failure) => {
                    // Who types it again must not say it twice.
                    talk.turns.pop();
                    print::failure(&failure);
                }
            }
        }
    }
}

/// Streams one answer to the terminal. Ctrl-C ends the answer, and nothing else.
async fn speak(client: &Client, talk: &Talk) -> Result<Answer, Failure> {
    let stop = async {
        // Without a handler Ctrl-C ends the program, as it would without us.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let waiting = Waiting::new(&format!("{} reads", talk.model));
    let mut out = anstream::stdout();
    let mut thinks = false;
    let answered = answer(client, talk.body(), stop, |piece| {
        waiting.end();
        let text = match piece {
            Piece::Thinking(text) => {
                thinks = true;
                print::dim(&harmless(text))
            }
            Piece::Text(text) if std::mem::take(&mut thinks) => format!("\n\n{}", harmless(text.trim_start())),
            Piece::Text(text) => harmless(text),
        };
        // A terminal that is gone ends the program at the next line.
        let _ = write!(out, "{text}").and_then(|()| out.flush());
    })
    .await;
    waiting.end();
    let answer = answered?;
    print::say!("\n{}", print::dim(&summary(&answer)));
    Ok(answer)
}

/// Without what moves cursors, changes colours or sets titles: a model must not steer the terminal.
fn harmless(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

/// How it went, in one line.
fn summary(answer: &Answer) -> String {
    let mut words = vec![answer.model.clone()];
    if let Some(tokens) = answer.usage["completion_tokens"].as_u64() {
        words.push(format!("{tokens} tokens"));
        // The first token comes at the beginning of the time that is counted.
        let seconds = answer.rest.as_secs_f64();
        if tokens > 1 && seconds > 0.0 {
            words.push(format!("{:.1} tok/s", (tokens - 1) as f64 / seconds));
        }
    }
    if let Some(first) = answer.first {
        words.push(format!("first after {:.1} s", first.as_secs_f64()));
    }
    match answer.finish_reason.as_deref() {
        None => words.push("stopped".to_owned()),
        Some("length") => words.push("cut off: the context or `[defaults] max_tokens` is full".to_owned()),
        Some(_) => {}
    }
    words.join("  ")
}

/// Answers what was piped in.
fn once(runtime: &tokio::runtime::Runtime, client: &Client, args: &ChatArgs, as_json: bool) -> Result<Exit, Failure> {
    let mut question = String::new();
    std::io::stdin()
        .lock()
        .take(PIPE_MOST)
        .read_to_string(&mut question)
        .map_err(|error| io("read the question from standard input", error))?;
    if question.trim().is_empty() {
        return Err(Failure::new(Exit::Failure, "there is no question on standard input")
            .help("echo QUESTION | locara chat, or `locara chat` at a terminal"));
    }
    let talk = Talk { model: args.model.clone(), system: args.system.clone(), turns: vec![("user", question)] };
    let answer = runtime.block_on(async {
        client.hello().await?;
        let asked = host::asked_to_stop();
        let stop = async { _ = asked.await };
        let mut out = anstream::stdout();
        let terminal = std::io::stdout().is_terminal();
        answer(client, talk.body(), stop, |piece| {
            if let (false, Piece::Text(text)) = (as_json, piece) {
                let text = if terminal { harmless(text) } else { text.to_owned() };
                let _ = write!(out, "{text}").and_then(|()| out.flush());
            }
        })
        .await
    })?;
    if as_json {
        print::json(&json!({"model": answer.model, "answer": answer.text, "reasoning": answer.thinking,
            "finish_reason": answer.finish_reason, "usage": answer.usage}));
    } else if !answer.text.ends_with('\n') {
        print::say!("");
    }
    match answer.finish_reason.as_deref() {
        None => Err(Failure::new(Exit::Failure, "the answer was stopped before its end")),
        Some("length") if !as_json => {
            print::note("the answer is cut off: the context or `[defaults] max_tokens` is full");
            Ok(Exit::Success)
        }
        Some(_) => Ok(Exit::Success),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_cannot_steer_the_terminal() {
        assert_eq!(harmless("a\u{1b}]0;owned\u{7}\tb\r\n\u{9b}2Jc"), "a]0;owned\tb\n2Jc");
    }

    #[test]
    fn a_conversation_is_sent_and_saved_in_order() {
        let talk = Talk {
            model: "m".to_owned(),
            system: Some("Be brief.".to_owned()),
            turns: vec![("user", "Hi".to_owned()), ("assistant", "Hello.\n".to_owned())],
        };
        let roles: Vec<String> =
            talk.messages().iter().map(|message| message["role"].as_str().unwrap().to_owned()).collect();
        assert_eq!(roles, ["system", "user", "assistant"]);
        assert_eq!(talk.as_markdown(), "## system\n\nBe brief.\n\n## user\n\nHi\n\n## assistant\n\nHello.\n\n");
    }
}
