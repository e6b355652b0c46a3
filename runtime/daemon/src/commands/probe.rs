//! `locara probe`: the child process that opens a file nobody has opened before, and may die of it.

use std::path::Path;

use locara_engine::llama;

use crate::{
    exit::Exit,
    failure::{Failure, one_line},
    host, print,
};

pub(super) fn run(path: &Path) -> Result<Exit, Failure> {
    // One line: the parent reads the end of standard error.
    let fail = |error: &(dyn std::error::Error + 'static)| {
        anstream::eprintln!("{}", one_line(error));
        Ok(Exit::Failure)
    };
    let machine = host::machine()?;
    let gguf = match locara_gguf::Gguf::open(path) {
        Ok(gguf) => gguf,
        Err(error) => return fail(&error),
    };
    let shape = match locara_engine::shape::model_shape(&gguf) {
        Ok(shape) => shape,
        Err(error) => return fail(&error),
    };
    let derived = locara_policy::defaults::defaults(&machine, Some(&shape));
    match llama::probe(path, host::load_options(&derived.request(), derived.n_threads.value)) {
        Ok(report) => {
            let text = serde_json::to_string(&report)
                .map_err(|error| Failure::new(Exit::Internal, "cannot write the report").because(error))?;
            print::say!("{text}");
            Ok(Exit::Success)
        }
        Err(error) => fail(&error),
    }
}
