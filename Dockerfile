# Two images of the lock's versions: `services` (MLflow, Prefect and their drivers) and `worker` (all of the lock, and git).
FROM python:3.13-slim AS packages
# uv is pinned and hash-checked by the lock as well
RUN --mount=type=bind,source=requirements.lock,target=/requirements.lock --mount=type=cache,target=/root/.cache \
    awk '/^[a-z]/ {uv = /^uv==/} uv' /requirements.lock > /tmp/uv.txt \
    && pip install --quiet --disable-pip-version-check --root-user-action=ignore --require-hashes -r /tmp/uv.txt \
    && uv venv --quiet --python "$(command -v python)" /opt/venv
ENV UV_LINK_MODE=copy UV_NO_BUILD=1 VIRTUAL_ENV=/opt/venv

FROM packages AS services-packages
RUN --mount=type=bind,source=requirements-services.lock,target=/requirements.lock --mount=type=cache,target=/root/.cache \
    uv pip sync --quiet --require-hashes --compile-bytecode /requirements.lock

FROM packages AS worker-packages
RUN --mount=type=bind,source=requirements.lock,target=/requirements.lock --mount=type=cache,target=/root/.cache \
    uv pip sync --quiet --require-hashes --compile-bytecode /requirements.lock

FROM python:3.13-slim AS base
RUN useradd --uid 1000 --create-home genai
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1

FROM base AS services
COPY --from=services-packages /opt/venv /opt/venv
USER genai
WORKDIR /home/genai

FROM base AS worker
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends git >/dev/null && rm -rf /var/lib/apt/lists/* \
    # the folder that compose mounts is another user's
    && git config --system --add safe.directory /origin && git config --system --add safe.directory /origin/.git \
    && install -d -o genai -g genai /project
COPY --from=worker-packages /opt/venv /opt/venv
# DVC's default remote, of this host and not of the repository
RUN install -d /etc/xdg/dvc && printf '[core]\n    remote = team\n' > /etc/xdg/dvc/config
USER genai
WORKDIR /project
# the code is not in the image: a clone, made at the first start, of which the flows check out what a stage needs
ENTRYPOINT ["/bin/sh", "-c", "[ -e .git ] || git clone --quiet \"$FLOW_GIT_URL\" . && exec \"$@\"", "worker"]
