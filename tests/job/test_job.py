from __future__ import annotations

import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmbatch.core.errors import JobError
from llmbatch.job.identity import identity_of
from llmbatch.job.job import DEMO_MODEL, Job, job_from, load_job_data
from llmbatch.job.run_settings import RunSettings

MINIMAL = {"model": "any", "prompt": "Say: {{ text }}", "input": "rows.jsonl", "output": "out"}


def job(**changes: Any) -> Job:
    return job_from({**MINIMAL, **changes})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a job and all that it names; the current folder is another one."""
    base = tmp_path / "jobs"
    (base / "model").mkdir(parents=True)
    (base / "model" / "config.json").write_text("{}")
    (base / "rows.jsonl").write_text('{"text": "a"}\n')
    (base / "say.yaml").write_text(
        "name: say\nvariables: {text: {}}\nmessages: [{role: user, content: '{{ text }}'}]\n"
    )
    (base / "schema.json").write_text('{"type": "object"}')
    (base / "template.jinja").write_text("{{ messages }}")
    (base / "script.yaml").write_text("{}")
    (base / "rows.txt").write_text("0\n")
    (base / "adapter").mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return base


def load(folder: Path, text: str) -> Job:
    (folder / "job.yaml").write_text(text)
    return job_from(load_job_data(folder / "job.yaml"))


# what a job is refused for


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"modle": "x"}, "unknown key 'modle': did you mean model? known keys: model, prompt, input"),
        ({"retry": {"max_atempts": 2}}, "unknown key 'retry.max_atempts': did you mean retry.max_attempts?"),
        ({"max_tokens": 2}, "unknown key 'max_tokens': did you mean sampling.max_tokens? known keys: model"),
        ({"limit": 2}, "unknown key 'limit': did you mean input.limit? known keys: model"),
        ({"prompt": {"path": "p", "variabels": {}}}, "unknown key 'prompt.variabels': did you mean prompt.variables?"),
        ({"answer": {"shema": {}}}, "unknown key 'answer.shema': did you mean answer.schema?"),
        ({"input": {"path": "x", "id-field": "y"}}, "unknown key 'input.id-field': did you mean input.id_field?"),
        (
            {"engine": {"tensor_parallel_size": 2}},
            "an argument of the engine's own is engine.args.tensor_parallel_size; known keys: name, args",
        ),
        ({"model": 5}, "model: Input should be a valid string (got 5)"),
        ({"model": None}, "model: Input should be a valid string (got None)"),
        ({"engine": 5}, "engine: is a mapping of settings, not 5; known keys: name, args"),
        ({"answer": {"choice": [True]}}, "answer.choice.0: Input should be a valid string (got True)"),
        ({"answer": {"choice": ["a"], "regex": "b"}}, "answer: an answer has one kind: choice and regex"),
        (
            {"answer": {"schema": 5}},
            "answer.schema: Input should be a valid dictionary (got 5) or answer.schema: Input",
        ),
        ({"sinks": {"formats": ["xml"]}}, "sinks.formats: unknown output format 'xml': known are"),
        ({"run": {"window": 0}}, "run.window: Input should be greater than or equal to 1 (got 0)"),
        ({"engine": {"args": {"x": math.inf}}}, "engine.args.x: is inf, and a setting is a finite number"),
        ({"sampling": {"seed": 1 << 70}}, "sampling.seed: is a whole number beyond 64 bits"),
        ({"sampling": {"stop": b"x"}}, "sampling.stop: is a bytes, and a setting is text"),
        ({"sampling": {"stop": ["a", object()]}}, "sampling.stop[1]: is a object, and a setting is text"),
        ({"sampling": {"logit_bias": {1.5: 1}}}, "sampling.logit_bias: has the key 1.5, and a key is text"),
        ({"model": "\ud800"}, "model: holds half of a surrogate pair"),
    ],
)
def test_what_is_wrong_is_said_with_its_place_and_what_is_near(data: dict[str, Any], words: str) -> None:
    with pytest.raises(JobError) as error:
        job(**data)
    assert words in str(error.value)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(JobError) as error:
        job_from({"prompt": "x", "input": "y", "engin": {}})
    assert "model is missing: give --model" in str(error.value)
    assert "output is missing" in str(error.value)
    assert "did you mean engine?" in str(error.value)


def test_of_several_unknown_keys_each_is_a_whole_sentence() -> None:
    with pytest.raises(JobError) as error:
        job(engine={"tensor_parallel_size": 2, "quantise": 1})
    first, second = re.findall(r"unknown key '[^']+': ([^\n]*?)(?=; unknown key|$)", str(error.value))
    assert first.startswith("an argument of the engine's own is engine.args.tensor_parallel_size; known keys: ")
    assert second == "an argument of the engine's own is engine.args.quantise"


def test_data_that_holds_itself_is_refused() -> None:
    loop: dict[str, Any] = {}
    loop["again"] = loop
    with pytest.raises(JobError, match="is nested deeper than 100 levels"):
        job(sampling=loop)


# times and shares


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (90, 90),
        ("90", 90),
        ("90s", 90),
        ("15m", 900),
        ("8h", 28800),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("2D", 172800),
        ("1.5h", 5400),
    ],
)
def test_a_time_is_seconds_or_said_with_units(said: Any, seconds: float) -> None:
    assert job(run={"max_time": said}).run.max_time == seconds


@pytest.mark.parametrize("said", ["soon", "", "5x", "1.2.3s", "h", "-5m", "1h30", "inf", "nan", "٣s"])
def test_any_other_text_is_no_time(said: str) -> None:
    with pytest.raises(JobError, match=r"run\.max_time"):
        job(run={"max_time": said})


def test_failures_are_allowed_by_count() -> None:
    allowed = job(run={"max_failures": "12"}).run
    assert allowed.max_failures == 12
    assert allowed.failures_allowed(1) == allowed.failures_allowed(10**6) == 12


def test_failures_are_allowed_by_share_from_the_hundredth_row_on() -> None:
    allowed = job(run={"max_failures": "2.5 %"}).run
    assert allowed.failures_allowed(99) == math.inf
    assert allowed.failures_allowed(100) == 2.5
    assert allowed.failures_allowed(1000) == 25


def test_without_a_limit_all_failures_are_allowed() -> None:
    assert RunSettings().failures_allowed(10**9) == math.inf


@pytest.mark.parametrize("said", ["5%%", "many", "101%", "-1", -1, "0.5", 0.5, True, "%", "", "1e3%", "٣%", "٣"])
def test_any_other_limit_of_failures_is_refused_when_the_job_is_loaded(said: Any) -> None:
    with pytest.raises(JobError, match=r"run\.max_failures: is a number of rows, or a share"):
        job(run={"max_failures": said})


# job files


def test_paths_in_a_job_file_are_relative_to_its_folder(folder: Path) -> None:
    loaded = load(
        folder,
        """
model: model
prompt: {path: say.yaml, variables: {tone: model}}
input: {path: rows.jsonl}
output: results/run
answer: {schema: schema.json}
chat: {template: template.jinja}
engine: {name: scripted, script: script.yaml, lora: {a: adapter, b: org/name}}
run: {rows: rows.txt}
""",
    )
    assert loaded.model == str(folder / "model")
    assert loaded.prompt is not None
    assert loaded.prompt.path == str(folder / "say.yaml")
    assert loaded.prompt.variables == {"tone": "model"}
    assert loaded.input.path == str(folder / "rows.jsonl")
    assert loaded.output == folder / "results/run"
    assert loaded.answer is not None
    assert loaded.answer.json_schema == str(folder / "schema.json")
    assert loaded.chat.template == str(folder / "template.jinja")
    assert loaded.engine.script == str(folder / "script.yaml")
    assert loaded.engine.lora == {"a": str(folder / "adapter"), "b": "org/name"}
    assert loaded.run.rows == folder / "rows.txt"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", "demo"),
        ("model", "org/name"),
        ("prompt", "summarize"),
        ("prompt", "Is */this*/ a path? {{ text }}"),
        ("prompt", "x" * 300 + "{{ text }}"),
        ("input", "-"),
        ("input", "org/dataset"),
    ],
)
def test_names_and_texts_in_a_job_file_stay_as_they_are(folder: Path, key: str, value: str) -> None:
    for decoy in ("demo", "summarize"):
        (folder / decoy).mkdir()
    data = {**MINIMAL, key: value}
    loaded = load(folder, "".join(f"{k}: '{v}'\n" for k, v in data.items()))
    seen = {"model": loaded.model, "prompt": loaded.prompt and loaded.prompt.path, "input": loaded.input.path}
    assert seen[key] == value


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("answer", "schema", "package.module:Model"),
        ("answer", "grammar", 'root ::= "a"* "/" "b"*'),
        ("chat", "template", "{% for m in messages %}*/{{ m }}{% endfor %}"),
    ],
)
def test_texts_that_could_be_paths_are_not_taken_for_one(folder: Path, section: str, key: str, value: str) -> None:
    loaded = load(folder, f"model: m\nprompt: summarize\ninput: '-'\noutput: o\n{section}:\n  {key}: |-\n    {value}\n")
    assert loaded.data()[section][key] == value


def test_patterns_and_files_that_are_not_there_are_relative_to_the_job_file_too(folder: Path) -> None:
    loaded = load(folder, "model: m\nprompt: later.yaml\ninput: '*.jsonl'\noutput: o\nanswer: {schema: later.json}")
    assert loaded.input.path == str(folder / "*.jsonl")
    assert loaded.prompt is not None
    assert loaded.prompt.path == str(folder / "later.yaml")
    assert loaded.answer is not None
    assert loaded.answer.json_schema == str(folder / "later.json")


def test_a_home_folder_is_filled_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    assert load(folder, "model: ~/model\nprompt: summarize\ninput: ~/rows.jsonl\noutput: ~/out").model == str(
        folder / "model"
    )


def test_words_and_numbers_are_read_as_yaml_1_2_has_them(folder: Path) -> None:
    loaded = load(
        folder,
        "model: m\nprompt: summarize\ninput: '-'\noutput: o\nanswer: {choice: [yes, no, on]}\nsampling: {temperature: 1e-3}",
    )
    assert loaded.answer is not None
    assert loaded.answer.choice == ("yes", "no", "on")
    assert loaded.sampling == {"temperature": 0.001}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model: [", "job.yaml:1:9: not valid YAML"),
        ("model: a\nmodel: b", "job.yaml:2:1: the key 'model' is given twice, first on line 1"),
        ("model: !!python/object/apply:os.system [true]", "the tag"),
        ("a: &x [1]\nb: *x", "the alias *x is not allowed here"),
        ("- model", "a job file is a mapping with keys such as model"),
        ("", "the file is empty"),
        ("[" * 5000, "nested too deeply"),
        ("model: a\x07", "not valid YAML"),
    ],
)
def test_a_job_file_that_cannot_be_used_is_named_with_the_place(folder: Path, text: str, words: str) -> None:
    with pytest.raises(JobError) as error:
        load(folder, text)
    assert words in str(error.value)
    assert "job.yaml" in str(error.value)


def test_bytes_that_are_no_text_and_files_that_are_not_there_are_refused(folder: Path) -> None:
    (folder / "job.yaml").write_bytes(b"model: \xff")
    with pytest.raises(JobError, match="cannot be read"):
        load_job_data(folder / "job.yaml")
    with pytest.raises(JobError, match="there is no such job file"):
        load_job_data(folder / "other.yaml")
    with pytest.raises(JobError, match=r"is a folder, not a job file; to go on with a run, give .*job\.yaml"):
        load_job_data(folder)


# a job that is written and read again

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    [
        "1e5",
        "1_000",
        "no",
        "on",
        "~",
        "null",
        "true",
        "12:30",
        "0x1f",
        "010",
        ".5",
        "5.",
        "=",
        "<<",
        "- a",
        "a: b",
        " a",
        "a ",
        "a\nb",
        "a\n\n b\n",
        "2020-01-01",
        "\ufeff",
        "\x85",
        "\u2028",
        "\t",
        "'",
        '"',
        "#",
        "{{ x }}",
        "*x",
        "&x",
        "!x",
        "%x",
        "@x",
        "`",
    ]
)
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
paths = st.sampled_from(
    ["rows.jsonl", "./a b.jsonl", "../x.csv", "/data/*.parquet", "-", "org/set", "ümlaut.jsonl", "1e5.jsonl"]
)
jobs = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["demo", "org/name", "./model", "/models/a"]) | texts.filter(bool),
        "prompt": st.sampled_from(
            ["summarize", "p.yaml", "Say: {{ text }}", "Two\nlines: {{ text }}\n", "1e5 {{ x }}"]
        ),
        "input": st.fixed_dictionaries({"path": paths}, optional={"id_field": texts, "limit": st.integers(1, 9)}),
        "output": st.sampled_from(["out", "/data/run", "../x/y", "1e5"]),
    },
    optional={
        "engine": st.fixed_dictionaries(
            {}, optional={"args": st.dictionaries(texts, values, max_size=3), "timeout": st.floats(1, 1e6)}
        ),
        "sampling": st.dictionaries(texts, values, max_size=4),
        "answer": st.fixed_dictionaries(
            {}, optional={"schema": st.dictionaries(texts, values, max_size=3), "reject": st.lists(texts, max_size=2)}
        ),
        "chat": st.fixed_dictionaries({}, optional={"template_kwargs": st.dictionaries(texts, values, max_size=3)}),
        "run": st.fixed_dictionaries(
            {},
            optional={"max_failures": st.sampled_from([3, "5%"]), "max_time": st.just("1h"), "rows": st.just("r.txt")},
        ),
        "sinks": st.fixed_dictionaries({}, optional={"keep": st.just("all") | st.lists(texts, max_size=3)}),
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(jobs)
def test_a_job_that_is_written_and_read_again_is_the_same(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    first = job_from(data).absolute()
    assert first.absolute() == first
    path = tmp_path_factory.mktemp("folder") / "job.yaml"
    path.write_text(first.to_yaml(), encoding="utf-8")
    again = job_from(load_job_data(path))
    assert again == first
    assert identity_of(again) == identity_of(first)
    # in its own folder
    path.write_text(first.to_yaml(first.output), encoding="utf-8")
    assert job_from(load_job_data(path)) == first.model_copy(update={"output": path.parent})


def test_a_job_in_its_folder_is_the_same_from_every_current_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    here = job_from(
        {
            "model": "model",
            "prompt": "say.yaml",
            "input": "rows.jsonl",
            "output": "run",
            "answer": {"schema": "schema.json"},
        }
    )
    (folder / "run").mkdir()
    (folder / "run" / "job.yaml").write_text(here.to_yaml(folder / "run"))
    monkeypatch.chdir("/")
    there = job_from(load_job_data(folder / "run" / "job.yaml"))
    assert there.input.path == str(folder / "rows.jsonl")
    assert there.output == folder / "run"
    assert there.to_yaml(folder / "run") == (folder / "run" / "job.yaml").read_text()
    monkeypatch.chdir(folder)
    assert identity_of(there) == identity_of(here)


def test_what_lies_in_the_run_folder_moves_with_it(folder: Path) -> None:
    run = folder / "run"
    run.mkdir()
    (run / "input.jsonl").write_text("{}\n")
    (run / "job.yaml").write_text(job(input=str(run / "input.jsonl"), output=str(run)).to_yaml(run))
    shutil.move(run, folder / "moved")
    moved = job_from(load_job_data(folder / "moved" / "job.yaml"))
    assert moved.output == folder / "moved"
    assert moved.input.path == str(folder / "moved" / "input.jsonl")


def test_settings_at_their_default_are_not_written() -> None:
    assert set(job().data()) == {"model", "prompt", "input", "output"}


def test_the_packaged_model_is_called_demo() -> None:
    assert job(model="demo").model_path == str(DEMO_MODEL)
    assert job(model="x/y").model_path == "x/y"


# identity

CHANGES: list[dict[str, Any]] = [
    {"model": "other"},
    {"prompt": {"path": "Say: {{ text }}", "variables": {"a": 1}}},
    {"prompt": {"path": "Say: {{ text }}", "fields": {"text": "body"}}},
    {"input": {"path": "rows.jsonl", "id_field": "key"}},
    {"input": {"path": "rows.jsonl", "delimiter": ";"}},
    {"input": {"path": "rows.jsonl", "columns": ["a"]}},
    {"input": {"path": "rows.jsonl", "split": "test"}},
    {"program": {"name": "mine:chain"}},
    {"program": {"settings": {"depth": 2}}},
    {"engine": {"name": "scripted"}},
    {"engine": {"args": {"max_model_len": 100}}},
    {"engine": {"args": {"quantization": "fp8"}}},
    {"engine": {"args": {"load_format": "dummy"}}},
    {"engine": {"trust_remote_code": True}},
    {"engine": {"lora": {"a": "org/b"}}},
    {"chat": {"template_kwargs": {"enable_thinking": False}}},
    {"sampling": {"temperature": 0.5}},
    {"answer": {"choice": ["a", "b"]}},
    {"answer": {"allow_empty": True}},
    {"retry": {"max_attempts": 7}},
    {"plan": {"overflow": "skip"}},
    {"sinks": {"keep": ["text"]}},
    {"accept": {"when": ["output.score >= 4"]}},
    {"sweep": {"sampling.temperature": [0, 1]}},
    {"input": {"draw": {"text": ["a", "b"]}, "rows": 5}},
    {"input": {"draw": {"text": ["a", "b"]}, "rows": 5, "seed": 1}},
]
SPEED: list[dict[str, Any]] = [
    {"output": "elsewhere"},
    {"input": {"path": "moved.jsonl"}},
    {"input": {"path": "rows.jsonl", "limit": 5}},
    {"input": {"path": "rows.jsonl", "streaming": True}},
    {"engine": {"args": {"tensor_parallel_size": 2, "gpu_memory_utilization": 0.5, "load_format": "safetensors"}}},
    {"engine": {"in_process": True, "in_flight": 7, "timeout": 3, "restarts": 1}},
    {"plan": {"fold": False, "order": "input"}},
    {"run": {"window": 7, "max_failures": 3, "max_time": "1h"}},
    {"sinks": {"formats": ["parquet"]}},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_what_changes_results_is_in_the_identity(change: dict[str, Any]) -> None:
    assert identity_of(job(**change)) != identity_of(job())


@pytest.mark.parametrize("change", SPEED, ids=str)
def test_what_changes_speed_alone_is_not_in_the_identity(change: dict[str, Any]) -> None:
    assert identity_of(job(**change)) == identity_of(job())


def test_no_section_is_forgotten_in_the_identity() -> None:
    assert set(Job.model_fields) == {
        "model",
        "prompt",
        "input",
        "output",
        "program",
        "engine",
        "chat",
        "sampling",
        "answer",
        "retry",
        "plan",
        "reuse",
        "sinks",
        "run",
        "accept",
        "sweep",
    }
    flat = {key.partition(".")[0].split(" ")[0] for change in CHANGES for key in identity_of(job(**change))}
    assert flat == set(Job.model_fields) - {"output", "reuse", "run"}


@pytest.mark.parametrize(
    "change",
    [
        {"answer": {"schema": "schema.json"}},
        {"answer": {"grammar": "schema.json"}},
        {"chat": {"template": "template.jinja"}},
        {"run": {"rows": "rows.txt"}},
    ],
    ids=str,
)
def test_of_a_file_its_content_counts_and_not_its_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    monkeypatch.chdir(folder)
    ((section, keys),) = change.items()
    ((key, name),) = keys.items()
    before = identity_of(job(**change))
    assert before != identity_of(job())
    shutil.copy(name, f"copy-of-{name}")
    assert identity_of(job(**{section: {key: f"copy-of-{name}"}})) == before
    Path(name).write_text('{"type": "array"}')
    assert identity_of(job(**change)) != before


def test_of_a_script_its_content_counts_and_not_its_place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    before = identity_of(job(engine={"name": "scripted", "script": "script.yaml"}))
    assert before != identity_of(job(engine={"name": "scripted"}))
    shutil.copy("script.yaml", "copy.yaml")
    assert identity_of(job(engine={"name": "scripted", "script": "copy.yaml"})) == before
    Path("script.yaml").write_text("latency: 0")
    assert identity_of(job(engine={"name": "scripted", "script": "script.yaml"})) != before


def test_a_local_model_is_known_by_its_place_and_its_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "model" / "model.safetensors").write_bytes(b"1" * 200_000)
    before = identity_of(job(model="model"))
    assert before == identity_of(job(model=str(folder / "model")))
    (folder / "model" / "model.safetensors").write_bytes(b"1" * 199_999 + b"2")
    trained = identity_of(job(model="model"))
    assert trained != before
    (folder / "model" / "tokenizer.json").write_text("{}")
    assert identity_of(job(model="model")) != trained


def test_data_parallelism_is_refused_with_what_to_do_instead() -> None:
    data = {**MINIMAL, "engine": {"args": {"data_parallel_size": 2}}}
    with pytest.raises(JobError, match=r"data_parallel_size=2: .*tensor_parallel_size.*--replicas auto"):
        job_from(data)


def test_a_script_is_refused_by_every_other_engine() -> None:
    with pytest.raises(JobError, match=r"engine\.script is for the scripted engine alone"):
        job_from({**MINIMAL, "engine": {"script": "a.yaml"}})


def test_an_engine_that_is_not_known_is_refused_with_those_that_are() -> None:
    with pytest.raises(JobError, match=r"unknown engine 'tgi': known are .*vllm"):
        job_from({**MINIMAL, "engine": {"name": "tgi"}})


def test_the_identity_is_short_text() -> None:
    assert all(isinstance(value, str) for value in identity_of(job(**CHANGES[1])).values())


def test_what_a_section_says_of_one_of_its_keys_is_said_of_that_key() -> None:
    with pytest.raises(JobError) as error:
        job(engine={"name": "kserve"})
    assert str(error.value).startswith("engine.urls is missing")
    assert "got" not in str(error.value)


# secrets


@pytest.mark.parametrize(
    "args", [{"hf_token": "hf_abc"}, {"model_loader_extra_config": {"aws_secret_access_key": "x"}}, {"API_KEY": "x"}]
)
@pytest.mark.parametrize("engine", ["vllm", "scripted"])
def test_a_secret_in_a_job_is_refused_with_what_to_do_instead(engine: str, args: dict[str, Any]) -> None:
    with pytest.raises(JobError, match="a secret has no place in a job") as error:
        job(engine={"name": engine, "args": args})
    assert "environment" in str(error.value)
    assert "hf_abc" not in str(error.value)


def test_a_key_in_place_of_its_variable_s_name_is_refused_and_not_repeated() -> None:
    with pytest.raises(JobError, match="environment variable") as error:
        job(engine={"name": "openai", "urls": "http://h/v1", "key_env": "sk-abc"})
    assert "sk-abc" not in str(error.value)


@pytest.mark.parametrize(
    "args", [{"hf_token": True}, {"max_num_batched_tokens": "512"}, {"hf_overrides": {"eos_token": "</s>"}}]
)
def test_what_only_sounds_like_a_secret_is_taken(args: dict[str, Any]) -> None:
    assert job(engine={"args": args}).engine.args == args


def test_the_job_file_of_a_run_folder_goes_on_with_the_run_from_every_current_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmbatch.runs.session import run_job

    monkeypatch.chdir(folder)
    data = {**MINIMAL, "prompt": "say.yaml", "engine": {"name": "scripted"}}
    results = run_job(job_from(data)).folder / "results.jsonl"
    before = results.read_bytes()
    monkeypatch.chdir("/")
    again = run_job(job_from(load_job_data(folder / "out" / "job.yaml")))
    assert (again.exit_code, again.report["rows"]["done"]) == (0, 1)
    assert (folder / "out" / "results.jsonl").read_bytes() == before
    shutil.move(folder / "rows.jsonl", folder / "renamed.jsonl")
    renamed = {**load_job_data(folder / "out" / "job.yaml"), "input": str(folder / "renamed.jsonl")}
    assert run_job(job_from(renamed)).exit_code == 0
