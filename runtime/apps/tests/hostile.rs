//! Guests that misbehave. Each gets a typed error; the host, a neighbour that runs at the same time and the ledger are
//! unharmed.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;

use common::engine::Scripted;
use common::{Ended, World, invocation};
use locara_apps::{BudgetState, Invocation, Lease, LogLevel, RunError, RunReport};
use tokio::io::AsyncWriteExt;

/// Runs the attack next to a neighbour that echoes all the while, then checks that everything is as it was.
async fn attack(arguments: &[&str]) -> Ended {
    let engine = Scripted::new();
    let world = World::new(engine.clone());
    let neighbour = world.prepare("neighbour").await;
    let (mut typing, input) = tokio::io::duplex(64);
    let mut echo = world.host.run(&neighbour, invocation(&["echo"], Box::new(input)));
    typing.write_all(b"hello ").await.unwrap();
    assert_eq!(echo.output.recv().await.unwrap(), "hello ", "the neighbour runs before the attack");

    let hostile = world.prepare("hostile").await;
    let mut attacking = std::pin::pin!(world.run(&hostile, arguments, ""));
    let ended = loop {
        tokio::select! {
            ended = &mut attacking => break ended,
            // The neighbour lives through all of it.
            echoed = async {
                typing.write_all(b"ping").await.unwrap();
                echo.output.recv().await.unwrap()
            } => assert_eq!(echoed, "ping"),
        }
    };

    let (answer, good) = world.run(&neighbour, &["ask", "3"], "Hi").await;
    assert_eq!((answer.as_str(), good.is_ok()), (" 1.0 1.1 1.2", true), "the host still serves");
    typing.shutdown().await.unwrap();
    let (_, good) = echo.collect().await;
    assert!(good.is_ok(), "{good:?}");
    engine.idle().await;
    assert_eq!(world.ledger.bytes(), 0, "all memory of guests was given back");
    ended
}

fn failure(ended: &Ended) -> (&RunError, &RunReport) {
    let failure = ended.1.as_ref().unwrap_err();
    (&failure.error, &failure.report)
}

macro_rules! assert_fails {
    ($ended:expr, $pattern:pat $(if $guard:expr)?) => {
        let (error, report) = failure(&$ended);
        assert!(matches!(error, $pattern $(if $guard)?), "{error:?} {report:?}");
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_loop_runs_into_its_cpu_limit() {
    let ended = attack(&["loop"]).await;
    assert_fails!(ended, RunError::Cpu { limit_ms: 200, used_ms: 200.. });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_calls_are_no_awaits() {
    let ended = attack(&["loop-calling"]).await;
    assert_fails!(ended, RunError::Cpu { limit_ms: 200, .. });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memory_bomb_runs_into_its_memory_limit() {
    let ended = attack(&["bomb"]).await;
    assert_fails!(ended, RunError::Memory(denial) if denial.cap == 16_000_000 && denial.used + denial.asked > denial.cap);
    let (error, report) = failure(&ended);
    assert!((10_000_000..=16_000_000).contains(&report.peak_guest_bytes), "{report:?}");
    assert!(error.to_string().contains("limits.memoryMB"), "the error names the way out: {error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_is_refused_memory_may_go_on() {
    let ended = attack(&["bomb-politely"]).await;
    let report = ended.1.unwrap();
    assert!((2_000_000..=16_000_000).contains(&report.peak_guest_bytes), "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stack_overflow_is_a_trap_of_the_guest() {
    let ended = attack(&["nest"]).await;
    assert_fails!(ended, RunError::StackOverflow { stack_kib: 512, .. });
    // Rust guests keep arrays on a stack of their own at the bottom of memory: its overflow is an access out of bounds.
    let ended = attack(&["nest-arrays"]).await;
    assert_fails!(ended, RunError::Trap { kind, .. } if kind.contains("out of bounds"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_is_reported_with_its_last_words() {
    let ended = attack(&["panic"]).await;
    assert_fails!(ended, RunError::Trap { .. });
    let (_, report) = failure(&ended);
    let last = report.logs.last().unwrap();
    assert_eq!(last.level, LogLevel::Error);
    assert!(last.message.contains("hostile guest panics as asked"), "{last:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_text_of_an_error_is_bounded_and_tame() {
    let ended = attack(&["fail"]).await;
    assert_fails!(ended, RunError::App { message } if message.len() < 5000 && !message.contains('\u{1b}') && message.contains("it failed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_waits_for_ever_runs_into_its_wall_limit() {
    let ended = attack(&["wait"]).await;
    assert_fails!(ended, RunError::Wall { limit_s: 2 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_waits_for_itself_runs_into_its_wall_limit() {
    let ended = attack(&["deadlock"]).await;
    assert_fails!(ended, RunError::Wall { limit_s: 2 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_host_calls_is_stopped() {
    let ended = attack(&["flood"]).await;
    assert_fails!(ended, RunError::HostCallRate { per_second: 2000, calls: 2001.. });
    let (_, report) = failure(&ended);
    assert!(report.dropped_log_lines > 0 && report.logs.len() <= 100, "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_huge_argument_of_a_host_call_is_refused() {
    let ended = attack(&["huge-string"]).await;
    assert_fails!(ended, RunError::Excess { .. });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hoarding_streams_is_stopped() {
    let ended = attack(&["streams"]).await;
    assert_fails!(ended, RunError::Excess { .. } | RunError::HostCallRate { .. });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opening_sessions_ends_in_a_typed_refusal() {
    let ended = attack(&["sessions"]).await;
    assert_fails!(ended, RunError::App { message } if message.contains("after 8: Error::QuotaExceeded") && message.contains("limits.sessions"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_was_not_asked_for_is_denied_and_reported() {
    let ended = attack(&["role", "coding"]).await;
    assert_fails!(ended, RunError::App { message } if message.contains("Error::Denied") && message.contains("`coding`"));
    let (_, report) = failure(&ended);
    assert_eq!(report.denied.len(), 1);
    assert_eq!(report.denied[0].capability, "models");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_never_reads_its_stream_holds_up_nobody() {
    let ended = attack(&["never-reads"]).await;
    assert_fails!(ended, RunError::Wall { .. });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_at_once_are_limited() {
    let ended = attack(&["many-answers"]).await;
    assert_fails!(ended, RunError::App { message } if message.matches("Error::Busy").count() == 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trap_in_the_middle_of_a_stream_cancels_the_answer() {
    let ended = attack(&["trap-mid-stream"]).await;
    assert_fails!(ended, RunError::Trap { .. });
    let (_, report) = failure(&ended);
    assert_eq!(report.tokens.answers, 1);
    assert!(report.tokens.output >= 3, "what was streamed counts: {:?}", report.tokens);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_a_stream_cancels_and_the_session_goes_on() {
    let ended = attack(&["drop-mid-stream"]).await;
    let report = ended.1.unwrap();
    assert_eq!(report.tokens.answers, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_beyond_the_limit_is_refused_and_fails_the_run() {
    for mode in ["gigabytes", "gigabytes-stubbornly"] {
        let ended = attack(&[mode]).await;
        assert_fails!(ended, RunError::Output { limit: 1_000_000 });
        let (_, report) = failure(&ended);
        assert_eq!(ended.0.len() as u64, report.output_bytes);
        assert!((900_000..=1_000_000).contains(&ended.0.len()), "{}", ended.0.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_is_attached_once() {
    let ended = attack(&["attach-twice"]).await;
    assert_fails!(ended, RunError::App { message } if message.contains("already attached"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_holds_a_budget_event_is_harmless() {
    let world = World::new(Scripted::new());
    let hostile = world.prepare("hostile").await;
    assert!(hostile.listens());
    let (lease, end) = Lease::new(BudgetState::calm(100));
    let invocation =
        Invocation { arguments: vec!["hold-events".to_owned()], input: Box::new(tokio::io::empty()), lease: end };
    let mut run = world.host.run(&hostile, invocation);
    // The guest logs each epoch that it sees and each event that it holds.
    for epoch in 0..=3 {
        if epoch > 0 {
            assert_eq!(lease.tighten(|state| state.limit -= 1), epoch);
        }
        let seen = format!("epoch {epoch}");
        while run.logs.recv().await.is_some_and(|line| line.message != seen) {}
    }
    let report = run.outcome().await.unwrap();
    assert!(report.logs.iter().any(|line| line.message == "event 1"), "{:?}", report.logs);
    assert_eq!(*lease.answers().borrow(), None, "no event was ever answered");
    assert_eq!(world.ledger.bytes(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_can_be_cancelled_at_any_time() {
    let engine = Scripted::new();
    let world = World::new(engine.clone());
    let hostile = world.prepare("hostile").await;
    for mode in ["wait", "loop", "never-reads"] {
        let run = world.start(&hostile, &[mode], "");
        if mode == "never-reads" {
            engine.running(1).await;
        }
        run.cancel("the test says so");
        let error = run.outcome().await.unwrap_err().error;
        assert_eq!(error, RunError::Cancelled { reason: "the test says so".to_owned() }, "{mode}");
        engine.idle().await;
        assert_eq!(world.ledger.bytes(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_handle_stops_the_run() {
    let engine = Scripted::new();
    let world = World::new(engine.clone());
    let hostile = world.prepare("hostile").await;
    let run = world.start(&hostile, &["never-reads"], "");
    engine.running(1).await;
    drop(run);
    engine.idle().await;
    drop(Arc::into_inner(hostile));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_while_a_file_is_half_written_leaves_the_old_file() {
    let world = World::new(Scripted::new());
    let folder = world.dir.path().join("data");
    fs_err::write(folder.join("notes"), "old").unwrap();
    let hostile = world.prepare("hostile").await;
    let (_, ended) = world.run(&hostile, &["half-file", "~/data/notes"], "").await;
    assert!(matches!(ended.unwrap_err().error, RunError::Trap { .. }));
    assert_eq!(fs_err::read_to_string(folder.join("notes")).unwrap(), "old");
    // The temporary file goes as soon as its writer has noticed.
    while fs_err::read_dir(&folder).unwrap().count() > 1 {
        tokio::task::yield_now().await;
    }
}
