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
    /// Talk to a model of the running host; answers once if something is piped in
    Chat(ChatArgs),
    /// Run an installed app
    Run(RunArgs),
    /// List models: size, context, memory, whether they fit here, and what they are for
    Models,
    /// Download a model
    Pull(PullArgs),
    /// Use model files that are on this machine already, where they are
    Import(ImportArgs),
    /// Read every byte of a model and compare it with what it was
    Verify {
        /// A name, role, alias or digest
        model: String,
    },
    /// Forget a model, and delete its files if they were downloaded
    Rm(RmArgs),
    /// Say which model plays which role
    Role {
        #[command(subcommand)]
        command: RoleCommand,
    },
    /// Give models second names
    Alias {
        #[command(subcommand)]
        command: AliasCommand,
    },
    /// Let a model be used again
    Enable {
        /// A name, alias or digest
        model: String,
    },
    /// Keep a model from being used; its files stay
    Disable {
        /// A name, alias or digest
        model: String,
    },
    /// Say how much memory a model takes and whether it fits
    Plan(PlanArgs),
    /// Serve models over HTTP until stopped: OpenAI, Anthropic and Ollama clients work against it
    Serve(ServeArgs),
    /// Start the host at login, look after it, read what it wrote
    Service {
        #[command(subcommand)]
        command: ServiceCommand,
    },
    /// Show what the running host has in memory
    Ps,
    /// Take a model out of the memory of the running host
    Stop {
        /// A name, role, alias or digest
        model: String,
    },
    /// Measure how fast the running host answers
    Bench(BenchArgs),
    /// Show what running hosts hold, for whom, and why they decided what they decided
    Memory(MemoryArgs),
    /// Show what the service wrote
    Logs(LogsArgs),
    /// Make, list or remove API keys of the HTTP interface
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
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
    /// Show the machine, the engine and the defaults derived from them, and what is wrong
    Doctor(DoctorArgs),
    /// Print completions for a shell
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Write man pages into a folder
    Man {
        /// Where they go, one file for each command
        #[arg(value_hint = ValueHint::DirPath)]
        folder: PathBuf,
    },
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
pub(crate) struct ChatArgs {
    /// A name, role, alias or digest
    #[arg(default_value = locara_manifest::Role::DEFAULT)]
    pub(crate) model: String,
    /// What the model is told before the conversation
    #[arg(long, short, value_name = "TEXT")]
    pub(crate) system: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// A name, role, alias or digest
    #[arg(default_value = locara_manifest::Role::DEFAULT)]
    pub(crate) model: String,
    /// Requests that are measured, one after the other
    #[arg(long, short = 'n', value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) requests: u32,
    /// Words of each prompt
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) words: u32,
    /// Tokens of each answer at most
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    pub(crate) tokens: u32,
}

#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// org/name, org/name:Q4_K_M, org/name/file.gguf, or an address
    pub(crate) model: String,
    /// Give it this role too (repeatable)
    #[arg(long, value_name = "ROLE")]
    pub(crate) role: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// GGUF files and folders; with --from, names of what is found there
    #[arg(value_hint = ValueHint::AnyPath, required_unless_present = "from")]
    pub(crate) what: Vec<String>,
    /// Look where another program keeps its models, and in the folders of locara.toml
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) from: Option<Origin>,
    /// Import all that is found without asking
    #[arg(long, short)]
    pub(crate) yes: bool,
}

/// Whose models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Origin {
    /// Ollama's store
    Ollama,
    /// LM Studio's folder
    LmStudio,
    /// The cache of Hugging Face's libraries
    HuggingFace,
    /// The cache of llama.cpp
    #[value(name = "llama.cpp")]
    LlamaCpp,
    /// All of these
    All,
}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// A name, alias or digest
    pub(crate) model: String,
    /// Also when roles or aliases lead to it; they go too
    #[arg(long, short)]
    pub(crate) force: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RoleCommand {
    /// Give a role to a model
    Set {
        /// default, coding, quickest, tool-calling, embedding, rerank, or one of your own
        role: String,
        /// A name, alias or digest
        model: String,
    },
    /// Take a role away
    Unset {
        /// The role
        role: String,
    },
    /// List roles and who plays them
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AliasCommand {
    /// Give a model a second name
    Set {
        /// The second name, e.g. gpt-4o-mini
        alias: String,
        /// A name, role, alias or digest
        model: String,
    },
    /// Take a second name away
    Unset {
        /// The second name
        alias: String,
    },
    /// List second names
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// Start the host at every login, and now
    Install {
        /// Write the file and leave it to you to enable it
        #[arg(long)]
        no_start: bool,
    },
    /// Stop the host and start it at login no more
    Uninstall,
    /// Start it
    Start,
    /// Stop it until the next login
    Stop,
    /// Show whether it is installed, whether it runs, and who listens on its port
    Status,
    /// Show what it wrote
    Logs(LogsArgs),
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Go on as more is written, until interrupted
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Lines from the end
    #[arg(long, short = 'n', value_name = "N", default_value_t = 100)]
    pub(crate) lines: u32,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Exit with 1 if anything is wrong
    #[arg(long)]
    pub(crate) strict: bool,
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
