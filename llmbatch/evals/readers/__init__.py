"""Readers: an answer's text in, the answer that is scored out. A new reader is a file here and a line in this table."""

READERS = {
    "text": "llmbatch.evals.readers.text:KIND",
    "choice": "llmbatch.evals.readers.choice:KIND",
    "number": "llmbatch.evals.readers.number:KIND",
    "regex": "llmbatch.evals.readers.regex:KIND",
    "json": "llmbatch.evals.readers.json_field:KIND",
    "last_line": "llmbatch.evals.readers.last_line:KIND",
    "code": "llmbatch.evals.readers.code:KIND",
    "instructions": "llmbatch.evals.readers.instructions:KIND",
}
