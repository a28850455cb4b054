"""mathematics: every problem solved again by an evaluator of its own; sides, budgets, prompts."""

import re
from collections import Counter

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import chisquare

from mixctl.injections.base import KindContext
from mixctl.injections.encode import load_encoder
from mixctl.injections.mathematics import KIND, shared_prefix, shot_problems
from mixctl.injections.word_problem_check import check_problem
from mixctl.injections.word_problems import make_problems
from mixctl.injections.words import PLACES, THINGS
from mixctl.shards.draws import streams
from mixctl.shards.errors import InputError
from tests.support.workspace import write_tokenizer


@pytest.fixture(scope="module")
def tok(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("tok"))


@pytest.fixture
def context(tok, tmp_path):
    return KindContext(folder=tmp_path, encoder=load_encoder(tok), seed=5, max_payload_tokens=9000)


def sums(**changes):
    section = {"name": "sums", "kind": "mathematics", "count": 40, "test": {"count": 6}, "shots": 0}
    return {**section, **changes}


def items_of(context, **changes):
    return KIND.make_items(KIND.config.model_validate(sums(**changes)), context)


def split(items):
    return [i for i in items if i.arm is None], [i for i in items if i.arm == "test"]


def problems(n, ops=range(1, 13), side="train", seed=1):
    names = [str(number) for number in range(n)]
    return make_problems(streams(names, seed), [ops[i % len(ops)] for i in range(n)], side)


@pytest.fixture(scope="module")
def ten_thousand():
    return problems(10_000)


# an evaluator of its own: words, recursion, whole numbers that are reduced at the very end


def read(question):
    """Returns {quantity: (sign, operands)} and the quantity asked for."""
    *sentences, last = question.removeprefix("Question: ").split(". ")
    made = {}
    for sentence in sentences:
        name, how = read_sentence(sentence)
        assert name not in made, "stated twice"
        made[name] = how
    return made, last.removeprefix("How many ").removesuffix(" are there, counted modulo 23?")


def read_sentence(sentence):
    if sentence.startswith("The number of "):
        name, rest = sentence.removeprefix("The number of ").split(" is the number of ")
        word = "minus" if " minus " in rest else "times"
        return name, ("-*"[word == "times"], rest.split(f" {word} the number of "))
    if sentence.endswith(" together"):
        name, rest = sentence.split(" as many ")[1].removesuffix(" together").split(" as ")
        return name, ("+", rest.split(" and "))
    _, _, number, *words = sentence.split(" ")
    for phrase, sign, link in (
        ("more ", "+", " than "),
        ("fewer ", "-", " than "),
        ("times as many ", "*", " as "),
    ):
        if " ".join(words).startswith(phrase):
            name, other = " ".join(words).removeprefix(phrase).split(link)
            return name, (sign, [other, int(number)])
    return " ".join(words), ("", [int(number)])


SIGNS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}


def solve(name, made, seen):
    """Returns the value, unreduced; `seen` gathers what was needed for it."""
    if isinstance(name, int):
        return name
    if name not in seen:
        sign, operands = made[name]
        values = [solve(operand, made, seen) for operand in operands]
        seen[name] = values[0] if sign == "" else SIGNS[sign](*values)
    return seen[name]


def walk(solution, made):
    """Returns {quantity: value} of the steps, each recomputed from its own text."""
    known = {}
    for step in solution.split("; "):
        name, formula, *results = step.split(" = ")
        sign, operands = made[name]
        assert formula == f" {sign} ".join(map(str, operands))
        if not results:
            known[name] = int(formula)
            continue
        numbers = [str(known[o]) if isinstance(o, str) else str(o) for o in operands]
        assert results[0] == f" {sign} ".join(numbers)
        raw = SIGNS[sign](*map(int, numbers))
        wrapped = [f"{raw % 23} mod 23"] if raw not in range(23) else []
        assert results[1:] == [str(raw), *wrapped]
        known[name] = raw % 23
    return known


def test_ten_thousand_problems_are_right_in_every_step(ten_thousand):
    unneeded = 0
    for number, problem in enumerate(ten_thousand):
        question, solution, last = problem.text.split("\n")
        made, asked = read(question)
        seen = {}
        value = solve(asked, made, seen) % 23
        assert last == f"Answer: {value}"
        assert problem.answer == value
        assert problem.op == 1 + number % 12
        assert problem.op == sum(made[name][0] != "" for name in seen), "op is exact"
        known = walk(solution.removeprefix("Solution: "), made)
        assert known == {name: v % 23 for name, v in seen.items()}
        assert list(known)[-1] == asked
        unneeded += len(seen) < len(made)
    assert 5_000 < unneeded < 9_500


def test_answers_are_uniform_and_sentences_shuffled(ten_thousand):
    made = ten_thousand[:6_000]
    assert chisquare(np.bincount([p.answer for p in made], minlength=23)).pvalue > 0.001
    tens = [p for p in made if p.op == 10]
    asked = [p.question.split("How many ")[1].split(" are there")[0] for p in tens]
    place = [
        next(i for i, s in enumerate(p.question.split(". ")) if read_sentence(s)[0] == name)
        / p.question.count(". ")
        for p, name in zip(tens, asked, strict=True)
    ]
    assert abs(np.mean(place) - 0.5 + 0.5 / 17) < 0.06, "the one asked for stands anywhere"
    kinds = Counter(read_sentence(s)[1][0] for p in tens for s in p.question.split(". ")[:-1])
    assert min(kinds[sign] for sign in "+-*") > 0.8 * max(kinds[sign] for sign in "+-*")


def test_the_words_are_distinct_and_are_words():
    assert len({*THINGS, *PLACES}) == 80
    assert all(re.fullmatch("[a-z]+", word) for word in (*THINGS, *PLACES))


BY_HAND = (
    "Question: There are 5 times as many owls in the mill as figs in the barn. There are 7 figs in "
    "the barn. There are 3 fewer maps in the shed than owls in the mill. The number of keys in the "
    "mill is the number of figs in the barn minus the number of owls in the mill. How many keys in "
    "the mill are there, counted modulo 23?\n"
    "Solution: figs in the barn = 7; owls in the mill = figs in the barn * 5 = 7 * 5 = 35 = 12 mod "
    "23; keys in the mill = figs in the barn - owls in the mill = 7 - 12 = -5 = 18 mod 23\n"
    "Answer: 18"
)


def test_the_checker_by_hand():
    checked = check_problem(BY_HAND)
    assert (checked.op, checked.answer, checked.problems) == (2, 18, ())


@pytest.mark.parametrize(
    ("was", "becomes", "complaint"),
    [
        ("Answer: 18", "Answer: 17", "the answer is 18, the text says 17"),
        ("7 * 5 = 35", "7 * 5 = 36", "should be"),
        ("35 = 12 mod", "35 = 13 mod", "should be"),
        ("figs in the barn * 5 =", "figs in the barn + 5 =", "should be"),
        ("figs in the barn = 7; ", "", "uses what no earlier step gives"),
        (
            "figs in the barn = 7; ",
            "figs in the barn = 7; figs in the barn = 7; ",
            "a step is there twice",
        ),
        ("; keys", "; maps in the shed = 9; keys", "not needed"),
        (" There are 7 figs in the barn.", "", "do not determine"),
        ("There are 7 figs", "There are about 7 figs", "not understood"),
        (
            "There are 3 fewer maps in the shed",
            "There are 3 fewer owls in the mill",
            "stated twice: the number of owls",
        ),
        (
            "keys in the mill = figs",
            "keys in the barn = figs",
            "no step gives the number of keys in",
        ),
        ("Solution", "Proof", "form of a problem"),
    ],
)
def test_the_checker_finds_what_is_wrong(was, becomes, complaint):
    assert was in BY_HAND
    found = check_problem(BY_HAND.replace(was, becomes, 1)).problems
    assert any(complaint in problem for problem in found)


def test_the_checker_agrees_with_the_generator(ten_thousand):
    for problem in (*ten_thousand[:500], *problems(100, range(13, 41))):
        checked = check_problem(problem.text)
        assert (checked.op, checked.answer, checked.problems) == (problem.op, problem.answer, ())


def test_circular_sentences_have_no_answer():
    text = BY_HAND.replace(
        "There are 7 figs in the barn", "There are 2 more figs in the barn than keys in the mill"
    )
    assert check_problem(text).answer is None


def template(solution):
    return re.sub(r" = [-\d].*?(?=;|$)", "", re.sub(r"(?<=[+*-] )\d+(?= =)", "#", solution))


def test_sides_share_nothing_even_with_other_numbers(ten_thousand):
    train, other = ten_thousand[::4], problems(500, range(1, 3), seed=2)
    tests = problems(300, range(1, 3), "test", seed=1)
    shots = shot_problems(20)
    for mine, theirs in ((tests, train + other), (shots, train + tests)):
        assert not {p.question for p in mine} & {p.question for p in theirs}
        assert not {template(p.solution) for p in mine} & {template(p.solution) for p in theirs}


def test_sides_are_told_apart_by_the_solution_alone(monkeypatch):
    monkeypatch.setattr("mixctl.injections.word_problems.THINGS", ("figs", "owls", "maps"))
    monkeypatch.setattr("mixctl.injections.word_problems.PLACES", ("mill", "barn", "shed"))
    train, tests = problems(3_000, [1]), problems(500, [1], "test", seed=2)
    seen = {template(p.solution) for p in train}
    assert 900 < len(seen) < 9 * 8 * 3 + 9 * 8 * 7 * 3, "most of the few that there are"
    assert not seen & {template(p.solution) for p in tests}


def test_training_items(context):
    train, tests = split(items_of(context, count=40))
    assert [i.item for i in train] == [f"train-{n:07d}" for n in range(1, 41)]
    assert Counter(i.stratum for i in train) == {f"op{n}": 4 for n in range(1, 11)}
    assert [i.meta.op for i in train[:11]] == [*range(1, 11), 1]
    for item in train:
        assert item.stratum == f"op{item.meta.op}"
        assert item.variants[0].tolist() == context.encoder.text(item.text).tolist()
        assert item.text.endswith(f"\nAnswer: {item.meta.answer}")
        assert item.meta.prompt_tokens == item.meta.solution_tokens == []
        assert item.compared is not None and not len(item.compared)
    assert [i.item for i in tests] == [f"test-{n:05d}" for n in range(1, 7)]


def test_a_problem_depends_on_its_own_name_alone(context):
    few, many = items_of(context, count=3), items_of(context, count=100, test={"count": 60})
    texts = {i.item: i.text for i in many}
    assert all(texts[i.item] == i.text for i in few)
    other = items_of(context, count=3, name="other")
    assert not {i.text for i in few} & {i.text for i in other}


def test_test_problems_are_balanced_over_the_answers_within_each_op(context):
    _, tests = split(items_of(context, count=1, test={"count": 300, "ops": [1, 12]}))
    for op in range(1, 13):
        answers = np.bincount([i.meta.answer for i in tests if i.meta.op == op], minlength=23)
        assert answers.sum() == 25
        assert set(answers.tolist()) == {1, 2}
    overall = np.bincount([i.meta.answer for i in tests])
    assert overall.max() - overall.min() <= 2
    assert all(i.text.endswith(f"\nAnswer: {i.meta.answer}") for i in tests)


@pytest.mark.parametrize("bos", [False, True])
def test_prompt_and_solution_are_cut_from_one_string(tok, tmp_path, bos):
    context = KindContext(tmp_path, load_encoder(tok, bos=bos), seed=5, max_payload_tokens=9000)
    _, tests = split(items_of(context, shots=3, test={"count": 12}))
    shots = "\n\n".join(p.text for p in shot_problems(3))
    for item in tests:
        whole = context.encoder.payloads([f"{shots}\n\n{item.text}"])[0].tolist()
        meta = item.meta
        assert meta.prompt_tokens + meta.solution_tokens == whole
        prompt = context.encoder.decode(meta.prompt_tokens[bos:])
        assert prompt.endswith("\nSolution:")
        assert prompt.count("Question: ") == 4
        assert prompt.count("Answer: ") == 3
        assert item.text.startswith(prompt.removeprefix(f"{shots}\n\n"))
        assert (whole[0] == context.encoder.bos_id) == bos
        assert item.variants[0].tolist() == context.encoder.payloads([item.text])[0].tolist()


def test_shots_are_the_same_in_every_mix_and_right(context):
    assert [p.text for p in shot_problems(5)[:3]] == [p.text for p in shot_problems(3)]
    for shot in shot_problems(5):
        assert check_problem(shot.text).problems == ()
    assert [p.op for p in shot_problems(6)] == [1, 2, 3, 4, 5, 1]
    _, tests = split(items_of(context))
    assert context.encoder.decode(tests[0].meta.prompt_tokens).count("Question: ") == 1


@pytest.mark.parametrize(
    ("a", "b", "n"), [([1, 2], [1, 2, 3], 2), ([1, 2], [1, 3, 2], 1), ([4], [5], 0), ([], [1], 0)]
)
def test_shared_prefix_by_hand(a, b, n):
    assert shared_prefix(np.array(a, np.uint32), np.array(b, np.uint32)) == n


def test_a_budget_is_filled_to_the_last_problem_that_fits(context):
    every, _ = split(items_of(context, count=200))
    sizes = np.cumsum([len(i.variants[0]) for i in every])
    for budget in (int(sizes[179]), int(sizes[179]) - 1, int(sizes[179]) + 1):
        train, _ = split(items_of(context, count=None, tokens=budget))
        assert len(train) == int((sizes <= budget).sum())
        assert [i.text for i in train] == [i.text for i in every[: len(train)]]
    with pytest.raises(InputError, match="experiment 'sums': tokens: 3 holds no problem: the"):
        items_of(context, count=None, tokens=3)


def test_a_plan_makes_a_sample_and_sizes_the_rest(tok, tmp_path):
    context = KindContext(tmp_path, load_encoder(tok), seed=5, max_payload_tokens=9000, sample=45)
    plan = KindContext(tmp_path, load_encoder(tok), seed=5, max_payload_tokens=9000)
    real, _ = split(items_of(plan, count=200))
    n_tokens = sum(len(i.variants[0]) for i in real)
    train, tests = split(items_of(context, count=20_000, test={"count": 300}))
    assert (len(train), len(tests)) == (20_000, 300)
    assert sum(i.text is not None for i in train) == 50, "as many of each op"
    assert Counter(i.stratum for i in train) == {f"op{n}": 2_000 for n in range(1, 11)}
    assert [i.text for i in train[:50]] == [i.text for i in real[:50]]
    assert abs(sum(len(i.variants[0]) for i in train) / 100 / n_tokens - 1) < 0.05
    assert len({i.item for i in (*train, *tests)}) == 20_300
    sized = [i for i in (*train, *tests) if i.text is None]
    assert len({i.variants[0][:40].tobytes() for i in sized}) == len(sized), "no two alike"
    assert all(len(i.compared) == 0 for i in (*train, *tests))
    within, _ = split(items_of(context, count=None, tokens=n_tokens))
    total = sum(len(i.variants[0]) for i in within)
    assert n_tokens - 4_000 < total <= n_tokens
    assert abs(len(within) - 200) < 12


def test_arms():
    config = KIND.config.model_validate(sums(tokens="1.5M", count=None))
    assert config.budget == 1_500_000
    plain = KIND.config.model_validate({"name": "sums", "kind": "mathematics", "count": 9})
    assert (plain.ops, plain.test.count, plain.test.ops, plain.shots) == ([1, 10], 1200, [1, 12], 3)
    assert [(a.name, a.items, a.copies) for a in config.arms] == [
        ("train", "rest", 1),
        ("test", None, 0),
    ]
    mine = [{"name": "x4", "items": 10, "copies": 4}, {"name": "holdout", "items": 5, "copies": 0}]
    config = KIND.config.model_validate(sums(arms=mine))
    assert [a.name for a in config.arms] == ["x4", "holdout", "test"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": "1M"}, "exactly one of 'count'"),
        ({"count": None}, "exactly one of 'count'"),
        ({"count": None, "tokens": "many"}, "'many' is not a number of tokens"),
        ({"count": None, "tokens": 0}, "at least 1 token"),
        ({"ops": [5, 2]}, "from 5 to 2: the first must not exceed the second"),
        ({"ops": [0, 2]}, "greater than or equal to 1"),
        ({"test": {"ops": [1, 41]}}, "less than or equal to 40"),
        ({"test": {"count": 0}}, "greater than or equal to 1"),
        ({"arms": [{"name": "test", "copies": 2}]}, "has copies: 0 and no items"),
        ({"arms": [{"name": "test", "copies": 0, "items": 5}]}, "has copies: 0 and no items"),
    ],
)
def test_wrong_sections_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        KIND.config.model_validate(sums(**changes))


def test_every_test_problem_is_solved_again(context, monkeypatch):
    wrong = check_problem(BY_HAND)
    monkeypatch.setattr("mixctl.injections.mathematics.check_problem", lambda text: wrong)
    with pytest.raises(RuntimeError, match="a wrong word problem was made"):
        items_of(context)


def test_prompts_that_are_longer_than_a_sequence_are_refused(tok, tmp_path):
    short = KindContext(tmp_path, load_encoder(tok), 5, max_payload_tokens=999, sequence_tokens=501)
    with pytest.raises(
        InputError,
        match="problems are longer with their 3 shots than max_seq_length 500: item 'test-0.*lower",
    ):
        items_of(short, shots=3)
