"""Live requests on a shared scripted engine, beside runs and alone."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmbatch.core.errors import EngineError
from llmbatch.core.record import record_to_line
from llmbatch.core.types import Completion, Outcome, Piece, Prompt, Refusal, Request, RequestKey, Sampling
from llmbatch.engines.making import Maker
from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.shared import SharedEngine
from llmbatch.job.job import Job, job_from
from llmbatch.model.tokenizer import ChatSettings
from llmbatch.runs.session import run_job
from llmbatch.server.answering import Answering
from llmbatch.server.live import Live

GREEDY = Sampling((("temperature", 0),))
SCHEMA = {"type": "object", "properties": {"score": {"type": "integer", "minimum": 3}}, "required": ["score"]}


def asked(text: str, index: int = 7) -> Request:
    return Request(RequestKey(index), Prompt(text=text), GREEDY)


async def until(seen: Callable[[], bool]) -> None:
    for _ in range(6000):
        if seen():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to that in a minute")


def settings_of(folder: Path, script: Mapping[str, Any], **more: Any) -> EngineSettings:
    path = folder / "script.yaml"
    path.write_text(yaml.safe_dump(dict(script)), encoding="utf-8")
    return EngineSettings(name="scripted", script=str(path), **more)


def with_engine(
    folder: Path, script: Mapping[str, Any], work: Callable[[SharedEngine], Coroutine[Any, Any, None]], **more: Any
) -> None:
    """Do work beside a shared engine, which ends with it."""
    settings = settings_of(folder, script, **more)
    make = Maker("any", settings, ChatSettings(), folder)
    shared = SharedEngine(make, make.settings)
    try:
        asyncio.run(asyncio.wait_for(work(shared), 120))
    finally:
        shared.close()


async def streamed(live: Live, request: Request) -> tuple[list[Piece], Outcome]:
    pieces: list[Piece] = []
    async for each in live.stream(request):
        if not isinstance(each, Piece):
            return pieces, each
        pieces.append(each)
    raise AssertionError("there was no outcome")


def test_an_answer_comes_under_the_requests_own_key(tmp_path: Path) -> None:
    async def work(shared: SharedEngine) -> None:
        outcome = await Live(shared).ask(asked("hello"))
        assert isinstance(outcome, Completion)
        assert (outcome.key, outcome.text) == (RequestKey(7), "hello")

    with_engine(tmp_path, {}, work)


@pytest.mark.parametrize("engine", [{}, {"hosted": True}, {"replicas": 2}], ids=["here", "hosted", "two"])
@pytest.mark.parametrize("latency", [0.0, 0.05])
def test_the_pieces_of_a_stream_are_its_answer_and_come_one_by_one(
    tmp_path: Path, engine: dict[str, Any], latency: float
) -> None:
    async def work(shared: SharedEngine) -> None:
        pieces, outcome = await streamed(Live(shared), asked("one  two\nthree é"))
        assert [piece.text for piece in pieces] == ["one  ", "two\n", "three ", "é"]
        assert [piece.start for piece in pieces] == [0, 5, 9, 15]
        assert {piece.key for piece in pieces} == {RequestKey(7)}
        assert isinstance(outcome, Completion)
        assert outcome.text == "one  two\nthree é"

    with_engine(tmp_path, {"latency": latency}, work, **engine)


def test_log_probabilities_come_with_the_pieces(tmp_path: Path) -> None:
    async def work(shared: SharedEngine) -> None:
        request = Request(RequestKey(0), Prompt(text="é b"), Sampling((("logprobs", 0),)))
        pieces, outcome = await streamed(Live(shared), request)
        assert isinstance(outcome, Completion)
        assert [entry for piece in pieces for entry in piece.logprobs or ()] == outcome.logprobs

    with_engine(tmp_path, {}, work)


def test_an_engine_that_cannot_stream_gives_the_whole_answer_as_one_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmbatch.engines.feed.Feed.tell", lambda self, pieces: None)

    async def work(shared: SharedEngine) -> None:
        pieces, outcome = await streamed(Live(shared), asked("one two"))
        assert [piece.text for piece in pieces] == ["one two"]
        assert isinstance(outcome, Completion)

    with_engine(tmp_path, {}, work)


def test_the_first_piece_is_there_before_the_answer_is(tmp_path: Path) -> None:
    """The engine hangs on another request meanwhile, so it is not that all came at the end of a step."""

    async def work(shared: SharedEngine) -> None:
        live = Live(shared)
        async for each in live.stream(asked("one two three")):
            assert isinstance(each, Piece)
            assert live.in_flight == 1
            break

    with_engine(tmp_path, {"latency": 0.5}, work)


@pytest.mark.parametrize("hosted", [False, True])
def test_a_live_request_is_answered_beside_a_batch_that_has_all_places(tmp_path: Path, hosted: bool) -> None:
    script = {"rules": [{"when": {"contains": "batch"}, "hang": True}], "concurrency": 2, "latency": 0.001}
    job = job_of(tmp_path, script, [{"id": i, "text": f"batch {i}"} for i in range(80)], run={"grace": 0})

    async def work(shared: SharedEngine) -> None:
        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(run_job, job, driver=shared.share("batch"))
            await until(lambda: shared.in_flight >= 2)
            await until(lambda: shared.waiting > 0)
            outcome = await Live(shared).ask(asked("live"))
            assert isinstance(outcome, Completion)
            await asyncio.to_thread(shared.close)
            with pytest.raises(EngineError):
                run.result()

    with_engine(tmp_path, script, work, hosted=hosted)


def job_of(folder: Path, script: Mapping[str, Any], rows: list[dict[str, Any]], **sections: Any) -> Job:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return job_from(
        {
            "model": "any",
            "input": {"path": str(path)},
            "prompt": {"path": "{{ text }}"} if "text" in rows[0] else None,
            "output": str(folder / "out"),
            "engine": settings_of(folder, script).model_dump(exclude_unset=True),
            "sampling": {"temperature": 0},
            **sections,
        }
    )


@pytest.mark.parametrize("hosted", [False, True])
def test_a_request_whose_client_went_away_leaves_the_engine(tmp_path: Path, hosted: bool) -> None:
    async def work(shared: SharedEngine) -> None:
        live = Live(shared)
        waits = asyncio.create_task(live.ask(asked("hang")))
        await until(lambda: shared.in_flight == 1)
        waits.cancel()
        await until(lambda: shared.in_flight == 0)
        assert live.in_flight == 0
        assert isinstance(await live.ask(asked("hello")), Completion)

    with_engine(tmp_path, {"rules": [{"when": {"contains": "hang"}, "hang": True}]}, work, hosted=hosted)


def test_a_stream_that_is_left_half_way_leaves_the_engine(tmp_path: Path) -> None:
    async def work(shared: SharedEngine) -> None:
        live = Live(shared)
        stream = live.stream(asked("one two three four"))
        assert isinstance(await anext(stream), Piece)
        await stream.aclose()  # type: ignore[attr-defined]
        await until(lambda: shared.in_flight == 0)

    with_engine(tmp_path, {"latency": 0.5}, work)


def test_a_stream_goes_on_where_it_was_when_the_engine_died(tmp_path: Path) -> None:
    script = {"rules": [{"when": {"contains": "kill"}, "die": True, "times": 1}], "latency": 0.3}

    async def work(shared: SharedEngine) -> None:
        live = Live(shared)
        stream = live.stream(asked("one two three four five"))
        pieces = [await anext(stream)]
        killer = asyncio.create_task(streamed(live, asked("kill")))  # it dies of the first word
        pieces += [each async for each in stream]
        assert "".join(piece.text for piece in pieces if isinstance(piece, Piece)) == "one two three four five"
        assert isinstance(pieces[-1], Completion)
        assert isinstance((await killer)[1], Completion)
        assert shared.account.deaths == 1

    with_engine(tmp_path, script, work)


def test_a_stream_that_comes_out_otherwise_after_a_death_says_so(tmp_path: Path) -> None:
    script = {
        "rules": [
            {"when": {"contains": "kill"}, "die": True, "times": 1},
            {"when": {"contains": "one"}, "answer": "one two three four", "times": 1},
            {"when": {"contains": "one"}, "answer": "two three four five"},
        ],
        "latency": 0.3,
    }

    async def work(shared: SharedEngine) -> None:
        live = Live(shared)
        stream = live.stream(asked("one"))
        assert isinstance(await anext(stream), Piece)
        killer = asyncio.create_task(streamed(live, asked("kill")))  # it dies of the first word
        with pytest.raises(EngineError, match="answers otherwise"):
            async for _ in stream:
                pass
        await killer

    with_engine(tmp_path, script, work)


def test_whoever_waits_for_an_engine_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    async def work(shared: SharedEngine) -> None:
        live = Live(shared)
        told = await asyncio.gather(live.ask(asked("a")), live.info(), live.ask(asked("b")), return_exceptions=True)
        assert [type(each) for each in told] == [EngineError] * 3
        with pytest.raises(EngineError):
            await live.ask(asked("later"))

    with_engine(tmp_path, {"out_of_memory_above": 0}, work)


def test_closing_tells_whoever_waits(tmp_path: Path) -> None:
    async def work(shared: SharedEngine) -> None:
        live = Live(shared)
        waits = asyncio.create_task(live.ask(asked("hang")))
        await until(lambda: shared.in_flight == 1)
        live.close()
        with pytest.raises(EngineError, match="ending"):
            await waits
        await until(lambda: shared.in_flight == 0)

    with_engine(tmp_path, {"rules": [{"hang": True}]}, work)


# as a line of a batch


def line(body: Mapping[str, Any], custom_id: str = "a") -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": {"model": "any", **body}}


def chat(text: str, **body: Any) -> dict[str, Any]:
    return line({"messages": [{"role": "user", "content": text}], **body})


LINES = {
    "plain": chat("hello"),
    "several": chat("hello", n=3, seed=5, temperature=1),
    "schema": chat("hello", response_format={"type": "json_schema", "json_schema": {"name": "o", "schema": SCHEMA}}),
    "cut-off": chat("hello there", max_completion_tokens=4),
    "logprobs": chat("hi", logprobs=True, top_logprobs=2),
    "stop": chat("hello", stop=["x"]),
    "unknown": chat("hello", colour="blue"),
    "blank": chat(" "),
    "too-long": chat("x" * 3000),
    "retried": chat("retried"),
}


@pytest.mark.parametrize("name", LINES)
def test_a_live_request_comes_to_the_record_of_the_same_line_of_a_batch(tmp_path: Path, name: str) -> None:
    script = {
        "rules": [{"when": {"contains": "retried", "attempt": 1}, "answer": ""}],
        "context_length": 2000,
        "latency": 0.001,
    }
    job = job_of(tmp_path, script, [LINES[name]], input={"path": str(tmp_path / "rows.jsonl"), "format": "openai"})
    run_job(job)

    async def work(shared: SharedEngine) -> None:
        record = await Answering(shared, job).answer(LINES[name], "a")
        assert record_to_line(record) == (job.output / "results.jsonl").read_bytes()

    with_engine(tmp_path, script, work)


def test_those_that_come_first_all_know_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found out in a thread: whoever comes meanwhile must not be asked as if nothing were known of the engine."""
    script = {"context_length": 2000}
    know = Answering._know
    monkeypatch.setattr(Answering, "_know", lambda self, info: (time.sleep(0.1), know(self, info)))

    async def work(shared: SharedEngine) -> None:
        answering = Answering(shared, openai_job(tmp_path, script))
        records = await asyncio.gather(*(answering.answer(LINES["too-long"]) for _ in range(4)))
        assert [record.failure and record.failure.kind for record in records] == ["too_long"] * 4

    with_engine(tmp_path, script, work)


def openai_job(folder: Path, script: Mapping[str, Any], **sections: Any) -> Job:
    given = {"input": {"path": str(folder / "rows.jsonl"), "format": "openai"}, **sections}
    return job_of(folder, script, [LINES["plain"]], **given)


def test_a_stream_of_several_answers_says_of_which_each_piece_is(tmp_path: Path) -> None:
    rules = [{"answer": "sample {sample} of it"}]

    async def work(shared: SharedEngine) -> None:
        answering = Answering(shared, openai_job(tmp_path, {"rules": rules}))
        text = {0: "", 1: ""}
        outcomes: dict[int, Outcome] = {}
        async for each in answering.stream(chat("x", n=2, seed=1)):
            if isinstance(each, Piece):
                text[each.key.sample] += each.text
            else:
                outcomes[each.key.sample] = each
        assert text == {0: "sample 0 of it", 1: "sample 1 of it"}
        assert sorted(outcomes) == [0, 1]

    with_engine(tmp_path, {"rules": rules}, work)


@pytest.mark.parametrize("name", ["unknown", "too-long"])
def test_a_stream_of_what_cannot_be_asked_is_a_refusal(tmp_path: Path, name: str) -> None:
    script = {"context_length": 2000}

    async def work(shared: SharedEngine) -> None:
        answering = Answering(shared, openai_job(tmp_path, script))
        (refusal,) = [each async for each in answering.stream(LINES[name])]
        assert isinstance(refusal, Refusal)

    with_engine(tmp_path, script, work)


@pytest.mark.parametrize("fold", [False, True])
def test_equal_requests_are_asked_once_where_that_is_asked_for(tmp_path: Path, fold: bool) -> None:
    script = {"latency": 0.05}

    async def work(shared: SharedEngine) -> None:
        answering = Answering(shared, openai_job(tmp_path, script), fold=fold)
        records = await asyncio.gather(*(answering.answer(chat("hello", temperature=0)) for _ in range(5)))
        records.append(await answering.answer(chat("hello", temperature=0)))
        assert {record.output for record in records} == {"hello"}
        each = records[0].usage.prompt_tokens
        assert shared.account.usage.prompt_tokens == each * (1 if fold else 6)

    with_engine(tmp_path, script, work)


def test_a_folded_request_is_answered_though_the_client_that_asked_first_went_away(tmp_path: Path) -> None:
    script = {"latency": 0.2}

    async def work(shared: SharedEngine) -> None:
        answering = Answering(shared, openai_job(tmp_path, script), fold=True)
        first, second = (asyncio.create_task(answering.answer(chat("hello", temperature=0))) for _ in range(2))
        await until(lambda: shared.in_flight == 1)
        first.cancel()
        assert (await second).output == "hello"

    with_engine(tmp_path, script, work)


def test_what_was_answered_while_the_cache_was_read_is_not_asked_again(tmp_path: Path) -> None:
    async def work(shared: SharedEngine) -> None:
        reuse = {"cache": str(tmp_path / "answers.cache")}
        answering = Answering(shared, openai_job(tmp_path, {}, reuse=reuse))
        cached, looks, landed = answering._cached, [], asyncio.Event()

        async def held(request: Request, digest: bytes) -> Completion | None:
            found = await cached(request, digest)
            looks.append(found)
            if len(looks) == 2:
                await landed.wait()
            await until(lambda: len(looks) == 2)
            return found

        answering._cached = held  # type: ignore[method-assign]
        asking = [asyncio.create_task(answering.answer(chat("hello", temperature=0))) for _ in range(2)]
        (first, *_), late = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        landed.set()
        records = [await first, *[await each for each in late]]
        assert (looks, [record.output for record in records]) == ([None, None], ["hello", "hello"])
        assert shared.account.usage.prompt_tokens == records[0].usage.prompt_tokens
        answering.close()

    with_engine(tmp_path, {}, work)


def test_answers_are_cached_where_the_job_has_a_cache(tmp_path: Path) -> None:
    def reuse() -> dict[str, Any]:
        return {"reuse": {"cache": str(tmp_path / "answers.cache"), "memory_rows": 0}}

    async def work(shared: SharedEngine) -> None:
        for _ in range(2):
            answering = Answering(shared, openai_job(tmp_path, {}, **reuse()))
            record = await answering.answer(chat("hello", temperature=0))
            assert record.output == "hello"
            answering.close()
        assert shared.account.usage.prompt_tokens == record.usage.prompt_tokens

    with_engine(tmp_path, {}, work)
