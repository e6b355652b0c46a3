//! `--model`: files that the host has never opened go through a child first.

use fs_err as fs;
use insta::assert_snapshot;
use locara_e2e::{Outcome, TestContext};
use locara_zoo::{Arch, Draft, Meta, Spec};

fn context() -> TestContext {
    let context = TestContext::with_apps(&["guest-neighbour"]);
    fs::create_dir(context.home("data")).unwrap();
    context
}

fn draft() -> Draft {
    locara_zoo::draft(&Spec::tiny(Arch::Llama)).unwrap()
}

fn ask(context: &TestContext, model: &str) -> Outcome {
    context.run_with_input(["run", "neighbour", "--json", "--model", model, "--", "ask", "8"], "hello")
}

/// Digests that the model store has seen opened without harm.
fn vetted(context: &TestContext) -> usize {
    let known = fs::read(context.state("models/known.json")).unwrap_or_default();
    let known: serde_json::Value = serde_json::from_slice(&known).unwrap_or_default();
    known["vetted"].as_object().map_or(0, serde_json::Map::len)
}

#[test]
fn an_unknown_file_is_probed_once_and_then_known() {
    let context = context();
    draft().save(context.path("zoo.gguf")).unwrap();
    assert_eq!(vetted(&context), 0);
    let first = ask(&context, "zoo.gguf").assert_code(0).json();
    assert!(first["card"]["model"].as_str().unwrap().starts_with("tiny-llama@"), "{first}");
    assert_eq!(vetted(&context), 1);

    let second = ask(&context, "zoo.gguf").assert_code(0).json();
    assert_eq!(second["output"], first["output"]);
    assert_eq!(vetted(&context), 1);

    // The environment names a model as well as the option does.
    let mut command = context.command(["run", "neighbour", "--json", "--", "ask", "8"]);
    let child = command.env("LOCARA_MODEL", "zoo.gguf").spawn().unwrap();
    let named = context.finish(child, Vec::new()).assert_code(0).json();
    assert_eq!(named["card"]["model"], first["card"]["model"]);
}

#[test]
fn a_model_that_is_not_there() {
    let context = context();
    assert_snapshot!(context.run(["run", "neighbour", "--model", "missing.gguf", "--", "ask"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
      × cannot open the model
      ╰─▶ failed to open file `missing.gguf`: No such file or directory (os error 2)
    ");
    context.write("short.gguf", [0x47; 64]);
    context.run(["run", "neighbour", "--model", "short.gguf", "--", "ask"]).assert_code(1).assert_says("GGUF");
}

/// The reader finds nothing wrong with it; llama.cpp does.
#[test]
fn a_file_that_llama_cpp_refuses() {
    let context = context();
    let mut bent = draft();
    let tensor = bent.tensors.iter_mut().find(|tensor| tensor.name == "blk.0.attn_q.weight").unwrap();
    tensor.dims[1] *= 2;
    bent.save(context.path("bent.gguf")).unwrap();
    context.run(["plan", "bent.gguf"]).assert_code(0);

    let refused = context.run_with_input(["run", "neighbour", "--model", "bent.gguf", "--", "ask"], "hello");
    refused.assert_code(1).assert_says("blk.0.attn_q.weight");
    assert_eq!(vetted(&context), 0, "a refused file is not trusted later");
    ask(&context, "bent.gguf").assert_code(1);
}

/// An assertion of llama.cpp ends a process: the child's, never the host's.
#[test]
fn a_file_that_makes_llama_cpp_abort() {
    let context = context();
    let mut bent = draft();
    // Three key-value heads cannot serve four heads. Every tensor agrees with the keys, and nobody asks until the graph
    // is built.
    bent.keys.iter_mut().find(|(key, _)| key == "llama.attention.head_count_kv").unwrap().1 = Meta::U32(3);
    for tensor in
        bent.tensors.iter_mut().filter(|t| t.name.ends_with("attn_k.weight") || t.name.ends_with("attn_v.weight"))
    {
        tensor.dims[1] = 3 * 32;
    }
    bent.save(context.path("bent.gguf")).unwrap();
    context.run(["plan", "bent.gguf"]).assert_code(0);

    let refused = context.run_with_input(["run", "neighbour", "--model", "bent.gguf", "--", "ask"], "hello");
    refused.assert_code(1).assert_says("the file makes llama.cpp crash (signal: 6 (SIGABRT)");
    assert_eq!(vetted(&context), 0, "a file that kills is not trusted later");
}
