//! Which of the files of a repository is meant: `Q4_K_M` and the like.

use std::collections::BTreeMap;

use locara_manifest::Digest;

use super::{Pick, PullError};
use crate::{import::is_model_name, split::PartName};

/// The quantisation that a file's name ends with, in capitals: `Q4_K_M`, `UD-Q4_K_XL`, `IQ2_XXS`, `F16`, `MXFP4_MOE`.
/// `stem` is the name without `.gguf` and without the numbers of a part.
pub(crate) fn tag(stem: &str) -> Option<String> {
    // The longest ending that is a tag, so that `UD-` belongs to it.
    let starts =
        std::iter::once(0).chain(stem.char_indices().filter(|(_, c)| "-._/".contains(*c)).map(|(at, _)| at + 1));
    starts.map(|at| &stem[at..]).find(|ending| is_tag(ending)).map(str::to_ascii_uppercase)
}

fn is_tag(text: &str) -> bool {
    let upper = text.to_ascii_uppercase();
    let plain = upper.strip_prefix("UD-").unwrap_or(&upper);
    let words = |rest: &str| rest.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    if matches!(plain, "F16" | "F32" | "BF16" | "FP16" | "FP32" | "F64") {
        return true;
    }
    if let Some(rest) = plain.strip_prefix("MXFP4").or_else(|| plain.strip_prefix("NVFP4")) {
        return rest.is_empty() || rest.starts_with('_') && words(rest);
    }
    let number = ["IQ", "TQ", "Q"].iter().find_map(|kind| plain.strip_prefix(kind));
    number.is_some_and(|rest| {
        let mut rest = rest.chars();
        rest.next().is_some_and(|digit| digit.is_ascii_digit())
            && (rest.as_str().is_empty() || rest.as_str().starts_with('_') && words(rest.as_str()))
    })
}

/// What a file of a repository is called here: `org/name:TAG`, or `org/name/stem` where the file has no tag.
pub(crate) fn model_name(repository: &str, stem: &str) -> String {
    match tag(stem) {
        Some(tag) => format!("{repository}:{tag}"),
        None => format!("{repository}/{}", stem.rsplit('/').next().unwrap_or(stem)),
    }
}

/// A file of a repository, as the hub says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remote {
    /// Its path in the repository.
    pub(super) path: String,
    /// Its size in bytes.
    pub(super) bytes: Option<u64>,
    /// Its SHA-256.
    pub(super) sha256: Option<Digest>,
}

/// A model of a repository: one file, or all parts in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    /// The path without `.gguf` and without the numbers of a part.
    pub(super) stem: String,
    /// Its files.
    pub(super) files: Vec<Remote>,
    /// How many files it should have.
    count: u32,
}

impl Candidate {
    /// How a list of what there is calls it: the tag or the file, and the size.
    fn shown(&self) -> String {
        let name = tag(&self.stem).unwrap_or_else(|| format!("{}.gguf", self.stem));
        let bytes: u64 = self.files.iter().filter_map(|file| file.bytes).fold(0, u64::saturating_add);
        format!("{name} ({:.1} GB)", bytes as f64 / 1e9)
    }
}

/// Names that an error lists at most.
const MAX_LISTED: usize = 40;

/// The model that is meant.
pub(super) fn pick(repository: &str, files: Vec<Remote>, pick: &Pick) -> Result<Candidate, PullError> {
    let mut all = candidates(files);
    if all.is_empty() {
        return Err(PullError::NoModel { repository: repository.to_owned() });
    }
    let there = |all: &[Candidate]| all.iter().take(MAX_LISTED).map(Candidate::shown).collect();
    let missing = |all: &[Candidate], asked: &str| PullError::NoSuchFile {
        repository: repository.to_owned(),
        asked: asked.to_owned(),
        there: there(all),
    };
    let with_tag =
        |candidate: &Candidate, asked: &str| tag(&candidate.stem).is_some_and(|tag| tag.eq_ignore_ascii_case(asked));
    let (asked, mut chosen): (&str, Vec<Candidate>) = match pick {
        Pick::Default if all.len() == 1 => ("the only model", std::mem::take(&mut all)),
        Pick::Default => (Pick::DEFAULT, extract(&mut all, |one| with_tag(one, Pick::DEFAULT))),
        Pick::Quant(asked) => (asked, extract(&mut all, |one| with_tag(one, asked))),
        Pick::File(path) => (path, extract(&mut all, |one| one.files.iter().any(|file| file.path == *path))),
    };
    let model = match (chosen.pop(), chosen.is_empty()) {
        (Some(model), true) => model,
        (None, _) => return Err(missing(&all, asked)),
        (Some(last), false) => {
            let files = chosen.iter().chain([&last]).filter_map(|one| one.files.first()).map(|file| file.path.clone());
            let (repository, asked) = (repository.to_owned(), asked.to_owned());
            return Err(PullError::Ambiguous { repository, asked, files: files.take(MAX_LISTED).collect() });
        }
    };
    if model.files.len() != model.count as usize {
        let why = format!("{} of {} parts are there", model.files.len(), model.count);
        return Err(PullError::Incomplete { repository: repository.to_owned(), file: model.stem, why });
    }
    Ok(model)
}

fn extract(all: &mut Vec<Candidate>, wanted: impl Fn(&Candidate) -> bool) -> Vec<Candidate> {
    let (chosen, rest) = std::mem::take(all).into_iter().partition(wanted);
    *all = rest;
    chosen
}

/// The models among the files, by path.
fn candidates(files: Vec<Remote>) -> Vec<Candidate> {
    let mut all: BTreeMap<(String, u32), BTreeMap<u32, Remote>> = BTreeMap::new();
    for file in files {
        let (folder, name) =
            file.path.rsplit_once('/').map_or(("", file.path.as_str()), |(folder, name)| (folder, name));
        if !is_model_name(name) {
            continue;
        }
        let part = PartName::parse(name);
        let prefix = part.as_ref().map_or_else(|| name.trim_end_matches(".gguf"), |part| part.prefix.as_str());
        let stem = if folder.is_empty() { prefix.to_owned() } else { format!("{folder}/{prefix}") };
        let (number, count) = part.map_or((1, 1), |part| (part.number, part.count));
        all.entry((stem, count)).or_default().insert(number, file);
    }
    let candidate = |((stem, count), parts): ((String, u32), BTreeMap<u32, Remote>)| Candidate {
        stem,
        files: parts.into_values().collect(),
        count,
    };
    all.into_iter().map(candidate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_is_the_ending_that_names_a_quantisation() {
        for (stem, expected) in [
            ("Qwen2.5-7B-Instruct-Q4_K_M", Some("Q4_K_M")),
            ("qwen2.5-7b-instruct-q4_k_m", Some("Q4_K_M")),
            ("gemma-3-27b-it-UD-Q4_K_XL", Some("UD-Q4_K_XL")),
            ("model.IQ2_XXS", Some("IQ2_XXS")),
            ("gpt-oss-20b-mxfp4", Some("MXFP4")),
            ("gpt-oss-20b-MXFP4_MOE", Some("MXFP4_MOE")),
            ("bge-small-en-v1.5-f16", Some("F16")),
            ("Q8_0/model-Q8_0", Some("Q8_0")),
            ("Q8_0", Some("Q8_0")),
            ("Qwen2.5-7B-Instruct", None),
            ("model-Q", None),
            ("model-Q4K", None),
            ("Q4_K_M-of-something", None),
            ("", None),
        ] {
            assert_eq!(tag(stem).as_deref(), expected, "{stem}");
        }
        assert_eq!(model_name("org/name", "sub/name-Q8_0"), "org/name:Q8_0");
        assert_eq!(model_name("org/name", "sub/other"), "org/name/other");
    }

    fn remote(path: &str) -> Remote {
        Remote { path: path.to_owned(), bytes: Some(2_500_000_000), sha256: None }
    }

    fn picked(files: &[&str], wanted: Pick) -> Result<Vec<String>, String> {
        let model = pick("org/name", files.iter().map(|path| remote(path)).collect(), &wanted);
        model.map(|model| model.files.into_iter().map(|file| file.path).collect()).map_err(|error| error.to_string())
    }

    const USUAL: [&str; 6] =
        ["README.md", "m-Q4_K_M.gguf", "m-Q8_0.gguf", "m-UD-Q4_K_M.gguf", "mmproj-m-F16.gguf", "m-imatrix.gguf"];

    #[test]
    fn the_usual_one_the_named_one_or_the_only_one() {
        assert_eq!(picked(&USUAL, Pick::Default).unwrap(), ["m-Q4_K_M.gguf"]);
        assert_eq!(picked(&USUAL, Pick::Quant("q8_0".into())).unwrap(), ["m-Q8_0.gguf"]);
        assert_eq!(picked(&USUAL, Pick::Quant("UD-Q4_K_M".into())).unwrap(), ["m-UD-Q4_K_M.gguf"]);
        assert_eq!(picked(&USUAL, Pick::File("m-Q8_0.gguf".into())).unwrap(), ["m-Q8_0.gguf"]);
        assert_eq!(picked(&["only-F16.gguf", "x.txt"], Pick::Default).unwrap(), ["only-F16.gguf"]);
    }

    #[test]
    fn parts_come_together_and_in_order_whichever_is_named() {
        let files =
            ["Q8_0/m-Q8_0-00002-of-00003.gguf", "Q8_0/m-Q8_0-00001-of-00003.gguf", "Q8_0/m-Q8_0-00003-of-00003.gguf"];
        let order = [files[1], files[0], files[2]];
        assert_eq!(picked(&files, Pick::Quant("Q8_0".into())).unwrap(), order);
        assert_eq!(picked(&files, Pick::File(files[2].into())).unwrap(), order);
        let error = picked(&files[..2], Pick::Default).unwrap_err();
        assert!(error.contains("2 of 3 parts are there"), "{error}");
    }

    #[test]
    fn what_is_not_there_is_answered_with_what_is() {
        let error = picked(&USUAL, Pick::Quant("Q5_K_M".into())).unwrap_err();
        assert_eq!(error, "org/name has no Q5_K_M; there are: Q4_K_M (2.5 GB), Q8_0 (2.5 GB), UD-Q4_K_M (2.5 GB)");
        let error = picked(&["a-Q8_0.gguf", "b.gguf"], Pick::Default).unwrap_err();
        assert_eq!(error, "org/name has no Q4_K_M; there are: Q8_0 (2.5 GB), b.gguf (2.5 GB)");
        let error = picked(&["x/a-Q8_0.gguf", "y/b-Q8_0.gguf"], Pick::Quant("Q8_0".into())).unwrap_err();
        assert!(error.contains("name one of them: x/a-Q8_0.gguf, y/b-Q8_0.gguf"), "{error}");
        assert!(picked(&["model.safetensors"], Pick::Default).unwrap_err().contains("no GGUF file"));
    }
}
