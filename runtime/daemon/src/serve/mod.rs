//! `locara serve`: the host as a daemon, behind HTTP.
//!
//! Bind, assemble, preload, serve until asked to stop, drain. Which model serves which word is [`host`]'s,
//! what a request means is `locara_api`'s; here they are put together. This module must never answer a request itself.

mod edits;
mod facts;
mod http;
mod keys;
mod port;
mod pulls;

use std::{net::TcpListener, sync::Arc, time::Duration};

use locara_api::{Access, Api, Config as ApiConfig, Defaults};
use locara_engine::Sampling;
use locara_manifest::{CONFIG_FILE_NAME, Config, Role};
use locara_policy::governor::Class;

pub(crate) use self::{
    facts::quantization,
    keys::{Keys, scope},
    port::owner,
};
use crate::{
    cli::ServeArgs,
    exit::Exit,
    failure::{Failure, io},
    host::{self, Asker, Host, HostAsk, OwnerLimits, Wanted},
    paths::Paths,
    print,
};

/// After SIGTERM answers in flight may take so long to end.
const DRAIN: Duration = Duration::from_secs(30);

/// Serves until the process is asked to stop.
pub(crate) fn run(args: &ServeArgs) -> Result<Exit, Failure> {
    let paths = Paths::find()?;
    let config = read_config(&paths)?;
    let listen = args.listen.unwrap_or(config.server.listen);
    let keys = Keys::open(&paths)?;
    let api_config = api_config(&config, &keys);
    api_config.access.check_bind(listen).map_err(|error| {
        Failure::new(Exit::Failure, error.to_string()).help("`locara key add NAME` makes a key and shows it once")
    })?;
    // Before anything else: a second start must change nothing.
    let listener = TcpListener::bind(listen).map_err(|error| port::taken(listen, error))?;
    listener.set_nonblocking(true).map_err(|error| io("listen", error))?;
    let address = listener.local_addr().map_err(|error| io("listen", error))?;
    let runtime = host::runtime()?;
    runtime.block_on(async {
        let ask = HostAsk {
            chosen: args.model.model.clone(),
            max_sequences: config.interactive.max_sequences,
            owner: OwnerLimits {
                memory: config.memory,
                idle_unload_ms: Some(match config.idle.ttl_seconds {
                    0 => u64::MAX,
                    seconds => u64::from(seconds) * 1000,
                }),
            },
            command: "locara serve".to_owned(),
            ..HostAsk::default()
        };
        let host = Host::start(&paths, ask)?;
        let stop = tokio_util::sync::CancellationToken::new();
        let served = Arc::new(http::Served::new(host.clone(), config.models.hub.clone(), stop.clone()));
        let api = Api::new(served, api_config);
        let router = api.router();
        let listener = tokio::net::TcpListener::from_std(listener).map_err(|error| io("listen", error))?;
        let asked = host::asked_to_stop();
        print::note(&format!("Locara listens on http://{address}"));
        tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "serving");
        preload(&host, &config.preload);
        edits::follow(&host, api, &paths, config)?;
        let shutdown = {
            let stop = stop.clone();
            async move {
                let why = asked.await;
                tracing::info!(why, "no new requests; answers in flight may end");
                print::note(&format!("{why}; answers in flight may end"));
                stop.cancel();
            }
        };
        let serving = axum::serve(listener, router).with_graceful_shutdown(shutdown);
        let late = async {
            stop.cancelled().await;
            tokio::select! {
                () = tokio::time::sleep(DRAIN) => "answers took too long to end",
                why = host::asked_to_stop() => why,
            }
        };
        tokio::select! {
            ended = serving => ended.map_err(|error| io("serve", error))?,
            why = late => print::note(&format!("stopped without waiting: {why}")),
        }
        host.shut_down().await;
        Ok(Exit::Success)
    })
}

/// `locara.toml`, or its defaults where there is none.
pub(crate) fn read_config(paths: &Paths) -> Result<Config, Failure> {
    let path = paths.config();
    match fs_err::read(&path) {
        Ok(text) => Config::parse(&path.display().to_string(), text)
            .map_err(|diagnosis| Failure::report(Exit::Failure, diagnosis)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Config::default()),
        Err(error) => Err(io("read the configuration", error).help(format!("{CONFIG_FILE_NAME} is optional"))),
    }
}

/// The HTTP layer's settings from the owner's.
fn api_config(config: &Config, keys: &Keys) -> ApiConfig {
    let base = Defaults::default();
    let wanted = &config.defaults.sampling;
    let sampling = Sampling {
        temperature: wanted.temperature.unwrap_or(base.sampling.temperature),
        top_p: wanted.top_p.unwrap_or(base.sampling.top_p),
        top_k: wanted.top_k.unwrap_or(base.sampling.top_k),
        min_p: wanted.min_p.unwrap_or(base.sampling.min_p),
        repeat_penalty: wanted.repeat_penalty.unwrap_or(base.sampling.repeat_penalty),
        frequency_penalty: wanted.frequency_penalty.unwrap_or(base.sampling.frequency_penalty),
        presence_penalty: wanted.presence_penalty.unwrap_or(base.sampling.presence_penalty),
        ..base.sampling.clone()
    };
    let defaults = Defaults {
        sampling,
        max_tokens: config.defaults.max_tokens.unwrap_or(base.max_tokens),
        max_tokens_cap: config.defaults.max_tokens_hard.unwrap_or(base.max_tokens_cap),
        thinking_tokens: config.defaults.thinking_budget,
    };
    let access = Access {
        hosts: config.server.allowed_hosts.clone(),
        origins: config.server.allowed_origins.iter().map(ToString::to_string).collect(),
        keys: keys.for_http(),
    };
    ApiConfig {
        defaults,
        access,
        max_body_bytes: usize::try_from(config.server.request_max_bytes).unwrap_or(usize::MAX),
        log_prompts: config.log.prompts,
        ..ApiConfig::default()
    }
}

/// Loads what the owner wants to be there before it is asked for. A model that does not load is said and waited for by nobody.
fn preload(host: &Arc<Host>, roles: &[Role]) {
    for role in roles {
        let (host, role) = (host.clone(), role.as_str().to_owned());
        tokio::spawn(async move {
            let asker = Asker { app: String::new(), class: Class::Background };
            if let Err(error) = host.engine(Wanted::named(&role), asker).await {
                print::note(&format!("preload of `{role}`: {error}"));
            }
        });
    }
}
