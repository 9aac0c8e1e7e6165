"""llmbatch beneath lm-evaluation-harness, on the scripted engine: what it asks, what it gives back, and what a kill costs."""

from __future__ import annotations

import json
import math
import sys
import tomllib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmbatch.core.errors import JobError, RunError
from llmbatch.core.imports import load_object
from llmbatch.job.job import DEMO_MODEL

ROOT = Path(__file__).parents[2]
GREEDY = {"until": ["\n"], "do_sample": False}
CERTAIN, OTHER = math.log(0.9), math.log(0.1 / 255)  # of a byte, as the scripted engine has it


def setup_module() -> None:
    """The harness takes seconds to import, and each of pytest's workers reads every test file."""
    global Instance, LlmbatchLM, TemplateLM, get_model, get_rolling_token_windows, lm_eval, main, make_disjoint_window
    import lm_eval
    import lm_eval.tasks
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import get_model
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    from llmbatch.integrations.lm_eval import LlmbatchLM
    from llmbatch.integrations.lm_eval_command import main


def requests(kind: str, arguments: Sequence[tuple[Any, ...]], task: str = "task") -> list[Instance]:
    return [
        Instance(kind, {}, arguments=each, idx=0, metadata=(task, number, 1)) for number, each in enumerate(arguments)
    ]


def make(folder: Path, **model_args: Any) -> LlmbatchLM:
    return LlmbatchLM(**{"model": "demo", "engine": "scripted", "output": folder / "scores", **model_args})


def rows(folder: Path, kind: str) -> list[dict[str, Any]]:
    """What was asked in the only batch of a kind, in the order of the requests."""
    (asked,) = all_rows(folder, kind)
    return asked


def all_rows(folder: Path, kind: str = "*") -> list[list[dict[str, Any]]]:
    """What was asked in each batch."""
    paths = (folder / "scores").glob(f"{kind}-*.jsonl")
    return [[json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] for path in paths]


def computed(folder: Path) -> int:
    """Tokens that the engine was given in all runs, by their reports."""
    found = 0
    for path in (folder / "scores").glob("*/report.json"):
        report = json.loads(path.read_bytes())
        found += sum(session["tokens"]["prompt_tokens"] for session in report["sessions"])
    return found


@pytest.fixture
def with_first_token(tmp_path: Path) -> str:
    """A tokenizer that begins every text with a token of its own, as Llama's."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {"<s>": 0, "</s>": 1, "<unk>": 2, "one": 3, "two": 4, "three": 5, ".": 6}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    folder = tmp_path / "tokenizer"
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    return str(folder)


# ---- likelihoods

PAIRS = [
    ("one two", " three"),
    ("one two ", "three"),
    ("one\n\n", "two three"),
    ("one", ""),
    ("", "two"),
    ("", "<s> two"),
    ("<s>one", " two"),
    ("one two", " three"),
    ("one.", "."),
]


@pytest.mark.parametrize("first_token", [False, True])
@pytest.mark.parametrize("add_bos_token", [None, False, True])
def test_context_and_continuation_are_the_ids_that_the_harness_makes_of_them(
    tmp_path: Path,
    with_first_token: str,
    first_token: bool,
    add_bos_token: bool | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = {"tokenizer": with_first_token} if first_token else {}
    lm = make(tmp_path, **chosen, **({} if add_bos_token is None else {"add_bos_token": add_bos_token}))
    theirs: list[Any] = []
    monkeypatch.setattr(
        lm, "_loglikelihood_tokens", lambda asked, **_: theirs.extend(asked) or [(0.0, True)] * len(asked)
    )
    TemplateLM.loglikelihood(lm, requests("loglikelihood", PAIRS), disable_tqdm=True)
    assert lm._encode_pairs(PAIRS) == [(context, continuation) for _, context, continuation in theirs]


def test_likelihoods_come_back_in_the_order_of_their_requests(tmp_path: Path) -> None:
    lm = make(tmp_path)
    pairs = [("say: x", " a" * count) for count in (9, 1, 5, 1, 9)]
    found = lm.loglikelihood(requests("loglikelihood", pairs))
    assert [score for score, _ in found] == pytest.approx(
        [OTHER * len(row["target"]) for row in rows(tmp_path, "loglikelihood")]
    )
    assert found[0] == found[4] and found[1] == found[3] and found[0] < found[2] < found[1]


def test_an_empty_continuation_is_certain(tmp_path: Path) -> None:
    assert make(tmp_path).loglikelihood(requests("loglikelihood", [("one", "")])) == [(0.0, True)]


def test_a_context_that_is_too_long_is_cut_from_the_left_as_in_the_harness_s_vllm_backend(tmp_path: Path) -> None:
    lm = make(tmp_path, max_length=20)
    context = " ".join(f"number {count}" for count in range(30))
    lm.loglikelihood(requests("loglikelihood", [(context, " two")]))
    (row,) = rows(tmp_path, "loglikelihood")
    whole = lm.tok_encode(context + " two")
    assert row["ids"] + row["target"] == whole[-19:]
    assert row["target"] == whole[len(lm.tok_encode(context)) :]


def test_a_continuation_longer_than_the_context_is_an_error_that_names_its_document(tmp_path: Path) -> None:
    lm = make(tmp_path, max_length=20)
    asked = requests("loglikelihood", [("one", " two"), ("one", " two" * 40)], task="long")
    with pytest.raises(RunError, match=r"task long, document 1.* the continuation has \d+ tokens"):
        lm.loglikelihood(asked)


def test_a_context_of_white_space_is_an_error_that_names_its_document(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"task task, document 0.*white space"):
        make(tmp_path).loglikelihood(requests("loglikelihood", [(" \n", "two")]))


def test_a_long_text_is_rolled_over_in_the_windows_of_the_harness_and_summed(tmp_path: Path) -> None:
    lm = make(tmp_path, max_length=20)
    texts = [("one two three " * 12,), ("four",), ("",)]
    found = lm.loglikelihood_rolling(requests("loglikelihood_rolling", texts))
    expected = [
        make_disjoint_window(window)
        for (text,) in texts
        for window in get_rolling_token_windows(lm.tok_encode(text), lm.prefix_token_id, 18, 1)
    ]
    assert [(row["ids"], row["target"]) for row in rows(tmp_path, "loglikelihood_rolling")] == expected
    assert found == pytest.approx([OTHER * len(lm.tok_encode(text)) for (text,) in texts])


# ---- answers


def test_an_answer_ends_at_the_first_of_its_stop_strings(tmp_path: Path) -> None:
    given = [("a b. c\nd", GREEDY), ("a b. c\nd", {**GREEDY, "until": [".", "\n"]}), ("a", {**GREEDY, "until": "b"})]
    assert make(tmp_path).generate_until(requests("generate_until", given)) == ["a b. c", "a b", "a"]


def test_stop_strings_are_given_to_the_engine_without_the_end_of_text_that_it_knows(tmp_path: Path) -> None:
    lm = make(tmp_path)
    lm.generate_until(requests("generate_until", [("a", GREEDY), ("b", {"do_sample": False})]))
    assert [row["sampling"].get("stop") for row in rows(tmp_path, "generate_until")] == [["\n"], None]


def test_thinking_is_taken_out_before_an_answer_is_ended(tmp_path: Path) -> None:
    lm = make(tmp_path, think_end_token="</think>")
    assert lm.generate_until(requests("generate_until", [("x\ny</think> a\nb", GREEDY)])) == ["a"]
    assert "stop" not in rows(tmp_path, "generate_until")[0]["sampling"]


def test_without_a_word_on_sampling_an_answer_is_greedy_whatever_the_model_s_own_settings(tmp_path: Path) -> None:
    lm = make(tmp_path, max_gen_toks=7)
    lm.generate_until(requests("generate_until", [("a", {"until": []})]))
    (row,) = rows(tmp_path, "generate_until")
    assert row["sampling"] == {
        "temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "max_tokens": 7,
        "skip_special_tokens": False, "spaces_between_special_tokens": False,
    }  # fmt: skip
    assert "seed" not in row


def test_equal_requests_that_are_drawn_at_random_have_seeds_of_their_own_the_same_each_time(tmp_path: Path) -> None:
    drawn = {"until": ["\n"], "do_sample": True, "temperature": 0.8}
    lm = make(tmp_path)
    lm.generate_until(requests("generate_until", [("a", drawn), ("a", drawn), ("b", drawn)]))
    lm.generate_until(requests("generate_until", [("c", {**drawn, "seed": 7}), ("c", {**drawn, "seed": 7})]))
    assert sorted([row["seed"] for row in asked] for asked in all_rows(tmp_path)) == [[7, 8], [1234, 1235, 1234]]


@pytest.mark.parametrize(("side", "kept"), [("left", slice(-14, None)), ("right", slice(0, 14))])
def test_a_prompt_that_leaves_too_little_room_is_cut(tmp_path: Path, side: str, kept: slice) -> None:
    lm = make(tmp_path, max_length=20, truncation_side=side)
    context = "one two three " * 10
    lm.generate_until(requests("generate_until", [(context, {**GREEDY, "max_gen_toks": 6})]))
    assert rows(tmp_path, "generate_until")[0]["ids"] == lm.tok_encode(context)[kept]


def test_more_tokens_than_the_context_has_are_an_error_that_names_the_document(tmp_path: Path) -> None:
    lm = make(tmp_path, max_length=20)
    with pytest.raises(JobError, match=r"task task, document 0.*max_gen_toks=20 leaves no room"):
        lm.generate_until(requests("generate_until", [("a", {**GREEDY, "max_gen_toks": 20})]))


def test_a_generation_setting_that_does_not_exist_is_an_error_with_a_near_name(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"document 0.*top_pp is no sampling setting \(did you mean 'top_p'\?\)"):
        make(tmp_path).generate_until(requests("generate_until", [("a", {**GREEDY, "top_pp": 1})]))


def test_a_request_that_the_engine_fails_ends_the_evaluation_and_names_its_document(tmp_path: Path) -> None:
    script = tmp_path / "script.yaml"
    script.write_text(yaml.safe_dump({"rules": [{"when": {"contains": "bad"}, "fail": "no luck"}]}))
    lm = make(tmp_path, script=str(script))
    with pytest.raises(RunError, match=r"1 of 2 requests have no answer.*task task, document 1, request 0: no luck"):
        lm.generate_until(requests("generate_until", [("good", GREEDY), ("bad", GREEDY)]))


# ---- chat templates


def test_messages_are_rendered_as_the_model_s_own_template_has_them(tmp_path: Path) -> None:
    lm = make(tmp_path)
    chat = [{"role": "system", "content": "be"}, {"role": "user", "content": "one"}]
    assert lm.apply_chat_template(chat) == "<|system|>be<|end|><|user|>one<|end|><|assistant|>"
    begun = [*chat, {"role": "assistant", "content": "un"}]
    assert lm.apply_chat_template(begun, add_generation_prompt=False).endswith("<|assistant|>un")
    assert lm.chat_template(True) == lm.tokenizer.chat_template
    assert lm.tokenizer_name == str(DEMO_MODEL).replace("/", "__")


def test_a_template_without_a_place_for_a_system_message_is_given_none(tmp_path: Path) -> None:
    lm = make(tmp_path)
    refusal = "{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}"
    lm.tokenizer.chat_template = "{% for m in messages %}" + refusal + "{{ m.content }}{% endfor %}"
    assert lm.apply_chat_template([{"role": "system", "content": "be"}, {"role": "user", "content": "one"}]) == "one"


def test_thinking_is_for_tasks_with_answers(tmp_path: Path) -> None:
    lm = make(tmp_path, enable_thinking=True, think_end_token="</think>")
    with pytest.raises(JobError, match="likelihoods: task"):
        lm.loglikelihood(requests("loglikelihood", [("a", "b")]))
    with pytest.raises(JobError, match="needs think_end_token"):
        make(tmp_path, enable_thinking=True)


# ---- again


def test_the_same_evaluation_again_asks_nothing(tmp_path: Path) -> None:
    asked = requests("generate_until", [(f"text {count}", GREEDY) for count in range(5)])
    first = make(tmp_path).generate_until(asked)
    before = computed(tmp_path)
    assert make(tmp_path).generate_until(asked) == first
    assert computed(tmp_path) == before > 0


def test_with_a_task_added_only_that_is_asked(tmp_path: Path) -> None:
    asked = requests("generate_until", [(f"text {count}", GREEDY) for count in range(5)])
    make(tmp_path).generate_until(asked)
    before = computed(tmp_path)
    lm = make(tmp_path)
    more = requests("generate_until", [("another task", GREEDY)], task="other")
    assert lm.generate_until([*asked, *more]) == [*(f"text {count}" for count in range(5)), "another task"]
    assert computed(tmp_path) - before == len(lm.tok_encode("another task"))


def test_likelihoods_are_in_the_cache_too(tmp_path: Path) -> None:
    pairs = [(f"text {count}", " more") for count in range(5)]
    first = make(tmp_path).loglikelihood(requests("loglikelihood", pairs))
    before = computed(tmp_path)
    found = make(tmp_path).loglikelihood(requests("loglikelihood", [*pairs, ("new", " one")]))
    assert found[:5] == first
    lm = make(tmp_path)
    assert computed(tmp_path) - before == len(lm.tok_encode("new one"))


def test_without_an_output_folder_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    lm = make(tmp_path, output=None)
    assert lm.generate_until(requests("generate_until", [("a", GREEDY)])) == ["a"]
    lm._batches.close()
    assert list(tmp_path.iterdir()) == []


# ---- the harness around it, its command, and bad input


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, which is the current one, with a task in which the echo of a text is right; the harness reads no other tasks."""
    (tmp_path / "say.jsonl").write_text("".join(json.dumps({"text": f"say {n}"}) + "\n" for n in range(6)))
    task = {
        "task": "say", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "say.jsonl"}}, "test_split": "test",
        "output_type": "generate_until", "doc_to_text": "{{text}}", "doc_to_target": "{{text}}",
        "generation_kwargs": GREEDY, "metric_list": [{"metric": "exact_match"}],
    }  # fmt: skip
    choice = {
        **task, "task": "choose", "output_type": "multiple_choice", "doc_to_choice": ["say", "nothing"], "doc_to_target": 0,
        "metric_list": [{"metric": "acc"}],
    }  # fmt: skip
    for each in (task, choice):
        (tmp_path / f"{each['task']}.yaml").write_text(yaml.safe_dump(each))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(lm_eval.tasks, "TaskManager", partial(lm_eval.tasks.TaskManager, include_defaults=False))
    return tmp_path


def test_the_harness_evaluates_with_it(say: Path) -> None:
    found = lm_eval.simple_evaluate(
        model="llmbatch", model_args={"model": "demo", "engine": "scripted", "output": str(say / "scores")},
        tasks=["say", "choose"], task_manager=lm_eval.tasks.TaskManager(include_path="."), bootstrap_iters=0,
        num_fewshot=0, apply_chat_template=True,
    )  # fmt: skip
    assert found["results"]["choose"]["acc,none"] == 1.0
    assert rows(say, "generate_until")[0]["text"] == "<|user|>say 0<|end|><|assistant|>"
    assert rows(say, "loglikelihood")[1]["of"] == "task choose, document 0, request 1"


def call(monkeypatch: pytest.MonkeyPatch, *model_args: str) -> None:
    arguments = ["run", "--model", "llmbatch", "--model_args", *model_args, "--tasks", "say", "--include_path", "."]
    monkeypatch.setattr(sys, "argv", ["llmbatch-lm-eval", *arguments])
    main()


def test_the_harness_s_command_knows_the_model(
    say: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, "model=demo", "engine=scripted", "output=scores")
    assert "|exact_match|" in capsys.readouterr().out.replace(" ", "")
    assert len(rows(say, "generate_until")) == 6


@pytest.mark.usefixtures("say")
def test_the_command_says_in_a_line_what_is_wrong_with_the_arguments(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        call(monkeypatch, "modle=demo", "engine=scripted")
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith(
        "llmbatch: --model_args: model is missing (is that what 'modle' was to be?)"
    )


def test_the_registry_finds_the_model_once_the_module_is_imported() -> None:
    assert get_model("llmbatch") is LlmbatchLM
    assert get_model("dummy").__name__ == "DummyLM"  # the harness's own are there too


@pytest.mark.parametrize("group", ["lm_eval.models", "inspect_ai"])
def test_the_entry_point_names_what_is_there(group: str) -> None:
    project: Mapping[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, name = project["entry-points"][group]["llmbatch"].partition(":")
    if name:
        assert load_object(f"{module}:{name}") is LlmbatchLM
    else:
        assert (ROOT / (module.replace(".", "/") + ".py")).is_file()


def test_a_key_that_nobody_knows_is_refused_with_a_near_one(tmp_path: Path) -> None:
    with pytest.raises(
        JobError, match=r"outptu.*of llmbatch's own keys, 'outptu' is close to one \(did you mean 'output'"
    ):
        make(tmp_path, outptu="x")


@pytest.mark.parametrize(
    ("model_args", "said"),
    [
        ({"max_gen_toks": 0}, "--model_args: max_gen_toks: .* greater than or equal to 1"),
        ({"truncation_side": "up"}, "--model_args: truncation_side"),
        ({"max_length": 100_000}, "max_length=100,000 is more than the model's context of 4,096"),
        ({"model": "./nowhere"}, "nowhere"),
        ({"engine": "vlm"}, "unknown engine 'vlm'"),
        ({"no_ids": True}, "takes no token ids"),
    ],
    ids=["number", "choice", "length", "model", "engine", "ids"],
)
def test_wrong_arguments_are_refused_before_anything_is_asked(
    tmp_path: Path, model_args: dict[str, Any], said: str
) -> None:
    with pytest.raises(JobError, match=said):
        make(tmp_path, **model_args)


def test_what_the_harness_hands_to_every_backend_is_taken(tmp_path: Path) -> None:
    lm = LlmbatchLM.create_from_arg_string(
        f"pretrained=demo,engine=scripted,output={tmp_path}",
        {"batch_size": "auto", "max_batch_size": 8, "device": None},
    )
    assert lm.max_length == 4096
