# Two commands matter: `make run` and `make test`.  Both install what is missing on a fresh
# Debian machine that has git, make and rustup.

# One target directory outside the clone: a second clone reuses the dependencies.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/rhumb/target
export PATH := $(HOME)/.cargo/bin:$(HOME)/.cache/rhumb/bin:$(PATH)

STORE ?= file://./rhumb-data
LISTEN ?= 127.0.0.1:7480
NEXTEST := 0.9.151

# Lance takes a quarter of an hour to build, and every set of features is another build of
# it.  So what links Lance is always built together, and the light crates, whose tests want
# features of their own (the simulator's broken protocols), apart from it.
HEAVY := -p rhumb -p rhumb-node -p rhumb-engine
LIGHT := --workspace --exclude rhumb --exclude rhumb-node --exclude rhumb-engine
LIGHT_TARGET := $(CARGO_TARGET_DIR)/light

.PHONY: run build test fmt lint deny units openness generate tools setup clean

run: build
	$(CARGO_TARGET_DIR)/debug/rhumb serve --dev --store $(STORE) --listen $(LISTEN)

build: setup
	cargo build -p rhumb

test: setup tools fmt build units lint deny

fmt:
	cargo fmt --all --check

units: build
	./scripts/helm.sh > /dev/null || echo "NO HELM: go is missing, the charts are not rendered" >&2
	./scripts/s3-server.sh > /dev/null || echo "NO S3 SERVER: go is missing, the S3 tests are skipped" >&2
	cargo nextest run $(HEAVY) --no-fail-fast
	RHUMB_BIN=$(CARGO_TARGET_DIR)/debug/rhumb CARGO_TARGET_DIR=$(LIGHT_TARGET) \
		cargo nextest run $(LIGHT) --no-fail-fast

lint:
	cargo clippy $(HEAVY) --all-targets -- -D warnings
	CARGO_TARGET_DIR=$(LIGHT_TARGET) cargo clippy $(LIGHT) --all-targets -- -D warnings

# What is made from the types and the chart; tests fail when it is stale.
generate:
	CARGO_TARGET_DIR=$(LIGHT_TARGET) cargo run -p rhumb-crds --bin crdgen -- .
	./scripts/render-install.sh > manifests/install/operator.yaml

deny:
	cargo deny --log-level error check bans sources

# Not a part of `test`: it takes pylance from PyPI.
openness: build
	RHUMB_BIN=$(CARGO_TARGET_DIR)/debug/rhumb ./scripts/pylance-check.sh

setup:
	@./scripts/setup.sh

tools: setup
	@cargo nextest --version 2>/dev/null | grep -q "$(NEXTEST)" || cargo install cargo-nextest --locked --version $(NEXTEST)
	@cargo deny --version >/dev/null 2>&1 || cargo install cargo-deny --locked

clean:
	rm -rf $(CARGO_TARGET_DIR)
