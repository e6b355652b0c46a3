#!/bin/sh
# Licences, sources and bans of dependencies (deny.toml). Advisories need the advisory database from the network, so they
# are checked only where it can be had.
set -eu
cd "$(dirname "$0")/.."
. scripts/env.sh
scripts/need.sh cargo-deny 0.20
cargo deny --log-level error check bans licenses sources
