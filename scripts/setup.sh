#!/bin/sh
# Installs what a fresh Linux (Debian, Ubuntu, Fedora) or macOS machine lacks to build Locara. Safe to run again: what is
# there is left alone, and without anything to do it needs neither network nor root.
set -eu
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; elif have sudo; then sudo "$@"; else say "run as root: $*"; exit 1; fi; }

# libclang: bindgen reads llama.cpp's headers with it.
have_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] || ls /usr/lib/llvm-*/lib/libclang*.so* /usr/lib*/libclang*.so* /usr/lib/*/libclang*.so* >/dev/null 2>&1
}

case "$(uname -s)" in
Linux)
    missing=
    for tool in cmake make c++ git; do have $tool || missing="$missing $tool"; done
    have_libclang || missing="$missing libclang"
    # Faster builds; not needed.
    for tool in ninja ccache; do have $tool || missing="$missing $tool"; done
    if [ -n "$missing" ]; then
        say "installing:$missing"
        if have apt-get; then
            as_root apt-get update -qq
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
                build-essential cmake git libclang-dev ninja-build ccache
        elif have dnf; then
            as_root dnf install -y -q gcc-c++ cmake make git clang-devel ninja-build ccache
        else
            say "no apt-get and no dnf: install$missing by hand and run this again"; exit 1
        fi
    fi ;;
Darwin)
    xcode-select -p >/dev/null 2>&1 || { say "run 'xcode-select --install', wait for it, and run this again"; exit 1; }
    if ! have cmake; then
        have brew || { say "install cmake (https://cmake.org) or Homebrew, and run this again"; exit 1; }
        brew install --quiet cmake ninja ccache
    fi ;;
*) say "$(uname -s) is not supported"; exit 1 ;;
esac

if ! have cargo && [ -x "$HOME/.cargo/bin/cargo" ]; then PATH="$HOME/.cargo/bin:$PATH"; fi
if ! have cargo; then
    have curl || { say "install curl, or Rust from https://rustup.rs, and run this again"; exit 1; }
    say "installing Rust"
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal --default-toolchain none
    PATH="$HOME/.cargo/bin:$PATH"
fi
if have rustup; then
    # rust-toolchain.toml names compiler, components and targets; rustup does not always install them by itself.
    channel=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
    rustup toolchain list | grep -q "^$channel" || rustup toolchain install "$channel" --profile minimal
    for target in $(sed -n 's/^targets = \[\(.*\)\]/\1/p' rust-toolchain.toml | tr -d '",'); do
        rustup target list --installed | grep -qx "$target" || rustup target add "$target"
    done
    for component in clippy rustfmt; do
        cargo "$(echo $component | sed s/rustfmt/fmt/)" --version >/dev/null 2>&1 || rustup component add $component
    done
fi
