"""What is said of a model that is not here, by a hub of the test's own: before an engine is imported, in plain words."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from huggingface_hub import constants

from llmbatch.cli.main import main
from llmbatch.core.errors import EngineError, JobError
from llmbatch.model.hub import see_model

a_hub = importlib.import_module("tests.model_hub").a_hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    with a_hub(monkeypatch, tmp_path) as made:
        yield made


def said(name: str, revision: str | None = None) -> str:
    with pytest.raises(JobError) as error:
        see_model("model", name, revision)
    return str(error.value)


def test_a_name_that_stands_for_nothing_is_said_with_a_near_one_that_is_here(hub: Any) -> None:
    hub.has("Qwen/Qwen3-8B")
    told = said("Qwen/Qwen3-8BB")
    assert told.startswith(f"model 'Qwen/Qwen3-8BB' is neither on this machine nor on {hub.url} ")
    assert "(did you mean 'Qwen/Qwen3-8B'?)" in told
    assert told.endswith("a private one, which needs a token (hf auth login, or HF_TOKEN in the environment)")


def test_where_none_that_is_here_is_near_the_hub_s_search_is_asked(hub: Any) -> None:
    hub.found = ["Qwen/Qwen3-8B", "other/Qwen3-8B-GGUF"]
    assert "(did you mean 'Qwen/Qwen3-8B'?)" in said("Qwem/Qwen3-8B")


def test_with_a_token_a_private_model_is_one_that_it_does_not_open(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret_of_the_test")
    told = said("me/mine")
    assert "a private one, which the token that is set does not open" in told
    assert "hf_secret" not in told


@pytest.mark.parametrize(
    ("token", "rest"), [("", r"token of that account .*: none is set"), ("hf_x", r"of an account that is not")]
)
def test_a_model_with_terms_says_where_to_agree_to_them(
    hub: Any, monkeypatch: pytest.MonkeyPatch, token: str, rest: str
) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    hub.answers["meta/llama"] = (403 if token else 401, "GatedRepo")
    with pytest.raises(JobError, match=rf"agreed to its terms: do so on {hub.url}/meta/llama, and .*{rest}$"):
        see_model("model", "meta/llama")


def test_a_revision_that_is_not_there_is_said(hub: Any) -> None:
    hub.answers["a/b"] = (404, "RevisionNotFound")
    assert said("a/b", "v9") == f"model 'a/b' has no revision 'v9' on {hub.url}: give a branch, a tag or a commit of it"
    assert hub.asked == ["a/b@v9"]


def test_a_token_that_the_hub_does_not_know_is_said(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    hub.answers["a/b"] = (403, "")
    assert "does not give it to you" in said("a/b")


@pytest.mark.parametrize("answer", [(200, ""), (404, "EntryNotFound"), (503, "")], ids=str)
def test_what_is_there_or_may_be_in_a_moment_is_left_to_the_engine(hub: Any, answer: tuple[int, str]) -> None:
    hub.answers["a/b"] = answer
    see_model("model", "a/b:Q4_K_M")
    see_model("model", "a/b:Q4_K_M")
    assert hub.asked == ["a/b@main"]


def test_of_what_is_here_the_hub_is_not_asked(hub: Any, tmp_path: Path) -> None:
    hub.has("a/b")
    see_model("model", "a/b")
    see_model("model", str(tmp_path))
    assert hub.asked == []


def test_without_a_network_what_is_here_is_named(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.has("org/model-a")
    told = said("org/model-b")
    assert told.startswith("model 'org/model-b' is not on this machine (did you mean 'org/model-a'?), and nothing is")
    assert hub.asked == []


def test_a_hub_that_cannot_be_reached_is_no_mistake_in_the_job(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    with pytest.raises(EngineError, match=r"^model 'a/b' is not on this machine, and http://127.0.0.1:9 cannot be"):
        see_model("model", "a/b")


@pytest.mark.parametrize("place", ["./models/x", "/models/x", "a b", "a/b/c", "--x/../y"])
def test_what_can_be_no_name_is_a_folder_that_is_not_there(place: str) -> None:
    assert "there is no such folder, and it is no hub name" in said(place)


@pytest.mark.parametrize("engine", ["vllm", "transformers"])
def test_a_run_says_it_before_its_engine_is_imported_and_a_corrected_one_goes_on_in_the_folder(
    hub: Any, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("the engine was made")

    monkeypatch.setattr(f"llmbatch.engines.{engine}.engine.{engine.capitalize()}Engine.__init__", fail)
    (tmp_path / "rows.jsonl").write_text('{"text": "x"}\n')
    job = ["--prompt", "{{ text }}", "--input", str(tmp_path / "rows.jsonl"), "--output", str(tmp_path / "out")]
    done = CliRunner().invoke(main, ["run", "--engine", engine, "--model", "Qwen/Qwen3-8BB", *job])
    assert done.exit_code == 2
    assert "Error: model 'Qwen/Qwen3-8BB' is neither on this machine nor on" in done.stderr
    done = CliRunner().invoke(main, ["run", "--engine", "scripted", "--model", "any", *job, "--quiet"])
    assert (done.exit_code, done.stderr) == (0, "")


def test_an_adapter_that_is_not_there_is_named_by_its_setting(hub: Any) -> None:
    with pytest.raises(JobError, match=r"^engine\.lora\.french 'me/french' is neither on this machine"):
        see_model("engine.lora.french", "me/french")
