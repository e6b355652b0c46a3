//! `cargo xtask check-deps`: dependencies between our crates point downwards only (ARCHITECTURE.md).

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use crate::metadata::{self, Workspace};

/// What each crate of ours may build on. A crate that is not listed may not be one of ours: add it here, on purpose.
///
/// Tests may use more (dev-dependencies are not looked at); nothing may depend on the daemon, on tests or on apps.
const MAY_USE: &[(&str, &[&str])] = &[
    // Pure decisions and pure types: nothing of ours below them.
    ("locara-policy", &[]),
    ("locara-manifest", &[]),
    ("locara-gguf", &[]),
    ("locara-platform", &[]),
    // The engine knows no HTTP and no Wasm.
    ("locara-engine", &["locara-gguf", "locara-manifest", "locara-platform", "locara-policy"]),
    ("locara-models", &["locara-gguf", "locara-manifest", "locara-policy", "locara-platform"]),
    // The app host talks to engines through their trait.
    ("locara-apps", &["locara-engine", "locara-features", "locara-manifest", "locara-policy", "locara-platform"]),
    ("locara-api", &["locara-engine", "locara-manifest", "locara-models", "locara-policy"]),
    // What authors use knows nothing of the host: the WIT is between them.
    ("locara-macros", &[]),
    ("locara", &["locara-macros"]),
    ("locara-features", &[]),
    ("locara-pack", &[]),
    ("xtask", &["locara-pack"]),
    // Assembly: the only crate that may know everything of the runtime.
    (
        "locara-daemon",
        &[
            "locara-api",
            "locara-apps",
            "locara-engine",
            "locara-gguf",
            "locara-manifest",
            "locara-models",
            "locara-pack",
            "locara-platform",
            "locara-policy",
        ],
    ),
];

/// Folders whose crates are at the top: nothing depends on them, so their own dependencies cannot make a cycle.
const TOP: [&str; 2] = ["plugins", "tests"];
/// Apps may build on the SDK and on nothing else of ours.
const APP_MAY_USE: [&str; 1] = ["locara"];

/// Fails with every edge that points the wrong way.
pub(crate) fn check() -> Result<()> {
    let wrong = violations(&metadata::read()?);
    if !wrong.is_empty() {
        bail!("dependencies point the wrong way (ARCHITECTURE.md, xtask/src/deps.rs):\n  {}", wrong.join("\n  "));
    }
    println!("dependencies point downwards only");
    Ok(())
}

/// One sentence for each edge that is not allowed.
fn violations(workspace: &Workspace) -> Vec<String> {
    let rules: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    let ours = |name: &str| workspace.packages.iter().any(|package| package.name == name);
    let mut wrong = Vec::new();
    for package in &workspace.packages {
        let place = package.folder().strip_prefix(&workspace.workspace_root).unwrap_or(package.folder());
        let allowed = match rules.get(package.name.as_str()) {
            Some(allowed) => allowed,
            None if place.starts_with("plugins") || place.starts_with("tests/guests") => APP_MAY_USE.as_slice(),
            None if TOP.iter().any(|top| place.starts_with(top)) => continue,
            None => {
                wrong.push(format!("{} has no rule: say in MAY_USE what it may build on", package.name));
                continue;
            }
        };
        for dependency in package.dependencies.iter().filter(|dependency| dependency.kind.as_deref() != Some("dev")) {
            if ours(&dependency.name) && !allowed.contains(&dependency.name.as_str()) {
                wrong.push(format!("{} → {}", package.name, dependency.name));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::metadata::{Dependency, Package};

    /// Name, folder, and dependencies with their kind.
    type Sketch = (&'static str, &'static str, &'static [(&'static str, Option<&'static str>)]);

    fn workspace(packages: &[Sketch]) -> Workspace {
        let package = |(name, folder, dependencies): &Sketch| Package {
            name: (*name).into(),
            manifest_path: Path::new("/w").join(folder).join("Cargo.toml"),
            dependencies: dependencies
                .iter()
                .map(|(name, kind)| Dependency { name: (*name).into(), kind: kind.map(Into::into) })
                .collect(),
        };
        Workspace {
            packages: packages.iter().map(package).collect(),
            workspace_root: "/w".into(),
            target_directory: "/w/target".into(),
        }
    }

    #[test]
    fn this_workspace_points_downwards() {
        let workspace = metadata::read().expect("cargo metadata runs in tests");
        assert!(workspace.packages.iter().any(|package| package.name == "locara-policy"));
        assert_eq!(violations(&workspace), Vec::<String>::new());
    }

    #[test]
    fn an_upward_edge_is_named() {
        let upward = workspace(&[
            ("locara-policy", "runtime/policy", &[("locara-engine", None), ("serde", None)]),
            ("locara-engine", "runtime/engine", &[("locara-policy", None), ("locara-apps", Some("dev"))]),
            ("locara-apps", "runtime/apps", &[("locara-daemon", Some("build"))]),
            ("locara-daemon", "runtime/daemon", &[("locara-apps", None)]),
            ("summarize", "plugins/summarize", &[("locara", None), ("locara-policy", None)]),
            ("locara", "sdk/rust", &[]),
            ("locara-e2e", "tests/e2e", &[("locara-daemon", None)]),
        ]);
        assert_eq!(
            violations(&upward),
            ["locara-policy → locara-engine", "locara-apps → locara-daemon", "summarize → locara-policy"]
        );
    }

    #[test]
    fn a_new_crate_needs_a_rule() {
        let unknown = workspace(&[("locara-new", "runtime/new", &[])]);
        assert_eq!(violations(&unknown), ["locara-new has no rule: say in MAY_USE what it may build on"]);
    }
}
