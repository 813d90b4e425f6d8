# The bus itself: worker, serve, and the one-shot that writes OPA's files.
FROM python:3.11.13-slim-bookworm

ENV TZ=UTC PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    BUS_HOME=/var/lib/bus BUS_SCHEMAS=/app/schemas BUS_POLICIES=/app/policies

RUN useradd --uid 1000 --create-home bus \
    && install -d -o bus -g bus -m 0700 /var/lib/bus /var/lib/opa

WORKDIR /app
COPY requirements.lock ./
RUN pip install --require-hashes -r requirements.lock
COPY pyproject.toml README.md ./
COPY bus ./bus
COPY schemas ./schemas
COPY policies ./policies
RUN pip install --no-deps .

USER bus
ENTRYPOINT ["bus"]
CMD ["--help"]
