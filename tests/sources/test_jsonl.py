from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import math
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmbatch.core.errors import ReadError
from llmbatch.core.types import Cursor, FailureKind, Row
from llmbatch.sources.base import Source, SourceSettings
from llmbatch.sources.lines import MAX_LINE
from llmbatch.sources.opening import open_source

Write = Callable[..., Path]
Open = Callable[..., Source]

PACK: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def message_of(row: Row) -> str:
    assert row.failure is not None
    assert row.failure.kind is FailureKind.MALFORMED_ROW
    assert row.data == {}
    assert row.id == row.index
    return row.failure.message


# what a row is


def test_every_line_that_is_not_blank_is_a_row_in_order(write: Write, source: Open) -> None:
    rows = list(source(write("a.jsonl", '{"a":1}\n\n \t\r\n{"a":2}\r\n{"a":3}')).rows())
    assert [row.data for row in rows] == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert [row.index for row in rows] == [0, 1, 2]
    assert [row.cursor for row in rows] == [Cursor(0, 0, 0, 0), Cursor(1, 0, 13, 3), Cursor(2, 0, 22, 4)]


def test_a_byte_order_mark_is_skipped(write: Write, source: Open) -> None:
    path = write("a.jsonl", b'\xef\xbb\xbf{"a":1}\n{"a":2}\n')
    rows = list(source(path).rows())
    assert [row.data for row in rows] == [{"a": 1}, {"a": 2}]
    assert [row.cursor.offset for row in rows] == [0, 11]
    assert list(source(path).rows(rows[0].cursor)) == rows


def test_a_file_with_nothing_but_a_byte_order_mark_before_its_blank_lines_has_no_row_there(
    write: Write, source: Open
) -> None:
    assert [row.data for row in source(write("a.jsonl", b'\xef\xbb\xbf\n{"a":1}\n')).rows()] == [{"a": 1}]


def test_the_last_of_equal_keys_wins(write: Write, source: Open) -> None:
    assert next(source(write("a.jsonl", '{"a":1,"a":2}')).rows()).data == {"a": 2}


def test_whole_numbers_beyond_64_bits_are_exact(write: Write, source: Open) -> None:
    number = 10**400 + 1
    assert next(source(write("a.jsonl", f'{{"id":{number}}}')).rows()).id == number


def test_text_that_looks_like_a_template_or_a_path_stays_text(write: Write, source: Open) -> None:
    data = {"id": "../../etc/passwd", "text": "{{ config }} {% for x in y %}"}
    row = next(source(write("a.jsonl", json.dumps(data))).rows())
    assert (row.id, row.data) == (data["id"], data)


# ids


def test_the_id_is_the_field_id_where_it_is_text_or_a_whole_number(write: Write, source: Open) -> None:
    lines = ['{"id":"x"}', '{"id":7}', '{"id":true}', '{"id":1.5}', '{"id":null}', '{"id":[1]}', '{"a":1}', '{"id":""}']
    rows = list(source(write("a.jsonl", "\n".join(lines))).rows())
    assert [row.id for row in rows] == ["x", 7, 2, 3, 4, 5, 6, ""]
    assert all(row.failure is None for row in rows)


def test_the_id_field_that_was_asked_for_names_the_row(write: Write, source: Open) -> None:
    rows = list(source(write("a.jsonl", '{"key":"x","id":1}'), id_field="key").rows())
    assert [row.id for row in rows] == ["x"]


@pytest.mark.parametrize("line", ['{"a":1}', '{"key":null,"a":1}', '{"key":1.5}'])
def test_a_row_without_the_id_that_was_asked_for_is_malformed(write: Write, source: Open, line: str) -> None:
    row = list(source(write("a.jsonl", '{"key":1}\n' + line), id_field="key").rows())[1]
    assert "a.jsonl:2: no usable id in the field 'key'" in message_of(row)


def test_equal_ids_lose_no_row(write: Write, source: Open) -> None:
    rows = list(source(write("a.jsonl", '{"id":"x","a":1}\n{"id":"x","a":2}')).rows())
    assert [(row.index, row.id, row.data["a"]) for row in rows] == [(0, "x", 1), (1, "x", 2)]


# malformed rows

HOSTILE: dict[str, tuple[bytes, str]] = {
    "not JSON": (b"{a: 1}", "not JSON: Expecting property name"),
    "more behind": (b'{"a":1} {"b":2}', "not JSON: Extra data at column 9"),
    "list": (b"[1]", "a JSON list"),
    "string": (b'"x"', "a JSON string"),
    "number": (b"17", "a JSON number"),
    "boolean": (b"true", "a JSON boolean"),
    "null": (b"null", "a JSON null"),
    "not UTF-8": (b'{"a":"\xff"}', "not UTF-8: 0xff is byte 7"),
    "surrogates as bytes": (b'{"a":"\xed\xa0\x80"}', "not UTF-8"),
    "lone surrogate": (rb'{"a":"\ud83d"}', "half of a surrogate pair"),
    "lone surrogate in a key": (rb'{"\uDC00":1}', "half of a surrogate pair"),
    "NUL": (b'{"a":"\0"}', "not JSON: Invalid control character"),
    "NUL alone": (b"\0", "not JSON"),
    "NaN": (b'{"a":NaN}', "NaN is not in the JSON standard"),
    "infinity": (b'{"a":-Infinity}', "-Infinity is not in the JSON standard"),
    "float overflow": (b'{"a":1e999}', "1e999 is too great"),
    "digits": (b'{"a":' + b"9" * 5000 + b"}", "4,300 digits"),
    "nested beyond Python": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested more than 200 deep"),
    "nested": (b'{"a":' + b"[" * 300 + b"]" * 300 + b"}", "nested more than 200 deep"),
    "terminal codes": (b"\x1b[31mred", r"\x1b[31mred"),
}


@pytest.mark.parametrize(("line", "said"), HOSTILE.values(), ids=HOSTILE)
def test_a_malformed_line_is_a_row_that_says_why_and_its_neighbours_live(
    write: Write, source: Open, line: bytes, said: str
) -> None:
    path = write("a.jsonl", b'{"n":1}\n' + line + b'\n{"n":3}\n')
    rows = list(source(path).rows())
    assert [row.data for row in rows] == [{"n": 1}, {}, {"n": 3}]
    message = message_of(rows[1])
    assert message.startswith(f"{path.name}:2: ")
    assert said in message
    assert len(message.partition("; saw: ")[2]) <= 80
    assert message.isprintable()


def test_a_whole_surrogate_pair_is_a_character(write: Write, source: Open) -> None:
    assert next(source(write("a.jsonl", rb'{"a":"\ud83d\ude00"}')).rows()).data == {"a": "😀"}


def test_brackets_in_text_are_not_nesting(write: Write, source: Open) -> None:
    data = {"a": "[{" * 10_000}
    assert next(source(write("a.jsonl", json.dumps(data))).rows()).data == data


def test_a_last_line_that_was_cut_off_says_so(write: Write, source: Open) -> None:
    rows = list(source(write("a.jsonl", '{"a":1}\n{"a":"hal')).rows())
    assert "may have been cut off" in message_of(rows[1])


def test_a_line_of_50_megabytes_is_a_row(write: Write, source: Open) -> None:
    rows = list(source(write("a.jsonl", b'{"a":"' + b"x" * 50_000_000 + b'"}\n{"b":1}\n')).rows())
    assert len(rows[0].data["a"]) == 50_000_000
    assert rows[1].data == {"b": 1}


def test_a_line_beyond_the_limit_is_malformed_and_the_next_lives(write: Write, source: Open) -> None:
    path = write("a.jsonl", b"{" + b" " * (2 * MAX_LINE + 5) + b'}\n{"b":1}\n')
    rows = list(source(path).rows())
    assert "longer than 64 MiB" in message_of(rows[0])
    assert rows[1].data == {"b": 1}
    assert list(source(path).rows(rows[1].cursor)) == [rows[1]]


def test_rows_can_be_written_back_as_strict_json(write: Write, source: Open) -> None:
    odd = [
        b'{"a":1}', rb'{"id":"\ud83d\ude00","\u0000":"\u001b"}', b'{"a":' + b"9" * 4300 + b"}", b'{"a":1.5e308,"b":-0.0}',
        b'{"a":' + b"[" * 199 + b"]" * 199 + b"}",
    ]  # fmt: skip
    hostile = [line for line, _ in HOSTILE.values()]
    rows = list(source(write("a.jsonl", b"\n".join(odd + hostile))).rows())
    assert [row.failure is None for row in rows] == [True] * len(odd) + [False] * len(hostile)
    for row in rows:
        content = {"id": row.id, "data": row.data}
        assert json.loads(json.dumps(content, allow_nan=False, ensure_ascii=False).encode()) == content


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(lines=st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"")), min_size=1, max_size=8))
def test_any_bytes_give_one_row_a_line(tmp_path: Path, lines: list[bytes]) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"{}\n" + b"\n".join(lines))
    expected = sum(1 for line in lines if line.strip())
    assert len(list(open_source(SourceSettings(path=str(path))).rows())) == 1 + expected


def test_mutated_lines_give_one_row_each(tmp_path: Path) -> None:
    chance = random.Random(0)
    line = json.dumps({"id": "a", "text": "naïve “quotes” \\u00e9", "n": [1, 2.5e3, None], "d": {"x": "😀"}}).encode()
    mutated = []
    for _ in range(5000):
        bytes_ = bytearray(line)
        for _ in range(chance.randint(1, 4)):
            bytes_[chance.randrange(len(bytes_))] = chance.choice([0, 34, 92, 123, 125, 91, 93, 44, 255, 194, 48, 101])
        mutated.append(bytes(bytes_))
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(mutated))
    rows = list(open_source(SourceSettings(path=str(path))).rows())
    assert [row.index for row in rows] == list(range(len(mutated)))
    for row in rows:
        json.dumps(row.data, allow_nan=False, ensure_ascii=False).encode()


# several files, compression


def test_files_of_a_glob_are_one_input_in_the_order_of_their_names(write: Write, source: Open, tmp_path: Path) -> None:
    write("d/b.jsonl", '{"n":3}')
    write("d/a.jsonl", '{"n":1}\n{"n":2}\n')
    write("d/c.jsonl", "")
    rows = list(source(tmp_path / "d" / "*.jsonl").rows())
    assert [(row.index, row.data["n"], row.cursor.file) for row in rows] == [(0, 1, 0), (1, 2, 0), (2, 3, 1)]


@pytest.mark.parametrize("suffix", PACK)
def test_a_compressed_file_gives_the_rows_and_cursors_of_the_plain_one(write: Write, source: Open, suffix: str) -> None:
    content = b"".join(b'{"n":%d}\n' % n for n in range(5000))
    plain = list(source(write("a.jsonl", content)).rows())
    packed = source(write(f"p.jsonl{suffix}", PACK[suffix](content)))
    rows = list(packed.rows())
    assert [(row.data, row.cursor) for row in rows] == [(row.data, row.cursor) for row in plain]
    assert list(packed.rows(rows[4321].cursor)) == rows[4321:]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_files_that_were_compressed_and_appended_are_read_to_their_end(write: Write, source: Open, suffix: str) -> None:
    pack = PACK[suffix]
    path = write("a.jsonl" + suffix, pack(b'{"n":1}\n') + pack(b'{"n":2}\n'))
    assert [row.data["n"] for row in source(path).rows()] == [1, 2]


def test_compression_is_seen_without_its_suffix(write: Write, source: Open) -> None:
    assert [row.data for row in source(write("a.jsonl", gzip.compress(b'{"n":1}\n'))).rows()] == [{"n": 1}]


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2"])
def test_a_file_that_was_cut_off_gives_its_rows_and_then_a_read_error(write: Write, source: Open, suffix: str) -> None:
    chance = random.Random(0)
    content = b"".join(b'{"n":%d,"x":"%x"}\n' % (n, chance.getrandbits(256)) for n in range(30_000))
    packed = PACK[suffix](content)
    path = write("a.jsonl" + suffix, packed[: len(packed) * 3 // 4])
    rows: list[Row] = []
    with pytest.raises(ReadError, match=r"a\.jsonl.*cannot be read beyond byte \d+"):
        rows.extend(source(path).rows())
    assert [row.data["n"] for row in rows] == list(range(len(rows)))
    assert len(rows) > 1000


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [(".gz", gzip.compress), (".zst", zstandard.ZstdCompressor(write_checksum=True).compress)],  # as the zstd command
    ids=["gz", "zst"],
)
def test_damage_in_the_middle_is_a_read_error(
    write: Write, source: Open, suffix: str, pack: Callable[[bytes], bytes]
) -> None:
    chance = random.Random(0)
    packed = bytearray(pack(b"".join(b'{"x":"%x"}\n' % chance.getrandbits(256) for _ in range(10_000))))
    packed[len(packed) // 2 : len(packed) // 2 + 1000] = bytes(1000)
    with pytest.raises(ReadError):
        list(source(write("a.jsonl" + suffix, bytes(packed))).rows())


# cursors, digests, progress


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_reading_goes_on_at_any_row_as_if_it_had_not_stopped(tmp_path: Path, data: st.DataObject) -> None:
    line = st.sampled_from([b'{"a":1}', b'{"id":"x","t":"\xc3\xa9"}', b"", b"  ", b"oops", b"\xff", b"[]", b"\0"])
    end = st.sampled_from([b"\n", b"\r\n"])
    suffix = data.draw(st.sampled_from(list(PACK)))
    folder = tmp_path / "in"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for number, lines in enumerate(data.draw(st.lists(st.lists(line, max_size=6), min_size=1, max_size=3))):
        content = b"".join(text + data.draw(end) for text in lines)
        (folder / f"{number}.jsonl{suffix}").write_bytes(PACK[suffix](b'\xef\xbb\xbf{"first":0}\n' + content))
    source = open_source(SourceSettings(path=str(folder / "*")))
    rows = list(source.rows())
    k = data.draw(st.integers(0, len(rows) - 1))
    assert list(source.rows(rows[k].cursor)) == rows[k:]
    assert [row.index for row in rows] == list(range(len(rows)))


def test_a_limit_counts_malformed_rows_and_holds_from_any_row_on(write: Write, source: Open) -> None:
    limited = source(write("a.jsonl", '{"n":0}\noops\n{"n":2}\n{"n":3}\n'), limit=3)
    rows = list(limited.rows())
    assert [row.index for row in rows] == [0, 1, 2]
    assert list(limited.rows(rows[2].cursor)) == rows[2:]
    assert limited.progress(rows[1].cursor) == pytest.approx(1 / 3)


def test_a_digest_is_of_the_bytes_between_two_rows(write: Write, source: Open) -> None:
    lines = [b'{"n":%d}\n' % n for n in range(10)]
    read = source(write("a.jsonl", b"".join(lines)))
    rows = list(read.rows())
    assert read.digest(rows[2].cursor, rows[5].cursor) == hashlib.sha256(b"".join(lines[2:5])).hexdigest()
    assert read.digest(rows[8].cursor, None) == hashlib.sha256(b"".join(lines[8:])).hexdigest()


def test_a_digest_goes_over_the_ends_of_files(write: Write, source: Open, tmp_path: Path) -> None:
    write("d/a.jsonl", b'{"n":0}\n{"n":1}\n')
    write("d/b.jsonl", b'{"n":2}\n{"n":3}\n')
    read = source(tmp_path / "d" / "*.jsonl")
    rows = list(read.rows())
    assert read.digest(rows[1].cursor, rows[3].cursor) == hashlib.sha256(b'{"n":1}\n{"n":2}\n').hexdigest()


def test_appending_leaves_the_digest_of_what_was_there_and_changes_the_fingerprint(write: Write, source: Open) -> None:
    path = write("a.jsonl", b'{"n":0}\n{"n":1}\n')
    read = source(path)
    stop = Cursor(2, 0, 16, 2)
    before, print_before = read.digest(Cursor(0), stop), read.fingerprint()
    path.write_bytes(b'{"n":0}\n{"n":1}\n{"n":2}\n')
    assert source(path).digest(Cursor(0), stop) == before
    assert source(path).fingerprint() != print_before


def test_a_change_inside_of_the_same_length_shows_in_the_fingerprint_without_the_time(
    write: Write, source: Open
) -> None:
    [before] = source(write("a.jsonl", b'{"n":0}\n')).fingerprint()
    [after] = source(write("a.jsonl", b'{"n":1}\n')).fingerprint()
    assert before["size"] == after["size"]
    assert before["ends"] != after["ends"]
    json.dumps(before)


def test_a_file_that_is_shorter_than_what_was_read_of_it_is_a_read_error(write: Write, source: Open) -> None:
    read = source(write("a.jsonl", b'{"n":0}\n{"n":1}\n'))
    cursor = list(read.rows())[1].cursor
    write("a.jsonl", b"{}\n")
    with pytest.raises(ReadError, match="it was cut off"):
        list(read.rows(cursor))


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_progress_is_about_the_share_of_the_content_that_was_read(
    write: Write, source: Open, tmp_path: Path, suffix: str
) -> None:
    chance = random.Random(0)
    content = b"".join(b'{"x":"%x"}\n' % chance.getrandbits(512) for n in range(15_000))
    write("d/a.jsonl" + suffix, PACK[suffix](content))
    write("d/b.jsonl" + suffix, PACK[suffix](content))
    read = source(tmp_path / "d" / "*")
    shares = []
    for row in read.rows():
        if row.index % 3000 == 0:
            share = read.progress(row.cursor)
            assert share is not None
            shares.append(share)
    assert shares[0] == 0
    for n, share in enumerate(shares):
        assert math.isclose(share, n / 10, abs_tol=0.1 if suffix else 0.001)


def test_an_unreadable_file_is_a_read_error(write: Write, source: Open) -> None:
    path = write("a.jsonl", "{}\n")
    read = source(path)
    path.unlink()
    with pytest.raises(ReadError, match="No such file"):
        list(read.rows())


# stdin


def test_stdin_is_read_forward_once(source: Open) -> None:
    stdin, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(b'{"id":"x"}\noops\n{"id":"y"}\n'))
    try:
        read = source("-")
        rows = list(read.rows())
        assert [row.id for row in rows] == ["x", 1, "y"]
        assert message_of(rows[1]).startswith("stdin:2: not JSON")
        assert read.progress(rows[1].cursor) is None
        assert read.digest(Cursor(0), None) is None
        with pytest.raises(ReadError, match="stdin can only be read once"):
            list(read.rows(rows[1].cursor))
    finally:
        sys.stdin = stdin
