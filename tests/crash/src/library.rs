//! The registry, and imports into it.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use locara_manifest::Role;
use locara_models::{Library, ModelState, ModelStore, RegistryFile};
use locara_zoo::{Arch, Rng, Spec};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::{
    Broken, Scene,
    child::{Worker, moment, next_start},
};

/// Models that take turns in a role: more than two, so that one turn too few or too many shows.
const TURNS: usize = 4;
/// Models that are there to be imported: more than one run manages.
const MODELS: usize = 400;
/// A write takes a millisecond or less; some of them happen in this time.
const LONGEST: Duration = Duration::from_millis(60);

/// The library in a home, as the host has it.
pub(crate) fn library(home: &Path) -> Result<Library> {
    Ok(Library::new(ModelStore::open(home.join("models"))?, RegistryFile::new(home.join("registry.json"))))
}

/// Acknowledges.
pub(crate) fn say(n: usize) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{n}")?;
    Ok(out.flush()?)
}

/// Small models, `m0.gguf` and so on.
fn write_models(folder: &Path, n: usize) -> Result<()> {
    fs_err::create_dir_all(folder)?;
    for number in 0..n {
        let mut draft = locara_zoo::draft(&Spec::tiny(Arch::Llama))?;
        draft.key("test.number", u32::try_from(number)?);
        fs_err::write(path_of(folder, number), draft.to_bytes()?)?;
    }
    Ok(())
}

fn path_of(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("m{number}.gguf"))
}

fn import(library: &Library, path: &Path) -> Result<()> {
    let found = library.look_at(path)?;
    let found = found.first().with_context(|| format!("no model at {}", path.display()))?;
    library.import(found, &|_| {}, &CancellationToken::new())?;
    Ok(())
}

/// See [`crate::Work`].
#[derive(Debug, Args)]
pub(crate) struct Roles {
    /// The first turn
    #[arg(long)]
    from: usize,
    /// The home
    home: PathBuf,
}

impl Roles {
    /// Until it is killed.
    pub(crate) fn run(self) -> Result<()> {
        let (library, role) = (library(&self.home)?, role()?);
        for turn in self.from.. {
            library.set_role(&role, &format!("m{}", turn % TURNS))?;
            say(turn)?;
        }
        bail!("there are no more numbers")
    }
}

fn role() -> Result<Role> {
    Ok("coding".parse()?)
}

/// The old registry or the new one, never neither.
pub(crate) struct RoleScene {
    home: TempDir,
    turn: usize,
}

impl RoleScene {
    pub(crate) fn new() -> Result<Self> {
        let home = tempfile::tempdir()?;
        let files = home.path().join("files");
        write_models(&files, TURNS)?;
        let library = library(home.path())?;
        (0..TURNS).try_for_each(|number| import(&library, &path_of(&files, number)))?;
        Ok(Self { home, turn: 0 })
    }
}

impl Scene for RoleScene {
    fn name(&self) -> &'static str {
        "roles"
    }

    fn kill(&mut self, rng: &mut Rng) -> Result<Vec<Broken>> {
        let home = self.home.path();
        let worker = Worker::start(["roles", "--from", &(self.turn + 1).to_string()], home)?;
        let said = worker.kill(moment(rng, LONGEST))?;
        let registry = match RegistryFile::new(home.join("registry.json")).load() {
            Ok(registry) => registry,
            Err(error) => return Ok(vec![Broken::HalfWritten(format!("the registry: {error}"))]),
        };
        let holds = registry.roles.get(&role()?).map(ToString::to_string);
        let turn = [said, said + 1].into_iter().find(|turn| holds == Some(format!("m{}", turn % TURNS)));
        self.turn = turn.unwrap_or(said);
        let mut broken = next_start(home)?;
        if turn.is_none() {
            broken.push(Broken::Lost(format!("turn {said} was acknowledged and the role is played by {holds:?}")));
        }
        if registry.models.len() != TURNS {
            broken.push(Broken::Lost(format!("{} of {TURNS} models are left", registry.models.len())));
        }
        Ok(broken)
    }
}

/// See [`crate::Work`].
#[derive(Debug, Args)]
pub(crate) struct Imports {
    /// The home
    home: PathBuf,
}

impl Imports {
    /// Until it is killed.
    pub(crate) fn run(self) -> Result<()> {
        let library = library(&self.home)?;
        for number in 0..MODELS {
            import(&library, &path_of(&self.home.join("files"), number))?;
            say(number)?;
        }
        // All of them, before somebody killed it: then it waits for that.
        loop {
            std::thread::park();
        }
    }
}

/// Imported models are there and are what they are said to be.
pub(crate) struct ImportScene {
    home: TempDir,
}

impl ImportScene {
    pub(crate) fn new() -> Result<Self> {
        let home = tempfile::tempdir()?;
        write_models(&home.path().join("files"), MODELS)?;
        Ok(Self { home })
    }
}

impl Scene for ImportScene {
    fn name(&self) -> &'static str {
        "imports"
    }

    fn kill(&mut self, rng: &mut Rng) -> Result<Vec<Broken>> {
        let home = self.home.path();
        let worker = Worker::start(["imports"], home)?;
        let said = worker.kill(moment(rng, LONGEST))?;
        let library = library(home)?;
        let listed = match library.list() {
            Ok(listed) => listed,
            Err(error) => return Ok(vec![Broken::HalfWritten(format!("the registry: {error}"))]),
        };
        let mut broken = next_start(home)?;
        for number in 0..=said {
            let name = format!("m{number}");
            match listed.iter().find(|model| model.name.to_string() == name) {
                None => broken.push(Broken::Lost(format!("{name} was acknowledged and is not there"))),
                Some(model) if model.state != ModelState::Ready => {
                    broken.push(Broken::HalfWritten(format!("{name} is {:?}", model.state)));
                }
                Some(_) => {}
            }
        }
        // The last one at least is read whole and compared with its digest.
        if let Err(error) = library.verify(&format!("m{said}"), &|_| {}, &CancellationToken::new()) {
            broken.push(Broken::HalfWritten(format!("m{said}: {error}")));
        }
        let registry = RegistryFile::new(home.join("registry.json"));
        registry.update(|registry| {
            registry.models.clear();
            Ok::<_, locara_models::RegistryError>(())
        })?;
        Ok(broken)
    }
}
