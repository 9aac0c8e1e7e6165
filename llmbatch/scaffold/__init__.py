"""What a corpus is used for; what is written for it to begin with. A new use is a line in this table and a function in its file."""

USES = {
    "summarize": "llmbatch.scaffold.uses:summarize",
    "translate": "llmbatch.scaffold.uses:translate",
    "extract": "llmbatch.scaffold.uses:extract",
    "classify": "llmbatch.scaffold.uses:classify",
    "generate": "llmbatch.scaffold.uses:generate",
    "evaluate": "llmbatch.scaffold.uses:evaluate",
}
