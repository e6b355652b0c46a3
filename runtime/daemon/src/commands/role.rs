//! `locara role` and `locara alias`: which words lead to which model.

use locara_manifest::{ModelName, Role};
use locara_models::{EMBEDDED_NAME, Library, LibraryError};
use serde_json::{Map, Value, json};

use crate::{
    cli::{AliasCommand, RoleCommand},
    exit::Exit,
    failure::Failure,
    host,
    paths::Paths,
    print,
};

pub(super) fn run(command: &RoleCommand, as_json: bool) -> Result<Exit, Failure> {
    let library = host::library(&Paths::find()?)?;
    match command {
        RoleCommand::Set { role, model } => {
            let role = role_of(role)?;
            give(&library, &role, model)?;
            said(as_json, &json!({"role": role.as_str(), "model": played_by(&library, role.as_str())}), || {
                format!("{} is played by {}", role.as_str(), played_by(&library, role.as_str()).unwrap_or_default())
            });
        }
        RoleCommand::Unset { role } => {
            let role = role_of(role)?;
            if !library.unset_role(&role).map_err(refused("take the role away"))? {
                return Err(Failure::new(Exit::Failure, format!("nobody plays the role `{}`", role.as_str()))
                    .help("`locara role list` shows who plays what"));
            }
            said(as_json, &json!({"unset": role.as_str()}), || format!("nobody plays {} now", role.as_str()));
        }
        RoleCommand::List => {
            let registry = library.registry().load().map_err(|error| refused("list the roles")(error.into()))?;
            let own = registry.roles.keys().map(Role::as_str).filter(|role| !Role::BUILT_IN.contains(role));
            let all: Vec<&str> = Role::BUILT_IN.into_iter().chain(own).collect();
            if as_json {
                let roles: Map<String, Value> =
                    all.into_iter().map(|role| (role.to_owned(), json!(played_by(&library, role)))).collect();
                print::json(&roles);
                return Ok(Exit::Success);
            }
            for role in all {
                let nobody = match role {
                    Role::DEFAULT => format!("nobody; {EMBEDDED_NAME}, which is built in, stands in"),
                    _ => "nobody".to_owned(),
                };
                print::row(role, played_by(&library, role).unwrap_or_else(|| print::dim(&nobody)));
            }
        }
    }
    Ok(Exit::Success)
}

pub(super) fn run_alias(command: &AliasCommand, as_json: bool) -> Result<Exit, Failure> {
    let library = host::library(&Paths::find()?)?;
    match command {
        AliasCommand::Set { alias, model } => {
            let alias = alias_of(alias)?;
            library.set_alias(&alias, model).map_err(refused("set the alias"))?;
            said(as_json, &json!({"alias": alias.as_str(), "model": played_by(&library, alias.as_str())}), || {
                format!("{alias} leads to {}", played_by(&library, alias.as_str()).unwrap_or_default())
            });
        }
        AliasCommand::Unset { alias } => {
            let alias = alias_of(alias)?;
            if !library.unset_alias(&alias).map_err(refused("take the alias away"))? {
                return Err(Failure::new(Exit::Failure, format!("there is no alias `{alias}`"))
                    .help("`locara alias list` shows those that there are"));
            }
            said(as_json, &json!({"unset": alias.as_str()}), || format!("{alias} leads nowhere now"));
        }
        AliasCommand::List => {
            let registry = library.registry().load().map_err(|error| refused("list the aliases")(error.into()))?;
            if as_json {
                let aliases: Map<String, Value> = registry
                    .aliases
                    .keys()
                    .map(|alias| (alias.to_string(), json!(played_by(&library, alias.as_str()))))
                    .collect();
                print::json(&aliases);
                return Ok(Exit::Success);
            }
            for alias in registry.aliases.keys() {
                print::row(alias.as_str(), played_by(&library, alias.as_str()).unwrap_or_default());
            }
        }
    }
    Ok(Exit::Success)
}

/// Gives a role to a model.
pub(super) fn give(library: &Library, role: &Role, model: &str) -> Result<(), Failure> {
    library.set_role(role, model).map_err(refused("give the role"))
}

/// The role that a person wrote.
pub(super) fn role_of(text: &str) -> Result<Role, Failure> {
    text.parse().map_err(|error| Failure::new(Exit::Failure, format!("`{text}` is no role")).because(error))
}

fn alias_of(text: &str) -> Result<ModelName, Failure> {
    text.parse().map_err(|error| Failure::new(Exit::Failure, format!("`{text}` cannot be an alias")).because(error))
}

/// The name of the model that a word leads to, disabled ones included.
fn played_by(library: &Library, word: &str) -> Option<String> {
    Some(library.registry().load().ok()?.follow(word).ok()?.model.name.to_string())
}

/// The library says no.
pub(super) fn refused(what: &str) -> impl Fn(LibraryError) -> Failure {
    move |error| Failure::new(Exit::Failure, format!("cannot {what}")).because(error)
}

/// JSON or a sentence.
pub(super) fn said(as_json: bool, value: &Value, sentence: impl Fn() -> String) {
    if as_json {
        print::json(value);
    } else {
        print::say!("{}", sentence());
    }
}
