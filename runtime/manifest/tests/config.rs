//! What a configuration says, and what its absent keys mean.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use locara_manifest::{Config, LogLevel, config_schema};

#[test]
fn an_empty_file_is_the_default_and_the_default_is_private() {
    let config = Config::parse("x", "").unwrap();
    assert_eq!(config, Config::default());
    assert!(config.server.listen.ip().is_loopback() && !config.log.prompts);
    assert!(config.server.allowed_hosts.is_empty() && config.server.allowed_origins.is_empty());
    assert_eq!((config.batch.window_ms, config.batch.max_size, config.idle.ttl_seconds), (50, 10, 180));
}

#[test]
fn every_key_arrives_where_it_belongs() {
    let files = common::files("config/examples", ".toml");
    let (_, text) = files.iter().find(|(stem, _)| stem == "everything").unwrap();
    let config = Config::parse("everything.toml", text).unwrap();
    assert_eq!(config.preload.iter().map(|role| role.as_str()).collect::<Vec<_>>(), ["default", "embedding"]);
    assert_eq!(config.server.listen.to_string(), "[::1]:11434");
    assert_eq!(config.server.request_max_bytes, 16_777_216);
    assert_eq!(config.server.allowed_origins[1].to_string(), "http://localhost:3000");
    assert_eq!(config.models.dirs, ["/Volumes/models"]);
    assert_eq!(config.models.hub, "https://hub.example.com/mirror");
    assert_eq!(config.memory.ceiling_bytes(10_000_000_000), Some(6_000_000_238), "a fraction is an f32");
    assert_eq!(config.memory.reserve_bytes(), Some(4_000_000_000));
    let defaults = config.defaults;
    assert_eq!(
        (defaults.max_tokens, defaults.max_tokens_hard, defaults.thinking_budget),
        (Some(2048), Some(8192), Some(0))
    );
    let sampling = defaults.sampling;
    assert_eq!((sampling.temperature, sampling.top_p, sampling.top_k), (Some(0.6), Some(0.9), Some(20)));
    assert_eq!((sampling.min_p, sampling.repeat_penalty), (Some(0.0), Some(1.05)));
    assert_eq!((sampling.frequency_penalty, sampling.presence_penalty), (Some(-0.5), Some(1.0)));
    assert_eq!((config.interactive.max_sequences, config.batch.max_sequences), (Some(4), Some(2)));
    assert_eq!((config.batch.window_ms, config.batch.max_size, config.idle.ttl_seconds), (20, 8, 900));
    assert_eq!(config.log.level, LogLevel::Debug);
}

#[test]
fn a_ceiling_never_exceeds_the_machine() {
    let config = Config::parse("x", "[memory]\nceiling_gb = 64").unwrap();
    assert_eq!(config.memory.ceiling_bytes(16 << 30), Some(16 << 30));
    assert_eq!(Config::default().memory.ceiling_bytes(16 << 30), None);
}

/// The keys of a table in the schema, and those that its reader knows: an unknown key names them all.
#[test]
fn the_schema_has_the_keys_of_the_reader() {
    let schema = config_schema();
    let tables = ["server", "models", "memory", "defaults", "interactive", "batch", "idle", "log", "defaults.sampling"];
    for table in tables {
        let last = table.rsplit('.').next().unwrap();
        let place = if last == "sampling" { &schema["$defs"]["Defaults"] } else { &schema };
        let definition = place["properties"][last]["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
        let in_schema = schema["$defs"][definition]["properties"].as_object().unwrap();
        let diagnosis = Config::parse("x", format!("[{table}]\nqqqqqqqqqqqq = 1")).unwrap_err();
        let [problem] = diagnosis.problems() else { panic!("{diagnosis}") };
        for key in in_schema.keys() {
            assert!(problem.fix.contains(&format!("`{key}`")), "{table}: {key}: {}", problem.fix);
        }
        assert_eq!(problem.fix.matches('`').count(), 2 * in_schema.len() + 2, "{table}: {}", problem.fix);
    }
}

#[test]
fn a_byte_order_mark_and_a_file_of_another_kind_are_no_surprise() {
    assert_eq!(Config::parse("x", "\u{feff}[idle]\nttl_seconds = 5").unwrap().idle.ttl_seconds, 5);
    for bytes in [&b"\xff\xfe"[..], b"\x7fELF\0\0", &[b'['; 100_000], &[b'#'; 300_000]] {
        assert!(!Config::parse("x", bytes).unwrap_err().problems().is_empty());
    }
}
