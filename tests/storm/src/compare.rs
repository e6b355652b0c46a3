//! Whether the host's counters and the clients' counts are the same.
//!
//! Every request is accounted for. A client that goes away cannot know how far the host had come: its answer may have been
//! whole there by then. So what the host counts beside what clients saw must be covered by those that went away, one by one;
//! where nobody went away the numbers must be equal.

use std::collections::BTreeMap;

use crate::{
    ask::MAX_TOKENS,
    tally::{Class, Dialect, Ended, Tally},
};

/// The status that the host counts for a client that went away before it had one.
const LEFT: u16 = 499;

/// Counters of `/metrics`, summed over the labels that do not matter here.
#[derive(Debug, Default, PartialEq, Eq)]
struct Host {
    responses: BTreeMap<(String, u16), u64>,
    /// By class and outcome.
    answers: BTreeMap<(String, String), u64>,
    output_tokens: u64,
}

impl Host {
    fn parse(text: &str) -> Self {
        let mut host = Self::default();
        for (name, labels, value) in text.lines().filter_map(line) {
            let label = |name: &str| labels.get(name).copied().unwrap_or_default().to_owned();
            match name {
                "locara_http_requests_total" => {
                    let status = label("status").parse().unwrap_or_default();
                    *host.responses.entry((label("dialect"), status)).or_default() += value;
                }
                "locara_answers_total" => {
                    *host.answers.entry((label("class"), label("outcome"))).or_default() += value;
                }
                "locara_output_tokens_total" => host.output_tokens += value,
                _ => {}
            }
        }
        host
    }

    fn answers(&self, class: Class, outcomes: &[&str]) -> u64 {
        let of = |outcome: &&str| self.answers.get(&(class.word().to_owned(), (*outcome).to_owned())).copied();
        outcomes.iter().filter_map(of).sum()
    }
}

/// `name{label="value",…} number`. Values that hold commas or quotes do not matter here.
fn line(text: &str) -> Option<(&str, BTreeMap<&str, &str>, u64)> {
    let (name, rest) = text.split_once('{')?;
    let (labels, value) = rest.rsplit_once("} ")?;
    let labels = labels.split(',').filter_map(|label| {
        let (name, value) = label.split_once('=')?;
        Some((name, value.trim_matches('"')))
    });
    Some((name, labels.collect(), value.trim().parse().ok()?))
}

/// Every difference that nobody who went away explains, as a sentence.
pub(crate) fn differences(metrics: &str, clients: &Tally) -> Vec<String> {
    let host = Host::parse(metrics);
    let mut all = Vec::new();
    let mut between = |what: String, found: u64, least: u64, most: u64| {
        if !(least..=most).contains(&found) {
            all.push(format!("{what}: the host counts {found}, the clients {least} to {most}"));
        }
    };
    for dialect in [Dialect::OpenAi, Dialect::Anthropic, Dialect::Ollama] {
        responses(&host, clients, dialect, &mut between);
    }
    let mut whole_at_host = 0;
    for class in Class::ALL {
        whole_at_host += answers(&host, clients, class, &mut between);
    }
    let (least, bound) = (clients.output_tokens, u64::from(MAX_TOKENS));
    between("output tokens".to_owned(), host.output_tokens, least, least + whole_at_host * bound);
    all
}

fn responses(host: &Host, clients: &Tally, dialect: Dialect, between: &mut impl FnMut(String, u64, u64, u64)) {
    let early: u64 = clients.left_early.iter().filter(|((of, _), _)| *of == dialect).map(|(_, n)| n).sum();
    let word = dialect.word().to_owned();
    let of = |status: u16| host.responses.get(&(word.clone(), status)).copied().unwrap_or_default();
    let seen = |status: u16| clients.responses.get(&(dialect, status)).copied().unwrap_or_default();
    let there = host.responses.keys().filter(|(of, _)| *of == word).map(|(_, status)| *status);
    let mut statuses: Vec<u16> = clients.responses.keys().filter(|(of, _)| *of == dialect).map(|(_, s)| *s).collect();
    statuses.extend(there);
    statuses.sort_unstable();
    statuses.dedup();
    for status in &statuses {
        between(format!("{word} responses {status}"), of(*status), seen(*status), seen(*status) + early);
    }
    let all_seen: u64 = statuses.iter().map(|status| seen(*status)).sum::<u64>() + early;
    let all: u64 = statuses.iter().map(|status| of(*status)).sum();
    between(format!("{word} responses, those with {LEFT} for clients that left"), all, all_seen, all_seen);
}

/// Returns how many answers were whole at the host and not read to their end.
fn answers(host: &Host, clients: &Tally, class: Class, between: &mut impl FnMut(String, u64, u64, u64)) -> u64 {
    let word = class.word();
    let seen = |ended: Ended| clients.answers.get(&(class, ended)).copied().unwrap_or_default();
    let left = clients.left.get(&class).copied().unwrap_or_default();
    let early: u64 = clients.left_early.iter().filter(|((_, of), _)| *of == class).map(|(_, n)| n).sum();
    let unavailable = clients.unavailable.get(&class).copied().unwrap_or_default();
    let gone = left + early;

    let whole = host.answers(class, &["stop", "tool_calls"]);
    let cut = host.answers(class, &["length", "repetition"]);
    let refused = host.answers(class, &["refused"]);
    let failed = host.answers(class, &["failed"]);
    let abandoned = host.answers(class, &["abandoned"]);
    between(format!("{word} answers that ended by themselves"), whole, seen(Ended::Whole), seen(Ended::Whole) + gone);
    between(format!("{word} answers that were cut off"), cut, seen(Ended::Cut), seen(Ended::Cut) + gone);
    between(format!("{word} answers refused"), refused, seen(Ended::Refused), seen(Ended::Refused) + early);
    let most = seen(Ended::Failed) + unavailable + early;
    between(format!("{word} answers that failed"), failed, seen(Ended::Failed), most);
    between(format!("{word} answers abandoned"), abandoned, 0, gone);

    // One request that was left is one of these, or was left before it reached a model.
    let ended_seen = [Ended::Whole, Ended::Cut, Ended::Refused, Ended::Failed].map(seen).into_iter().sum::<u64>();
    let all = whole + cut + refused + failed + abandoned;
    let least = ended_seen + left;
    between(format!("{word} answers in all"), all, least, least + early + unavailable);
    (whole + cut).saturating_sub(seen(Ended::Whole) + seen(Ended::Cut))
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = r#"# TYPE locara_http_requests counter
locara_http_requests_total{dialect="openai",status="200"} 3
locara_http_requests_total{dialect="openai",status="499"} 1
locara_answers_total{model="tiny",class="interactive",outcome="stop"} 2
locara_answers_total{model="tiny",class="interactive",outcome="abandoned"} 2
locara_output_tokens_total{model="tiny"} 30
"#;

    fn clients() -> Tally {
        let mut tally = Tally { output_tokens: 30, ..Tally::default() };
        (0..3).for_each(|_| tally.response(Dialect::OpenAi, 200));
        (0..2).for_each(|_| tally.answer(Class::Interactive, Ended::Whole));
        tally.left.insert(Class::Interactive, 1);
        tally.left_early.insert((Dialect::OpenAi, Class::Interactive), 1);
        tally
    }

    #[test]
    fn the_same_counts_are_no_difference() {
        assert_eq!(differences(METRICS, &clients()), Vec::<String>::new());
    }

    #[test]
    fn one_of_anything_too_many_or_too_few_is_a_difference() {
        let differs = |change: fn(&mut Tally)| {
            let mut tally = clients();
            change(&mut tally);
            !differences(METRICS, &tally).is_empty()
        };
        assert!(differs(|tally| tally.response(Dialect::OpenAi, 200)));
        assert!(differs(|tally| tally.response(Dialect::Ollama, 200)));
        assert!(differs(|tally| tally.answer(Class::Interactive, Ended::Cut)));
        assert!(differs(|tally| tally.answer(Class::Batch, Ended::Whole)));
        assert!(differs(|tally| tally.output_tokens += 1), "no answer of somebody who left was whole");
        assert!(differs(|tally| tally.output_tokens -= 1));
        assert!(differs(|tally| tally.left.clear()), "an answer is abandoned by somebody");
        assert!(differs(|tally| tally.left_early.clear()));
    }
}
