# docker build --tag rust-eland .
# docker run --rm rust-eland rust-eland import --help
# docker run --rm rust-eland eland_import_hub_model --help

ARG BUILDER=docker.io/library/rust:1.95-bookworm
ARG BASE=docker.io/library/debian:bookworm-slim

FROM ${BUILDER} AS builder
ARG DEBIAN_FRONTEND=noninteractive
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates g++ make python3 python3-pip \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# libtorch first, as `make libtorch` downloads it: Docker reuses this layer until the script changes.
COPY scripts/fetch.py scripts/
RUN python3 scripts/fetch.py libtorch
COPY . .
# The unpacked release archive: program, libraries, licences, SBOM.
ARG SOURCE_DATE_EPOCH=0
# The build context has no git repository that could provide the commit.
ARG RUST_ELAND_COMMIT=
RUN make dist && mkdir /out && tar -xzf target/dist/*.tar.gz -C /out --strip-components 1

FROM ${BASE}
ARG DEBIAN_FRONTEND=noninteractive
# /data is writable for every user that --user or Kubernetes can set.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --no-create-home --home-dir /data eland \
    && install --directory --mode 1777 /data
COPY --from=builder /out/ /opt/rust-eland/
RUN ln -s /opt/rust-eland/rust-eland /opt/rust-eland/eland_import_hub_model /usr/local/bin/
# Kubernetes' runAsNonRoot needs a numeric user.
USER 1000:1000
# The only folder that the program writes to: the hub's cache, upload journals, temporary files. The root may be read-only.
ENV HOME=/data HF_HOME=/data/huggingface TMPDIR=/data
WORKDIR /data
VOLUME /data
# No entry point, so that the command can be either name of the program. The default command prints the help and, on a terminal, opens a shell.
CMD ["sh", "-c", "rust-eland --help; if [ -t 0 ]; then exec bash; fi"]
