//! `locara run`: an app, its output as it streams, and the card at the end.

use std::{
    io::{IsTerminal, Write},
    path::Path,
    sync::Arc,
};

use locara_apps::{Input, Invocation, RunError, RunFailure, RunReport};
use locara_policy::governor::Class;
use serde_json::json;

use crate::{
    card::{Card, Swap},
    cli::RunArgs,
    exit::Exit,
    failure::{Failure, io},
    host::{self, Host, HostAsk, Loaded, Terms},
    installed::{self, InstalledApp},
    paths::Paths,
    print,
};

pub(super) fn run(args: RunArgs, as_json: bool) -> Result<Exit, Failure> {
    let paths = Paths::find()?;
    let app = installed::find(&paths, &args.app)?;
    let component = app.component()?;
    if let Some(model) = &args.model.model {
        // Loading says more, but only when the app asks for a model. A mistyped name is the person's and said at once.
        fs_err::File::open(model).map_err(|error| io("open the model", error))?;
    }
    let runtime = host::runtime()?;
    let exit = runtime.block_on(async {
        let swap = Swap::now();
        let ask = HostAsk {
            chosen: args.model.model.clone(),
            keep_loaded: app.manifest.models.iter().any(|model| model.keep_loaded.is_some()),
            command: format!("locara run {}", args.app),
            ..HostAsk::default()
        };
        let host = Host::start(&paths, ask)?;
        let apps = host::app_host(&paths, &host)?;
        let prepared = apps.prepare(component, &app.manifest, &app.grants).await.map_err(host::not_prepared)?;
        let (mut tenancy, lease) = host.tenants().admit(&terms(&app)).map_err(|refusal| {
            Failure::new(Exit::NoFit, format!("{} cannot start", app.manifest.title())).help(refusal.to_string())
        })?;
        let invocation = Invocation { arguments: args.arguments.clone(), input: input(args.input.as_deref())?, lease };
        let handle = apps.run(&prepared, invocation);
        let of_host = Arc::downgrade(&host);
        tenancy.began(handle.control(), move || {
            let loaded = of_host.upgrade().map(|host| host.loaded()).unwrap_or_default();
            loaded.first().map_or(0, Loaded::kv_per_cell)
        });
        let (outcome, output) = relay(handle, as_json).await?;
        drop(tenancy);
        let (report, failure) = match outcome {
            Ok(report) => (report, None),
            Err(RunFailure { error, report }) => (report, Some(error)),
        };
        let card = Card::new(&app, &host, &report, swap);
        if as_json {
            let error = failure.as_ref().map(ToString::to_string);
            print::json(&json!({"output": output, "error": error, "card": card, "report": report}));
            return Ok(failure.as_ref().map_or(Exit::Success, exit_of));
        }
        if let Some(error) = failure {
            return Err(explain(&app, &host, &error, &report));
        }
        if !args.no_card {
            card.print();
        }
        Ok(Exit::Success)
    });
    // Blocking reads of standard input cannot be cancelled; do not wait for them.
    runtime.shutdown_background();
    exit
}

/// What the app is promised: what its manifest declares, as far as the owner granted it.
fn terms(app: &InstalledApp) -> Terms {
    let ceiling = app.grants.within(&app.manifest).memory_bytes();
    Terms {
        app: app.manifest.id.as_str().to_owned(),
        floor: app.manifest.requires.floor_bytes().min(ceiling),
        ceiling,
        class: match app.manifest.class {
            locara_manifest::Class::Interactive => Class::Interactive,
            locara_manifest::Class::Batch => Class::Background,
        },
    }
}

fn input(file: Option<&Path>) -> Result<Input, Failure> {
    match file {
        Some(path) => {
            let file = fs_err::File::open(path).map_err(|error| io("read the input", error))?;
            Ok(Box::new(tokio::fs::File::from_std(file.into_parts().0)))
        }
        None if std::io::stdin().is_terminal() => Ok(Box::new(tokio::io::empty())),
        None => Ok(Box::new(tokio::io::stdin())),
    }
}

type Outcome = Result<RunReport, RunFailure>;

/// Passes on output, progress and log lines until the run has ended; Ctrl-C and SIGTERM stop it. Returns the output only
/// for `--json`.
async fn relay(mut handle: locara_apps::RunHandle, as_json: bool) -> Result<(Outcome, String), Failure> {
    let (stop, asked) = (handle.control(), host::asked_to_stop());
    let stopper = tokio::spawn(async move { stop.cancel(asked.await) });
    let show_progress = !as_json && std::io::stderr().is_terminal();
    let mut collected = Vec::new();
    let mut unread = false;
    let mut last = b'\n';
    loop {
        tokio::select! {
            chunk = handle.output.recv() => {
                let Some(chunk) = chunk else { break };
                if as_json {
                    collected.extend_from_slice(&chunk);
                    continue;
                }
                last = chunk.last().copied().unwrap_or(last);
                let mut out = std::io::stdout().lock();
                match out.write_all(&chunk).and_then(|()| out.flush()) {
                    Ok(()) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                        unread = true;
                        handle.cancel("nobody reads the output");
                    }
                    Err(error) => return Err(io("write the output", error)),
                }
            }
            Ok(()) = handle.progress.changed(), if show_progress => {
                let progress = handle.progress.borrow_and_update().clone();
                let percent = progress.fraction.map(|f| format!("{:>3.0} % ", f * 100.0)).unwrap_or_default();
                anstream::eprint!("\r\x1b[2K{}", print::dim(&format!("{percent}{}\n", progress.message)));
            }
        }
    }
    let outcome = match handle.outcome().await {
        // The reader had enough, as `head` does: that is no failure.
        Err(RunFailure { error: RunError::Cancelled { .. }, report }) if unread => Ok(report),
        outcome => outcome,
    };
    stopper.abort();
    // A person's prompt begins on a line of its own; a pipe gets what the app wrote and not a byte more.
    if last != b'\n' && std::io::stdout().is_terminal() {
        print::say!("");
    }
    Ok((outcome, String::from_utf8_lossy(&collected).into_owned()))
}

fn exit_of(error: &RunError) -> Exit {
    match error {
        RunError::App { .. } | RunError::Cancelled { .. } => Exit::Failure,
        RunError::Host { .. } => Exit::Internal,
        RunError::Full { .. } => Exit::NoFit,
        _ => Exit::AppStopped,
    }
}

fn explain(app: &InstalledApp, host: &Host, error: &RunError, report: &RunReport) -> Failure {
    let verb = if matches!(error, RunError::App { .. }) { "reports" } else { "was stopped" };
    let mut help = Vec::new();
    if let Some(detail) = host.load_failure() {
        help.push(format!("the model: {detail}"));
    }
    for denied in &report.denied {
        help.push(format!("it was refused {}: {}. {}", denied.capability, denied.reason, denied.remedy));
    }
    if let (false, Some(last)) = (matches!(error, RunError::App { .. }), report.logs.last()) {
        help.push(format!("its last log line: {}", last.message));
    }
    let failure = Failure::new(exit_of(error), format!("{} {verb}: {error}", app.manifest.title()));
    if help.is_empty() { failure } else { failure.help(help.join("\n")) }
}
