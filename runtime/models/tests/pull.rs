//! Downloads that end with the right bytes or with an error that says what to do, whatever the other side does.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::{
    collections::HashMap,
    ffi::OsString,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use common::{
    digest, gguf, large, library, part,
    server::{Reply, Seen, Server},
    write,
};
use locara_models::{Hub, HubOptions, Library, ModelState, Patience, PullError, Pulled, Stage, Token};
use tokio_util::sync::CancellationToken;

const COMMIT: &str = "8911e8a47f92bac19d6f5c64a2e2095bd2f7d031";
const PATIENCE: Patience = Patience {
    attempts: 3,
    first_pause: Duration::from_millis(1),
    longest_pause: Duration::from_millis(20),
    silence: Duration::from_secs(20),
};

/// What a hub says of a repository with these files.
fn listing(files: &[(&str, &[u8])]) -> Reply {
    let siblings: Vec<String> = files
        .iter()
        .map(|(path, bytes)| {
            let (len, sha256) = (bytes.len(), digest(bytes));
            format!(r#"{{"rfilename": "{path}", "size": {len}, "lfs": {{"sha256": "{sha256}", "size": {len}, "pointerSize": 135}}}}"#)
        })
        .collect();
    Reply::ok(format!(r#"{{"id": "org/name", "sha": "{COMMIT}", "siblings": [{}]}}"#, siblings.join(", ")))
}

/// A hub with one repository of one file, whose downloads are answered by `download`.
async fn hub_of(bytes: Vec<u8>, download: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Server {
    Server::start(move |seen, n| match seen.path.starts_with("/api/") {
        true => listing(&[("m-Q4_K_M.gguf", &bytes)]),
        false => download(seen, n),
    })
    .await
}

fn client(server: &Server, token: Option<&str>) -> Hub {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let token = token.map(|text| Token::new(text).unwrap());
    Hub::new(HubOptions { endpoint: server.url(""), token, patience: PATIENCE }).unwrap()
}

async fn pull(library: &Arc<Library>, hub: &Hub, spec: &str) -> Result<Pulled, PullError> {
    library.pull(hub, &spec.parse()?, &|_| {}, &CancellationToken::new()).await
}

/// Pulls `org/name` from a server into a fresh library.
async fn pull_from(server: &Server) -> (tempfile::TempDir, Arc<Library>, Result<Pulled, PullError>) {
    let folder = tempfile::tempdir().unwrap();
    let library = Arc::new(library(folder.path()));
    let outcome = pull(&library, &client(server, None), "org/name").await;
    (folder, library, outcome)
}

/// Nothing is left of a download but what can be gone on with.
fn assert_nothing_served(library: &Library) {
    assert!(library.registry().load().unwrap().models.is_empty());
    assert_eq!(library.unregistered().unwrap(), []);
}

fn partials(library: &Library) -> Vec<String> {
    let entries = fs_err::read_dir(library.store().root().join("partial")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_pulled_model_is_checked_entered_and_not_downloaded_again() {
    let bytes = gguf(1);
    let server = hub_of(bytes.clone(), {
        let bytes = bytes.clone();
        move |seen, _| Reply::file(seen, &bytes, "\"v1\"")
    })
    .await;
    let (_folder, library, outcome) = pull_from(&server).await;
    let pulled = outcome.unwrap();
    assert_eq!((&pulled.digest, pulled.name.as_str(), pulled.known), (&digest(&bytes), "org/name:Q4_K_M", false));
    let located = library.resolve("org/name:Q4_K_M").unwrap();
    assert_eq!(fs_err::read(&located.file.path).unwrap(), bytes);
    let listed = library.list().unwrap().pop().unwrap();
    assert!(listed.owned && listed.state == ModelState::Ready);
    let source = listed.source.unwrap();
    assert_eq!((source.name.as_str(), source.revision.as_deref()), ("org/name/m-Q4_K_M.gguf", Some(COMMIT)));
    let downloads = server.seen(&format!("/org/name/resolve/{COMMIT}/m-Q4_K_M.gguf"));
    assert_eq!(downloads.len(), 1, "of the commit that was listed, whatever the branch is by now");
    assert_eq!(partials(&library), Vec::<String>::new());

    let again = pull(&library, &client(&server, None), "hf.co/org/name:q4_k_m").await.unwrap();
    assert!(again.known);
    assert_eq!(server.seen(".gguf").len(), 1);

    // What was imported by hand is the same model.
    library.remove("org/name:Q4_K_M", false).unwrap();
    common::import(&library, &write(library.store().root().join("../mine.gguf"), &bytes));
    assert!(pull(&library, &client(&server, None), "org/name").await.unwrap().known);
    assert_eq!(server.seen(".gguf").len(), 1);
}

#[tokio::test]
async fn connections_that_break_anywhere_cost_no_byte_twice() {
    let bytes = large(1, 1);
    // Every third one brings enough not to count as one of the three in a row that bring nothing.
    let cuts = [0, 1, 65_536, 0, 65_535, 70_001, 200_000, 131_072, 300_000, 100_000];
    let server = hub_of(bytes.clone(), {
        let bytes = bytes.clone();
        move |seen, n| {
            let reply = Reply::file(seen, &bytes, "\"v1\"");
            match cuts.get(n) {
                Some(cut) => reply.cut(*cut),
                None => reply,
            }
        }
    })
    .await;
    let (_folder, library, outcome) = pull_from(&server).await;
    outcome.unwrap();
    assert_eq!(fs_err::read(library.resolve("org/name:Q4_K_M").unwrap().file.path).unwrap(), bytes);
    let starts: Vec<_> = server.seen(".gguf").iter().map(|seen| seen.from().unwrap_or(0)).collect();
    assert!(starts.is_sorted() && *starts.last().unwrap() > 800_000, "{starts:?}");
    let resumed = server.seen(".gguf").into_iter().filter(|seen| seen.from().is_some());
    assert!(resumed.into_iter().all(|seen| seen.header("if-range") == Some("\"v1\"")));
}

#[tokio::test]
async fn a_server_that_always_breaks_is_given_up_and_the_bytes_are_kept() {
    let bytes = large(1, 1);
    let server = hub_of(bytes.clone(), {
        let bytes = bytes.clone();
        move |seen, n| Reply::file(seen, &bytes, "\"v1\"").cut(if n == 0 { 500_000 } else { 10 })
    })
    .await;
    let (_folder, library, outcome) = pull_from(&server).await;
    let error = outcome.unwrap_err();
    assert!(matches!(error, PullError::GaveUp { attempts: 3, .. }), "{error}");
    assert_nothing_served(&library);
    assert_eq!(server.seen(".gguf").len(), 4, "the first one brought something");

    let good = hub_of(bytes.clone(), move |seen, _| Reply::file(seen, &bytes, "\"v1\"")).await;
    pull(&library, &client(&good, None), "org/name").await.unwrap();
    assert_eq!(good.seen(".gguf")[0].from(), Some(500_030), "another mirror goes on where the first one stopped");
}

#[tokio::test]
async fn a_server_without_ranges_is_asked_for_the_whole_file() {
    let bytes = large(1, 1);
    let server = hub_of(bytes.clone(), {
        let bytes = bytes.clone();
        move |_, n| match n {
            0 => Reply::ok(bytes.clone()).cut(300_000),
            _ => Reply::ok(bytes.clone()),
        }
    })
    .await;
    let (_folder, library, outcome) = pull_from(&server).await;
    outcome.unwrap();
    assert_eq!(fs_err::read(library.resolve("org/name:Q4_K_M").unwrap().file.path).unwrap(), bytes);
    assert_eq!(server.seen(".gguf").len(), 2);
}

#[tokio::test]
async fn a_length_that_is_not_the_announced_one_is_an_error_at_once() {
    let bytes = gguf(1);
    let (short, long) = (bytes[..bytes.len() - 1].to_vec(), [bytes.as_slice(), b"more"].concat());
    for body in [short, long] {
        let server = hub_of(bytes.clone(), move |_, _| Reply::ok(body.clone())).await;
        let (_folder, library, outcome) = pull_from(&server).await;
        let error = outcome.unwrap_err();
        assert!(matches!(error, PullError::Size { .. }), "{error}");
        assert_eq!(server.seen(".gguf").len(), 1);
        assert_nothing_served(&library);
    }
}

#[tokio::test]
async fn a_body_that_goes_on_too_long_or_ends_too_early_without_a_length_is_noticed() {
    let bytes = gguf(1);
    let body = [bytes.as_slice(), b"more"].concat();
    let server = hub_of(bytes.clone(), move |_, _| Reply { chunked: true, ..Reply::ok(body.clone()) }).await;
    let (_folder, library, outcome) = pull_from(&server).await;
    let error = outcome.unwrap_err();
    assert!(matches!(error, PullError::Size { .. }), "{error}");
    assert_nothing_served(&library);

    let short = bytes[..100].to_vec();
    let server = hub_of(bytes, move |_, _| Reply { chunked: true, ..Reply::ok(short.clone()) }).await;
    let (_folder, library, outcome) = pull_from(&server).await;
    let error = outcome.unwrap_err();
    assert!(error.to_string().contains("ended after 100 of "), "{error}");
    assert_nothing_served(&library);
}

#[tokio::test]
async fn wrong_bytes_are_fetched_once_more_and_then_refused_with_both_digests() {
    let (right, wrong) = (gguf(1), gguf(2));
    assert_eq!(right.len(), wrong.len());
    let server = hub_of(right.clone(), {
        let wrong = wrong.clone();
        move |seen, _| Reply::file(seen, &wrong, "\"v1\"")
    })
    .await;
    let (_folder, library, outcome) = pull_from(&server).await;
    let error = outcome.unwrap_err();
    assert!(matches!(error, PullError::Content { .. }), "{error}");
    assert!(error.to_string().contains(digest(&wrong).as_str()) && error.to_string().contains(digest(&right).as_str()));
    assert_eq!(server.seen(".gguf").len(), 2);
    assert_nothing_served(&library);
    assert!(partials(&library).iter().all(|name| !name.ends_with(".part")), "{:?}", partials(&library));

    let server =
        hub_of(right.clone(), move |seen, n| Reply::file(seen, if n == 0 { &wrong } else { &right }, "\"v\"")).await;
    let (_folder, _library, outcome) = pull_from(&server).await;
    assert_eq!(outcome.unwrap().digest, digest(&gguf(1)));
}

#[tokio::test]
async fn statuses_say_what_to_do() {
    let answered = |status: u16| hub_of(gguf(1), move |_, _| Reply::status(status));
    for (status, says, tries) in [
        (401, "set HF_TOKEN", 1),
        (403, "set HF_TOKEN", 1),
        (404, "check the spelling", 1),
        (451, "status 451", 1),
        (429, "gave up", 3),
        (503, "gave up", 3),
        (500, "the last: status 500", 3),
    ] {
        let server = answered(status).await;
        let (_folder, library, outcome) = pull_from(&server).await;
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains(says) && error.contains(&server.address.to_string()), "{status}: {error}");
        assert_eq!(server.seen(".gguf").len(), tries, "{status}");
        assert_nothing_served(&library);
    }
    // The same for the list of files.
    let server = Server::start(|_, _| Reply::status(401)).await;
    let folder = tempfile::tempdir().unwrap();
    let library = Arc::new(library(folder.path()));
    let error = pull(&library, &client(&server, Some("hf_secret")), "org/private").await.unwrap_err();
    assert!(error.to_string().contains("the token does not open it") && !error.to_string().contains("hf_secret"));
}

#[tokio::test]
async fn a_busy_hub_is_waited_for_as_long_as_it_asks_and_no_longer_than_there_is_patience() {
    let bytes = gguf(1);
    let server = hub_of(bytes.clone(), move |seen, n| match n {
        0 => Reply::status(429).with("retry-after", "0"),
        1 => Reply::status(503),
        _ => Reply::file(seen, &bytes, "\"v1\""),
    })
    .await;
    pull_from(&server).await.2.unwrap();
    assert_eq!(server.seen(".gguf").len(), 3);

    let server = hub_of(gguf(1), |_, _| Reply::status(429).with("retry-after", "3600")).await;
    let error = pull_from(&server).await.2.unwrap_err();
    assert!(matches!(error, PullError::Wait { seconds: 3600, .. }), "{error}");
    assert_eq!(server.seen(".gguf").len(), 1);
}

#[tokio::test]
async fn a_file_that_changes_on_the_server_is_never_mixed_with_the_old_one() {
    // No hub: nobody says what the digest is, so only the entity tags can tell.
    let (old, new) = (large(1, 1), large(2, 1));
    assert_eq!(old.len(), new.len());
    for honours_if_range in [true, false] {
        let (old, changed) = (old.clone(), new.clone());
        let server = Server::start(move |seen, n| match n {
            // The first request only asks how large it is.
            0 => Reply::file(seen, &old, "\"v1\""),
            1 => Reply::file(seen, &old, "\"v1\"").cut(300_000),
            _ if honours_if_range => Reply::file(seen, &changed, "\"v2\""),
            _ => {
                let mut seen = seen.clone();
                seen.headers.remove("if-range");
                Reply::file(&seen, &changed, "\"v2\"")
            }
        })
        .await;
        let folder = tempfile::tempdir().unwrap();
        let library = Arc::new(library(folder.path()));
        let pulled = pull(&library, &client(&server, None), &server.url("/m.gguf")).await.unwrap();
        assert_eq!((pulled.digest, pulled.name.as_str()), (digest(&new), "m"));
        assert_eq!(server.seen("/m.gguf")[2].from(), Some(300_000), "it did try to go on");
    }
}

#[tokio::test]
async fn without_entity_tag_and_digest_nothing_is_resumed() {
    let bytes = large(1, 1);
    let server = Server::start(move |seen, n| {
        let mut reply = Reply::file(seen, &bytes, "W/\"weak\"");
        if n == 0 {
            reply = Reply::ok(bytes.clone());
        }
        if n == 1 { reply.cut(300_000) } else { reply }
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let library = Arc::new(library(folder.path()));
    pull(&library, &client(&server, None), &server.url("/m.gguf")).await.unwrap();
    assert_eq!(server.seen("/m.gguf")[2].from(), None);
}

#[tokio::test]
async fn the_token_goes_to_the_hub_and_to_nobody_else() {
    let bytes = large(1, 1);
    let storage = Server::start({
        let bytes = bytes.clone();
        move |seen, n| {
            let reply = Reply::file(seen, &bytes, "\"v1\"");
            if n == 0 { reply.cut(200_000) } else { reply }
        }
    })
    .await;
    // The same machine by another name: another host.
    let elsewhere = format!("http://localhost:{}/signed/file.gguf", storage.address.port());
    let hub = hub_of(bytes, move |_, _| Reply::redirect(elsewhere.clone())).await;
    let folder = tempfile::tempdir().unwrap();
    let library = Arc::new(library(folder.path()));
    pull(&library, &client(&hub, Some("hf_secret")), "org/name").await.unwrap();
    let (asked, stored) = (hub.seen(""), storage.seen(""));
    assert_eq!((asked.len(), stored.len()), (3, 2));
    assert!(asked.iter().all(|seen| seen.header("authorization") == Some("Bearer hf_secret")));
    assert!(stored.iter().all(|seen| !seen.headers.values().any(|value| value.contains("hf_secret"))), "{stored:?}");
    assert_eq!(stored[1].from(), Some(200_000), "the range goes along");

    // An address that is not the hub's gets none either, though the hub's client asks.
    let other = Server::start(|seen, _| Reply::file(seen, &gguf(1), "\"v1\"")).await;
    pull(&library, &client(&hub, Some("hf_secret")), &other.url("/x.gguf")).await.unwrap();
    assert!(other.seen("").iter().all(|seen| seen.header("authorization").is_none()));
}

#[tokio::test]
async fn redirects_without_end_or_into_the_open_are_not_followed() {
    let server = hub_of(gguf(1), |seen, _| Reply::redirect(seen.path.clone())).await;
    let error = pull_from(&server).await.2.unwrap_err();
    assert!(error.to_string().contains("more than 5 redirects"), "{error}");
    let server = hub_of(gguf(1), |_, _| Reply::redirect("http://example.com/file.gguf".into())).await;
    let error = pull_from(&server).await.2.unwrap_err();
    assert!(error.to_string().contains("example.com is not encrypted"), "{error}");
}

#[tokio::test]
async fn the_parts_of_a_split_model_come_together_under_names_that_the_engine_knows() {
    let parts: Vec<Vec<u8>> = (1..=5).map(|n| part(7, n, 5)).collect();
    let names: Vec<String> = (1..=5).map(|n| format!("Q8_0/big-Q8_0-0000{n}-of-00005.gguf")).collect();
    let server = Server::start({
        let (parts, names) = (parts.clone(), names.clone());
        move |seen, n| {
            if seen.path.starts_with("/api/") {
                let files: Vec<_> =
                    names.iter().zip(&parts).map(|(name, part)| (name.as_str(), part.as_slice())).collect();
                return listing(&files);
            }
            let at = names.iter().position(|name| seen.path.ends_with(name)).unwrap();
            let reply = Reply::file(seen, &parts[at], "\"v1\"");
            if n == 0 && at % 2 == 0 { reply.cut(1000) } else { reply }
        }
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let library = Arc::new(library(folder.path()));
    let pulled = pull(&library, &client(&server, None), "org/name").await.unwrap();
    assert_eq!(pulled.name.as_str(), "org/name:Q8_0");
    let located = library.resolve("org/name").err().map(|_| library.resolve(pulled.name.as_str()).unwrap()).unwrap();
    assert_eq!(located.parts.len(), 5);
    assert!(located.file.path.ends_with("model-00001-of-00005.gguf"), "{}", located.file.path.display());
    for (path, part) in located.parts.iter().zip(&parts) {
        assert_eq!(&fs_err::read(path).unwrap(), part);
    }
    library.verify(pulled.digest.as_str(), &|_| {}, &CancellationToken::new()).unwrap();
    let freed = library.remove(pulled.digest.as_str(), false).unwrap().freed_bytes;
    assert_eq!(freed, parts.iter().map(|part| part.len() as u64).sum::<u64>());
    assert!(library.unregistered().unwrap().is_empty());
}

#[tokio::test]
async fn two_that_pull_the_same_download_it_once() {
    let bytes = large(1, 1);
    let server = hub_of(bytes.clone(), move |seen, _| Reply::file(seen, &bytes, "\"v1\"")).await;
    let folder = tempfile::tempdir().unwrap();
    // Each with its own open files, like two processes.
    let libraries = [Arc::new(library(folder.path())), Arc::new(library(folder.path()))];
    let hub = Arc::new(client(&server, None));
    // On tasks of their own, as the HTTP interface does it.
    let task = |n: usize| {
        let (library, hub) = (Arc::clone(&libraries[n]), Arc::clone(&hub));
        tokio::spawn(async move { pull(&library, &hub, "org/name").await })
    };
    let (one, two) = tokio::join!(task(0), task(1));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.unwrap().digest, two.unwrap().digest);
    assert_eq!(server.seen(".gguf").len(), 1);
    assert_eq!(libraries[0].registry().load().unwrap().models.len(), 1);
    assert_eq!(partials(&libraries[0]), Vec::<String>::new());
}

#[tokio::test]
async fn a_pull_that_is_stopped_goes_on_where_it_stopped_and_tells_how_far_it_is() {
    let bytes = large(1, 3);
    let server = hub_of(bytes.clone(), {
        let bytes = bytes.clone();
        move |seen, n| {
            let reply = Reply::file(seen, &bytes, "\"v1\"");
            if n == 0 { Reply { hold: Some(2_000_000), ..reply } } else { reply }
        }
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let library = Arc::new(library(folder.path()));
    let (hub, cancel) = (client(&server, None), CancellationToken::new());
    let spec = "org/name".parse().unwrap();
    let partial = folder.path().join("models/partial").join(format!("sha256-{}.part", digest(&bytes)));
    let stop = async {
        while fs_err::metadata(&partial).map_or(0, |metadata| metadata.len()) < 500_000 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cancel.cancel();
    };
    let (stopped, ()) = tokio::join!(library.pull(&hub, &spec, &|_| {}, &cancel), stop);
    let error = stopped.unwrap_err();
    assert!(matches!(error, PullError::Cancelled), "{error}");
    assert_nothing_served(&library);

    let told = Mutex::new(Vec::new());
    let tell = |progress| told.lock().unwrap().push(progress);
    library.pull(&hub, &spec, &tell, &CancellationToken::new()).await.unwrap();
    let resumed = server.seen(".gguf")[1].from().unwrap();
    assert!(resumed >= 500_000, "{resumed}");
    let told = told.into_inner().unwrap();
    assert_eq!(told.first().unwrap().done, resumed as u64, "what was there counts");
    assert!(told.iter().any(|progress| progress.stage == Stage::Verifying));
    let last = told.last().unwrap();
    assert_eq!((last.done, last.total), (bytes.len() as u64, bytes.len() as u64));
}

#[tokio::test]
async fn what_does_not_fit_on_the_disk_is_refused_before_the_first_byte() {
    let server = Server::start(|_, _| {
        let sha256 = digest(b"x");
        Reply::ok(format!(
            r#"{{"sha": "{COMMIT}", "siblings": [{{"rfilename": "m.gguf", "size": 1, "lfs": {{"sha256": "{sha256}", "size": 9000000000000000}}}}]}}"#
        ))
    })
    .await;
    let (_folder, library, outcome) = pull_from(&server).await;
    let error = outcome.unwrap_err();
    assert!(matches!(error, PullError::NoSpace { needed: 9_000_000_000_000_000, .. }), "{error}");
    assert_eq!(server.seen(".gguf").len(), 0);
    assert_nothing_served(&library);
}

#[tokio::test]
async fn what_is_no_model_is_deleted() {
    let page = b"<html>sign in</html>".to_vec();
    let server = hub_of(page.clone(), move |seen, _| Reply::file(seen, &page, "\"v1\"")).await;
    let (_folder, library, outcome) = pull_from(&server).await;
    let error = outcome.unwrap_err();
    assert!(matches!(error, PullError::Useless(_)), "{error}");
    assert_nothing_served(&library);
    assert_eq!(partials(&library), Vec::<String>::new());
}

#[tokio::test]
async fn answers_of_no_hub_are_refused() {
    for body in ["<html></html>", "[]", "{\"siblings\": 5}"] {
        let server = Server::start(move |_, _| Reply::ok(body)).await;
        let error = pull_from(&server).await.2.unwrap_err();
        assert!(matches!(error, PullError::Answer { .. }), "{body}: {error}");
    }
    let server = Server::start(|_, _| Reply::ok(vec![b' '; 17 << 20])).await;
    let error = pull_from(&server).await.2.unwrap_err();
    assert!(error.to_string().contains("more than 16777216 bytes"), "{error}");
    // A path of the hub's never becomes a path of ours.
    let server = hub_of(gguf(1), |_, _| Reply::status(404)).await;
    let hostile = Server::start(|_, _| listing(&[("../../../../etc/m-Q4_K_M.gguf", &gguf(1))])).await;
    for server in [server, hostile] {
        let (folder, library, outcome) = pull_from(&server).await;
        assert!(outcome.is_err());
        assert_nothing_served(&library);
        assert!(!folder.path().join("etc").exists());
    }
}

#[tokio::test]
async fn the_environment_says_which_hub_and_who_asks() {
    let folder = tempfile::tempdir().unwrap();
    let options = |set: &[(&str, &str)]| {
        let set: HashMap<String, OsString> = set.iter().map(|(name, value)| (name.to_string(), value.into())).collect();
        HubOptions::usual(|name| set.get(name).cloned(), "https://configured.example")
    };
    let plain = options(&[]);
    assert_eq!((plain.endpoint.as_str(), plain.token.is_none()), ("https://configured.example", true));
    let set = options(&[("HF_ENDPOINT", "https://mirror.example"), ("HF_TOKEN", " hf_secret\n")]);
    assert_eq!((set.endpoint.as_str(), set.token.is_some()), ("https://mirror.example", true));
    assert!(!format!("{set:?}").contains("hf_secret"));
    write(folder.path().join("token"), "hf_from_file\n");
    assert!(options(&[("HF_HOME", folder.path().to_str().unwrap())]).token.is_some());
    let _ = rustls::crypto::ring::default_provider().install_default();
    for endpoint in ["huggingface.co", "ftp://example.com", "https://me:secret@example.com", ""] {
        let options = HubOptions { endpoint: endpoint.into(), token: None, patience: PATIENCE };
        let error = Hub::new(options).unwrap_err();
        assert!(error.to_string().contains("correct `hub`"), "{error}");
    }
}

/// What the next test kills: it pulls from a hub that its environment names.
#[tokio::test]
async fn child_that_pulls() {
    let Some(home) = std::env::var_os("LOCARA_TEST_HOME") else { return };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let endpoint = std::env::var("LOCARA_TEST_HUB").unwrap();
    let hub = Hub::new(HubOptions { endpoint, token: None, patience: PATIENCE }).unwrap();
    pull(&Arc::new(library(Path::new(&home))), &hub, "org/name").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_leaves_nothing_but_what_the_next_one_goes_on_with() {
    let bytes = large(1, 6);
    let server = hub_of(bytes.clone(), {
        let bytes = bytes.clone();
        move |seen, n| {
            let reply = Reply::file(seen, &bytes, "\"v1\"");
            // Each process gets a little further, the last one to the end.
            if n < 3 { Reply { hold: Some(1_800_000), ..reply } } else { reply }
        }
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let partial = folder.path().join("models/partial").join(format!("sha256-{}.part", digest(&bytes)));
    let mut before = 0;
    for round in 0..3 {
        let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_pulls", "--test-threads=1"])
            .env("LOCARA_TEST_HOME", folder.path())
            .env("LOCARA_TEST_HUB", server.url(""))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while fs_err::metadata(&partial).map_or(0, |metadata| metadata.len()) < before + 500_000 {
            assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "round {round} stands still");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        child.kill().await.unwrap(); // SIGKILL
        let library = library(folder.path());
        assert_nothing_served(&library);
        before = fs_err::metadata(&partial).unwrap().len();
        assert!(bytes.starts_with(&fs_err::read(&partial).unwrap()), "what is there is the beginning of the file");
    }
    let library = Arc::new(library(folder.path()));
    pull(&library, &client(&server, None), "org/name").await.unwrap();
    assert_eq!(fs_err::read(library.resolve("org/name:Q4_K_M").unwrap().file.path).unwrap(), bytes);
    assert_eq!(server.seen(".gguf")[3].from(), Some(before as usize), "not a byte was fetched twice");
}
