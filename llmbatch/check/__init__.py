"""Checks: the text of an answer in, its value or a failure out. A new kind of output is a file, a setting and a line here."""

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
