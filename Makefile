# One place for the commands that people, .ci/run and the GitHub workflow use. `make` alone lists them.

CARGO ?= cargo
PYTHON ?= python3
# What `make image` builds with: docker or podman, whichever is there.
ENGINE ?= $(shell command -v docker || command -v podman || echo docker)
IMAGE ?= rust-eland
# What `make fuzz` runs, and for how many seconds each.
TARGET ?= safetensors archive legacy folder sentencepiece
TIME ?= 600
# What `make deny` installs where there is none. Unoptimized it is built in a third of the time, and checks in seconds.
CARGO_DENY ?= 0.20.2
OLDEST = $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

.DEFAULT_GOAL := help
.PHONY: help prerequisites libtorch minilm build demo test compat bench fuzz fmt lint doc cargo-deny deny advisories oldest-rust image image-test dist dist-test clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

prerequisites: ## Name what is missing to build, with the command that installs it
	@scripts/check-prerequisites

libtorch: prerequisites ## Fetch libtorch 2.7 into the user's cache (or use $LIBTORCH) and link it as .libtorch
	@$(PYTHON) scripts/fetch.py libtorch

minilm: prerequisites ## Fetch the model all-MiniLM-L6-v2 (90 MB) into the user's cache
	@$(PYTHON) scripts/fetch.py minilm

build: libtorch ## Build the program: target/release/rust-eland
	$(CARGO) build --release --locked

demo: libtorch minilm ## Build all, start a stand-in for Elasticsearch, import MiniLM, compare five sentences
	$(CARGO) build --release --locked --package rust-eland --package standin
	@$(PYTHON) scripts/demo.py

test: libtorch minilm ## Run all tests
	$(CARGO) test --workspace --locked

# By hand, not in CI: it downloads 7 GB and needs 10 GB of temporary space.
compat: libtorch ## Load the fixtures' archives in the five PyTorch releases that Elasticsearch has had
	$(CARGO) build --locked
	$(PYTHON) scripts/compat.py $(RELEASES)

# BENCH="--models minilm,bert --runs 3 --graphs= --keep ~/bench": a part of it, with what is fetched and made kept for the next time.
bench: libtorch ## Measure imports beside eland's and the least there could be, and the served graphs (an hour, 12 GB)
	$(CARGO) build --release --locked --package rust-eland --package standin --package floor
	@$(PYTHON) scripts/bench.py $(BENCH)

# New inputs go to fuzz/found; fuzz/corpus, which `make test` replays, is only read.
fuzz: libtorch ## Run the fuzz targets (TARGET=archive, TIME=60) with nightly Rust and cargo-fuzz
	@$(CARGO) +nightly fuzz --version >/dev/null 2>&1 || { \
		echo 'make fuzz needs: rustup toolchain install nightly; cargo install cargo-fuzz' >&2; exit 1; }
	@for target in $(TARGET); do \
		mkdir -p fuzz/found/$$target; dictionary=fuzz/$$target.dict; \
		LD_LIBRARY_PATH="$${LIBTORCH:-$(CURDIR)/.libtorch}/lib" OMP_NUM_THREADS=1 \
			$(CARGO) +nightly fuzz run $$target fuzz/found/$$target fuzz/corpus/$$target -- \
			-max_total_time=$(TIME) -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=64 -max_len=16384 \
			$$(test -e $$dictionary && echo -dict=$$dictionary) || exit; \
	done

fmt: prerequisites ## Format the source
	$(CARGO) fmt --all
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml

lint: libtorch ## Check the formatting and run clippy; warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

doc: libtorch ## Build the documentation; warnings are errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked

cargo-deny:
	@$(CARGO) deny --version 2>/dev/null || $(CARGO) install --locked --debug --quiet cargo-deny@$(CARGO_DENY)

deny: cargo-deny ## Check licences, bans and sources of the crates (deny.toml) with cargo-deny, which is installed if it is missing
	$(CARGO) deny --locked check licenses bans sources

# Needs the network: without it, or without the database, it says so and all is well.
advisories: cargo-deny ## Look the crates up in the database of security advisories
	@if $(CARGO) deny fetch db >/dev/null 2>&1; then $(CARGO) deny --locked check advisories; \
	else echo 'NOT CHECKED: the database of advisories cannot be fetched from here'; fi

oldest-rust: libtorch ## Build with the oldest Rust that Cargo.toml promises, which rustup fetches
	rustup toolchain install $(OLDEST) --profile minimal --no-self-update
	$(CARGO) +$(OLDEST) build --package rust-eland --locked --target-dir target/oldest

image: ## Build the container image with docker or podman
	$(ENGINE) build --build-arg RUST_ELAND_COMMIT=$$(git rev-parse HEAD) --build-arg SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) \
		--tag $(IMAGE) .

image-test: libtorch minilm ## Build the image with buildah on Debian (no engine needed), import a model inside it
	$(CARGO) build --release --locked --package standin --package hub
	scripts/image

# Where the archive goes: target/dist. SOURCE_DATE_EPOCH is the time of its files, by default the commit's.
dist: libtorch ## Build a release for this kind of machine: program, libtorch, licences, SBOM, checksums
	@$(PYTHON) scripts/dist.py

dist-test: minilm ## Unpack it in a bare Debian made by debootstrap (as root), and import a model there
	$(CARGO) build --release --locked --package standin
	@scripts/dist-test

clean: ## Remove what was built, and the link .libtorch; the cache stays
	$(CARGO) clean
	rm -f .libtorch
