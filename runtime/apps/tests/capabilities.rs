//! What a guest that behaves well can do, and what it is told when it may not.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;

use common::engine::Scripted;
use common::{World, component, manifest};
use locara_apps::{AnsweredEpoch, BudgetAnswer, BudgetState, Invocation, Lease, PrepareError, RunError};
use locara_engine::api::{EngineError, Prompt};
use locara_manifest::{Grant, Grants};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// The text of the error that the app itself gave.
fn said(ended: common::Ended) -> String {
    match ended.1.unwrap_err().error {
        RunError::App { message } => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_goes_through_to_output() {
    let world = World::new(Scripted::new());
    let input = "0123456789".repeat(100_000);
    let (output, ended) = world.run_guest("neighbour", &["echo"], &input).await;
    let report = ended.unwrap();
    assert!(output == input, "{} bytes of {}", output.len(), input.len());
    assert_eq!(report.output_bytes, 1_000_000);
    assert!(report.host_calls > 0 && report.peak_guest_bytes > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_stream_through_the_guest_and_are_counted() {
    let world = World::new(Scripted::new());
    let (output, ended) = world.run_guest("neighbour", &["ask", "300"], "Hi").await;
    let expected: String = (0..300).map(|i| format!(" 1.{i}")).collect();
    assert_eq!(output, expected);
    let report = ended.unwrap();
    assert_eq!((report.tokens.answers, report.tokens.prompt, report.tokens.output), (1, 1, 300));
    assert_eq!(report.logs.last().unwrap().message, "300 tokens of scripted@0123456789ab");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fork_has_the_history_and_goes_its_own_way() {
    let engine = Scripted::new();
    let world = World::new(engine.clone());
    let (output, ended) = world.run_guest("neighbour", &["fork"], "Hi").await;
    ended.unwrap();
    assert_eq!(output, " 1.0 1.1 1.2 1.3| 3.0 3.1 3.2 3.3| 3.0 3.1 3.2 3.3|(4, 4) 1 true");
    let requests = engine.requests.lock().unwrap().clone();
    let sessions: Vec<_> = requests.iter().map(|request| request.session.unwrap()).collect();
    assert_eq!(sessions[0], sessions[1]);
    assert_ne!(sessions[1], sessions[2]);
    assert_eq!(requests[1].prompt, requests[2].prompt, "the whole history goes to the engine");
    let Prompt::Chat { messages, .. } = &requests[2].prompt else { panic!("a chat") };
    assert_eq!(messages[1].content, " 1.0 1.1 1.2 1.3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_counted_with_the_history() {
    let world = World::new(Scripted::new());
    let (output, ended) = world.run_guest("neighbour", &["count"], "Hi").await;
    ended.unwrap();
    assert_eq!(output, "1 of 2048");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_fails_is_a_typed_error_and_the_next_request_finds_a_new_one() {
    let engine = Scripted::new();
    let world = World::new(engine.clone());
    *engine.fails.lock().unwrap() = Some(EngineError::Failed("out of cells".to_owned()));
    let ended = world.run_guest("neighbour", &["ask", "9"], "Hi").await;
    assert_eq!(ended.0, " 1.0 1.1", "what was streamed is valid");
    assert!(said(ended).contains("Error::Internal(\"the engine failed: out of cells\")"));
    *engine.fails.lock().unwrap() = Some(EngineError::Stopped);
    assert!(said(world.run_guest("neighbour", &["ask", "9"], "Hi").await).contains("Error::Interrupted"));
    world.models.remove("default");
    let text = said(world.run_guest("neighbour", &["ask", "9"], "Hi").await);
    assert!(text.contains("Error::ModelUnavailable(\"no model for `default`\")"), "{text}");
    engine.idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn budget_changes_and_answers_cross_both_ways() {
    let world = World::new(Scripted::new());
    let app = world.prepare("neighbour").await;
    let (lease, end) = Lease::new(BudgetState::calm(100));
    let invocation =
        Invocation { arguments: vec!["budget".to_owned()], input: Box::new(tokio::io::empty()), lease: end };
    let mut run = world.host.run(&app, invocation);
    assert_eq!(run.output.recv().await.unwrap(), "0:100 ");
    assert_eq!(lease.pools()[0].reclaimable, 1000);
    lease.tighten(|state| {
        state.limit = 50;
        state.release = 20;
    });
    assert_eq!(run.output.recv().await.unwrap(), "1:50 ");
    // `on-budget` answers what was asked.
    let mut answers = lease.answers();
    let first = answers.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert_eq!(first, AnsweredEpoch { epoch: 1, answer: BudgetAnswer::Done(20) });
    lease.tighten(|state| state.limit = 1);
    let (_, ended) = run.collect().await;
    ended.unwrap();
    let last = lease.answers().borrow().clone().unwrap();
    assert_eq!(last.epoch, 2);
    assert!(
        matches!(last.answer, BudgetAnswer::Pledge { release: 5, eta_ms: 10 } | BudgetAnswer::Done(20)),
        "{last:?}"
    );
    assert!(lease.pools().is_empty(), "they end with the run");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn storage_outlives_runs_and_has_a_quota() {
    let world = World::new(Scripted::new());
    let (first, ended) = world.run_guest("neighbour", &["store", "k"], "value").await;
    ended.unwrap();
    assert_eq!(first, r#"None Ok(["k"]) (6.0, 1000000.0)"#);
    let (second, ended) = world.run_guest("neighbour", &["store", "k"], "new").await;
    ended.unwrap();
    assert_eq!(second, r#"Some([118, 97, 108, 117, 101]) Ok(["k"]) (4.0, 1000000.0)"#);
    let text = said(world.run_guest("neighbour", &["store", "big"], &"x".repeat(1_000_000)).await);
    assert!(text.contains("Error::QuotaExceeded") && text.contains("capabilities.storage.quotaMB"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_read_and_replaced_inside_the_granted_folder_only() {
    let world = World::new(Scripted::new());
    let home = world.dir.path();
    fs_err::create_dir_all(home.join("data/sub")).unwrap();
    fs_err::write(home.join("data/a"), "content").unwrap();
    fs_err::write(home.join("data/sub/b"), "old").unwrap();
    fs_err::write(home.join("secret"), "secret").unwrap();
    fs_err::os::unix::fs::symlink(home.join("secret"), home.join("data/link")).unwrap();
    fs_err::os::unix::fs::symlink("..", home.join("data/up")).unwrap();
    let app = world.prepare("neighbour").await;

    let (output, ended) = world.run(&app, &["copy", "~/data/a", "~/data/sub/b"], "").await;
    ended.unwrap();
    assert_eq!(output, r#"[("~/data", true)]"#);
    assert_eq!(fs_err::read_to_string(home.join("data/sub/b")).unwrap(), "content");
    let real = home.join("data/a");
    world.run(&app, &["copy", real.to_str().unwrap(), "~/data/new"], "").await.1.unwrap();
    assert_eq!(fs_err::read_to_string(home.join("data/new")).unwrap(), "content");
    let (listing, ended) = world.run(&app, &["list", "~/data"], "").await;
    ended.unwrap();
    assert!(
        listing.starts_with("a Kind::File 7\nlink Kind::Other(\"link\") 0\nnew Kind::File 7\nsub Kind::Folder 0\n"),
        "{listing}"
    );

    for (from, to, error) in [
        ("~/data/missing", "~/data/x", "NotFound"),
        ("~/secret", "~/data/x", "Denied"),
        ("/etc/passwd", "~/data/x", "Denied"),
        ("~/data/../secret", "~/data/x", "InvalidRequest"),
        ("~/data/link", "~/data/x", "Error::"),
        ("~/data/up/secret", "~/data/x", "Error::"),
        ("~/data/a", "~/data/up/x", "Error::"),
        ("~/data/a", "~/data/link", "InvalidRequest"),
        ("~/data/a", "~/data/sub", "InvalidRequest"),
        ("~/data/a", "~/elsewhere", "Denied"),
    ] {
        let text = said(world.run(&app, &["copy", from, to], "").await);
        assert!(text.contains(error), "{from} to {to}: {text}");
    }
    assert_eq!(fs_err::read_to_string(home.join("secret")).unwrap(), "secret");
    assert!(!home.join("elsewhere").exists() && !home.join("x").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_is_granted_for_reading_is_not_written() {
    let world = World::new(Scripted::new());
    let home = world.dir.path();
    fs_err::write(home.join("data/a"), "content").unwrap();
    let manifest = manifest("neighbour", |_| {});
    let mut grants = Grants::ask(&manifest);
    grants.revoke(&"folder:~/data:write".parse::<Grant>().unwrap());
    grants.allow("folder:~/data:read".parse::<Grant>().unwrap());
    let app = world.host.prepare(component("neighbour"), &manifest, &grants).await.unwrap();
    let ended = world.run(&app, &["copy", "~/data/a", "~/data/b"], "").await;
    let denied = ended.1.as_ref().unwrap_err().report.denied.clone();
    assert!(said(ended).contains("Denied"));
    assert!(denied[0].remedy.contains("folder:~/data:write"), "{denied:?}");
    assert!(!home.join("data/b").exists());
}

/// Answers every connection with `response`, and gives back what was asked.
async fn server(response: String) -> (u16, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut asked = vec![0; 4096];
        let n = connection.read(&mut asked).await.unwrap();
        connection.write_all(response.as_bytes()).await.unwrap();
        connection.shutdown().await.unwrap();
        String::from_utf8_lossy(&asked[..n]).into_owned()
    });
    (port, serving)
}

async fn with_hosts(world: &World, hosts: &[String]) -> Arc<locara_apps::Prepared> {
    let hosts = hosts.to_vec();
    let change = |manifest: &mut serde_json::Value| manifest["capabilities"]["http"]["hosts"] = hosts.into();
    world.prepare_with("neighbour", change).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_reaches_granted_hosts_and_follows_redirects_within_the_grants() {
    let world = World::new(Scripted::new());
    let (there, second) = server("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello".to_owned()).await;
    let redirect = format!("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:{there}/x\r\ncontent-length: 0\r\n\r\n");
    let (here, first) = server(redirect).await;
    let hosts = [format!("http://127.0.0.1:{here}"), format!("http://127.0.0.1:{there}")];
    let app = with_hosts(&world, &hosts).await;
    let (output, ended) = world.run(&app, &["fetch", &format!("http://127.0.0.1:{here}/")], "").await;
    ended.unwrap();
    assert_eq!(output, "200 hello");
    assert!(first.await.unwrap().contains("authorization: secret"));
    let second = second.await.unwrap();
    assert!(second.starts_with("GET /x ") && !second.contains("secret"), "secrets stay with their host: {second}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_to_a_host_that_is_not_granted_is_denied() {
    let world = World::new(Scripted::new());
    let redirect = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:9/x\r\ncontent-length: 0\r\n\r\n".to_owned();
    let (port, _serving) = server(redirect).await;
    let app = with_hosts(&world, &[format!("http://127.0.0.1:{port}")]).await;
    let text = said(world.run(&app, &["fetch", &format!("http://127.0.0.1:{port}/")], "").await);
    assert!(text.contains("Denied") && text.contains("http://127.0.0.1:9"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_are_not_granted_are_denied() {
    let world = World::new(Scripted::new());
    let app = with_hosts(&world, &["https://locara-test.invalid".to_owned()]).await;
    // Granted, but there is no such host.
    let text = said(world.run(&app, &["fetch", "https://locara-test.invalid/"], "").await);
    assert!(text.contains("Error::Interrupted"), "{text}");
    for url in ["http://127.0.0.1:80/", "https://localhost/", "ftp://locara-test.invalid/", "https://[::1]/", "no url"]
    {
        let text = said(world.run(&app, &["fetch", url], "").await);
        assert!(text.contains("Denied") || text.contains("InvalidRequest"), "{url}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_clocks_and_randomness() {
    let world = World::new(Scripted::new());
    let app = world.prepare("neighbour").await;
    let run = world.start(&app, &["report"], "");
    let progress = run.progress.clone();
    let (output, ended) = run.collect().await;
    ended.unwrap();
    assert_eq!(output, b"true true");
    let progress = progress.borrow().clone();
    assert_eq!((progress.fraction, progress.message.as_str()), (Some(1.0), "almost"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_synchronous_world_has_its_own_way_to_all_of_it() {
    let world = World::new(Scripted::new());
    let (output, ended) = world.run_guest("sync", &["echo"], "a longer text than one read takes").await;
    ended.unwrap();
    assert_eq!(output, "a longer text than one read takes");
    let (output, ended) = world.run_guest("sync", &["ask", "200"], "Hi").await;
    assert_eq!(output, (0..200).map(|i| format!(" 1.{i}")).collect::<String>());
    assert_eq!(ended.unwrap().tokens.output, 200);
    let (output, ended) = world.run_guest("sync", &["facts"], "").await;
    ended.unwrap();
    assert_eq!(output, "1000000 Ok(Some([118]))");
    let (output, ended) = world.run_guest("sync", &["give-up"], "").await;
    ended.unwrap();
    assert!(output == "1 true" || output == "2 true", "{output}");
    let (_, ended) = world.run_guest("sync", &["loop"], "").await;
    assert!(matches!(ended.unwrap_err().error, RunError::Cpu { .. }));
    assert_eq!(world.ledger.bytes(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_is_not_asked_for_or_not_granted_does_not_instantiate() {
    let world = World::new(Scripted::new());
    let error = world.prepare_with("forbidden", |_| {}).await.unwrap_err();
    let PrepareError::DeniedImport { import, capability, .. } = &error else { panic!("{error:?}") };
    assert_eq!((import.as_str(), capability.as_str()), ("locara:app/http@0.1.0", "capabilities.http"));
    assert!(error.to_string().contains("in locara.json"), "the remedy is the manifest: {error}");

    let asking = manifest("forbidden", |manifest| {
        manifest["capabilities"]["http"] = serde_json::json!({ "hosts": ["https://example.com"] });
    });
    let mut grants = Grants::ask(&asking);
    world.host.prepare(component("forbidden"), &asking, &grants).await.unwrap();
    grants.revoke(&"http:https://example.com".parse::<Grant>().unwrap());
    let error = world.host.prepare(component("forbidden"), &asking, &grants).await.unwrap_err();
    assert!(matches!(&error, PrepareError::DeniedImport { .. }), "{error:?}");
    assert!(error.to_string().contains("http:https://example.com"), "the remedy is the grant: {error}");
    let error = world.host.prepare(component("forbidden"), &asking, &Grants::default()).await.unwrap_err();
    assert!(error.to_string().contains("memory:"), "no memory is granted: {error}");
}
