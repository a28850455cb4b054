"""Controllers: the rule of the reference study, the line, and one of another package."""

from importlib.metadata import EntryPoint

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixctl.pipeline import controllers
from mixctl.pipeline.controllers import (
    ready_controller,
    round_robin,
    set_point_at,
)
from mixctl.shards.errors import InputError

values = st.floats(0, 1, allow_nan=False)
points = st.floats(1e-6, 1, allow_nan=False)


def decide(name, n, v, set_point, **options):
    return ready_controller(name, options, "here").decide({"n": n}, v, set_point)[1]


@pytest.mark.parametrize(
    ("n", "v", "expected"),
    [
        (100, 0.0761, 100),  # within 5% of 0.08: 0.076 to 0.084
        (100, 0.0839, 100),
        (100, 0.0841, 50),
        (100, 0.0759, 200),
        (1, 0.5, 1),  # never below 1
        (8192, 0.0, 8192),  # never above 8,192
        (1000, 0.0, 1256),  # by 256 at most
        (1000, 0.5, 744),
        (300, 0.5, 150),
    ],
)
def test_the_reference_controller_halves_doubles_and_keeps_its_limits(n, v, expected):
    assert decide("reference", n, v, 0.08) == expected


@given(st.integers(1, 8192), values, points)
def test_the_reference_controller_is_the_papers_rule(n, v, set_point):
    new = decide("reference", n, v, set_point)
    wanted = n / 2 if v > 1.05 * set_point else 2 * n if v < 0.95 * set_point else n
    assert 1 <= new <= 8192 and abs(new - n) <= 256
    if abs(wanted - n) <= 256 and 1 <= wanted <= 8192:
        assert abs(new - wanted) <= 0.5


@given(values, points, st.integers(0, 50), st.integers(50, 500))
def test_the_proportional_controller_is_a_line_within_limits(v, set_point, least, most):
    options = {"least": least, "most": most, "start": 50, "bias": 60.0, "gain": 200.0}
    new = decide("proportional", 50, v, set_point, **options)
    line = 60 + 200 * (1 - v / set_point)
    assert least <= new <= most
    if least <= line <= most:
        assert abs(new - line) <= 0.5 + 1e-9
    assert decide("proportional", 50, set_point, set_point, **options) == min(max(60, least), most)


def test_a_loop_on_a_model_that_learns_and_forgets_follows_a_ramp():
    """A made-up plant: v gains with the texts and decays; a hundred intervals."""
    ready = ready_controller("reference", {"start": 8, "most": 4096}, "here")
    state, n, v, off = dict(ready.state), 8, 0.0, []
    for step in range(1, 101):
        v = 0.7 * v + 0.0001 * n
        set_point = set_point_at(step, 100, 0.08)
        state, n = ready.decide(state, v, set_point)
        off.append(abs(v / set_point - 1))
    assert max(off[50:]) < 0.35 and sum(off[50:]) / 50 < 0.15


def test_options_and_names_are_checked():
    with pytest.raises(InputError, match=r"here: unknown controller 'refrence' \(did you mean"):
        ready_controller("refrence", {}, "here")
    with pytest.raises(InputError, match="here: options: unknown key 'tolerence'"):
        ready_controller("reference", {"tolerence": 0.1}, "here")
    with pytest.raises(InputError, match="least <= start <= most"):
        ready_controller("reference", {"start": 9000}, "here")


def test_a_controller_of_another_package(monkeypatch):
    named = {"mine": "CONTROLLER", "wrong": "NOTHING"}
    points = {
        name: EntryPoint(name, f"tests.support.plugin:{attribute}", controllers.GROUP)
        for name, attribute in named.items()
    }
    monkeypatch.setattr(controllers, "_plugins", lambda: points)
    ready = ready_controller("mine", {"start": 2}, "here")
    assert ready.state == {"n": 2}
    assert ready.decide({"n": 2, "seen": 4}, 0.1, 0.2) == ({"n": 3, "seen": 5}, 3)
    with pytest.raises(
        InputError, match="'wrong': the entry point gives <object.*, not a Controll"
    ):
        ready_controller("wrong", {}, "here")


@given(st.integers(0, 1000), st.integers(0, 300), st.integers(1, 40))
def test_texts_go_round(before, texts, n_items):
    expected = [0] * n_items
    for text in range(before, before + texts):
        expected[text % n_items] += 1
    assert round_robin(before, texts, n_items) == expected
