"""A real browser in; a picture of the server's page out, with a batch that runs, one that is done and one that failed.

The server is ``llmbatch serve`` with the scripted engine, in a process of its own.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "server"))

from load import Served, served

_WIDTH, _HEIGHT = 1000, 989
_SHARE = 0.4  # of the batch that runs is done when the picture is taken
_ROWS = 2000
_SEEN_SECONDS = 1.5  # in which the page has asked anew, and its bars are where they belong
_SENTENCES = {
    "The bakery opens at six.": "Die Bäckerei öffnet um sechs.",
    "Two jars of plum jam, please.": "Zwei Gläser Pflaumenmus, bitte.",
    "The last train has left.": "Der letzte Zug ist abgefahren.",
    "Her scarf is made of wool.": "Ihr Schal ist aus Wolle.",
    "It has rained since noon.": "Es regnet seit Mittag.",
    "The bridge is being repaired.": "Die Brücke wird repariert.",
    "He sold his grandfather's clock.": "Er hat die Uhr seines Großvaters verkauft.",
    "We leave before sunrise.": "Wir brechen vor Sonnenaufgang auf.",
}


def page_of_a_server(browser: Any) -> bytes:
    """The page as PNG, with the batch open that runs."""
    rules: list[dict[str, Any]] = [{"when": {"matches": r"^\d*77: "}, "fail": "the engine refuses this text"}]
    rules += [{"when": {"contains": text}, "answer": answer} for text, answer in _SENTENCES.items()]
    settings = {"engine.args.rules": rules, "engine.args.latency": 0.5, "engine.args.jitter": 0.5, "engine.args.concurrency": 40,
                "run.window": 200}  # fmt: skip
    given = [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    with (
        tempfile.TemporaryDirectory(prefix="llmbatch-page-") as folder,
        served(Path(folder), "--model-name", "Qwen3-8B", *given) as server,
    ):
        _batch(server, "product-names.jsonl", _lines(240))
        _batch(
            server,
            "reviews-2026-11.jsonl",
            _lines(40) + b'{"custom_id": "review-41", "method": "POST"\n',
            ends="failed",
        )
        _batch(server, "articles-to-german.jsonl", _lines(_ROWS), ends=None)
        return _shot(browser, server)


def _lines(count: int) -> bytes:
    texts = list(_SENTENCES)

    def line(number: int) -> str:
        messages = [{"role": "system", "content": "Translate to German."},
                    {"role": "user", "content": f"{number}: {texts[number % len(texts)]}"}]  # fmt: skip
        body = {"model": "Qwen3-8B", "messages": messages, "temperature": 0}
        return json.dumps(
            {"custom_id": f"text-{number:05}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        )

    return "".join(line(number) + "\n" for number in range(1, count + 1)).encode()


def _batch(server: Served, name: str, content: bytes, ends: str | None = "completed") -> None:
    client = server.client()
    file = client.files.create(file=(name, content), purpose="batch")
    made = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"name": name}
    )
    while True:
        batch = client.batches.retrieve(made.id)
        counts = batch.request_counts
        if batch.status == ends or (ends is None and counts is not None and counts.completed >= _SHARE * _ROWS):
            return
        if batch.status in ("completed", "failed"):
            raise SystemExit(f"{name} is {batch.status}, and was to be {ends or 'in progress'}")
        time.sleep(0.1)


def _shot(browser: Any, server: Served) -> bytes:
    page = browser.new_page(
        viewport={"width": _WIDTH, "height": _HEIGHT}, color_scheme="light", device_scale_factor=1.5, locale="en-GB"
    )
    page.goto(f"http://127.0.0.1:{server.port}/")
    page.get_by_role("button", name="articles-to-german").click()
    page.locator("#rows tr").nth(10).wait_for()
    page.evaluate("window.scrollTo(0, 0)")
    page.wait_for_timeout(1000 * _SEEN_SECONDS)
    picture: bytes = page.screenshot()
    page.close()
    return picture
