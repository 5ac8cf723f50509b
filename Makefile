# What one types here. Nothing has to be installed before it but a Rust toolchain (rust-toolchain.toml says which).

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

LARDER_PARTS ?= $(HOME)/.cache/larder-parts
export LARDER_PARTS
export PATH := $(LARDER_PARTS)/bin:$(PATH)

CARGO := cargo
static := target/static/larder

.PHONY: help
help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

.PHONY: run
run: build ## build in release and serve on 127.0.0.1:5000, no configuration, data in ./larder-data
	target/release/larder serve

.PHONY: build
build: ## the release binary, target/release/larder
	$(CARGO) build --release --bin larder

.PHONY: test
test: parts check $(static) ## install what the tests need (Debian 12, root), then run every test
	$(CARGO) test

.PHONY: check
check: tools ## what is quick: format, spelling, lints, layering and unit tests, documentation
	$(CARGO) fmt --check
	typos
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) check --lib --no-default-features
	$(CARGO) test --lib --bins --test layering
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --no-deps --document-private-items

.PHONY: demo
demo: build ## no internet: a real registry as upstream, one image, pulled through larder twice and once without it
	tests/parts/install demo
	LARDER=target/release/larder tests/demo

.PHONY: pipeline
pipeline: build ## no internet, root: a CI run that builds, pushes and builds on it, with larder, without it, and with it stopped
	tests/parts/install apt
	LARDER=target/release/larder tests/pipeline

.PHONY: bench
bench: ## the benchmarks whose figures stand in the README
	$(CARGO) bench

.PHONY: model
model: ## two million steps of pushes, removals, crashes and collections against the model (some minutes)
	MODEL_CASES=13500 MODEL_STEPS=300 $(CARGO) test --release --test model

.PHONY: soak
soak: ## ten minutes of pushes, pulls and removals while everything is collected all the time
	SOAK_SECONDS=600 $(CARGO) test --release --test it -- --nocapture clients_push_pull_and_remove

.PHONY: graphs
graphs: ## five thousand repositories by chance before each kind of remote registry (some minutes)
	LARDER_GRAPHS=5000 $(CARGO) test --release --test it -- remotes::graphs

.PHONY: docs
docs: ## the documentation of the code, target/doc/larder
	$(CARGO) doc --no-deps --document-private-items

.PHONY: deny
deny: tools ## licences, banned packages and sources of the dependencies
	cargo-deny check bans licenses sources

.PHONY: parts
parts:
	tests/parts/install

.PHONY: tools
tools:
	tests/parts/install python

# The binary that is shipped: static, optimised across crates, with an allocator that gives memory back. Without musl's
# standard library, which `rustup target add` fetches, it is glibc's that is linked in.
musl := x86_64-unknown-linux-musl
dist_target = $(shell [ -d "$$(rustc --print sysroot)/lib/rustlib/$(musl)" ] && command -v musl-gcc >/dev/null \
  && echo $(musl) || echo x86_64-unknown-linux-gnu)

.PHONY: dist
dist: ## the static binary for those who do not build, target/dist-static/larder
	$(CARGO) rustc --profile dist --bin larder --features jemalloc --target $(dist_target) -- -C target-feature=+crt-static
	@mkdir -p target/dist-static
	cp target/$(dist_target)/dist/larder target/dist-static/larder

.PHONY: image
image: dist ## the image larder:local, with docker
	tests/parts/context target/dist-static/larder target/image
	DOCKER_BUILDKIT=1 docker build -t larder:local -f Dockerfile target/image

# The image's test needs a static binary and not a fast one. Only the last step differs from the development build, so
# this takes the time of a link; `--target` or RUSTFLAGS would compile every dependency once more.
.PHONY: $(static)
$(static):
	$(CARGO) rustc --bin larder -- -C target-feature=+crt-static
	@mkdir -p $(@D)
	cp target/debug/larder $@
