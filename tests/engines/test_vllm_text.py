"""Texts against vLLM's own detokenizer, for random ids and the kinds of tokenizers that models have. No engine is needed."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from llmbatch.engines.vllm.text import Answer, Detokenizer, logprobs_json
from llmbatch.job.job import DEMO_MODEL

if TYPE_CHECKING:  # each worker reads every test file, and few run the tests of this one
    from transformers import PreTrainedTokenizerFast

pytestmark = pytest.mark.vllm

LETTERS = ["a", "b", "é", "数", "▁", "▁▁", "▁a", "▁b", "ab", "▁the", ".", "\N{REPLACEMENT CHARACTER}"]
SPECIALS = ["<unk>", "<s>", "</s>", "<|user|>"]


def _fast(decoder: Any, pieces: Sequence[str]) -> PreTrainedTokenizerFast:
    vocab = {piece: i for i, piece in enumerate([*SPECIALS, *pieces])}
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token=SPECIALS[0], byte_fallback=True))
    tokenizer.decoder = decoder
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def _tokenizer(name: str) -> Any:
    all_bytes = [f"<0x{byte:02X}>" for byte in range(256)]
    match name:
        case "byte-level BPE":
            from transformers import AutoTokenizer

            return AutoTokenizer.from_pretrained(DEMO_MODEL)
        case "SentencePiece with byte fallback":
            parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
            return _fast(decoders.Sequence(parts), [*LETTERS, *all_bytes])
        case "SentencePiece without stripping":
            parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
            return _fast(decoders.Sequence(parts), [*LETTERS, *all_bytes])
        case _:
            return _fast(decoders.Metaspace(prepend_scheme=name.split()[1]), LETTERS)  # type: ignore[arg-type]


NAMES = [
    "byte-level BPE", "SentencePiece with byte fallback", "SentencePiece without stripping", "Metaspace always", "Metaspace first",
    "Metaspace never",
]  # fmt: skip


def by_vllm(tokenizer: Any, prompt: list[int], ids: list[int], skip: bool) -> str:
    """The text as vLLM makes it, a token at a time."""
    from vllm.v1.engine.detokenizer import IncrementalDetokenizer

    params = SimpleNamespace(
        stop=[],
        min_tokens=0,
        include_stop_str_in_output=False,
        skip_special_tokens=skip,
        spaces_between_special_tokens=True,
    )
    request = SimpleNamespace(sampling_params=params, prompt_token_ids=prompt, prompt_embeds=None, request_id="0")
    stream = IncrementalDetokenizer.from_new_request(tokenizer, request)
    for token in ids:
        stream.update([token], False)
    return stream.output_text


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("skip", [True, False])
def test_the_text_of_any_ids_is_vllms(name: str, skip: bool) -> None:
    tokenizer = _tokenizer(name)
    detokenizer = Detokenizer(tokenizer)
    assert detokenizer.supported
    ids = st.integers(0, len(tokenizer) - 1)

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(st.tuples(st.lists(ids, min_size=1, max_size=8), st.lists(ids, max_size=10)), min_size=1, max_size=4)
    )
    @example([([1], [8, 8]), ([4], [8, 10])])
    @example([([241, 0, 0, 144, 144], [144, 4])])  # bytes of one character, with specials between them that are skipped
    def check(pairs: list[tuple[list[int], list[int]]]) -> None:
        for prompt, _ in pairs:  # after such a prompt vLLM's text starts with the prompt
            assume(
                not tokenizer._tokenizer.decode(prompt, skip_special_tokens=skip).endswith("\N{REPLACEMENT CHARACTER}")
            )
        ours = detokenizer.texts([Answer(prompt, answer, skip) for prompt, answer in pairs])
        assert ours == [by_vllm(tokenizer, prompt, answer, skip) for prompt, answer in pairs]

    check()


@pytest.mark.parametrize("name", NAMES[:3])
def test_the_text_of_real_text_is_that_text(name: str) -> None:
    tokenizer = _tokenizer(name)
    detokenizer = Detokenizer(tokenizer)
    text = "ab é数 the .  a"
    prompt = tokenizer.encode("a b", add_special_tokens=False)
    ids = tokenizer.encode("a b" + text, add_special_tokens=False)[len(prompt) :]
    assert detokenizer.texts([Answer(prompt, ids, True)]) == [text]


def test_an_unfinished_character_at_the_end_is_held_back() -> None:
    tokenizer = _tokenizer("byte-level BPE")
    ids = tokenizer.encode("so 🙂", add_special_tokens=False)
    assert Detokenizer(tokenizer).texts([Answer([5], ids, True), Answer([5], ids[:-1], True)]) == ["so 🙂", "so "]


def test_a_prompt_that_ends_with_a_replacement_character_does_not_come_back_in_the_answer() -> None:
    tokenizer = _tokenizer("byte-level BPE")
    prompt = tokenizer.encode("what is \N{REPLACEMENT CHARACTER}", add_special_tokens=False)
    broken = tokenizer.encode("a 🙂", add_special_tokens=False)[:-1]
    assert Detokenizer(tokenizer).texts([Answer(prompt, broken, True)]) == ["a "]


def test_a_continued_answer_ends_at_the_first_stop_string_that_a_new_token_completes() -> None:
    tokenizer = _tokenizer("byte-level BPE")
    detokenizer = Detokenizer(tokenizer)

    def ending(partial: str, new: str, *stops: str, include_stop: bool = False) -> tuple[str, str | None]:
        old, more = (tokenizer.encode(text, add_special_tokens=False) for text in (partial, new))
        answer = Answer([5], [*old, *more], True)
        end = detokenizer.ending(answer, stops, already=len(old), include_stop=include_stop)
        assert end.tokens <= len(answer.ids)
        assert tokenizer.decode(answer.ids[: end.tokens]).startswith(end.text)
        return end.text, end.stop

    assert ending("abc\n", "\nd", "\n\n") == ("abc", "\n\n")
    assert ending("abc", "\n\n", "\n") == ("abc", "\n")
    assert ending("abc", "\n\n", "\n", include_stop=True) == ("abc\n", "\n")
    assert ending("a so", " b so c", "so") == ("a so b ", "so"), "the first one was let pass, as min_tokens asks for"
    assert ending("abc", "def", "x") == ("abcdef", None)


@pytest.mark.parametrize(
    ("prefill", "seen", "text", "rest"),
    [
        ("so, ", "so,", " a", "a"),
        ("so, ", "so, ", " a", " a"),
        ("so, ", "so,", "\na", "\na"),
        ("so\n\n", "so", "\na", "a"),
        ("so\n\n", "so", "\n\n\na", "\na"),
        ("so", "so", " a", " a"),
    ],
)
def test_white_space_that_was_trimmed_off_the_prefill_is_not_in_the_answer_again(
    prefill: str, seen: str, text: str, rest: str
) -> None:
    tokenizer = _tokenizer("byte-level BPE")
    prompt = tokenizer.encode("what? " + seen, add_special_tokens=False)
    assert Detokenizer(tokenizer).after_prefill(text, prefill, prompt) == rest


def test_a_decoder_that_is_not_known_is_left_to_vllm() -> None:
    tokenizer = _fast(decoders.WordPiece(), LETTERS)
    detokenizer = Detokenizer(tokenizer)
    assert not detokenizer.supported
    ids = [4, 5, 14]
    assert detokenizer.texts([Answer([5], ids, True)]) == [by_vllm(tokenizer, [5], ids, True)]


def test_log_probabilities_name_the_chosen_token_first_and_have_no_infinity() -> None:
    def entry(token: str, value: float, rank: int) -> SimpleNamespace:
        return SimpleNamespace(decoded_token=token, logprob=value, rank=rank)

    rare = {7: entry("x", float("-inf"), 90), 1: entry("a", -0.1, 1), 2: entry("b", -1.0, 2)}
    likely = {1: entry("a", -0.1, 1), 2: entry("b", -1.0, 2)}
    assert logprobs_json([rare, likely]) == [
        {"token": "x", "logprob": -9999.0, "top": [{"token": "a", "logprob": -0.1}, {"token": "b", "logprob": -1.0}]},
        {"token": "a", "logprob": -0.1, "top": [{"token": "a", "logprob": -0.1}, {"token": "b", "logprob": -1.0}]},
    ]
