//! Compiles the shim against the headers that `llama-cpp-sys-2` vendors.
//!
//! That crate (`links = "llama"`) exports only the folder of ggml's CMake package; the vendored tree is found through the
//! CMake cache beside it.

#![expect(clippy::disallowed_methods, reason = "a build script has no other crates")]

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=shim");
    println!("cargo:rerun-if-env-changed=DEP_LLAMA_GGML_CMAKE_DIR");
    let cmake_dir = PathBuf::from(std::env::var("DEP_LLAMA_GGML_CMAKE_DIR").expect("llama-cpp-sys-2 sets it"));
    let out = cmake_dir.ancestors().nth(2).expect("OUT_DIR/lib/cmake").to_path_buf();
    let cache = std::fs::read_to_string(out.join("build/CMakeCache.txt")).expect("the CMake cache of llama.cpp");
    let source = cache
        .lines()
        .find_map(|line| line.strip_prefix("CMAKE_HOME_DIRECTORY:INTERNAL="))
        .expect("the CMake cache names its source folder");
    let source = Path::new(source);
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .include(source.join("include"))
        .include(source.join("ggml/include"))
        .include(source.join("src"))
        .file("shim/shim.cpp")
        .file("shim/reference.cpp")
        .compile("locara_shim");
}
