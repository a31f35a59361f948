# Dealer, party and coordinator in one image; SERVICE says which of them a container is.
#
#     docker build --tag masque .
#
# With a network this pulls BASE and the packages of deploy/requirements.txt. Without one, an image
# under the name of BASE comes from deploy/base-image.sh and the packages from `make wheels`: then
# `docker build --network none` works, and `make image` does all of it. See docs/deployment.md.
ARG BASE=python:3.11-slim-bookworm

# ---- packages: pinned, checked by hash, without what no service uses ------------------------------
FROM ${BASE} AS packages
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY deploy/requirements.txt deploy/requirements-build.txt deploy/slim.py ./
COPY deploy/wheels/ wheels/
COPY deploy/pip.sh /usr/local/bin/pip-for
RUN python3 -m venv --without-pip /opt/venv \
    && pip-for /opt/venv install --require-hashes --only-binary :all: --requirement requirements.txt \
    && python3 slim.py "$(echo /opt/venv/lib/python3*/site-packages)" \
    && echo /opt/masque > "$(echo /opt/venv/lib/python3*/site-packages)/masque.pth"

# ---- Masque itself, and its kernels compiled ------------------------------------------------------
FROM packages AS masque
COPY pyproject.toml README.md LICENSE ./
COPY masque/ masque/
COPY services/ services/
# Every source gets one date, since numba asks for it: what is compiled here fits wherever it runs.
RUN python3 -m venv --without-pip tools \
    && pip-for tools install --require-hashes --only-binary :all: --requirement requirements-build.txt \
    && pip-for tools wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && pip-for /opt/venv install --no-deps --no-compile --target /opt/masque dist/masque-*.whl \
    && find /opt/masque -name '*.py' -exec touch --date=2020-01-01T00:00:00Z {} + \
    && python3 -m compileall -q /opt/masque
ENV NUMBA_CACHE_DIR=/opt/masque/kernels PYTHONSAFEPATH=1
RUN /opt/venv/bin/python -m masque.mpc.warm \
    && (cd /opt/masque/masque/mpc && cat ./*.py | sha256sum | cut -c1-16) > /opt/masque/kernels/id
COPY deploy/service.sh /opt/masque/bin/masque-service

# ---- what runs ------------------------------------------------------------------------------------
FROM ${BASE}
# Nothing is installed in a container. (A base that was pulled has pip; ours has not.)
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3*/site-packages/* /usr/local/lib/python3*/ensurepip \
    && groupadd --gid 10001 masque \
    && useradd --uid 10001 --gid 10001 --home-dir /var/lib/masque --no-create-home --shell /usr/sbin/nologin masque \
    && install -d -m 0700 -o masque -g masque /etc/masque /var/lib/masque
COPY --from=packages /opt/venv /opt/venv
COPY --from=masque /opt/masque /opt/masque
ENV PATH=/opt/masque/bin:/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 LANG=C.UTF-8
USER 10001:10001
WORKDIR /var/lib/masque
EXPOSE 7000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=10s --start-period=180s --retries=3 CMD ["masque-service", "probe"]
ENTRYPOINT ["masque-service"]
ARG BASE
ARG VERSION=0
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="Masque" \
      org.opencontainers.image.description="Dealer, party and coordinator of secure multi-party training" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}" \
      org.masque.source="${SOURCE}"
