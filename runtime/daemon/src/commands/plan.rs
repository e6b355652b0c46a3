//! `locara plan`: bytes by kind, and whether they fit here and elsewhere.

use std::path::{Path, PathBuf};

use comfy_table::{CellAlignment, Table, presets};
use locara_gguf::Gguf;
use locara_manifest::Role;
use locara_policy::{
    KvType, Plan, PlanRequest,
    defaults::{Defaults, defaults},
    machine::Machine,
    shape::ModelShape,
    verdict::{Fit, Verdict, judge},
};
use serde_json::json;

use crate::{
    cli::PlanArgs,
    exit::Exit,
    failure::Failure,
    host::{self, Host, Wanted},
    paths::Paths,
    print,
};

pub(super) fn run(args: &PlanArgs, as_json: bool) -> Result<Exit, Failure> {
    let (path, name) = model(args.model.as_deref())?;
    let shape = read_shape(&path)?;
    let here = host::machine()?;
    let machines = machines(&args.machine, &here)?;
    let kv = args.kv.as_deref().map(str::parse::<KvType>).transpose();
    let kv = kv.map_err(|error| Failure::new(Exit::Failure, error.to_string()))?;

    let mut results = Vec::new();
    for machine in &machines {
        let derived = defaults(machine, Some(&shape));
        let mut request = derived.request();
        request.n_ctx = args.context.unwrap_or(request.n_ctx);
        if let Some(sequences) = args.sequences {
            request.n_seq_max = sequences;
            request.n_outputs_max = sequences;
        }
        if let Some(kv) = kv {
            request.type_k = kv;
            request.type_v = kv;
            request.flash_attention |= kv.is_quantised();
        }
        let explain = |error| Failure::new(Exit::Failure, format!("cannot plan {}", path.display())).because(error);
        let available = if machine.name == here.name { host::available_now() } else { None };
        let (planned, verdict) = judge(&shape, &request, machine, available).map_err(explain)?;
        results.push((machine, derived, request, planned, verdict));
    }
    if as_json {
        let rows: Vec<_> = results
            .iter()
            .map(|(machine, derived, _, planned, verdict)| {
                json!({"machine": machine, "defaults": derived, "plan": planned, "verdict": verdict})
            })
            .collect();
        print::json(
            &json!({"model": name, "path": path, "shape": {"architecture": shape.architecture, "class": shape.class(),
            "parameters": shape.parameters, "layers": shape.n_layer(), "n_ctx_train": shape.n_ctx_train}, "machines": rows}),
        );
    } else {
        show(&name, &shape, &results, args);
    }
    // A survey of several machines has no single answer.
    let refused = matches!(results.as_slice(), [(.., verdict)] if verdict.fit == Fit::NoFit);
    Ok(if refused { Exit::NoFit } else { Exit::Success })
}

/// The file that is meant, and what it is called: a path that is there, or a word of the registry.
fn model(asked: Option<&str>) -> Result<(PathBuf, String), Failure> {
    if let Some(asked) = asked {
        let path = PathBuf::from(asked);
        if path.exists() || asked.ends_with(".gguf") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Ok((path, name));
        }
    }
    let host = Host::idle(&Paths::find()?)?;
    let located = host.locate(&Wanted::named(asked.unwrap_or(Role::DEFAULT))).map_err(host::no_model)?;
    Ok((located.file.path, located.file.name))
}

fn read_shape(path: &Path) -> Result<ModelShape, Failure> {
    let refused = || {
        Failure::new(Exit::Failure, format!("cannot plan {}", path.display()))
            .help("a GGUF file is wanted; `locara plan` without a file plans the embedded model")
    };
    let gguf = Gguf::open(path).map_err(|error| refused().because(error))?;
    // What would never load needs no plan.
    gguf.check_model().map_err(|error| refused().because(error))?;
    locara_engine::shape::model_shape(&gguf).map_err(|error| refused().because(error))
}

fn machines(wanted: &[String], here: &Machine) -> Result<Vec<Machine>, Failure> {
    if wanted.is_empty() {
        return Ok(vec![here.clone()]);
    }
    if wanted.iter().any(|name| name == "all") {
        return Ok(Machine::line_up());
    }
    wanted
        .iter()
        .map(|name| {
            Machine::named(name).ok_or_else(|| {
                let known: Vec<_> = Machine::line_up().into_iter().map(|machine| machine.name).collect();
                Failure::new(Exit::Failure, format!("no machine is called `{name}`"))
                    .help(format!("known are: all, {}", known.join(", ")))
            })
        })
        .collect()
}

type Row<'a> = (&'a Machine, Defaults, PlanRequest, Plan, Verdict);

/// A number of parameters as people say it: 1.24 billion, 7.3 million.
fn parameters(count: u64) -> String {
    let count = count as f64;
    if count < 1e9 { format!("{:.1} million", count / 1e6) } else { format!("{:.2} billion", count / 1e9) }
}

fn show(name: &str, shape: &ModelShape, results: &[Row<'_>], args: &PlanArgs) {
    print::heading(&format!(
        "{name}  {} · {} layers · {} parameters",
        shape.architecture,
        shape.n_layer(),
        parameters(shape.parameters),
    ));
    if let [(machine, derived, request, planned, verdict)] = results {
        print::say!(
            "{} tokens of context ({}), {} sequences, KV {}/{}\n",
            planned.n_ctx,
            if args.context.is_some() { "as asked" } else { &derived.n_ctx.why },
            request.n_seq_max,
            request.type_k,
            request.type_v
        );
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["kind", "bytes", "", "how"]);
        for item in &planned.items {
            let exact = if item.exact { "exact" } else { "estimate" };
            table.add_row([&item.label, &item.bytes.to_string(), exact, &item.derivation]);
        }
        table.add_row([
            "total",
            &planned.total.to_string(),
            "",
            &format!("{} file-backed, {} anonymous", planned.file_backed, planned.anonymous),
        ]);
        if let Some(column) = table.column_mut(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        print::table(&table);
        print::say!("\n{verdict}");
        if !args.machine.is_empty() {
            print::say!("{}", print::dim(&format!("({})", machine.description)));
        }
        return;
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["machine", "context", "total", "verdict"]);
    for (machine, _, _, planned, verdict) in results {
        table.add_row([&machine.name, &planned.n_ctx.to_string(), &planned.total.to_string(), &verdict.to_string()]);
    }
    print::table(&table);
}
