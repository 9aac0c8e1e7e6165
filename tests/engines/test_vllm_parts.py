"""The parts around the loop that need vLLM but no engine: arguments, sampling settings, reasoning parsers, rendering, errors."""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from llmbatch.core.errors import EngineDied, EngineError, JobError, OutOfMemory
from llmbatch.core.sampling import LOOPS, Loops
from llmbatch.core.tools import call_of
from llmbatch.core.types import Constraint, Failure, FailureKind, Prompt, Tools
from llmbatch.engines.kinds import make_engine
from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.thinking import Marks
from llmbatch.engines.vllm import args as vllm_args
from llmbatch.engines.vllm import trouble
from llmbatch.engines.vllm.args import engine_args, environment, is_cpu, with_backend_for
from llmbatch.engines.vllm.calls import Telling, load_calls
from llmbatch.engines.vllm.compiled import can_load, loadable
from llmbatch.engines.vllm.engine import VllmEngine
from llmbatch.engines.vllm.log import captured, redirect_loggers, tail
from llmbatch.engines.vllm.reasoning import load_reasoning
from llmbatch.engines.vllm.render import Chat, Encoder, vllm_renderer
from llmbatch.engines.vllm.sampling import _plain_values, params_of
from llmbatch.engines.vllm.structured import structured_outputs
from llmbatch.job.job import DEMO_MODEL
from llmbatch.model.memory import cache_bytes_per_token
from llmbatch.model.tokenizer import ChatSettings, load_tokenizer

if TYPE_CHECKING:  # each worker reads every test file, and few run the tests of this one
    from transformers import PreTrainedTokenizerFast

pytestmark = pytest.mark.vllm


def args_of(given: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return engine_args(str(DEMO_MODEL), EngineSettings(args=given, **settings), ChatSettings())


# -- arguments ----------------------------------------------------------------------------------------------------------


def test_an_argument_that_vllm_does_not_know_is_refused_with_those_of_vllms_that_are_like_it() -> None:
    with pytest.raises(JobError, match="'max_model_length'") as caught:
        args_of({"max_model_length": 100})
    assert "did you mean max_model_len" in str(caught.value)
    assert "tensor_parallel_size" not in str(caught.value), "only what is like it"


def test_an_argument_that_is_like_none_of_vllms_is_refused_with_the_place_where_vllm_lists_them() -> None:
    with pytest.raises(JobError, match=r"engine\.args\.zzz: .*'zzz'; .*docs\.vllm\.ai.*vllm\.EngineArgs") as caught:
        args_of({"zzz": 1})
    assert "max_model_len" not in str(caught.value), "there are hundreds of them"


def test_names_that_vllm_keeps_to_itself_are_not_offered() -> None:
    with pytest.raises(JobError, match="api_process_counts") as caught:
        args_of({"api_process_counts": 1})
    assert "_api_process" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["quantization", "tensor_parallel_size", "max_model_len", "load_format", "speculative_config"]
)
def test_vllms_own_arguments_pass_through(name: str) -> None:
    assert args_of({name: "x"})[name] == "x"


def test_an_argument_with_a_setting_of_its_own_is_refused_by_that_name() -> None:
    with pytest.raises(JobError, match=r"chat\.template"):
        args_of({"chat_template": "x"})


def test_the_users_arguments_override_the_defaults() -> None:
    assert args_of({})["block_size"] == 32
    assert args_of({})["enable_prefix_caching"] is True
    changed = args_of(
        {"block_size": 64, "enable_prefix_caching": False, "structured_outputs_config": {"backend": "guidance"}}
    )
    assert (changed["block_size"], changed["enable_prefix_caching"]) == (64, False)
    assert changed["structured_outputs_config"] == {"backend": "guidance", "disable_any_whitespace": True}


@pytest.fixture(params=[True, False], ids=["with bf16", "without bf16"])
def cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """A CPU with 8 GiB of memory to be had, whatever this machine is; the bytes of the demo model's tokens in its cache."""
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    monkeypatch.setattr("llmbatch.engines.vllm.args.is_cpu", lambda: True)
    monkeypatch.setattr("llmbatch.engines.vllm.args._free_memory", lambda: 8 << 30)
    monkeypatch.setattr("llmbatch.engines.vllm.args._has_bf16", lambda: request.param)
    return 2048 if request.param else 4096


def test_a_cpu_without_bf16_computes_in_float32_unless_the_user_gives_a_type(
    cpu: int,
) -> None:
    assert args_of({}).get("dtype") == (None if cpu == 2048 else "float32")
    assert args_of({"dtype": "bfloat16"})["dtype"] == "bfloat16"


@pytest.mark.usefixtures("cpu")
def test_the_cache_of_a_cpu_has_a_size_unless_the_user_gives_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert args_of({})["kv_cache_memory_bytes"] > 1 << 28
    assert args_of({"kv_cache_memory_bytes": 5})["kv_cache_memory_bytes"] == 5
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "2")
    assert "kv_cache_memory_bytes" not in args_of({})


def test_the_cache_of_a_cpu_is_no_larger_than_its_sequences_can_fill(cpu: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmbatch.engines.vllm.args._free_memory", lambda: 64 << 30)
    assert cache_bytes_per_token(json.loads((DEMO_MODEL / "config.json").read_text())) == 2048

    def tokens(given: dict[str, Any], token: int = cpu) -> int:
        return int(args_of(given)["kv_cache_memory_bytes"]) // token

    assert tokens({}) == 1024 * 512
    assert tokens({"max_num_seqs": 64}) == 64 * 512
    assert tokens({"max_num_seqs": 4}) == 4 * 4096  # rows of full length run side by side even so
    assert tokens({"max_num_seqs": 4, "max_model_len": 1000}) == 4 * 1000
    assert tokens({"max_num_seqs": 64, "dtype": "float32"}, 4096) == 64 * 512  # its numbers take twice the bytes
    assert tokens({"max_num_seqs": 64, "dtype": "bfloat16"}, 2048) == 64 * 512
    monkeypatch.setattr("llmbatch.engines.vllm.args._free_memory", lambda: 1 << 30)
    assert args_of({})["kv_cache_memory_bytes"] == 1 << 28  # never more than a quarter of what is free


BATCH = ("max_num_seqs", "max_num_batched_tokens")


def batch_of(model: Path, given: dict[str, Any]) -> dict[str, Any]:
    made = engine_args(str(model), EngineSettings(args=given), ChatSettings())
    return {name: made[name] for name in BATCH if name in made}


def test_a_small_model_gets_batches_on_a_cpu_as_large_as_its_cache_holds(cpu: int) -> None:
    def batch(cache: int) -> tuple[int | None, ...]:
        found = batch_of(DEMO_MODEL, {"kv_cache_memory_bytes": cache})
        return tuple(found.get(name) for name in BATCH)

    assert batch_of(DEMO_MODEL, {}) == dict(zip(BATCH, (1024, 8192), strict=True))
    full = 1024 * 256 * cpu  # 256 tokens a sequence
    assert batch(full) == (1024, 8192)
    assert batch(full - 1) == (512, 4096)
    assert batch(full // 2) == (512, 4096)
    assert batch(full // 2 - 1) == (None, None), "the cache is small: vLLM chooses"


@pytest.mark.usefixtures("cpu")
@pytest.mark.parametrize(
    "given",
    [
        {"kv_cache_memory_bytes": (1 << 28) - 1},
        {"gpu_memory_utilization": 0.5},  # the cache's size is then vLLM's affair
        {"enable_chunked_prefill": False},  # a step must then hold the whole context
        {"enable_chunked_prefill": True},
    ],
    ids=str,
)
def test_vllm_chooses_the_batches_of_a_cpu_where_the_cache_is_small_or_unknown_or_prefills_are_not_cut(
    given: dict[str, Any],
) -> None:
    assert batch_of(DEMO_MODEL, given) == {}


@pytest.mark.usefixtures("cpu")
@pytest.mark.parametrize(
    "config",
    [
        {
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "hidden_size": 4096,
            "vocab_size": 512,
        },
        {"num_hidden_layers": 4, "num_attention_heads": 4, "hidden_size": 64, "vocab_size": 128_256},  # logits
        {"num_hidden_layers": 4, "num_attention_heads": 4, "hidden_size": 64},
        {"vocab_size": 512},
    ],
    ids=["large cache", "large vocabulary", "no vocabulary", "unknown architecture"],
)
def test_vllm_chooses_the_batches_of_a_cpu_for_a_model_that_is_large_or_cannot_be_read(
    config: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert batch_of(tmp_path, {}) == {}


@pytest.mark.usefixtures("cpu")
def test_vllm_chooses_the_batches_of_a_cpu_where_the_config_is_broken_or_missing(tmp_path: Path) -> None:
    assert batch_of(tmp_path, {}) == {}
    (tmp_path / "config.json").write_text("{")
    assert batch_of(tmp_path, {}) == {}


@pytest.mark.usefixtures("cpu")
@pytest.mark.parametrize(
    "given",
    [{"max_num_seqs": 3}, {"max_num_batched_tokens": 4096}, {"max_num_seqs": 3, "max_num_batched_tokens": 64}],
    ids=str,
)
def test_a_batch_that_the_user_gives_on_a_cpu_is_left_alone(given: dict[str, Any]) -> None:
    assert batch_of(DEMO_MODEL, given) == given


@pytest.mark.usefixtures("cpu")
def test_a_gpus_batches_are_left_to_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmbatch.engines.vllm.args.is_cpu", lambda: False)
    assert batch_of(DEMO_MODEL, {}) == {}


def test_a_schema_that_xgrammar_cannot_take_selects_guidance() -> None:
    plain = Constraint("json", '{"type": "object", "properties": {"a": {"type": "integer"}}}')
    hard = Constraint("json", '{"type": "integer", "multipleOf": 3}')
    assert with_backend_for(args_of({}), [plain])["structured_outputs_config"]["backend"] == "xgrammar"
    assert with_backend_for(args_of({}), [plain, hard])["structured_outputs_config"]["backend"] == "guidance"


def test_guidance_is_told_how_to_space_json() -> None:
    params = structured_outputs(Constraint("json", '{"type": "object"}'), "guidance")
    spaced = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    assert json.loads(params.json) == {"type": "object", "x-guidance": spaced}
    own = '{"type": "object", "x-guidance": {"whitespace_flexible": true}}'
    assert structured_outputs(Constraint("json", own), "guidance").json == own


def test_adapters_turn_lora_on_with_room_for_their_ranks(tmp_path: Path) -> None:
    for name, rank in (("a", 8), ("b", 40)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text(json.dumps({"r": rank}))
    args = args_of({}, lora={"a": str(tmp_path / "a"), "b": str(tmp_path / "b")})
    assert (args["enable_lora"], args["max_lora_rank"], args["max_loras"]) == (True, 64, 2)
    with pytest.raises(JobError, match=r"engine\.lora\.c"):
        args_of({}, lora={"c": str(tmp_path)})


def test_the_environment_is_as_before_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    with environment(in_process=True):
        assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "1"


@pytest.mark.parametrize("can", [True, False])
def test_a_cpus_start_compiles_nothing_that_it_cannot_load_again_unless_the_user_wants_it(
    monkeypatch: pytest.MonkeyPatch, can: bool
) -> None:
    monkeypatch.setattr(vllm_args, "can_load", lambda: can)
    monkeypatch.delenv("VLLM_USE_AOT_COMPILE", raising=False)
    with environment(in_process=True):
        assert os.environ.get("VLLM_USE_AOT_COMPILE") == (str(int(can)) if is_cpu() else None)
    assert "VLLM_USE_AOT_COMPILE" not in os.environ
    monkeypatch.setenv("VLLM_USE_AOT_COMPILE", "1")
    with environment(in_process=True):
        assert os.environ["VLLM_USE_AOT_COMPILE"] == "1"


def test_what_torch_compiled_has_what_vllm_asks_of_it_while_that_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.aot_compile_types import BundledAOTAutogradSerializableCallable as Saved

    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    assert not can_load()
    monkeypatch.delenv("TORCHDYNAMO_DISABLE")
    assert can_load()
    with loadable():
        assert Saved.finalize_loading(object(), object()) is None
    assert not hasattr(Saved, "finalize_loading")


# -- sampling -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"tempurature": 1.0}, "did you mean 'temperature'"),
        ({"temperature": -1.0}, "temperature"),
        ({"detokenize": True}, "detokenize"),
        ({"top_p": 0.0}, "top_p"),
        ({"logit_bias": {"x": 1.0}}, "invalid literal"),
    ],
)
def test_a_wrong_sampling_setting_is_one_of_the_refusals_of_a_request(values: dict[str, Any], word: str) -> None:
    with pytest.raises(trouble.refusals(), match=word):
        params_of(values)


def test_sampling_settings_in_json_form_are_accepted() -> None:
    given = {"n": 4, "stop": ("a", "b"), "logit_bias": {"5": 1}, "bad_words": ("x",), "logprobs": 2, "seed": 1}
    values = deepcopy(given)
    params_of(values)  # raises what it does not accept
    assert values == given, "they are looked at, and left as they are"


def test_a_vllm_that_cannot_stop_at_loops_is_not_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"temperature": 0.5, LOOPS: Loops(times=8, shortest=4, longest=32)}
    stopped = params_of(dict(values)).repetition_detection
    assert (stopped.min_count, stopped.min_pattern_size, stopped.max_pattern_size) == (8, 4, 32)
    older = SimpleNamespace(__struct_fields__=("temperature",))
    monkeypatch.setattr("vllm.sampling_params.SamplingParams", older)
    assert _plain_values(values) == {"temperature": 0.5}


# -- reasoning ----------------------------------------------------------------------------------------------------------


def thinking_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "[unk]": 2}, unk_token="[unk]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_tokens(["<think>", "</think>"])
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_the_thinking_part_is_split_off() -> None:
    split = load_reasoning("deepseek_r1", thinking_tokenizer(), {}, None).split
    assert split("<think>first this</think>then that") == ("first this", "then that")
    assert split("cut off while thinking") == ("cut off while thinking", "")


def test_the_parser_says_what_begins_and_ends_thinking() -> None:
    tokenizer = thinking_tokenizer()
    start, end = tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    assert load_reasoning("deepseek_r1", tokenizer, {}, None).marks == Marks((start,), (end,))


def test_an_unknown_reasoning_parser_is_refused_with_vllms_own_list() -> None:
    with pytest.raises(JobError, match=r"no parser 'deepseek'.*deepseek_r1"):
        load_reasoning("deepseek", thinking_tokenizer(), {}, None)


def test_a_reasoning_parser_that_does_not_fit_the_model_is_refused() -> None:
    with pytest.raises(JobError, match="does not fit this model"):
        load_reasoning("deepseek_r1", load_tokenizer(str(DEMO_MODEL), ChatSettings()).hf, {}, None)


# -- calls of tools ---------------------------------------------------------------------------------------------------

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}}}}  # fmt: skip
CALLED = {
    "hermes": ("Let me see.\n", '<tool_call>\n{"name": "weather", "arguments": {"city": "Bern"}}\n</tool_call>'),
    "pythonic": ("", "[weather(city='Bern')]"),
}


def demo_tokenizer() -> Any:
    return load_tokenizer(str(DEMO_MODEL), ChatSettings()).hf


def test_an_unknown_tool_parser_is_refused_with_vllms_own_list() -> None:
    with pytest.raises(JobError, match=r"no parser 'hermess'.*hermes"):
        load_calls("hermess", demo_tokenizer())


def test_a_tool_parser_that_does_not_fit_the_model_is_refused() -> None:
    with pytest.raises(JobError, match=r"'llama3_json' does not fit this model: .*python_tag"):
        load_calls("llama3_json", demo_tokenizer())


@pytest.mark.parametrize("name", list(CALLED))
def test_calls_are_read_by_vllms_parsers_and_other_text_stays(name: str) -> None:
    calls, tools = load_calls(name, demo_tokenizer()), Tools((WEATHER,))
    before, said = CALLED[name]
    rest, found = calls.read(before + said, tools)
    assert rest == before
    assert found is not None
    assert [call["function"]["name"] for call in found] == ["weather"]
    assert json.loads(found[0]["function"]["arguments"]) == {"city": "Bern"}
    assert calls.read("It rains.", tools) == ("It rains.", None)


@pytest.mark.parametrize("name", list(CALLED))
def test_of_an_answer_that_comes_in_pieces_no_part_of_a_call_is_told(name: str) -> None:
    before, said = CALLED[name]
    told = load_calls(name, demo_tokenizer()).telling(Tools((WEATHER,)))
    seen = [told.so_far((before + said)[:end], tuple(range(end))) for end in range(1, len(before + said) + 1)]
    assert seen[-1] == before
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(seen))


@pytest.mark.parametrize("said", ['<|action_start|><|plugin|>{"name": "weath', "<|action_start|><|plugin|>" * 2])
def test_an_answer_at_which_a_parser_of_vllms_raises_is_text(said: str) -> None:
    calls, tools = load_calls("internlm", demo_tokenizer()), Tools((WEATHER,))
    text = f"Let me see.{said}"
    assert calls.read(text, tools) == (text, None)
    whole = '<|action_start|><|plugin|>{"name": "weather", "parameters": {"city": "Bern"}}<|action_end|>'
    rest, found = calls.read(f"Let me see.{whole}", tools)
    assert (rest, found) == ("Let me see.", [call_of("weather", '{"city": "Bern"}')])


def test_that_a_parser_raises_is_told_once_in_the_log(tmp_path: Path) -> None:
    calls, tools = load_calls("internlm", demo_tokenizer()), Tools((WEATHER,))
    calls.read("no call", tools)  # what is imported for the first time at that configures vLLM's logger once more
    log = tmp_path / "engine.log"
    redirect_loggers(log)
    for _ in range(2):
        calls.read('<|action_start|><|plugin|>{"name": "weath', tools)
    assert re.findall(r"tool parser 'internlm' raised \w+", log.read_text()) == [
        "tool parser 'internlm' raised JSONDecodeError"
    ]


def test_what_a_client_says_of_a_tool_besides_its_schema_is_nothing_to_the_parser() -> None:
    odd = {"type": "function", "defer_loading": "later", "function": {**WEATHER["function"], "strict": "maybe"}}  # type: ignore[dict-item]
    calls, tools = load_calls("hermes", demo_tokenizer()), Tools((odd,))
    before, said = CALLED["hermes"]
    rest, found = calls.read(before + said, tools)
    assert (rest, [call["function"]["name"] for call in found or ()]) == (before, ["weather"])
    assert calls.telling(tools).so_far("Let", (1,)) == "Let"


def test_of_an_answer_at_which_the_parser_raises_as_it_comes_no_more_is_told() -> None:
    class Trips:
        def extract_tool_calls_streaming(self, _before: str, _text: str, new: str, *_: Any) -> Any:
            if "<" in new:
                raise IndexError
            return SimpleNamespace(content=new)

    raised: list[Exception] = []
    told = Telling(lambda: (Trips(), None), raised.append)
    assert [told.so_far("It rains.<x>y"[:end], tuple(range(end))) for end in (2, 9, 10, 13)] == [
        "It",
        *["It rains."] * 3,
    ]
    assert Telling(lambda: 1 // 0, raised.append).so_far("It", (1,)) == ""  # type: ignore[arg-type, return-value]
    assert [type(error) for error in raised] == [IndexError, ZeroDivisionError]


# -- rendering ----------------------------------------------------------------------------------------------------------

CHAT = Prompt(messages=({"role": "system", "content": "s"}, {"role": "user", "content": "one 🙂"}))
TEMPLATES = {
    "text": "{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}>{% endif %}",
    "parts": "{% for m in messages %}{% for p in m['content'] %}<{{ p['text'] }}>{% endfor %}\n{% endfor %}",
    "a name for the content": (
        "{% for m in messages %}{% set c = m.content %}{% if c is string %}S{{ c }}{% else %}{% for p in c %}P{{ p.text }}"
        "{% endfor %}{% endif %}{% endfor %}"
    ),
    "a macro": (
        "{% macro show(body) %}{% if body is string %}S{{ body }}{% else %}{% for p in body %}P{{ p.text }}{% endfor %}{% endif %}"
        "{% endmacro %}{% for m in messages %}{{ show(m.content) }}{% endfor %}"
    ),
    "the name content": (
        "{% for m in messages %}{% set content = m.content %}{% if content is string %}S{{ content }}{% else %}"
        "{% for p in content %}P{{ p.text }}{% endfor %}{% endif %}{% endfor %}"
    ),
    "a slice": (
        "{% for m in messages[1:] %}{{ m.content | trim }}{% endfor %}"
        "{% set l = messages %}{% for m in l %}{% for p in m.content %}{{ p }}{% endfor %}{% endfor %}"
    ),
    "arguments": "{{ mood }}{% if think %}T{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}",
    "refuses": "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}{{ messages[0].content }}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_our_rendering_of_a_template_agrees_with_vllms(name: str, tmp_path: Path) -> None:
    chat = ChatSettings(template=TEMPLATES[name], template_kwargs={"mood": "glad", "think": True})
    theirs = vllm_renderer({"model": str(DEMO_MODEL)}, Chat(chat.template, chat.template_kwargs))
    encoder = Encoder(load_tokenizer(str(DEMO_MODEL), chat), theirs)
    assert encoder.note == ""
    (ours,) = encoder.encode([CHAT])
    assert ours == theirs(CHAT) or (isinstance(ours, Failure) and "no system here" in ours.message)


def test_tools_and_their_calls_are_shown_by_the_template_as_by_vllm() -> None:
    chat = ChatSettings(
        template="{% for t in tools or [] %}[{{ t.function.name }}]{% endfor %}{% for m in messages %}{{ m.role }}:{{ m.content }}"
        "{% for c in m.tool_calls or [] %}<{{ c.function.name }} {{ c.function.arguments.city }}>{% endfor %};{% endfor %}"
    )
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}
    messages = (
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "Let me see.", "tool_calls": [call]},
        {"role": "tool", "content": "rain", "tool_call_id": "1"},
    )
    prompt = Prompt(messages, tools=Tools((WEATHER,)))
    theirs = vllm_renderer({"model": str(DEMO_MODEL)}, Chat(chat.template, {}))
    ours = load_tokenizer(str(DEMO_MODEL), chat)
    assert ours.render(prompt) == "[weather]user:Weather?;assistant:Let me see.<weather Bern>;tool:rain;"
    assert ours.encode([prompt]) == [theirs(prompt)]
    assert call["function"]["arguments"] == '{"city": "Bern"}', "vLLM changes what it is given"  # type: ignore[index]
    assert Encoder(ours, theirs).encode([prompt]) == [theirs(prompt)]


def test_where_ours_does_not_agree_vllms_own_renderer_is_used() -> None:
    theirs = vllm_renderer({"model": str(DEMO_MODEL)}, Chat(TEMPLATES["text"], {}))
    encoder = Encoder(load_tokenizer(str(DEMO_MODEL), ChatSettings()), theirs)
    assert "vLLM's own renderer" in encoder.note
    assert encoder.encode([CHAT, Prompt(text="x")]) == [theirs(CHAT), theirs(Prompt(text="x"))]
    alone = Encoder(None, theirs)
    assert alone.encode([CHAT]) == [theirs(CHAT)]


def test_vllms_renderer_says_which_prompt_is_too_long_and_which_is_wrong() -> None:
    theirs = vllm_renderer({"model": str(DEMO_MODEL), "max_model_len": 64}, Chat(None, {}))
    long = theirs(Prompt(text="one " * 4000))
    image = theirs(Prompt(messages=({"role": "user", "content": [{"type": "image_url"}]},)))
    assert isinstance(long, Failure)
    assert long.kind is FailureKind.TOO_LONG
    assert isinstance(image, Failure)
    assert image.kind is FailureKind.PROMPT


# -- errors and the log ---------------------------------------------------------------------------------------------------

NO_LIBRARY = "libcudnn.so.9: cannot open shared object file: No such file or directory"


@pytest.mark.parametrize(
    ("model", "word"), [("./no/such/folder", "no such folder"), ("/no/such", "no such folder"), ("a b", "no hub name")]
)
def test_a_model_that_is_neither_folder_nor_hub_name_is_refused_before_an_engine_is_made(
    model: str, word: str, tmp_path: Path
) -> None:
    with pytest.raises(JobError, match=word):
        make_engine(model, EngineSettings(), ChatSettings(), tmp_path / "log")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"without config\.json"):
        VllmEngine(str(tmp_path), EngineSettings(), ChatSettings(), tmp_path / "log").start()


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("CUDA out of memory. Tried to allocate 20.00 GiB", OutOfMemory),
        ("No available memory for the cache blocks. Try increasing `gpu_memory_utilization`", OutOfMemory),
        (
            "Free memory on device cuda:0 (1/80 GiB) on startup is less than desired GPU memory utilization (0.9)",
            OutOfMemory,
        ),
        ("3.0 GiB KV cache is needed, which is larger than the available KV cache memory (1.0 GiB)", EngineError),
        ("x/y is not a local folder and is not a valid model identifier listed on the hub", EngineError),
        ("operator torchvision::nms does not exist", EngineError),
        (NO_LIBRARY, EngineError),
        ("something else", EngineError),
    ],
)
def test_a_failure_to_start_says_what_to_try(message: str, kind: type[Exception], tmp_path: Path) -> None:
    failure = trouble.start_failure(RuntimeError(message), "m", tmp_path / "log", 0)
    assert type(failure) is kind
    assert message.split(".")[0] in str(failure)


def test_a_library_of_the_system_that_is_missing_is_no_model_that_is(tmp_path: Path) -> None:
    failure = trouble.start_failure(ImportError(NO_LIBRARY), "m", tmp_path / "log", 0)
    assert str(failure) == (
        f"vLLM cannot be imported: {NO_LIBRARY}. A library of the system is missing: install the one that it names"
    )


def test_memory_that_others_hold_on_a_cpu_is_told_without_the_flags_of_vllm(tmp_path: Path) -> None:
    seen = "Available memory on node 0 (1.5/16.0 GiB) on startup is less than desired CPU memory utilization (0.92, 14.72 GiB)"
    error = ValueError(
        f"{seen}. On the CPU backend, the `--gpu-memory-utilization` flag controls the fraction of CPU memory reserved (despite "
        "its name). To resolve: decrease `--gpu-memory-utilization` (e.g. `--gpu-memory-utilization 0.5`) or reduce CPU memory "
        "used by other processes."
    )
    assert str(trouble.start_failure(error, "m", tmp_path / "log", 0)) == (
        f"not enough memory for model 'm': {seen}. Other processes hold memory (nvidia-smi names them, or top on a CPU): end them, "
        "or ask for less than is free, as with --set engine.args.gpu_memory_utilization=0.8"
    )


def test_libraries_that_do_not_fit_are_told_with_what_to_remove(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pip leaves them where it takes torch's build for CPUs and that of torchvision for CUDA: importing vLLM fails."""

    def broken(*_: Any) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(vllm_args, "engine_args", broken)
    engine = VllmEngine(str(DEMO_MODEL), EngineSettings(), ChatSettings(), tmp_path / "log")
    with pytest.raises(EngineError, match=r"torchvision::nms.*pip uninstall torchvision torchaudio"):
        engine.start()


@pytest.mark.parametrize(
    "where", ["llmbatch.engines.vllm.args.engine_args", "llmbatch.engines.vllm.engine.vllm_renderer", "vllm.LLM"]
)
def test_what_we_raise_ourselves_while_it_starts_keeps_its_cause(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cause = OSError("no such file")

    def broken(*_: Any, **__: Any) -> None:
        raise JobError("of ours") from cause

    monkeypatch.setattr(where, broken)
    engine = VllmEngine(str(DEMO_MODEL), EngineSettings(in_process=True), ChatSettings(), tmp_path / "log")
    with pytest.raises(JobError, match="of ours") as caught:
        engine.start()
    assert caught.value.__cause__ is cause


def test_what_vllm_refuses_as_it_reads_its_arguments_is_said_without_the_words_of_pydantic(tmp_path: Path) -> None:
    settings = EngineSettings(args={"max_model_len": 1 << 20, "dtype": "float32"}, in_process=True)
    with pytest.raises(EngineError) as error:
        VllmEngine(str(DEMO_MODEL), settings, ChatSettings(), tmp_path / "log").start()
    assert re.fullmatch(
        r"engine\.args\.max_model_len is more than model '.*' can see: User-specified max_model_len \(1048576\) is greater than "
        r"the derived max_model_len \(.*\)\. Leave it out, .*",
        str(error.value),
    )


def test_the_reason_of_an_engine_in_its_own_process_is_found_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "ValueError: of an earlier start\n"
        "(EngineCore pid=7) ERROR 11-22 [core.py:1] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1 GiB\n"
        "(EngineCore pid=7) ERROR 11-22 [core.py:1] RuntimeError: worker failed\n"
    )
    error = RuntimeError("Engine core initialization failed. See root cause above.")
    begin = len("ValueError: of an earlier start\n")
    assert isinstance(trouble.start_failure(error, "m", log, begin), OutOfMemory)
    died = trouble.death(error, "vLLM's engine failed", log, begin)
    assert isinstance(died, EngineDied)
    assert isinstance(died.__cause__, OutOfMemory)
    assert "Tried to allocate 1 GiB" in str(died)


AGAIN = """Traceback (most recent call last):
  File "/usr/lib/python3.11/multiprocessing/spawn.py", line 246, in prepare
    _fixup_main_from_path(data['init_main_from_path'])
  File "/usr/lib/python3.11/multiprocessing/spawn.py", line 297, in _fixup_main_from_path
    main_content = runpy.run_path(main_path,
  File "/home/me/script.py", line 2, in <module>
"""
LOCKED = """    llmbatch.run(model="demo", prompt="{{ text }}", input=[{"text": "two"}], output="out")
  File "/usr/lib/python3.11/site-packages/llmbatch/api.py", line 113, in run
    _keep_rows(input, job.output, extend)
llmbatch.core.errors.Locked: out: another run has this folder: process 22911 on vm
"""


def test_a_script_without_a_guard_is_told_to_have_one(tmp_path: Path) -> None:
    """A process that the engine starts runs the script again, finds the run folder taken and ends."""
    log = tmp_path / "log"
    log.write_text(AGAIN + LOCKED)
    error = RuntimeError(
        "Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}"
    )
    assert 'must be under `if __name__ == "__main__":`' in str(trouble.start_failure(error, "m", log, 0))
    log.write_text(AGAIN + '    import nothing\nModuleNotFoundError: No module named "nothing"\n')
    assert "ModuleNotFoundError" in str(trouble.start_failure(error, "m", log, 0))


def test_everything_printed_meanwhile_goes_to_the_log_and_later_output_does_not(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = f"""
import os, sys, subprocess, logging
from pathlib import Path
from llmbatch.engines.vllm.log import captured, redirect_loggers
log = Path({str(log)!r})
print("before")
with captured(log), captured(log):
    print("from print")
    os.write(2, b"from a descriptor\\n")
    subprocess.run([sys.executable, "-c", "print('from a child')"])
    code = "import sys; sys.stdin.read(); print('from a child, later')"
    late = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
print("after")
late.communicate()
logging.getLogger("vllm").addHandler(logging.StreamHandler())
redirect_loggers(log)
logging.getLogger("vllm.x").warning("from a logger")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("before\nafter\n", "")
    said = log.read_text()
    for words in ("from print", "from a descriptor", "from a child", "from a child, later", "from a logger"):
        assert words in said


def test_a_logger_that_is_set_up_meanwhile_goes_on_to_the_log_and_a_users_own_to_the_terminal(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = f"""
import logging, sys
from pathlib import Path
from llmbatch.engines.vllm.log import captured
with captured(Path({str(log)!r})):
    from vllm.logger import _configure_vllm_root_logger as configure  # what 0.32 does for each engine's configuration
    configure()
    logging.getLogger("vllm.x").warning("meanwhile")
    logging.getLogger().addHandler(logging.StreamHandler(sys.stdout))
    logging.getLogger().addHandler(logging.StreamHandler())
logging.getLogger("vllm.x").warning("later")
logging.getLogger("mine").warning("of the user")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("of the user\n", "of the user\n")
    said = log.read_text()
    assert said.count("meanwhile") == said.count("later") == 1
    assert "of the user" not in said


def test_a_handler_that_closes_its_stream_does_not_close_that_of_a_notebook(tmp_path: Path) -> None:
    code = f"""
import logging, sys, weakref
from pathlib import Path
from llmbatch.engines.vllm.log import captured
class Handler(logging.StreamHandler):
    def close(self):  # as absl's does it
        if self.stream not in (sys.stderr, sys.__stderr__):
            self.stream.close()
        super().close()
sys.stderr = open(2, "w", closefd=False)
handler = Handler()
with captured(Path({str(tmp_path / "log")!r})):
    logging.shutdown([weakref.ref(handler)])  # what dictConfig does to every handler
print("still there", file=sys.stderr)
sys.stderr.close()
assert sys.stderr.closed
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "still there\n"


def test_a_log_of_an_earlier_run_that_is_gone_is_not_written_to_again(tmp_path: Path) -> None:
    code = f"""
import logging, shutil
from pathlib import Path
from llmbatch.engines.vllm.log import captured, redirect_loggers
import vllm.logger
first, second = Path({str(tmp_path / "first")!r}), Path({str(tmp_path / "second")!r})
first.mkdir(), second.mkdir()
redirect_loggers(first / "log")
shutil.rmtree(first)
with captured(second / "log"):
    logging.getLogger("vllm.x").warning("of the second")
"""
    subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "of the second" in (tmp_path / "second" / "log").read_text()


def test_the_tail_of_a_log_begins_where_it_is_told_to(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert tail(log) == ""
    log.write_text("0123456789")
    assert (tail(log, 4), tail(log, 0, 3)) == ("456789", "789")


def test_a_users_own_logging_configuration_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_LOGGING_CONFIG_PATH", "x")
    before = list(logging.getLogger("vllm").handlers)
    redirect_loggers(tmp_path / "log")
    assert logging.getLogger("vllm").handlers == before
    with captured(tmp_path / "log"):
        print("x")
    assert (tmp_path / "log").read_text() == "x\n"
