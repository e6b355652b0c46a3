//! Prints the JSON Schema of `locara.json`. The committed copy is made by
//! `cargo run -p locara-manifest --example schema > manifests/schema/locara.schema.json`.

fn main() -> serde_json::Result<()> {
    println!("{}", serde_json::to_string_pretty(&locara_manifest::schema())?);
    Ok(())
}
