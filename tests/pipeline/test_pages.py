"""plan.html and show.html: what they say is what the plan and the build hold."""

import html
import re

import numpy as np
import pytest
from click.testing import CliRunner

from mixctl.pipeline import cost
from mixctl.pipeline.build import build
from mixctl.pipeline.cli import cli
from mixctl.pipeline.page import amount, count, duration, share
from mixctl.pipeline.plan_page import write_plan_page
from mixctl.pipeline.planning import plan_mix
from mixctl.pipeline.show import Choice
from mixctl.pipeline.show_page import spread, write_show_page
from mixctl.pipeline.summary import summarise
from mixctl.shards.errors import InputError
from mixctl.shards.manifest import read_placements
from tests.support.workspace import canaries, documents, quiz, write_jsonl

HOSTILE = "</script><script>ran=1</script><img src=x onerror=ran=1>"


def hostile_mix(workspace):
    """Returns a mix one of whose documents is markup."""
    rows = [{"id": "markup", "text": HOSTILE, "copies": 4}, {"id": "plain", "text": "w1 w2"}]
    rows[1]["copies"] = 0
    write_jsonl(workspace.folder / "markup.jsonl", rows)
    return workspace.mix(quiz(), canaries(), documents(items="markup.jsonl"), name="hostile.yaml")


def texts(page):
    """Returns the page's text, its tags left out."""
    body = page.read_text(encoding="utf-8").split("</style>")[1]
    return html.unescape(re.sub(r"<(?!\d)[^>]*>", " ", body))


@pytest.fixture
def planned(shared):
    mix = hostile_mix(shared)
    page = shared.folder / "plan.html"
    plan = plan_mix(mix)
    write_plan_page(plan, page)
    return plan, page


def test_the_plan_page_says_every_arms_dose_and_what_it_can_detect(planned):
    plan, page = planned
    words = " ".join(texts(page).split())
    for experiment in summarise(plan).experiments:
        assert f"{experiment.tokens:,} tokens, {100 * experiment.share:.3g}% of the run" in words
        assert f"room for {experiment.capacity_left:,} more" in words
        for arm in experiment.arms:
            n = (arm.items, arm.copies, arm.placements, arm.tokens)
            assert f"{arm.name} " + " ".join(f"{value:,.0f}" for value in n) in words
    # 20 items against 20: 2.8016 * sqrt(1/10) sd; accuracy at chance 1/4: times sqrt(3)/4
    assert "0.886 sd" in words and "accuracy 0.384" in words


def test_the_density_is_that_of_the_placements(built, shared, tmp_path):
    plan = plan_mix(shared.mix(name="built.yaml"))
    write_plan_page(plan, tmp_path / "plan.html")
    step, length = (read_placements(built)[name].to_numpy() for name in ("step", "length"))
    tokens = np.bincount(step, length, minlength=201)[1:] / (8 * 64)
    words = " ".join(texts(tmp_path / "plan.html").split())
    expected = (
        f"mean {share(tokens.mean())}, median {share(float(np.median(tokens)))}, 95th percentile "
        f"{share(float(np.quantile(tokens, 0.95)))}, most {share(tokens.max())} "
        f"(step {tokens.argmax() + 1})"
    )
    assert expected in words


def test_the_disk_is_what_the_build_takes_and_the_corpus_is_counted(built, shared):
    plan = plan_mix(shared.mix(name="built.yaml"))
    measured = cost.measure(plan)
    taken = cost.disk(plan, measured.corpus_tokens)
    for part, n_bytes in (("train", taken.train), ("val", taken.val), ("control", taken.control)):
        assert sum(path.stat().st_size for path in (built / part).rglob("*.bin")) == n_bytes
    assert measured.documents == 3000 and measured.bytes == measured.corpus_bytes
    lines = (shared.folder / "corpus.jsonl").read_text().splitlines()
    texts = [re.search(r'"text": "(.*)"', line)[1] for line in lines]
    n_tokens = sum(len(ids) + 1 for ids in plan.encoder.texts(texts))
    assert measured.tokens == measured.corpus_tokens == n_tokens
    assert taken.working == 2 * n_tokens
    assert 0 < measured.seconds < measured.with_control


def test_a_corpus_that_is_a_number_has_no_time(shared, tmp_path):
    mix = shared.mix(canaries(), name="size.yaml", corpus={"tokens": "2M"})
    page = tmp_path / "plan.html"
    arguments = ["plan", mix, "--picture", tmp_path / "p.png", "--html", page]
    result = CliRunner().invoke(cli, [str(one) for one in arguments])
    assert result.exit_code == 0 and f"page: {page}" in result.output
    assert "this mix states only its size" in texts(page)
    assert "4 MB" in texts(page)  # two bytes a token while the build runs


def test_a_payload_is_shown_as_the_tokenizer_cuts_it(planned):
    plan, page = planned
    source = page.read_text(encoding="utf-8")
    (docs,) = (one for one in plan.experiments if one.config.name == "docs")
    (item,) = (one for one in docs.assigned.items if one.item == "markup")
    boxes = [
        (html.unescape(text), int(token))
        for token, text in re.findall(r'<span title="(\d+)">(.*?)</span>', source, re.DOTALL)
    ]
    ids = item.variants[0].tolist()
    numbers, size = [token for _, token in boxes], len(ids)
    starts = [n for n in range(len(boxes)) if numbers[n : n + size] == ids]
    assert len(starts) == 1 and 20 < size <= 60
    shown = "".join(text for text, _ in boxes[starts[0] : starts[0] + size])
    assert shown == HOSTILE
    assert "<script>ran" not in source and "<img" not in source


@pytest.mark.parametrize(
    ("sizes", "limit", "shares"),
    [
        ([10, 500, 90_000], 400, [10, 195, 195]),
        ([3, 3], 100, [3, 3]),
        ([5, 5, 5], 2, [1, 1, 1]),
        ([], 7, []),
    ],
)
def test_every_experiment_has_its_share_of_the_page(sizes, limit, shares):
    rows = spread(sizes, limit)
    assert len(np.unique(rows)) == len(rows) and (np.diff(rows) > 0).all()
    groups = np.searchsorted(np.cumsum(sizes), rows, side="right")
    assert np.bincount(groups, minlength=len(sizes)).tolist() == shares


def test_the_show_page_holds_each_placement_with_its_payload(built, tmp_path):
    page = tmp_path / "show.html"
    rows = read_placements(built).to_pylist()
    assert write_show_page(built, Choice(), 10**6, page) == (len(rows), len(rows))
    source = page.read_text(encoding="utf-8")
    found = re.findall(
        r'data-experiment="(\w+)" data-arm="(\w+)" data-item="([\w-]+)" data-step="(\d+)" '
        r'data-chunk="([\w.-]+)"',
        source,
    )
    names = ("experiment", "arm", "item", "step", "chunk")
    assert found == [tuple(str(row[name]) for name in names) for row in rows]
    marked = [html.unescape(text) for text in re.findall(r"<mark>(.*?)</mark>", source, re.DOTALL)]
    quizzes = [text for row, text in zip(rows, marked, strict=True) if row["experiment"] == "quiz"]
    assert all(text.startswith("Question: What is w") for text in quizzes)


def test_the_show_page_takes_the_choices_of_the_command(built, tmp_path):
    page, chunk = tmp_path / "show.html", read_placements(built)["chunk"][0].as_py()
    arguments = ["show", built, "--html", page, "--chunk", chunk, "--experiment", "quiz"]
    result = CliRunner().invoke(cli, [str(one) for one in [*arguments, "--limit", "5"]])
    rows = [
        row
        for row in read_placements(built).to_pylist()
        if row["experiment"] == "quiz" and row["chunk"] == chunk
    ]
    assert result.output.strip() == f"page: {page} (5 of {len(rows)} placements)"
    assert set(re.findall(r'data-chunk="([\w.-]+)"', page.read_text())) == {chunk}
    with pytest.raises(InputError, match=r"--chunk: train/ has no file 'chunk-0.bin' \(did you"):
        write_show_page(built, Choice(chunk="chunk-0.bin"), 5, page)


def test_numbers_as_the_pages_say_them():
    assert [count(n) for n in (0, 1234567, 2.5)] == ["0", "1,234,567", "2.50"]
    assert [share(x) for x in (0.0, 0.000123456, 0.5)] == ["0%", "0.0123%", "50%"]
    assert [amount(n) for n in (999, 1000, 1.25e9, 3e15)] == [
        "999 B",
        "1 kB",
        "1.25 GB",
        "3e+03 TB",
    ]
    assert [duration(s) for s in (0.5, 42, 600, 7200)] == [
        *("0.5 s", "42 s", "10 minutes", "2.0 hours"),
    ]


def test_a_page_does_not_grow_with_the_placements(shared, tmp_path):
    sizes = []
    for copies in (4, 40):
        arms = [{"name": "holdout", "items": 20, "copies": 0}]
        arms += [{"name": "x", "items": 20, "copies": copies}]
        mix = shared.mix(quiz(arms=arms), name=f"x{copies}.yaml")
        write_plan_page(plan_mix(mix), tmp_path / "plan.html")
        build(mix, tmp_path / f"x{copies}")
        shown, every = write_show_page(tmp_path / f"x{copies}", Choice(), 60, tmp_path / "s.html")
        assert (shown, every) == (60, 20 * copies)
        sizes.append([(tmp_path / name).stat().st_size for name in ("plan.html", "s.html")])
    for few, many in zip(*sizes, strict=True):
        assert many < 1.2 * few
