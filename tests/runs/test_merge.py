"""Slices of one input, run each by its own and put together: the bytes of one run, an audit that passes, clear errors where not."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from llmbatch.audit.audit import audit
from llmbatch.cli.main import main
from llmbatch.core.errors import FolderError, JobError, Locked
from llmbatch.folder.folder import RunFolder
from llmbatch.runs.merge import merge
from llmbatch.runs.retry_failed import retry_failed

ROWS = 1200
RETRIED = {"when": {"attempt": 1, "matches": "7$"}, "answer": ""}
BAD = {"when": {"matches": "^text (199|300|700)$"}, "fail": "no"}


def text_rows(count: int = ROWS) -> list[Any]:
    rows: list[Any] = [{"id": f"r{i}", "text": f"text {i % 1000}"} for i in range(count)]
    rows[5] = "not json"
    return rows


class Case:
    """One input, its slices and the whole."""

    def __init__(self, jobs: Any) -> None:
        self.jobs = jobs
        self.path: Path = jobs.path
        self.rows: Path = jobs.rows(text_rows())

    def job(self, name: str, shard: str | None = None, **sections: Any) -> Any:
        sections.setdefault("retry", {"max_attempts": 2})
        if shard is not None:
            sections["input"] = {**sections.get("input", {}), "shard": shard}
        return self.jobs.job(self.rows, {"rules": [RETRIED, BAD]}, output=str(self.path / name), **sections)

    def slices(self, of: int, **sections: Any) -> list[Path]:
        return [self.slice(number, of, **sections) for number in range(1, of + 1)]

    def slice(self, number: int, of: int, **sections: Any) -> Path:
        self.jobs.run(self.job(f"slice{number}", f"{number}/{of}", **sections))
        return self.path / f"slice{number}"

    def whole(self, **sections: Any) -> bytes:
        self.jobs.run(self.job("whole", **sections))
        return bytes(self.jobs.results("whole"))


@pytest.fixture
def case(jobs: Any) -> Case:
    return Case(jobs)


def problems(folder: Path) -> list[str]:
    return [problem for check in audit(folder).checks for problem in check.problems]


@pytest.mark.parametrize("of", [1, 2, 3, 7])
def test_slices_put_together_are_the_bytes_of_one_run(case: Case, of: int) -> None:
    folders = case.slices(of)
    for folder in folders:
        assert problems(folder) == []
        assert audit(folder).complete
    result = merge(folders[::-1], case.path / "merged")
    assert result.exit_code == 3
    assert case.jobs.results("merged") == case.whole()
    assert (case.path / "merged" / "errors.jsonl").read_bytes() == (case.path / "whole" / "errors.jsonl").read_bytes()
    assert audit(case.path / "merged").complete
    whole, merged = case.jobs.report("whole"), case.jobs.report("merged")
    for part in ("rows", "failures", "attempts"):
        assert (
            {**merged[part], "folded": 0} == {**whole[part], "folded": 0}
            if part == "rows"
            else merged[part] == whole[part]
        )
    assert merged["tokens"]["total"] == whole["tokens"]["total"]
    assert len(merged["sessions"]) == of


def test_records_keep_the_index_of_the_whole_input_and_only_the_slice_is_run(case: Case) -> None:
    case.slice(2, 3)
    indexes = [record["index"] for record in case.jobs.records("slice2")]
    assert indexes == [*range(256, 512), *range(1024, 1200)]


def test_a_killed_slice_goes_on_and_so_does_one_with_small_windows(case: Case) -> None:
    run = {"window": 50, "commit_seconds": 0.01}
    killed = {
        "args": {"rules": [{"when": {"index": 480}, "crash": True, "times": 1}], "latency": 0.001},
        "in_flight": 8,
    }
    data = case.job("slice2", "2/3", run=run).model_dump(mode="json", exclude_defaults=True)
    data["engine"] = {**data["engine"], **killed}
    code, _, said = case.jobs.finish(data)
    assert code == -signal.SIGKILL, said
    if not list((case.path / "slice2" / "parts").glob("*.jsonl")):
        pytest.fail("nothing was sealed before the kill")
    quick = case.job("slice2", "2/3", run=run, engine={"in_flight": 8, "args": killed["args"], "in_process": False})
    assert case.jobs.run(quick).outcome == "finished"
    assert audit(case.path / "slice2").complete


def test_a_slice_of_a_short_input_may_have_no_row(jobs: Any) -> None:
    case = Case(jobs)
    case.rows = jobs.rows(text_rows(20))
    folders = case.slices(3)
    assert jobs.results("slice3") == b""
    assert any("no row of the input is in the slice 3/3" in note for note in jobs.notes())
    merge(folders, case.path / "merged")
    assert jobs.results("merged") == case.whole()


def test_other_outputs_are_made_anew(case: Case) -> None:
    folders = case.slices(2, sinks={"formats": ["shards"], "rows_per_shard": 500})
    merge(folders, case.path / "merged")
    assert len(list((case.path / "merged").glob("**/results-*-of-00003.jsonl"))) == 3


def test_what_was_tried_again_in_slices_stays_so_and_can_be_tried_again_in_the_whole(case: Case) -> None:
    folders = case.slices(2)
    for folder in folders:
        retry_failed(folder, {"engine": {"args": {"rules": [RETRIED]}}})
    merge(folders, case.path / "merged")
    for folder in folders:
        shutil.rmtree(folder)
    assert problems(case.path / "merged") == []
    assert [record["index"] for record in case.jobs.records("merged") if record["status"] != "ok"] == [5]
    retry_failed(case.path / "merged", {})
    assert problems(case.path / "merged") == []


def test_the_same_slice_twice_at_a_time_in_one_folder_is_refused(case: Case) -> None:
    folder = RunFolder(case.path / "slice1")
    folder.open()
    with pytest.raises(Locked):
        case.slice(1, 2)
    folder.close()


def test_another_slice_in_the_same_folder_is_refused(case: Case) -> None:
    case.slice(1, 2)
    with pytest.raises(FolderError, match=r'input\.shard was "1/2", now "2/2"'):
        case.jobs.run(case.job("slice1", "2/2"))


def assert_refused(match: str, folders: list[Path], output: Path) -> None:
    with pytest.raises((FolderError, JobError), match=match):
        merge(folders, output)
    assert not (output / "run.json").exists()


def test_what_cannot_be_put_together_is_refused_before_anything_is_written(case: Case) -> None:
    out = case.path / "merged"
    one, two, _three = case.slices(3)
    assert_refused(r"slices are lacking: 3/3; give all 3 folders", [one, two], out)
    copy = Path(shutil.copytree(one, case.path / "copy"))
    assert_refused(r"are both slice 1/3", [one, two, copy], out)
    other = case.path / "other"
    case.jobs.run(case.job("other", "2/2"))
    assert_refused(r"is slice 2/2, and .* is slice 1/3", [one, other], out)
    case.jobs.run(case.job("warm", "3/3", sampling={"temperature": 0, "max_tokens": 5}))
    assert_refused(r"is of another job than .*max_tokens", [one, two, case.path / "warm"], out)
    case.whole()
    assert_refused(r"is a run of a whole input, not of a slice", [one, case.path / "whole"], out)
    assert_refused(r"is no run folder", [one, case.path], out)
    assert not out.exists()


def test_a_slice_that_is_not_finished_is_refused(case: Case) -> None:
    one = case.slice(1, 2)
    slow = {"args": {"latency": 0.5}, "in_flight": 4}
    case.jobs.run(case.job("slice2", "2/2", engine=slow, run={"max_total_tokens": 1, "grace": 0}))
    assert_refused(
        r"the slice 2/2 is not finished: run the same llmbatch run command",
        [one, case.path / "slice2"],
        case.path / "m",
    )


def test_slices_of_two_versions_are_refused(case: Case) -> None:
    one, two = case.slices(2)
    report = json.loads((two / "report.json").read_bytes())
    report["versions"]["llmbatch"] = "9.9"
    (two / "report.json").write_text(json.dumps(report))
    assert_refused(r"was run with llmbatch 9\.9, and .* with ", [one, two], case.path / "merged")


def test_an_input_that_changed_since_is_refused(case: Case) -> None:
    folders = case.slices(2)
    case.rows.write_text(case.rows.read_text().replace("text 9", "text 8"))
    assert_refused(r"the input is not what this run began with", folders, case.path / "merged")


def test_a_folder_that_holds_a_run_is_refused(case: Case) -> None:
    folders = case.slices(2)
    case.whole()
    with pytest.raises(FolderError, match="holds a run already"):
        merge(folders, case.path / "whole")


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"accept": {"rows": 5, "when": ["output"]}}, "how many rows are accepted is counted over the whole input"),
        ({"sinks": {"to": "elsewhere"}}, "slices of one input would write over each other's files"),
    ],
    ids=["accepted rows", "copies"],
)
def test_what_a_slice_cannot_know_is_refused(case: Case, sections: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError, match=said):
        case.job("slice1", "1/2", **sections)


def test_the_command_merges_and_copies(case: Case) -> None:
    one, two = case.slices(2)
    arguments = ["merge", str(one), str(two), "--output", str(case.path / "merged"), "--to", str(case.path / "copies")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 3, result.output
    assert "1,200 rows of 2 slices are in" in result.output
    assert (case.path / "copies" / "results.jsonl").read_bytes() == case.whole()


def test_what_is_shown_beforehand_is_of_the_slice_alone(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    if "torch" not in sys.modules:  # planning does it for its whole process, and tests that follow may want torch
        monkeypatch.setitem(sys.modules, "torch", None)
    common = ["--model", "demo", "--prompt", "{{ text }}", "--input", str(case.rows), "--shard", "2/3"]
    rendered = CliRunner().invoke(main, ["render", *common])
    assert rendered.stdout.count("\n") == (512 - 256) + (1200 - 1024), rendered.output[-2000:]
    planned = CliRunner().invoke(main, ["plan", *common, "--json"])
    assert json.loads(planned.stdout)["rows"] == (512 - 256) + (1200 - 1024)


def test_slices_of_an_input_that_has_grown_are_the_bytes_of_one_run_over_all_of_it(case: Case) -> None:
    case.slices(2)
    with case.rows.open("a") as file:
        file.writelines(json.dumps({"id": f"r{i}", "text": f"new {i}"}) + "\n" for i in range(ROWS, 2 * ROWS))
    for number in (1, 2):
        case.jobs.run(case.job(f"slice{number}", f"{number}/2"), extend=True)
    merge([case.path / "slice1", case.path / "slice2"], case.path / "merged")
    assert case.jobs.results("merged") == case.whole()


def test_a_sweep_in_slices_is_the_sweep(case: Case) -> None:
    sweep: dict[str, Any] = {"sampling.max_tokens": [5, 50]}
    merge(case.slices(2, sweep=sweep), case.path / "merged")
    assert case.jobs.results("merged") == case.whole(sweep=sweep)
    assert case.jobs.report("merged")["settings"] == case.jobs.report("whole")["settings"]


@pytest.mark.parametrize("lost", [(5, 6), (4, 5, 6), (5, 6, 7), (2,), (0, 1), (9,)], ids=str)
def test_windows_that_were_lost_are_filled_again_and_none_goes_beyond_its_block(
    case: Case, lost: tuple[int, ...]
) -> None:
    case.slice(2, 3, run={"window": 50})
    before = case.jobs.results("slice2")
    folder = case.path / "slice2"
    for number in lost:
        (folder / "parts" / f"part-{number:05d}.jsonl").unlink()
        (folder / "parts" / f"part-{number:05d}.meta.json").unlink()
    (folder / "results.jsonl").unlink()
    case.slice(2, 3, run={"window": 50})
    assert case.jobs.results("slice2") == before
    assert audit(folder).complete
    merge([case.slice(1, 3), folder, case.slice(3, 3)], case.path / "merged")
    assert case.jobs.results("merged") == case.whole()
