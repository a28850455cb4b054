"""A headless Chromium for the tests of pages: opened from disk, watched, looked at by axe-core.

`make test-browser` installs what this needs. The browser is Debian's; playwright drives it and
never downloads one.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

DESKTOP, PHONE = (1280, 800), (390, 844)
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
TEXTS = """() => {
  const parts = text => text.match(/[\\d.]+/g).map(Number)
  const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4
  const light = text => {
    const [r, g, b] = parts(text).slice(0, 3).map(v => linear(v / 255))
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const behind = node => {
    const found = getComputedStyle(node).backgroundColor
    return (parts(found)[3] ?? 1) === 1 ? found : behind(node.parentElement)
  }
  const found = []
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].some(c => c.nodeType === 3 && c.textContent.trim())
    if (!own || !node.checkVisibility()) continue
    const style = getComputedStyle(node), in_svg = node instanceof SVGElement
    const both = [light(in_svg ? style.fill : style.color), light(behind(node))]
    const contrast = (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05)
    found.push({text: node.textContent.trim().slice(0, 40), in_svg, contrast})
  }
  return found
}"""
"""Every text that is seen, with its contrast by WCAG 2.2 (relative luminance)."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium")
    if program is None:
        pytest.fail("there is no chromium; `make test-browser` installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Any]:
    """Yields a function from a path (and a scheme and a size) to the page, opened from disk."""
    contexts = []

    def open_page(path: Path, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> Any:
        width, height = size
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            has_touch=size == PHONE,
            is_mobile=size == PHONE,
        )
        contexts.append(context)
        page = context.new_page()
        page.seen = []
        page.said = []
        page.on("request", lambda request: page.seen.append(request.url))
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()


def serious_issues(page: Any, for_fingers: bool) -> list[tuple[str, str]]:
    """Returns (rule, the first element) of what axe-core calls serious or critical."""
    axe = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
    page.evaluate(axe)
    target_size = "true" if for_fingers else "false"
    found = page.evaluate(f"axe.run({{rules: {{'target-size': {{enabled: {target_size}}}}}}})")
    assert found["passes"]
    bad = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
    return [(v["id"], v["nodes"][0]["html"][:200]) for v in bad]


def scrolled_by_keyboard(page: Any) -> tuple[int, int]:
    """Returns how many parts of the page scroll sideways, and how many of them Tab and the right
    arrow move."""
    wide = page.evaluate(
        "[...document.querySelectorAll('.page *')].filter(one => one.scrollWidth > one.clientWidth"
        " + 1 && getComputedStyle(one).overflowX === 'auto' && one.checkVisibility()).length"
    )
    focused, begin, moved = "document.activeElement", None, set()
    while True:
        page.keyboard.press("Tab")
        place = page.evaluate(f"[...document.querySelectorAll('*')].indexOf({focused})")
        if place == begin or page.evaluate(f"{focused} === document.body"):
            return wide, len(moved)
        begin = place if begin is None else begin
        if page.evaluate(f"{focused}.scrollWidth > {focused}.clientWidth + 1"):
            page.keyboard.press("ArrowRight")
            page.wait_for_timeout(200)  # it scrolls smoothly
            if page.evaluate(f"{focused}.scrollLeft") > 0:
                moved.add(place)
