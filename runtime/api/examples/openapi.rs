//! Prints the OpenAPI document: `cargo run --release -p locara-api --example openapi > runtime/api/openapi.json`.

fn main() -> Result<(), serde_json::Error> {
    println!("{}", serde_json::to_string_pretty(&locara_api::openapi())?);
    Ok(())
}
