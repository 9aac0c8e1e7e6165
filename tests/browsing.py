"""Pages in a real browser: fixtures of whatever has one (``conftest.py`` brings them to every test)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SCREENSHOTS = os.environ.get("LLMBATCH_SCREENSHOTS")  # a folder, for whoever wants to look at them
PATIENCE_MS = 60_000
PAPER = (718, 1047)  # A4 with margins of a centimetre, in CSS pixels
CONTRASTS = """() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const found = parts(getComputedStyle(at).backgroundColor);
      if (found.length < 4 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const element of document.querySelectorAll("header *, main *, footer, dialog[open] *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility() || element.closest("script, option, select, svg, .label")) continue;
    const [a, b] = [light(parts(getComputedStyle(element).color)), light(behind(element))].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < 4.5) low.push(`${element.tagName} ${element.className}: ${contrast.toFixed(2)}`);
  }
  return low;
}"""
"""The texts whose contrast is below 4.5 (WCAG AA)."""
OVERFLOWING = """() => [...document.querySelectorAll("body, body *")]
  .filter((element) => element.checkVisibility() && !element.closest("svg")
    && (element.getBoundingClientRect().right > innerWidth + 1
      || (getComputedStyle(element).overflowX !== "visible" && element.scrollWidth > element.clientWidth + 1)))
  .map((element) => `${element.tagName} ${element.className}: ${element.textContent.slice(0, 60)}`)"""
"""What sticks out of the paper, or is cut off where on a screen it could be scrolled to."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens the page at an address; at the end it has said nothing to the console, and asked for nothing elsewhere.

    It may ask for what begins with one of ``own``, and say what has ``expected`` in it.
    """
    contexts, problems = [], []

    def open_page(address: str, own: tuple[str, ...] = (), expected: str | None = None, **options: Any) -> Any:
        def heard(said: str) -> None:
            if expected is None or expected not in said:
                problems.append(said)

        def asked(url: str) -> None:
            if url != address and not url.startswith(own):
                problems.append(url)

        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda said: heard(said.text))
        page.on("pageerror", lambda error: heard(str(error)))
        page.on("request", lambda sent: asked(sent.url))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def shot() -> Callable[[Any, str], None]:
    """Keeps what a page looks like, where somebody wants to look at it."""

    def keep(page: Any, name: str) -> None:
        if SCREENSHOTS:
            page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png", full_page=True)

    return keep


@pytest.fixture
def contrasts() -> Callable[[Any], list[str]]:
    """The texts of a page that do not stand out from what is behind them."""
    return lambda page: list(page.evaluate(CONTRASTS))


@pytest.fixture
def printed() -> Callable[[Any], str]:
    """The text of a page on paper; nothing of it sticks out, and the page is afterwards as it was."""
    pdfium = pytest.importorskip("pypdfium2")

    def text(page: Any) -> str:
        closed = page.locator("details:not([open])").count()
        screen = page.viewport_size
        page.emulate_media(media="print")
        page.set_viewport_size({"width": PAPER[0], "height": PAPER[1]})
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        stick = page.evaluate(OVERFLOWING)
        assert stick == [], stick
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        page.emulate_media(media="screen")
        page.set_viewport_size(screen)
        sheets = pdfium.PdfDocument(
            page.pdf(format="A4", margin=dict.fromkeys(("top", "right", "bottom", "left"), "1cm"))
        )
        assert page.locator("details:not([open])").count() == closed
        return "\n".join(sheet.get_textpage().get_text_bounded() for sheet in sheets)

    return text
