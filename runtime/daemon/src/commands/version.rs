//! `locara version`: the host and everything it was built from.

use serde_json::json;

use crate::{exit::Exit, failure::Failure, print};

/// The app interface that this host serves.
const WIT: &str = "locara:app@0.1.0";

pub(super) fn run(as_json: bool) -> Result<Exit, Failure> {
    let engine = locara_engine::llama::build_info();
    let wasm = locara_apps::WASMTIME_VERSION;
    if as_json {
        print::json(&json!({"locara": env!("CARGO_PKG_VERSION"), "engine": engine, "wasmtime": wasm, "wit": WIT,
            "embedded_model": locara_models::EMBEDDED_DIGEST}));
    } else {
        print::row("locara", env!("CARGO_PKG_VERSION"));
        print::row("engine", engine);
        print::row("wasmtime", wasm);
        print::row("app interface", WIT);
        print::row(
            "embedded model",
            format!("{}@{}", locara_models::EMBEDDED_NAME, &locara_models::EMBEDDED_DIGEST[..12]),
        );
    }
    Ok(Exit::Success)
}
