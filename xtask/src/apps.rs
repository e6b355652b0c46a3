//! `cargo xtask apps`: every workspace member with a `locara.json` becomes an installable folder in `dist/apps`.
//!
//! The build does not depend on where the checkout or the registry lies: the same source gives the same digest.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use locara_pack::{MANIFEST, Packed};

use crate::metadata::{self, Package, Workspace};

const TARGET: &str = "wasm32-unknown-unknown";
/// The cargo profile of apps, in the root `Cargo.toml`.
const PROFILE: &str = "app";
/// Where apps live in this repository.
const FOLDERS: [&str; 2] = ["plugins", "tests/guests"];

/// Builds and packs the named apps, or all of them.
pub(crate) fn build(names: &[&str]) -> Result<()> {
    let workspace = metadata::read()?;
    let apps = select(&workspace, names)?;
    if apps.is_empty() {
        return Ok(());
    }
    compile(&workspace, &apps)?;
    for (app, packed) in pack(&workspace, &apps)? {
        let state = if packed.changed { "packed" } else { "unchanged" };
        println!("{state:>9} {app} ({} KiB, sha256 {})", packed.len.div_ceil(1024), &packed.sha256[..12]);
    }
    Ok(())
}

/// Packs what was compiled.
fn pack<'w>(workspace: &Workspace, apps: &[&'w Package]) -> Result<Vec<(&'w str, Packed)>> {
    let pack = |app: &&'w Package| {
        let wasm = workspace.target_directory.join(TARGET).join(PROFILE).join(app.name.replace('-', "_") + ".wasm");
        let out = workspace.workspace_root.join("dist/apps").join(&app.name);
        let packed = locara_pack::pack(&app.folder().join(MANIFEST), &wasm, &app.name, &out)
            .with_context(|| format!("packing {}", app.name))?;
        Ok((app.name.as_str(), packed))
    };
    apps.iter().map(pack).collect()
}

/// The packages to build: members under [`FOLDERS`] that have a manifest, in the order of cargo.
fn select<'w>(workspace: &'w Workspace, names: &[&str]) -> Result<Vec<&'w Package>> {
    let folders = FOLDERS.map(|folder| workspace.workspace_root.join(folder));
    let is_app = |package: &&Package| {
        folders.iter().any(|folder| package.folder().starts_with(folder)) && package.folder().join(MANIFEST).is_file()
    };
    let apps: Vec<&Package> = workspace.packages.iter().filter(is_app).collect();
    if let Some(unknown) = names.iter().find(|name| apps.iter().all(|app| app.name != **name)) {
        let known: Vec<&str> = apps.iter().map(|app| app.name.as_str()).collect();
        bail!("no app is called `{unknown}`; there are: {}", known.join(", "));
    }
    Ok(apps.into_iter().filter(|app| names.is_empty() || names.contains(&app.name.as_str())).collect())
}

/// One cargo call for each app: features that another app asks of a shared crate must not change its digest.
fn compile(workspace: &Workspace, apps: &[&Package]) -> Result<()> {
    let flags = remap_flags(workspace);
    for app in apps {
        let status = metadata::cargo()
            .current_dir(&workspace.workspace_root)
            .env("CARGO_ENCODED_RUSTFLAGS", &flags)
            .args(["build", "--quiet", "--profile", PROFILE, "--target", TARGET, "--package", &app.name])
            .status()
            .context("cargo build does not start")?;
        ensure!(
            status.success(),
            "{} does not compile (see above); is the target installed? `rustup target add {TARGET}`",
            app.name
        );
    }
    Ok(())
}

/// Compiler flags that replace the paths of this machine in panic messages, in cargo's encoding (separated by 0x1f).
///
/// The last matching prefix wins, so a target folder inside the checkout is named the same as one outside.
fn remap_flags(workspace: &Workspace) -> OsString {
    let cargo_home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cargo")))
        .unwrap_or_default();
    let prefixes = [
        (cargo_home.as_path(), "/cargo"),
        (workspace.workspace_root.as_path(), "/locara"),
        (workspace.target_directory.as_path(), "/target"),
    ];
    let mut flags = OsString::new();
    for (prefix, name) in prefixes.iter().filter(|(prefix, _)| !prefix.as_os_str().is_empty()) {
        if !flags.is_empty() {
            flags.push("\x1f");
        }
        flags.push("--remap-path-prefix=");
        flags.push(prefix);
        flags.push("=");
        flags.push(name);
    }
    flags
}

#[cfg(test)]
mod tests {
    use locara_manifest::Manifest;

    use super::*;

    #[test]
    fn every_app_has_a_good_manifest() {
        let workspace = metadata::read().expect("cargo metadata runs in tests");
        let apps = select(&workspace, &[]).expect("all of them");
        assert!(apps.iter().any(|app| app.name == "summarize"));
        for app in apps {
            let path = app.folder().join(MANIFEST);
            let text = fs_err::read_to_string(&path).expect("it is there");
            if let Err(diagnosis) = Manifest::parse(&path.display().to_string(), text) {
                panic!("{}: {diagnosis:#?}", path.display());
            }
        }
    }

    #[test]
    fn an_app_imports_what_it_uses_and_nothing_that_it_would_have_to_be_granted() {
        let workspace = metadata::read().expect("cargo metadata runs in tests");
        let apps = select(&workspace, &["summarize"]).expect("it is there");
        compile(&workspace, &apps).expect("it compiles");
        let packed = &pack(&workspace, &apps).expect("it packs")[0].1;
        let uses = ["output", "log", "inference", "budget", "progress", "types"];
        for import in &packed.imports {
            let name = import.trim_start_matches("locara:app/").trim_end_matches("@0.1.0");
            assert!(uses.contains(&name), "summarize imports {import}; all of them: {:?}", packed.imports);
        }
    }

    #[test]
    fn an_unknown_app_is_refused_with_the_names_of_all() {
        let workspace = metadata::read().expect("cargo metadata runs in tests");
        let error = select(&workspace, &["summarise"]).expect_err("British spelling").to_string();
        assert!(
            error.starts_with("no app is called `summarise`; there are: ") && error.contains("summarize"),
            "{error}"
        );
    }
}
