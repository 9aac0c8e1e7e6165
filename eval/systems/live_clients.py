"""Harnesses and data tools, unchanged, on ``llmbatch serve``'s live endpoints: rows of ``RESULTS.md``.

lm-evaluation-harness and Inspect run in our environment, litellm, distilabel and DataDesigner in their own. Where a task needs
sense the server has the demo model on vLLM; elsewhere the scripted engine, which says what it is told.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))
from batch_server import Served
from shown import EXAMPLES, HERE, ROOT, Missing, Shown, from_peer, tried, version_of

from llmbatch.job.job import DEMO_MODEL

SYSTEM, VERTA = "Harnesses and agents", "Verta"
_PEERS = ("litellm", "distilabel", "datadesigner")
_CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Bern"}}</tool_call>'
_RULES = [
    {"when": {"contains": "BOOM"}, "fail": "the model says no"},
    {"when": {"contains": "Is it raining"}, "answer": f"Let me see. {_CALL}"},
]
_SCRIPT = ("--set", f"engine.args.rules={json.dumps(_RULES)}", "--set", "engine.tool_call_parser=hermes")
_VLLM = ("--engine", "vllm", "--set", "engine.args.dtype=float32", "--set", "engine.args.enforce_eager=true")
_TASKS = ROOT / "eval" / "harness" / "tasks"
_LIMIT = 24
_GOOD = 0.8  # of the answers of the demo model are right at least: it translates numbers, and not all of them
_CHANCE = 0.25  # of four choices, asked without the model's chat template
_SECONDS = 600


def results() -> Iterator[Shown]:
    with tempfile.TemporaryDirectory(prefix="llmbatch-live-") as name:
        folder = Path(name)
        scripted, real = folder / "scripted", folder / "real"
        scripted.mkdir()
        real.mkdir()
        with Served(scripted, *_SCRIPT) as server:
            yield _row(
                SYSTEM,
                "Inspect: openai-api/SERVICE/MODEL, chat and Responses API",
                "inspect-ai",
                lambda: _inspect(server.place, scripted),
            )
            yield _row(
                SYSTEM,
                "Inspect: a tool is called and what it gave goes back, chat and Responses API",
                "inspect-ai",
                lambda: _inspect_tools(server.place, scripted),
            )
            for peer in _PEERS:
                claim, program = f"{peer} on the live endpoint", HERE / "live_clients_peer.py"
                yield from from_peer(
                    peer, program, (peer, server.place, str(scripted)), system=SYSTEM, claim=claim, seconds=_SECONDS
                )
            yield tried(
                VERTA, "our DeployedModel (both ends are ours): predict, batch_predict, gzip, and what the model refuses",
                "llmbatch.verta -> llmbatch serve", "", lambda: _verta(server.place),
            )  # fmt: skip
        with Served(real, *_VLLM) as server:
            for claim, show in _HARNESS:
                yield _row(SYSTEM, f"lm-eval: {claim}", "lm-eval", lambda show=show: show(server.place, real))  # type: ignore[misc]


def _row(system: str, claim: str, package: str, show: Callable[[], str]) -> Shown:
    try:
        number = version_of(package)
    except Missing as missing:
        return Shown(system, claim, f"{package} -> llmbatch serve", "", None, str(missing))
    return tried(system, claim, f"{package} -> llmbatch serve", number, show)


def _inspect(place: str, folder: Path) -> str:
    """An evaluation whose answers are what was asked, by each of the two APIs."""
    from inspect_ai import Task
    from inspect_ai.dataset import Sample
    from inspect_ai.scorer import exact
    from inspect_ai.solver import generate

    texts = [f"text {number}" for number in range(20)]
    return _by_each_api(
        place, folder, Task([Sample(text, target=text) for text in texts], solver=generate(), scorer=exact())
    )


def _inspect_tools(place: str, folder: Path) -> str:
    """An evaluation whose answers are what a tool gave, which the model called."""
    from inspect_ai import Task
    from inspect_ai.dataset import Sample
    from inspect_ai.scorer import exact
    from inspect_ai.solver import generate, use_tools
    from inspect_ai.tool import tool

    @tool
    def weather() -> Any:
        async def execute(city: str) -> str:
            """Say how the weather is.

            Args:
                city: Where.
            """
            return f"rain in {city}"

        return execute

    samples = [Sample(f"Is it raining, {number}?", target="rain in Bern") for number in range(20)]
    return _by_each_api(place, folder, Task(samples, solver=[use_tools(weather()), generate()], scorer=exact()))


def _by_each_api(place: str, folder: Path, task: Any) -> str:
    from inspect_ai import eval as inspect
    from inspect_ai.model import get_model

    said = []
    for responses in (False, True):
        model = get_model(
            "openai-api/ours/demo",
            base_url=f"http://{place}/v1",
            api_key="none",
            responses_api=responses,
            memoize=False,
        )
        (log,) = inspect(
            task, model=model, log_dir=str(folder / "inspect"), display="none", temperature=0.0, max_tokens=256
        )
        assert log.status == "success" and log.results is not None, log.error
        mean = log.results.scores[0].metrics["mean"].value
        assert mean == 1.0, mean
        said.append(f"{log.results.completed_samples} samples, mean {mean:g}")
    return f"chat: {said[0]}; Responses: {said[1]}"


def _lm_eval(place: str, folder: Path, model: str, path: str, task: str, *more: str, settings: str = "") -> Any:
    """The harness's own command on a model that is the server: what it found. Raises ``AssertionError`` with how it ended."""
    return _harness(folder, model, f"model=demo,base_url=http://{place}/v1/{path},max_retries=1{settings}", task, *more)


def _harness(folder: Path, model: str, given: str, task: str, *more: str) -> Any:
    """The harness's own command on tasks of this repository."""
    out = folder / f"{model}-{task}"
    command = [
        sys.executable, "-m", "lm_eval", "--model", model, "--model_args", given, "--tasks", task, "--include_path", str(_TASKS),
        "--limit", str(_LIMIT), "--output_path", str(out), *more,
    ]  # fmt: skip
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(folder / "datasets"),
    }
    done = subprocess.run(
        command, cwd=_TASKS, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    assert done.returncode == 0, _why(done.stderr)
    (found,) = out.rglob("results_*.json")
    return json.loads(found.read_text())["results"][task]


def _why(log: str) -> str:
    """What the server said, of a harness's log that ends with where in the harness it was."""
    said = [line for line in log.splitlines() if "API request failed" in line]
    return said[-1] if said else log[-300:]


def _good(found: Any) -> float:
    score: float = found["exact_match,none"]
    assert score >= _GOOD, score
    return score


def _chat(place: str, folder: Path) -> str:
    found = _lm_eval(place, folder, "local-chat-completions", "chat/completions", "numbers_generate", "--apply_chat_template",
                     settings=",num_concurrent=8")  # fmt: skip
    return f"exact match {_good(found):g} of {_LIMIT} documents, eight at a time"


def _completions(place: str, folder: Path) -> str:
    found = _lm_eval(
        place, folder, "local-completions", "completions", "numbers_generate", "--apply_chat_template", "--batch_size", "4",
        settings=f",num_concurrent=4,tokenizer={DEMO_MODEL}",
    )  # fmt: skip
    return f"exact match {_good(found):g} of {_LIMIT} documents, as token ids, four to a request"


def _likelihoods(place: str, folder: Path) -> str:
    """By the log-probabilities of prompts (echo with logprobs), one document at a time and four; and by the harness's own ``hf``.

    That one is to add up in double precision, as the harness does with what a server says. In single precision, its default, the
    first two of the four choices of one document are equally likely, though the second is the beginning of the first; of such a
    tie the first counts, which is the right one.
    """
    found = []
    for size in ("1", "4"):
        each = folder / size
        each.mkdir()
        said = _lm_eval(
            place, each, "local-completions", "completions", "numbers_choice", "--batch_size", size,
            settings=f",num_concurrent=2,tokenizer={DEMO_MODEL}",
        )  # fmt: skip
        found.append(said["acc,none"])
    double = f"pretrained={DEMO_MODEL},dtype=float32,softmax_dtype=float64"
    found.append(_harness(folder, "hf", double, "numbers_choice", "--device", "cpu", "--batch_size", "4")["acc,none"])
    assert found[0] == found[1] == found[2] > _CHANCE, found
    return f"accuracy {found[0]:g} of {_LIMIT} documents, one and four to a request, and by the harness's own hf in doubles"


_HARNESS = (
    ("local-chat-completions on a task of answers (generate_until), demo model on vLLM", _chat),
    ("local-completions on the same, several prompts to a request, demo model on vLLM", _completions),
    (
        "local-completions on a task of likelihoods (loglikelihood: echo with logprobs), demo model on vLLM",
        _likelihoods,
    ),
)


def _verta(place: str) -> str:
    import pandas as pd

    from llmbatch.verta import DeployedModel

    model = DeployedModel(f"http://{place}/api/v1/predict/model-1")
    frame = pd.read_csv(EXAMPLES / "verta" / "frame.csv", index_col="row")
    assert model.predict("one loaf of rye") == "one loaf of rye"
    assert model.predict_with_id({"prompt": "two jars", "max_tokens": 64}, prediction_id="mine") == ("mine", "two jars")
    found = model.batch_predict(frame, batch_size=2, compress=True)
    assert found.index.equals(frame.index) and list(found.columns) == ["output"], found
    assert found["output"].tolist() == frame["prompt"].tolist(), found
    try:
        model.predict("BOOM")
    except RuntimeError as error:
        return f"a frame of {len(found)} rows; of the text that is refused: {error}"
    raise AssertionError("what the model refuses was answered")
