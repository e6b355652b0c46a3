//! The command line, as types. Nothing here does anything.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueHint};

/// Exit codes, as `--help` and the README show them.
const EXIT_CODES: &str = "Exit codes: 0 done · 1 could not be done · 2 wrong command line · 3 not granted · \
                          4 does not fit into memory · 5 the app was stopped · 70 a fault in Locara";

/// Local models for sandboxed apps.
#[derive(Debug, Parser)]
#[command(name = "locara", version, about, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Print JSON instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve models over HTTP until stopped: OpenAI, Anthropic and Ollama clients work against it
    Serve(ServeArgs),
    /// Make, list or remove API keys of the HTTP interface
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Run an installed app
    Run(RunArgs),
    /// Install an app from a packed folder
    Install(InstallArgs),
    /// List installed apps
    List,
    /// Show, give or take back what an app may do
    Grants(GrantsArgs),
    /// Check a manifest and report every problem in it
    Check {
        /// A locara.json, or the folder it is in
        #[arg(value_hint = ValueHint::AnyPath, default_value = ".")]
        path: PathBuf,
    },
    /// Turn a built Wasm module and its manifest into an app folder that can be installed
    Pack(PackArgs),
    /// Say how much memory a model takes and whether it fits
    Plan(PlanArgs),
    /// Show what running hosts hold, for whom, and why they decided what they decided
    Memory(MemoryArgs),
    /// Show the machine, the engine and the defaults derived from them
    Doctor,
    /// Show versions of the host, the engine and the app interface
    Version,
    /// Open a model in this process and report (the host calls it for files that it has never opened)
    #[command(hide = true)]
    Probe {
        /// A GGUF file
        path: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// A GGUF file that every role resolves to; the embedded model if absent
    #[arg(long, value_name = "FILE", env = "LOCARA_MODEL", value_hint = ValueHint::FilePath)]
    pub(crate) model: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The app's id or name
    pub(crate) app: String,
    /// A file that the app reads as its input; standard input if absent and not a terminal
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) input: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Leave out the card with tokens, times and memory at the end
    #[arg(long)]
    pub(crate) no_card: bool,
    /// Arguments for the app
    #[arg(last = true, value_name = "ARGUMENTS")]
    pub(crate) arguments: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Address and port; `[server] listen` of locara.toml if absent, 127.0.0.1:11434 if that is absent too
    #[arg(long, value_name = "ADDRESS:PORT", env = "LOCARA_LISTEN")]
    pub(crate) listen: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key and show it, this once; from then on every request needs one
    Add {
        /// What the client is called in accounts and logs
        name: String,
        /// What it opens (repeatable): inference, models, admin
        #[arg(long, value_name = "SCOPE", default_value = "inference", value_parser = ["inference", "models", "admin"])]
        scope: Vec<String>,
    },
    /// List keys: names and what they open
    List,
    /// Remove a key
    Rm {
        /// Its name
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct MemoryArgs {
    /// Show it again every second until interrupted
    #[arg(long, short)]
    pub(crate) watch: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    /// The folder with locara.json and the component
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) folder: PathBuf,
    /// Grant everything that the manifest asks
    #[arg(long, short, conflicts_with = "grant")]
    pub(crate) yes: bool,
    /// Grant this and nothing else, e.g. `model:default`, `folder:~/Documents:read` (repeatable)
    #[arg(long, value_name = "GRANT")]
    pub(crate) grant: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct GrantsArgs {
    /// The app's id or name; all apps if absent
    pub(crate) app: Option<String>,
    /// Give this grant (repeatable)
    #[arg(long, value_name = "GRANT", requires = "app")]
    pub(crate) add: Vec<String>,
    /// Take this grant back (repeatable)
    #[arg(long, value_name = "GRANT", requires = "app")]
    pub(crate) revoke: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PackArgs {
    /// The folder with locara.json
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) folder: PathBuf,
    /// The .wasm module or component that the build made
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) wasm: PathBuf,
    /// Where the app folder is written
    #[arg(long, short, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// A GGUF file, or the name, role or digest of a model; what plays `default` if absent
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) model: Option<String>,
    /// Tokens of context
    #[arg(long, short, value_name = "TOKENS")]
    pub(crate) context: Option<u32>,
    /// Conversations at once
    #[arg(long, short, value_name = "N")]
    pub(crate) sequences: Option<u32>,
    /// KV type of keys and values: q8_0, f16, …
    #[arg(long, value_name = "TYPE")]
    pub(crate) kv: Option<String>,
    /// A named machine instead of this one (repeatable; `all` for the whole list)
    #[arg(long, value_name = "NAME")]
    pub(crate) machine: Vec<String>,
}
