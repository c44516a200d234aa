# The Seedbed server on the CPU.  docker build -t seedbed . ; docker run -p 127.0.0.1:50051:50051 seedbed
ARG BASE_IMAGE=python:3.13-slim

FROM ${BASE_IMAGE} AS build
WORKDIR /source
RUN python3 -m venv /opt/seedbed
COPY pyproject.toml README.md LICENSE ./
COPY client client
COPY server server
# Kernels are compiled when a server first starts, for the processor that it runs on.
RUN /opt/seedbed/bin/pip install --no-cache-dir --quiet '.[server]'

FROM ${BASE_IMAGE}
COPY --from=build /opt/seedbed /opt/seedbed
RUN useradd --create-home seedbed
USER seedbed
RUN mkdir -p /home/seedbed/.cache/numba
ENV PATH=/opt/seedbed/bin:$PATH PYTHONUNBUFFERED=1 NUMBA_CACHE_DIR=/home/seedbed/.cache/numba
EXPOSE 50051
# Within the container only its own network reaches the address, in the clear, hence --insecure: publish the port to this
# machine, or to trusted ones. To serve others, mount a certificate and give --tls-cert, --tls-key and --tokens instead.
ENTRYPOINT ["seedbed"]
CMD ["serve", "--listen", "0.0.0.0:50051", "--insecure"]
HEALTHCHECK --start-period=60s --interval=10s CMD ["seedbed", "health", "--target", "127.0.0.1:50051"]
