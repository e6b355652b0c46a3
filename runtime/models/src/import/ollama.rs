//! What Ollama has: `manifests/HOST/NAMESPACE/MODEL/TAG` name layers, which are `blobs/sha256-…`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use locara_manifest::{Digest, SourceKind};
use serde::Deserialize;
use serde_json::Value;

use super::{Found, at_file};

/// Largest manifest or layer of text that is read, in bytes.
const MAX_TEXT: u64 = 1 << 20;
/// Manifests that are read.
const MAX_MANIFESTS: usize = 5000;
/// The host and the namespace that Ollama itself leaves out of a name.
const HOME: [&str; 2] = ["registry.ollama.ai", "library"];

/// What Ollama knows of a model beside the weights.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OllamaLayers {
    /// The chat template, in the language of Go's templates. The engine takes the one in the model file.
    pub template: Option<String>,
    /// The system prompt.
    pub system: Option<String>,
    /// Parameters by Ollama's names, such as `temperature`, `num_ctx` and `stop`.
    pub parameters: BTreeMap<String, Value>,
    /// Layers that are not used: adapters and projectors.
    pub unused: Vec<String>,
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: String,
}

/// The models of a folder of Ollama's. What cannot be read is left out.
pub(super) fn scan(folder: &Path) -> Vec<Found> {
    let manifests = folder.join("manifests");
    let mut all = Vec::new();
    for host in names_in(&manifests) {
        for namespace in names_in(&manifests.join(&host)) {
            for model in names_in(&manifests.join(&host).join(&namespace)) {
                for tag in names_in(&manifests.join(&host).join(&namespace).join(&model)) {
                    if all.len() == MAX_MANIFESTS {
                        return all;
                    }
                    let path: PathBuf =
                        [&host, &namespace, &model, &tag].iter().fold(manifests.clone(), |path, name| path.join(name));
                    let name = name_of(&host, &namespace, &model, &tag);
                    all.extend(read(&path).and_then(|manifest| found(folder, &name, &manifest)));
                }
            }
        }
    }
    all
}

/// What people type: `qwen2.5:7b`, `somebody/model:tag`, `hf.co/org/name:Q4_K_M`.
fn name_of(host: &str, namespace: &str, model: &str, tag: &str) -> String {
    match [host, namespace] {
        HOME => format!("{model}:{tag}"),
        [host, namespace] if host == HOME[0] => format!("{namespace}/{model}:{tag}"),
        _ => format!("{host}/{namespace}/{model}:{tag}"),
    }
}

fn found(folder: &Path, name: &str, manifest: &Manifest) -> Option<Found> {
    let kind = |layer: &Layer| layer.media_type.strip_prefix("application/vnd.ollama.image.").map(str::to_owned);
    // A digest is checked before it becomes a path.
    let digest = |layer: &Layer| layer.digest.strip_prefix("sha256:")?.parse::<Digest>().ok();
    let blob = |digest: &Digest| folder.join("blobs").join(format!("sha256-{digest}"));
    let model = manifest.layers.iter().find(|layer| kind(layer).as_deref() == Some("model"))?;
    let claimed = digest(model)?;
    let mut found = at_file(&blob(&claimed), SourceKind::Ollama, Some(name));
    let mut layers = OllamaLayers::default();
    for layer in &manifest.layers {
        let Some(kind) = kind(layer) else { continue };
        let text = || digest(layer).and_then(|digest| text_of(&blob(&digest)));
        match kind.as_str() {
            "template" => layers.template = text(),
            "system" => layers.system = text(),
            "params" => {
                layers.parameters = text().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
            }
            "adapter" | "projector" => layers.unused.push(kind),
            _ => {}
        }
    }
    found.claimed = Some(claimed);
    found.ollama = Some(layers);
    Some(found)
}

fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs_err::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}

fn read(path: &Path) -> Option<Manifest> {
    serde_json::from_str(&text_of(path)?).ok()
}

fn text_of(path: &Path) -> Option<String> {
    let metadata = fs_err::metadata(path).ok()?;
    (metadata.is_file() && metadata.len() <= MAX_TEXT).then(|| fs_err::read_to_string(path).ok())?
}
