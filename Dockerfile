# The Seedbed server. It runs as user 10001, and its root may be read-only.
#
#   docker build -t seedbed . ; docker run --read-only -p 127.0.0.1:50051:50051 seedbed
#   docker build -t seedbed:gpu --target gpu . ; docker run --read-only --gpus all -p 127.0.0.1:50051:50051 seedbed:gpu
#
# With podman or buildah, build with --format docker: images in the OCI format cannot hold the health check.
ARG BASE_IMAGE=docker.io/library/python:3.13-slim

FROM ${BASE_IMAGE} AS base
# Clients write checkpoints to /checkpoint. A volume mounted there gets the directory's owner.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin seedbed \
 && install --directory --owner 10001 --group 10001 /checkpoint
ENV PATH=/opt/seedbed/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /checkpoint
# 50051 is the service, 9464 the metrics (SEEDBED_METRICS=0.0.0.0:9464).
EXPOSE 50051 9464
# Only the container's own network reaches the address, so --insecure (no TLS) is acceptable. Publish the port to this
# machine or to trusted ones only. To serve others, mount a certificate, pass --tls-cert, --tls-key and --tokens instead,
# and set SEEDBED_TLS_CA and SEEDBED_TLS_SERVER_NAME for the health check.
ENTRYPOINT ["/opt/seedbed/bin/entrypoint.sh"]
CMD ["serve", "--listen", "0.0.0.0:50051", "--insecure"]
HEALTHCHECK --start-period=60s --interval=10s --timeout=10s CMD ["seedbed", "health", "--target", "127.0.0.1:50051"]

# Dependencies seldom change, so they have layers of their own. Their versions are locked.
FROM ${BASE_IMAGE} AS tools
RUN python3 -m venv /opt/tools \
 && python3 -m venv --without-pip /opt/seedbed
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

FROM tools AS dependencies-cpu
COPY deploy/image/requirements-cpu.txt /tmp/
RUN /opt/tools/bin/pip --python /opt/seedbed/bin/python install --quiet --require-hashes -r /tmp/requirements-cpu.txt \
 && find /opt/seedbed -type d -name tests -prune -exec rm -rf {} +

FROM tools AS dependencies-gpu
COPY deploy/image/requirements-gpu.txt /tmp/
RUN /opt/tools/bin/pip --python /opt/seedbed/bin/python install --quiet --require-hashes -r /tmp/requirements-gpu.txt \
 && find /opt/seedbed -type d -name tests -prune -exec rm -rf {} +

# The code is installed into a separate tree, /code, which is copied over the dependencies.
FROM tools AS code
COPY deploy/image/requirements-build.txt /tmp/
RUN /opt/tools/bin/pip install --quiet --require-hashes -r /tmp/requirements-build.txt
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY client client
COPY server server
RUN /opt/tools/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /tmp . ./server \
 && /opt/tools/bin/pip --python /opt/seedbed/bin/python install --quiet --no-deps --prefix /code /tmp/seedbed*.whl
COPY --chmod=755 deploy/image/entrypoint.sh /code/bin/

# The kernels, compiled for the processor of the build. On a different one, the server compiles its own at startup.
FROM dependencies-cpu AS kernels
COPY --from=code /code /opt/seedbed
RUN NUMBA_CACHE_DIR=/opt/seedbed/kernels /opt/seedbed/bin/python -c \
    'from seedbed_server import engine; engine.open_backend("numba").prepare()'

FROM base AS gpu
# NVIDIA's container runtime reads these variables and mounts the driver's libraries. The rest of CUDA is installed.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=dependencies-gpu /opt/seedbed /opt/seedbed
COPY --from=code /code /opt/seedbed
COPY --from=kernels /opt/seedbed/kernels /opt/seedbed/kernels

FROM base AS cpu
COPY --from=dependencies-cpu /opt/seedbed /opt/seedbed
COPY --from=code /code /opt/seedbed
COPY --from=kernels /opt/seedbed/kernels /opt/seedbed/kernels
