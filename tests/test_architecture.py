"""The shape of the package: imports point downward, rooms keep to one table, and light commands stay light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

from llmbatch.engines import ENGINES
from llmbatch.engines.scripted.script import Script
from llmbatch.engines.vllm.settings import SPEED_ARGS
from llmbatch.folder.folder import ACCEPTED, ERRORS, PAGE, REPORT, RESULTS

PACKAGE = Path(__file__).parents[1] / "llmbatch"

LEVELS: list[set[str]] = [
    {"core"},
    {"formats", "images", "model"},
    {"sources", "prompt", "check", "programs", "plan", "reuse", "engines", "report", "watch"},
    {"folder", "accept"},
    {"sinks"},
    {"job"},
    {"measure", "audit", "doctor", "scaffold", "systems"},
    {"runs"},
    {"publishing"},
    {"api", "server", "demo", "azureml"},
    {"evals", "integrations"},
    {"cli", "huggingface", "mlflow", "pandas", "polars", "ray", "spark", "verta"},
]
"""The dependency rule: a room imports from the levels above it in this table, never from its own level or from one below."""

RUN_FILES = {RESULTS, ERRORS, ACCEPTED, REPORT, PAGE, "run.json"}

LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}


def modules() -> Iterator[tuple[str, Path]]:
    """(unit, file): the unit is the module or package right below ``llmbatch``."""
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE)
        if relative.name != "__init__.py" or len(relative.parts) > 1:
            yield relative.parts[0].removesuffix(".py"), path


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def nodes_of(path: Path) -> Sequence[ast.AST]:
    """All of a module, as ``ast.walk`` has it; to walk takes as long as to parse."""
    return list(ast.walk(tree_of(path)))


def imported_units(path: Path) -> Iterator[tuple[int, str]]:
    """(line, unit) of each import of the package's own; what is only for the type checker may point upward."""
    skipped = {
        id(node)
        for block in nodes_of(path)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    for node in nodes_of(path):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.split(".")[0] == "llmbatch":
            rest = node.module.split(".")[1:]
            for unit in [rest[0]] if rest else [alias.name for alias in node.names]:
                if unit in LEVEL:
                    yield node.lineno, unit
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("llmbatch.") and alias.name.split(".")[1] in LEVEL:
                    yield node.lineno, alias.name.split(".")[1]


def test_every_module_has_its_room() -> None:
    assert {unit for unit, _ in modules()} - LEVEL.keys() == set()


def test_there_are_no_circles() -> None:
    """What is only for the type checker counts too: two modules that need each other's names are one."""
    names = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    needs = {name: {other for other in _named_in(path) if other in names} for name, path in names.items()}
    circles = set(needs)
    while ends := {
        name
        for name in circles
        if not (needs[name] - {name}) & circles or not any(name in needs[other] for other in circles - {name})
    }:
        circles -= ends
    assert circles == set()


def _named_in(path: Path) -> Iterator[str]:
    for node in nodes_of(path):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_the_face_of_a_room_holds_a_table_and_nothing_else() -> None:
    wrong = []
    for path in sorted(PACKAGE.glob("*/**/__init__.py")):
        for node in tree_of(path).body:
            if not isinstance(node, ast.Assign | ast.AnnAssign | ast.Expr):
                wrong.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert wrong == []


def test_rooms_import_only_from_the_levels_above_theirs() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line} imports {other}"
        for room, path in modules()
        for line, other in imported_units(path)
        if other != room and room in LEVEL and LEVEL[other] >= LEVEL[room]
    ]
    assert wrong == []


def test_only_the_vllm_engine_imports_vllm() -> None:
    wrong = []
    for _, path in modules():
        for node in nodes_of(path):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom) and not node.level
                else []
            )
            if any(name.split(".")[0] == "vllm" for name in names) and PACKAGE / "engines" / "vllm" not in path.parents:
                wrong.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert wrong == []


def test_files_elsewhere_are_reached_in_one_module() -> None:
    named = [
        str(path.relative_to(PACKAGE))
        for _, path in modules()
        if any(name.split(".")[0] in ("fsspec", "s3fs") for name in _named_in(path))
    ]
    assert named == ["core/remote_files.py"]


def test_only_the_room_of_run_folders_names_their_files() -> None:
    """Whoever wants what is in them takes that room's readers, or its names of them."""
    others = {
        PACKAGE / "engines" / "openai" / "batch" / "state.py",  # keeps a run.json of its own
        PACKAGE / "report" / "summary.py",  # lists what a report says was written
    }
    wrong = []
    for _, path in modules():
        if path in others or PACKAGE / "folder" in path.parents:
            continue
        for node in nodes_of(path):
            joined = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)
            named = node.right if isinstance(node, ast.BinOp) and joined else node
            names = {*RUN_FILES, "parts"} if joined else RUN_FILES  # parts there are of other things too
            if isinstance(named, ast.Constant) and named.value in names:
                wrong.append(f"{path.relative_to(PACKAGE)}:{named.lineno} says {named.value}")
    assert wrong == []


def test_the_docs_say_what_each_room_is_for() -> None:
    page = (PACKAGE.parent / "docs" / "how-it-works.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| (`\w+/`.*?|`api.py`.*?) \|", page, re.MULTILINE)
    named = [room for cell in table for room in re.findall(r"`(\w+)/`", cell)]
    assert sorted(named) == sorted(room for room in LEVEL if (PACKAGE / room).is_dir())


def test_no_other_room_names_an_engine_or_an_argument_of_one() -> None:
    """All that the rest must know of an engine is its ``EngineKind``. ``core/versions`` lists packages, whatever they are."""
    engines = PACKAGE / "engines"
    own = {engines / name for name in ENGINES}
    unnamed = {*ENGINES, *SPEED_ARGS, *Script.model_fields, "max_model_len", "quantization", "kv_cache_dtype"}
    # words that others use too
    unnamed -= {
        "concurrency", "context_length", "dimensions", "hf_token", "kv_cache_dtype", "latency", "openai", "quantization", "rules",
        "scheduling_policy", "start_seconds", "tokenizer",
    }  # fmt: skip
    wrong = []
    for _, path in modules():
        if own & set(path.parents) or path in (engines / "__init__.py", PACKAGE / "core" / "versions.py"):
            continue
        for node in nodes_of(path):
            if isinstance(node, ast.Constant) and node.value in unnamed:
                wrong.append(f"{path.relative_to(PACKAGE)}:{node.lineno} says {node.value}")
    assert wrong == []


def test_no_module_is_named_utils() -> None:
    assert list(PACKAGE.rglob("util*.py")) == []


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "one hundred"}\n' * 3)
    return path


@pytest.mark.parametrize("command", ["--help", "render", "plan"])
def test_commands_that_need_no_engine_load_neither_torch_nor_vllm(command: str, rows: Path) -> None:
    arguments = [command]
    if command != "--help":
        arguments += ["--model", "demo", "--prompt", "Say: {{ text }}", "--input", str(rows)]
    code = (
        "import sys\nfrom llmbatch.cli.main import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = [name for name in ('torch', 'vllm') if sys.modules.get(name) is not None]\nassert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, llmbatch\nassert not {'torch', 'vllm', 'datasets', 'pyarrow', 'transformers'} & sys.modules.keys()"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
