//! Packing: from what a compiler writes to what a host installs.
//!
//! A compiler for `wasm32-unknown-unknown` leaves a *core module* whose custom section describes its WIT world. A host
//! installs a folder with a *component* and a manifest that pins the component's SHA-256. This crate makes the second
//! from the first, for `cargo xtask apps` and for `locara pack` alike.
//!
//! It never judges a manifest (that is `locara-manifest`), never runs a component and never touches the network.
//! Packing the same input twice writes the same bytes.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use wit_component::{ComponentEncoder, DecodedWasm};

/// Name of the manifest file in an app folder.
pub const MANIFEST: &str = "locara.json";

/// The first eight bytes of a WebAssembly binary: magic, then version and layer. Layer 1 is a component.
const CORE_MODULE: [u8; 8] = *b"\0asm\x01\0\0\0";
const COMPONENT: [u8; 8] = *b"\0asm\x0d\0\x01\0";

/// Why an app could not be packed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The bytes are no WebAssembly at all.
    #[error("{} is not WebAssembly: it is {len} bytes and does not begin with `\\0asm`. Build the app for wasm32-unknown-unknown and pass the .wasm file", path.display())]
    NotWasm {
        /// The file that was read.
        path: PathBuf,
        /// Its size in bytes.
        len: usize,
    },
    /// The module does not describe a world, or does not have what its world asks for.
    #[error("{} cannot become a component: {reason}. Does the app use #[locara::app], or export its world with wit-bindgen, and is it a cdylib?", path.display())]
    Encode {
        /// The core module.
        path: PathBuf,
        /// The chain of causes, outermost first.
        reason: String,
    },
    /// The manifest is not a JSON object.
    #[error("{} is not a manifest: {reason}. `locara check` shows the place", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file could not be read or written. The message names it.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// An app folder that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// The manifest, with `component.path` and `component.sha256` filled in.
    pub manifest: PathBuf,
    /// The component.
    pub component: PathBuf,
    /// SHA-256 of the component, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// Size of the component in bytes.
    pub len: usize,
    /// The interfaces that the component imports, such as `locara:app/inference@0.1.0`: what a host must let it have.
    pub imports: Vec<String>,
    /// Whether either file differs from what was there before.
    pub changed: bool,
}

/// Makes a component from a core module that carries its WIT world in a custom section. A component stays as it is.
///
/// `path` is only named in errors.
///
/// # Errors
/// [`PackError::NotWasm`] and [`PackError::Encode`].
pub fn componentize(path: &Path, wasm: Vec<u8>) -> Result<Vec<u8>, PackError> {
    if wasm.starts_with(&COMPONENT) {
        return Ok(wasm);
    }
    if !wasm.starts_with(&CORE_MODULE) {
        return Err(PackError::NotWasm { path: path.to_owned(), len: wasm.len() });
    }
    ComponentEncoder::default()
        .validate(true)
        .module(&wasm)
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| PackError::Encode { path: path.to_owned(), reason: format!("{error:#}") })
}

/// The interfaces that a component imports, in its order. Those that it takes only types from are among them.
///
/// `path` is only named in errors.
///
/// # Errors
/// [`PackError::Encode`] when the bytes are no component.
pub fn imports(path: &Path, component: &[u8]) -> Result<Vec<String>, PackError> {
    let refuse = |reason: String| PackError::Encode { path: path.to_owned(), reason };
    match wit_component::decode(component).map_err(|error| refuse(format!("{error:#}")))? {
        DecodedWasm::Component(resolve, world) => {
            Ok(resolve.worlds[world].imports.keys().map(|key| resolve.name_world_key(key)).collect())
        }
        DecodedWasm::WitPackage(..) => Err(refuse("it is a WIT package, not a component".into())),
    }
}

/// Lower-case hexadecimal SHA-256, as a manifest writes it.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to a String cannot fail");
        hex
    })
}

/// The manifest text with the component's file name and digest filled in. Keys keep their order.
///
/// `path` is only named in errors.
///
/// # Errors
/// [`PackError::Manifest`] when the text is no JSON object or `component` is something else than an object.
pub fn seal(path: &Path, manifest: &str, component: &str, sha256: &str) -> Result<String, PackError> {
    let refuse = |reason: String| PackError::Manifest { path: path.to_owned(), reason };
    let mut value: Value = serde_json::from_str(manifest).map_err(|error| refuse(error.to_string()))?;
    let object = value.as_object_mut().ok_or_else(|| refuse("it is no JSON object".into()))?;
    let entry = object
        .entry("component")
        .or_insert_with(|| Value::Object(serde_json::Map::new()))
        .as_object_mut()
        .ok_or_else(|| refuse("`component` is no object".into()))?;
    entry.insert("path".into(), component.into());
    entry.insert("sha256".into(), sha256.into());
    let mut text = serde_json::to_string_pretty(&value).expect("a JSON value that was parsed can be written");
    text.push('\n');
    Ok(text)
}

/// Packs one app: `<out>/<name>.wasm` and `<out>/locara.json`. Files that would not change are not written.
///
/// `wasm` is a core module or a component. The manifest is written last, so that a digest never names a component
/// that is not there yet.
///
/// # Errors
/// Every case of [`PackError`].
pub fn pack(manifest: &Path, wasm: &Path, name: &str, out: &Path) -> Result<Packed, PackError> {
    let text = fs::read_to_string(manifest)?;
    let component = componentize(wasm, fs::read(wasm)?)?;
    let sha256 = sha256(&component);
    let imports = imports(wasm, &component)?;
    let file = format!("{name}.wasm");
    let sealed = seal(manifest, &text, &file, &sha256)?;

    fs::create_dir_all(out)?;
    let packed_component = out.join(file);
    let packed_manifest = out.join(MANIFEST);
    let component_changed = write_if_changed(&packed_component, &component)?;
    let manifest_changed = write_if_changed(&packed_manifest, sealed.as_bytes())?;
    Ok(Packed {
        manifest: packed_manifest,
        component: packed_component,
        sha256,
        len: component.len(),
        imports,
        changed: component_changed || manifest_changed,
    })
}

/// Replaces a file as a whole, through a temporary one beside it, if its content differs. Says whether it did.
fn write_if_changed(path: &Path, content: &[u8]) -> io::Result<bool> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(false);
    }
    let temporary = path.with_extension("partial");
    fs::write(&temporary, content)?;
    fs::rename(&temporary, path)?;
    Ok(true)
}

#[cfg(test)]
mod tests;
