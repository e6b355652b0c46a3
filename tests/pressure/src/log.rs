//! What the governor did, from its log: the log is replayed, and what it asked for is joined with what came of it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use locara_policy::governor::{Action, Event, Level, StepId, record};

/// Something that was given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) what: String,
    /// Time of the event that caused it.
    pub(crate) at_ms: u64,
    /// How long it had to wait until the answers in flight had ended; only an unload waits.
    pub(crate) waited_ms: u64,
    /// From then on until it was done, measured after the bytes were free.
    pub(crate) took_ms: u64,
    pub(crate) expected: u64,
    pub(crate) freed: u64,
}

/// What a log says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) given: Vec<Given>,
    pub(crate) failed: Vec<String>,
    pub(crate) tightenings: u32,
    pub(crate) worst: Level,
}

struct Asked {
    what: String,
    at_ms: u64,
    expected: u64,
    /// The model of an unload, which waits for what runs on it.
    leaves: Option<String>,
}

/// Replays a log.
pub(crate) fn read(text: &str) -> Result<Told> {
    let decided = record::replay_log(text).context("the governor's log cannot be replayed")?;
    let lines: Vec<record::Line> = text
        .lines()
        .skip(1)
        .filter(|line| !line.is_empty())
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .context("a line of the governor's log is no event")?;
    let mut told = Told::default();
    let mut asked = BTreeMap::<StepId, Asked>::new();
    // Until when each model was busy; `None`: it still is.
    let mut busy_until = BTreeMap::<String, Option<u64>>::new();
    for (line, actions) in lines.into_iter().zip(decided) {
        match line.event {
            Event::Active { model, activity } => {
                let before = busy_until.get(&model.0).copied();
                let until = match (activity.is_busy(), before) {
                    (true, _) => Some(None),
                    (false, Some(None)) => Some(Some(line.at_ms)),
                    (false, _) => None,
                };
                if let Some(until) = until {
                    busy_until.insert(model.0, until);
                }
            }
            Event::Done { step, freed, .. } => {
                if let Some(Asked { what, at_ms, expected, leaves }) = asked.remove(&step) {
                    let ended = leaves.and_then(|model| busy_until.get(&model).copied().flatten()).unwrap_or(at_ms);
                    let begin = ended.max(at_ms);
                    told.given.push(Given {
                        what,
                        at_ms,
                        waited_ms: begin - at_ms,
                        took_ms: line.at_ms.saturating_sub(begin),
                        expected,
                        freed: freed.get(),
                    });
                }
            }
            // Taken back before it freed anything: nothing was given.
            Event::Kept { step } => _ = asked.remove(&step),
            Event::Failed { step, reason } => {
                let what = asked.remove(&step).map_or_else(String::new, |asked| asked.what);
                told.failed.push(format!("{what}: {reason}"));
            }
            _ => {}
        }
        for action in actions {
            match action {
                Action::Reclaim { step, rung, expected, .. } => {
                    let asking =
                        Asked { what: rung.to_string(), at_ms: line.at_ms, expected: expected.get(), leaves: None };
                    asked.insert(step, asking);
                }
                Action::Unload { step, model, expected } => {
                    let what = "the model".to_owned();
                    let asking = Asked { what, at_ms: line.at_ms, expected: expected.get(), leaves: Some(model.0) };
                    asked.insert(step, asking);
                }
                Action::Tighten { tightening, .. } if tightening.level > Level::Normal => {
                    told.tightenings += 1;
                    told.worst = told.worst.max(tightening.level);
                }
                _ => {}
            }
        }
    }
    told.failed.extend(asked.into_values().map(|asked| format!("{}: never answered", asked.what)));
    Ok(told)
}

/// Nearest rank. `None` of nothing.
pub(crate) fn percentile(values: &[u64], percent: usize) -> Option<u64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use locara_policy::{
        Bytes, Kind,
        defaults::defaults,
        governor::{Activity, Class, Config, LoadRequest, ModelUse, Need, Sample, TicketId},
        ledger::ModelDigest,
        machine::Machine,
    };

    use super::*;

    fn log(events: &[(u64, Event)]) -> String {
        let machine = Machine::cpu("test", Bytes::gib(3), 2);
        let config = Config::new(&machine, &defaults(&machine, None));
        let mut text = record::header(&config) + "\n";
        for (at_ms, event) in events {
            text += &(record::line(*at_ms, event) + "\n");
        }
        text
    }

    fn sample(available: Bytes) -> Event {
        Event::Sample(Sample { available, own_file: Bytes::mib(200), ..Sample::default() })
    }

    fn model() -> ModelDigest {
        ModelDigest("m".to_owned())
    }

    fn busy(interactive: u32, idle_kv: Bytes) -> Event {
        Event::Active { model: model(), activity: Activity { interactive, idle_kv, ..Activity::default() } }
    }

    /// A model that answers while memory goes away: its idle KV is asked back, and it is asked to go itself.
    fn story() -> Vec<(u64, Event)> {
        let parts = vec![(Kind::WeightsMapped, Bytes::mib(200)), (Kind::Kv, Bytes::mib(300))];
        let request = LoadRequest {
            ticket: TicketId(1),
            model: model(),
            name: "m".to_owned(),
            used_as: ModelUse::Chat,
            need: Need { parts: parts.clone(), transient: Bytes::ZERO, gpu: Bytes::ZERO },
            reload_ms: 300,
            keep_loaded: false,
            app: None,
            class: Class::Interactive,
        };
        let left = vec![(Kind::WeightsMapped, Bytes::mib(200)), (Kind::Kv, Bytes::mib(20))];
        vec![
            (0, sample(Bytes::gib(3))),
            (10, Event::Load(request)),
            (400, Event::Loaded { model: model(), holds: parts, took_ms: 390 }),
            (1000, sample(Bytes::mib(2900))),
            (1010, busy(1, Bytes::mib(280))),
            (1100, sample(Bytes::mib(10))),
            (1150, Event::Done { step: StepId(1), freed: Bytes::mib(280), holds: Some(left) }),
            (7000, busy(0, Bytes::ZERO)),
            (7090, Event::Done { step: StepId(2), freed: Bytes::mib(219), holds: None }),
        ]
    }

    #[test]
    fn an_unload_is_timed_from_the_end_of_the_answer_that_it_waits_for() {
        let told = read(&log(&story())).unwrap();
        let [rung, given] = told.given.as_slice() else { panic!("two things were given back: {:?}", told.given) };
        assert_eq!((rung.what.as_str(), rung.at_ms, rung.took_ms), ("KV of idle sessions", 1100, 50));
        assert_eq!((given.what.as_str(), given.at_ms, given.waited_ms, given.took_ms), ("the model", 1100, 5900, 90));
        assert_eq!(given.freed, Bytes::mib(219).get());
        assert!(told.failed.is_empty(), "{:?}", told.failed);
    }

    #[test]
    fn what_was_never_answered_is_said() {
        let mut story = story();
        story.truncate(7);
        assert_eq!(read(&log(&story)).unwrap().failed, ["the model: never answered"]);
    }

    #[test]
    fn a_log_without_its_head_is_refused() {
        let text = log(&story());
        let (_, headless) = text.split_once('\n').unwrap();
        assert!(read(headless).unwrap_err().to_string().contains("cannot be replayed"));
        assert!(read("").is_err());
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let values = [40, 10, 30, 20];
        assert_eq!(percentile(&values, 50), Some(20));
        assert_eq!(percentile(&values, 99), Some(40));
        assert_eq!(percentile(&values[..1], 50), Some(40));
        assert_eq!(percentile(&[], 99), None);
    }
}
