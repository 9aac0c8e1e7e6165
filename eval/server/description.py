"""The server against its own OpenAPI description, by schemathesis's own command: every path, sound requests and broken ones.

    python eval/server/description.py [--examples N] [--json FILE]

What schemathesis finds is its output; the exit code is its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from load import served

# Random ids and texts have the form that is described, and are refused all the same: there are no such files.
_NOT_HELD_TO = "positive_data_acceptance"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=200, help="for each path (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="llmbatch-description-") as name, served(Path(name)) as server:
        report = Path(name) / "report.json"
        command = [
            str(Path(sys.executable).with_name("schemathesis")), "run", f"http://127.0.0.1:{server.port}/openapi.json",
            "--exclude-checks", _NOT_HELD_TO, "--max-examples", str(given.examples), "--seed", "1",
            "--report", "json", "--report-json-path", str(report),
        ]  # fmt: skip
        code = subprocess.run(command, check=False).returncode
        if given.json is not None:
            figures = _figures(json.loads(report.read_text(encoding="utf-8")), code)
            given.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return code


def _figures(said: dict[str, Any], code: int) -> dict[str, Any]:
    operations, cases = said["operations"], said["test_cases"]
    return {
        "schemathesis": said["schemathesis_version"], "exit_code": code, "operations": operations["total"],
        "operations_tried": operations["tested"], "requests": cases["generated"], "requests_that_failed": cases["with_failures"],
        "failures": sorted({failure["title"] for failure in said["failures"]}),
        "errors": sorted({error["title"] for error in said["errors"]}),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
