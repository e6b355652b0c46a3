//! `locara rm`, `verify`, `enable` and `disable`: what becomes of models that are here.

use locara_models::LibraryError;
use serde_json::json;

use super::{
    progress::Bar,
    role::{refused, said},
};
use crate::{cli::RmArgs, exit::Exit, failure::Failure, host, paths::Paths, print};

pub(super) fn remove(args: &RmArgs, as_json: bool) -> Result<Exit, Failure> {
    let paths = Paths::find()?;
    let library = host::library(&paths)?;
    let removed = library.remove(&args.model, args.force).map_err(refused(&format!("remove {}", args.model)))?;
    let name = removed.name.as_ref().map_or_else(|| args.model.clone(), ToString::to_string);
    let left: Vec<_> = removed.left.iter().map(|path| path.display().to_string()).collect();
    said(as_json, &json!({"removed": name, "freed_bytes": removed.freed_bytes, "left": left}), || {
        match (removed.freed_bytes, left.as_slice()) {
            (0, []) => format!("{name} is forgotten"),
            (0, left) => format!("{name} is forgotten; its files are not ours and stay: {}", left.join(", ")),
            (freed, _) => format!("{name} is gone, {} are free again", print::size(freed)),
        }
    });
    Ok(Exit::Success)
}

pub(super) fn verify(word: &str, as_json: bool) -> Result<Exit, Failure> {
    let library = host::library(&Paths::find()?)?;
    let runtime = host::runtime()?;
    // Ctrl-C ends the reading between two blocks.
    let cancel = host::until_asked_to_stop(&runtime);
    let bar = Bar::new(word, as_json);
    let verified = library.verify(word, &|progress| bar.show(progress), &cancel);
    drop(bar);
    runtime.shutdown_background();
    let listed = verified.map_err(|error| {
        let stopped = matches!(error, LibraryError::Cancelled);
        let failure = refused(&format!("verify {word}"))(error);
        if stopped { failure.help(format!("`locara verify {word}` begins again")) } else { failure }
    })?;
    said(
        as_json,
        &json!({"verified": listed.name.as_str(), "digest": listed.digest.as_str(), "bytes": listed.bytes}),
        || format!("{} is what it was: {} with SHA-256 {}", listed.name, print::size(listed.bytes), listed.digest),
    );
    Ok(Exit::Success)
}

pub(super) fn switch(word: &str, on: bool, as_json: bool) -> Result<Exit, Failure> {
    let library = host::library(&Paths::find()?)?;
    let what = if on { "enable" } else { "disable" };
    let mut name = String::new();
    library
        .change(word, |model| {
            model.disabled = !on;
            name = model.name.to_string();
        })
        .map_err(refused(&format!("{what} {word}")))?;
    said(as_json, &json!({"model": name, "disabled": !on}), || {
        if on {
            format!("{name} may be used")
        } else {
            format!("{name} is not used any more; its files stay, `locara enable {name}` takes it back")
        }
    });
    Ok(Exit::Success)
}
