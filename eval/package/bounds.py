"""The wheel and an extra in; whether the extra works with the lowest versions that pyproject.toml allows, out.

    python eval/package/bounds.py [EXTRA ...] [--list]

Each extra gets an environment of its own, in which every package that pyproject.toml names, of the base and of the extra, has its
lowest version (``uv pip install --resolution lowest-direct``); then what the extra is for is done: on the scripted engine, where it
is not about another. Needs the package index; ``spark`` needs Java. Not tried: ``gpu``, which needs a GPU (its bounds are those of
``cpu``, the same vLLM), and ``docs`` and ``dev``, which are of whoever works on llmbatch, with the versions in constraints.txt.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import package  # beside this file

RUN = "llmbatch run --engine scripted --model any --prompt '{{ text }}' --input rows.jsonl --output out --quiet"
FILES = {
    "rows.jsonl": '{"id": "a", "text": "the quick brown fox jumps over the lazy dog"}\n{"id": "b", "text": "and goes home"}\n',
    "docs/a.html": "<html><head><title>A</title></head><body><article><p>One two three four five six.</p></article></body></html>",
    "docs/b.md": "# B\n\nSeven eight nine.\n",
    "task.yaml": "name: echo\ndataset: rows.jsonl\nprompt: '{{ text }}'\nreferences: text\nmetrics: [exact_match, bleu, rouge]\n",
    "serve.py": '''
import json, subprocess, time, urllib.request
server = subprocess.Popen(["llmbatch", "serve", "--engine", "scripted", "--model", "any", "--data", "data", "--port", "8123"])
try:
    for _ in range(300):
        time.sleep(0.1)
        try:
            body = json.dumps({"model": "any", "messages": [{"role": "user", "content": "hello"}]}).encode()
            asked = urllib.request.Request("http://127.0.0.1:8123/v1/chat/completions", body, {"Content-Type": "application/json"})
            said = json.load(urllib.request.urlopen(asked))
            break
        except OSError:
            continue
    assert said["choices"][0]["message"]["content"], said
    by_client = subprocess.run(["llmbatch", "run", "--engine", "openai", "--set", "engine.urls=http://127.0.0.1:8123/v1", "--model",
        "any", "--prompt", "{{ text }}", "--input", "rows.jsonl", "--output", "by-client", "--quiet"])
    assert by_client.returncode == 0
finally:
    server.terminate()
    server.wait()
''',
    "images.py": '''
from PIL import Image
from llmbatch.core.types import Image as Named
from llmbatch.images.base import ImageSettings
from llmbatch.images.content import as_data_uri, pixels
Image.new("RGB", (40, 20), "red").save("a.png")
assert pixels(Named("a.png"), ImageSettings(longest_side=10)).size == (10, 5)
assert as_data_uri(Named("a.png"), ImageSettings(longest_side=10)).startswith("data:image/png")
''',
    "frames.py": '''
import polars as pl
import llmbatch.polars
done = pl.DataFrame({"text": ["one", "two"]}).llmbatch.run(model="any", prompt="{{ text }}", engine={"name": "scripted"})
assert done["output"].to_list() == ["one", "two"], done
''',
    "stage.py": '''
import ray, llmbatch
ray.init(address="local", num_cpus=2, include_dashboard=False)
rows = ray.data.from_items([{"text": "one"}, {"text": "two"}])
stage = {"model": "any", "prompt": "{{ text }}", "engine": {"name": "scripted"}}
done = rows.map_batches(llmbatch.ray.Stage, fn_constructor_kwargs=stage, concurrency=1, batch_size=2).take_all()
assert [row["output"] for row in done] == ["one", "two"], done
''',
    "sql.py": '''
import llmbatch.spark
from pyspark.sql import SparkSession
spark = SparkSession.builder.master("local[2]").getOrCreate()
llmbatch.spark.register(spark, model="any", endpoint="any", engine={"name": "scripted"})
done = [row.said for row in spark.sql("SELECT ai_query('any', concat('row ', id)) AS said FROM range(3)").collect()]
assert sorted(done) == ["row 0", "row 1", "row 2"], done
''',
    "inspected.py": '''
import inspect_ai
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate
task = inspect_ai.Task(dataset=[Sample(input="four", target="four")], solver=[generate()], scorer=includes())
[log] = inspect_ai.eval(task, model="llmbatch/any", model_args={"engine": "scripted"}, display="none")
assert log.status == "success" and log.results.scores[0].metrics["accuracy"].value == 1.0, log.error
''',
    "harness.yaml": """
task: echoes
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{text}}"
doc_to_target: "{{text}}"
generation_kwargs: {until: ["|"]}
metric_list: [{metric: exact_match}]
""",
    "remote.py": '''
import fsspec
for protocol in ("s3", "gs", "az"):
    print(fsspec.get_filesystem_class(protocol))
''',
}  # fmt: skip
TRIED = {
    "http": "python serve.py",
    "server": "python serve.py",
    "documents": "llmbatch run --engine scripted --model any --prompt '{{ text }}' --input docs/ --output out --quiet",
    "images": "python images.py",
    "remote": "python remote.py",
    "publish": f"{RUN} && llmbatch publish out --split test=0.5",
    "language": f"{RUN} --set answer.language=en",
    "mlflow": f"MLFLOW_TRACKING_URI=file:$PWD/mlruns MLFLOW_ALLOW_FILE_STORE=true {RUN} --track mlflow",
    "polars": "python frames.py",
    "eval": "llmbatch eval task.yaml --engine scripted --model any --output scores",
    "cpu": "llmbatch demo --output out && llmbatch audit out/numbers && llmbatch audit out/orders",
    "transformers": RUN.replace(
        "scripted --model any", "transformers --model demo --max-tokens 20 --set answer.allow_truncated=true"
    ),
    "ray": "python stage.py",
    "spark": "python sql.py",
    "harness": "python inspected.py && "
    "llmbatch-lm-eval run --model llmbatch --model_args model=demo,engine=scripted --tasks echoes --include_path .",
    "all": f"python serve.py && python frames.py && python stage.py && {RUN} --set answer.language=en && llmbatch publish out",
}
"""What is done with each."""
WITH = {"http": "http,server", "server": "http,server"}
"""The two ends of a connection are tried together."""
TORCH = ["--overrides", str(package.ROOT / "overrides-cpu.txt"), *package.torch_for_cpu()]
"""As the Makefile has it: torch for the CPU, which many an extra brings along."""


def try_it(wheel: Path, extra: str) -> str:
    """Empty where it works, else what was said."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = folder / "environment"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
        python = str(environment / "bin" / "python")
        asked = f"{wheel}[{WITH.get(extra, extra)}]"
        command = [
            package.UV,
            "pip",
            "install",
            "--quiet",
            "--python",
            python,
            "--resolution",
            "lowest-direct",
            *TORCH,
            asked,
        ]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            return made.stderr
        for path, text in FILES.items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(text)
        variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        variables |= {"PATH": f"{environment / 'bin'}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            ["bash", "-euc", TRIED[extra]], cwd=folder, env=variables, capture_output=True, text=True, check=False
        )
        listed = subprocess.run(
            [package.UV, "pip", "freeze", "--python", python], capture_output=True, text=True, check=True
        )
    print(
        f"[{extra}] with {len(listed.stdout.splitlines())} packages: exit {done.returncode}, {time.monotonic() - began:.0f} s"
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("extras", nargs="*", metavar="EXTRA", help="one of " + ", ".join(TRIED))
    options = parser.parse_args()
    wheel = package.build()
    failed = {extra: said for extra in options.extras or TRIED if (said := try_it(wheel, extra))}
    for extra, said in failed.items():
        print(f"\n[{extra}]\n{said[-3000:]}")
    sys.exit(f"do not work: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
