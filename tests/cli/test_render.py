from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from llmbatch.cli.main import main
from llmbatch.cli.render import SHOWN


def render(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["render", *arguments])


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    path = tmp_path / "in.jsonl"
    path.write_text('{"id": "a", "text": "one"}\n{"id": "b", "text": "{{ zwei }} é"}\n', encoding="utf-8")
    return str(path)


def test_every_row_becomes_a_request_in_order(corpus: str) -> None:
    result = render("--prompt", "Say {{ text }}", "--input", corpus, "--model", "m", "--max-tokens", "7")
    assert result.exit_code == 0, result.output
    assert lines(result.stdout) == [
        {
            "custom_id": name,
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": "m",
                "messages": [{"role": "user", "content": f"Say {text}"}],
                "max_completion_tokens": 7,
            },
        }
        for name, text in [("a", "one"), ("b", "{{ zwei }} é")]
    ]


def test_what_is_written_can_be_rendered_again(corpus: str, tmp_path: Path) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    arguments = ("--prompt", "classify", "--var", "labels=[a, b]", "--temperature", "0.5")
    assert render("--input", corpus, "--output", str(first), *arguments).exit_code == 0
    assert render("--input", str(first), "--output", str(second)).exit_code == 0
    assert second.read_bytes() == first.read_bytes()


def test_the_row_s_own_output_goes_before_the_job_s(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    own = {"structured_outputs": {"regex": "a"}}
    bodies = [{"prompt": "x", **own}, {"prompt": "x"}]
    path.write_text("".join(json.dumps({"custom_id": "i", "body": body}) + "\n" for body in bodies))
    result = render("--input", str(path), "--choice", "a,b")
    assert [line["body"]["structured_outputs"] for line in lines(result.stdout)] == [
        {"regex": "a"},
        {"choice": ["a", "b"]},
    ]


def test_the_job_s_answer_and_sampling_go_before_the_prompt_s(corpus: str) -> None:
    result = render("--prompt", "summarize", "--input", corpus, "--temperature", "1", "--choice", "x,y", "--limit", "1")
    (line,) = lines(result.stdout)
    assert line["body"]["temperature"] == 1
    assert line["body"]["structured_outputs"] == {"choice": ["x", "y"]}


def test_a_prompt_s_schema_is_in_the_request(corpus: str) -> None:
    (line,) = lines(render("--prompt", "qa-generate", "--input", corpus, "--limit", "1").stdout)
    schema = line["body"]["response_format"]["json_schema"]["schema"]
    assert list(schema["properties"]) == ["pairs"]


def test_rows_without_a_prompt_are_named_and_make_the_exit_code_3(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"body": 1}\n' * (SHOWN + 2) + '{"text": "x"}\nnot json\n')
    result = render("--prompt", "summarize", "--input", str(path))
    assert result.exit_code == 3
    assert len(lines(result.stdout)) == 1
    said = result.stderr.splitlines()
    assert len(said) == SHOWN + 1
    assert "row 0: the variable 'text' is missing" in said[0]
    assert said[-1] == "no request for 3 more rows"


def test_a_field_of_another_name_can_be_mapped(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"key": 7, "body": "x"}\n')
    result = render("--prompt", "Say {{ text }}", "--input", str(path), "--map", "text=body", "--id-field", "key")
    (line,) = lines(result.stdout)
    assert line["custom_id"] == "7"


def test_without_a_prompt_the_input_must_be_requests(corpus: str) -> None:
    result = render("--input", corpus)
    assert result.exit_code == 2
    assert "prompt is missing" in result.stderr


def test_a_wrong_prompt_leaves_the_output_file_alone(corpus: str, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    target.write_text("before")
    assert render("--prompt", "nope", "--input", corpus, "--output", str(target)).exit_code == 2
    assert target.read_text() == "before"


def test_tokens_need_a_model(corpus: str) -> None:
    result = render("--prompt", "summarize", "--input", corpus, "--tokens")
    assert result.exit_code == 2
    assert "--tokens needs --model" in result.stderr


def test_tokens_are_counted_and_neither_torch_nor_vllm_is_imported(corpus: str) -> None:
    code = (
        "import sys\n"
        "from llmbatch.cli.main import main\n"
        f"try: main(['render', '--prompt', 'Say {{{{ text }}}}', '--input', {corpus!r}, '--model', 'demo', '--tokens'])\n"
        "except SystemExit as end: print(end.code, 'vllm' in sys.modules, bool(sys.modules.get('torch')), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    counts = [line["prompt_tokens"] for line in lines(done.stdout)]
    assert len(counts) == 2
    assert all(count > 0 for count in counts)
    assert done.stderr.splitlines()[-2:] == [f"2 requests, {sum(counts)} prompt tokens", "0 False False"]
