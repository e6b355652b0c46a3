//! `locara pull`: a model from a hub, with a bar, resumable.

use std::sync::Arc;

use locara_models::{Hub, HubOptions, PullError, PullSpec, Pulled};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    import::{chats, crown},
    progress::Bar,
    role,
};
use crate::{
    cli::PullArgs,
    exit::Exit,
    failure::Failure,
    host::{self, Host, Wanted},
    paths::Paths,
    print, serve,
};

pub(super) fn run(args: &PullArgs, as_json: bool) -> Result<Exit, Failure> {
    let paths = Paths::find()?;
    let failed = |error: PullError| failure(&args.model, error);
    let spec: PullSpec = args.model.parse().map_err(failed)?;
    let roles = args.role.iter().map(|word| role::role_of(word)).collect::<Result<Vec<_>, _>>()?;
    let config = serve::read_config(&paths)?;
    let library = Arc::new(host::library(&paths)?);
    let hub = Hub::new(HubOptions::usual(|name| std::env::var_os(name), &config.models.hub)).map_err(failed)?;
    let runtime = host::runtime()?;
    let cancel = CancellationToken::new();
    let pulled = runtime.block_on(async {
        let stopper = cancel.clone();
        let asked = host::asked_to_stop();
        tokio::spawn(async move {
            asked.await;
            stopper.cancel();
        });
        // Who sees it may press Ctrl-C.
        let bar = Bar::new(&args.model, as_json);
        library.pull(&hub, &spec, &|progress| bar.show(progress), &cancel).await
    });
    runtime.shutdown_background();
    let pulled = pulled.map_err(failed)?;
    for role in &roles {
        role::give(&library, role, pulled.name.as_str())?;
    }
    let located = library.resolve(pulled.digest.as_str()).map_err(role::refused("open what was pulled"))?;
    let crowned = chats(&located.file.path) && crown(&library, pulled.name.as_str())?;
    said(&paths, &pulled, crowned, as_json)
}

fn said(paths: &Paths, pulled: &Pulled, crowned: bool, as_json: bool) -> Result<Exit, Failure> {
    let Pulled { digest, name, bytes, known } = pulled;
    if as_json {
        print::json(&json!({"name": name.as_str(), "digest": digest.as_str(), "bytes": bytes, "known": known,
            "default": crowned}));
        return Ok(Exit::Success);
    }
    let came = if *known { "was here already" } else { "is here" };
    print::say!("{name} {came}: {}, SHA-256 {digest}", print::size(*bytes));
    // What it takes is what the person wants to know next; a file that cannot be planned says so when it is loaded.
    let host = Host::idle(paths)?;
    let found = host.locate(&Wanted::named(digest.as_str())).ok().and_then(|located| host.plan(located).ok());
    let judged = found.and_then(|found| {
        locara_policy::verdict::judge(&found.shape, &found.request, host.machine(), host::available_now()).ok()
    });
    if let Some((_, verdict)) = judged {
        print::say!("{verdict}");
    }
    if !crowned {
        print::note(&format!(
            "`locara chat {name}` talks to it, `locara role set default {name}` makes it the usual one"
        ));
    }
    Ok(Exit::Success)
}

fn failure(asked: &str, error: PullError) -> Failure {
    let stopped = matches!(error, PullError::Cancelled);
    let failure = Failure::new(Exit::Failure, format!("{asked} was not pulled")).because(error);
    if stopped { failure.help(format!("what came is kept: `locara pull {asked}` goes on from there")) } else { failure }
}
