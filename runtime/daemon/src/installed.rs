//! Installed apps on disk: one folder each, named by the app's id, with manifest, component and grants.
//!
//! A folder under its final name is whole: it is filled under a temporary name, synced, and renamed.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use locara_manifest::{Grants, Manifest};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::{
    exit::Exit,
    failure::{Failure, io},
    paths::Paths,
};

const MANIFEST: &str = "locara.json";
const COMPONENT: &str = "app.wasm";
const GRANTS: &str = "grants.json";

/// One installed app.
#[derive(Debug, Clone)]
pub(crate) struct InstalledApp {
    /// Its manifest as installed.
    pub(crate) manifest: Manifest,
    /// What the owner allowed.
    pub(crate) grants: Grants,
    folder: PathBuf,
}

impl InstalledApp {
    /// The bytes of the component; checked against the manifest's digest.
    pub(crate) fn component(&self) -> Result<Vec<u8>, Failure> {
        let path = self.folder.join(COMPONENT);
        let bytes = fs_err::read(&path).map_err(|error| io("read the installed component", error))?;
        check_digest(&self.manifest, &path, &bytes)?;
        Ok(bytes)
    }

    /// Replaces the grants on disk.
    pub(crate) fn save_grants(&self) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(&self.grants)
            .map_err(|error| Failure::new(Exit::Internal, "cannot write the grants").because(error))?;
        write_synced(&self.folder.join(".grants.tmp"), &text)
            .and_then(|()| fs_err::rename(self.folder.join(".grants.tmp"), self.folder.join(GRANTS)))
            .map_err(|error| io("write the grants", error))
    }
}

/// All installed apps, sorted by id. A folder that does not read well is reported on standard error and left out.
pub(crate) fn all(paths: &Paths) -> Result<Vec<InstalledApp>, Failure> {
    let entries = match fs_err::read_dir(paths.apps()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io("list the installed apps", error)),
    };
    let mut apps = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| io("list the installed apps", error))?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        match load(&entry.path()) {
            Ok(app) => apps.push(app),
            Err(failure) => crate::print::failure(&failure),
        }
    }
    apps.sort_by(|a, b| a.manifest.id.as_str().cmp(b.manifest.id.as_str()));
    Ok(apps)
}

/// The app that a person means: its id, its name, or the last part of its id.
pub(crate) fn find(paths: &Paths, wanted: &str) -> Result<InstalledApp, Failure> {
    let apps = all(paths)?;
    let matches = |app: &&InstalledApp| {
        let id = app.manifest.id.as_str();
        id == wanted || app.manifest.name.eq_ignore_ascii_case(wanted) || id.rsplit('.').next() == Some(wanted)
    };
    let found: Vec<&InstalledApp> = apps.iter().filter(matches).collect();
    match found.as_slice() {
        [app] => Ok((*app).clone()),
        [] => {
            let known: Vec<&str> = apps.iter().map(|app| app.manifest.id.as_str()).collect();
            let help = if known.is_empty() {
                "no app is installed; `locara install FOLDER` installs one".to_owned()
            } else {
                format!("installed are: {}", known.join(", "))
            };
            Err(Failure::new(Exit::Failure, format!("no installed app is called `{wanted}`")).help(help))
        }
        several => {
            let ids: Vec<&str> = several.iter().map(|app| app.manifest.id.as_str()).collect();
            Err(Failure::new(Exit::Failure, format!("`{wanted}` can mean {} apps", ids.len()))
                .help(format!("use the whole id: {}", ids.join(", "))))
        }
    }
}

/// Reads a manifest from a file or from the folder it is in.
pub(crate) fn read_manifest(path: &Path) -> Result<(PathBuf, Manifest), Failure> {
    let (file, text) = manifest_text(path)?;
    let manifest = Manifest::parse(&file.display().to_string(), text)
        .map_err(|diagnosis| Failure::report(Exit::Failure, diagnosis))?;
    Ok((file, manifest))
}

/// The manifest as it was written, from a file or from the folder it is in.
pub(crate) fn manifest_text(path: &Path) -> Result<(PathBuf, Vec<u8>), Failure> {
    let file = if path.is_dir() { path.join(MANIFEST) } else { path.to_owned() };
    let text = fs_err::read(&file)
        .map_err(|error| io("read the manifest", error).help("name a locara.json or the folder it is in"))?;
    Ok((file, text))
}

/// The component that a packed folder holds, checked against the manifest's digest.
pub(crate) fn read_packed(folder: &Path) -> Result<(Manifest, Vec<u8>), Failure> {
    let (file, manifest) = read_manifest(folder)?;
    manifest.require_digest().map_err(|error| Failure::new(Exit::Failure, error.to_string()))?;
    let path = file.parent().unwrap_or(Path::new(".")).join(manifest.component.path.as_str());
    let bytes = fs_err::read(&path)
        .map_err(|error| io("read the component", error).help("pack the app again with `locara pack`"))?;
    check_digest(&manifest, &path, &bytes)?;
    Ok((manifest, bytes))
}

fn check_digest(manifest: &Manifest, path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let wanted = manifest.require_digest().map_err(|error| Failure::new(Exit::Failure, error.to_string()))?;
    let found = locara_pack::sha256(bytes);
    if wanted.as_str() == found {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Failure,
        format!(
            "{} is not the component that its manifest names: its SHA-256 is {found}, the manifest says {}",
            path.display(),
            wanted.as_str()
        ),
    )
    .help("pack the app again with `locara pack`, or get it again from where it came from"))
}

/// Installs or replaces an app.
pub(crate) fn save(paths: &Paths, manifest: &Manifest, component: &[u8], grants: &Grants) -> Result<(), Failure> {
    let apps = paths.apps();
    let id = manifest.id.as_str();
    let (fresh, old) = (apps.join(format!(".{id}.new")), apps.join(format!(".{id}.old")));
    let write = || -> std::io::Result<()> {
        let _ = fs_err::remove_dir_all(&fresh);
        let _ = fs_err::remove_dir_all(&old);
        fs_err::create_dir_all(&fresh)?;
        write_synced(&fresh.join(COMPONENT), component)?;
        write_synced(&fresh.join(MANIFEST), manifest.to_json().as_bytes())?;
        write_synced(&fresh.join(GRANTS), &serde_json::to_vec_pretty(grants)?)?;
        put(&fresh, &apps.join(id), &old)?;
        fs_err::File::open(&apps)?.sync_all()
    };
    write().map_err(|error| io("install the app", error))
}

/// Gives the folder `fresh` the name `place`. Where there is one already the two change names in one step, so that at no
/// moment the app is gone.
fn put(fresh: &Path, place: &Path, old: &Path) -> std::io::Result<()> {
    if !place.exists() {
        return fs_err::rename(fresh, place);
    }
    if renameat_with(CWD, fresh, CWD, place, RenameFlags::EXCHANGE).is_ok() {
        // What stays behind is removed by the next update.
        let _ = fs_err::remove_dir_all(fresh);
        return Ok(());
    }
    // Some network file systems cannot do that.
    fs_err::rename(place, old)?;
    fs_err::rename(fresh, place)?;
    let _ = fs_err::remove_dir_all(old);
    Ok(())
}

fn load(folder: &Path) -> Result<InstalledApp, Failure> {
    let (_, manifest) = read_manifest(folder)?;
    let text = fs_err::read(folder.join(GRANTS)).map_err(|error| io("read the grants", error))?;
    let grants = serde_json::from_slice(&text).map_err(|error| {
        Failure::new(Exit::Failure, format!("the grants of {} are damaged", manifest.id.as_str()))
            .because(error)
            .help("install the app again to grant anew")
    })?;
    Ok(InstalledApp { manifest, grants, folder: folder.to_owned() })
}

fn write_synced(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut file = fs_err::File::create(path)?;
    file.write_all(content)?;
    file.sync_all()
}
