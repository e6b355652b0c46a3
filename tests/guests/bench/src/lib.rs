//! The app of the benchmarks. What it does is its first argument: `return` at once, `wait` for the end of its input, or
//! `ask N`, which asks its input for an answer of at most N tokens and writes what it saw of it.

use std::time::Duration;

use locara::{App, Event, Failure, Session, system};

/// See the module.
#[locara::app]
pub async fn bench(app: &mut App) -> Result<(), Failure> {
    let arguments: Vec<&str> = app.args.iter().map(String::as_str).collect();
    match arguments[..] {
        ["return"] => Ok(()),
        ["wait"] => {
            // Whoever measures an idle instance must know when it is idle.
            locara::progress(None, "waiting");
            while app.input.chunk().await?.is_some() {}
            Ok(())
        }
        ["ask", max_tokens] => {
            let max_tokens =
                max_tokens.parse::<u32>().map_err(|error| Failure::new(format_args!("{max_tokens}: {error}")))?;
            let question = app.input.text().await?;
            let seen = ask(question, max_tokens).await?;
            app.output.write(format_args!("{} {}", seen.tokens, seen.after_first.as_nanos())).await?;
            Ok(())
        }
        _ => Err(Failure::new(format_args!("no mode {arguments:?}"))),
    }
}

/// What the app saw of an answer.
struct Seen {
    /// Tokens of the answer.
    tokens: u32,
    /// From the first piece of it to its outcome.
    after_first: Duration,
}

/// Reads an answer as it comes and drops its text.
async fn ask(question: String, max_tokens: u32) -> Result<Seen, Failure> {
    let mut session = Session::open("default")?;
    let mut answer = session.ask(question).max_tokens(max_tokens).temperature(0.0).stream();
    let mut first = None;
    while let Some(event) = answer.next().await? {
        if let (None, Event::Text(_)) = (first, event) {
            first = Some(system::monotonic());
        }
    }
    let ended = system::monotonic();
    let tokens = answer.completion().await?.usage.output_tokens;
    Ok(Seen { tokens, after_first: ended.saturating_sub(first.unwrap_or(ended)) })
}
