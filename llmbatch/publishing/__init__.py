"""Publishing: finished runs in, a dataset with its card out. A new layout of rows is a file here and a line in this table."""

LAYOUTS = {
    "chat": "llmbatch.publishing.chat:LAYOUT",
    "completion": "llmbatch.publishing.completion:LAYOUT",
    "preference": "llmbatch.publishing.preference:LAYOUT",
    "raw": "llmbatch.publishing.raw:LAYOUT",
}
