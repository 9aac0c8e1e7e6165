"""The page in a real browser: a batch from the drop of its file to its answers, by mouse, by keyboard, and on a phone."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbatch.server import working

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
PATIENCE_MS = 60_000


@pytest.fixture
def visit(visit: Callable[..., Any]) -> Callable[..., Any]:
    """Opens the page of a site, which may make files of its own."""
    return lambda site, **options: visit(site.url, own=(site.url, "data:", "blob:"), **options)


def give(page: Any, content: bytes, name: str = "requests.jsonl") -> None:
    page.set_input_files("#file", {"name": name, "mimeType": "application/jsonl", "buffer": content})


def fact(page: Any, name: str) -> Any:
    """What is said of the open batch under a name."""
    return page.locator("#facts dl > div", has=page.get_by_text(name, exact=True)).locator("dd")


def number_of(text: str) -> int:
    return int(text.split()[0].replace(",", ""))


RULES = {
    "rules": [
        {"when": {"contains": "text 7"}, "fail": "the engine says no"},
        {"when": {"contains": "text 8"}, "answer": "eight <b>bold</b>"},
    ]
}


def test_a_batch_goes_from_its_file_to_its_answers(sites, visit, lines, ended, shot) -> None:
    site = sites.start(RULES)
    page = visit(site)
    give(page, lines.many(20))
    page.get_by_text("20 requests for /v1/chat/completions, all of them sound").wait_for()
    shot(page, "checked")
    page.get_by_role("button", name="Start the batch").click()
    page.get_by_role("heading", name="requests.jsonl — completed").wait_for()
    page.get_by_text("1 (engine 1)").wait_for()
    page.locator("#rows tr").nth(19).wait_for()
    shot(page, "completed")
    page.get_by_label("Search rows").fill("bold")
    page.get_by_text("eight <b>bold</b>").wait_for()
    sync_api.expect(page.locator("#rows tr")).to_have_count(1)
    assert page.locator("b").count() == 0
    page.get_by_label("Search rows").fill("")
    page.locator("#status").select_option("failed")
    page.get_by_text("engine: the engine says no").wait_for()
    page.get_by_role("button", name="Row row-7: prompt and attempts").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("text 7").wait_for()
    shot(page, "row")
    page.keyboard.press("Escape")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download answers").click()
    assert len(Path(download.value.path()).read_bytes().splitlines()) == 19
    page.get_by_role("button", name="Try 1 failed row again").click()
    page.locator("#batches li").nth(1).wait_for()
    client = site.openai()
    again, first = client.batches.list().data
    assert again.metadata["retry_of"] == first.id
    asked = lines.of(client, again.input_file_id)
    assert lines.ids(asked) == ["row-7"]  # what failed, and nothing else
    assert asked[0] == lines.of(client, first.input_file_id)[7]
    assert ended(client, again.id).request_counts.total == 1


def test_a_file_that_is_dropped_is_checked_and_started(site, visit, lines, ended) -> None:
    page = visit(site)
    dropped = page.evaluate_handle(
        "(text) => { const held = new DataTransfer(); held.items.add(new File([text], 'dropped.jsonl')); return held; }",
        lines.many(5).decode(),
    )
    # what lies under the pointer there is the field that a click would open
    page.dispatch_event("#file", "dragover", {"dataTransfer": dropped})
    assert page.locator("#drop").get_attribute("class") == "over"
    page.dispatch_event("#file", "drop", {"dataTransfer": dropped})
    page.get_by_text("dropped.jsonl: 5 requests for /v1/chat/completions, all of them sound").wait_for()
    assert page.locator("#drop").get_attribute("class") == ""
    page.get_by_role("button", name="Start the batch").click()
    page.get_by_role("heading", name="dropped.jsonl — completed").wait_for()
    client = site.openai()
    (batch,) = client.batches.list().data
    assert ended(client, batch.id).request_counts.completed == 5


def test_tokens_and_attempts_are_those_of_the_answers(sites, visit, lines, begin, ended, shot) -> None:
    rules = [{"when": {"contains": "text 1", "attempt": [1, 2]}, "answer": ""}]
    site = sites.start({"rules": rules}, job={"retry": {"max_attempts": 3}})
    client = site.openai()
    batch = ended(client, begin(client, lines.many(4)))
    usages = [line["response"]["body"]["usage"] for line in lines.of(client, batch.output_file_id)]
    page = visit(site)
    page.locator("#batches button").first.click()
    page.locator("#rows tr").nth(3).wait_for()
    assert number_of(fact(page, "Tokens out").inner_text()) == sum(usage["completion_tokens"] for usage in usages)
    assert number_of(fact(page, "Tokens in").inner_text()) == sum(usage["prompt_tokens"] for usage in usages)
    assert fact(page, "Rows done").inner_text() == "4 of 4"
    assert page.locator("#rows tr td:nth-child(5)").all_inner_texts() == ["1", "3", "1", "1"]
    page.get_by_role("button", name="Row row-1: prompt and attempts").click()
    dialog = page.get_by_role("dialog")
    for attempt in (1, 2):
        dialog.get_by_role("heading", name=f"attempt {attempt}, sent back: empty").wait_for()
    dialog.get_by_text("3 attempts").wait_for()
    shot(page, "attempts")


def test_a_batch_that_was_given_up_goes_on(sites, visit, lines, begin, ended, monkeypatch) -> None:
    monkeypatch.setattr(working, "_PAUSES", (0.01,))
    site = sites.start()

    def broken(*_: Any) -> None:
        raise RuntimeError("a bug")

    client = site.openai()
    with monkeypatch.context() as patched:
        patched.setattr(site.server.fronts["openai"], "finish", broken)
        batch = begin(client, lines.many(3))
        assert ended(client, batch).status == "failed"
    page = visit(site)
    page.locator("#batches button").first.click()
    page.get_by_text("the server failed on this batch; its log says more").wait_for()
    page.get_by_role("button", name="Go on").click()
    page.get_by_role("heading", name="— completed").wait_for()
    assert ended(client, batch).request_counts.completed == 3
    assert len(client.batches.list().data) == 1


def test_a_file_that_is_no_batch_is_said_before_it_is_sent(site, visit, lines, shot) -> None:
    page = visit(site)
    content = lines.jsonl([lines.chat("a", "x"), lines.chat("a", "y"), lines.chat("b", "z", model="other")])
    give(page, content + b"{broken\n")
    page.get_by_text("line 2: has the custom_id a of an earlier line").wait_for()
    page.get_by_text("line 3: names the model other, and the first one demo").wait_for()
    page.get_by_text("line 4: is not JSON").wait_for()
    assert page.get_by_role("button", name="Start the batch").is_disabled()
    assert site.openai().files.list().data == []
    shot(page, "refused")


def test_a_running_batch_shows_how_far_it_is_and_is_cancelled(sites, visit, lines, begin, shot) -> None:
    site = sites.start({"latency": 0.3, "concurrency": 4}, job={"run": {"window": 16, "grace": 0.1}})
    client = site.openai()
    batch = begin(client, lines.many(4000))  # more than are done before anybody looks, however slow the machine
    page = visit(site, color_scheme="dark")
    page.locator("#batches button").first.click()
    page.get_by_text("rows/s").wait_for()
    page.locator("#rows tr").first.wait_for()
    sync_api.expect(fact(page, "Time left")).to_have_text(re.compile(r"^\d+ (s|min|h.*)$"))
    sync_api.expect(page.locator("#batches li").first).to_contain_text(re.compile(r"about \d+ (s|min).* left"))
    for name in ("Tokens in", "Tokens out"):
        sync_api.expect(fact(page, name)).to_have_text(re.compile(r"^[1-9][\d,]*"))
    shot(page, "running-dark")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Cancel").click()
    sync_api.expect(page.get_by_role("heading", name="cancelled")).to_be_visible(timeout=PATIENCE_MS)
    after = client.batches.retrieve(batch)
    assert (after.status, after.request_counts.total) == ("cancelled", 4000)
    answers = {line["custom_id"] for line in lines.of(client, after.output_file_id)}
    others = {line["custom_id"] for line in lines.of(client, after.error_file_id)}
    assert 0 < len(answers) == after.request_counts.completed < 4000
    assert answers | others == {f"row-{i}" for i in range(4000)}


def test_it_is_used_with_the_keyboard_alone(sites, visit, lines, begin, ended) -> None:
    site = sites.start()
    client = site.openai()
    ended(client, begin(client, lines.many(3)))
    page = visit(site)
    page.locator("#batches button").first.wait_for()
    seen = []
    for _ in range(3):
        page.keyboard.press("Tab")
        seen.append(
            page.evaluate(
                "document.activeElement.id || document.activeElement.dataset.id || document.activeElement.className"
            )
        )
    assert seen[:2] == ["skip", "file"]
    page.keyboard.press("Enter") if seen[2].startswith("batch_") else page.locator("#batches button").first.press(
        "Enter"
    )
    page.get_by_role("heading", name="completed").wait_for()
    page.locator("#rows button").first.focus()
    page.keyboard.press("Enter")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    sync_api.expect(page.get_by_role("dialog")).to_be_hidden(timeout=PATIENCE_MS)


def tab_to(page: Any, target: str) -> None:
    """Go to what a selector finds by the Tab key alone."""
    for _ in range(60):
        if page.evaluate("(target) => document.activeElement.matches(target)", target):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not lead to {target}")


def test_a_file_is_chosen_rows_are_searched_and_a_batch_is_cancelled_by_keys(sites, visit, lines) -> None:
    rules = [{"when": {"contains": "text 8"}, "hang": True}]
    site = sites.start({"rules": rules}, job={"run": {"window": 16, "grace": 0.0}})
    page = visit(site)
    given = {"name": "typed.jsonl", "mimeType": "application/jsonl", "buffer": lines.many(10)}
    page.on("filechooser", lambda chooser: chooser.set_files(given))
    page.get_by_text("There are no batches yet.").wait_for()  # by now the page works, and the browser tells of choosers
    tab_to(page, "#file")
    page.keyboard.press("Space")
    page.get_by_text("10 requests for").wait_for()
    tab_to(page, "#start")  # which has the focus by now
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="typed.jsonl — in progress").wait_for()
    page.locator("#rows tr").nth(8).wait_for()
    tab_to(page, "#search")
    page.keyboard.type("text 3")
    sync_api.expect(page.locator("#rows tr")).to_have_count(1)
    page.on("dialog", lambda dialog: dialog.accept())
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.textContent") == "Cancel"
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="typed.jsonl — cancelled").wait_for()
    (batch,) = site.openai().batches.list().data
    assert (batch.status, batch.request_counts.completed) == ("cancelled", 9)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(
    sites, visit, lines, begin, ended, shot, contrasts, scheme: str
) -> None:
    site = sites.start(RULES)
    client = site.openai()
    ended(client, begin(client, lines.many(12)))
    ended(client, begin(client, b"{broken\n", metadata={"name": "broken"}))
    page = visit(site, color_scheme=scheme)
    give(page, lines.many(1) * 2)
    page.get_by_text("line 2: has the custom_id").wait_for()
    page.get_by_role("button", name="completed").click()
    page.locator("#rows tr").nth(11).wait_for()
    shot(page, f"page-{scheme}")
    assert contrasts(page) == []
    page.get_by_role("button", name="Row row-7: prompt and attempts").click()
    page.get_by_role("dialog").get_by_text("text 7").wait_for()
    shot(page, f"dialog-{scheme}")
    assert contrasts(page) == []
    page.keyboard.press("Escape")
    page.get_by_role("button", name="broken").click()
    page.get_by_text("line 1:").wait_for()
    assert contrasts(page) == []


def test_it_fits_a_phone(sites, visit, lines, begin, ended, shot) -> None:
    site = sites.start(RULES)
    client = site.openai()
    ended(client, begin(client, lines.many(9), metadata={"name": "a-name-without-an-end-" * 10}))
    page = visit(site, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page.locator("#batches button").first.click()
    page.locator("#rows tr").first.wait_for()
    shot(page, "phone")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_with_keys_it_asks_for_one(sites, visit, lines, begin, ended) -> None:
    site = sites.start(keys="alice alice-has-a-long-key\n")
    client = site.openai("alice-has-a-long-key")
    batch = ended(client, begin(client, lines.many(2)))
    page = visit(site, expected="401")
    page.get_by_label("API key").fill("not-a-key-of-anybody")
    page.get_by_role("button", name="Use this key").click()
    page.get_by_text("This key is not known here.").wait_for()
    page.get_by_label("API key").fill("alice-has-a-long-key")
    page.get_by_role("button", name="Use this key").click()
    page.get_by_text(batch.id).wait_for()
    page.locator("#batches button").first.click()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download answers").click()
    assert len(Path(download.value.path()).read_bytes().splitlines()) == 2


def test_a_file_that_is_given_before_the_server_has_said_what_it_takes_is_checked_then(sites, visit, lines) -> None:
    site, held = sites.start(RULES), []
    page = visit(site)
    page.route("**/llmbatch/server", lambda route: held.append(route))
    page.reload()
    give(page, lines.many(1) * 2)
    page.get_by_text("Reading requests.jsonl").wait_for()
    assert len(held) == 1
    held[0].continue_()
    page.get_by_text("line 2: has the custom_id").wait_for()
    assert page.locator("#check-said").inner_text() == "requests.jsonl cannot be a batch as it is:"
    assert page.locator("#check-errors li").count() == 1
