from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from llmbatch.core.errors import SourceError
from llmbatch.sources import FORMATS
from llmbatch.sources.base import Source, SourceSettings
from llmbatch.sources.opening import guess_format

Write = Callable[..., Path]
Open = Callable[..., Source]


@pytest.mark.parametrize(
    ("name", "format_"),
    [
        ("a.jsonl", "jsonl"),
        ("a.ndjson.zst", "jsonl"),
        ("a.b.JSONL.gz", "jsonl"),
        ("a.csv", "csv"),
        ("a.tsv", "csv"),
        ("a.pq", "parquet"),
    ],
)
def test_the_format_is_told_from_the_name(write: Write, name: str, format_: str) -> None:
    path = write(name, gzip.compress(b"{}\n") if name.endswith(".gz") else b"")
    assert guess_format(str(path)) == format_


def test_stdin_is_json_lines_and_a_folder_or_hub_name_a_dataset(tmp_path: Path) -> None:
    assert guess_format("-") == "jsonl"
    assert guess_format(str(tmp_path)) == "dataset"
    assert guess_format("stanfordnlp/imdb") == "dataset"
    assert guess_format("ag_news") == "dataset"
    assert guess_format("org/name-v1.0") == "dataset"


@pytest.mark.parametrize(
    ("path", "settings", "said"),
    [
        ("missing.jsonl", {}, "missing.jsonl: no such file"),
        ("godo.jsonl", {}, "godo.jsonl: no such file (did you mean 'good.jsonl'?); looked in"),
        ("d/good.jsonl", {}, "there is no folder"),
        ("d/*.jsonl", {}, "there is no folder"),
        ("*.ndjson", {}, "the pattern matches no file"),
        ("empty.jsonl", {}, "empty.jsonl: the file is empty"),
        ("blank.jsonl", {}, "there is no row in it"),
        ("notes.txt", {}, "set input.format to one of jsonl, requests, csv, parquet, dataset"),
        ("[gn]o*", {}, "files of more than one format"),
        ("http://127.0.0.1:9/a.jsonl", {}, "download the file first"),
        (
            "good.jsonl",
            {"format": "xml"},
            "unknown input format 'xml': known are jsonl, requests, csv, parquet, dataset",
        ),
        ("good.jsonl", {"split": "train"}, "input.split is for dataset"),
        ("good.jsonl", {"columns": ("a",)}, "input.columns is for csv, parquet, dataset"),
        ("bad.jsonl.gz", {}, "bad.jsonl.gz: cannot be read"),
        ("list.json", {}, "one JSON document"),
        ("pretty.json", {}, "one JSON document"),
        ("missing.txt", {}, "missing.txt: no such file"),
        (".", {"format": "jsonl"}, "name its files"),
        ("pipe", {"format": "jsonl"}, "pipe it into stdin"),
    ],
)
def test_an_input_that_cannot_be_used_is_refused_with_what_to_try(
    write: Write, source: Open, tmp_path: Path, monkeypatch: Any, path: str, settings: dict[str, Any], said: str
) -> None:
    write("good.jsonl", "{}\n")
    write("empty.jsonl", "")
    write("blank.jsonl", "\n \n")
    write("list.json", '[{"a":1},\n{"a":2}]')
    write("pretty.json", '{\n  "a": 1\n}')
    write("notes.txt", "hello")
    write("bad.jsonl.gz", "{}\n")
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError) as caught:
        source(path, **settings)
    assert said in str(caught.value)


def test_a_json_file_with_an_object_a_line_is_read(write: Write, source: Open) -> None:
    assert next(source(write("a.json", '{"n":1}\n{"n":2}\n')).rows()).data == {"n": 1}


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(write: Write, source: Open) -> None:
    assert next(source(write("a[1].jsonl", '{"n":1}')).rows()).data == {"n": 1}


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ValidationError):
        SourceSettings.model_validate({"path": "a.jsonl", "fromat": "csv"})


def test_the_table_names_every_format_that_the_settings_describe() -> None:
    description = SourceSettings.model_fields["format"].description or ""
    assert all(name in description for name in FORMATS)


def test_reading_json_lines_imports_nothing_heavy(write: Write) -> None:
    path = write("a.jsonl", "{}\n")
    code = (
        "import sys; from llmbatch.sources.base import *; from llmbatch.sources.opening import *\n"
        f"list(open_source(SourceSettings(path={str(path)!r})).rows())\n"
        "print(sorted({'datasets', 'pyarrow', 'pandas', 'numpy', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
