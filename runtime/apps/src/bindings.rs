//! Rust types and host traits of the WIT package `locara:app@0.1.0`, generated from `sdk/wit/0.1`.
//!
//! The asynchronous and the synchronous world share every interface that both import, so there is one `Host`
//! implementation of each. Nothing here is written by hand; this module must never hold behaviour.

/// The worlds `app` and `app-with-events`.
pub(crate) mod asynchronous {
    wasmtime::component::bindgen!({
        path: "../../sdk/wit/0.1",
        world: "locara:app/app-with-events",
        imports: {
            "locara:app/inference.[method]session.generate": store | trappable,
            "locara:app/inference.[method]session.count-tokens": store | trappable,
            "locara:app/inference.[method]session.embed": store | trappable,
            "locara:app/budget.changes": store | trappable,
            "locara:app/files.read": store | trappable,
            "locara:app/files.write": store | trappable,
            "locara:app/files.entries": async | trappable,
            "locara:app/http.fetch": store | trappable,
            "locara:app/output.attach": store | trappable,
            "locara:app/storage.get": async | trappable,
            "locara:app/storage.set": async | trappable,
            "locara:app/storage.delete": async | trappable,
            "locara:app/storage.keys": async | trappable,
            "locara:app/storage.usage": async | trappable,
            default: trappable,
        },
        exports: { default: async },
        with: {
            "locara:app/inference.session": crate::capability::inference::Session,
            "locara:app/budget.pool": crate::capability::budget::Pool,
        },
    });
}

/// The world `app-sync`.
pub(crate) mod synchronous {
    wasmtime::component::bindgen!({
        path: "../../sdk/wit/0.1",
        world: "locara:app/app-sync",
        imports: {
            "locara:app/inference-sync.[method]session.count-tokens": async | trappable,
            "locara:app/inference-sync.[method]session.embed": async | trappable,
            "locara:app/inference-sync.[method]answer.next": async | trappable,
            "locara:app/inference-sync.[method]answer.finish": async | trappable,
            "locara:app/io-sync.read": async | trappable,
            "locara:app/io-sync.write": async | trappable,
            default: trappable,
        },
        exports: { default: async },
        with: {
            "locara:app/types": crate::bindings::asynchronous::locara::app::types,
            "locara:app/inference": crate::bindings::asynchronous::locara::app::inference,
            "locara:app/budget": crate::bindings::asynchronous::locara::app::budget,
            "locara:app/storage": crate::bindings::asynchronous::locara::app::storage,
            "locara:app/log": crate::bindings::asynchronous::locara::app::log,
            "locara:app/progress": crate::bindings::asynchronous::locara::app::progress,
            "locara:app/system": crate::bindings::asynchronous::locara::app::system,
            "locara:app/inference-sync.session": crate::capability::inference::Session,
            "locara:app/inference-sync.answer": crate::capability::inference::Answer,
        },
    });
}

pub(crate) use asynchronous::exports::locara::app::{events, run};
pub(crate) use asynchronous::locara::app::{
    budget, files, http, inference, log, output, progress, storage, system, types,
};
pub(crate) use synchronous::exports::locara::app::run_sync;
pub(crate) use synchronous::locara::app::{budget_sync, inference_sync, io_sync};
