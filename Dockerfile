# The workflow with everything that it runs on, but scvi-tools and CellBender: see docs/container.md.
#   docker build --build-arg REVISION=$(git rev-parse HEAD) --tag immunomod .
ARG PYTHON=python:3.11.14-slim-bookworm

FROM ${PYTHON} AS packages
COPY envs/immunomod.lock /opt/immunomod.lock
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r /opt/immunomod.lock

FROM ${PYTHON}
# Snakemake asks git for the files that a job without a shared file system needs.
# The storage plugin fs copies with rsync.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git rsync \
    && rm -rf /var/lib/apt/lists/*
# Whichever user the container is run as may write its caches; files of the workflow stay root's.
RUN useradd --uid 1000 --create-home immunomod && chmod 1777 /home/immunomod
COPY --from=packages /opt/venv /opt/venv
COPY . /opt/immunomod
ARG REVISION=
# What `pip install -e .` would do, without a build backend that no lock pins.
RUN printf '%s' "${REVISION}" > /opt/immunomod/.revision \
    && echo /opt/immunomod/workflow > "$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/immunomod.pth" \
    && printf '#!/opt/venv/bin/python\nfrom immunomod.cli import main\n\nmain()\n' > /opt/venv/bin/immunomod \
    && chmod 755 /opt/venv/bin/immunomod \
    && /opt/venv/bin/python -m compileall -q /opt/immunomod/workflow/immunomod
ENV PATH=/opt/venv/bin:$PATH HOME=/home/immunomod MPLBACKEND=Agg
USER 1000
# Snakemake finds the Snakefile here; a study is named with --directory and --configfile.
WORKDIR /opt/immunomod
ENTRYPOINT ["snakemake"]
CMD ["--help"]
