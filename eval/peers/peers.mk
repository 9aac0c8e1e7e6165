# Servers and programs of others that we are tried against, each in an environment of its own (.venv-NAME), as their requirements
# contradict each other's and ours. A new one is one line: PEER_NAME := what pip is to install.
PEER_triton := nvidia-pytriton==0.7.0 numpy<2
PEER_mlserver := mlserver==1.7.1
PEER_seldon := seldon-core==1.18.2
# MLflow wants an older pyarrow than ours; llmbatch is beside it, as it loads the models that it logged
PEER_mlflow := mlflow==3.17.2 --editable .[transformers]
# an emulator of Google's object store
PEER_gcs := gcp-storage-emulator==2026.7.19 setuptools<81
PEER_azureml := azure-ai-ml==1.35.2
# the first takes the second only in an older version
PEER_google := google-cloud-aiplatform==2.7.0
PEER_genai := google-genai==3.6.1
PEER_spark := pyspark==4.3.0 pandas<3
# MLflow and Spark in one process; apart from the other, as MLflow's packages would take the places of ours that vLLM needs
PEER_sparkudf := pyspark==4.3.0 mlflow==3.17.2 pandas<3
PEER_sagemaker := sagemaker==2.257.7
PEER_litellm := litellm==1.110.2
# distilabel asks for requests and does not say so
PEER_distilabel := distilabel[openai]==1.5.3 requests==2.34.2
PEER_datadesigner := data-designer==0.9.7
# both in the benchmark; the second one's vLLM is ours
PEER_datatrove := datatrove[inference]==0.10.1
PEER_daft := daft==0.7.26

# Peers in whose processes llmbatch or its vLLM runs: behind their own packages they see those of our environment.
WITH_OURS := spark sparkudf daft

SITE := "import sysconfig; print(sysconfig.get_path('purelib'))"

PEERS := $(patsubst PEER_%,%,$(filter PEER_%,$(.VARIABLES)))

# mlserver and Triton's Python backend want a Python below 3.13
PEERS_PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)

.venv-%/ready: eval/peers/peers.mk | $(VENV)/ready-$(ENGINE)
	$(PEERS_PYTHON) -m venv .venv-$*
	$(if $(FIND_LINKS),UV_FIND_LINKS="$(FIND_LINKS)") $(BIN)/uv pip install --quiet --python .venv-$*/bin/python $(foreach package,$(PEER_$*),'$(package)')
	$(if $(filter $*,$(WITH_OURS)),echo "import site; site.addsitedir('$$($(BIN)/python -c $(SITE))')" > "$$(.venv-$*/bin/python -c $(SITE))/ours.pth")
	touch $@

# azurite, an emulator of Azure's object store, is a program for Node
PEERS += azurite
.venv-azurite/ready: eval/peers/peers.mk
	npm install --no-audit --no-fund --loglevel=error --prefix .venv-azurite azurite@3.37.0
	touch $@
