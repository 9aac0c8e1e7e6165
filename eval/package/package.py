"""The repository in; a wheel and a source distribution in ``dist``, looked at by twine and tried in an empty environment, out.

    python eval/package/package.py [--extras]

``make package`` calls it. It needs the package index: the environment gets the wheel and what it asks for, and nothing else. With
``--extras`` each extra is resolved too, without installing it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DIST = ROOT / "dist"
UV = str(Path(sys.executable).with_name("uv"))
# what a stranger does first, from a folder where nothing of the repository is
TRIES = (
    ("llmbatch", "--version"),
    ("llmbatch", "prompts"),
    ("llmbatch", "render", "--prompt", "summarize", "--input", "rows.jsonl"),
    ("llmbatch", "run", "--engine", "scripted", "--model", "any", "--prompt", "summarize", "--input", "rows.jsonl", "--output",
     "out"),
    ("llmbatch", "audit", "out"),
    ("llmbatch", "report", "out"),
    ("python", "-c", "import llmbatch; print(next(iter(llmbatch.generate([{'text': 'two'}], model='any', prompt='{{ text }}', "
                     "engine={'name': 'scripted'}))).output)"),
)  # fmt: skip


def build() -> Path:
    shutil.rmtree(DIST, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "hatchling", "build", "--directory", str(DIST)], cwd=ROOT, check=True)
    files = sorted(DIST.iterdir())
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *map(str, files)], check=True)
    for path in files:
        print(f"{path.name}: {path.stat().st_size / 2**20:.2f} MiB")
    return next(path for path in files if path.suffix == ".whl")


def try_it(wheel: Path) -> None:
    """From an empty environment to the first result."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = folder / "environment"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
        python = environment / "bin" / "python"
        subprocess.run([UV, "pip", "install", "--quiet", "--python", str(python), str(wheel)], check=True)
        print(f"installed in {time.monotonic() - began:.0f} s")
        (folder / "rows.jsonl").write_text('{"text": "two"}\n')
        variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        for command in TRIES:
            done = subprocess.run(
                [str(environment / "bin" / command[0]), *command[1:]],
                cwd=folder,
                env=variables,
                capture_output=True,
                text=True,
                check=False,
            )
            print(f"{' '.join(command)[:90]}: exit {done.returncode}")
            if done.returncode:
                sys.exit(done.stdout + done.stderr)
        print(f"the first result after {time.monotonic() - began:.0f} s")


def torch_for_cpu() -> list[str]:
    """Where uv finds torch for the CPU: in the folder that pip is told to look in, else in PyTorch's own index."""
    links = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS")
    return ["--find-links", links] if links else ["--torch-backend", "cpu"]


def resolve() -> None:
    """Each extra, as uv resolves it for this Python; what cannot be is an error."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    failed = []
    for extra in extras:
        backend = torch_for_cpu() if extra == "cpu" else []
        done = subprocess.run(
            [UV, "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--extra", extra, *backend, "pyproject.toml"],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        print(
            f"[{extra}]: {len(done.stdout.splitlines())} packages"
            if not done.returncode
            else f"[{extra}]: {done.stderr.strip()}"
        )
        if done.returncode:
            failed.append(extra)
    if failed:
        sys.exit(f"cannot be resolved: {', '.join(failed)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extras", action="store_true")
    options = parser.parse_args()
    try_it(build())
    if options.extras:
        resolve()


if __name__ == "__main__":
    main()
