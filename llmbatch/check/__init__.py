"""Checks: the text of an answer in, its value or a failure out. A new kind or rule is a file, a setting and a line here."""

KINDS = {
    "text": "llmbatch.check.text:make",
    "json_schema": "llmbatch.check.json_schema:make",
    "pydantic_model": "llmbatch.check.pydantic_model:make",
    "choice": "llmbatch.check.choice:make",
    "regex": "llmbatch.check.regex:make",
    "grammar": "llmbatch.check.grammar:make",
}
KINDS_OF_ROWS = {**KINDS, "regex": "llmbatch.check.regex:make_linear"}
"""The same where what is asked for comes from a row."""

RULES = {
    "repetition": "llmbatch.check.repetition:make",
    "reject": "llmbatch.check.reject:make",
    "copy": "llmbatch.check.copy:make",
    "language": "llmbatch.check.language:make",
    "length_ratio": "llmbatch.check.length_ratio:make",
    "markup": "llmbatch.check.markup:make",
    "glossary": "llmbatch.check.glossary:make",
}
"""What an answer of its kind must be besides, in the order in which the rules are asked."""
