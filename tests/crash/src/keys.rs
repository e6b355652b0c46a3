//! API keys, made on the command line.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use locara_zoo::Rng;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Broken, Scene,
    child::{locara, moment, next_start, run},
};

/// A killed `locara key add` has made its key or has not, and takes no other along.
pub(crate) struct KeyScene {
    home: TempDir,
    names: Vec<String>,
    /// What one takes when nobody disturbs it.
    whole: Duration,
    tried: usize,
}

impl KeyScene {
    pub(crate) fn new() -> Result<Self> {
        let home = tempfile::tempdir()?;
        let started = Instant::now();
        let output = run(home.path(), &["key", "add", "first"])?;
        ensure!(output.status.success(), "locara key add: {}", String::from_utf8_lossy(&output.stderr));
        Ok(Self { home, names: vec!["first".to_owned()], whole: started.elapsed(), tried: 0 })
    }

    fn listed(&self) -> Result<Result<Vec<String>, String>> {
        let output = run(self.home.path(), &["key", "list", "--json"])?;
        if !output.status.success() {
            return Ok(Err(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        let keys: Value = serde_json::from_slice(&output.stdout)?;
        let keys = keys["keys"].as_array().context("no list of keys")?;
        Ok(Ok(keys.iter().filter_map(|key| key["name"].as_str().map(str::to_owned)).collect()))
    }
}

impl Scene for KeyScene {
    fn name(&self) -> &'static str {
        "keys"
    }

    fn kill(&mut self, rng: &mut Rng) -> Result<Vec<Broken>> {
        self.tried += 1;
        let name = format!("key-{}", self.tried);
        let mut command = locara(self.home.path())?;
        let mut child = command.args(["key", "add", &name]).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        std::thread::sleep(moment(rng, self.whole));
        child.kill()?;
        let made = child.wait()?.success();
        let listed = match self.listed()? {
            Ok(listed) => listed,
            Err(error) => return Ok(vec![Broken::HalfWritten(format!("the keys: {error}"))]),
        };
        let mut broken = next_start(self.home.path())?;
        let there = listed.contains(&name);
        if made && !there {
            broken.push(Broken::Lost(format!("{name} was acknowledged and is not there")));
        }
        if there {
            self.names.push(name);
        }
        if listed != self.names {
            broken.push(Broken::Lost(format!("the keys are {listed:?}, expected {:?}", self.names)));
        }
        Ok(broken)
    }
}
