"""Live requests on a real vLLM engine, beside a batch that has all its places: streams, priority, and clients that go away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llmbatch.core.tools import call_of, schema_of
from llmbatch.core.types import Completion, Constraint, Outcome, Piece, Prompt, Request, RequestKey, Sampling, Tools
from llmbatch.engines.making import Maker
from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.shared import SharedEngine
from llmbatch.job.job import DEMO_MODEL, job_from
from llmbatch.model.tokenizer import ChatSettings
from llmbatch.runs.brakes import Stop
from llmbatch.runs.session import run_job
from llmbatch.server.live import Live

pytestmark = pytest.mark.vllm

ARGS = {"enforce_eager": True, "kv_cache_memory_bytes": 1 << 28, "max_num_seqs": 4, "dtype": "float32"}
SYSTEM = {"role": "system", "content": "Translate to French."}
GREEDY = Sampling((("max_tokens", 40), ("temperature", 0.0)))
LONG = Sampling((("ignore_eos", True), ("max_tokens", 3500), ("temperature", 0.0)))


def asked(text: str, sampling: Sampling = GREEDY, constraint: Constraint | None = None) -> Request:
    return Request(RequestKey(3), Prompt(messages=(SYSTEM, {"role": "user", "content": text})), sampling, constraint)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedEngine]:
    folder = tmp_path_factory.mktemp("engine")
    make = Maker(
        str(DEMO_MODEL), EngineSettings(args=ARGS, in_process=True, tool_call_parser="hermes"), ChatSettings(), folder
    )
    engine = SharedEngine(make, make.settings)
    yield engine
    engine.close()


async def until(seen: Callable[[], bool]) -> None:
    for _ in range(6000):
        if seen():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to that in a minute")


async def streamed(live: Live, request: Request) -> tuple[list[Piece], Outcome]:
    pieces: list[Piece] = []
    async for each in live.stream(request):
        if not isinstance(each, Piece):
            return pieces, each
        pieces.append(each)
    raise AssertionError("there was no outcome")


@pytest.mark.parametrize(
    ("sampling", "constraint"),
    [
        (GREEDY, None),
        (Sampling((("max_tokens", 40), ("stop", ("cent",)), ("temperature", 0.0))), None),
        (Sampling((("logprobs", 1), ("max_tokens", 40), ("temperature", 0.0))), None),
        (GREEDY, Constraint("choice", '["oui, oui, oui", "non, non, non"]')),
    ],
    ids=["plain", "stop", "logprobs", "choice"],
)
def test_a_stream_comes_to_the_answer_that_is_given_whole(
    shared: SharedEngine, sampling: Sampling, constraint: Constraint | None
) -> None:
    async def work() -> None:
        live = Live(shared)
        request = asked("six hundred and one", sampling, constraint)
        whole = await live.ask(request)
        pieces, outcome = await streamed(live, request)
        live.close()
        assert isinstance(whole, Completion)
        assert isinstance(outcome, Completion)
        assert len(pieces) > 1
        assert "".join(piece.text for piece in pieces) == outcome.text == whole.text
        assert (outcome.token_ids, outcome.logprobs) == (whole.token_ids, whole.logprobs)
        assert outcome.key == RequestKey(3)

    asyncio.run(asyncio.wait_for(work(), 240))


def test_live_requests_go_ahead_of_a_batch_and_leave_when_nobody_waits_for_them(
    shared: SharedEngine, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "six hundred"}\n' * 60)
    job = job_from(
        {
            "model": str(DEMO_MODEL), "prompt": {"path": "{{ text }}"}, "input": {"path": str(rows)},
            "output": str(tmp_path / "out"), "plan": {"fold": False}, "run": {"grace": 0},
            "sampling": {"ignore_eos": True, "max_tokens": 3500, "temperature": 0},
            "engine": {"args": ARGS, "in_process": True, "tool_call_parser": "hermes"},
        }
    )  # fmt: skip

    async def work() -> None:
        live, stop = Live(shared), Stop()
        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(run_job, job, stop=stop, driver=shared.share("batch"))
            await until(lambda: shared.in_flight > 0 and shared.waiting > 0)
            in_flight = shared.in_flight
            assert in_flight == ARGS["max_num_seqs"] - 1  # a place is kept free
            outcome = await live.ask(asked("six hundred and one"))
            assert isinstance(outcome, Completion)
            leaves = live.stream(asked("six", LONG))
            assert isinstance(await anext(leaves), Piece)
            await leaves.aclose()  # type: ignore[attr-defined]
            await until(lambda: shared.in_flight == in_flight)
            assert not run.done()
            stop.ask("the test says so")
            assert (await asyncio.to_thread(run.result)).outcome == "stopped"
        await until(lambda: shared.in_flight == 0)
        assert isinstance(await live.ask(asked("six hundred and one")), Completion)
        live.close()

    asyncio.run(asyncio.wait_for(work(), 240))


PARAMETERS = {
    "type": "object",
    "properties": {"count": {"enum": [7]}},
    "required": ["count"],
    "additionalProperties": False,
}
ORDER = {"type": "function", "function": {"name": "order", "parameters": PARAMETERS}}
CALL = '{"name": "order", "arguments": {"count": 7}}'


def offered(tools: Tools, constraint: Constraint) -> Request:
    prompt = Prompt(messages=(SYSTEM, {"role": "user", "content": "seven"}), tools=tools)
    return Request(RequestKey(3), prompt, Sampling((("max_tokens", 200), ("temperature", 0.0))), constraint)


def test_vllms_parser_reads_the_calls_of_a_model_that_is_free_to_call(shared: SharedEngine) -> None:
    # what this model says by itself is no call: it is held to one, with words before it
    held = Constraint("choice", json.dumps([f"oui, oui <tool_call>{CALL}</tool_call>"]))
    free = offered(Tools((ORDER,)), held)

    async def work() -> None:
        live = Live(shared)
        whole = await live.ask(free)
        assert isinstance(whole, Completion)
        assert (whole.text, whole.tool_calls) == ("oui, oui ", [call_of("order", '{"count": 7}')])
        pieces, streamed_whole = await streamed(live, free)
        assert "".join(piece.text for piece in pieces) == "oui, oui "
        assert len(pieces) > 1, "what comes before a call is told as it comes"
        assert isinstance(streamed_whole, Completion) and streamed_whole.tool_calls == whole.tool_calls
        as_text = await live.ask(offered(Tools((ORDER,), "none"), held))
        assert isinstance(as_text, Completion) and as_text.tool_calls is None
        assert as_text.text == f"oui, oui <tool_call>{CALL}</tool_call>"
        live.close()

    asyncio.run(asyncio.wait_for(work(), 240))


@pytest.mark.parametrize(
    "tools", [Tools((ORDER,), "required", parallel=False), Tools((ORDER,), "named", "order")], ids=lambda t: t.choice
)
def test_a_call_that_is_asked_for_comes_by_the_schema_of_vllms_own_server(shared: SharedEngine, tools: Tools) -> None:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionNamedToolChoiceParam as Named
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionToolsParam
    from vllm.tool_parsers.utils import get_json_schema_from_tools

    choice = "required" if tools.choice == "required" else Named(function={"name": "order"})
    theirs = get_json_schema_from_tools(choice, [ChatCompletionToolsParam(**ORDER)], tools.parallel)
    schema = schema_of(tools)
    assert schema == theirs

    async def work() -> None:
        live = Live(shared)
        request = offered(tools, Constraint("json", json.dumps(schema)))
        pieces, outcome = await streamed(live, request)
        assert isinstance(outcome, Completion) and outcome.tool_calls is not None
        assert pieces == []
        calls = [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in outcome.tool_calls]
        assert calls == [("order", {"count": 7})]
        live.close()

    asyncio.run(asyncio.wait_for(work(), 240))


def test_a_batch_with_tools_has_the_calls_in_its_records(shared: SharedEngine, tmp_path: Path) -> None:
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out"
    said = f"<tool_call>{CALL}</tool_call>"
    body = {
        "messages": [{"role": "user", "content": "seven"}], "tools": [ORDER], "structured_outputs": {"choice": [said]},
        "temperature": 0,
    }  # fmt: skip
    rows.write_text(json.dumps({"custom_id": "a", "body": body}) + "\n")
    engine = {"args": ARGS, "in_process": True, "tool_call_parser": "hermes"}
    job = job_from({"model": str(DEMO_MODEL), "input": {"path": str(rows)}, "output": str(out), "engine": engine})
    assert run_job(job, driver=shared.share("batch")).outcome == "finished"
    record = json.loads((out / "results.jsonl").read_text())
    assert (record["status"], record["output"]) == ("ok", None)
    assert record["tool_calls"] == [call_of("order", '{"count": 7}')]
