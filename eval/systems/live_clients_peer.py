"""Clients that bring versions of their own against a server's ``/v1``: a row for each claim out, as a line of JSON.

python live_clients_peer.py (litellm | distilabel | datadesigner) HOST:PORT FOLDER

The server has the scripted engine, which says what it is told.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))
from shown import tried, version_of

_SYSTEM = "Harnesses and agents"
_SECONDS = 120.0
_TEXTS = ("one loaf of rye", "two jars of plum jam", "three wool scarves")


def _litellm_chat(url: str, _: Path) -> str:
    import litellm  # type: ignore[import-not-found]

    given: Any = {"model": "openai/demo", "api_base": url, "api_key": "none"}
    asked = [{"role": "user", "content": _TEXTS[0]}]
    whole = litellm.completion(**given, messages=asked, max_tokens=64, temperature=0)
    assert whole.choices[0].message.content == _TEXTS[0], whole
    chunks = list(litellm.completion(**given, messages=asked, max_tokens=64, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == _TEXTS[0], text
    gone_on = litellm.text_completion(
        model="text-completion-openai/demo", api_base=url, api_key="none", prompt="one loaf", max_tokens=64
    )
    assert gone_on.choices[0].text == "one loaf", gone_on
    response = litellm.responses(**given, input="one loaf")
    assert response.output[0].content[0].text == "one loaf", response
    try:
        litellm.completion(model="openai/other", api_base=url, api_key="none", messages=asked)
    except litellm.NotFoundError as error:
        return f"{len(chunks)} chunks of the streamed one; a model that is not there: {str(error)[:90]}"
    raise AssertionError("a model that is not there was answered")


def _litellm_batch(url: str, folder: Path) -> str:
    import litellm

    given: Any = {"custom_llm_provider": "openai", "api_base": url, "api_key": "none"}
    path = folder / "requests.jsonl"
    path.write_text("".join(_line(row, text) for row, text in enumerate((*_TEXTS, "BOOM"))), encoding="utf-8")
    with path.open("rb") as content:
        file = litellm.create_file(file=content, purpose="batch", **given)
    batch = litellm.create_batch(
        completion_window="24h",
        endpoint="/v1/chat/completions",
        input_file_id=file.id,
        metadata={"of": "litellm"},
        **given,
    )
    end = time.monotonic() + _SECONDS
    while (seen := litellm.retrieve_batch(batch_id=batch.id, **given)).status not in ("completed", "failed"):
        assert time.monotonic() < end, seen.status
        time.sleep(0.1)
    counts = seen.request_counts
    assert (seen.status, counts.total, counts.completed, counts.failed) == ("completed", 4, 3, 1), seen
    content = litellm.file_content(file_id=seen.output_file_id, **given).content
    texts = [json.loads(line)["response"]["body"]["choices"][0]["message"]["content"] for line in content.splitlines()]
    assert texts == list(_TEXTS), texts
    refused = litellm.file_content(file_id=seen.error_file_id, **given).content.splitlines()
    assert [json.loads(line)["custom_id"] for line in refused] == ["row-3"], refused
    assert batch.id in [each.id for each in litellm.list_batches(**given).data]
    litellm.file_delete(file_id=file.id, **given)
    return "three lines of output, one of errors; the batch is listed, and the input deleted"


def _line(row: int, text: str) -> str:
    body = {"model": "demo", "messages": [{"role": "user", "content": text}]}
    line = {"custom_id": f"row-{row}", "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(line) + "\n"


def _distilabel_live(url: str, _: Path) -> str:
    return _distilabel(url)


def _distilabel_batch(url: str, _: Path) -> str:
    return _distilabel(
        url, use_offline_batch_generation=True, offline_batch_generation_block_until_done=1, jobs_ids=None
    )


def _distilabel(url: str, **more: Any) -> str:
    """A pipeline over three instructions."""
    from distilabel.models import OpenAILLM  # type: ignore[import-not-found]
    from distilabel.pipeline import Pipeline  # type: ignore[import-not-found]
    from distilabel.steps import LoadDataFromDicts  # type: ignore[import-not-found]
    from distilabel.steps.tasks import TextGeneration  # type: ignore[import-not-found]

    with Pipeline(name="against-llmbatch") as pipeline:
        load = LoadDataFromDicts(data=[{"instruction": text} for text in _TEXTS])
        llm = OpenAILLM(
            model="demo",
            base_url=url,
            api_key="none",
            generation_kwargs={"max_new_tokens": 64, "temperature": 0.0},
            **more,
        )
        load >> TextGeneration(llm=llm, input_batch_size=2)
    found = pipeline.run(use_cache=False)["default"]["train"]
    texts = dict(zip(found["instruction"], found["generation"], strict=True))
    assert texts == {text: text for text in _TEXTS}, texts
    return f"{len(texts)} rows of a pipeline's Distiset"


def _datadesigner(url: str, folder: Path) -> str:
    import data_designer.config as dd  # type: ignore[import-not-found]
    import pandas as pd
    from data_designer.interface import DataDesigner  # type: ignore[import-not-found]

    provider = dd.ModelProvider(name="ours", endpoint=url, provider_type="openai", api_key="none")
    model = dd.ModelConfig(
        alias="writer", model="demo", provider="ours",
        inference_parameters=dd.ChatCompletionInferenceParams(temperature=0.0, top_p=1.0, max_tokens=64),
    )  # fmt: skip
    builder = dd.DataDesignerConfigBuilder(model_configs=[model])
    seeds = pd.DataFrame({"item": list(_TEXTS)})
    builder.with_seed_dataset(dd.DataFrameSeedSource(df=seeds))
    builder.add_column(dd.LLMTextColumnConfig(name="said", model_alias="writer", prompt="{{ item }}"))
    designer = DataDesigner(artifact_path=folder / "artifacts", model_providers=[provider])
    found = designer.create(builder, num_records=len(_TEXTS)).load_dataset()
    texts = dict(zip(found["item"], found["said"], strict=True))
    assert texts == {text: text for text in _TEXTS}, texts
    return f"{len(texts)} records of a seeded dataset, each with its text"


_CLAIMS: dict[str, tuple[str, tuple[tuple[str, Callable[[str, Path], str]], ...]]] = {
    "litellm": (
        "litellm",
        (
            ("completion whole and streamed, text_completion, responses; an unknown model is its NotFoundError", _litellm_chat),
            ("create_file, create_batch, retrieve_batch, file_content, list_batches, file_delete", _litellm_batch),
        ),
    ),
    "distilabel": (
        "distilabel",
        (
            ("a pipeline with OpenAILLM on the live endpoint", _distilabel_live),
            ("a pipeline with OpenAILLM's offline batch generation, on files and batches", _distilabel_batch),
        ),
    ),
    "datadesigner": (
        "data-designer",
        (("a column of texts for a seeded dataset, on the live endpoint", _datadesigner),),
    ),
}  # fmt: skip


def main() -> None:
    peer, place, folder = sys.argv[1:4]
    package, claims = _CLAIMS[peer]
    for claim, show in claims:
        row = tried(
            _SYSTEM, f"{package}: {claim}", f"{package} -> llmbatch serve", version_of(package),
            lambda show=show: show(f"http://{place}/v1", Path(folder)),
        )  # type: ignore[misc]  # fmt: skip
        print(row.as_line(), flush=True)


if __name__ == "__main__":  # distilabel starts processes that import this
    main()
