# syntax=docker/dockerfile:1
# The program with ONNX Runtime, run by a user without rights:
#   docker build -t splade .
#   docker run --rm -v "$PWD:/data" splade search --index my.index 'hvor mange bor i Oslo'
#   docker run -d -p 127.0.0.1:8080:8080 -v "$PWD:/data:ro" splade serve --index my.index --host 0.0.0.0 --allow-unauthenticated

FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential python3 python3-pip \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# ONNX Runtime and the protobuf compiler, pinned with checksums; a layer of their own, since they change seldom
COPY scripts/setup.py scripts/
RUN python3 scripts/setup.py
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin splade \
    && mkdir -p /opt/splade/onnxruntime \
    && strip --strip-debug -o /opt/splade/splade target/release/splade \
    && cp .onnxruntime/libonnxruntime.so.* LICENSE-* /opt/splade/ \
    && cp .onnxruntime/LICENSE .onnxruntime/ThirdPartyNotices.txt /opt/splade/onnxruntime/ \
    && /opt/splade/splade man --output /opt/splade/man/man1

FROM debian:bookworm-slim
# certificates for downloads from the Hugging Face Hub
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 splade \
    && useradd --uid 10001 --gid splade --no-create-home --home-dir /data --shell /usr/sbin/nologin splade \
    && install -d -o splade -g splade /data
# the program finds ONNX Runtime's library beside it
COPY --from=build /opt/splade /opt/splade
ENV PATH=/opt/splade:$PATH \
    HF_HOME=/data/huggingface \
    XDG_CACHE_HOME=/data/cache
USER 10001
WORKDIR /data
EXPOSE 8080
# of `splade serve` on port 8080; for other commands: docker run --no-healthcheck
HEALTHCHECK --interval=15s --timeout=3s --start-period=30s \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /healthz HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3 && head -n 1 <&3 | grep -q ' 200 '"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["splade"]
CMD ["--help"]
