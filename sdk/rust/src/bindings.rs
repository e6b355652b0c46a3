//! Generated from `sdk/wit`: the imports, and the macro that makes the exports.

#![allow(missing_docs, unreachable_pub, rust_2018_idioms, clippy::all, reason = "generated from the WIT")]

wit_bindgen::generate!({
    path: "../wit/0.1",
    world: "app-with-events",
    pub_export_macro: true,
    export_macro_name: "export",
    default_bindings_module: "locara::bindings",
});
