"""The bytes of a PDF in, the text of its text layer, page after page, and its title out."""

from __future__ import annotations

import re
import threading

from llmbatch.sources.documents.base import MAX_TEXT, Document, Unreadable, too_long

_LOCK = threading.Lock()  # the library is not made for several threads
_NOT_TEXT = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]"
)  # \x02 and \ufffe stand for hyphens at the end of a line


def read_pdf(content: bytes) -> Document:
    import pypdfium2
    import pypdfium2.raw

    with _LOCK:
        try:
            pdf = pypdfium2.PdfDocument(content)
        except pypdfium2.PdfiumError as error:
            if error.err_code == pypdfium2.raw.FPDF_ERR_PASSWORD:
                raise Unreadable("encrypted: it needs a password; save it without one") from None
            raise Unreadable(f"no PDF, or damaged: {error}") from None
        try:
            texts, length = [], 0
            for page in pdf:
                layer = page.get_textpage()
                texts.append(_NOT_TEXT.sub("", layer.get_text_bounded().replace("\r\n", "\n")).strip())
                layer.close()
                page.close()
                if (length := length + len(texts[-1])) > MAX_TEXT:
                    raise too_long(MAX_TEXT)
            title = " ".join(_NOT_TEXT.sub("", pdf.get_metadata_value("Title")).split())
        except pypdfium2.PdfiumError as error:
            raise Unreadable(f"page {len(texts) + 1} is damaged: {error}") from None
        finally:
            pdf.close()
    text = "\n\n".join(filter(None, texts))
    if not text:
        pages = "its page" if len(texts) == 1 else f"its {len(texts)} pages"
        raise Unreadable(f"there is no text layer: no text on {pages}; if it is a scan, recognize its text first (OCR)")
    return Document(text, title or None)
