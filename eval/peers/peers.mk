# Servers and programs of others that we are tried against, each in an environment of its own (.venv-NAME), as their requirements
# contradict each other's and ours. A new one is one line: PEER_NAME := what pip is to install.
PEER_triton := nvidia-pytriton==0.7.0 numpy<2
PEER_mlserver := mlserver==1.7.1
# MLflow wants an older pyarrow than ours; llmbatch is beside it, as it loads the models that it logged
PEER_mlflow := mlflow==3.17.2 --editable .[transformers]

PEERS := $(patsubst PEER_%,%,$(filter PEER_%,$(.VARIABLES)))

# mlserver and Triton's Python backend want a Python below 3.13
PEERS_PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)

.venv-%/ready: eval/peers/peers.mk | $(VENV)/ready-$(ENGINE)
	$(PEERS_PYTHON) -m venv .venv-$*
	$(if $(FIND_LINKS),UV_FIND_LINKS="$(FIND_LINKS)") $(BIN)/uv pip install --quiet --python .venv-$*/bin/python $(foreach package,$(PEER_$*),'$(package)')
	touch $@
