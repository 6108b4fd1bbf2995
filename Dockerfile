# The server as an image: docker build -t polly . ; docs/operations.md says how to run it.
# BASE is any image with Python 3.11 or newer, its module venv, and a shell.
ARG BASE=docker.io/library/python:3.13-slim

FROM ${BASE} AS build
WORKDIR /src
# What is locked changes more seldom than the code, so it is a layer of its own.
COPY requirements/server.txt requirements/
RUN python3 -m venv /opt/polly && \
    /opt/polly/bin/python -m pip install --no-cache-dir --require-hashes -r requirements/server.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN /opt/polly/bin/python -m pip install --no-cache-dir --no-deps --no-build-isolation . && \
    /opt/polly/bin/python -m pip uninstall --yes --quiet pip setuptools hatchling

FROM ${BASE}
COPY --from=build /opt/polly /opt/polly
# An image may not make files but in /data and /tmp, so it also runs with a root file system that is read-only.
RUN mkdir -m 0700 /data && chown 10001:10001 /data
ENV PATH=/opt/polly/bin:$PATH PYTHONDONTWRITEBYTECODE=1 POLLY_DATA=/data POLLY_LISTEN=0.0.0.0:5000
USER 10001:10001
VOLUME /data
EXPOSE 5000
ENTRYPOINT ["polly-server"]
CMD ["run"]
