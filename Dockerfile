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
# libtorch first (what `make libtorch` does): this layer is kept until the script changes.
COPY scripts/fetch.py scripts/
RUN python3 scripts/fetch.py libtorch
COPY . .
RUN make build \
    && mkdir -p /out/bin /out/lib/rust-eland /out/share/doc/rust-eland \
    && cp target/release/rust-eland /out/bin/ \
    && ln -s rust-eland /out/bin/eland_import_hub_model \
    && cp --no-dereference .libtorch/lib/*.so* /out/lib/rust-eland/ \
    && cp -r LICENSE .libtorch/licenses /out/share/doc/rust-eland/

FROM ${BASE}
ARG DEBIAN_FRONTEND=noninteractive
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libgomp1 libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home eland
COPY --from=builder /out/ /usr/local/
# The run path inside the program is the builder's; here the loader's own list leads to libtorch.
RUN echo /usr/local/lib/rust-eland > /etc/ld.so.conf.d/rust-eland.conf && ldconfig
# A number, so that Kubernetes' runAsNonRoot can tell.
USER 1000:1000
ENV HOME=/home/eland
WORKDIR /home/eland
# No entry point: both names of the program can be given as the command.
CMD ["rust-eland", "--help"]
