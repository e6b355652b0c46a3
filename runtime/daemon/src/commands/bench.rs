//! `locara bench`: how fast the running host answers, with everything that the figures depend on beside them.
//!
//! Requests go one after the other, each with a prompt of its own, so that no cache of an earlier one helps. The first one,
//! which may load the model, is not counted.

use locara_platform::MachineFacts;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    answer::{Answer, answer},
    client::Client,
    progress::Waiting,
};
use crate::{cli::BenchArgs, exit::Exit, failure::Failure, host, paths::Paths, print};

/// What was measured and on what, as `--json` prints it. Two records compare if only one thing differs.
#[derive(Debug, Serialize)]
struct Record {
    locara: String,
    engine: String,
    machine: MachineFacts,
    model: String,
    digest: Option<String>,
    quantization: Option<String>,
    requests: usize,
    prompt_tokens: u64,
    answer_tokens: u64,
    /// From the request to the first token, seconds.
    first_token_s: Spread,
    /// Tokens of the prompt in a second, until the first token.
    prompt_tokens_per_s: Spread,
    /// Tokens of the answer in a second, after the first one.
    answer_tokens_per_s: Spread,
}

/// Some measurements.
#[derive(Debug, PartialEq, Serialize)]
struct Spread {
    p50: f64,
    p95: f64,
    least: f64,
    most: f64,
}

impl Spread {
    /// By nearest rank. All are zero if nothing was measured.
    fn of(mut measured: Vec<f64>) -> Self {
        measured.sort_by(f64::total_cmp);
        let rank = |percent: usize| {
            let at = (measured.len() * percent).div_ceil(100).max(1) - 1;
            measured.get(at).copied().unwrap_or(0.0)
        };
        Self { p50: rank(50), p95: rank(95), least: rank(0), most: rank(100) }
    }
}

pub(super) fn run(args: &BenchArgs, as_json: bool) -> Result<Exit, Failure> {
    let client = Client::new(&Paths::find()?)?;
    let machine = host::facts()?;
    let waiting = if as_json { None } else { Some(Waiting::new(&format!("{} is measured", args.model))) };
    let record = host::runtime()?.block_on(measure(&client, args, machine))?;
    drop(waiting);
    if as_json {
        print::json(&record);
    } else {
        show(&record);
    }
    Ok(Exit::Success)
}

async fn measure(client: &Client, args: &BenchArgs, machine: MachineFacts) -> Result<Record, Failure> {
    let locara = client.hello().await?;
    ask(client, args, 0).await?;
    let mut answers = Vec::new();
    for number in 1..=args.requests {
        answers.push(ask(client, args, number).await?);
    }
    let model = answers.last().map(|answer| answer.model.clone()).unwrap_or_default();
    let tags = client.get("/api/tags").await?;
    let listed = tags["models"].as_array().into_iter().flatten().find(|listed| listed["name"] == model.as_str());
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let count = |name: &str| answers.iter().filter_map(|answer| answer.usage[name].as_u64()).max().unwrap_or(0);
    Ok(Record {
        locara,
        // The host may be another build than this command; `locara doctor` says when the versions differ.
        engine: locara_engine::llama::build_info(),
        machine,
        digest: listed.and_then(|listed| text(&listed["digest"])),
        quantization: listed.and_then(|listed| text(&listed["details"]["quantization_level"])),
        model,
        requests: answers.len(),
        prompt_tokens: count("prompt_tokens"),
        answer_tokens: count("completion_tokens"),
        first_token_s: Spread::of(answers.iter().filter_map(first_s).collect()),
        prompt_tokens_per_s: Spread::of(answers.iter().filter_map(prompt_rate).collect()),
        answer_tokens_per_s: Spread::of(answers.iter().filter_map(answer_rate).collect()),
    })
}

async fn ask(client: &Client, args: &BenchArgs, number: u32) -> Result<Answer, Failure> {
    let body = json!({"model": args.model, "messages": [{"role": "user", "content": prompt(number, args.words)}],
        "max_tokens": args.tokens, "temperature": 0});
    answer(client, body, std::future::pending(), |_| {}).await
}

/// A prompt that begins like no other one.
fn prompt(number: u32, words: u32) -> String {
    const WORDS: [&str; 8] = ["river", "stone", "window", "letter", "garden", "morning", "paper", "silver"];
    let words = (0..words).map(|at| WORDS[((at + number * (at / 8 + 1)) % 8) as usize]);
    format!("{number} {}. Write a long story with these words.", words.collect::<Vec<_>>().join(" "))
}

fn first_s(answer: &Answer) -> Option<f64> {
    Some(answer.first?.as_secs_f64())
}

fn prompt_rate(answer: &Answer) -> Option<f64> {
    Some(answer.usage["prompt_tokens"].as_u64()? as f64 / first_s(answer)?)
}

fn answer_rate(answer: &Answer) -> Option<f64> {
    // The first token ends the time before, and begins this one.
    let tokens = answer.usage["completion_tokens"].as_u64()?.checked_sub(1)?;
    let seconds = answer.rest.as_secs_f64();
    (tokens > 0 && seconds > 0.0).then(|| tokens as f64 / seconds)
}

fn show(record: &Record) {
    let digest = record.digest.as_deref().and_then(|digest| digest.get(..12)).unwrap_or("unknown");
    print::row("model", format!("{}@{digest} {}", record.model, record.quantization.as_deref().unwrap_or_default()));
    // What the processor offers stands behind the semicolon; the record has it.
    let engine = record.engine.split(';').next().unwrap_or_default();
    print::row("host", format!("locara {}, {engine}", record.locara));
    print::row(
        "machine",
        format!(
            "{}, {} cores, {}",
            record.machine.cpu,
            record.machine.physical_cores,
            print::size(record.machine.ram_bytes)
        ),
    );
    let Spread { p50, p95, .. } = record.first_token_s;
    print::row("first token", format!("{:.0} ms, {:.0} ms at the 95th percentile", p50 * 1e3, p95 * 1e3));
    let rate = |spread: &Spread| format!("{:.1} tok/s, {:.1} to {:.1}", spread.p50, spread.least, spread.most);
    print::row(
        "prompt",
        format!("{}  {}", rate(&record.prompt_tokens_per_s), print::dim(&format!("({} tokens)", record.prompt_tokens))),
    );
    print::row(
        "answer",
        format!("{}  {}", rate(&record.answer_tokens_per_s), print::dim(&format!("({} tokens)", record.answer_tokens))),
    );
    print::row("requests", record.requests);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_are_by_nearest_rank() {
        let spread = Spread::of((1..=20).rev().map(f64::from).collect());
        assert_eq!(spread, Spread { p50: 10.0, p95: 19.0, least: 1.0, most: 20.0 });
        assert_eq!(Spread::of(vec![7.0]), Spread { p50: 7.0, p95: 7.0, least: 7.0, most: 7.0 });
        assert_eq!(Spread::of(Vec::new()), Spread { p50: 0.0, p95: 0.0, least: 0.0, most: 0.0 });
    }

    #[test]
    fn no_prompt_begins_like_another() {
        let prompts: std::collections::BTreeSet<String> =
            (0..100).map(|number| prompt(number, 20)[..8].to_owned()).collect();
        assert_eq!(prompts.len(), 100);
        assert_eq!(prompt(3, 20).split(' ').count(), 20 + 8);
    }
}
