"""Which GPUs and processors each of several engines has, told from what a machine says of itself."""

from __future__ import annotations

from typing import Any

import pytest

from llmbatch.core.errors import JobError
from llmbatch.engines.devices import Machine, Place, this_machine
from llmbatch.engines.kinds import checked, is_hosted, kind_of, resolved
from llmbatch.engines.settings import EngineSettings

FOUR = "".join(f"GPU {n}: NVIDIA H200 (UUID: GPU-{n})\n" for n in range(4))
DIVIDED = (
    "GPU 0: NVIDIA A100 (UUID: GPU-a)\n  MIG 3g.20gb     Device  0: (UUID: MIG-1)\n  MIG 3g.20gb     Device  1: (UUID: MIG-2)\n"
    "GPU 1: NVIDIA A100 (UUID: GPU-b)\n"
)


def machine(visible: str | None = None, listed: str = "") -> Machine:
    return this_machine({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}, lambda: listed, cpus=range(8))


def settings(replicas: int | str, **args: Any) -> EngineSettings:
    return EngineSettings(name="vllm", replicas=replicas, args=args)  # type: ignore[arg-type]


def places(replicas: int | str, seen: Machine, **args: Any) -> list[Place]:
    engine = resolved(settings(replicas, **args), seen)
    return kind_of("vllm").places(engine, seen)


def gpus(found: list[Place]) -> list[str]:
    return [place.environment["CUDA_VISIBLE_DEVICES"] for place in found]


@pytest.mark.parametrize(
    ("visible", "listed", "seen"),
    [
        (None, FOUR, ("0", "1", "2", "3")),
        (None, DIVIDED, ("MIG-1", "MIG-2", "1")),
        (None, "", ()),
        ("2,0", FOUR, ("2", "0")),
        ("GPU-ab12, MIG-cd34", FOUR, ("GPU-ab12", "MIG-cd34")),
        ("", FOUR, ()),
        ("-1", FOUR, ()),
        ("1,-1,2", FOUR, ("1",)),
    ],
    ids=["all", "divided", "none", "numbers", "uuids", "hidden", "hidden by -1", "up to -1"],
)
def test_the_gpus_that_are_visible_are_those_that_cuda_would_show(
    visible: str | None, listed: str, seen: tuple[str, ...]
) -> None:
    assert machine(visible, listed).gpus == seen


@pytest.mark.parametrize(
    ("replicas", "args", "slices"),
    [
        ("auto", {}, ["0", "1", "2", "3"]),
        (2, {}, ["0", "1"]),
        ("auto", {"tensor_parallel_size": 2}, ["0,1", "2,3"]),
        ("auto", {"tensor_parallel_size": 2, "pipeline_parallel_size": 2}, ["0,1,2,3"]),
        ("auto", {"tensor_parallel_size": 3}, ["0,1,2"]),
    ],
    ids=["auto", "two", "two GPUs each", "four GPUs", "one left over"],
)
def test_each_replica_has_gpus_of_its_own(replicas: int | str, args: dict[str, int], slices: list[str]) -> None:
    assert gpus(places(replicas, machine(None, FOUR), **args)) == slices


def test_names_are_handed_on_as_they_were_given() -> None:
    assert gpus(places("auto", machine("MIG-1,GPU-b"))) == ["MIG-1", "GPU-b"]


@pytest.mark.parametrize("name", ["vllm", "scripted"])
def test_auto_is_one_where_there_is_no_gpu(name: str) -> None:
    engine = EngineSettings(name=name, replicas="auto")
    assert resolved(engine, machine()).replicas == 1


def test_more_replicas_than_gpus_are_refused_with_what_was_seen() -> None:
    with pytest.raises(
        JobError, match=r"replicas=3: 3 engines need 3 GPUs, and 2 are visible \(CUDA_VISIBLE_DEVICES=4,5\)"
    ):
        places(3, machine("4,5"))
    with pytest.raises(JobError, match=r"3 engines of 2 GPUs each need 6 GPUs, and 4 are visible .*--replicas 2"):
        places(3, machine(None, FOUR), tensor_parallel_size=2)


def test_auto_with_fewer_gpus_than_one_engine_needs_is_refused() -> None:
    with pytest.raises(JobError, match="one engine needs 8 GPUs, and 4 are visible"):
        places("auto", machine(None, FOUR), tensor_parallel_size=8)


@pytest.mark.parametrize(
    ("replicas", "args", "cpus", "bound"),
    [
        (2, {}, [(0, 1, 2, 3), (4, 5, 6, 7)], ["0,1,2,3", "4,5,6,7"]),
        (3, {}, [(0, 1), (2, 3, 4), (5, 6, 7)], ["0,1", "2,3,4", "5,6,7"]),
        (2, {"tensor_parallel_size": 2}, [(0, 1, 2, 3), (4, 5, 6, 7)], ["0,1|2,3", "4,5|6,7"]),
    ],
    ids=["two", "three", "two of two ranks"],
)
def test_without_gpus_the_replicas_share_the_processors(
    replicas: int, args: dict[str, int], cpus: list[tuple[int, ...]], bound: list[str]
) -> None:
    found = places(replicas, machine(), **args)
    assert [place.cpus for place in found] == cpus
    assert [place.environment["VLLM_CPU_OMP_THREADS_BIND"] for place in found] == bound


def test_more_replicas_than_processors_are_refused() -> None:
    with pytest.raises(JobError, match=r"there is no GPU .* may use 8: give --replicas 8"):
        places(9, machine())


def test_several_vllm_engines_need_a_process_each_and_one_does_not() -> None:
    assert is_hosted(settings(2))
    assert not is_hosted(settings(1))
    assert not is_hosted(EngineSettings(name="scripted", replicas=2))
    assert is_hosted(EngineSettings(name="scripted", replicas=2, hosted=True))
    with pytest.raises(JobError, match=r"engine\.hosted: several vllm engines need a process each"):
        checked(settings(2).model_copy(update={"hosted": False}))


@pytest.mark.parametrize("given", [0, 257, -1, "many", True, 1.5])
def test_a_number_that_is_none_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match="is auto, or a number of engines from 1 to 256"):
        EngineSettings(replicas=given)


def test_a_number_on_the_command_line_is_a_number() -> None:
    assert EngineSettings(replicas="4").replicas == 4  # type: ignore[arg-type]
