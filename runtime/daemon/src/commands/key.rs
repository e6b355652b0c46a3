//! `locara key`: who may use the HTTP interface.

use serde_json::json;

use crate::{
    cli::KeyCommand,
    exit::Exit,
    failure::Failure,
    paths::Paths,
    print,
    serve::{Keys, scope},
};

pub(super) fn run(command: &KeyCommand, as_json: bool) -> Result<Exit, Failure> {
    let mut keys = Keys::open(&Paths::find()?)?;
    match command {
        KeyCommand::Add { name, scope: words } => {
            let scopes: Vec<_> = words.iter().filter_map(|word| scope(word)).collect();
            let secret = keys.add(name, &scopes)?;
            if as_json {
                print::json(&json!({"name": name, "key": secret, "scopes": words}));
            } else {
                print::say!("{secret}");
                print::note(
                    "the key is shown this once and not kept; a running `locara serve` takes it at its next start",
                );
            }
        }
        KeyCommand::List if as_json => print::json(&json!({"keys": keys.shown().collect::<Vec<_>>()})),
        KeyCommand::List => {
            for key in keys.shown() {
                print::say!("{}  {}", key.name, print::dim(&key.scopes.join(", ")));
            }
        }
        KeyCommand::Rm { name } => {
            if !keys.remove(name)? {
                return Err(Failure::new(Exit::Failure, format!("there is no key `{name}`"))
                    .help("`locara key list` shows those that there are"));
            }
            if as_json {
                print::json(&json!({"removed": name}));
            } else {
                print::say!("removed {name}");
            }
        }
    }
    Ok(Exit::Success)
}
