# Everything a person needs has one word here. `. scripts/env.sh` sets the build up for the machine at hand.
# One profile (release) builds everything: a debug Cranelift crawls, and two profiles would compile llama.cpp and
# wasmtime twice. Our own crates keep overflow checks in it.

SHELL := /bin/sh
RUN := . scripts/env.sh &&
LOCARA := "$$CARGO_TARGET_DIR/release/locara"

.PHONY: demo test check bench simulate pressure storm crash clients setup build apps fuzz generate

## Sets up what is missing, builds, and summarises a document that is longer than the model's context
demo: build apps
	@$(RUN) home=$$(mktemp -d) && trap 'rm -rf "$$home"' EXIT && \
	LOCARA_HOME=$$home $(LOCARA) install dist/apps/summarize --yes && \
	LOCARA_HOME=$$home $(LOCARA) run summarize --input ARCHITECTURE.md

## Sets up and passes every test
test: build apps
	@scripts/need.sh cargo-nextest 0.9
	@$(RUN) cargo nextest run --release --workspace --no-fail-fast
	@$(RUN) cargo test --release --workspace --doc --quiet

## Format, lints, documentation, dependency policy, macOS type-check, generated files
check: setup
	@$(RUN) cargo fmt --all --check
	@$(RUN) cargo xtask check-deps
	@$(RUN) cargo clippy --release --workspace --all-targets -- -D warnings
	@$(RUN) RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps --quiet
	@$(RUN) cargo check --target aarch64-apple-darwin -p locara-platform -p locara-policy -p locara-manifest -p locara-gguf -p locara-models
	@scripts/deny.sh

## Measures and writes tests/bench/RESULTS.md
bench: build apps
	@$(RUN) cargo run --release --package locara-bench

## A thousand laptops for a week each, under the governor and under what its peers do
simulate: setup
	@$(RUN) cargo run --release --package locara-simulate

## Stages real memory pressure around the real binary; needs root, and is skipped loudly elsewhere
pressure: build apps
	@$(RUN) cargo run --release --package locara-pressure

## Many clients at once against the real binary: nothing hangs, nothing is left, and the figures add up
storm: build
	@$(RUN) cargo run --release --package locara-storm

## Kills the real binary and its libraries 200 times and looks at what is left
crash: build
	@$(RUN) cargo run --release --package locara-crash

## The official clients of OpenAI, Anthropic and Ollama against the real binary
clients: build
	@$(RUN) tests/clients/run.sh $(LOCARA)

setup:
	@scripts/setup.sh

build: setup
	@$(RUN) cargo build --release --package locara-daemon

## Builds the plugins and the test guests as components into dist/apps
apps: setup
	@$(RUN) cargo xtask apps

## Writes the files that are generated from the code
generate: setup
	@$(RUN) cargo run --quiet --release -p locara-manifest --example schema manifests/schema

## Fuzzes the two parsers of foreign files for a minute each
fuzz: setup
	@scripts/need.sh cargo-fuzz 0.13
	@cd tests/fuzz && for target in gguf manifest; do cargo +nightly fuzz run $$target -- -max_total_time=60 || exit 1; done
