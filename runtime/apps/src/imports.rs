//! Default deny: what a component imports is compared with what its app may have before anything is linked.
//!
//! An interface that is imported for its types only gives nothing and needs nothing.

use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use crate::allow::{Allowed, Interface};
use crate::error::PrepareError;

/// The WIT package that this host serves.
const PACKAGE: &str = "locara:app/";
/// Its version: 0.1 is one track, later patches of it link as well.
const TRACK: &str = "0.1.";

/// Which of the two worlds a component is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum World {
    /// `app` or `app-with-events`.
    Async,
    /// `app-sync`.
    Sync,
}

/// Refuses a component that imports what its app may not have.
pub(crate) fn check(engine: &Engine, component: &Component, allowed: &Allowed) -> Result<(), PrepareError> {
    for (import, item) in component.component_type().imports(engine) {
        if types_only(engine, &item.ty) {
            continue;
        }
        let app = allowed.app.to_string();
        let Some(interface) = interface(import) else {
            return Err(PrepareError::UnknownImport { app, import: import.to_owned() });
        };
        if let Err(denied) = allowed.check_interface(interface) {
            return Err(PrepareError::DeniedImport {
                app,
                import: import.to_owned(),
                capability: denied.capability,
                reason: denied.reason,
                remedy: denied.remedy,
            });
        }
    }
    Ok(())
}

/// The world of a component, by what it exports.
pub(crate) fn world(engine: &Engine, component: &Component, app: &str) -> Result<World, PrepareError> {
    let exports = |name: &str| component.component_type().exports(engine).any(|(export, _)| ours(export) == Some(name));
    let problem = match (exports("run"), exports("run-sync")) {
        (true, false) => return Ok(World::Async),
        (false, true) => return Ok(World::Sync),
        (true, true) => "exports both `run` and `run-sync`",
        (false, false) => "exports no `run`",
    };
    Err(PrepareError::World { app: app.to_owned(), problem })
}

fn interface(import: &str) -> Option<Interface> {
    Some(match ours(import)? {
        "inference" | "inference-sync" => Interface::Inference,
        "storage" => Interface::Storage,
        "files" => Interface::Files,
        "http" => Interface::Http,
        "types" | "budget" | "budget-sync" | "log" | "progress" | "system" | "output" | "io-sync" => Interface::Free,
        _ => return None,
    })
}

/// The interface's name in our package and version track.
fn ours(name: &str) -> Option<&str> {
    let (interface, version) = name.strip_prefix(PACKAGE)?.split_once('@')?;
    version.starts_with(TRACK).then_some(interface)
}

fn types_only(engine: &Engine, item: &ComponentItem) -> bool {
    match item {
        ComponentItem::ComponentInstance(instance) => {
            instance.exports(engine).all(|(_, item)| matches!(item.ty, ComponentItem::Type(_)))
        }
        ComponentItem::Type(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_package_in_our_track_is_ours() {
        assert_eq!(ours("locara:app/http@0.1.0"), Some("http"));
        assert_eq!(ours("locara:app/http@0.1.7"), Some("http"));
        assert_eq!(ours("locara:app/http@0.2.0"), None);
        assert_eq!(ours("locara:app/http"), None);
        assert_eq!(ours("wasi:http/types@0.3.0"), None);
        assert_eq!(interface("locara:app/http@0.1.0"), Some(Interface::Http));
        assert_eq!(interface("locara:app/camera@0.1.0"), None);
    }
}
