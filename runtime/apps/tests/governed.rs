//! What the host can do to an app that runs: ask memory back, suspend it, take its caches, unload its model. On real guests,
//! which may do as they are told or not.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::World;
use common::engine::Scripted;
use locara_apps::{AnsweredEpoch, BudgetAnswer, Lease, Prepared, RunControl, RunError, RunHandle, Usage};
use locara_engine::api::Prompt;
use locara_manifest::Class;
use locara_policy::governor::{Consequence, Level};
use tokio::io::{AsyncWriteExt, DuplexStream};

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// A guest whose limits do not end it while a busy machine runs the test.
async fn patient(world: &World, guest: &str) -> Arc<Prepared> {
    world.prepare_with(guest, |manifest| manifest["limits"]["wallSeconds"] = 120.into()).await.unwrap()
}

/// A run that reads what the test types.
fn typed(world: &World, app: &Arc<Prepared>, arguments: &[&str]) -> (RunHandle, Lease, DuplexStream) {
    let (typing, input) = tokio::io::duplex(1024);
    let (run, lease) = world.lend(app, arguments, Box::new(input));
    (run, lease, typing)
}

/// Reads output up to this mark.
async fn until(run: &mut RunHandle, mark: &str) -> String {
    let mut read = String::new();
    while !read.ends_with(mark) {
        let chunk = tokio::time::timeout(PATIENCE, run.output.recv()).await.unwrap();
        read.push_str(std::str::from_utf8(&chunk.unwrap_or_else(|| panic!("it ended after {read:?}"))).unwrap());
    }
    read
}

async fn logged(run: &mut RunHandle, line: &str) {
    let found = async { while run.logs.recv().await.unwrap().message != line {} };
    tokio::time::timeout(PATIENCE, found).await.unwrap();
}

async fn holds(control: &RunControl, fits: impl FnMut(&Usage) -> bool) -> Usage {
    let mut changes = control.usage_changes();
    *tokio::time::timeout(PATIENCE, changes.wait_for(fits)).await.unwrap().unwrap()
}

async fn answer(lease: &Lease, fits: impl Fn(&AnsweredEpoch) -> bool) -> AnsweredEpoch {
    let mut answers = lease.answers();
    let found = answers.wait_for(|answered| answered.as_ref().is_some_and(&fits));
    tokio::time::timeout(PATIENCE, found).await.unwrap().unwrap().clone().unwrap()
}

/// Asks for bytes back.
fn ask(lease: &Lease, release: u64) -> u32 {
    lease.tighten(|state| {
        state.level = Level::Tight;
        state.release = release;
        state.deadline_ms = 3000;
        state.on_deadline = Consequence::DropCaches;
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_listens_gives_back_what_it_is_asked_for() {
    let engine = Scripted::new();
    let world = World::new(engine.clone());
    let lender = patient(&world, "lender").await;
    assert_eq!((lender.class(), lender.listens()), (Class::Batch, true));
    let (mut run, lease, typing) = typed(&world, &lender, &["3"]);
    assert_eq!(until(&mut run, "lent").await, "lent");
    let control = run.control();
    // One message and ten tokens in each of three conversations.
    assert_eq!(holds(&control, |usage| usage.kv_tokens == 33).await.guest_bytes, world.ledger.bytes());
    let reclaimable = |pools: &[locara_apps::ReclaimablePool]| pools.iter().map(|pool| pool.reclaimable).sum::<u64>();
    assert_eq!((lease.pools()[0].priority, reclaimable(&lease.pools())), (5, 3000));

    let epoch = ask(&lease, 1500);
    let done = answer(&lease, |answered| matches!(answered.answer, BudgetAnswer::Done(_))).await;
    assert_eq!(done, AnsweredEpoch { epoch, answer: BudgetAnswer::Done(2000) }, "whole conversations");
    holds(&control, |usage| usage.kv_tokens == 11).await;
    let mut pools = lease.pools_changed();
    tokio::time::timeout(PATIENCE, pools.wait_for(|pools| reclaimable(pools) == 1000)).await.unwrap().unwrap();
    assert_eq!(engine.sessions(), 1);

    drop(typing);
    run.collect().await.1.unwrap();
    engine.idle().await;
    assert_eq!((control.usage(), lease.pools(), world.ledger.bytes()), (Usage::default(), Vec::new(), 0));
    assert_eq!(control.drop_caches(), 0, "nothing is left");
}

#[tokio::test]
async fn an_epoch_that_begins_while_the_app_starts_reaches_it() {
    let world = World::new(Scripted::new());
    let lender = patient(&world, "lender").await;
    let (run, lease, typing) = typed(&world, &lender, &["1"]);
    // Nothing was awaited since: the run has not begun.
    let epoch = ask(&lease, 1);
    assert_eq!(answer(&lease, |_| true).await.epoch, epoch);
    drop(typing);
    run.collect().await.1.unwrap();
}

#[tokio::test]
async fn a_guest_that_was_busy_hears_of_the_newest_epoch_only() {
    let world = World::new(Scripted::new());
    let hostile = patient(&world, "hostile").await;
    let (mut run, lease, _typing) = typed(&world, &hostile, &["hold-events"]);
    logged(&mut run, "epoch 0").await;
    run.control().suspend();
    // Others run meanwhile, this one does not.
    for _ in 0..3 {
        ask(&lease, 1);
        world.run_guest("neighbour", &["ask", "3"], "Hi").await.1.unwrap();
    }
    run.control().resume();
    let (_, ended) = run.collect().await;
    let report = ended.unwrap();
    let heard: Vec<_> =
        report.logs.iter().map(|line| line.message.as_str()).filter(|line| *line != "event 3").collect();
    assert_eq!(heard, ["epoch 0", "epoch 3"]);
    assert!(report.suspended > Duration::ZERO && report.suspended <= report.wall, "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_guest_promises_and_does_not_do_is_taken_from_it() {
    let engine = Scripted::new();
    let world = World::new(engine.clone());
    let neighbour = patient(&world, "neighbour").await;
    let (mut echo, _lease, mut typing) = typed(&world, &neighbour, &["echo"]);
    let hostile = patient(&world, "hostile").await;
    let (mut run, lease, _input) = typed(&world, &hostile, &["over-promise"]);
    logged(&mut run, "keeps").await;
    let control = run.control();
    holds(&control, |usage| usage.kv_tokens == 11).await;

    let epoch = ask(&lease, 500);
    let pledge = BudgetAnswer::Pledge { release: 500, eta_ms: 1 };
    assert_eq!(answer(&lease, |_| true).await, AnsweredEpoch { epoch, answer: pledge });
    // The figures do not believe it. What the host does at the deadline frees them, without the guest.
    assert_eq!((control.usage().kv_tokens, engine.sessions()), (11, 1));
    assert_eq!((control.drop_caches(), control.drop_caches()), (1, 0));
    assert_eq!((control.usage().kv_tokens, engine.sessions()), (0, 0));
    control.suspend();
    control.cancel("it did not deliver");
    let failure = run.outcome().await.unwrap_err();
    assert_eq!(failure.error, RunError::Cancelled { reason: "it did not deliver".to_owned() });

    typing.write_all(b"still here;").await.unwrap();
    assert_eq!(until(&mut echo, ";").await, "still here;");
    drop(typing);
    echo.collect().await.1.unwrap();
    engine.idle().await;
    assert_eq!((control.usage(), world.ledger.bytes()), (Usage::default(), 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_never_answers_is_suspended_and_stopped_all_the_same() {
    let world = World::new(Scripted::new());
    let hostile = patient(&world, "hostile").await;
    let (mut run, lease, _typing) = typed(&world, &hostile, &["hold-events"]);
    let control = run.control();
    logged(&mut run, "epoch 0").await;
    ask(&lease, 1000);
    logged(&mut run, "event 1").await;
    control.suspend();
    control.cancel("the deadline has passed");
    assert!(matches!(run.outcome().await.unwrap_err().error, RunError::Cancelled { .. }));
    assert_eq!((lease.answers().borrow().clone(), world.ledger.bytes()), (None, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_answers_ends_at_the_call_rate() {
    let world = World::new(Scripted::new());
    let hostile = patient(&world, "hostile").await;
    let (mut run, lease, _typing) = typed(&world, &hostile, &["ack-storm"]);
    logged(&mut run, "listens").await;
    let epoch = ask(&lease, 1000);
    let failure = run.outcome().await.unwrap_err();
    assert!(matches!(failure.error, RunError::HostCallRate { per_second: 2000, .. }), "{failure:?}");
    // One answer is held, whatever came; the other half of them were to an older epoch.
    let last = lease.answers().borrow().clone().unwrap();
    let BudgetAnswer::Done(n) = last.answer else { panic!("{last:?}") };
    assert_eq!((last.epoch, n % 2), (epoch, 0), "{last:?}");
    assert_eq!(world.ledger.bytes(), 0);
}

#[tokio::test]
async fn a_suspended_run_computes_nothing_and_goes_on_where_it_was() {
    let world = World::new(Scripted::new());
    let neighbour = patient(&world, "neighbour").await;
    let (mut run, _lease, mut typing) = typed(&world, &neighbour, &["echo"]);
    typing.write_all(b"before;").await.unwrap();
    assert_eq!(until(&mut run, ";").await, "before;");
    let control = run.control();
    control.suspend();
    control.suspend();
    typing.write_all(b"after;").await.unwrap();
    // Another run has all the time it needs; this one has nothing to say.
    world.run(&neighbour, &["ask", "300"], "Hi").await.1.unwrap();
    assert!(run.output.try_recv().is_err());
    assert!(control.usage().guest_bytes > 0, "it keeps its memory");
    control.resume();
    assert_eq!(until(&mut run, ";").await, "after;");
    drop(typing);
    let report = run.collect().await.1.unwrap();
    assert!(report.suspended > Duration::ZERO && report.suspended <= report.wall, "{report:?}");
}

#[tokio::test]
async fn the_wall_clock_limit_goes_on_while_a_run_is_suspended() {
    let world = World::new(Scripted::new());
    let app = world.prepare_with("neighbour", |manifest| manifest["limits"]["wallSeconds"] = 1.into()).await.unwrap();
    let (run, _lease, _typing) = typed(&world, &app, &["echo"]);
    run.control().suspend();
    let failure = run.outcome().await.unwrap_err();
    assert_eq!(failure.error, RunError::Wall { limit_s: 1 });
    // Suspended before its first step: it never took one, and none of this time is computing time.
    assert_eq!((failure.report.cpu, failure.report.start), (Duration::ZERO, Duration::ZERO));
    assert!(failure.report.suspended > Duration::ZERO);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_whose_session_was_taken_goes_on() {
    let engine = Scripted::new();
    let world = World::new(engine.clone());
    let neighbour = patient(&world, "neighbour").await;
    let (mut run, _lease, mut typing) = typed(&world, &neighbour, &["chat"]);
    typing.write_all(b"one").await.unwrap();
    assert_eq!(until(&mut run, ";").await, " 1.0 1.1 1.2;");
    let control = run.control();
    assert_eq!(control.usage().kv_tokens, 4);
    assert_eq!(control.drop_caches(), 1);
    assert_eq!((control.usage().kv_tokens, engine.sessions()), (0, 0));
    typing.write_all(b"two").await.unwrap();
    assert_eq!(until(&mut run, ";").await, " 3.0 3.1 3.2;", "with the whole history");
    assert_eq!(control.usage().kv_tokens, 6);
    drop(typing);
    run.collect().await.1.unwrap();
    engine.idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_that_is_answering_keeps_its_session() {
    let engine = Scripted::new();
    let world = World::new(engine.clone());
    let hostile = patient(&world, "hostile").await;
    let (run, _lease, _typing) = typed(&world, &hostile, &["never-reads"]);
    engine.running(1).await;
    assert_eq!((run.control().drop_caches(), engine.sessions()), (0, 1));
    drop(run);
    engine.idle().await;
}

/// One question to a model that is then `taken` away, one to the model that follows it.
async fn across_models(taken: impl FnOnce(&Scripted)) -> (Arc<Scripted>, Arc<Scripted>) {
    let (first, second) = (Scripted::new(), Scripted::new());
    let world = World::new(first.clone());
    let neighbour = patient(&world, "neighbour").await;
    let (mut run, _lease, mut typing) = typed(&world, &neighbour, &["chat"]);
    typing.write_all(b"one").await.unwrap();
    assert_eq!(until(&mut run, ";").await, " 1.0 1.1 1.2;");
    taken(&first);
    world.models.set("default", second.clone());
    typing.write_all(b"two").await.unwrap();
    assert_eq!(until(&mut run, ";").await, " 3.0 3.1 3.2;", "nothing of the conversation is lost");
    drop(typing);
    let report = run.collect().await.1.unwrap();
    assert_eq!((report.tokens.answers, report.tokens.output), (2, 6));
    first.idle().await;
    second.idle().await;
    let requests = second.requests.lock().unwrap().clone();
    let [request] = &requests[..] else { panic!("{requests:?}") };
    assert!(matches!(&request.prompt, Prompt::Chat { messages, .. } if messages.len() == 3), "{request:?}");
    (first, second)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_was_unloaded_is_left_before_the_next_request() {
    let (first, _) = across_models(Scripted::unload).await;
    assert_eq!(first.requests.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_to_a_model_that_had_stopped_is_submitted_once_more() {
    let (first, _) = across_models(Scripted::stop).await;
    assert_eq!(first.requests.lock().unwrap().len(), 2, "the second one found out");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_stays_away_is_an_error_after_the_second_time() {
    let engine = Scripted::new();
    let world = World::new(engine.clone());
    engine.stop();
    let (_, ended) = world.run_guest("neighbour", &["ask", "3"], "Hi").await;
    let failure = ended.unwrap_err();
    assert!(
        matches!(&failure.error, RunError::App { message } if message.contains("Error::Interrupted")),
        "{failure:?}"
    );
    assert_eq!(failure.report.tokens.answers, 0);
}
