"""Sources: where rows come from. A new format is a file here and a line in this table."""

FORMATS = {
    "jsonl": "llmbatch.sources.jsonl:open_jsonl",
    "requests": "llmbatch.sources.requests:open_requests",
    "csv": "llmbatch.sources.csv:open_csv",
    "parquet": "llmbatch.sources.parquet:open_parquet",
    "dataset": "llmbatch.sources.dataset:open_dataset",
    "drawn": "llmbatch.sources.drawn:open_drawn",
    "documents": "llmbatch.sources.documents.source:open_documents",
}
