//! The SDK through the eyes of an author: every promise of the API, against the scripted host.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use futures::StreamExt as _;

use super::{Ended, Script, Turn, run};
use crate::message::{Constraint, StopReason, Tool, ToolChoice};
use crate::{
    App, Budget, Error, Event, Failure, Message, Pool, Pressure, Release, Session, files, http, storage, system,
};

type Outcome = Result<(), Failure>;

/// An app that asks one thing and writes the answer.
async fn ask(app: &mut App) -> Outcome {
    let question = app.input.text().await?;
    Session::open("default")?.ask(question).stream().write_to(&mut app.output).await?;
    Ok(())
}

#[test]
fn an_answer_is_streamed_and_complete() {
    run(ask, Script::new().input("Hi").reply("Hello there, friend")).expect_output("Hello there, friend");
}

#[test]
fn settings_reach_the_model() {
    async fn app(_: &mut App) -> Outcome {
        let mut session = Session::open("default")?;
        let answer = session.ask("Hi").system("Be brief.").max_tokens(7).stop("\n").stop("END").temperature(0.5);
        let answer =
            answer.top_k(1).top_p(0.9).min_p(0.1).repeat_penalty(1.1).frequency_penalty(0.2).presence_penalty(0.3);
        answer.seed(42).logit_bias(7, -1.0).regex("[a-z]+").tool_choice(ToolChoice::None).await?;
        Ok(())
    }
    let run = run(app, Script::new().reply("hi"));
    run.expect_output("");
    let request = &run.questions[0].request;
    assert_eq!(request.messages, [Message::system("Be brief."), Message::user("Hi")]);
    assert_eq!(
        (request.max_tokens, request.stop.as_slice()),
        (Some(7), ["\n".to_owned(), "END".to_owned()].as_slice())
    );
    let sampling = &request.sampling;
    assert_eq!((sampling.temperature, sampling.top_k, sampling.top_p), (Some(0.5), Some(1), Some(0.9)));
    assert_eq!((sampling.min_p, sampling.repeat_penalty), (Some(0.1), Some(1.1)));
    assert_eq!((sampling.frequency_penalty, sampling.presence_penalty), (Some(0.2), Some(0.3)));
    assert_eq!((sampling.seed, sampling.logit_bias.as_slice()), (Some(42), [(7, -1.0)].as_slice()));
    assert_eq!(request.constraint, Some(Constraint::Regex("[a-z]+".into())));
    assert_eq!(request.tool_choice, ToolChoice::None);
}

#[test]
fn a_conversation_remembers_forks_and_rewinds() {
    async fn app(_: &mut App) -> Outcome {
        let mut session = Session::open("default")?;
        session.ask("one").await?;
        let mut fork = session.fork()?;
        session.ask("two").await?;
        fork.ask("other").await?;
        assert_eq!((session.length(), fork.length()), (4, 4));
        session.rewind(2)?;
        session.ask("three").await?;
        let refused = session.rewind(9).expect_err("the history is shorter");
        assert_eq!(refused.to_string(), "invalid request: cannot rewind to 9 messages: the history has 4");
        Ok(())
    }
    let run = run(app, Script::new().answer(|question| format!("re {}", question.prompt())));
    run.expect_output("");
    let heard =
        |index: usize| -> Vec<&str> { run.questions[index].history.iter().map(|m| m.content.as_str()).collect() };
    assert_eq!(heard(1), ["one", "re one"]);
    assert_eq!(heard(2), ["one", "re one"], "the fork knows nothing of `two`");
    assert_eq!(heard(3), ["one", "re one"], "`two` is forgotten");
}

#[test]
fn contexts_are_finite_and_say_so() {
    async fn app(_: &mut App) -> Outcome {
        let mut session = Session::open("default")?;
        let message = [Message::user("x".repeat(400))];
        assert_eq!((session.context_tokens(), session.count_tokens(&message).await?), (128, 104));
        let refused = session.send(message.clone()).max_tokens(25).await.expect_err("129 tokens in all");
        assert_eq!(refused, Error::ContextOverflow { prompt_tokens: 104, max_tokens: 25, context_tokens: 128 });
        assert_eq!(session.length(), 0, "what was refused is not in the history");
        let reply = session.send(message).max_tokens(24).await?;
        assert_eq!((reply.completion.stop, reply.completion.usage.output_tokens), (StopReason::MaxTokens, 24));
        assert_eq!(reply.text.len(), 96);
        Ok(())
    }
    run(app, Script::new().context_tokens(128).answer(|_| "y".repeat(1000))).expect_output("");
}

#[test]
fn an_answer_stops_at_the_first_stop_string() {
    async fn app(app: &mut App) -> Outcome {
        let reply = Session::open("default")?.ask("Q").stop("three").stop("two").await?;
        assert_eq!(reply.completion.stop, StopReason::StopSequence("two".into()));
        Ok(app.output.write(reply.text).await?)
    }
    run(app, Script::new().reply("one two three")).expect_output("one ");
}

#[test]
fn a_dropped_answer_is_cancelled() {
    async fn app(app: &mut App) -> Outcome {
        let mut session = Session::open("default")?;
        let mut answer = session.ask("count").stream();
        let first = answer.next_text().await?.expect("it says something");
        drop(answer);
        session.ask("again").await?;
        Ok(app.output.write(first).await?)
    }
    let run = run(app, Script::new().reply("one two three four").reply("five"));
    run.expect_output("one ");
    assert_eq!(run.questions[0].ended, Ended::Cancelled);
    assert_eq!(run.questions[1].ended, Ended::Answered);
    assert_eq!(run.questions[1].history, [], "what was not answered to the end was never said");
}

#[test]
fn a_failure_in_the_middle_comes_after_what_was_said() {
    async fn app(app: &mut App) -> Outcome {
        let mut session = Session::open("default")?;
        let mut answer = session.ask("count").stream();
        while let Ok(Some(event)) = answer.next().await {
            let Event::Text(text) = event else { panic!("{event:?}") };
            app.output.write(text).await?;
        }
        let error = answer.next().await.expect_err("the end stays the end");
        assert_eq!(answer.completion().await, Err(error.clone()));
        Err(error.into())
    }
    let taken = Error::Interrupted("the machine sleeps".into());
    let run = run(app, Script::new().reply(Turn::text("one two").then_fail(taken.clone())));
    assert_eq!(run.expect_failure(), "interrupted by the host: the machine sleeps");
    assert_eq!(run.output, "one two");
    assert_eq!(run.questions[0].ended, Ended::Failed(taken));
}

#[test]
fn an_answer_is_a_futures_stream_too() {
    async fn app(app: &mut App) -> Outcome {
        let mut session = Session::open("default")?;
        let events: Vec<_> = session.ask("Q").stream().into_stream().collect().await;
        assert_eq!(events.len(), 3);
        assert_eq!(events[0], Ok(Event::Text("one ".into())));
        assert_eq!(events[2], Err(Error::Internal("x".into())));
        Ok(app.output.write("done").await?)
    }
    run(app, Script::new().reply(Turn::text("one two").then_fail(Error::Internal("x".into())))).expect_output("done");
}

#[derive(Debug, PartialEq, serde::Deserialize, schemars::JsonSchema)]
struct Weather {
    city: String,
    celsius: i32,
}

#[test]
fn an_answer_is_a_type() {
    async fn app(_: &mut App) -> Outcome {
        let mut session = Session::open("default")?;
        let weather: Weather = session.ask("Where is it warm?").parse().await?;
        assert_eq!(weather, Weather { city: "Oslo".into(), celsius: 3 });
        session.ask("And now?").max_tokens(5).parse::<Weather>().await?;
        Ok(())
    }
    let run = run(app, Script::new().answer(|_| r#"{"city":"Oslo","celsius":3}"#));
    assert!(run.expect_failure().ends_with("it was cut off after 5 tokens, raise max_tokens"), "{:?}", run.result);
    let Some(Constraint::JsonSchema(schema)) = &run.questions[0].request.constraint else { panic!("no schema") };
    let schema: serde_json::Value = serde_json::from_str(schema).unwrap();
    assert_eq!(schema["properties"]["celsius"]["type"], "integer");
    assert_eq!(schema["required"], serde_json::json!(["city", "celsius"]));
}

#[test]
fn tools_are_called_and_answered() {
    async fn app(app: &mut App) -> Outcome {
        let mut session = Session::open("default")?;
        let reply = session.ask("Weather?").tool(Tool::of::<Weather>("note", "Notes the weather")).await?;
        assert_eq!(reply.completion.stop, StopReason::ToolCalls);
        let call = &reply.completion.tool_calls[0];
        assert_eq!(call.parse::<Weather>()?.celsius, 3);
        let reply = session.send([Message::tool(call, "noted")]).await?;
        Ok(app.output.write(reply.text).await?)
    }
    let script = Script::new().reply(Turn::tool_call("note", r#"{"city":"Oslo","celsius":3}"#)).reply("Noted.");
    let run = run(app, script);
    run.expect_output("Noted.");
    assert_eq!(run.questions[1].history[1].tool_calls[0].name, "note");
    assert_eq!(run.questions[1].request.messages[0].tool_call_id.as_deref(), Some("call-0"));
}

#[test]
fn input_comes_in_chunks_lines_and_text() {
    async fn app(app: &mut App) -> Outcome {
        assert_eq!(app.input.line().await?.as_deref(), Some("one"));
        assert_eq!(app.input.line().await?.as_deref(), Some(""));
        assert_eq!(app.input.line().await?.as_deref(), Some("two"));
        assert_eq!(app.input.chunk().await?.as_deref(), Some(b"th".as_slice()));
        let rest = app.input.text().await?;
        assert_eq!(app.input.line().await?, None);
        Ok(app.output.write_line(rest).await?)
    }
    run(app, Script::new().input("one\r\n").input("\ntw").input("o\nth").input("ree").input("\nfour"))
        .expect_output("ree\nfour\n");
}

#[test]
fn output_that_nobody_takes_ends_the_app() {
    async fn app(app: &mut App) -> Outcome {
        loop {
            app.output.write("12345678").await?;
        }
    }
    let run = run(app, Script::new().output_limit(20));
    assert_eq!(run.expect_failure(), "quota exceeded: the output limit of this test's script, after 16 bytes");
    assert_eq!(run.pieces.len(), 2);
}

#[test]
fn a_budget_event_is_answered_by_default() {
    let run = run(ask, Script::new().input("Q").reply("A").budget_at(1, Budget::of(10).asking(Pressure::Tight, 5)));
    run.expect_output("A");
    assert_eq!(run.releases, [(1, Release::Done(0))], "honest: nothing was released");
}

#[test]
fn pools_are_asked_before_the_app() {
    async fn app(app: &mut App) -> Outcome {
        let asked: Rc<RefCell<Vec<(&str, u64)>>> = Rc::default();
        let pool = |name: &'static str, priority, size: u64| {
            let asked = Rc::clone(&asked);
            let pool = Pool::new(name, priority, move |wanted| {
                asked.borrow_mut().push((name, wanted));
                size.min(wanted)
            });
            pool.set_reclaimable(size);
            pool
        };
        let _pools = [pool("index", 9, 100), pool("cache", 1, 30), pool("never asked", 10, 100)];
        drop(pool("gone", 0, 100));
        Budget::on_change(async |budget| {
            assert_eq!(budget.release, 0, "the pools had it all");
            Release::Pledge(7, Duration::from_millis(250))
        });
        Session::open("default")?.ask("Q").await?;
        let asked = asked.take();
        assert_eq!(asked, [("cache", 50), ("index", 20)]);
        Ok(app.output.write("released").await?)
    }
    let run = run(app, Script::new().reply("A").budget_at(1, Budget::of(10).asking(Pressure::Critical, 50)));
    run.expect_output("released");
    let pledges = [Release::Pledge(50, Duration::ZERO), Release::Pledge(57, Duration::from_millis(250))];
    assert_eq!(run.releases, pledges.map(|pledge| (1, pledge)), "the pools' first, then with what the app adds");
    assert_eq!(run.reclaimable["cache"], 0);
    assert_eq!(run.reclaimable["index"], 80);
}

#[test]
fn a_pledge_is_followed_by_what_came_of_it() {
    async fn app(app: &mut App) -> Outcome {
        let pool = Pool::new("thumbnails", 1, |_wanted| 30);
        pool.set_reclaimable(80);
        app.input.text().await?;
        Ok(())
    }
    let asked = |release| Budget::of(100).asking(Pressure::Tight, release);
    let run = run(app, Script::new().input("…").budget_at(0, asked(60)));
    run.expect_output("");
    assert_eq!((run.pledged(1), run.released(1)), (60, 30), "the pool said more than it had");
    assert_eq!((run.pledged(2), run.released(2)), (0, 0));
    assert_eq!(run.reclaimable["thumbnails"], 50);
}

#[test]
fn an_answer_to_an_older_epoch_is_void() {
    async fn app(app: &mut App) -> Outcome {
        let first = Budget::current();
        let mut session = Session::open("default")?;
        session.ask("Q").await?;
        first.answer(Release::Done(1));
        Budget::current().answer(Release::Defer(Duration::from_millis(5)));
        Ok(app.output.write(Budget::current().epoch).await?)
    }
    let run = run(app, Script::new().reply("A").budget_at(1, Budget::of(9).asking(Pressure::Tight, 2)));
    run.expect_output("1");
    assert!(run.releases.iter().all(|(epoch, _)| *epoch == 1), "{:?}", run.releases);
    assert_eq!(run.releases.last(), Some(&(1, Release::Defer(Duration::from_millis(5)))), "the app has the last word");
}

#[test]
fn changes_of_the_budget_arrive() {
    async fn app(app: &mut App) -> Outcome {
        let mut changes = Budget::changes();
        let first = changes.next().await.expect("the lease now");
        assert_eq!((first.epoch, first.pressure), (0, Pressure::Normal));
        let mut session = Session::open("default")?;
        let (second, reply) = futures::join!(changes.next(), session.ask("Q").text());
        assert_eq!(second, Some(Budget::current()));
        app.output.write(format_args!("{} at {:?}", reply?, Budget::current().pressure)).await?;
        Ok(())
    }
    let script = Script::new().reply("A").budget_at(1, Budget::of(1).asking(Pressure::Tight, 1));
    run(app, script).expect_output("A at Tight");
}

#[test]
#[should_panic(expected = "the app waits for something that this script never brings")]
fn an_app_that_waits_forever_fails_its_test() {
    async fn app(_: &mut App) -> Outcome {
        let mut changes = Budget::changes();
        while changes.next().await.is_some() {}
        Ok(())
    }
    run(app, Script::new());
}

#[test]
fn what_the_script_does_not_grant_is_denied() {
    async fn app(_: &mut App) -> Outcome {
        let denied = [
            Session::open("coding").expect_err("role").to_string(),
            storage::get("key").expect_err("storage").to_string(),
            files::read("/notes/a").await.expect_err("file").to_string(),
            files::write("/notes/a", "").await.expect_err("file").to_string(),
            http::get("https://example.com").send().await.expect_err("http").to_string(),
        ];
        for error in denied {
            assert!(error.contains("` is denied: ") && error.contains("Add ."), "{error}");
        }
        Ok(())
    }
    run(app, Script::new()).expect_output("");
}

#[test]
fn storage_keeps_its_quota() {
    async fn app(_: &mut App) -> Outcome {
        storage::set("a", "123")?;
        let full = storage::set("a", "12345").expect_err("6 bytes");
        assert_eq!(full, Error::QuotaExceeded("storage: 6 bytes with `a`, 5 allowed".into()));
        assert_eq!(storage::get("a")?, Some(b"123".to_vec()), "the old value stays");
        storage::set("a", "1234")?;
        Ok(())
    }
    let run = run(app, Script::new().storage(5));
    run.expect_output("");
    assert_eq!(run.storage["a"], b"1234");
}

#[test]
fn storage_lists_and_deletes() {
    async fn app(_: &mut App) -> Outcome {
        for key in ["b", "a/2", "a/1"] {
            storage::set(key, "x")?;
        }
        assert_eq!(storage::keys("a/")?, ["a/1", "a/2"]);
        assert!(storage::delete("b")?);
        assert!(!storage::delete("b")?);
        assert_eq!(storage::usage(), (8, 100));
        Ok(())
    }
    run(app, Script::new().storage(100)).expect_output("");
}

#[test]
fn files_stay_in_their_folders() {
    async fn app(_: &mut App) -> Outcome {
        let text = files::read_text("/notes/a.md").await?;
        files::write("/drafts/b.md", text.to_uppercase()).await?;
        assert_eq!(files::entries("/notes")?.len(), 2);
        assert!(matches!(files::read("/notes/none").await, Err(Error::NotFound(path)) if path == "/notes/none"));
        for path in ["/notesX/a", "/notes/../etc", "/etc"] {
            assert!(matches!(files::read(path).await, Err(Error::Denied { .. })), "{path}");
        }
        assert!(matches!(files::write("/notes/a.md", "x").await, Err(Error::Denied { .. })), "for reading only");
        assert_eq!(files::folders()[1], files::Folder { path: "/drafts".into(), writable: true });
        Ok(())
    }
    let script = Script::new().folder("/notes", false).folder("/drafts", true);
    let run = run(app, script.file("/notes/a.md", "abc").file("/notes/more/b.md", "").file("/etc", "secret"));
    run.expect_output("");
    assert_eq!(run.files["/drafts/b.md"], b"ABC");
}

#[test]
fn http_brings_what_the_script_says() {
    async fn app(app: &mut App) -> Outcome {
        let mut response = http::post("https://api.example.com/x", "{}").header("accept", "text/plain").send().await?;
        assert_eq!(response.status, 404);
        Ok(app.output.write(response.body.text().await?).await?)
    }
    run(app, Script::new().http("POST", "https://api.example.com/x", 404, "not here")).expect_output("not here");
}

#[test]
fn logs_progress_clock_and_randomness() {
    async fn app(_: &mut App) -> Outcome {
        crate::info!("half {}", "way");
        crate::warn!("odd");
        crate::progress(Some(0.5), "half");
        let (early, bytes) = (system::monotonic(), system::random::<5000>());
        assert!(system::monotonic() > early);
        assert!(system::now() > std::time::UNIX_EPOCH);
        assert_ne!(bytes[..16], bytes[4096..4112], "two reads of the generator");
        Ok(())
    }
    let run = run(app, Script::new());
    run.expect_output("");
    assert_eq!(
        run.logs,
        [(crate::log::Level::Info, "half way".to_owned()), (crate::log::Level::Warn, "odd".to_owned())]
    );
    assert_eq!(run.progress, [(Some(0.5), "half".to_owned())]);
}

#[test]
fn embeddings_are_unit_vectors() {
    async fn app(_: &mut App) -> Outcome {
        let vectors = Session::open("embedding")?.embed(["cat", "act", "dog"]).await?;
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        assert!((dot(&vectors[0], &vectors[1]) - 1.0).abs() < 1e-3);
        assert!(dot(&vectors[0], &vectors[2]) < 0.5);
        Ok(())
    }
    run(app, Script::new().role("embedding")).expect_output("");
}

#[test]
fn a_question_without_a_scripted_answer_says_so() {
    let run = run(ask, Script::new().input("Hi"));
    assert!(run.expect_failure().contains("the script has no answer left for this question"), "{:?}", run.result);
}

#[test]
fn rules_go_before_replies() {
    let script =
        Script::new().input("blue?").when(|question| question.prompt().contains("blue"), "rule").reply("queue");
    run(ask, script).expect_output("rule");
}

#[test]
fn outside_a_run_there_is_no_host() {
    let error = Session::open("default").expect_err("nobody is there");
    assert!(error.to_string().contains("call the app through locara::testing::run"), "{error}");
    crate::debug!("helpers may log");
}
