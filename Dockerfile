# syntax=docker/dockerfile:1
# One image: gateway, meter, recalibration and simulator, by argument.
# The tag moves with Python's and Debian's fixes; who must have the same bytes twice builds with
# --build-arg BASE=python:3.13-slim-trixie@sha256:…
ARG BASE=python:3.13-slim-trixie

FROM ${BASE} AS build
# What it can do beyond serving: meter (NVML), calibration (the numeric stack), otel (traces).
ARG EXTRAS=keys,meter,otel,recalibration
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY .ci/requirements.lock .ci/
COPY backends backends
COPY gateway gateway
COPY calibration calibration
# Only wheels: where one is missing the build fails, instead of asking for a compiler. The
# environment has no pip of its own; the metadata that SBOM scanners read stays in it. A mirror's
# address and password come in by --secret id=pip.conf,src=…, and stay out of the image.
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python -m venv --without-pip /opt/joulegate && \
    python -m pip --disable-pip-version-check --python /opt/joulegate/bin/python install \
      --only-binary :all: --constraint .ci/requirements.lock ".[${EXTRAS}]"
# The vocabulary must be in the image: a gateway without a network would only estimate tokens.
RUN --network=none \
    /opt/joulegate/bin/python -c "from gateway.tokens import load_token_counter as load; assert load().source != 'estimate'"

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Joulegate" \
      org.opencontainers.image.description="An OpenAI-compatible gateway that picks the self-hosted vLLM model with the best accuracy, energy and time for each request" \
      org.opencontainers.image.licenses="GPL-3.0-or-later" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/joulegate /opt/joulegate
# Nothing is written outside /tmp, and there only with several workers or by calibration's plots.
ENV PATH=/opt/joulegate/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    MALLOC_ARENA_MAX=2 \
    JOULEGATE_HEALTH_URL=http://127.0.0.1:8080/health
USER 10001:10001
WORKDIR /tmp
EXPOSE 8080 9464
# The meter listens on 9464: set JOULEGATE_HEALTH_URL there. Kubernetes has its own probes.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["python", "-I", "-c", "import os, urllib.request as u; u.urlopen(os.environ['JOULEGATE_HEALTH_URL'], timeout=4)"]
ENTRYPOINT ["joulegate"]
CMD ["serve", "--config", "/etc/joulegate/gateway.yaml", "--host", "0.0.0.0"]
