"""plan.html and show.html in a headless Chromium: whole by themselves, legible, by keyboard."""

import pytest

from mixctl.pipeline.build import build
from mixctl.pipeline.plan_page import write_plan_page
from mixctl.pipeline.planning import plan_mix
from mixctl.pipeline.show import Choice
from mixctl.pipeline.show_page import write_show_page
from tests.pipeline.test_pages import HOSTILE, hostile_mix
from tests.support.browser import DESKTOP, PHONE, TEXTS, scrolled_by_keyboard, serious_issues
from tests.support.workspace import Workspace

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Returns the two pages of a mix with a hostile payload, by name."""
    workspace = Workspace(tmp_path_factory.mktemp("pages") / "work")
    mix, folder = hostile_mix(workspace), workspace.folder
    build(mix, folder / "out")
    write_plan_page(plan_mix(mix), folder / "plan.html")
    write_show_page(folder / "out", Choice(), 300, folder / "show.html")
    return {name: folder / f"{name}.html" for name in ("plan", "show")}


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("name", ["plan", "show"])
def test_the_page_is_whole_by_itself_and_fits(opened, pages, name, size):
    page = opened(pages[name], size)
    assert page.seen == [pages[name].as_uri()] and page.said == []
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert page.locator("h1").count() == 1


@pytest.mark.parametrize("name", ["plan", "show"])
def test_payloads_are_text_and_nothing_of_them_runs(opened, pages, name):
    page = opened(pages[name])
    assert page.evaluate("window.ran") is None
    assert page.locator("main img, main script, main svg script").count() == 0
    where = ".tokens" if name == "plan" else "mark"
    shown = [text.replace("\n", " ") for text in page.locator(where).all_text_contents()]
    assert any(HOSTILE in text for text in shown)
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'),"
        " {textContent: 'window.ran = true'}))"
    )
    assert page.evaluate("window.ran") is None
    assert any("Content Security Policy" in said for said in page.said)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["plan", "show"])
def test_all_text_stands_out(opened, pages, name, scheme):
    texts = opened(pages[name], scheme=scheme).evaluate(TEXTS)
    texts = [one for one in texts if one["text"] not in ("Earlier",)]  # disabled on the first page
    weakest = min(texts, key=lambda text: text["contrast"])
    assert len(texts) > 50 and weakest["contrast"] >= 4.5, weakest


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("name", ["plan", "show"])
def test_axe_finds_nothing_serious(opened, pages, name, size, scheme):
    assert serious_issues(opened(pages[name], size, scheme), for_fingers=size == PHONE) == []


def shown(page):
    """Returns (experiment, item, step, chunk) of the placements that are seen, in their order."""
    return page.evaluate(
        "[...document.querySelectorAll('.placement')].filter(one => !one.hidden).map("
        "one => [one.dataset.experiment, one.dataset.item, +one.dataset.step, one.dataset.chunk])"
    )


def test_placements_are_browsed_by_experiment_item_step_and_chunk(opened, pages):
    page = opened(pages["show"])
    said = page.locator("#said")
    assert said.inner_text() == "1–50 of 300 placements" and len(shown(page)) == 50
    page.get_by_label("experiment").first.select_option("quiz")
    assert {one[0] for one in shown(page)} == {"quiz"}
    page.get_by_label("from step").fill("60")
    page.get_by_label("to step").fill("120")
    page.get_by_label("order").select_option("step")
    steps = [one[2] for one in shown(page)]
    assert steps and steps == sorted(steps) and steps[0] >= 60 and steps[-1] <= 120
    chunk = shown(page)[0][3]
    page.get_by_label("chunk").select_option(chunk)
    assert {one[3] for one in shown(page)} == {chunk}
    item = shown(page)[0][1]
    page.get_by_label("item contains").fill(item.upper())
    assert {one[1] for one in shown(page)} == {item}
    page.get_by_label("item contains").fill("nothing of that name")
    assert shown(page) == [] and said.inner_text() == "0 placements"


def test_by_keyboard(opened, pages):
    page = opened(pages["show"])
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the placements"
    names = []
    for _ in range(8):
        page.keyboard.press("Tab")
        names.append(page.evaluate("document.activeElement.id"))
        assert "3px" in page.evaluate("getComputedStyle(document.activeElement).outline")
    fields = ["experiment", "arm", "item", "from", "to", "chunk", "order"]
    assert names == [*(f"f-{name}" for name in fields), "later"]
    first = shown(page)
    page.keyboard.press("Enter")
    assert page.locator("#said").inner_text() == "51–100 of 300 placements"
    assert page.evaluate("document.activeElement.id") == "said" and shown(page) != first
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert shown(page) == first


def test_it_reads_without_a_script_and_all_is_in_it(browser, pages):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(pages["show"].as_uri())
    assert page.locator(".placement:visible").count() == 300
    assert page.locator(".filters:visible, .pages:visible").count() == 0
    context.close()


def test_the_overview_leads_to_an_experiment_and_back(opened, pages):
    page = opened(pages["plan"])
    page.get_by_role("link", name="docs", exact=True).click()
    assert 0 <= page.locator("article:target").bounding_box()["y"] < DESKTOP[1]
    page.locator("article:target").get_by_role("link", name="Back to the overview").click()
    assert page.evaluate("location.hash") == "#overview"


def test_the_plan_by_keyboard(opened, pages):
    page = opened(pages["plan"])
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the overview"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#overview"
    wide, moved = scrolled_by_keyboard(opened(pages["plan"], PHONE))
    assert moved == wide and wide >= 2
