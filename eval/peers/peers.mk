# Servers and programs of others that we are tried against, each in an environment of its own (.venv-NAME), as their requirements
# contradict each other's and ours. A new one is one line: PEER_NAME := what pip is to install.
PEER_triton := nvidia-pytriton==0.7.0 numpy<2
PEER_mlserver := mlserver==1.7.1
PEER_google := google-cloud-aiplatform==2.7.0
PEER_genai := google-genai==3.6.1

PEERS := $(patsubst PEER_%,%,$(filter PEER_%,$(.VARIABLES)))

# mlserver and Triton's Python backend want a Python below 3.13
PEERS_PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)

.venv-%/ready: eval/peers/peers.mk | $(VENV)/ready-$(ENGINE)
	$(PEERS_PYTHON) -m venv .venv-$*
	$(BIN)/uv pip install --quiet --python .venv-$*/bin/python $(foreach package,$(PEER_$*),'$(package)')
	touch $@
