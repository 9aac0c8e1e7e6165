from __future__ import annotations

from llmbatch.engines.kinds import kind_of
from llmbatch.engines.settings import EngineSettings


def test_of_the_models_that_a_job_names_it_is_known_which_setting_pins_them() -> None:
    lora = {"legal": "org/adapter"}
    args = {"revision": "v2", "tokenizer": "org/words", "download_dir": "/models"}
    named = kind_of("vllm").models(EngineSettings(args=args, lora=lora), "org/model")
    assert [(each.setting, each.place, each.pin, each.revision, each.folder) for each in named] == [
        ("model", "org/model", "engine.args.revision", "v2", "/models"),
        ("engine.lora.legal", "org/adapter", "engine.lora.legal (commit)", None, None),
        ("engine.args.tokenizer", "org/words", "engine.args.tokenizer_revision", "v2", "/models"),
    ]
    named = kind_of("scripted").models(EngineSettings(name="scripted", lora=lora), "any")
    assert [(each.setting, each.pin) for each in named] == [
        ("model", "model (commit)"),
        ("engine.lora.legal", "engine.lora.legal (commit)"),
    ]
