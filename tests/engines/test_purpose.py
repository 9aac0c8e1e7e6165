"""What a model is to give, and what its config tells of that before it is loaded. No vLLM."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmbatch.core.errors import JobError
from llmbatch.core.types import Pooling, PoolingTask, Prompt, Request, RequestKey, Sampling
from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.vllm.pooling import Poolings
from llmbatch.engines.vllm.purpose import settings_for


@pytest.fixture
def model(tmp_path: Path) -> Any:
    def model(*architectures: str, **config: Any) -> str:
        (tmp_path / "config.json").write_text(json.dumps({"architectures": list(architectures), **config}))
        return str(tmp_path)

    return model


@pytest.mark.parametrize("name", ["BertModel", "Qwen3ForCausalLM", "LlamaModel", "BertForSequenceClassification"])
def test_a_model_is_loaded_for_numbers_where_they_are_asked_for(model: Any, name: str) -> None:
    assert settings_for(EngineSettings(args={"seed": 1}), model(name), Pooling("embed")).args == {
        "seed": 1,
        "runner": "pooling",
    }


def test_a_model_that_writes_text_is_loaded_as_it_is(model: Any) -> None:
    settings = EngineSettings(args={"seed": 1})
    assert settings_for(settings, model("Qwen3ForCausalLM"), None) is settings
    assert settings_for(settings, "org/of-the-hub", None) is settings


@pytest.mark.parametrize("name", ["BertModel", "XLMRobertaForSequenceClassification", "BertForMaskedLM"])
def test_a_model_that_gives_numbers_is_refused_where_text_is_asked_for(model: Any, name: str) -> None:
    with pytest.raises(JobError, match=rf"\({name}\) gives numbers, not text.*--program embed"):
        settings_for(EngineSettings(), model(name), None)


@pytest.mark.parametrize("task", ["classify", "pairs"])
@pytest.mark.parametrize("name", ["BertModel", "Qwen3ForCausalLM"])
def test_a_model_without_a_classification_head_is_refused_where_that_is_needed(
    model: Any, name: str, task: PoolingTask
) -> None:
    with pytest.raises(JobError, match=f"no classification head, which {task} needs") as error:
        settings_for(EngineSettings(), model(name), Pooling(task))
    assert ("encoder=bi" in str(error.value)) == (task == "pairs")


def test_a_model_of_several_classes_scores_no_pairs(model: Any) -> None:
    path = model("BertForSequenceClassification", id2label={"0": "a", "1": "b", "2": "c"})
    assert settings_for(EngineSettings(), path, Pooling("classify")).args["runner"] == "pooling"
    with pytest.raises(JobError, match="has 3 classes, and a model that scores pairs has one"):
        settings_for(EngineSettings(), path, Pooling("pairs"))
    path = model("BertForSequenceClassification", id2label={"0": "LABEL_0"})
    assert settings_for(EngineSettings(), path, Pooling("pairs")).args["runner"] == "pooling"


def test_one_that_is_made_another_by_arguments_is_not_held_to_its_config(model: Any) -> None:
    path = model("Qwen3ForCausalLM")
    for args in ({"convert": "classify"}, {"hf_overrides": {"architectures": ["Qwen3ForSequenceClassification"]}}):
        assert settings_for(EngineSettings(args=args), path, Pooling("pairs")).args == {**args, "runner": "pooling"}


@pytest.mark.parametrize(("runner", "task"), [("generate", "embed"), ("pooling", None)])
def test_a_runner_that_is_against_the_program_is_refused(model: Any, runner: str, task: PoolingTask | None) -> None:
    settings, pooling = EngineSettings(args={"runner": runner}), None if task is None else Pooling(task)
    with pytest.raises(JobError, match=f"engine.args.runner={runner}: .*leave it out"):
        settings_for(settings, model("Qwen3ForCausalLM"), pooling)


def test_fewer_dimensions_are_asked_of_a_model_that_says_it_can(model: Any) -> None:
    with pytest.raises(JobError, match="does not say that its vectors can be shortened"):
        settings_for(EngineSettings(), model("BertModel"), Pooling("embed", dimensions=8))
    for known in ({"is_matryoshka": True}, {"matryoshka_dimensions": [8, 16]}):
        settings = settings_for(EngineSettings(), model("BertModel", **known), Pooling("embed", dimensions=8))
        assert settings.args == {"runner": "pooling"}
    args = {"hf_overrides": {"is_matryoshka": True}}
    settings_for(EngineSettings(args=args), model("BertModel"), Pooling("embed", dimensions=8))


def test_a_name_of_the_hub_of_which_nothing_is_here_tells_nothing() -> None:
    assert settings_for(EngineSettings(), "org/never-loaded", Pooling("classify")).args == {"runner": "pooling"}


@pytest.mark.parametrize(
    ("tasks", "labels", "able"),
    [
        (["embed", "token_embed"], 0, {"embed"}),
        (["classify", "token_classify"], 3, {"classify"}),
        (["classify", "token_classify"], 1, {"classify", "pairs"}),
        (["token_classify"], 5, set()),
    ],
    ids=["embed", "classify", "cross-encoder", "tokens alone"],
)
def test_what_a_loaded_model_can_do_follows_from_vllms_tasks_and_its_classes(
    tasks: list[str], labels: int, able: set[str]
) -> None:
    names = {number: f"class {number}" for number in range(labels)}
    config = SimpleNamespace(hf_config=SimpleNamespace(num_labels=labels, id2label=names))
    engine = SimpleNamespace(model_config=config, get_supported_tasks=lambda: tuple(tasks))
    poolings = Poolings(SimpleNamespace(llm_engine=engine, pooling_task=tasks[0]))
    assert poolings.can == able
    with pytest.raises(ValueError, match="the model cannot do"):
        poolings.of(Request(RequestKey(0), Prompt(text="a"), Sampling()), Pooling("embed" if labels else "pairs"))
    assert json.loads(poolings._names_of(2)) == [names.get(0, "LABEL_0"), names.get(1, "LABEL_1")]
