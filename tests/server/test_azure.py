"""Azure's client against the front: what is otherwise there than at OpenAI."""

from __future__ import annotations


def test_azures_client_has_a_batch_of_its_own_spelling(site, examples, begin, ended, lines) -> None:
    client = site.azure()
    batch = ended(client, begin(client, (examples / "chat.azure.jsonl").read_bytes(), "/chat/completions"))
    assert batch.status == "completed"
    assert batch.endpoint == "/chat/completions"
    assert lines.ids(lines.of(client, batch.output_file_id)) == ["request-0", "request-1", "request-2"]


def test_there_is_always_a_file_of_errors(site, examples, begin, ended, lines) -> None:
    client = site.azure()
    batch = ended(client, begin(client, lines.many(2)))
    assert lines.of(client, batch.error_file_id) == []
    assert client.files.retrieve(batch.error_file_id).bytes == 0


def test_each_api_lists_its_own_batches(site, begin, ended, lines) -> None:
    ours, azures = site.openai(), site.azure()
    first, second = begin(ours, lines.many(1)), begin(azures, lines.many(1))
    assert [batch.id for batch in ours.batches.list()] == [first]
    assert [batch.id for batch in azures.batches.list()] == [second]


def test_the_key_comes_in_azures_own_header(sites, begin, ended, lines) -> None:
    site = sites.start(keys="alice alice-has-a-long-key\n")
    assert (
        ended(site.azure("alice-has-a-long-key"), begin(site.azure("alice-has-a-long-key"), lines.many(1))).status
        == "completed"
    )
    status, _, _ = site.ask("GET", "/openai/batches?api-version=1", headers={"api-key": "another"})
    assert status == 401
