//! Nothing but feature choices; see `Cargo.toml`.
