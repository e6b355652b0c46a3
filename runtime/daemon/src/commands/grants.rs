//! `locara grants`: what apps ask for, what they may do, and changing it.

use locara_manifest::{Grant, Grants};
use serde_json::json;

use crate::{
    cli::GrantsArgs,
    exit::Exit,
    failure::Failure,
    installed::{self, InstalledApp},
    paths::Paths,
    print,
};

pub(super) fn run(args: &GrantsArgs, as_json: bool) -> Result<Exit, Failure> {
    let paths = Paths::find()?;
    let Some(wanted) = &args.app else {
        let apps = installed::all(&paths)?;
        if as_json {
            print::json(&apps.iter().map(as_value).collect::<Vec<_>>());
        } else {
            apps.iter().for_each(show);
        }
        return Ok(Exit::Success);
    };
    let mut app = installed::find(&paths, wanted)?;
    let (add, revoke) = (parse(&args.add)?, parse(&args.revoke)?);
    let known = Grants::ask(&app.manifest);
    for grant in add {
        if !known.allows(&grant) {
            return Err(Failure::new(
                Exit::Denied,
                format!("{} does not ask for {grant}; a grant without an ask does nothing", app.manifest.id.as_str()),
            )
            .help(format!("its manifest would have to ask for it under `{}`", grant.manifest_key())));
        }
        app.grants.allow(grant);
    }
    for grant in revoke {
        if !app.grants.revoke(&grant) {
            let given: Vec<_> = app.grants.list().iter().map(ToString::to_string).collect();
            return Err(Failure::new(Exit::Failure, format!("{grant} is not granted to {}", app.manifest.id.as_str()))
                .help(format!("granted are: {}", given.join(", "))));
        }
    }
    if !args.add.is_empty() || !args.revoke.is_empty() {
        app.save_grants()?;
    }
    if as_json {
        print::json(&as_value(&app));
    } else {
        show(&app);
    }
    Ok(Exit::Success)
}

/// Reads grants as the command line spells them.
pub(super) fn parse(texts: &[String]) -> Result<Vec<Grant>, Failure> {
    texts
        .iter()
        .map(|text| text.parse::<Grant>().map_err(|error| Failure::new(Exit::Failure, error.to_string())))
        .collect()
}

fn show(app: &InstalledApp) {
    print::heading(&app.manifest.title());
    for ask in Grants::asks(&app.manifest) {
        let mark = if app.grants.allows(&ask.grant) { "granted    " } else { "not granted" };
        print::say!("  {mark}  {:<32}  {}", ask.grant.to_string(), print::dim(&ask.sentence));
    }
}

fn as_value(app: &InstalledApp) -> serde_json::Value {
    let asks: Vec<_> = Grants::asks(&app.manifest)
        .iter()
        .map(|ask| {
            json!({"grant": ask.grant.to_string(), "key": ask.key, "sentence": ask.sentence,
                "granted": app.grants.allows(&ask.grant)})
        })
        .collect();
    json!({"id": app.manifest.id.as_str(), "asks": asks})
}
