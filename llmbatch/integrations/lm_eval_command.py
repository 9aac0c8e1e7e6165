"""The harness's own ``lm_eval`` command, to which the model ``llmbatch`` was made known first: ``llmbatch-lm-eval``.

Released versions of lm-evaluation-harness (0.4.13 is the last one seen) look for a model nowhere but in their own source, so that
plain ``lm_eval --model llmbatch`` cannot work with them. Later ones look for entry points in the group ``lm_eval.models``, where
llmbatch has one; with these the plain command does, and this one too.
"""

from __future__ import annotations

import sys

from llmbatch.core.errors import LlmbatchError

_MODEL, _TARGET = "llmbatch", "llmbatch.integrations.lm_eval:LlmbatchLM"


def main() -> None:
    """Run the harness's command with this process's arguments; ends the process."""
    try:
        import lm_eval.models  # noqa: F401 - the harness fills its registry only as long as it is empty
        from lm_eval.__main__ import cli_evaluate
        from lm_eval.api.registry import model_registry
    except ModuleNotFoundError as error:
        print(f"lm-evaluation-harness needs {error.name}: pip install 'llmbatch[harness]'", file=sys.stderr)
        sys.exit(2)
    if _MODEL not in model_registry:
        model_registry.register(_MODEL, target=_TARGET)
    try:
        cli_evaluate()
    except LlmbatchError as error:
        print(f"llmbatch: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
