//! Edits of `locara.toml` and `registry.json` while the host runs: what is good holds from then on, what is bad is said and
//! changes nothing. Running answers and resident models are not touched.

use std::sync::Arc;

use locara_api::Api;
use locara_manifest::Config;
use locara_models::{Update, Watcher};

use super::{Keys, api_config};
use crate::{
    exit::Exit,
    failure::{Failure, io},
    host::Host,
    paths::Paths,
    print,
};

/// Follows both files until the task is dropped. `config` is what the host was started with.
pub(super) fn follow(host: &Arc<Host>, api: Api, paths: &Paths, config: Config) -> Result<(), Failure> {
    let registry_file = host.library().registry();
    let registry = registry_file
        .load()
        .map_err(|error| Failure::new(Exit::Failure, "the registry cannot be read").because(error))?;
    registry_file.hold(registry.clone());
    for file in [paths.config(), paths.registry()] {
        let folder = file.parent().map_or_else(|| Ok(()), fs_err::create_dir_all);
        folder.map_err(|error| io("make a folder", error))?;
    }
    let mut before = config.clone();
    let mut watcher = match Watcher::new(&paths.config(), &paths.registry(), (config, registry)) {
        Ok(watcher) => watcher,
        Err(error) => {
            print::note(&crate::failure::one_line(&error));
            return Ok(());
        }
    };
    let (host, paths) = (host.clone(), paths.clone());
    tokio::spawn(async move {
        while let Some(update) = watcher.next().await {
            match update {
                Update::Registry(registry) => {
                    host.library().registry().hold(*registry);
                    host.forget_contexts();
                    print::note("registry.json was changed; it holds from now on");
                }
                Update::Config(config) => {
                    let keys = match Keys::open(&paths) {
                        Ok(keys) => keys,
                        Err(failure) => {
                            print::failure(&failure);
                            continue;
                        }
                    };
                    api.reconfigure(api_config(&config, &keys));
                    print::note("locara.toml was changed; it holds from now on");
                    if config.server.listen != before.server.listen || config.memory != before.memory {
                        print::note("`listen` and `[memory]` count at the next start of `locara serve`");
                    }
                    before = *config;
                }
                Update::Rejected { path, why } => {
                    let what = format!("{} does not count; what it said before holds on", path.display());
                    print::failure(&match why {
                        locara_models::Rejection::Invalid(diagnosis) => Failure::report(Exit::Failure, *diagnosis),
                        other => Failure::new(Exit::Failure, what).because(other),
                    });
                }
            }
        }
    });
    Ok(())
}
