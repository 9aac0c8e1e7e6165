from __future__ import annotations

from uuid import NAMESPACE_OID, uuid5

from llmbatch.core.digest import uuid_of


def test_a_uuid_of_a_name_is_the_one_that_pythons_library_makes() -> None:
    names = [
        "",
        "batch/0",
        "café/17",
        *map(str, range(64)),
    ]  # enough for every variant and version digit to be overwritten
    assert [uuid_of(name) for name in names] == [str(uuid5(NAMESPACE_OID, name)) for name in names]
