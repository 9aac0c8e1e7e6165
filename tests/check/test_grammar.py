from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from llmbatch.check.answer import make_check
from llmbatch.check.base import OutputSettings
from llmbatch.core.errors import JobError, SchemaError
from llmbatch.core.types import Constraint, FailureKind

pytest.importorskip("llguidance", reason="llguidance comes with vLLM")

LARK = 'start: "sum(" NUMBER ("," NUMBER)* ")" | "ü" | "none"\nNUMBER: /[0-9]+/\n'
EBNF = 'root ::= "sum(" number ("," number)* ")" | "ü" | "none"\nnumber ::= [0-9]+\n'
GRAMMARS = pytest.mark.parametrize("grammar", [LARK, EBNF])


@GRAMMARS
@pytest.mark.parametrize("text", ["sum(1)", "sum(1,23,456)", "ü", "none"])
def test_a_sentence_of_the_grammar_passes_as_it_is(grammar: str, text: str) -> None:
    assert make_check(OutputSettings(grammar=grammar))(text) == (text, None)


@GRAMMARS
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sum(1,)", "from ')' on (character 7)"),
        ("sum(1) ", "from ' ' on (character 7)"),
        (" none", "from ' none' on (character 1)"),
        ("üx", "from 'x' on (character 2)"),
        ("sum(1", "at its end, which comes too early"),
    ],
)
def test_a_failure_says_where_the_answer_leaves_the_grammar(grammar: str, text: str, said: str) -> None:
    failure = make_check(OutputSettings(grammar=grammar))(text).failure
    assert failure is not None
    assert (failure.kind, failure.message) == (FailureKind.GRAMMAR, f"the answer leaves the grammar {said}")


def test_the_engine_gets_the_grammar() -> None:
    assert make_check(OutputSettings(grammar=LARK)).constraint == Constraint("grammar", LARK)


def test_a_sentence_that_cannot_go_on_passes_even_if_cut_off_after_it() -> None:
    check = make_check(OutputSettings(grammar='start: "ab" | /c+/'))
    assert check("ab", cut_off=True) == ("ab", None)
    failure = check("c", cut_off=True).failure
    assert failure is not None
    assert failure.kind is FailureKind.TRUNCATED


@pytest.mark.parametrize("grammar", ["start: missing_rule\n", "root ::= missing_rule\n", 'start: "a" ((\n', "  \n"])
def test_a_grammar_that_is_not_valid_is_refused(grammar: str) -> None:
    with pytest.raises(SchemaError, match="the grammar is"):
        make_check(OutputSettings(grammar=grammar))


def test_one_check_serves_several_threads() -> None:
    check = make_check(OutputSettings(grammar=LARK))
    texts = [f"sum({n})" if n % 2 else f"sum({n}" for n in range(2000)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            passed = [verdict.failure is None for verdict in pool.map(check, texts)]
    finally:
        sys.setswitchinterval(interval)
    assert passed == [n % 2 == 1 for n in range(2000)]


def test_without_llguidance_a_grammar_is_refused_rather_than_left_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(JobError, match=r"llguidance, which is not installed: it comes with vLLM"):
        make_check(OutputSettings(grammar=LARK))
