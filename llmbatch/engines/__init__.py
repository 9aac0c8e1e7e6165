"""Engines. A new one is one package here and one line in this table (name -> ``module:object``, an ``EngineKind``)."""

DEFAULT_ENGINE = "vllm"

ENGINES = {
    "kserve": "llmbatch.engines.kserve.kind:KIND",
    "openai": "llmbatch.engines.openai.kind:KIND",
    "scripted": "llmbatch.engines.scripted.kind:KIND",
    "transformers": "llmbatch.engines.transformers.kind:KIND",
    "vllm": "llmbatch.engines.vllm.kind:KIND",
}
