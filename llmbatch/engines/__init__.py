"""Engines. A new one is one file here and one line in this table (name -> ``module:object``, an ``EngineFactory``)."""

ENGINES = {
    "scripted": "llmbatch.engines.scripted.engine:ScriptedEngine",
    "vllm": "llmbatch.engines.vllm.kind:make",
}
