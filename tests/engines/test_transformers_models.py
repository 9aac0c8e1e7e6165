"""The transformers engine with models of other kinds and another tokenizer, made here with random weights, and in whole runs."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import JobError
from llmbatch.core.types import Completion, FailureKind, Outcome, Prompt, Refusal, Request, RequestKey, Sampling
from llmbatch.engines.base import EngineInfo
from llmbatch.engines.feed import Feed
from llmbatch.engines.kinds import make_engine
from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.transformers.loading import check_known
from llmbatch.job.job import job_from
from llmbatch.model.tokenizer import ChatSettings

VOCABULARY = 300
WORDS = re.findall(
    r"\w+", "the quick brown fox jumps over a lazy dog while seven wizards make toxic brew for Jack and his queen"
)
PROMPTS = [" ".join(WORDS[i : i + 2 + i % 5]) for i in range(12)]
GREEDY = {"max_tokens": 16, "temperature": 0.0}


def save_tokenizer(folder: Path, *, ends: bool) -> None:
    """Pieces of words with ``▁`` for spaces, of another family than the demo model's bytes. ``ends``: a text ends with ``</s>``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCABULARY, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator(PROMPTS, trainer)
    if ends:
        made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(folder)


def gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_positions": 128, "n_embd": 64, "n_layer": 2, "n_head": 4}
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, **sizes, initializer_range=0.3, **IDS))


def mamba() -> Any:
    from transformers import MambaConfig, MambaForCausalLM

    sizes = {"hidden_size": 48, "state_size": 8, "num_hidden_layers": 2}
    return MambaForCausalLM(MambaConfig(vocab_size=VOCABULARY, **sizes, initializer_range=0.5, **IDS))


def t5() -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}
    config = T5Config(vocab_size=VOCABULARY, **sizes, initializer_factor=3.0, decoder_start_token_id=0, **IDS)
    return T5ForConditionalGeneration(config)


IDS = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}
MODELS: dict[str, Callable[[], Any]] = {"gpt2": gpt2, "mamba": mamba, "t5": t5}
BATCHING = {"gpt2": "continuous", "mamba": "plain", "t5": "plain"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    import torch

    made = {}
    for name, make in MODELS.items():
        torch.manual_seed(5)
        made[name] = tmp_path_factory.mktemp(name)
        make().save_pretrained(made[name])
        save_tokenizer(made[name], ends=name == "t5")
    return made


def run(
    folder: Path, requests: Callable[[Any], Sequence[Request]], **settings: Any
) -> tuple[EngineInfo, list[Outcome]]:
    """What an engine with this model became, and the outcomes of requests, in their order."""
    args = {"device": "cpu", "max_num_seqs": 8, **settings.pop("args", {})}
    given = EngineSettings(name="transformers", args=args, **settings)
    engine = make_engine(str(folder), given, ChatSettings(), folder / "engine.log")
    feed, found = Feed(), {}
    try:
        info = engine.start()
        asked = requests(engine)
        feed.push(asked)
        feed.close()
        for outcomes in engine.stream(feed):
            for outcome in outcomes:
                feed.done(outcome.key)
                found[outcome.key] = outcome
    finally:
        engine.stop()
    return info, [found[request.key] for request in asked]


def texts(sampling: dict[str, Any], **more: Any) -> Callable[[Any], Sequence[Request]]:
    given = Sampling(tuple(sorted(sampling.items())))

    def requests(engine: Any) -> list[Request]:
        prompts = [Prompt(text=text) for text in PROMPTS]
        ids = engine.tokenize(prompts)
        return [Request(RequestKey(i), p, given, token_ids=ids[i], **more) for i, p in enumerate(prompts)]

    return requests


def alone(folder: Path, **settings: Any) -> list[list[int]]:
    """The tokens of the library's own ``generate`` for each prompt by itself, the one that begins a decoder's left out."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    both = AutoConfig.from_pretrained(folder).is_encoder_decoder
    model = (AutoModelForSeq2SeqLM if both else AutoModelForCausalLM).from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for prompt in PROMPTS:
        torch.manual_seed(settings.get("seed", 0))
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        given = {name: value for name, value in settings.items() if name != "seed"}
        made = model.generate(ids, attention_mask=torch.ones_like(ids), **given)[0].tolist()
        found.append(made[1:] if both else made[ids.shape[1] :])
    return found


@pytest.mark.parametrize("name", MODELS)
def test_its_tokens_are_the_librarys_for_models_of_every_kind(folders: dict[str, Path], name: str) -> None:
    info, outcomes = run(folders[name], texts(GREEDY))
    assert info.details["batching"] == BATCHING[name], info.details
    assert [list(o.token_ids) for o in outcomes] == alone(folders[name], max_new_tokens=16)  # type: ignore[union-attr]
    assert len({o.text for o in outcomes}) > 1  # type: ignore[union-attr]


def test_seeded_answers_of_an_encoder_and_decoder_are_the_librarys_too(folders: dict[str, Path]) -> None:
    sampled = {"temperature": 0.9, "top_k": 20}
    _, outcomes = run(folders["t5"], texts({**sampled, "max_tokens": 10, "seed": 4}))
    theirs = alone(folders["t5"], do_sample=True, max_new_tokens=10, seed=4, **sampled)
    assert [list(o.token_ids) for o in outcomes] == theirs  # type: ignore[union-attr]


def test_an_encoder_and_decoder_goes_on_from_a_partial_answer(folders: dict[str, Path]) -> None:
    _, whole = run(folders["t5"], texts(GREEDY))
    assert isinstance(whole[0], Completion)
    partial = tuple(whole[0].token_ids[:4])
    _, rest = run(folders["t5"], lambda engine: texts(GREEDY, partial=partial)(engine)[:1])
    assert isinstance(rest[0], Completion)
    assert list(rest[0].token_ids)[:16] == list(whole[0].token_ids)


def test_an_encoder_and_decoder_refuses_what_it_has_not(folders: dict[str, Path]) -> None:
    def requests(engine: Any) -> list[Request]:
        first, second, third = texts(GREEDY)(engine)[:3]
        long = Request(second.key, second.prompt, second.sampling, token_ids=[5] * 600)
        target = Request(third.key, third.prompt, third.sampling, token_ids=[5], target="x", target_ids=(6,))
        return [first, long, target]

    info, (good, long, target) = run(folders["t5"], requests, args={"max_model_len": 512})
    assert "score" not in info.can
    assert isinstance(good, Completion)
    assert isinstance(long, Refusal)
    assert long.failure.kind is FailureKind.TOO_LONG
    assert isinstance(target, Refusal)
    assert "likelihood" in target.failure.message


def test_each_row_has_the_adapter_that_it_asks_for(folders: dict[str, Path], tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(folders["gpt2"])
    torch.manual_seed(3)
    settings = LoraConfig(r=4, target_modules=["c_attn"], init_lora_weights=False, fan_in_fan_out=True)
    adapted = get_peft_model(base, settings).eval()
    adapted.save_pretrained(tmp_path / "adapter")

    def requests(engine: Any) -> list[Request]:
        plain = texts(GREEDY)(engine)
        with_it = texts(GREEDY, lora="legal")(engine)
        return [with_it[i] if i % 2 else plain[i] for i in range(len(plain))]

    info, outcomes = run(folders["gpt2"], requests, lora={"legal": str(tmp_path / "adapter")})
    assert "lora" in info.can
    usual = alone(folders["gpt2"], max_new_tokens=16)
    for i, (request, outcome) in enumerate(zip(usual, outcomes, strict=True)):
        assert isinstance(outcome, Completion)
        assert (list(outcome.token_ids) == request) == (i % 2 == 0)
    from transformers import AutoTokenizer

    given = AutoTokenizer.from_pretrained(folders["gpt2"])(PROMPTS[1], return_tensors="pt")["input_ids"]
    made = adapted.generate(input_ids=given, attention_mask=torch.ones_like(given), max_new_tokens=16, do_sample=False)
    assert list(outcomes[1].token_ids) == made[0, given.shape[1] :].tolist()  # type: ignore[union-attr]


def test_the_text_of_an_answer_keeps_the_space_that_it_begins_with(folders: dict[str, Path]) -> None:
    _, outcomes = run(folders["gpt2"], texts(GREEDY))
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folders["gpt2"])
    for prompt, outcome in zip(PROMPTS, outcomes, strict=True):
        assert isinstance(outcome, Completion)
        both = tokenizer.decode([*tokenizer(prompt)["input_ids"], *outcome.token_ids], skip_special_tokens=True)
        assert prompt + outcome.text == both


def test_batching_that_a_model_has_not_is_refused_where_it_is_asked_for(folders: dict[str, Path]) -> None:
    with pytest.raises(Exception, match="encoder and decoder") as refused:
        run(folders["t5"], texts(GREEDY), args={"batching": "continuous"})
    assert type(refused.value).__name__ == "JobError"


def test_a_cache_that_is_smaller_than_the_context_limits_it(folders: dict[str, Path]) -> None:
    def requests(engine: Any) -> list[Request]:
        fits, last = texts({**GREEDY, "max_tokens": 100, "ignore_eos": True})(engine)[:2]
        return [fits, Request(last.key, last.prompt, last.sampling, token_ids=[5] * 70)]

    info, (cut, long) = run(folders["gpt2"], requests, args={"num_blocks": 4, "page_size": 16, "max_batch_tokens": 64})
    assert info.context_length == 64
    assert isinstance(cut, Completion)
    assert cut.usage.prompt_tokens + cut.usage.completion_tokens == 64
    assert isinstance(long, Refusal)
    assert long.failure.kind is FailureKind.TOO_LONG


def job_of(jobs: Any, output: str) -> dict[str, Any]:
    numbers = ["one", "forty-two", "nine hundred and eleven", "seven thousand and two", "sixty"]
    rows = [{"id": f"n{i}", "text": f"{numbers[i % 5]} {'and one ' * (i // 5)}"} for i in range(40)]
    path = jobs.rows([*rows, "not json", {"id": "long", "text": "word " * 9000}, {"id": "none"}])
    return {
        **jobs.data(path),
        "model": "demo",
        "prompt": {"path": "Translate to French: {{ text }}"},
        "output": str(jobs.path / output),
        "engine": {"name": "transformers", "args": {"device": "cpu", "max_num_seqs": 4}},
        "sampling": {"temperature": 1.0, "seed": 7, "max_tokens": 24},
        "run": {"window": 8},
    }


def test_a_run_has_one_record_a_line_and_after_a_kill_the_same_bytes(jobs: Any) -> None:
    jobs.run(job_from(job_of(jobs, "whole")))
    records = jobs.records("whole")
    assert [record["index"] for record in records] == list(range(43))
    failed = {record["id"]: record["error"]["kind"] for record in records if record["status"] == "failed"}
    assert failed == {40: "malformed_row", "long": "too_long", "none": "prompt"}
    killed, _, _ = jobs.finish(job_of(jobs, "killed"), environment={"LLMBATCH_FAULT": "part-sealed:2"})
    assert killed == -signal.SIGKILL
    jobs.run(job_from(job_of(jobs, "killed")))
    assert jobs.report("killed")["sessions"][-1]["session"] == 2
    assert jobs.results("killed") == jobs.results("whole")


@pytest.mark.parametrize(
    ("kind", "said"),
    [("BertConfig", "of the type 'bert', an encoder"), ("ViTConfig", "of the type 'vit', which generates no text")],
)
def test_a_model_that_generates_no_text_is_refused_before_its_weights_are_looked_at(
    tmp_path: Path, kind: str, said: str
) -> None:
    import transformers

    getattr(transformers, kind)().save_pretrained(tmp_path)  # there are no weights
    with pytest.raises(JobError, match=said):
        check_known(str(tmp_path), EngineSettings(name="transformers"))
    with pytest.raises(JobError, match=said):
        make_engine(str(tmp_path), EngineSettings(name="transformers"), ChatSettings(), tmp_path / "log").start()


@pytest.mark.parametrize(
    ("kind", "more"), [("BertConfig", {"is_decoder": True}), ("XLMConfig", {}), ("BartConfig", {})]
)
def test_one_of_such_a_type_that_does_is_known(tmp_path: Path, kind: str, more: dict[str, Any]) -> None:
    import transformers

    getattr(transformers, kind)(**more).save_pretrained(tmp_path)
    assert type(check_known(str(tmp_path), EngineSettings(name="transformers"))).__name__ == kind
