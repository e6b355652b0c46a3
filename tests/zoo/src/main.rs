//! `zoo`: writes synthetic models from the command line.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use locara_zoo::{Arch, Quant, Spec, catalogue, draft, find};

/// Writes synthetic GGUF models with random weights.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "A name of `zoo list` in place of the command writes that model: zoo tiny-llama OUT.gguf"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Names, classes and sizes of the models that have a name.
    List,
    /// Writes the files that must be refused to a folder, each as NAME.gguf.
    Broken {
        /// The folder; it is made if it is not there.
        folder: PathBuf,
    },
    /// Writes small files of every kind, right and wrong, to a folder: where a fuzzer starts.
    Corpus {
        /// The folder; it is made if it is not there.
        folder: PathBuf,
    },
    /// A model of any shape; what is not given is as in the tiny model of the architecture.
    Custom(Custom),
    /// The model of this name: NAME OUT [--sparse]
    #[command(external_subcommand)]
    Named(Vec<String>),
}

#[derive(Debug, Args)]
struct Custom {
    /// Where to write it.
    out: PathBuf,
    /// Architecture, e.g. llama, qwen3moe, gemma3, mamba2.
    #[arg(long)]
    arch: Arch,
    /// Layers.
    #[arg(long)]
    layers: Option<u32>,
    /// Width of the residual stream.
    #[arg(long)]
    embd: Option<u32>,
    /// Attention heads.
    #[arg(long)]
    heads: Option<u32>,
    /// Key-value heads.
    #[arg(long)]
    kv_heads: Option<u32>,
    /// Width of a head.
    #[arg(long)]
    head_dim: Option<u32>,
    /// Width of the feed-forward layer.
    #[arg(long)]
    ff: Option<u32>,
    /// Tokens of the vocabulary.
    #[arg(long)]
    vocab: Option<u32>,
    /// Trained context, tokens.
    #[arg(long)]
    ctx: Option<u32>,
    /// Experts of a feed-forward layer.
    #[arg(long)]
    experts: Option<u32>,
    /// Experts that work on a token.
    #[arg(long)]
    experts_used: Option<u32>,
    /// Width of an expert.
    #[arg(long)]
    expert_ff: Option<u32>,
    /// Sliding window, tokens.
    #[arg(long)]
    window: Option<u32>,
    /// Number formats: f32, f16, bf16, q4_0, q8_0, q4_k_m.
    #[arg(long)]
    quant: Option<Quant>,
    /// A separate output matrix.
    #[arg(long)]
    untied: bool,
    /// Seed of the weights.
    #[arg(long)]
    seed: Option<u64>,
    /// Leave the weights as a hole: zero, and no space on the disk.
    #[arg(long)]
    sparse: bool,
}

impl Custom {
    fn spec(&self) -> Spec {
        let tiny = Spec::tiny(self.arch);
        Spec {
            name: format!("zoo-{}", self.arch),
            layers: self.layers.unwrap_or(tiny.layers),
            embd: self.embd.unwrap_or(tiny.embd),
            heads: self.heads.unwrap_or(tiny.heads),
            kv_heads: self.kv_heads.unwrap_or(tiny.kv_heads),
            head_dim: self.head_dim.unwrap_or(tiny.head_dim),
            ff: self.ff.unwrap_or(tiny.ff),
            vocab: self.vocab.unwrap_or(tiny.vocab),
            ctx: self.ctx.unwrap_or(tiny.ctx),
            experts: self.experts.unwrap_or(tiny.experts),
            experts_used: self.experts_used.unwrap_or(tiny.experts_used),
            expert_ff: self.expert_ff.unwrap_or(tiny.expert_ff),
            window: self.window.unwrap_or(tiny.window),
            quant: self.quant.unwrap_or(tiny.quant),
            tied: tiny.tied && !self.untied,
            seed: self.seed.unwrap_or(tiny.seed),
            ..tiny
        }
    }
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::List => list(),
        Command::Broken { folder } => write_broken(&folder),
        Command::Corpus { folder } => write_corpus(&folder),
        Command::Custom(custom) => save(&custom.spec(), &custom.out, custom.sparse),
        Command::Named(args) => named(&args),
    }
}

fn list() -> anyhow::Result<()> {
    for entry in catalogue() {
        let (_, bytes) = locara_zoo::header(&entry.spec)?;
        println!("{:<20} {:<14} {:>13} bytes  {:?}", entry.name, entry.spec.arch, bytes, entry.class);
    }
    Ok(())
}

fn write_broken(folder: &std::path::Path) -> anyhow::Result<()> {
    fs_err::create_dir_all(folder)?;
    for broken in locara_zoo::broken() {
        fs_err::write(folder.join(format!("{}.gguf", broken.name)), &broken.file)?;
    }
    Ok(())
}

/// Files above this size slow a fuzzer down more than they teach it, bytes.
const CORPUS_LIMIT: usize = 16 << 10;

fn write_corpus(folder: &std::path::Path) -> anyhow::Result<()> {
    fs_err::create_dir_all(folder)?;
    fs_err::write(folder.join("one-of-each"), locara_zoo::one_of_each().to_bytes()?)?;
    for broken in locara_zoo::broken().into_iter().filter(|broken| broken.file.len() <= CORPUS_LIMIT) {
        fs_err::write(folder.join(broken.name), &broken.file)?;
    }
    for arch in [Arch::Qwen3Moe, Arch::Gemma4, Arch::Jamba, Arch::Bert] {
        let tiny = Spec::tiny(arch);
        let spec = Spec { layers: 4, vocab: tiny.tokenizer().least(), ..tiny };
        fs_err::write(folder.join(format!("header-{arch}")), draft(&spec)?.header()?)?;
    }
    Ok(())
}

fn named(args: &[String]) -> anyhow::Result<()> {
    let (name, out, sparse) = match args {
        [name, out] => (name, out, false),
        [name, out, flag] if flag == "--sparse" => (name, out, true),
        _ => anyhow::bail!("expected NAME OUT [--sparse], got {args:?}"),
    };
    let entry = find(name).with_context(|| format!("no model {name:?}; `zoo list` shows them"))?;
    save(&entry.spec, out.as_ref(), sparse)
}

fn save(spec: &Spec, out: &std::path::Path, sparse: bool) -> anyhow::Result<()> {
    let draft = draft(spec)?;
    if sparse { draft.save_sparse(out) } else { draft.save(out) }?;
    println!("{}: {} bytes", out.display(), fs_err::metadata(out)?.len());
    Ok(())
}
