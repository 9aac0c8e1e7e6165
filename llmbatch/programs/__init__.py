"""Programs: how a row becomes requests, and their answers the row's value. A new one is a file here and a line in this table."""

PROGRAMS = {
    "single": "llmbatch.programs.single:KIND",
    "chain": "llmbatch.programs.chain:KIND",
    "best_of": "llmbatch.programs.best_of:KIND",
    "fan_out": "llmbatch.programs.fan_out:KIND",
    "map_reduce": "llmbatch.programs.map_reduce:KIND",
    "translate": "llmbatch.programs.translate:KIND",
    "few_shot": "llmbatch.programs.few_shot:KIND",
    "score": "llmbatch.programs.score:KIND",
    "perplexity": "llmbatch.programs.perplexity:KIND",
    "embed": "llmbatch.programs.embed:KIND",
    "classify": "llmbatch.programs.classify:KIND",
    "score_pairs": "llmbatch.programs.score_pairs:KIND",
    "rerank": "llmbatch.programs.rerank:KIND",
}
