//! Grants: nothing by default, both sides needed, one spelling in and out.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use locara_manifest::{Grant, Grants, Manifest};
use url::Url;

const MANIFEST: &str = r#"{
  "manifestVersion": 1,
  "id": "org.example.notes",
  "name": "Notes",
  "version": "1.0.0",
  "description": "Answers questions about your notes.",
  "component": { "path": "notes.wasm" },
  "wit": "locara:app@0.1.0",
  "requires": { "memoryGB": 4.5 },
  "models": [{ "role": "default", "draft": "quickest" }, { "role": "embedding", "context": 512 }],
  "capabilities": {
    "storage": { "quotaMB": 50 },
    "http": { "hosts": ["https://api.example.com", "*.example.net:8443"] },
    "folders": [{ "path": "~/Notes", "access": "read" }, { "path": "~/Notes/out", "access": "write" }],
    "tools": ["get_weather"]
  }
}"#;

fn manifest() -> Manifest {
    Manifest::parse("notes.json", MANIFEST).unwrap()
}

fn grants(list: &[&str]) -> Grants {
    let mut grants = Grants::default();
    for grant in list {
        grants.allow(grant.parse().unwrap());
    }
    grants
}

fn spelt(grants: &Grants) -> Vec<String> {
    grants.list().iter().map(ToString::to_string).collect()
}

const ALL: [&str; 9] = [
    "model:default",
    "model:embedding",
    "memory:4500MB",
    "storage",
    "http:https://*.example.net:8443",
    "http:https://api.example.com",
    "folder:~/Notes:read",
    "folder:~/Notes/out:write",
    "tool:get_weather",
];

#[test]
fn asks_for_everything_that_the_manifest_names() {
    let mut expected = ALL.map(str::to_owned).to_vec();
    let mut asked = spelt(&Grants::ask(&manifest()));
    expected.sort();
    asked.sort();
    assert_eq!(asked, expected);
}

#[test]
fn every_ask_has_its_key_and_a_sentence() {
    let shown: Vec<String> =
        Grants::asks(&manifest()).iter().map(|ask| format!("{} | {} | {}", ask.grant, ask.key, ask.sentence)).collect();
    insta::assert_snapshot!(shown.join("\n"), @r"
    model:default | models | talk to the model of the role `default`, with 8,192 tokens of context, sped up by the model of `quickest`
    model:embedding | models | talk to the model of the role `embedding`, with 512 tokens of context
    memory:4500MB | requires.memoryGB | hold up to 4,500 MB of memory
    storage | capabilities.storage | keep up to 50 MB of its own data on disk
    http:https://api.example.com | capabilities.http | send requests to https://api.example.com and read the answers
    http:https://*.example.net:8443 | capabilities.http | send requests to https://*.example.net:8443 and read the answers
    folder:~/Notes:read | capabilities.folders | read everything in ~/Notes
    folder:~/Notes/out:write | capabilities.folders | read, create and replace files in ~/Notes/out
    tool:get_weather | capabilities.tools | offer the tool `get_weather` to a model
    ");
}

#[test]
fn nothing_is_granted_by_default() {
    let manifest = manifest();
    assert_eq!(Grants::default().missing(&manifest).len(), ALL.len());
    assert_eq!(Grants::default().within(&manifest), Grants::default());
    assert_eq!(Grants::default().memory_bytes(), 0);
}

#[test]
fn a_wider_grant_covers_a_narrower_ask() {
    let missing = |list: &[&str]| -> Vec<String> {
        grants(list).missing(&manifest()).iter().map(|ask| ask.grant.to_string()).collect()
    };
    let without_api: Vec<&str> = ALL.into_iter().filter(|grant| !grant.contains("api.example.com")).collect();
    assert_eq!(missing(&without_api), ["http:https://api.example.com"]);
    assert!(missing(&[&without_api[..], &["http:*.example.com"]].concat()).is_empty());
    let folders = ["folder:~/Notes:write", "memory:8GB"];
    let rest: Vec<&str> =
        ALL.into_iter().filter(|grant| !grant.starts_with("folder") && !grant.starts_with("memory")).collect();
    assert!(missing(&[&rest[..], &folders[..]].concat()).is_empty());
    assert_eq!(
        missing(&[&rest[..], &["folder:~/Notes:read", "memory:4GB"]].concat()),
        ["memory:4500MB", "folder:~/Notes/out:write"]
    );
}

#[test]
fn the_narrower_side_wins() {
    let granted = grants(&[
        "model:default",
        "model:coding",
        "memory:2GB",
        "http:*.example.com",
        "http:a.example.net:8443",
        "http:https://elsewhere.org",
        "folder:~/Notes:write",
        "folder:~/Other:read",
        "tool:rm",
    ]);
    let within = granted.within(&manifest());
    assert_eq!(
        spelt(&within),
        [
            "model:default",
            "memory:2GB",
            "http:https://a.example.net:8443",
            "http:https://api.example.com",
            "folder:~/Notes:read",
            "folder:~/Notes/out:write",
        ]
    );
    let url = |text| Url::parse(text).unwrap();
    assert!(within.allows_url(&url("https://api.example.com/v1")));
    assert!(!within.allows_url(&url("https://other.example.com/")), "granted but not asked");
    assert!(!within.allows_url(&url("https://b.example.net:8443/")), "asked but not granted");
    assert_eq!(within.memory_bytes(), 2_000_000_000);
}

#[test]
fn revoking_takes_back_exactly_one() {
    let mut own = grants(&ALL);
    for grant in ALL {
        let grant: Grant = grant.parse().unwrap();
        assert!(own.revoke(&grant), "{grant}");
        assert!(!own.revoke(&grant), "{grant}");
        assert!(!own.allows(&grant), "{grant}");
    }
    assert_eq!(own, Grants::default());
}

#[test]
fn a_file_of_grants_reads_back_and_rejects_what_it_does_not_know() {
    let own = grants(&ALL);
    let text = serde_json::to_string(&own).unwrap();
    assert_eq!(serde_json::from_str::<Grants>(&text).unwrap(), own);
    assert_eq!(serde_json::from_str::<Grants>("{}").unwrap(), Grants::default());
    assert!(serde_json::from_str::<Grants>(r#"{"camera": true}"#).is_err());
    assert!(serde_json::from_str::<Grants>(r#"{"folders": [{"path": "/", "access": "read"}]}"#).is_err());
    assert!(serde_json::from_str::<Grants>(r#"{"http": ["*"]}"#).is_err());
}

#[test]
fn the_spelling_of_the_command_line_reads_back() {
    for text in ALL {
        assert_eq!(text.parse::<Grant>().unwrap().to_string(), text);
    }
    assert_eq!("memory:2.5GB".parse::<Grant>().unwrap().to_string(), "memory:2500MB");
    assert_eq!("memory:4000MB".parse::<Grant>().unwrap().to_string(), "memory:4GB");
    assert_eq!("folder:/srv/a:b:read".parse::<Grant>().unwrap().to_string(), "folder:/srv/a:b:read");
    for wrong in [
        "",
        "everything",
        "storage:50",
        "model:",
        "model:llama.gguf",
        "memory:4",
        "memory:0GB",
        "memory:-1GB",
        "memory:infGB",
        "memory:1e9GB",
        "memory:GB",
        "http:*",
        "folder:~/Notes",
        "folder:~:read",
        "folder:~/x:run",
        "tool:a b",
        "Storage",
    ] {
        let error = wrong.parse::<Grant>().expect_err(wrong).to_string();
        assert!(error.len() > 20, "{wrong}: {error}");
    }
}
