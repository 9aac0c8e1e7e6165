from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import JobError
from llmbatch.core.types import Failure, FailureKind, PairIds, Prompt
from llmbatch.job.job import DEMO_MODEL
from llmbatch.model.tokenizer import (
    ChatSettings,
    Tokenizer,
    context_length,
    is_plain,
    load_template,
    load_tokenizer,
    loops_over_content,
)

SYSTEM, USER, ASSISTANT, END = 1, 2, 3, 4  # the demo model's special tokens
MACRO = "{% macro f(x) %}{% for p in x %}{{ p }}{% endfor %}{% endmacro %}"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(str(DEMO_MODEL), ChatSettings())


def user(text: str, prefill: str = "") -> Prompt:
    return Prompt(messages=({"role": "user", "content": text},), prefill=prefill)


def ids_of(tokenizer: Tokenizer, prompt: Prompt) -> list[int]:
    (ids,) = tokenizer.encode([prompt])
    assert not isinstance(ids, Failure), ids
    return ids


def test_a_chat_is_framed_by_the_models_own_template(tokenizer: Tokenizer) -> None:
    prompt = Prompt(messages=({"role": "system", "content": "a"}, {"role": "user", "content": "b"}))
    ids = ids_of(tokenizer, prompt)
    assert [i for i in ids if i < 5] == [SYSTEM, END, USER, END, ASSISTANT]


def test_a_prefill_opens_the_answer_without_ending_it(tokenizer: Tokenizer) -> None:
    plain, filled = ids_of(tokenizer, user("b")), ids_of(tokenizer, user("b", prefill="uno "))
    assert filled[: len(plain)] == plain
    assert tokenizer.decode([filled[len(plain) :]]) == ["uno "]


def test_a_text_prompt_is_only_tokenized(tokenizer: Tokenizer) -> None:
    assert ids_of(tokenizer, Prompt(text="one", prefill=" two")) == ids_of(tokenizer, Prompt(text="one two"))
    assert tokenizer.decode([ids_of(tokenizer, Prompt(text="one two"))]) == ["one two"]


def test_text_that_spells_a_special_token_becomes_that_token(tokenizer: Tokenizer) -> None:
    assert ids_of(tokenizer, user("<|end|>")).count(END) == 2


def test_template_code_in_a_rows_text_stays_text(tokenizer: Tokenizer) -> None:
    text = "{{ 1 + 1 }}{% for x in y %}"
    assert text in tokenizer.decode([ids_of(tokenizer, user(text))])[0]


def test_chats_and_texts_and_failures_keep_their_places(tokenizer: Tokenizer) -> None:
    prompts = [user("a"), Prompt(text="b"), Prompt(messages=()), user("c"), Prompt(text="d")]
    together = tokenizer.encode(prompts)
    assert isinstance(together[2], Failure) or together[2] == [ASSISTANT]
    for i in (0, 1, 3, 4):
        assert together[i] == ids_of(tokenizer, prompts[i])


def test_many_prompts_are_encoded_as_one_by_one(tokenizer: Tokenizer) -> None:
    prompts = [user(f"number {i} " + "x" * (i % 50)) for i in range(1000)]
    assert tokenizer.encode(prompts) == [ids_of(tokenizer, prompt) for prompt in prompts]


def test_several_threads_may_encode_and_decode_at_once(tokenizer: Tokenizer) -> None:
    prompts = [user(f"number {i}") for i in range(500)]
    alone = tokenizer.encode(prompts)
    with ThreadPoolExecutor(4) as pool:
        for together in pool.map(lambda _: (tokenizer.encode(prompts), tokenizer.decode([[5, 6]])), range(8)):
            assert together[0] == alone


@pytest.mark.parametrize(
    "template",
    ["{{ raise_exception('only user and assistant') }}", "{{ messages[0].content + 1 }}", "{{ nothing.at.all }}"],
)
def test_a_template_that_raises_fails_only_its_row(template: str) -> None:
    broken = "{% if messages[0].content == 'bad' %}" + template + "{% else %}ok{% endif %}"
    tokenizer = load_tokenizer(str(DEMO_MODEL), ChatSettings(template=broken))
    good, bad = tokenizer.encode([user("good"), user("bad")])
    assert isinstance(bad, Failure)
    assert bad.kind is FailureKind.PROMPT
    assert "chat template" in bad.message
    assert not isinstance(good, Failure)


def test_a_template_may_be_a_path_or_text_and_takes_arguments(tmp_path: Path) -> None:
    path = tmp_path / "chat.jinja"
    path.write_text("{{ mood }}:{{ messages[0].content }}", encoding="utf-8")
    for template in (str(path), path.read_text(encoding="utf-8")):
        tokenizer = load_tokenizer(str(DEMO_MODEL), ChatSettings(template=template, template_kwargs={"mood": "glad"}))
        assert tokenizer.render(user("x")) == "glad:x"


def test_a_template_that_is_neither_text_nor_a_file_is_a_job_error() -> None:
    with pytest.raises(JobError, match=r"no/such\.jinja"):
        load_template("no/such.jinja")


def test_a_model_without_a_chat_template_fails_chats_and_not_texts(tmp_path: Path) -> None:
    model = shutil.copytree(DEMO_MODEL, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    config = json.loads((model / "tokenizer_config.json").read_text())
    del config["chat_template"]
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    chat, text = load_tokenizer(str(model), ChatSettings()).encode([user("x"), Prompt(text="x")])
    assert isinstance(chat, Failure)
    assert "no chat template" in chat.message
    assert not isinstance(text, Failure)


def test_an_absurdly_long_prompt_is_too_long_without_being_tokenized(tokenizer: Tokenizer) -> None:
    short, long = tokenizer.encode([user("x"), user("x" * 50_000_000)])
    assert isinstance(long, Failure)
    assert long.kind is FailureKind.TOO_LONG
    assert "50,000," in long.message
    assert not isinstance(short, Failure)


@pytest.mark.parametrize(
    ("change", "length"),
    [
        ({}, 4096),
        ({"max_position_embeddings": 512}, 512),
        ({"rope_parameters": {"rope_type": "linear", "factor": 4.0}}, 16384),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, 4096),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, 4096),
        ({"rope_parameters": {"rope_type": "longrope", "factor": 8.0}, "original_max_position_embeddings": 1024}, 1024),
        ({"max_position_embeddings": None, "text_config": {"max_position_embeddings": 77}}, 77),
        ({"text_config": None}, 4096),
        ({"max_position_embeddings": None}, 2048),
    ],
    ids=str,
)
def test_the_context_length_is_read_from_the_models_config(change: dict[str, Any], length: int, tmp_path: Path) -> None:
    config = json.loads((DEMO_MODEL / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    assert context_length(str(tmp_path)) == length


def test_a_tokenizer_knows_the_models_context_length(tokenizer: Tokenizer) -> None:
    assert tokenizer.context_length == 4096


def test_a_model_that_is_not_there_is_a_job_error() -> None:
    with pytest.raises(JobError, match="/no/such/model"):
        load_tokenizer("/no/such/model", ChatSettings())


@pytest.mark.parametrize(
    ("message", "plain"),
    [
        ({"role": "user", "content": "x"}, True),
        ({"role": "user", "content": "x", "name": "eve"}, True),
        ({"role": "developer", "content": "x"}, False),
        ({"role": "tool", "content": "x", "tool_call_id": "1"}, False),
        ({"role": "assistant", "content": None, "tool_calls": []}, False),
        ({"role": "user", "content": [{"type": "text", "text": "x"}]}, False),
    ],
)
def test_only_plain_text_messages_are_plain(message: dict[str, Any], plain: bool) -> None:
    assert is_plain(Prompt(messages=(message,))) is plain
    assert is_plain(Prompt(text="x"))


@pytest.mark.parametrize(
    ("template", "loops"),
    [
        ("{% for m in messages %}{{ m.content }}{% endfor %}", False),
        ("{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}", True),
        (
            "{% for m in messages[1:] | list %}{% for p in m['content'] | reverse %}{{ p }}{% endfor %}{% endfor %}",
            True,
        ),
        ("{% for m in messages %}{% for c in m.tool_calls %}{{ c }}{% endfor %}{{ m.content }}{% endfor %}", False),
        (
            "{% set all = messages %}{% set l = all %}{% for m in l %}{% for p in m.content %}{{ p }}{% endfor %}{% endfor %}",
            True,
        ),
        (MACRO + "{% for m in messages %}{{ f(m.content) }}{% endfor %}", True),
        (MACRO + "{% for m in messages %}{{ f(x=m.content) }}{% endfor %}", True),
        (MACRO + "{% for m in messages %}{{ f(x=m.role) }}{% endfor %}", False),
        ("{% broken", False),
    ],
)
def test_a_template_that_takes_contents_apart_is_recognized(template: str, loops: bool) -> None:
    assert loops_over_content(template) is loops


def test_torch_is_not_imported_where_it_is_not_wanted() -> None:
    code = f"""
import sys
from llmbatch.model.tokenizer import ChatSettings
from llmbatch.model.tokenizer import load_tokenizer
from llmbatch.core.types import Prompt
tokenizer = load_tokenizer({str(DEMO_MODEL)!r}, ChatSettings(), without_torch=True)
print(tokenizer.encode([Prompt(messages=({{"role": "user", "content": "x"}},))]))
print(sorted(name for name in sys.modules if name.split(".")[0] in ("torch", "vllm") and sys.modules[name] is not None))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ids, modules = done.stdout.splitlines()
    assert json.loads(ids)[0][0] == USER
    assert modules == "[]"


@pytest.fixture(params=["fast", "another"])
def encoder(tmp_path: Path, request: pytest.FixtureRequest) -> Tokenizer:
    """Of a model that is told which of two texts a token is of, as BERT is; by Rust's own calls, and by transformers'."""
    from tokenizers import Tokenizer as Rust
    from tokenizers import models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["[UNK]", "[CLS]", "[SEP]", "a", "b", "c"]
    rust = Rust(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    rust.pre_tokenizer = pre_tokenizers.Whitespace()
    template = {"single": "[CLS]:0 $A:0 [SEP]:0", "pair": "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1"}
    rust.post_processor = processors.TemplateProcessing(**template, special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    names = ["input_ids", "token_type_ids", "attention_mask"]
    hf = PreTrainedTokenizerFast(tokenizer_object=rust, unk_token="[UNK]", model_input_names=names)
    made = Tokenizer(hf, None, {}, 20)
    if request.param == "another":
        made._rust = None
    return made


def test_a_pair_is_the_ids_of_both_texts_and_where_the_second_begins(encoder: Tokenizer) -> None:
    first, text, second, long = encoder.encode(
        [
            Prompt(text="a b", pair="c"),
            Prompt(text="a b"),
            Prompt(text="", pair="a a"),
            Prompt(text="a", pair="b" * 200),
        ]
    )
    assert isinstance(first, PairIds) and isinstance(second, PairIds)
    assert (list(first), first.second) == ([1, 3, 4, 2, 5, 2], 4)
    assert text == [1, 3, 4, 2]
    assert (list(second), second.second) == ([1, 2, 3, 3, 2], 2)
    assert isinstance(long, Failure) and long.kind is FailureKind.TOO_LONG


def test_of_a_model_that_is_not_told_a_pair_has_no_second_part(tokenizer: Tokenizer) -> None:
    (ids,) = tokenizer.encode([Prompt(text="one", pair="two")])
    assert isinstance(ids, PairIds)
    assert ids.second == len(ids) > 0
