"""The server against its own OpenAPI description, by schemathesis's own command: every path, sound requests and broken ones.

    python eval/server/description.py [--examples N]

What schemathesis finds is its output; the exit code is its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from load import served

# Random ids and texts have the form that is described, and are refused all the same: there are no such files.
_NOT_HELD_TO = "positive_data_acceptance"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=200, help="for each path (%(default)s)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="llmbatch-description-") as name, served(Path(name)) as server:
        command = [
            str(Path(sys.executable).with_name("schemathesis")), "run", f"http://127.0.0.1:{server.port}/openapi.json",
            "--exclude-checks", _NOT_HELD_TO, "--max-examples", str(given.examples), "--seed", "1",
        ]  # fmt: skip
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
