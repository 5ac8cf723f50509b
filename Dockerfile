# There is no syntax line on purpose: the frontend that it names would have to be pulled.
#
# larder's image is one static binary and the root certificates, on no base at all. `make image` makes the binary and the
# context, then builds this:
#
#   make image                                             # larder:local
#   docker run -p 127.0.0.1:5000:5000 -v larder:/var/lib/larder larder:local
#
# To build from source inside Docker instead, put these two stages in front and write `COPY --from=context` below:
#
#   FROM rust:1.95-bookworm AS build
#   WORKDIR /src
#   COPY . .
#   RUN rustup target add x86_64-unknown-linux-musl && apt-get update && apt-get install -y musl-tools make && make dist
#   FROM build AS context
#   RUN tests/parts/context target/dist-static/larder /context
#   WORKDIR /context
FROM scratch

COPY larder /usr/local/bin/larder
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY larder.yaml /etc/larder/larder.yaml
# Root directories exist with their owner before the volume is made from them, else the volume would be root's.
COPY --chown=65532:65532 data /var/lib/larder
COPY --chown=65532:65532 tmp /tmp

ENV PATH=/usr/local/bin STATE_DIRECTORY=/var/lib/larder
USER 65532:65532
WORKDIR /var/lib/larder
VOLUME /var/lib/larder
EXPOSE 5000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["larder", "status", "--quiet"]

ENTRYPOINT ["larder"]
CMD ["serve"]
