#!/bin/sh
# Installs a cargo tool from crates.io if it is not there: `scripts/need.sh cargo-nextest 0.9`.
set -eu
command -v "$1" >/dev/null 2>&1 || [ -x "$HOME/.cargo/bin/$1" ] || cargo install --locked --quiet "$1" --version "^$2"
