"""Engines. A new one is one file here and one line in this table (name -> ``module:object``, an ``EngineFactory``)."""

ENGINES = {
    "vllm": "llmbatch.engines.vllm.kind:make",
    "scripted": "llmbatch.engines.scripted.engine:ScriptedEngine",
}
