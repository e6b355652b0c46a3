//! The app of the pressure test. Every line of its input is `SESSION TOKENS PROMPT`: one answer of at most that many
//! tokens, drawn with a fixed seed, in the conversation of that name, which is opened when it is first named. It writes one
//! JSON object a line: each piece of an answer, its end or its failure, and every change of its lease with the time at which
//! it heard of it.
//!
//! It gives back what it has: a scratch pool, when it is asked.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use locara::{App, Budget, Error, Event, Failure, Output, Pool, Release, Session, system};
use serde_json::{Value, json};

/// Bytes of the pool that it keeps to have something to give.
const SCRATCH: usize = 8 << 20;

/// Greedy answers of random weights fall into a loop, which hides a wrong state; drawn ones do not.
const SEED: u32 = 7;

/// What was heard of the lease and not written yet.
type Heard = Rc<RefCell<Vec<Value>>>;

/// See the module.
#[locara::app]
pub async fn pressure(app: &mut App) -> Result<(), Failure> {
    let heard = Heard::default();
    let scratch = Rc::new(RefCell::new(vec![1_u8; SCRATCH]));
    let pool = Pool::new("scratch", 1, move |_wanted| scratch.take().len() as u64);
    pool.set_reclaimable(SCRATCH as u64);
    let of_handler = Rc::clone(&heard);
    Budget::on_change(async move |budget| {
        of_handler.borrow_mut().push(change(&budget));
        // The pool was asked before; there is nothing else.
        Release::Done(0)
    });
    let mut sessions = BTreeMap::new();
    app.output.write_line(json!({"ready": system::monotonic().as_millis()})).await?;
    while let Some(line) = app.input.line().await? {
        let mut words = line.splitn(3, ' ');
        let (Some(name), Some(tokens), Some(prompt)) = (words.next(), words.next(), words.next()) else {
            return Err(Failure::new(format_args!("not `SESSION TOKENS PROMPT`: {line:?}")));
        };
        let tokens = tokens.parse::<u32>().map_err(|error| Failure::new(format_args!("{tokens}: {error}")))?;
        let answered = answer(&mut sessions, name, tokens, prompt, &heard, &mut app.output).await;
        write_heard(&heard, &mut app.output).await?;
        let end = match answered {
            Ok(tokens) => json!({"end": name, "tokens": tokens}),
            Err(error) => json!({"failed": name, "why": error.to_string()}),
        };
        app.output.write_line(end).await?;
    }
    Ok(())
}

/// Streams an answer and says how many tokens it had.
async fn answer(
    sessions: &mut BTreeMap<String, Session>,
    name: &str,
    tokens: u32,
    prompt: &str,
    heard: &Heard,
    output: &mut Output,
) -> Result<u32, Error> {
    if !sessions.contains_key(name) {
        sessions.insert(name.to_owned(), Session::open("default")?);
    }
    let Some(session) = sessions.get_mut(name) else { return Ok(0) };
    let mut answer = session.ask(prompt).max_tokens(tokens).temperature(1.0).seed(SEED).stream();
    while let Some(event) = answer.next().await? {
        if let Event::Text(piece) = event {
            output.write_line(json!({"piece": piece})).await?;
        }
        write_heard(heard, output).await?;
    }
    Ok(answer.completion().await?.usage.output_tokens)
}

async fn write_heard(heard: &Heard, output: &mut Output) -> Result<(), Error> {
    for line in heard.take() {
        output.write_line(line).await?;
    }
    Ok(())
}

/// A change of the lease, in milliseconds of the host's clock and bytes.
fn change(budget: &Budget) -> Value {
    json!({
        "epoch": budget.epoch,
        "heard": system::monotonic().as_secs_f64() * 1e3,
        "since": budget.since.as_secs_f64() * 1e3,
        "deadline": budget.deadline.as_secs_f64() * 1e3,
        "level": format!("{:?}", budget.pressure),
        "limit": budget.limit,
        "release": budget.release,
        "cause": budget.cause,
    })
}
