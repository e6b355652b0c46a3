//! What other programs keep on a machine is found without reading it and used where it is.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::{collections::HashMap, ffi::OsString, os::unix::fs::symlink, path::Path, sync::Mutex};

use common::{digest, gguf, import, library, part, write};
use locara_manifest::SourceKind;
use locara_models::{Found, ImportError, Library, LibraryError, Places, Stage};
use tokio_util::sync::CancellationToken;

fn import_found(library: &Library, found: &Found) -> Result<locara_models::Imported, ImportError> {
    library.import(found, &|_| {}, &CancellationToken::new())
}

fn names(found: &[Found]) -> Vec<&str> {
    found.iter().map(|found| found.name.as_str()).collect()
}

/// A folder of Ollama's with one model of four layers.
fn ollama(folder: &Path, model: &[u8]) {
    let blob = |bytes: &[u8]| {
        let digest = digest(bytes);
        write(folder.join(format!("blobs/sha256-{digest}")), bytes);
        digest
    };
    let layers = [
        ("model", blob(model)),
        ("template", blob(b"{{ .Prompt }}")),
        ("system", blob(b"You are brief.")),
        ("params", blob(br#"{"temperature": 0.5, "stop": ["<|end|>"]}"#)),
        ("projector", blob(b"eyes")),
    ];
    let layers: Vec<String> = layers
        .iter()
        .map(|(kind, digest)| {
            format!(r#"{{"mediaType": "application/vnd.ollama.image.{kind}", "digest": "sha256:{digest}", "size": 1}}"#)
        })
        .collect();
    let manifest = format!(r#"{{"schemaVersion": 2, "layers": [{}]}}"#, layers.join(", "));
    for path in ["registry.ollama.ai/library/qwen2.5/7b", "registry.ollama.ai/me/mine/latest", "hf.co/org/repo/Q4_K_M"]
    {
        write(folder.join("manifests").join(path), &manifest);
    }
}

#[test]
fn ollama_has_models_with_templates_and_parameters() {
    let folder = tempfile::tempdir().unwrap();
    let library = library(folder.path());
    let ollama_folder = folder.path().join("ollama");
    ollama(&ollama_folder, &gguf(1));
    let manifests = ollama_folder.join("manifests/registry.ollama.ai/library");
    write(manifests.join("broken/latest"), "{");
    let climb =
        r#"{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:../../../etc/passwd"}]}"#;
    write(manifests.join("hostile/latest"), climb);

    let places = Places { ollama: vec![ollama_folder.clone()], ..Places::default() };
    let found = library.discover(&places).unwrap();
    // One blob under three names is one model with the first of them.
    assert_eq!(names(&found), ["hf.co/org/repo:Q4_K_M"]);
    fs_err::remove_dir_all(ollama_folder.join("manifests/hf.co")).unwrap();
    fs_err::remove_dir_all(ollama_folder.join("manifests/registry.ollama.ai/me")).unwrap();
    let found = library.discover(&places).unwrap();
    let [qwen] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(
        (qwen.name.as_str(), qwen.source.kind, qwen.bytes),
        ("qwen2.5:7b", SourceKind::Ollama, gguf(1).len() as u64)
    );
    let layers = qwen.ollama.as_ref().unwrap();
    assert_eq!(layers.template.as_deref(), Some("{{ .Prompt }}"));
    assert_eq!(layers.system.as_deref(), Some("You are brief."));
    assert_eq!(layers.parameters["temperature"], 0.5);
    assert_eq!(layers.unused, ["projector"]);
    assert_eq!(qwen.known, None);

    let imported = import_found(&library, qwen).unwrap();
    assert_eq!((imported.digest, imported.name.as_str(), imported.known), (digest(&gguf(1)), "qwen2.5:7b", false));
    assert_eq!(library.discover(&places).unwrap()[0].known.as_ref().unwrap().as_str(), "qwen2.5:7b");
    assert!(library.resolve("qwen2.5:7b").unwrap().file.path.starts_with(&ollama_folder), "and it was not copied");
}

/// A repository in the form of Hugging Face's cache.
fn hub_cache(cache: &Path, folder: &str, commit: &str, files: &[(&str, Vec<u8>)]) {
    for (file, bytes) in files {
        let digest = digest(bytes);
        let blob = write(cache.join(folder).join(format!("blobs/{digest}")), bytes);
        let link = cache.join(folder).join("snapshots").join(commit).join(file);
        fs_err::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(blob, link).unwrap();
    }
}

#[test]
fn the_cache_of_hugging_face_has_the_snapshot_that_main_names() {
    let folder = tempfile::tempdir().unwrap();
    let library = library(folder.path());
    let cache = folder.path().join("hub");
    let repository = "models--org--some-model-GGUF";
    hub_cache(&cache, repository, "aaaa", &[("some-model-Q4_K_M.gguf", gguf(1)), ("mmproj-f16.gguf", gguf(9))]);
    hub_cache(&cache, repository, "bbbb", &[("old-Q8_0.gguf", gguf(2))]);
    write(cache.join(repository).join("refs/main"), "aaaa");
    let split =
        [("Q8_0/big-Q8_0-00001-of-00002.gguf", part(3, 1, 2)), ("Q8_0/big-Q8_0-00002-of-00002.gguf", part(3, 2, 2))];
    hub_cache(&cache, "models--org--big", "cccc", &split);
    write(cache.join("models--org--weights-only/snapshots/dddd/model.safetensors"), "x");
    write(cache.join("datasets--org--texts/snapshots/eeee/model.gguf"), gguf(4));

    let found = library.discover(&Places { hugging_face: vec![cache.clone()], ..Places::default() }).unwrap();
    assert_eq!(names(&found), ["org/big:Q8_0", "org/some-model-GGUF:Q4_K_M"]);
    assert_eq!((found[0].files.len(), found[0].claimed.as_ref()), (2, None));
    assert_eq!(found[1].claimed, Some(digest(&gguf(1))));
    assert_eq!(found[1].source.revision.as_deref(), Some("aaaa"));
    for found in &found {
        import_found(&library, found).unwrap();
    }
    let located = library.resolve("org/big:Q8_0").unwrap();
    assert!(located.file.path.ends_with("big-Q8_0-00001-of-00002.gguf"), "by the name that the engine needs");

    // The program that owns the cache may clean it up at any time.
    fs_err::remove_dir_all(cache.join(repository).join("blobs")).unwrap();
    assert!(matches!(library.resolve("org/some-model-GGUF:Q4_K_M"), Err(LibraryError::Unavailable { .. })));
    library.resolve("org/big:Q8_0").unwrap();
}

#[test]
fn llama_cpp_has_two_forms_of_cache_in_one_folder() {
    let folder = tempfile::tempdir().unwrap();
    let library = library(folder.path());
    let cache = folder.path().join("llama.cpp");
    write(cache.join("org_repo_sub_model-Q4_K_M.gguf"), gguf(1));
    write(cache.join("org_repo_sub_model-Q4_K_M.gguf.json"), "{}");
    write(
        cache.join("manifest=org=repo=Q4_K_M.json"),
        format!(
            r#"{{"ggufFile": {{"rfilename": "sub/model-Q4_K_M.gguf", "size": 1, "lfs": {{"sha256": "{}"}}}}}}"#,
            digest(&gguf(1))
        ),
    );
    write(cache.join("manifest=org=gone=latest.json"), r#"{"ggufFile": {"rfilename": "gone.gguf"}}"#);
    write(cache.join("other_thing_model.gguf"), gguf(2));
    write(cache.join("unfinished.gguf.downloadInProgress"), "x");
    hub_cache(&cache, "models--new--form", "abcd", &[("form-Q8_0.gguf", gguf(3))]);

    let found = library.discover(&Places { llama_cpp: vec![cache], ..Places::default() }).unwrap();
    assert_eq!(names(&found), ["new/form:Q8_0", "org/repo:Q4_K_M", "other_thing_model"]);
    assert!(found.iter().all(|found| found.source.kind == SourceKind::LlamaCpp));
    assert_eq!(found[1].claimed, Some(digest(&gguf(1))));
    import_found(&library, &found[1]).unwrap();
}

#[test]
fn lm_studio_and_folders_of_the_owner_are_walked() {
    let folder = tempfile::tempdir().unwrap();
    let library = library(folder.path());
    let studio = folder.path().join("lmstudio");
    write(studio.join("bartowski/Qwen-GGUF/Qwen-Q4_K_M.gguf"), gguf(1));
    write(studio.join("bartowski/Qwen-GGUF/mmproj-Qwen-f16.gguf"), gguf(2));
    let own = folder.path().join("own");
    write(own.join("a b.gguf"), gguf(3));
    write(own.join("deep/er/c.gguf"), gguf(4));
    write(own.join("notes.txt"), "x");
    symlink(&own, own.join("circle")).unwrap();
    symlink(own.join("gone"), own.join("broken.gguf")).unwrap();
    let places = Places { lm_studio: vec![studio.clone()], folders: vec![own.clone(), studio], ..Places::default() };
    let found = library.discover(&places).unwrap();
    let unique: std::collections::BTreeSet<_> = found.iter().map(|found| found.name.as_str()).collect();
    assert!(unique.contains("a-b") && unique.contains("c"), "{unique:?}");
    assert!(unique.contains("bartowski/Qwen-GGUF:Q4_K_M"), "{unique:?}");
    assert!(unique.iter().all(|name| !name.contains("mmproj") && !name.contains("broken")), "{unique:?}");
    assert_eq!(import(&library, &own.join("a b.gguf")), "a-b");
}

#[test]
fn two_models_of_one_name_get_two_names() {
    let folder = tempfile::tempdir().unwrap();
    let library = library(folder.path());
    assert_eq!(import(&library, &write(folder.path().join("a/model.gguf"), gguf(1))), "model");
    let second = import(&library, &write(folder.path().join("b/model.gguf"), gguf(2)));
    assert_eq!(second, format!("model@{}", &digest(&gguf(2)).as_str()[..12]));
    assert_eq!(
        import(&library, &write(folder.path().join("c/coding.gguf"), gguf(3))).split('@').next(),
        Some("coding")
    );
}

#[test]
fn a_file_that_moved_keeps_its_name_and_settings() {
    let folder = tempfile::tempdir().unwrap();
    let library = library(folder.path());
    let old = write(folder.path().join("old/model.gguf"), gguf(1));
    import(&library, &old);
    library.set_role(&"default".parse().unwrap(), "model").unwrap();
    let new = folder.path().join("new-name.gguf");
    fs_err::rename(&old, &new).unwrap();
    assert_eq!(import(&library, &new), "model");
    assert_eq!(library.resolve("default").unwrap().file.path, new);
}

#[test]
fn what_is_no_model_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let library = library(folder.path());
    let found = library.look_at(&write(folder.path().join("page.gguf"), "<html>not found</html>")).unwrap();
    let error = import_found(&library, &found[0]).unwrap_err();
    assert!(matches!(error, ImportError::NotAModel { .. }), "{error}");
    assert!(matches!(library.look_at(Path::new("/nonexistent/model.gguf")), Err(ImportError::Missing(_))));
    let empty = folder.path().join("empty");
    fs_err::create_dir(&empty).unwrap();
    assert!(matches!(library.look_at(&empty), Err(ImportError::Empty(_))));
    assert!(library.registry().load().unwrap().models.is_empty());
}

#[test]
fn importing_tells_how_far_it_is_and_stops_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let library = library(folder.path());
    let found = library.look_at(&write(folder.path().join("model.gguf"), gguf(1))).unwrap();
    let cancelled = CancellationToken::new();
    cancelled.cancel();
    let error = library.import(&found[0], &|_| {}, &cancelled).unwrap_err();
    assert!(matches!(error, ImportError::Library(LibraryError::Cancelled)), "{error}");
    assert!(library.registry().load().unwrap().models.is_empty());

    let told = Mutex::new(Vec::new());
    library.import(&found[0], &|progress| told.lock().unwrap().push(progress), &CancellationToken::new()).unwrap();
    let last = *told.lock().unwrap().last().unwrap();
    assert_eq!((last.stage, last.done, last.total), (Stage::Verifying, gguf(1).len() as u64, gguf(1).len() as u64));
}

#[test]
fn variables_of_the_environment_name_the_places() {
    let places = |set: &[(&str, &str)]| {
        let set: HashMap<String, OsString> = set.iter().map(|(name, value)| (name.to_string(), value.into())).collect();
        Places::usual(|name| set.get(name).cloned(), [])
    };
    let usual = places(&[("HOME", "/home/me")]);
    assert_eq!(usual.ollama[0], Path::new("/home/me/.ollama/models"));
    assert_eq!(usual.hugging_face, [Path::new("/home/me/.cache/huggingface/hub")]);
    assert_eq!(usual.llama_cpp[0], Path::new("/home/me/.cache/llama.cpp"));
    assert_eq!(usual.lm_studio[0], Path::new("/home/me/.lmstudio/models"));
    let set = places(&[
        ("HOME", "/home/me"),
        ("OLLAMA_MODELS", "/o"),
        ("HF_HOME", "/h"),
        ("LLAMA_CACHE", "/l"),
        ("XDG_CACHE_HOME", ""),
    ]);
    assert_eq!((set.ollama, set.llama_cpp), (vec!["/o".into()], vec!["/l".into()]));
    assert_eq!(set.hugging_face, [Path::new("/h/hub")]);
    assert_eq!(places(&[]).hugging_face, Vec::<std::path::PathBuf>::new(), "nobody's home");
}
