//! Which of the files of a repository is meant: `Q4_K_M` and the like.

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
}
