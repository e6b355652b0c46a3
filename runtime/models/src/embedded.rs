//! `locara-tiny`, the model inside the binary: it makes a fresh machine answer without a download.

/// Its name.
pub const EMBEDDED_NAME: &str = "locara-tiny";

/// The whole GGUF file.
pub(crate) const EMBEDDED: &[u8] = include_bytes!("../../../models/locara-tiny/locara-tiny.gguf");

/// Its SHA-256, pinned beside the file in the repository.
pub const EMBEDDED_DIGEST: &str = first_word(include_str!("../../../models/locara-tiny/locara-tiny.gguf.sha256"));

/// `sha256sum` writes the digest, two spaces and the file name.
const fn first_word(line: &'static str) -> &'static str {
    match line.as_bytes().split_at_checked(64) {
        Some(_) => line.split_at(64).0,
        None => line,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_embedded_model_is_the_pinned_one() {
        assert_eq!(crate::digest::digest_of_bytes(super::EMBEDDED), super::EMBEDDED_DIGEST);
    }
}
