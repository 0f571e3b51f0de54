# syntax=docker/dockerfile:1
# One file for all members: docker build --build-arg MEMBER=services/auth -t callwarden/auth .
# What is in it: make sbom writes build/sbom/auth.cdx.json from the same install step; docs/howto/operations.md attaches it.
# Pin the base in production: --build-arg BASE=python@sha256:… (a digest of the same image).
ARG BASE=python:3.11-slim-trixie

FROM ${BASE} AS build
ARG MEMBER
WORKDIR /src
COPY . .
# Everything is a wheel or pure Python, so nothing is compiled and no compiler is installed, here or below. What was
# fetched once is kept beside the layers: they are made anew whenever a source changes.
RUN --mount=type=cache,target=/root/.cache UV_LINK_MODE=copy sh deploy/image/install.sh "${MEMBER}" /app

FROM ${BASE}
ARG MEMBER
LABEL org.opencontainers.image.title="callwarden ${MEMBER}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /app /app
COPY LICENSE /app/LICENSE
# Nothing is written beside the code: the root is read-only, and so there is no home but /tmp.
ENV HOME=/tmp PATH=/app/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# By number, so that Kubernetes can see that it isn't root.
USER 10001:10001
WORKDIR /tmp
# Which command it is, the chart says; by hand: docker run IMAGE callwarden-auth
CMD ["python", "-c", "import os; print(*sorted(name for name in os.listdir('/app/bin') if name.startswith('callwarden')))"]
