//! `locara plan`: bytes by kind and verdicts.

use fs_err as fs;
use insta::assert_snapshot;
use locara_e2e::TestContext;
use locara_zoo::{Arch, Quant, Spec};

/// The shape of Llama 3.1 8B as Q4_K_M, without its vocabulary of 128k (which would only make the test slow). A file of
/// 4.5 GB that takes no space.
fn eight_billion(context: &TestContext) -> &'static str {
    let spec = Spec {
        name: "eight-billion".to_owned(),
        layers: 32,
        embd: 4096,
        heads: 32,
        kv_heads: 8,
        head_dim: 128,
        ff: 14_336,
        vocab: 4096,
        ctx: 131_072,
        quant: Quant::Q4KM,
        tied: false,
        ..Spec::tiny(Arch::Llama)
    };
    locara_zoo::draft(&spec).unwrap().save_sparse(context.path("8b.gguf")).unwrap();
    "8b.gguf"
}

#[test]
fn the_embedded_model_fits_here() {
    let context = TestContext::new();
    let planned = context.run(["plan"]);
    planned.assert_code(0);
    for kind in ["weights", "KV", "total"] {
        assert!(
            planned.stdout.lines().any(|line| line.trim_start().starts_with(kind)),
            "no line for {kind}: {planned}"
        );
    }
    assert!(planned.stdout.contains("on this machine: needs "), "{planned}");

    let json = context.run(["plan", "--json"]).assert_code(0).json();
    assert_eq!(json["shape"]["architecture"], "llama");
    let machine = &json["machines"][0];
    let bytes = |item: &serde_json::Value| item["bytes"].as_u64().unwrap();
    let items: u64 = machine["plan"]["items"].as_array().unwrap().iter().map(bytes).sum();
    assert_eq!(Some(items), machine["plan"]["total"].as_u64(), "the items make the total");
    assert_ne!(machine["verdict"]["fit"], "no-fit");
    assert!(machine["defaults"]["n_ctx"]["why"].is_string(), "{machine}");
}

#[test]
fn named_machines() {
    let context = TestContext::new();
    let model = eight_billion(&context);
    assert_snapshot!("plan-air-16", context.run(["plan", model, "--machine", "air-16"]));
    assert_snapshot!("plan-all", context.run(["plan", model, "--machine", "all"]));
    assert_snapshot!(context.run(["plan", model, "--machine", "air-17"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
      × no machine is called `air-17`
      help: known are: all, air-8, air-16, mbp-24, mbp-36, mac-64, studio-128
    ");
    let json = context.run(["plan", model, "--machine", "air-16", "--machine", "mac-64", "--json"]).json();
    let names: Vec<_> =
        json["machines"].as_array().unwrap().iter().map(|row| row["machine"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["air-16", "mac-64"]);
}

#[test]
fn what_does_not_fit_is_exit_4_with_ways_out() {
    let context = TestContext::new();
    let model = eight_billion(&context);
    assert_snapshot!("plan-too-long", context.run(["plan", model, "--machine", "air-16", "--context", "131072"]));
    let json =
        context.run(["plan", model, "--machine", "air-16", "--context", "131072", "--json"]).assert_code(4).json();
    let verdict = &json["machines"][0]["verdict"];
    assert_eq!(verdict["fit"], "no-fit");
    assert!(!verdict["ways_out"].as_array().unwrap().is_empty(), "{verdict}");
    // A way out is one: what it proposes fits.
    let context_way =
        verdict["ways_out"].as_array().unwrap().iter().find(|way| way["kind"] == "context").expect("a shorter context");
    let tokens = context_way["n_ctx"].to_string();
    context.run(["plan", model, "--machine", "air-16", "--context", &tokens]).assert_code(0);
}

#[test]
fn impossible_requests() {
    let context = TestContext::new();
    let model = eight_billion(&context);
    assert_snapshot!(context.run(["plan", model, "--machine", "air-16", "--kv", "q9"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
      × `q9` is not a KV type; use one of f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0, iq4_nl
    ");
    assert_snapshot!(context.run(["plan", model, "--machine", "air-16", "--context", "0"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
      × cannot plan 8b.gguf
      ╰─▶ n_ctx is 0; give the number of tokens or sequences that are really wanted
    ");
    assert_snapshot!(context.run(["plan", model, "--machine", "air-16", "--sequences", "0"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
      × cannot plan 8b.gguf
      ╰─▶ n_seq_max is 0; give the number of tokens or sequences that are really wanted
    ");
    context.run(["plan", model, "--context", "-1"]).assert_code(2);
}

#[test]
fn what_is_no_model_is_refused() {
    let context = TestContext::new();
    fs::create_dir(context.path("folder")).unwrap();
    context.write("short.gguf", [0x47; 64]);
    context.write("text.gguf", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n");
    assert_snapshot!(context.run(["plan", "short.gguf"]), @r#"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
      × cannot plan short.gguf
      ╰─▶ not a GGUF file: it starts with "GGGG" instead of "GGUF"
      help: a GGUF file is wanted; `locara plan` without a file plans the embedded model
    "#);
    assert_snapshot!(context.run(["plan", "text.gguf"]), @r#"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
      × cannot plan text.gguf
      ╰─▶ not a GGUF file: it starts with "vers" instead of "GGUF"; it looks like a Git LFS pointer:
          fetch the file that it stands for
      help: a GGUF file is wanted; `locara plan` without a file plans the embedded model
    "#);
    assert_snapshot!(context.run(["plan", "missing.gguf"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
      × cannot plan missing.gguf
      ├─▶ cannot open missing.gguf
      ╰─▶ failed to query resolved metadata `missing.gguf`: No such file or directory (os error 2)
      help: a GGUF file is wanted; `locara plan` without a file plans the embedded model
    ");
    assert_snapshot!(context.run(["plan", "folder"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
      × cannot plan folder
      ╰─▶ folder is not a regular file
      help: a GGUF file is wanted; `locara plan` without a file plans the embedded model
    ");
}

/// Every way to lie in a GGUF file: one message, on one file, and never a crash.
#[test]
fn every_broken_file_is_refused() {
    let context = TestContext::new();
    for broken in locara_zoo::broken() {
        context.write("broken.gguf", &broken.file);
        let refused = context.run(["plan", "broken.gguf"]);
        refused.assert_code(1).assert_says("cannot plan broken.gguf");
        assert!(!refused.stderr.contains("panicked") && refused.stdout.is_empty(), "{}: {refused}", broken.name);
        let json = context.run(["plan", "broken.gguf", "--json"]).assert_code(1).json();
        assert_eq!(json["error"]["code"], 1, "{}: {json}", broken.name);
    }
}
