"""Scoring scripts in processes of their own, with Azure's accounting of what failed."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from llmbatch.azureml.journal import Counts
from llmbatch.azureml.run import NOTHING_SUCCEEDED
from llmbatch.azureml.thresholds import exceeded
from llmbatch.cli.main import main
from llmbatch.core.errors import FolderError, InputChanged, LlmbatchError, Stopped
from llmbatch.systems.azure_ml.scoring import Thresholds

Listing = Callable[..., None]
NAMES = ["0.txt", "1.txt", "2.txt", "bad.txt"]


def test_the_example_ends_well_with_one_failed_item(deployment: Any) -> None:
    result = deployment()
    assert result.exit_code == 3
    assert deployment.predictions() == (deployment.path / "expected.dataframe" / "predictions.csv").read_text()
    overview = deployment.log("job_progress_overview.txt")
    assert "2 of 2 mini-batches are done, 0 failed; 4 of 4 items, 1 failed; 3 rows: finished" in overview
    assert "batch deployment llm-default\n" in result.stderr


def test_over_the_threshold_the_example_fails_and_keeps_its_rows(deployment: Any) -> None:
    deployment.settings(error_threshold=0)
    result = deployment()
    assert result.exit_code == 1
    assert "1 items failed, and error_threshold tolerates 0" in result.stderr
    assert deployment.predictions() == (deployment.path / "expected.dataframe" / "predictions.csv").read_text()


def test_a_list_is_a_line_an_element(deployment: Any) -> None:
    shutil.copy(deployment.path / "src_list" / "score.py", deployment.path / "src" / "score.py")
    assert deployment.run().exit_code == 0
    assert deployment.predictions() == (deployment.path / "expected.list" / "predictions.csv").read_text()


def test_what_a_document_has_without_effect_is_said_once(deployment: Any) -> None:
    said = deployment().stderr
    for key in ("compute", "resources", "environment"):
        assert said.count(f"{key}: no effect") == 1


@pytest.mark.parametrize(
    ("returned", "expected", "count"),
    [
        ("tuple(names)", "0.txt\n1.txt\n2.txt\nbad.txt\n", 4),
        ("[{'a': 1}, None, 2.5, 'x y']", "{'a': 1}\nNone\n2.5\nx y\n", 4),
        (
            "pd.DataFrame({'n': names, 't': ['a b', 'say \"hi\"', '', None]})",
            '0.txt "a b"\n1.txt "say ""hi"""\n2.txt \nbad.txt \n',
            4,
        ),
        ("pd.Series(names)", "0.txt\n1.txt\n2.txt\nbad.txt\n", 4),
        ("names + names", "0.txt\n1.txt\n2.txt\nbad.txt\n" * 2, 8),
        ("names[:1] + ['ä 😀']", "0.txt\nä 😀\n", 2),
    ],
    ids=["tuple", "elements", "frame", "series", "more rows than files", "fewer"],
)
def test_what_run_returns_is_rows(deployment: Any, listing: Listing, returned: str, expected: str, count: int) -> None:
    needed = "import pandas as pd\n" if "pd." in returned else ""
    listing(f"{needed}return {returned}", {"mini_batch_size": 4, "error_threshold": -1})
    scored = deployment.run()
    assert deployment.predictions() == expected
    assert (scored.counts.rows, scored.counts.failed_items) == (count, max(0, 4 - count))


@pytest.mark.parametrize("returned", ["'text'", "None", "{'a': 1}", "(each for each in names)", "3"])
def test_what_has_no_rows_is_a_failed_attempt_that_says_so(deployment: Any, listing: Listing, returned: str) -> None:
    listing(f"return {returned}", {"retry_settings": {"max_retries": 1}, "error_threshold": -1})
    scored = deployment.run()
    assert scored.exit_code == 1
    assert NOTHING_SUCCEEDED in str(scored.aborted)
    assert len(deployment.calls()) == 4
    assert "where a list, a tuple or a DataFrame is needed" in deployment.log("user/error.txt")
    assert deployment.predictions() == ""


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("raise ValueError('no such thing')", "ValueError: no such thing"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("os._exit(7)", "ended by itself, with exit code 7"),
        ("os.kill(os.getpid(), 11)", "was killed by SIGSEGV"),
        ("import time; time.sleep(600)", "took longer than 3.0 s"),
        ("return ['\\ud800']", "UnicodeEncodeError"),
    ],
    ids=["raises", "exits", "ends", "crashes", "hangs", "half a character"],
)
def test_a_mini_batch_that_fails_is_tried_again_and_costs_the_others_nothing(
    deployment: Any, listing: Listing, harm: str, said: str
) -> None:
    listing(
        f"if 'bad.txt' in names: {harm}",
        {"mini_batch_size": 1, "error_threshold": 1, "retry_settings": {"max_retries": 2, "timeout": 3}},
    )
    scored = deployment.run()
    assert scored.exit_code == 3
    assert deployment.predictions() == "0.txt\n1.txt\n2.txt\n"
    assert deployment.calls() == [["0.txt"], ["1.txt"], ["2.txt"], *[["bad.txt"]] * 3]
    assert deployment.log("user/error.txt").count(said) == 3
    assert "mini-batch 3, attempt 3 of 3" in deployment.log("user/error/local/process000.txt")
    assert scored.counts == Counts(4, 4, 3, 1, 1, 1)


def test_a_script_that_fails_once_is_as_one_that_does_not(deployment: Any, listing: Listing) -> None:
    listing(
        "mark = Path(__file__).with_name('failed')\nif mini_batch[1:] and not mark.exists():\n    mark.touch()\n    os._exit(1)",
        {"error_threshold": 0},
    )
    assert deployment.run().exit_code == 0
    assert deployment.predictions() == "".join(f"{name}\n" for name in NAMES)


def test_all_items_of_a_mini_batch_that_fails_are_failed(deployment: Any, listing: Listing) -> None:
    listing("if 'bad.txt' in names: raise ValueError", {"error_threshold": 1, "retry_settings": {"max_retries": 0}})
    scored = deployment.run()
    assert scored.exit_code == 1
    assert scored.counts.failed_items == 2
    assert deployment.predictions() == "0.txt\n1.txt\n"


def test_what_a_script_prints_is_in_the_logs_and_not_in_its_rows(deployment: Any, listing: Listing) -> None:
    listing(
        "import subprocess, sys\nprint('printed', flush=False)\nsubprocess.run(['echo', 'shouted'])\nprint('wept', file=sys.stderr)"
    )
    deployment.settings(mini_batch_size=10)
    assert deployment.run().exit_code == 0
    assert deployment.predictions() == "".join(f"{name}\n" for name in NAMES)
    assert deployment.log("user/stdout/local/process000.stdout.txt").split() == ["printed", "shouted"]
    assert deployment.log("user/stderr/local/process000.stderr.txt") == "wept\n"


def test_a_child_that_the_script_forks_and_that_comes_back_says_nothing(deployment: Any, listing: Listing) -> None:
    listing("os.fork()")
    assert deployment.run().exit_code == 0
    assert deployment.predictions() == "".join(f"{name}\n" for name in NAMES)


def test_a_script_sees_its_model_arguments_and_variables(deployment: Any) -> None:
    deployment.script(
        "import argparse, os, sys\n"
        "def init():\n"
        "    global level\n"
        "    parser = argparse.ArgumentParser(); parser.add_argument('--logging_level')\n"
        "    level = parser.parse_known_args()[0].logging_level\n"
        "def run(mini_batch):\n"
        "    model = os.environ['AZUREML_MODEL_DIR']\n"
        "    seen = [open(os.path.join(model, *where, 'MLmodel.txt')).read().strip() for where in ([], ['model'])]\n"
        "    assert all(os.path.isabs(each) for each in mini_batch)\n"
        "    return [f\"{level} {os.environ['TONE']} {seen} {os.path.basename(os.getcwd())} {os.path.basename(sys.argv[0])}\"]\n"
    )
    deployment.settings(mini_batch_size=10, error_threshold=-1)
    deployment.run()
    assert deployment.predictions() == "INFO plain ['placeholder', 'placeholder'] src score.py\n"


def test_init_is_called_once_a_process_and_shutdown_at_its_end(deployment: Any, listing: Listing) -> None:
    listing(settings={"mini_batch_size": 1, "max_concurrency_per_instance": 2})
    script = deployment.path / "src" / "score.py"
    script.write_text(
        script.read_text().replace("def init():\n    pass", "def init():\n    print('init')")
        + "\ndef shutdown():\n    print('shutdown')\n"
    )
    assert deployment.run().exit_code == 0
    for process in ("process000", "process001"):
        assert deployment.log(f"user/stdout/local/{process}.stdout.txt").split() == ["init", "shutdown"]


@pytest.mark.parametrize(
    ("start", "said"),
    [
        ("raise OSError('no weights')", "OSError: no weights"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("import os; os._exit(5)", "ended by itself, with exit code 5"),
    ],
)
def test_a_script_that_cannot_start_ends_the_job(deployment: Any, start: str, said: str) -> None:
    deployment.script(f"def init():\n    {start}\ndef run(mini_batch):\n    return mini_batch\n")
    result = deployment()
    assert result.exit_code == 1
    assert "the script could not be started" in result.stderr
    assert said in result.stderr
    assert deployment.log("user/error.txt").count("start") == 2


def test_an_init_that_hangs_is_ended(deployment: Any, listing: Listing, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmbatch.azureml import run as running

    def soon(*given: Any) -> Any:
        return launch(*given)._replace(start_timeout=0.5)

    launch = running.launch_of
    monkeypatch.setattr(running, "launch_of", soon)
    deployment.script("import time\ndef init():\n    time.sleep(60)\ndef run(mini_batch):\n    return mini_batch\n")
    assert "init() took longer than 0.5 s" in str(deployment.run().aborted)


def test_a_script_without_run_is_named(deployment: Any) -> None:
    deployment.script("def init():\n    pass\n")
    assert "the script has no function run()" in str(deployment.run().aborted)


def test_rows_are_in_the_order_of_the_files_whatever_finishes_first(deployment: Any, listing: Listing) -> None:
    deployment.files({f"{i:02d}.txt": "x" for i in range(20)})
    listing(
        "import time\ncalls = Path(__file__).parents[1] / 'calls.jsonl'\n"
        "while '00.txt' in names and calls.read_text().count('\\n') < 20: time.sleep(0.01)",
        {"mini_batch_size": 1, "max_concurrency_per_instance": 3},
    )
    assert deployment.run().exit_code == 0
    assert deployment.predictions() == "".join(f"{i:02d}.txt\n" for i in range(20))


def test_files_in_folders_are_items_too_and_hidden_ones_are_not(deployment: Any, listing: Listing) -> None:
    deployment.files({"b/1.txt": "x", "a/2.txt": "x", "a/deep/0.txt": "x", ".hidden": "x"})
    listing("names = [each.split('/input/')[1] for each in mini_batch]")
    assert deployment.run().exit_code == 0
    assert deployment.predictions() == "a/2.txt\na/deep/0.txt\nb/1.txt\n"


def test_a_parallel_job_appends_to_its_output_and_has_folders_for_the_others(deployment: Any) -> None:
    (deployment.path / "src" / "score.py").write_text(
        "import argparse\nfrom pathlib import Path\n"
        "def init():\n"
        "    global given\n"
        "    parser = argparse.ArgumentParser(); parser.add_argument('--words'); parser.add_argument('--extra')\n"
        "    given = parser.parse_known_args()[0]\n"
        "def run(mini_batch):\n"
        "    assert len(mini_batch) == 1\n"
        "    name = Path(mini_batch[0]).name\n"
        "    (Path(given.extra) / name).write_text('own')\n"
        "    return [] if name == 'bad.txt' else [f'{name} {given.words}']\n"
    )
    step = {
        "type": "parallel",
        "inputs": {"files": {"type": "uri_folder", "path": "./input"}, "words": 7},
        "outputs": {"rows": {"type": "uri_file"}, "extra": {"type": "uri_folder"}},
        "input_data": "${{inputs.files}}",
        "mini_batch_error_threshold": 0,
        "max_concurrency_per_instance": 1,
        "task": {
            "type": "run_function",
            "code": "./src",
            "entry_script": "score.py",
            "environment": "azureml:e@latest",
            "program_arguments": "--words ${{inputs.words}} --extra ${{outputs.extra}}",
            "append_row_to": "${{outputs.rows}}",
        },
    }
    (deployment.path / "step.yml").write_text(json.dumps(step))
    command = ["azureml", "run", str(deployment.path / "step.yml"), "--output", str(deployment.output)]
    result = CliRunner().invoke(main, command, catch_exceptions=False)
    assert result.exit_code == 1
    assert "1 mini-batches failed, and mini_batch_error_threshold tolerates 0" in result.stderr
    assert (deployment.output / "rows").read_text() == "0.txt 7\n1.txt 7\n2.txt 7\n"
    assert len(list((deployment.output / "extra").iterdir())) == 4


def test_summary_only_counts_rows_and_writes_none(deployment: Any, listing: Listing) -> None:
    listing(
        "with open(os.path.join(os.environ['AZUREML_BI_OUTPUT_PATH'], 'own.txt'), 'a') as file:\n    file.write(names[0] + '\\n')",
        {"output_action": "summary_only"},
    )
    scored = deployment.run()
    assert (scored.exit_code, scored.counts.rows, scored.file) == (0, 4, None)
    assert sorted(path.name for path in deployment.output.iterdir()) == [".azureml", "logs", "own.txt"]
    assert (deployment.output / "own.txt").read_text() == "0.txt\n2.txt\n"


def test_llmbatch_run_finds_out_that_there_is_a_script(deployment: Any) -> None:
    arguments = deployment.command()[1:]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 3
    assert deployment.predictions() == (deployment.path / "expected.dataframe" / "predictions.csv").read_text()
    other = CliRunner().invoke(main, [*arguments, "--model", "demo"], catch_exceptions=False)
    assert other.exit_code == 2
    assert "has a scoring script, which model means nothing to" in other.stderr


@pytest.mark.parametrize("command", [["azureml", "run"], ["run"]], ids=" ".join)
def test_what_a_job_left_is_copied_with_its_output_file_last(deployment: Any, bucket: Any, command: list[str]) -> None:
    arguments = [*command, *deployment.command("--to", f"{bucket.url}/out/")[2:]]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 3, result.stderr
    assert bucket.get("out/predictions.csv").decode() == deployment.predictions()
    assert bucket.requests("PUT")[-1] == "out/predictions.csv"
    assert "out/logs/job_progress_overview.txt" in bucket.names()
    assert not [name for name in bucket.names() if ".azureml" in name]


def test_a_place_that_is_not_there_is_refused_before_the_script_is_run(deployment: Any, bucket: Any) -> None:
    result = CliRunner().invoke(main, deployment.command("--to", f"{bucket.url}-not/out"), catch_exceptions=False)
    assert result.exit_code == 2
    assert "there is no bucket" in result.stderr
    assert not deployment.output.exists()


def test_a_deployment_without_a_script_says_what_runs_it(deployment: Any) -> None:
    command = deployment.command("--asset", "demo=demo")
    command[2] = str(deployment.path / "legacy.yml")
    result = CliRunner().invoke(main, command, catch_exceptions=False)
    assert result.exit_code == 2
    assert "has no scoring script; llmbatch itself answers" in result.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [("empty", "there is no file in it"), ("inside", "lies in the input"), ("gone", "no such folder or file")],
)
def test_an_input_that_cannot_be_is_refused_before_anything_is_made(deployment: Any, change: str, said: str) -> None:
    if change == "empty":
        deployment.files({".hidden": ""})
    arguments = deployment.command()
    if change == "gone":
        shutil.rmtree(deployment.path / "input")
    if change == "inside":
        arguments[-1] = str(deployment.path / "input" / "out")
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not Path(arguments[-1]).exists()


def test_an_output_file_that_is_there_is_refused(deployment: Any) -> None:
    deployment.output.mkdir()
    (deployment.output / "predictions.csv").write_text("mine\n")
    result = deployment()
    assert result.exit_code == 1
    assert "is there already" in result.stderr
    assert deployment.predictions() == "mine\n"
    assert not (deployment.output / ".azureml").exists()


def test_the_same_command_after_the_end_runs_nothing_and_says_the_same(deployment: Any, listing: Listing) -> None:
    listing("if 'bad.txt' in names: names.remove('bad.txt')")
    first = deployment("--json")
    again = deployment("--json")
    assert (first.exit_code, json.loads(again.stdout)) == (3, json.loads(first.stdout))
    assert again.exit_code == 3
    assert len(deployment.calls()) == 2


def test_an_aborted_job_goes_on_with_what_failed_alone(deployment: Any, listing: Listing) -> None:
    mark = deployment.path / "mended"
    listing(
        f"if 'bad.txt' in names and not os.path.exists({str(mark)!r}): raise ValueError",
        {"error_threshold": 0, "mini_batch_size": 1, "retry_settings": {"max_retries": 0}},
    )
    assert deployment.run().exit_code == 1
    mark.touch()
    assert deployment.run().exit_code == 0
    assert deployment.calls() == [["0.txt"], ["1.txt"], ["2.txt"], ["bad.txt"], ["bad.txt"]]
    assert deployment.predictions() == "".join(f"{name}\n" for name in NAMES)


@pytest.mark.parametrize(
    "fault", ["azureml-rows:3", "azureml-torn:3", "azureml-journal:3", "renamed/predictions.csv", "renamed/counts.json"]
)
def test_a_kill_repeats_no_mini_batch_that_was_finished_and_changes_no_byte(
    deployment: Any, listing: Listing, kill_at: Any, fault: str
) -> None:
    deployment.files({f"{i}.txt": "x" for i in range(6)})
    listing(settings={"mini_batch_size": 1})
    kill_at(fault, deployment.run)
    assert deployment.run().exit_code == 0
    assert deployment.predictions() == "".join(f"{i}.txt\n" for i in range(6))
    called = [names[0] for names in deployment.calls()]
    lost = 1 if fault in ("azureml-rows:3", "azureml-torn:3") else 0
    assert len(called) - len(set(called)) <= lost


def test_kill_minus_9_in_the_middle_ends_the_scripts_too(deployment: Any, listing: Listing) -> None:
    deployment.files({f"{i}.txt": "x" for i in range(6)})
    pid = deployment.path / "pid"
    listing(
        f"import time\nif '3.txt' in names and not os.path.exists({str(pid)!r}):\n"
        f"    open({str(pid)!r}, 'w').write(str(os.getpid()))\n    time.sleep(600)",
        {"mini_batch_size": 1, "retry_settings": {"timeout": 900}},
    )
    process = deployment.start()
    until(lambda: pid.exists() and pid.read_text())
    process.kill()
    process.wait()
    until(lambda: not runs(int(pid.read_text())))
    assert deployment.run().exit_code == 0
    assert deployment.predictions() == "".join(f"{i}.txt\n" for i in range(6))
    assert [names[0] for names in deployment.calls()] == ["0.txt", "1.txt", "2.txt", "3.txt", "3.txt", "4.txt", "5.txt"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_and_the_same_command_goes_on(deployment: Any, listing: Listing, number: signal.Signals) -> None:
    mark = deployment.path / "mark"
    listing(
        f"import time\nmark = Path({str(mark)!r})\nif '2.txt' in names and not mark.exists():\n    mark.touch(); time.sleep(600)",
        {"mini_batch_size": 1, "retry_settings": {"timeout": 900}},
    )
    process = deployment.start()
    until(mark.exists)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == Stopped.exit_code, said
    assert not (deployment.output / "predictions.csv").exists()
    assert deployment.run().exit_code == 0
    assert [names[0] for names in deployment.calls()] == ["0.txt", "1.txt", "2.txt", "2.txt", "bad.txt"]


def until(true: Callable[[], object]) -> None:
    for _ in range(6000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to that")


def runs(pid: int) -> bool:
    from llmbatch.engines.guardian import start_time

    return start_time(pid) is not None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda d: d.script("def init(): pass\ndef run(mini_batch): return mini_batch\n"), "scoring script"),
        (lambda d: d.settings(mini_batch_size=3), "mini_batch_size"),
        (lambda d: d.settings(environment_variables={"TONE": "rude"}), "environment_variables"),
        (lambda d: (d.path / "input" / "3.txt").write_text("more"), "input"),
    ],
    ids=["script", "size", "variables", "input"],
)
def test_another_job_in_the_same_folder_is_refused_naming_what_differs(
    deployment: Any, listing: Listing, change: Callable[[Any], object], named: str
) -> None:
    listing()  # which starts sooner than the example's
    deployment.run()
    change(deployment)
    with pytest.raises(FolderError, match=f"was begun with another {named}:"):
        deployment.run()


def test_a_file_that_changes_while_it_is_waited_for_ends_the_run_naming_it(deployment: Any, listing: Listing) -> None:
    changed = deployment.path / "input" / "2.txt"
    listing(f"open({str(changed)!r}, 'a').write('more')", {"mini_batch_size": 1})
    with pytest.raises(InputChanged, match=r"2\.txt: was changed since the run began"):
        deployment.run()


def test_a_python_that_is_not_there_is_said(deployment: Any) -> None:
    result = deployment("--python", "/no/such/python")
    assert result.exit_code == 1
    assert "/no/such/python: cannot be started: No such file or directory" in result.stderr


def test_two_runs_of_one_output_exclude_each_other(deployment: Any, listing: Listing) -> None:
    mark = deployment.path / "mark"
    listing(f"import time\nopen({str(mark)!r}, 'w')\ntime.sleep(600)", {"retry_settings": {"timeout": 900}})
    deployment.start()
    until(mark.exists)
    with pytest.raises(LlmbatchError, match="another run has this folder"):
        deployment.run()


@pytest.mark.parametrize(
    ("thresholds", "counts", "over"),
    [
        (Thresholds(-1), Counts(failed_items=10**9, short=10**9), False),
        (Thresholds(5), Counts(failed_items=5), False),
        (Thresholds(5), Counts(failed_items=6), True),
        (Thresholds(-1, 2), Counts(short=2), False),
        (Thresholds(-1, 2), Counts(short=3), True),
        (Thresholds(-1, -1, 10), Counts(short=1), False),
        (Thresholds(-1, -1, 10), Counts(short=2), True),
        (Thresholds(-1, -1, 0), Counts(short=1), True),
    ],
)
def test_more_than_is_tolerated_is_one_more(thresholds: Thresholds, counts: Counts, over: bool) -> None:
    assert (exceeded(thresholds, counts, 10) is not None) == over


def test_files_that_lie_elsewhere_are_fetched_for_their_mini_batch_alone(
    deployment: Any, listing: Listing, tmp_path: Path
) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for i in range(5):
        memory.pipe_file(f"/azureml-in/a/{i}.txt", f"text {i}".encode())
    listing(
        "texts = [Path(each).read_text() for each in mini_batch]\n"
        "names = [f'{text}, {len(list(Path(mini_batch[0]).parent.iterdir()))}' for text in texts]"
    )
    from llmbatch.azureml.run import run_scoring
    from llmbatch.systems.azure_ml.reading import read_scoring

    scoring = read_scoring(deployment.path / "deployment.yml", {})
    try:
        scored = run_scoring(scoring, "memory://azureml-in/", deployment.output, python=sys.executable)
    finally:
        memory.rm("/azureml-in", recursive=True)
    assert scored.exit_code == 0
    assert deployment.predictions() == "text 0, 2\ntext 1, 2\ntext 2, 2\ntext 3, 2\ntext 4, 1\n"
    assert not list((deployment.output / ".azureml").glob("process*"))
