# NeuroAL with its tests, for a CPU or an NVIDIA GPU:
#   docker build -t neuroal .                              # CPU
#   docker build -t neuroal --build-arg TORCH=cuda .       # NVIDIA GPU (docker run --gpus all)
#   docker run --rm neuroal make demo
#   docker run --rm neuroal make test
#   docker run --rm -v "$PWD/runs:/neuroal/runs" neuroal neuroal model=zoo/opt topup=owl
FROM python:3.12-slim-bookworm

ARG TORCH=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]

# make and bash run the targets; a C compiler serves torch.compile and Triton; git names the commit.
RUN apt-get update \
 && apt-get install -y --no-install-recommends make git gcc g++ libc6-dev \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /neuroal

# The environment comes first, so that a change of the code does not install it again.
COPY pyproject.toml constraints.txt ./
RUN python -m venv .venv \
 && torch="$(sed -n 's/^torch==//p' constraints.txt)" \
 && if [ "$TORCH" = cpu ]; then \
      .venv/bin/pip install "torch==$torch+cpu" -c constraints.txt \
        --extra-index-url https://download.pytorch.org/whl/cpu; \
    else \
      .venv/bin/pip install "torch==$torch" -c constraints.txt; \
    fi

COPY . .
# The stamp tells make that the environment is complete.
RUN .venv/bin/pip install -e '.[dev]' -c constraints.txt && touch .venv/.installed

ENV PATH=/neuroal/.venv/bin:$PATH
CMD ["make", "demo"]
