"""report.html in a headless Chromium: nothing leaves the file or overflows, all is legible.

`make test-browser` installs what this needs. The browser is Debian's; playwright drives it and
never downloads one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mixctl.evals import report
from tests.evals.made_results import made_results
from tests.support.browser import DESKTOP, PHONE, TEXTS, scrolled_by_keyboard, serious_issues

pytestmark = pytest.mark.browser

MARKS = """() => [...document.querySelectorAll('figure path, figure use')].flatMap(node => {
  const style = getComputedStyle(node)
  return [style.stroke, style.fill].filter(value => value.startsWith('rgb'))
})"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a report with every verdict."""
    return report.write_report(made_results(tmp_path_factory.mktemp("made") / "results"))


@pytest.fixture(scope="module")
def scored(evaluated: Any) -> Path:
    """Returns the report of three tiny experiments that were really scored."""
    return report.write_report(evaluated[1])


def _below(page: Any, selector: str) -> float:
    """Returns the lowest edge of all elements that match, in CSS pixels from the top."""
    boxes = [found.bounding_box() for found in page.locator(selector).all()]
    assert boxes and all(box and box["height"] > 0 for box in boxes)
    return max(box["y"] + box["height"] for box in boxes)


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("which", ["made", "scored"])
def test_the_page_is_whole_by_itself(which, size, opened, request):
    path = request.getfixturevalue(which)
    page = opened(path, size)
    assert page.seen == [path.as_uri()] and page.said == []
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= size[0]
    page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]


def test_the_page_may_not_load_or_run_anything(opened, made):
    """The policy in its head holds: an image and a script put in from outside are refused."""
    page = opened(made)
    page.evaluate("document.body.append(Object.assign(new Image(), {src: 'data:,x'}))")
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'),"
        " {textContent: 'window.ran = true'}))"
    )
    page.wait_for_timeout(100)
    assert page.evaluate("window.ran") is None
    assert sum("Content Security Policy" in said for said in page.said) == 2


def test_the_first_screen_has_every_finding(opened, made, scored):
    page = opened(made)
    assert page.locator(".findings tbody tr").count() == 6
    assert _below(page, "h1, .lead, .tally a, .findings tbody tr") <= DESKTOP[1]
    words = page.locator(".findings").inner_text()
    for said in ("it fell over", "not detectable at this size: the design finds 0.210 or more",
                 "smallest detectable effect unknown", "never placed"):  # fmt: skip
        assert said in words
    phone = opened(scored, PHONE)
    assert phone.locator(".findings tbody tr").count() == 3
    assert _below(phone, "h1, .lead, .tally a, .findings tbody tr") <= PHONE[1]
    assert _below(opened(made, PHONE), "h1, .lead, .tally a, #v-not-scored, #v-found") <= PHONE[1]


def test_a_number_leads_to_its_row_and_the_row_to_its_test_and_back(opened, made):
    page = opened(made)
    page.locator(".findings a.estimate").first.click()
    row = page.locator("tr:target")
    assert row.inner_text().startswith("0\tloglikelihood\tx16") and "9.50" in row.inner_text()
    assert 0 <= row.bounding_box()["y"] < DESKTOP[1]
    row.get_by_role("link", name="Monte Carlo").click()
    entry = page.locator(".entry:target")
    assert "Randomisation test" in entry.inner_text()
    assert 0 <= entry.bounding_box()["y"] < DESKTOP[1]
    page.get_by_role("link", name="Back to the findings").first.click()
    assert page.evaluate("location.hash") == "#findings" and page.evaluate("scrollY") < 200


def test_links_that_are_quoted_below_a_picture_lead_to_rows_that_say_the_same(opened, scored):
    page = opened(scored)
    page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
    links = page.locator("details a.n").all()
    assert len(links) > 50
    for link in links[::7]:
        row = page.locator(f"[id='{link.get_attribute('href')[1:]}']")
        assert link.inner_text().split(" ")[0] in row.inner_text().split("\t")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_and_all_marks_stand_out(opened, scored, made, scheme):
    for path in (scored, made):
        texts = opened(path, scheme=scheme).evaluate(TEXTS)
        assert sum(text["in_svg"] for text in texts) > 20
        weakest = min(texts, key=lambda text: text["contrast"])
        assert weakest["contrast"] >= 4.5, weakest


def test_dark_is_dark(opened, made):
    colours = {}
    for scheme in ("light", "dark"):
        page = opened(made, scheme=scheme)
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        colours[scheme] = (ground, set(page.evaluate(MARKS)))
    assert colours["light"][0] == "rgb(253, 253, 251)" and colours["dark"][0] == "rgb(19, 21, 24)"
    shared = colours["light"][1] & colours["dark"][1]
    assert shared <= {"rgb(0, 0, 0)"}  # the default of paths that are not drawn
    page = opened(made, scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == colours["light"][0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_serious(opened, scored, made, size, scheme):
    for path in (scored, made):
        assert serious_issues(opened(path, size, scheme), for_fingers=size == PHONE) == []


def test_by_keyboard(opened, made):
    page = opened(made)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the findings"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    page.keyboard.press("Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outline")
    assert "solid" in outline and "3px" in outline


def test_what_is_wider_than_a_phone_is_reached_by_keyboard(opened, made):
    page = opened(made, PHONE)
    page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
    wide, moved = scrolled_by_keyboard(page)
    assert moved == wide and wide >= 3
