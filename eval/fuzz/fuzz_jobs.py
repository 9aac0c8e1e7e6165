"""Job files: whatever the text, it is a job or refused; a job that is written and read again is the same."""

from __future__ import annotations

import os

import atheris
from harness import YAML, fuzz, scratch

with atheris.instrument_imports(
    include=["llmbatch.job.job", "llmbatch.job.file", "llmbatch.job.identity", "llmbatch.prompt.document", "yaml"]
):
    from llmbatch.core.errors import JobError
    from llmbatch.job.identity import identity_of
    from llmbatch.job.job import job_from, load_job_data

FOLDER = scratch()
PATH = FOLDER / "job.yaml"
AGAIN = FOLDER / "again.yaml"


def target(data: bytes) -> None:
    PATH.write_bytes(data)
    try:
        job = job_from(load_job_data(PATH))
    except JobError as error:
        str(error).encode("utf-8", "strict")
        return
    assert job.absolute() == job
    AGAIN.write_text(job.to_yaml(), encoding="utf-8")
    again = job_from(load_job_data(AGAIN))
    assert again == job
    assert identity_of(again) == identity_of(job)


FULL = b"""model: org/name
prompt: {path: summarize, variables: {n: 3}, fields: {text: body}}
input: {path: rows.jsonl, id_field: key, limit: 5, columns: [a]}
output: out
engine: {name: scripted, args: {latency: 0.5}, lora: {a: b}, timeout: 5.5, trust_remote_code: false}
chat: {template: "{{ x }}", template_kwargs: {enable_thinking: false}}
sampling: {temperature: 1e-3, stop: ["\\n", "no"], logit_bias: {"5": -1}}
answer: {schema: {type: object, required: [a]}, reject: ["/x/"], constrained: false}
retry: {max_attempts: 3}
plan: {order: auto, overflow: skip}
sinks: {formats: [parquet], keep: all}
run: {window: 5, max_failures: 5%, max_time: 1h30m, rows: rows.txt}
"""

if __name__ == "__main__":
    os.chdir(FOLDER)
    seeds = [
        FULL,
        b"model: m\nprompt: 'Say {{ x }}'\ninput: '-'\noutput: o\n",
        b"model: ~/m\nprompt: a.yaml\ninput: 'data/*.csv'\noutput: /o\n",
    ]
    words = [
        *(line.decode() for line in FULL.splitlines()), "hf_token: x", "1e999", ".inf", ".nan", "0x1f", "1_000",
        "12:30", "null", "~", "true", "\x85", "\u2028", "\ufeff", "&a ", "*a", "!!", "<<: ", "? ", "|\n", ">\n", "'",
        '"', "\\ud800", "\\0", "../", "*", "?", "[",
    ]  # fmt: skip
    fuzz(target, seeds, words, FOLDER, YAML)
