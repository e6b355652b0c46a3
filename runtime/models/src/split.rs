//! Models in several files: `name-00001-of-00003.gguf`. The engine opens the first one and finds the others by their names.

use std::path::{Path, PathBuf};

/// Parts that a model has at most.
pub(crate) const MAX_PARTS: u32 = 1024;

/// What the name of a part says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PartName {
    /// What stands before the numbers.
    pub(crate) prefix: String,
    /// Which part it is, from 1.
    pub(crate) number: u32,
    /// How many there are.
    pub(crate) count: u32,
}

impl PartName {
    /// Reads a file name. `None` is "not a part of a split model".
    pub(crate) fn parse(file_name: &str) -> Option<Self> {
        let stem = file_name.strip_suffix(".gguf")?;
        let (rest, count) = stem.rsplit_once("-of-")?;
        let (prefix, number) = rest.rsplit_once('-')?;
        let digits = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
        let figure = |text: &str| if digits(text) { text.parse::<u32>().ok() } else { None };
        let (number, count) = (figure(number)?, figure(count)?);
        ((1..=count).contains(&number) && count <= MAX_PARTS).then(|| Self { prefix: prefix.to_owned(), number, count })
    }

    /// The name of another part of the same model.
    pub(crate) fn sibling(&self, number: u32) -> String {
        part_name(&self.prefix, number, self.count)
    }
}

/// The name of part `number` of `count`, as llama.cpp looks for it.
pub(crate) fn part_name(prefix: &str, number: u32, count: u32) -> String {
    format!("{prefix}-{number:05}-of-{count:05}.gguf")
}

/// All files of the model that `path` belongs to, in order, whether they are there or not: `path` alone if it is not split.
pub(crate) fn parts_of(path: &Path) -> Vec<PathBuf> {
    let part = path.file_name().and_then(|name| name.to_str()).and_then(PartName::parse);
    match part {
        Some(part) => (1..=part.count).map(|number| path.with_file_name(part.sibling(number))).collect(),
        None => vec![path.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_names_that_llama_cpp_writes_and_no_others() {
        let part = PartName::parse("big-model-00002-of-00003.gguf").unwrap();
        assert_eq!((part.prefix.as_str(), part.number, part.count), ("big-model", 2, 3));
        assert_eq!(part.sibling(1), "big-model-00001-of-00003.gguf");
        for other in [
            "big.gguf",
            "big-00004-of-00003.gguf",
            "big-00000-of-00003.gguf",
            "big-1-of-3.gguf",
            "big-00001-of-99999.gguf",
            "big-00001-of-00003.bin",
            "00001-of-00003.gguf",
            "big-+0001-of-00003.gguf",
        ] {
            assert_eq!(PartName::parse(other), None, "{other}");
        }
    }
}
