//! Whether files are a model that the engine may see.

use std::path::{Path, PathBuf};

use locara_gguf::{Gguf, GgufError};

use super::ImportError;

/// Opens every file, and checks that the parts of a split model are parts of it, in order.
pub(crate) fn check(files: &[PathBuf]) -> Result<(), ImportError> {
    for (number, path) in (1..).zip(files) {
        let not = |source: GgufError| ImportError::NotAModel { path: path.clone(), source };
        let gguf = Gguf::open(path).map_err(not)?;
        let split = |key| gguf.u32(key).map_err(not);
        let (index, count) = (split("split.no")?, split("split.count")?);
        part(path, number, files.len() as u32, index, count)?;
        if number == 1 {
            let architecture = gguf.architecture().map_err(not)?;
            if architecture == "clip" {
                let what = "projector of images".to_owned();
                return Err(ImportError::NotText { path: path.clone(), what });
            }
        }
    }
    Ok(())
}

/// `index` counts from 0 in the file, `number` from 1 in its name.
fn part(path: &Path, number: u32, count: u32, index: Option<u32>, of: Option<u32>) -> Result<(), ImportError> {
    let found_count = of.unwrap_or(1).max(1);
    let found_number = index.unwrap_or(0).saturating_add(1);
    if (found_number, found_count) == (number, count) {
        return Ok(());
    }
    let (found, expected) = (format!("{found_number} of {found_count}"), format!("{number} of {count}"));
    Err(ImportError::WrongPart { path: path.to_owned(), found, expected })
}
