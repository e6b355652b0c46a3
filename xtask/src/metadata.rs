//! The few facts of `cargo metadata` that the chores need.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

/// `cargo metadata --no-deps`: our packages only.
#[derive(Debug, Deserialize)]
pub(crate) struct Workspace {
    pub(crate) packages: Vec<Package>,
    pub(crate) workspace_root: PathBuf,
    pub(crate) target_directory: PathBuf,
}

/// One package of the workspace.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
}

/// One line of a package's dependencies.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `None` for a normal dependency, else `dev` or `build`.
    pub(crate) kind: Option<String>,
}

impl Package {
    /// The folder of the package.
    pub(crate) fn folder(&self) -> &Path {
        self.manifest_path.parent().expect("cargo gives the absolute path of a Cargo.toml")
    }
}

/// Runs `cargo metadata` on the workspace that this program belongs to.
pub(crate) fn read() -> Result<Workspace> {
    // Of the run, not of the build: checkouts that share a target folder share this binary too.
    let folder = std::env::var_os("CARGO_MANIFEST_DIR").context("start it with `cargo xtask`")?;
    let output = cargo()
        .args(["metadata", "--no-deps", "--format-version=1", "--manifest-path"])
        .arg(Path::new(&folder).join("../Cargo.toml"))
        .output()
        .context("cargo metadata does not start")?;
    ensure!(output.status.success(), "cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("cargo metadata is not what we know")
}

/// The cargo that runs this program, so that the tool chain stays the same.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
