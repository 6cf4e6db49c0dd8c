# One image for every part: `shadowfault api` (the default), `shadowfault operator`, `shadowfault verify`,
# `shadowfault db`. For the classic builder and BuildKit alike.
#
# What goes in is the locked runtime, hash by hash, and a wheel of this tree: no compiler, no test, no
# development package.

ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_PROGRESS_BAR=off \
    # The wheel's time stamps; the same tree gives the same wheel.
    SOURCE_DATE_EPOCH=1577836800
RUN python -m venv --without-pip /opt/shadowfault && python -m venv /opt/build
# The locks before the sources: a change of the code leaves these layers as they are.
COPY requirements/build.txt requirements/runtime.txt /src/requirements/
RUN /opt/build/bin/pip install --quiet --require-hashes --requirement /src/requirements/build.txt \
 && pip --python /opt/shadowfault/bin/python install --quiet --require-hashes --no-deps --only-binary :all: --no-compile \
      --requirement /src/requirements/runtime.txt \
 # Half of the image for one thing: kubeconfigs whose user is a plugin. A pod has its service account.
 && pip --python /opt/shadowfault/bin/python uninstall --quiet --yes kubernetes
COPY . /src
RUN /opt/build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /tmp/wheel /src \
 && pip --python /opt/shadowfault/bin/python install --quiet --no-deps --no-index --no-compile /tmp/wheel/*.whl \
 # Byte code for a file system that is read-only; by hash, so that it does not depend on the hour of the build.
 && /opt/shadowfault/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/shadowfault/lib \
 && /opt/shadowfault/bin/shadowfault --version

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="shadowfault" \
      org.opencontainers.image.description="Chaos testing of dual writes on Kubernetes that a team can leave alone" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/shadowfault /opt/shadowfault
# In a container the address of the process is the container's; a pod sets its own. USER is a name for a number
# that has none in /etc/passwd, which kopf asks for.
ENV PATH=/opt/shadowfault/bin:${PATH} \
    USER=shadowfault \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0
# A number, for runAsNonRoot can check nothing else. It owns no file of the image.
USER 10001:10001
WORKDIR /tmp
EXPOSE 4000 8080
ENTRYPOINT ["shadowfault"]
CMD ["api"]
# For Docker and Compose; Kubernetes has its probes.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
  CMD ["python", "-m", "shadowfault_cli.healthcheck"]
