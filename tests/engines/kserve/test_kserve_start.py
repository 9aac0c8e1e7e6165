"""What is found wrong before the first row: servers that are not there, not ready or something else, models, names and settings."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import EngineDied, EngineError, JobError
from llmbatch.core.types import Prompt, Request, RequestKey, Sampling
from llmbatch.engines.base import EngineInfo
from llmbatch.engines.feed import Feed
from llmbatch.engines.kinds import checked, kind_of, make_engine
from llmbatch.engines.kserve.settings import KserveSettings
from llmbatch.engines.settings import EngineSettings
from llmbatch.model.tokenizer import ChatSettings

Serve = Callable[..., tuple[Any, str]]
NOBODY = "http://127.0.0.1:9"  # the port of the discard service, which nobody runs


def engine_at(folder: Path, url: str, model: str = "vllm_model", **settings: Any) -> Any:
    given = KserveSettings.model_validate({"name": "kserve", "urls": url, **settings})
    return make_engine(model, given, ChatSettings(), folder / "engine.log")


def started(folder: Path, url: str, model: str = "vllm_model", **settings: Any) -> EngineInfo:
    engine = engine_at(folder, url, model, **settings)
    try:
        info: EngineInfo = engine.start()
    finally:
        engine.stop()
    return info


@pytest.mark.parametrize(
    ("model", "protocol", "dialect", "rows", "can"),
    [
        ("vllm_model", "v2", "triton-vllm", 1, {"cancel", "constraint", "lora"}),
        ("batched", "v2", "plain", 8, set()),
        ("decoupled", "generate", "triton-vllm", 1, {"cancel", "constraint", "lora"}),
        ("echo", "v2", "plain", 1, {"cancel"}),
    ],
)
def test_what_the_model_is_is_found_out(
    tmp_path: Path, serve: Serve, model: str, protocol: str, dialect: str, rows: int, can: set[str]
) -> None:
    info = started(tmp_path, serve()[1], model)
    how = {name: info.details[name] for name in ("protocol", "dialect", "rows_in_a_request")}
    assert how == {"protocol": protocol, "dialect": dialect, "rows_in_a_request": rows}
    assert info.can == can
    assert info.context_length is None
    assert info.version == ("stand-in 1.0" if model == "echo" else "stand-in 1.0, model version 1")


def test_a_model_that_is_not_there_is_said_with_those_that_are(tmp_path: Path, serve: Serve) -> None:
    said = r"no model 'vllm_modal' \(did you mean 'vllm_model'\?\): it has batched, decoupled, echo, vllm_model"
    with pytest.raises(JobError, match=said):
        started(tmp_path, serve()[1], "vllm_modal")


def test_a_version_that_is_not_there_is_said(tmp_path: Path, serve: Serve) -> None:
    _, url = serve()
    assert started(tmp_path, url, version="1").name == "kserve"
    with pytest.raises(JobError, match="no version '7' of the model 'vllm_model' ready"):
        started(tmp_path, url, version="7", ready_within=0)


def test_what_the_server_calls_the_model_may_be_another_name_than_the_jobs(tmp_path: Path, serve: Serve) -> None:
    assert started(tmp_path, serve()[1], "org/words", served_name="echo").model == "echo"


def test_a_server_that_is_not_there_is_an_error_with_its_url(tmp_path: Path) -> None:
    with pytest.raises(
        EngineError, match=r"127\.0\.0\.1:9 cannot be reached.*Is the server up, and engine.urls right\?"
    ):
        started(tmp_path, NOBODY)


def test_one_server_of_two_is_enough(tmp_path: Path, serve: Serve) -> None:
    assert started(tmp_path, f"{NOBODY},{serve()[1]}").name == "kserve"
    assert "127.0.0.1:9 cannot be reached" in (tmp_path / "engine.log").read_text()


def test_servers_with_different_models_of_one_name_do_not_go_together(tmp_path: Path, serve: Serve, v2: Any) -> None:
    other = ({**v2.UNTOLD[0], "versions": ["2"]}, None)
    with pytest.raises(JobError, match=r"the model 'echo' at .* is another one than elsewhere"):
        started(tmp_path, f"{serve()[1]},{serve(models=(other,))[1]}", "echo")


@pytest.mark.parametrize("path", ["", "/v1"])
def test_a_server_of_something_else_is_told_apart(tmp_path: Path, serve: Serve, path: str) -> None:
    _, url = serve(html=not path)
    with pytest.raises(EngineError, match="does not speak the V2 protocol"):
        started(tmp_path, url + path)


def test_a_wrong_key_is_said_with_the_servers_words_and_where_it_comes_from(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, url = serve(key="right-key")
    monkeypatch.setenv("OUR_KEY", "wrong-key")
    said = r"denies access \(status 401\): no such key\. .*engine\.key_env"
    for settings in ({}, {"key_env": "OUR_KEY"}):
        with pytest.raises(JobError, match=said) as denied:
            started(tmp_path, url, **settings)
        assert "wrong-key" not in str(denied.value)
    assert server.seen == []


@pytest.mark.parametrize("denied", ["/config", "/v2"])
def test_what_a_server_need_not_tell_it_may_deny(
    tmp_path: Path, serve: Serve, v2: Any, monkeypatch: pytest.MonkeyPatch, denied: str
) -> None:
    answers, asked = v2.StandIn.reply, list[str]()

    def reply(self: Any, path: str, *more: Any) -> Any:
        asked.append(path)
        return v2.Reply(403, {"error": "no"}) if path.endswith(denied) else answers(self, path, *more)

    monkeypatch.setattr(v2.StandIn, "reply", reply)
    assert started(tmp_path, serve()[1]).name == "kserve"
    assert any(path.endswith(denied) for path in asked)


def test_a_certificate_that_does_not_verify_is_said_and_can_be_trusted(
    tmp_path: Path, serve: Serve, certificate: tuple[Path, Any]
) -> None:
    pem, context = certificate
    _, url = serve(tls=context)
    with pytest.raises(JobError, match=r"its certificate does not verify: .* with engine\.ca_file$"):
        started(tmp_path, url)
    assert started(tmp_path, url, ca_file=str(pem)).name == "kserve"


def test_a_server_that_is_not_ready_is_waited_for(tmp_path: Path, serve: Serve) -> None:
    server, url = serve(ready=False)
    timer = threading.Timer(0.3, lambda: setattr(server, "ready", True))
    timer.start()
    assert started(tmp_path, url).name == "kserve"
    timer.join()


def test_a_server_that_does_not_get_ready_is_an_error(tmp_path: Path, serve: Serve) -> None:
    with pytest.raises(EngineError, match="not ready within 0 s"):
        started(tmp_path, serve(ready=False)[1], ready_within=0)


@pytest.mark.parametrize(
    ("model", "settings", "said"),
    [
        ("decoupled", {"protocol": "v2"}, "answers come by the generate endpoint alone"),
        ("batched", {"batch": 9}, "takes at most 8 in a request"),
        ("vllm_model", {"input": "words"}, r"no words input: engine.input names one of text_input \(BYTES\)"),
        ("vllm_model", {"output": "words"}, r"no words output: engine.output names one of text_output \(BYTES\)"),
        (
            "vllm_model",
            {"inputs": {"words": 1}},
            "engine.inputs: the model 'vllm_model' at .* has no words; it has text_input",
        ),
        ("/models/words", {}, "is a folder here, and the server has a name for it"),
        ("vllm_model", {"key_env": "NO_SUCH_KEY_HERE"}, "the environment variable NO_SUCH_KEY_HERE is not set"),
    ],
)
def test_settings_that_the_model_does_not_have_are_errors(
    tmp_path: Path, serve: Serve, model: str, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(JobError, match=said):
        started(tmp_path, serve()[1], model, **settings)


def test_a_model_of_another_kind_is_told_by_its_inputs(tmp_path: Path, serve: Serve, v2: Any) -> None:
    picture = ({**v2.UNTOLD[0], "inputs": [{"name": "image", "datatype": "FP32", "shape": [3, 224, 224]}]}, None)
    with pytest.raises(JobError, match=r"no one text input: engine.input names one of image \(FP32\)"):
        started(tmp_path, serve(models=(picture,))[1], "echo")


def test_an_input_that_the_model_requires_is_given_a_value_for_all_rows(tmp_path: Path, serve: Serve, v2: Any) -> None:
    inputs = [{"name": name, "datatype": "BYTES", "shape": [1]} for name in ("text_input", "language")]
    config = {"input": [{"name": "text_input", "optional": False}, {"name": "language", "optional": False}]}
    server, url = serve(models=(({**v2.UNTOLD[0], "inputs": inputs}, config),))
    with pytest.raises(JobError, match="requires language, which no setting goes to"):
        started(tmp_path, url, "echo")
    engine = engine_at(tmp_path, url, "echo", inputs={"language": "en"})
    engine.start()
    feed = Feed()
    feed.push([Request(RequestKey(0), Prompt(text="hello"), Sampling())])
    feed.close()
    for outcomes in engine.stream(feed):
        for outcome in outcomes:
            feed.done(outcome.key)
    engine.stop()
    assert (server.seen[0].prompts, server.seen[0].values) == (("hello",), {"language": "en"})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "engine.urls is missing"),
        (
            {"urls": NOBODY, "args": {"dtype": "float32"}},
            "engine.args.dtype: a server is given its arguments where it is started",
        ),
        ({"urls": NOBODY, "reasoning_parser": "qwen3"}, "engine.reasoning_parser: text is all"),
        ({"urls": NOBODY, "tool_call_parser": "hermes"}, "engine.tool_call_parser: text is all"),
        ({"urls": NOBODY, "replicas": 2}, "engine.urls"),
    ],
    ids=["no-url", "args", "reasoning", "calls", "replicas"],
)
def test_settings_that_are_not_for_a_server_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        KserveSettings.model_validate({"name": "kserve", **settings})


def test_where_the_server_is_changes_no_answer_and_its_tokenizer_may() -> None:
    kind = kind_of("kserve")
    settings = checked(EngineSettings.model_validate({"name": "scripted"}))
    with pytest.raises(JobError, match="the engine is kserve"):
        kind.models(settings, "m")
    given = KserveSettings(name="kserve", urls=[NOBODY], tokenizer="org/words")
    assert [(each.setting, each.place) for each in kind.models(given, "m")] == [("engine.tokenizer", "org/words")]
    assert kind.identity(given) == {}


def test_a_server_that_goes_away_is_a_death_that_no_row_is_suspected_of(tmp_path: Path, v2: Any) -> None:
    server = v2.StandIn()
    with v2.serving(server) as url:
        engine = engine_at(tmp_path, url, timeout=0.4)
        engine.start()
    feed = Feed()
    feed.push([Request(RequestKey(0), Prompt(text="hello"), Sampling())])
    feed.close()
    with pytest.raises(EngineDied, match="no sign of life") as death:
        list(itertools.islice(engine.stream(feed), 60))
    assert death.value.suspect is False
    engine.stop()
    engine.stop()
