//! `locara pack`: a built module and its manifest become an app folder.

use serde_json::json;

use crate::{cli::PackArgs, exit::Exit, failure::Failure, installed, print};

pub(super) fn run(args: &PackArgs, as_json: bool) -> Result<Exit, Failure> {
    // A manifest with problems is not packed: they would only come up at the user's.
    let (file, manifest) = installed::read_manifest(&args.folder)?;
    let name = manifest.id.as_str().rsplit('.').next().unwrap_or("app").to_owned();
    let packed = locara_pack::pack(&file, &args.wasm, &name, &args.out).map_err(|error| {
        Failure::new(Exit::Failure, format!("cannot pack {}", args.folder.display())).because(error)
    })?;
    if as_json {
        print::json(&json!({"folder": args.out, "sha256": packed.sha256}));
    } else {
        print::say!("{} is packed in {} ({})", manifest.title(), args.out.display(), &packed.sha256[..12]);
    }
    Ok(Exit::Success)
}
