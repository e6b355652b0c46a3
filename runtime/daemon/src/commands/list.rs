//! `locara list`: installed apps.

use locara_manifest::Grants;
use serde_json::json;

use crate::{exit::Exit, failure::Failure, installed, paths::Paths, print};

pub(super) fn run(as_json: bool) -> Result<Exit, Failure> {
    let apps = installed::all(&Paths::find()?)?;
    if as_json {
        let rows: Vec<_> = apps
            .iter()
            .map(|app| {
                let granted: Vec<_> = app.grants.within(&app.manifest).list().iter().map(ToString::to_string).collect();
                json!({"id": app.manifest.id.as_str(), "name": app.manifest.name,
                    "version": app.manifest.version.to_string(), "description": app.manifest.description,
                    "granted": granted, "missing": missing(&app.grants, app)})
            })
            .collect();
        print::json(&rows);
        return Ok(Exit::Success);
    }
    if apps.is_empty() {
        print::say!("No app is installed. `locara install FOLDER` installs one.");
    }
    for app in &apps {
        print::heading(&app.manifest.title());
        print::say!("  {}", app.manifest.description);
        let granted: Vec<_> = app.grants.within(&app.manifest).list().iter().map(ToString::to_string).collect();
        print::say!("  {} {}", print::dim("may use"), granted.join(", "));
        let missing = missing(&app.grants, app);
        if !missing.is_empty() {
            print::say!("  {} {}", print::dim("not granted"), missing.join(", "));
        }
    }
    Ok(Exit::Success)
}

fn missing(grants: &Grants, app: &installed::InstalledApp) -> Vec<String> {
    grants.missing(&app.manifest).iter().map(|ask| ask.grant.to_string()).collect()
}
