"""The scripts for Slurm, with stand-ins for ``srun`` and ``scontrol`` and, for the cluster, a real Ray on this machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

SCRIPTS = Path(__file__).parents[2] / "examples" / "slurm"

SRUN = """#!/bin/bash
# stand-in: runs the command on this machine, whatever nodes are named, and passes signals on to all of its processes
echo "${*//$'\\n'/ }" >> "$CALLS"
while [[ $1 == --* ]]; do shift; done
set -m
"$@" &
step=$!
trap 'kill -TERM -- -$step' TERM
wait $step || wait $step
"""
SCONTROL = """#!/bin/bash
# stand-in: two nodes, which are both this machine
[ "$*" = "show hostnames $SLURM_JOB_NODELIST" ] && printf "$MACHINE\\n$MACHINE\\n"
"""
RAY = f"""#!{sys.executable}
# Ray, whose nodes start sooner
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from ray_nodes import wait_for_no_agent
wait_for_no_agent()
from ray.scripts.scripts import main
main()
"""
NO_RAY = """#!/bin/bash
exit 1
"""
SHORT_SLEEP = """#!/bin/bash
exec /bin/sleep 0.1
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def slurm(folder: Path, machine: str = "127.0.0.1", **programs: str) -> Mapping[str, str]:
    """An environment with these programs before all others."""
    place = folder / "bin"
    place.mkdir()
    python = Path(sys.executable).parent
    llmbatch = f'#!/bin/bash\nexec "{sys.executable}" -m llmbatch.cli "$@"\n'
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "llmbatch": llmbatch, **programs}.items():
        path = place / name
        path.write_text(text)
        path.chmod(0o755)
    return {
        **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
        "PATH": f"{place}:{python}:{os.environ['PATH']}", "CALLS": str(folder / "calls"), "SLURM_JOB_NODELIST": "n[1-2]",
        "RAY_PORT": str(free_port()), "RAY_USAGE_STATS_ENABLED": "0", "MACHINE": machine,
        "RAY_OPTIONS": "--num-cpus=1 --object-store-memory=80000000",
    }  # fmt: skip


def start(script: str, arguments: list[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["bash", str(SCRIPTS / script), *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )  # fmt: skip


def job_file(jobs: Any, count: int, latency: float) -> Path:
    rows = jobs.rows({"id": f"r{i}", "text": f"text {i}"} for i in range(count))
    data = jobs.data(rows, {"concurrency": 2, "latency": latency}, run={"commit_seconds": 0.01, "grace": 0})
    del data["output"]
    path = Path(jobs.path / "job.json")
    path.write_text(json.dumps(data))
    return path


@pytest.mark.cluster
def test_a_run_in_an_allocation_has_a_cluster_of_all_its_nodes_and_a_warned_one_is_gone_on_with(jobs: Any) -> None:
    services = pytest.importorskip("ray._private.services")
    machine = services.get_node_ip_address()  # Ray takes no node at 127.0.0.1 for one of this machine
    environment = slurm(jobs.path, machine, ray=RAY)
    job = job_file(jobs, 60, 2.0)
    process = start("cluster.sbatch", [str(job), "--output", str(jobs.path / "out")], environment)
    parts = jobs.path / "out" / "parts"
    while process.poll() is None and not any(path.stat().st_size for path in parts.glob("*.journal")):
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)  # as Slurm does before the time is up
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 130, said
    head, other = (jobs.path / "calls").read_text().splitlines()
    assert head.startswith(f"--nodes=1 --ntasks=1 --nodelist={machine} ")
    assert f" --head --port={environment['RAY_PORT']} " in head
    assert other.startswith(f"--nodes=1 --ntasks=1 --exclude={machine} ")
    assert f" --address={machine}:{environment['RAY_PORT']} " in other
    port = environment["RAY_PORT"]
    assert not [p for p in psutil.process_iter(["cmdline"]) if port in " ".join(p.info["cmdline"] or ())], (
        "nothing is left"
    )

    process = start(
        "cluster.sbatch", [str(job), "--set", "engine.args.latency=0", "--output", str(jobs.path / "out")], environment
    )
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    assert [record["output"] for record in jobs.records()] == [f"text {i}" for i in range(60)]


def test_a_head_that_does_not_start_ends_the_job_with_a_word_about_it(tmp_path: Path) -> None:
    process = start("cluster.sbatch", ["job.yaml"], slurm(tmp_path, ray=NO_RAY, sleep=SHORT_SLEEP))
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 1
    assert "the head of the Ray cluster did not start on 127.0.0.1" in said


def test_an_array_job_runs_slices_that_are_merged(jobs: Any) -> None:
    environment = slurm(jobs.path)
    job = job_file(jobs, 30, 0.0)
    for task in ("1", "2"):
        array = {"SLURM_ARRAY_TASK_ID": task, "SLURM_ARRAY_TASK_COUNT": "2"}
        process = start("slices.sbatch", [str(job), str(jobs.path / "big")], {**environment, **array})
        said, _ = process.communicate(timeout=600)
        assert process.returncode == 0, said
    slices = [str(jobs.path / "big" / f"slice-{task}") for task in (1, 2)]
    merge = [sys.executable, "-m", "llmbatch.cli", "merge", *slices, "--output", str(jobs.path / "out")]
    subprocess.run(merge, check=True, capture_output=True)
    assert [record["output"] for record in jobs.records()] == [f"text {i}" for i in range(30)]
