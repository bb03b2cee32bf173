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

CLUSTER ?= $(HOME)/.cache/rhumb/cluster
# A cluster of your own is tested only when it is named to make, never by environment.
ifeq ($(origin KUBECONFIG),command line)
export RHUMB_E2E_KUBECONFIG := $(abspath $(KUBECONFIG))
endif
RHUMB_BIN ?= $(CARGO_TARGET_DIR)/debug/rhumb
ON_CLUSTER := RHUMB_CLUSTER=$(CLUSTER) RHUMB_BIN=$(RHUMB_BIN) RHUMB_OPERATOR_BIN=$(LIGHT_TARGET)/debug/rhumb-operator

.PHONY: run build test fmt lint deny units openness generate sbom tools setup clean
.PHONY: together apart programs operator cluster cluster-down e2e e2e-core e2e-argocd e2e-failover

run: build
	$(CARGO_TARGET_DIR)/debug/rhumb serve --dev --store $(STORE) --listen $(LISTEN)

build: setup
	cargo build -p rhumb

test: setup fmt together lint units deny e2e-core

# Lance keeps one core busy for a quarter of an hour: the other makes what does without.
together: setup
	./scripts/together.sh $(MAKE) --no-print-directory apart -- cargo build -p rhumb

apart: tools programs operator
	CARGO_TARGET_DIR=$(LIGHT_TARGET) cargo test --no-run $(LIGHT)

programs:
	@./e2e/cluster/build.sh > /dev/null || [ $$? = 3 ]

operator: setup
	CARGO_TARGET_DIR=$(LIGHT_TARGET) cargo build -p rhumb-operator

fmt:
	cargo fmt --all --check

units: build
	./scripts/helm.sh > /dev/null || echo "NO HELM: go is missing, the charts are not rendered" >&2
	./scripts/s3-server.sh > /dev/null || echo "NO S3 SERVER: go is missing, the S3 tests are skipped" >&2
	cargo nextest run $(HEAVY) --no-fail-fast
	RHUMB_BIN=$(CARGO_TARGET_DIR)/debug/rhumb CARGO_TARGET_DIR=$(LIGHT_TARGET) \
		cargo nextest run $(LIGHT) --no-fail-fast -E 'not binary(cluster)'

# A Kubernetes on this machine, the operator in it, and the bucket that samples name.
cluster: build operator
	@$(ON_CLUSTER) ./e2e/cluster/up.sh
	@echo "  export KUBECONFIG=$(CLUSTER)/admin.conf PATH=$(HOME)/.cache/rhumb/bin:\$$PATH"
	@echo "  kubectl apply -f manifests/samples/small.yaml"
	@echo "  kubectl wait --for=condition=Ready vdb/small --timeout=2m"
	@echo "  curl http://\$$(kubectl get service small -o jsonpath={.spec.clusterIP}):7480/v1/collections"
	@echo "make cluster again after a change: it loads what is new. make cluster-down ends it."

cluster-down:
	@./e2e/cluster/down.sh $(CLUSTER)

# On that cluster, or on yours: make e2e KUBECONFIG=...  On a cluster of this machine's own it
# ends with the rights that nobody used.
e2e: tools $(if $(RHUMB_E2E_KUBECONFIG),,build operator)
	@$(ON_CLUSTER) RHUMB_AUDIT=1 RHUMB_ARGOCD=1 CARGO_TARGET_DIR=$(LIGHT_TARGET) ./e2e/cluster/test.sh \
		cargo nextest run $(LIGHT) --no-fail-fast -E 'binary(cluster)'

# What of it fits a run of the whole suite on two cores: what users meet every day, and the
# faults that must never go wrong.  All of it: make e2e.
CORE := test(/^(admit|status|api)::/) | test(/^chaos::pods::a_leader_that_(is_killed|was_stopped)/) \
	| test(/^chaos::pods::all_pods_are_deleted/) | test(/^chaos::lease::leases_(that_are_deleted|given)/) \
	| test(/^chaos::control_plane::leaders_go_on_without_an_api_server/) \
	| test(/^e2e::life::(a_database_that_is_deleted|the_smallest_sample)/)

e2e-core: tools $(if $(RHUMB_E2E_KUBECONFIG),,build operator)
	@$(ON_CLUSTER) CARGO_TARGET_DIR=$(LIGHT_TARGET) ./e2e/cluster/test.sh \
		cargo nextest run $(LIGHT) --no-fail-fast -E 'binary(cluster) & ($(CORE))'

# A real Argo CD beside the cluster (five minutes to build, once) and what docs/gitops.md
# promises under it.
e2e-argocd: tools build operator
	@$(ON_CLUSTER) RHUMB_ARGOCD=1 CARGO_TARGET_DIR=$(LIGHT_TARGET) ./e2e/cluster/test.sh \
		cargo nextest run $(LIGHT) --no-fail-fast -E 'binary(cluster) & test(/^gitops::/)'

# How long a change of leaders is felt: rounds of a hand-over, kill -9 and a lost node.
e2e-failover: build operator tools
	@$(ON_CLUSTER) CARGO_TARGET_DIR=$(LIGHT_TARGET) ./e2e/cluster/test.sh \
		cargo nextest run $(LIGHT) --run-ignored only --no-capture -E 'binary(cluster) and test(failover_times)'

# `cargo clippy` would check every dependency anew, Lance too: a quarter of an hour.  As the
# compiler of our own crates, clippy uses what is built.
LINT := RUSTC_WORKSPACE_WRAPPER=clippy-driver CLIPPY_ARGS=-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__
# Nobody runs what comes out of it: our own crates are not optimised here.
OURS := core text view store api engine node auth cluster seams
UNOPTIMISED := --config profile.dev.opt-level=0 --config profile.dev.debug=false \
	$(foreach crate,$(OURS),--config profile.dev.package.rhumb-$(crate).opt-level=0 --config profile.dev.package.rhumb-$(crate).codegen-units=256)

lint:
	$(LINT) cargo build $(UNOPTIMISED) $(HEAVY) --all-targets
	$(LINT) CARGO_TARGET_DIR=$(LIGHT_TARGET) cargo build $(UNOPTIMISED) $(LIGHT) --all-targets

# What is made from the types and the chart; tests fail when it is stale.
generate:
	CARGO_TARGET_DIR=$(LIGHT_TARGET) cargo run -p rhumb-crds --bin crdgen -- .
	./scripts/render-install.sh > manifests/install/operator.yaml

# What each program is made of, for whoever has to know: CycloneDX.  Needs python3.
SBOM := $(CARGO_TARGET_DIR)/sbom
sbom: setup
	@mkdir -p $(SBOM)
	@for program in rhumb rhumb-operator; do \
		./scripts/sbom.py $$program >$(SBOM)/$$program.cdx.json && echo $(SBOM)/$$program.cdx.json || exit 1; \
	done

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
