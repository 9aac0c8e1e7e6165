from __future__ import annotations

import gzip
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import ReadError, SourceError
from llmbatch.core.types import Cursor, Row
from llmbatch.sources.base import Source, SourceSettings
from llmbatch.sources.opening import guess_format, open_source

Write = Callable[..., Path]
Open = Callable[..., Source]
Pdf = Callable[..., bytes]

PAGE = """<!doctype html><html><head><title>Votes  of
Monday</title></head><body><nav><ul><li><a href="/">Home</a></li></ul></nav>
<h1>Report</h1><p>The council met and voted.</p><h2>Votes</h2><ul><li>Roads: yes</li><li>Schools: no</li></ul>
<footer>All rights reserved</footer></body></html>"""


def read(source: Source) -> list[Row]:
    return list(source.rows())


def only(source: Source) -> Row:
    (row,) = source.rows()
    return row


def failure(row: Row) -> str:
    assert row.failure is not None
    assert row.data == {}
    return row.failure.message


def test_a_folder_is_a_row_a_document_with_its_path_as_id(write: Write, source: Open, tmp_path: Path, pdf: Pdf) -> None:
    write("docs/b/two.md", "# Two\n\ntext of two\n")
    write("docs/b-c/three.html", PAGE)
    write("docs/one.txt", "text of one")
    write("docs/z.pdf", pdf("first page", "second page", title="Last"))
    rows = read(source(tmp_path / "docs"))
    assert [(row.id, row.data) for row in rows] == [
        ("b/two.md", {"text": "# Two\n\ntext of two\n", "title": "Two", "path": "b/two.md", "name": "two.md",
                      "media_type": "text/markdown"}),
        ("b-c/three.html", {"text": "# Report\n\nThe council met and voted.\n\n## Votes\n\n- Roads: yes\n- Schools: no",
                            "title": "Votes of Monday", "path": "b-c/three.html", "name": "three.html",
                            "media_type": "text/html"}),
        ("one.txt", {"text": "text of one", "path": "one.txt", "name": "one.txt", "media_type": "text/plain"}),
        ("z.pdf", {"text": "first page\n\nsecond page", "title": "Last", "path": "z.pdf", "name": "z.pdf",
                   "media_type": "application/pdf"}),
    ]  # fmt: skip
    assert [row.cursor for row in rows] == [Cursor(number, number) for number in range(4)]


def test_hidden_files_and_those_of_other_kinds_are_passed_over_and_counted(
    write: Write, source: Open, tmp_path: Path
) -> None:
    for name in ("a.txt", "b.png", "c.png", "d", ".hidden.txt", ".git/e.txt", ".git/f.txt"):
        write(name, "x")
    found = source(tmp_path)
    assert [row.id for row in found.rows()] == ["a.txt"]
    assert found.notes() == [
        f"{tmp_path}: files passed over: 3 of other kinds (.png 2, without a suffix 1), 2 hidden; documents are "
        ".txt .text .md .markdown .html .htm .xhtml .pdf"
    ]


def test_what_is_named_is_read_as_text_whatever_its_suffix(write: Write, source: Open, tmp_path: Path) -> None:
    write("src/b/code.py", "x = 1")
    write("src/README", "read me")
    assert only(source(tmp_path / "src" / "README", format="documents")).data["text"] == "read me"
    rows = read(source(tmp_path / "src" / "**" / "*.py", format="documents"))
    assert [(row.id, row.data["text"]) for row in rows] == [("b/code.py", "x = 1")]


@pytest.mark.parametrize(
    ("files", "path", "format_"),
    [
        (["a.txt", "sub/b.pdf", "c.png"], "", "documents"),
        (["a.txt", "b.md", "c.html", "d.htm.gz"], "*.*", "documents"),
        (["a.pdf"], "a.pdf", "documents"),
        (["README.md", "data/train.parquet"], "", "dataset"),
        (["a.txt", "dataset_info.json"], "", "dataset"),
        (["a.txt", "state.json"], "", "dataset"),
        (["notes.txt", "rows.csv"], "", "dataset"),
        (["a.png"], "", "dataset"),
    ],
)
def test_what_a_folder_or_pattern_holds_tells_documents_from_datasets(
    write: Write, tmp_path: Path, files: Sequence[str], path: str, format_: str
) -> None:
    for name in files:
        write(name, "x")
    assert guess_format(str(tmp_path / path)) == format_


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the document is empty"),
        (b" \n\t\n", "the document is empty"),
        (b"\xef\xbb\xbf", "the document is empty"),
        (b"caf\xe9 noir", "not UTF-8: 0xe9 is byte 4; convert it"),
        (b"\xef\xbb\xbfcaf\xe9", "not UTF-8: 0xe9 is byte 7"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "it begins as a PNG image does"),
        (b"PK\x03\x04\x14\0\x06\0", "it begins as a ZIP archive"),
        (b"some\0thing", "binary, and not text: character 5 is a NUL"),
        ("text".encode("utf-16"), "begins with the mark of UTF-16"),
    ],
)
def test_a_text_that_is_none_fails_alone_and_says_what_was_seen(
    write: Write, source: Open, tmp_path: Path, content: bytes, said: str
) -> None:
    write("docs/a.txt", "before")
    path = write("docs/b.txt", content)
    write("docs/c.txt", "behind")
    before, row, behind = read(source(tmp_path / "docs"))
    assert (before.failure, behind.failure) == (None, None)
    assert (row.index, row.id) == (1, "b.txt")
    assert failure(row).startswith(f"{path.name}: ")
    assert said in failure(row)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.html", b"<html><body><script>x()</script></body></html>", "the document is empty: there is no text"),
        ("no.html", b"%PDF-1.4\n%\xe2\xe3", "it begins as a PDF does"),
        ("liar.html", b'<meta charset="shift_jis"><p>\x80\xff', "it says that it is shift_jis, and is not"),
        ("no.pdf", b"hello", "no PDF, or damaged"),
        ("cut.txt.gz", gzip.compress(b"text" * 100, mtime=0)[:-9], "it cannot be decompressed"),
        ("no.txt.gz", b"text", "it cannot be decompressed"),
        ("no.txt.zst", b"text", "it cannot be decompressed"),
    ],
)
def test_a_document_that_is_damaged_fails_alone(
    write: Write, source: Open, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    write(f"docs/{name}", content)
    write("docs/z.txt", "behind")
    row, behind = read(source(tmp_path / "docs"))
    assert said in failure(row)
    assert behind.data["text"] == "behind"


def test_a_pdf_without_a_text_layer_and_an_encrypted_one_say_so(write: Write, source: Open, pdf: Pdf) -> None:
    scan = only(source(write("scan.pdf", pdf("", ""))))
    assert "there is no text layer: no text on its 2 pages; if it is a scan, recognize its text first" in failure(scan)
    assert "encrypted: it needs a password" in failure(only(source(write("secret.pdf", pdf("x", encrypted=True)))))


def test_a_word_that_a_pdf_divides_at_the_end_of_a_line_is_whole_again(write: Write, source: Open, pdf: Pdf) -> None:
    assert (
        only(source(write("a.pdf", pdf("an exam-\nple of it\nin lines")))).data["text"] == "an example of it\nin lines"
    )


@pytest.mark.parametrize("name", ["long.txt", "long.html"])
def test_a_document_of_one_line_of_ten_megabytes_is_read(write: Write, source: Open, tmp_path: Path, name: str) -> None:
    text = ("word " * 2_100_000).rstrip()
    write(name, text if name == "long.txt" else f"<html><body><p>{text}</p></body></html>")
    assert only(source(tmp_path / name, format="documents")).data["text"] == text


def test_a_document_that_is_too_long_fails_without_being_read_whole(write: Write, source: Open) -> None:
    path = write("bomb.txt.gz", gzip.compress(b"\n" * (65 << 20), compresslevel=1))
    assert "longer than 64 MiB" in failure(only(source(path, format="documents")))


@pytest.mark.parametrize(
    ("head", "text"),
    [
        (b"\xef\xbb\xbf", "naïve ☃".encode()),
        (b'<meta charset="utf-8">', "naïve ☃".encode()),
        (b'<meta http-equiv="Content-Type" content="text/html; charset=windows-1251">', "наивный".encode("cp1251")),
        (b'<meta charset="iso-8859-1">', b"\x93na\xefve\x94"),
        (b"\xff\xfe", "naïve ☃".encode("utf-16-le")),
    ],
)
def test_a_page_is_decoded_as_it_says_itself(write: Write, source: Open, head: bytes, text: bytes) -> None:
    said = {b"\xff\xfe": "utf-16-le", b'<meta charset="iso-8859-1">': "cp1252"}
    encoding = "cp1251" if b"1251" in head else said.get(head, "utf-8")
    path = write("a.html", head + "<p>".encode(encoding if head == b"\xff\xfe" else "ascii") + text)
    assert only(source(path)).data["text"] == text.decode(encoding)


@pytest.mark.parametrize("page", ["one\x03 two", "<p>one\x03 two</p>", "<h1>one\x03</h1> two", "one&#3; two"])
def test_a_page_with_control_characters_is_read(write: Write, source: Open, page: str) -> None:
    text = only(source(write("a.html", page))).data["text"]
    assert "one" in text
    assert "two" in text


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# A title #\n\ntext", "A title"),
        ("\n\n# A title", "A title"),
        ("---\ntags: x\n---\n# A title\r\n", "A title"),
        ("text\n\n# Not a title", None),
        ("## Not a title", None),
        ("#hashtag", None),
    ],
)
def test_the_title_of_markdown_is_the_heading_that_it_begins_with(
    write: Write, source: Open, text: str, title: str | None
) -> None:
    row = only(source(write("a.md", text), format="documents"))
    assert row.data.get("title") == title
    assert row.data["text"] == text


def test_another_field_can_be_the_id_of_documents_that_can_be_read_and_of_those_that_cannot(
    write: Write, source: Open, tmp_path: Path
) -> None:
    write("docs/a/x.txt", "text")
    write("docs/b/y.txt", "")
    assert [row.id for row in source(tmp_path / "docs", id_field="name").rows()] == ["x.txt", "y.txt"]


def test_names_that_are_no_text_and_links_in_a_circle_do_no_harm(tmp_path: Path, source: Open, write: Write) -> None:
    write("docs/sub/a.txt", "text")
    (tmp_path / "docs" / "sub" / "up").symlink_to(tmp_path / "docs")
    (tmp_path / "docs" / "linked").symlink_to(tmp_path / "docs" / "sub")
    (tmp_path / "docs" / os.fsdecode(b"\xff.txt")).write_text("odd")
    os.mkfifo(tmp_path / "docs" / "pipe.txt")
    found = source(tmp_path / "docs")
    assert [row.id for row in found.rows()] == ["linked/a.txt", "sub/a.txt", "\\xff.txt"]
    assert found.fingerprint()[-1]["file"].endswith("\\xff.txt")


def test_reading_goes_on_at_a_cursor_and_places_come_without_reading(
    write: Write, source: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abcd":
        write(f"docs/{name}.txt", name if name != "b" else "")
    found = source(tmp_path / "docs")
    rows = read(found)
    assert list(found.rows(rows[2].cursor)) == rows[2:]
    assert found.progress(rows[2].cursor) == pytest.approx(1 / 3)
    for name in "abcd":
        (tmp_path / "docs" / f"{name}.txt").unlink()
    assert [(row.index, row.id, row.cursor) for row in found.places(rows[1].cursor)] == [
        (row.index, row.id, row.cursor) for row in rows[1:]
    ]


def test_a_document_that_is_gone_ends_the_reading_and_is_no_record(write: Write, source: Open, tmp_path: Path) -> None:
    write("docs/a.txt", "text")
    path = write("docs/b.txt", "text")
    rows = source(tmp_path / "docs").rows()
    path.unlink()
    assert next(rows).failure is None
    with pytest.raises(ReadError, match=r"b\.txt: cannot be read beyond byte 0: No such file"):
        next(rows)


def test_a_digest_changes_with_a_name_or_a_byte_and_with_nothing_else(
    write: Write, source: Open, tmp_path: Path
) -> None:
    def digest() -> str | None:
        return source(tmp_path / "docs").digest(Cursor(0), Cursor(2, 2))

    write("docs/a.txt", "one")
    path = write("docs/b.txt", "two")
    write("docs/c.txt", "three")
    first = digest()
    os.utime(path, (1, 1))
    write("docs/c.txt", "another")
    assert digest() == first
    path.rename(tmp_path / "docs" / "bb.txt")
    assert digest() != first
    (tmp_path / "docs" / "bb.txt").rename(path)
    write("docs/b.txt", "twx")
    assert digest() != first


def test_the_fingerprint_names_the_packages_that_pages_and_pdfs_are_read_with(
    write: Write, source: Open, tmp_path: Path, pdf: Pdf
) -> None:
    write("docs/a.txt", "one")
    write("docs/b.html", PAGE)
    write("docs/c.pdf", pdf("x"))
    found = source(tmp_path / "docs")
    assert found.fingerprint()[0]["read_with"].keys() == {"text/html", "application/pdf"}
    assert found.fingerprint(2)[0]["read_with"].keys() == {"text/html"}
    assert "read_with" not in found.fingerprint(1)[0]


@pytest.mark.parametrize(
    ("path", "settings", "said"),
    [
        ("pictures", {"format": "documents"}, "there is no document in it; "),
        ("none", {"format": "documents"}, "there is no document in it"),
        ("-", {"format": "documents"}, "documents cannot be read from stdin"),
        ("missing", {"format": "documents"}, "missing: no such file"),
        ("docs", {"columns": ("a",)}, "input.columns is for"),
        ("docs", {"storage_options": {"anon": True}}, "input.storage_options is for URLs"),
    ],
)
def test_documents_that_are_not_there_are_refused(
    write: Write, source: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, settings: Any, said: str
) -> None:
    write("docs/a.txt", "x")
    write("pictures/a.png", "x")
    (tmp_path / "none").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError) as caught:
        source(path, **settings)
    assert said in str(caught.value)


def test_a_library_that_is_missing_is_said_before_anything_is_read(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("docs/a.txt", "x")
    write("docs/b.html", PAGE)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "trafilatura" else found(name))
    with pytest.raises(SourceError, match=r"b\.html: reading text/html needs trafilatura: pip install 'llmbatch\[doc"):
        open_source(SourceSettings(path=str(tmp_path / "docs")))


def test_a_page_at_which_the_library_fails_is_a_record(
    write: Write, source: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RecursionError("too deep")

    monkeypatch.setattr("trafilatura.extract", fails)
    write("docs/a.html", PAGE)
    write("docs/b.txt", "behind")
    row, behind = read(source(tmp_path / "docs"))
    assert "cannot be told apart from what is around it: RecursionError: too deep" in failure(row)
    assert behind.failure is None


def test_texts_are_read_without_the_libraries_of_other_kinds(write: Write, tmp_path: Path) -> None:
    write("docs/a.txt", "x")
    code = (
        "import sys; from llmbatch.sources.base import *; from llmbatch.sources.opening import *\n"
        f"list(open_source(SourceSettings(path={str(tmp_path / 'docs')!r})).rows())\n"
        "print(sorted({'trafilatura', 'lxml', 'pypdfium2', 'fsspec', 'datasets', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
