//! Models: listed, imported, named, checked and removed.

use fs_err as fs;
use insta::assert_snapshot;
use locara_e2e::TestContext;
use locara_zoo::{Arch, Spec};

/// Somebody with a model file in a folder.
pub(crate) fn with_file() -> TestContext {
    let context = TestContext::new();
    locara_zoo::write(&Spec::tiny(Arch::Llama), context.path("llama.gguf")).unwrap();
    context
}

/// The list without what depends on the machine: what a model takes and how long its context is.
fn listed(context: &TestContext) -> String {
    let text = context.run(["models"]);
    text.assert_code(0);
    let json = context.run(["models", "--json"]).assert_code(0).json();
    let mut text = text.to_string();
    for model in json["models"].as_array().unwrap() {
        let Some(context) = model["context"].as_u64() else { continue };
        text = text.replace(&context.to_string(), "[N]");
    }
    let figures = regex::Regex::new(r"(?m)(\[N\] +)\S+ [kMG]B +(FIT|TIGHT)").unwrap();
    let text = figures.replace_all(&text, "[N] [BYTES] [FITS]");
    // Columns are as wide as their figures.
    regex::Regex::new(r"(\S)  +").unwrap().replace_all(&text, "$1  ").into_owned()
}

#[test]
fn somebody_new_is_told_where_models_come_from() {
    let context = TestContext::new();
    assert_snapshot!(listed(&context));
}

#[test]
fn a_file_is_imported_where_it_is_and_plays_default_because_nobody_does() {
    let context = with_file();
    assert_snapshot!("import", context.run(["import", "llama.gguf"]));
    assert_snapshot!("listed", listed(&context));
    assert_snapshot!("again", context.run(["import", "llama.gguf"]));
    let default = context.run(["plan"]).assert_code(0).stdout.clone();
    assert!(default.starts_with("llama  llama · "), "{default}");
    assert!(
        !context.state("models/blobs").exists()
            || fs::read_dir(context.state("models/blobs")).unwrap().next().is_none()
    );

    let json = context.run(["models", "--json"]).assert_code(0).json();
    let model = &json["models"][0];
    assert_eq!(model["name"], "llama");
    assert_eq!(model["words"], serde_json::json!(["default"]));
    assert_eq!(model["owned"], false);
    let plan = context.run(["plan", "llama", "--json"]).assert_code(0).json();
    assert_eq!(model["estimate_bytes"], plan["machines"][0]["plan"]["total"]);
    assert_eq!(model["context"], plan["machines"][0]["plan"]["n_ctx"]);
}

#[test]
fn what_cannot_be_imported_says_why() {
    let context = with_file();
    context.write("short.gguf", b"GGUF");
    let nowhere = context.run(["import", "nowhere.gguf"]);
    nowhere.assert_code(1).assert_says("cannot import nowhere.gguf").assert_says("is the volume attached?");
    let short = context.run(["import", "short.gguf"]);
    short.assert_code(1).assert_says("short was not imported").assert_says("short.gguf is no model that can be used");
    fs::create_dir(context.path("empty")).unwrap();
    context.run(["import", "empty"]).assert_code(1).assert_says("there is no GGUF file in");
    context.run(["import"]).assert_code(2);
    // What is wrong with one keeps no other out.
    let both = context.run(["import", "short.gguf", "llama.gguf", "--json"]);
    let json = both.assert_code(1).json();
    assert_eq!(json["imported"][0]["name"], "llama");
    assert_eq!(json["failed"][0]["name"], "short");
}

#[test]
fn models_of_other_programs_are_listed_before_anything_is_done() {
    let context = TestContext::new();
    let folder = context.home(".lmstudio/models/maker/tiny-GGUF");
    fs::create_dir_all(&folder).unwrap();
    locara_zoo::write(&Spec::tiny(Arch::Llama), folder.join("tiny-F32.gguf")).unwrap();
    assert_snapshot!("of-others", context.run(["import", "--from", "all"]));
    assert!(!context.state("registry.json").exists());
    assert_snapshot!("nothing", context.run(["import", "--from", "ollama"]));
    context.run(["import", "--from", "all", "other"]).assert_code(1).assert_says("no model `other` was found");
    let found = context.run(["import", "--from", "lm-studio", "--json"]).assert_code(0).json();
    let name = found["found"][0]["name"].as_str().unwrap().to_owned();
    context.run(["import", "--from", "lm-studio", &name]).assert_code(0);
    context.run(["import", "--from", "lm-studio"]).assert_code(0).assert_says("nothing of it is new");
    let models = context.run(["models", "--json"]).assert_code(0).json();
    assert_eq!(models["models"].as_array().unwrap().len(), 2, "{models}");
}

#[test]
fn roles_and_aliases() {
    let context = with_file();
    context.run(["import", "llama.gguf"]).assert_code(0);
    assert_snapshot!("set", context.run(["role", "set", "coding", "llama"]));
    assert_snapshot!("list", context.run(["role", "list"]));
    assert_snapshot!("alias", context.run(["alias", "set", "gpt-4o-mini", "coding"]));
    assert_snapshot!("aliases", context.run(["alias", "list"]));
    assert_snapshot!("unknown", context.run(["role", "set", "coding", "lama"]));
    assert_snapshot!("in-use", context.run(["rm", "llama"]));
    context.run(["role", "set", "Koding", "llama"]).assert_code(1).assert_says("`Koding` is no role");
    // A role that another one is named by cannot simply go: the alias would lead nowhere.
    context.run(["alias", "unset", "gpt-4o-mini"]).assert_code(0);
    context.run(["role", "unset", "coding"]).assert_code(0);
    context.run(["role", "unset", "coding"]).assert_code(1).assert_says("nobody plays the role `coding`");
    context.run(["alias", "unset", "gpt-4o-mini"]).assert_code(1).assert_says("there is no alias");
    let roles = context.run(["role", "list", "--json"]).assert_code(0).json();
    assert_eq!(roles["default"], "llama");
    assert_eq!(roles["coding"], serde_json::Value::Null);
}

#[test]
fn a_model_is_switched_off_and_on_and_forgotten() {
    let context = with_file();
    context.run(["import", "llama.gguf"]).assert_code(0);
    assert_snapshot!("disable", context.run(["disable", "llama"]));
    assert!(listed(&context).contains("disabled"));
    context.run(["plan", "llama"]).assert_code(1).assert_says("disabled");
    context.run(["enable", "llama"]).assert_code(0);
    context.run(["plan", "llama"]).assert_code(0);
    assert_snapshot!("rm", context.run(["rm", "llama", "--force"]));
    assert!(context.path("llama.gguf").exists(), "a file of the person stays");
    context.run(["rm", "llama"]).assert_code(1).assert_says("there is no model, alias or role");
    context.run(["rm", "locara-tiny"]).assert_code(1).assert_says("built into locara");
}

#[test]
fn a_file_that_changed_or_went_is_noticed_and_says_what_to_do() {
    let context = with_file();
    context.run(["import", "llama.gguf"]).assert_code(0);
    assert_snapshot!("verify", context.run(["verify", "llama"]));

    // A byte of the weights, not of the header.
    let mut bytes = fs::read(context.path("llama.gguf")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    context.write("llama.gguf", &bytes);
    context.run(["verify", "llama"]).assert_code(1).assert_says("is not the one that was imported");
    assert!(listed(&context).contains("changed"));

    fs::remove_file(context.path("llama.gguf")).unwrap();
    assert_snapshot!("gone", listed(&context));
    context.run(["verify", "llama"]).assert_code(1).assert_says("is not available");
}
