"""Documents: a whole file in, its text out. A new kind is a file here and a line in each of these tables."""

DOCUMENTS = {
    ".txt": "text/plain",
    ".text": "text/plain",
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".html": "text/html",
    ".htm": "text/html",
    ".xhtml": "text/html",
    ".pdf": "application/pdf",
}
"""Media types by suffix. Of a folder only files with one of these suffixes are read."""

READERS = {
    "text/plain": "llmbatch.sources.documents.text:read_text",
    "text/markdown": "llmbatch.sources.documents.text:read_markdown",
    "text/html": "llmbatch.sources.documents.html:read_html",
    "application/pdf": "llmbatch.sources.documents.pdf:read_pdf",
}

LIBRARIES = {"text/html": "trafilatura", "application/pdf": "pypdfium2"}
"""The package that a kind is read with, which what is read depends on."""
