"""Ranking, errors and importance of trials, with known answers."""

import math
import sys
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats

from hpcgan.sweep.statistics import Mean, importance, mean_of, ranking
from hpcgan.sweep.table import Row, Table


def trial(number, score, state="complete", params=None, **changed):
    params = {"a": number} if params is None else params
    return Row(number=number, state=state, params=params, score=score, epoch=1, **changed)


def again(number, repeat_of, score, **changed):
    return trial(number, score, repeat_of=repeat_of, **changed)


def test_mean_by_hand():
    assert mean_of([]) is None
    assert mean_of([3.0]) == Mean(3.0, None, None, 1)
    found = mean_of([1.0, 2.0, 6.0])  # squares of deviations 4 + 1 + 9, over 2
    assert found == Mean(3.0, pytest.approx(math.sqrt(7 / 3)), pytest.approx(math.sqrt(7)), 3)


def test_without_repeats_the_lowest_complete_score_leads():
    rows = [
        trial(0, 5.0),
        trial(1, 3.0),
        trial(2, 1.0, "pruned"),
        trial(3, 2.0, "failed"),
        trial(4, None),
        trial(5, 3.0),
    ]
    found = ranking(rows)
    assert [(s.place, s.number, s.value) for s in found] == [(1, 1, 3.0), (2, 5, 3.0), (3, 0, 5.0)]
    assert all(s.repeats is None and s.tied is None for s in found)
    assert ranking([]) == []


def test_repeats_alone_decide_among_those_repeated():
    """Trial 0 had the luckier score; its configuration is the worse one. Its own score is in no mean."""
    rows = [trial(0, 1.0), trial(1, 2.0), trial(2, 1.5)]
    rows += [again(10 + i, 0, s) for i, s in enumerate((5.0, 6.0, 7.0))]
    rows += [again(20 + i, 1, s, test_score=s + 1.0) for i, s in enumerate((2.0, 3.0, 4.0))]
    first, second, third = ranking(rows)
    assert (first.number, first.repeats) == (1, Mean(3.0, pytest.approx(1 / math.sqrt(3)), 1.0, 3))
    assert (second.number, second.repeats.mean, second.score) == (0, 6.0, 1.0)
    assert (third.number, third.repeats, third.value) == (2, None, 1.5)
    assert first.test == Mean(4.0, pytest.approx(1 / math.sqrt(3)), 1.0, 3)
    # Both standard errors are 1/sqrt(3): sqrt(2/3). Welch's t = 3 / sqrt(2/3) = 3.67 with 4 degrees: p = 0.021.
    assert (second.difference, second.difference_error) == (3.0, pytest.approx(math.sqrt(2 / 3)))
    assert (first.tied, second.tied, third.tied) == (None, False, None)


@pytest.mark.parametrize("seed", range(20))
def test_ties_are_those_of_welchs_test(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(5.0, 0.5, 4), rng.normal(5.8, 1.5, 6)
    rows = [trial(0, 1.0), trial(1, 1.0), *(again(10 + i, 0, s) for i, s in enumerate(a))]
    rows += [again(20 + i, 1, s) for i, s in enumerate(b)]
    p = scipy.stats.ttest_ind(a, b, equal_var=False).pvalue
    assert ranking(rows)[1].tied == (p > 0.05)


def test_single_repeats_tell_nothing_of_ties():
    second = ranking([trial(0, 1.0), trial(1, 2.0), again(2, 0, 4.0), again(3, 1, 9.0)])[1]
    assert (second.difference, second.difference_error, second.tied) == (5.0, None, None)
    rows = [trial(0, 1.0), trial(1, 2.0), *(again(2 + i, 0, 4.0) for i in range(2))]
    assert [s.tied for s in ranking([*rows, *(again(8 + i, 1, 4.5) for i in range(2))])] == [None, False]


def test_repeats_that_came_to_nothing_put_a_trial_after_the_others():
    rows = [trial(0, 1.0), trial(1, 2.0), again(2, 0, 3.0), again(3, 0, None, state="failed"), again(4, 1, 9.0)]
    rows += [again(5, 1, None, state="running")]
    first, second = ranking(rows)
    assert (first.number, first.unfinished, second.number, second.unfinished) == (1, 0, 0, 1)
    assert second.repeats.n == 1
    only_failed = ranking([trial(0, 1.0), trial(1, 2.0), again(2, 0, None, state="failed")])
    assert [(s.number, s.unfinished, s.value) for s in only_failed] == [(1, 0, 2.0), (0, 1, 1.0)]


def test_repeats_count_though_the_trial_cannot_be_read():
    (found,) = ranking([trial(0, None, "broken", params={}), again(1, 0, 3.0, params={"a": 5})])
    assert (found.number, found.score, found.repeats.mean, found.params) == (0, None, 3.0, {"a": 5})


# --- importance -------------------------------------------------------------------------------------

SPACE = {
    "rate": {"log_uniform": [1e-5, 1e-2]},
    "width": {"choice": [8, 16, 32]},
    "flip": {"uniform": [0.0, 0.2]},
    "layers": {"int": [1, 6]},
}


def table_of(n, score, seed=0, space=SPACE):
    """A random search of n trials whose score is a function of the parameters."""
    rng, rows = np.random.default_rng(seed), []
    for number in range(n):
        params = {
            "rate": float(10 ** rng.uniform(-5, -2)),
            "width": int(rng.choice([8, 16, 32])),
            "flip": float(rng.uniform(0, 0.2)),
            "layers": int(rng.integers(1, 7)),
        }
        rows.append(trial(number, float(score(params, rng)), params=params))
    return Table(None, SimpleNamespace(space=space), tuple(rows))


def test_the_one_parameter_that_decides_is_found():
    found = importance(table_of(60, lambda p, rng: (math.log10(p["rate"]) + 3.0) ** 2), shuffles=50)
    first, *others = found.weights
    assert first.key == "rate"
    assert first.share > 0.6 > first.chance
    assert all(w.share < w.chance for w in others)
    assert {w.key for w in found.weights} == set(SPACE)
    assert sum(w.share for w in found.weights) == pytest.approx(1.0)
    assert (found.trials, found.top, found.reason) == (60, 20, None)
    assert found == importance(table_of(60, lambda p, rng: (math.log10(p["rate"]) + 3.0) ** 2), shuffles=50)


def test_a_choice_that_decides_is_found():
    found = importance(table_of(40, lambda p, rng: p["width"] + 1e-3 * rng.random()), shuffles=50)
    assert found.weights[0].key == "width"
    assert found.weights[0].share > found.weights[0].chance


def test_noise_seldom_stands_out():
    """Four parameters, each above the 95% level of chance in 5% of studies: in 20 studies, 4 times on average."""
    above = 0
    for seed in range(20):
        found = importance(table_of(30, lambda p, rng: rng.random(), seed), shuffles=40)
        above += sum(w.share > w.chance for w in found.weights)
    assert above <= 11  # of 80; more have a probability of 0.1%


@pytest.mark.parametrize(("n", "top"), [(10, 5), (15, 5), (16, 6), (60, 20), (61, 21)])
def test_the_best_are_a_third_but_five_at_least(n, top):
    assert importance(table_of(n, lambda p, rng: p["flip"]), shuffles=2).top == top


def test_a_parameter_that_only_some_trials_have():
    table = table_of(40, lambda p, rng: p["flip"])
    rows = [replace(r, params={k: v for k, v in r.params.items() if k != "layers" or r.number % 2}) for r in table.rows]
    found = importance(Table(None, table.description, tuple(rows)), shuffles=20)
    assert found.weights[0].key == "flip"
    assert "layers" in {w.key for w in found.weights}


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (table_of(9, lambda p, rng: p["flip"]), "9 complete trials say nothing yet: at least 10"),
        (table_of(12, lambda p, rng: 1.0), "the same score"),
        (Table(None, SimpleNamespace(space={}), tuple(trial(i, i, params={"a": 1}) for i in range(12))), "was varied"),
    ],
)
def test_no_importance_has_a_reason(table, reason):
    found = importance(table)
    assert found.weights == ()
    assert reason in found.reason


def test_importance_without_optuna(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert "pip install 'hpcgan[sweep]'" in importance(table_of(12, lambda p, rng: p["flip"])).reason


def test_importance_leaves_no_trace(capfd):
    import optuna

    before = optuna.logging.get_verbosity()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        importance(table_of(12, lambda p, rng: p["flip"]), shuffles=2)
    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr() == ("", "")
