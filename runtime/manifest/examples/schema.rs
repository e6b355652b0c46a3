//! Writes the JSON Schemas of `locara.json`, `registry.json` and `locara.toml` into the folder that is named; `make generate`
//! names `manifests/schema`.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from).ok_or("name the folder to write to")?;
    for (name, schema) in [
        ("locara.schema.json", locara_manifest::schema()),
        ("registry.schema.json", locara_manifest::registry_schema()),
        ("config.schema.json", locara_manifest::config_schema()),
    ] {
        fs_err::write(folder.join(name), serde_json::to_string_pretty(&schema)? + "\n")?;
    }
    Ok(())
}
