"""Boxes that are halved until they are the cells of a geometry, and the density that does so."""

import itertools
import math

import needs
import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.stats import norm

tf = needs.tensorflow()

from hpcgan.networks.sharing import NUMBERS  # noqa: E402
from hpcgan.problems.arm import boxes as boxes_module  # noqa: E402
from hpcgan.problems.arm.boxes import FAR, NEAR_ACROSS, NEAR_ALONG, boxes_of  # noqa: E402
from hpcgan.problems.arm.geometry import FINEST, parse, parse_layer, parts  # noqa: E402
from hpcgan.problems.arm.network_boxes import Boxwise  # noqa: E402
from hpcgan.problems.arm.problem import ArmModel, ArmProblem  # noqa: E402

LAYER = "outer"
FINE = FINEST[LAYER]
GEOMETRIES = ("eta6_phi4", "eta3+12_phi8", "eta=-240,-180,-20,40,240_phi=-240,100,240", "eta24_phi24")


def model(geometries=GEOMETRIES, **settings):
    base = {"layer": LAYER, "geometries": geometries, "architecture": "boxes", "hidden_units": 8}
    return ArmModel.model_validate({**base, **settings})


def density(geometries=GEOMETRIES, seed=1, scale=0.3, likely_both=0.0):
    """With weights and constants large enough to matter."""
    built = Boxwise(model(geometries), seed, "float64")
    rng = np.random.default_rng(seed)
    for variable in [*built.weights, built.layers[0].prior]:
        variable.assign_add(scale * rng.normal(size=variable.shape))
    built.layers[0].out_bias.assign_add([0.0, 0.0, likely_both] + [0.0] * 128)
    return built


def showers(geometries, each=6, seed=2):
    """Sparse ones, GeV, `each` in every geometry."""
    rng = np.random.default_rng(seed)
    cells = [parse_layer(text, LAYER).n_cells for text in geometries]
    n, width = each * len(cells), max(cells)
    numbers = np.arange(n) % len(cells)
    values = 1e-5 * np.exp(rng.uniform(0.1, 9.0, (n, width))) * (rng.random((n, width)) < 0.3)
    values *= np.arange(width) < np.array(cells)[numbers][:, None]
    return {"cells": tf.constant(values), "geometry": tf.constant(numbers, tf.float64)}


# --- boxes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [*GEOMETRIES, "eta1_phi=-240,-100,0,20,60,240", "eta12_phi1"])
def test_halves_of_boxes_are_boxes_that_come_later_and_at_last_every_cell_once(text):
    geometry = parse_layer(text, LAYER)
    boxes = boxes_of(geometry, FINE)
    count = geometry.n_cells - 1
    assert len(boxes.stage) == count
    assert np.all(np.diff(boxes.stage) >= 0)
    assert sorted(boxes.halves.ravel()) == list(range(1, 2 * count + 1))
    number, half = np.nonzero(boxes.halves < count)
    assert np.all(boxes.stage[number] < boxes.stage[boxes.halves[number, half]])


def test_a_box_is_cut_along_its_longer_side_next_to_its_middle():
    boxes = boxes_of(parse_layer("eta=-240,-180,-20,40,240_phi=-240,100,240", LAYER), FINE)
    # The window: rows first, at the only edge there is, 340 of 480 mm from below; of its own frame below is first.
    np.testing.assert_array_equal(boxes.frames.lengths[0], [17, 24, 24])
    np.testing.assert_array_equal(boxes.frames.step[0], [25, 1])
    assert boxes.frames.origin[0] == 0
    # Then its parts, 480 mm wide: at -20 mm, 11 of the finest cells from the left.
    np.testing.assert_array_equal(boxes.frames.lengths[1:3], [[11, 24, 17], [11, 24, 7]])
    # On the left, 220 mm: at -180 mm, seen from the centre.
    at = boxes.frames.lengths[3:].tolist().index([8, 11, 17])
    np.testing.assert_array_equal(boxes.frames.step[3 + at], [-1, -25])  # the lower part is below the centre: downwards
    assert boxes.frames.origin[3 + at] == 17 * 25 + 11


def test_mirrored_geometries_have_the_same_boxes():
    """But for those in the middle, and the order, which colours make."""
    mine, mirrored = (boxes_of(parse_layer(text, LAYER), FINE) for text in ("eta3+12_phi8", "eta12+3_phi8"))

    def off_axis(boxes):
        rows = np.concatenate([boxes.frames.lengths, boxes.kind, boxes.features[:, :-8]], axis=1)
        return sorted(map(tuple, rows[np.all(boxes.kind[:, 1:] > 0, axis=1)].round(9)))

    assert off_axis(mine) == off_axis(mirrored)
    assert len(off_axis(mine)) > 50


def test_boxes_around_are_named_that_are_split_before():
    """Of the 4 x 4 boxes that are squares of six finest cells."""
    boxes = boxes_of(parse_layer("eta4_phi8", LAYER), FINE)
    of_size = np.flatnonzero((boxes.frames.lengths[:, 1] == 6) & (boxes.frames.lengths[:, 2] == 6))
    assert len(of_size) == 16
    turn = {}
    for number in of_size:
        corner, step = boxes.frames.origin[number], boxes.frames.step[number]
        middle = corner + step.sum() * 3  # half a box along and across
        turn[middle // 25 // 6, middle % 25 // 6] = boxes.stage[number] % 4
    assert turn[0, 0] == 0
    assert sorted(turn.values()) == sorted([0, 1, 2, 3] * 4)
    for number in of_size:
        corner, step = boxes.frames.origin[number], boxes.frames.step[number]
        for flag, (along, across) in zip(boxes.features[number, -8:], boxes_module._AROUND, strict=True):
            middle = [corner // 25, corner % 25]
            for steps, by in ((3 + 6 * along, step[0]), (3 + 6 * across, step[1])):
                middle[0 if abs(by) == 25 else 1] += steps * int(np.sign(by))
            there = turn.get((middle[0] // 6, middle[1] // 6), 9)
            assert flag == float(there < boxes.stage[number] % 4)


# --- the density -------------------------------------------------------------------------------------------------


def rectangle(boxes, number):
    """Rows and columns of a box."""
    corner, step = boxes.frames.origin[number], boxes.frames.step[number]
    ends = [[corner // 25], [corner % 25]]
    for by, length in zip(step, boxes.frames.lengths[number, 1:], strict=True):
        axis = 0 if abs(by) == 25 else 1
        ends[axis].append(ends[axis][0] + int(np.sign(by)) * length)
    return [slice(min(pair), max(pair)) for pair in ends]


def test_halves_and_windows_are_sums_over_the_finest_cells():
    """Against images painted cell by cell, at every stage."""
    built, sample = density(), showers(GEOMETRIES, each=1)
    layer, of_layer = built.layers[0], built._showers(0, sample, ())
    some, first, second = layer.split(of_layer)
    (view,) = layer._views(layer._known(of_layer, some, first, second), some, of_layer)
    windows = layer.tables.windows(view, some).numpy()
    number, shower = some.number.numpy() % layer.tables.boxes, some.shower.numpy()
    first, second = first.numpy(), second.numpy()
    for which, text in enumerate(GEOMETRIES):
        geometry = parse_layer(text, LAYER)
        boxes, cells = boxes_of(geometry, FINE), sample["cells"].numpy()[which][: geometry.n_cells]
        edges = [np.rint((np.array(e) + 240) / 20).astype(int) for e in (geometry.phi_edges, geometry.eta_edges)]
        true = np.zeros((24, 24))
        true[np.ix_(edges[0][:-1], edges[1][:-1])] = cells.reshape(geometry.shape)
        rows = np.flatnonzero(shower == which)
        energy = {n: true[tuple(rectangle(boxes, n))].sum() for n in range(len(boxes.stage))}
        lit = [n for n in energy if energy[n] > 0]
        assert sorted(number[rows]) == lit
        image, stage = np.full((24, 24), energy[0] / 576), -1
        for row in rows[np.argsort(number[rows], kind="stable")]:
            n = number[row]
            assert first[row] + second[row] == pytest.approx(energy[n], rel=1e-12)
            if boxes.stage[n] > stage:  # what was split in earlier stages is known now
                stage = boxes.stage[n]
                for m in lit:
                    if boxes.stage[m] < stage:
                        for half in boxes.halves[m]:
                            if half < len(boxes.stage):
                                area = tuple(rectangle(boxes, half))
                                image[area] = energy[half] / image[area].size
                            else:
                                r, c = divmod(half - len(boxes.stage), geometry.shape[1])
                                area = np.s_[edges[0][r] : edges[0][r + 1], edges[1][c] : edges[1][c + 1]]
                                image[area] = cells[half - len(boxes.stage)] / image[area].size
            np.testing.assert_allclose(windows[row], by_hand(boxes, n, image), rtol=1e-9, atol=1e-12)


def by_hand(boxes, number, image):
    """Sums over all windows around a box, one by one."""
    corner, step = boxes.frames.origin[number], np.sign(boxes.frames.step[number])
    cut, along, across = boxes.frames.lengths[number]
    is_row = abs(boxes.frames.step[number, 0]) == 25
    start = (corner // 25, corner % 25) if is_row else (corner % 25, corner // 25)
    turned = image if is_row else image.T

    def window(low, high, left, right):
        ends = (
            sorted(start[0] + step[0] * x for x in (low, high)),
            sorted(start[1] + step[1] * x for x in (left, right)),
        )
        (a, b), (c, d) = ([min(max(x, 0), 24) for x in pair] for pair in ends)
        return turned[a:b, c:d].sum()

    half, sums = max(1, along // 2), []
    for i in range(-NEAR_ALONG, NEAR_ALONG):
        for j in range(-NEAR_ACROSS, NEAR_ACROSS + 1):
            sums.append(window(cut + i * half, cut + (i + 1) * half, j * across, (j + 1) * across))
    for a, b in itertools.pairwise(FAR):
        for c, d in itertools.pairwise(FAR):
            sums.append(window(a * along, b * along, c * across, d * across))
    return sums


def test_samples_have_the_drawn_energy_and_lit_cells_above_the_threshold():
    built = density(likely_both=4.0)
    built.quantiles.assign(np.linspace(1e-6, 0.05, 1025))
    n = 80
    noise = np.random.default_rng(3).normal(size=(n, 1 + NUMBERS * 575))
    sample = built(tf.constant(noise), {"geometry": tf.constant(np.arange(n) % 4, tf.float64)})["cells"].numpy()
    place = norm.cdf(noise[:, 0])
    total = 1e-6 + place * (0.05 - 1e-6)
    np.testing.assert_allclose(sample.sum(axis=1), np.where(total >= 1e-5, total, 0.0), rtol=1e-9)
    assert sample[sample > 0].min() >= 0.999e-5
    for number, text in enumerate(GEOMETRIES):
        np.testing.assert_array_equal(sample[number::4, parse_layer(text, LAYER).n_cells :], 0.0)
    assert (sample > 0).sum(axis=1).max() > 20


def test_drawing_sees_what_the_likelihood_sees(monkeypatch):
    """The features of every box while a shower is drawn are those of the finished shower."""
    built, seen = density(likely_both=4.0), []
    answers = built.layers[0].answers
    monkeypatch.setattr(
        built.layers[0], "answers", lambda x, boxes, whole: seen.append((x, boxes)) or answers(x, boxes, whole)
    )
    built.quantiles.assign(np.full(1025, 0.05))
    n = 8
    noise = tf.constant(np.random.default_rng(4).normal(size=(n, 1 + NUMBERS * 575)))
    conditions = {"geometry": tf.constant(np.arange(n) % 4, tf.float64)}
    sample = {**built(noise, conditions), **conditions}
    drawn = {}
    for x, some in seen:
        for row, shower, number in zip(x.numpy(), some.shower.numpy(), some.number.numpy(), strict=True):
            drawn[shower, number] = row
    seen.clear()
    built.log_prob(sample)
    (x, some), = seen  # fmt: skip
    keys = list(zip(some.shower.numpy(), some.number.numpy(), strict=True))
    assert sorted(keys) == sorted(drawn)
    np.testing.assert_allclose(x.numpy(), [drawn[key] for key in keys], rtol=1e-7, atol=1e-7)


def test_a_single_sample_in_a_compiled_function_is_that_of_a_batch():
    built = density(likely_both=4.0)
    built.quantiles.assign(np.full(1025, 0.05))
    noise = tf.constant(np.random.default_rng(8).normal(size=(3, 1 + NUMBERS * 575)))
    geometry = tf.constant([0.0, 1.0, 3.0], tf.float64)
    batch = built(noise, {"geometry": geometry})["cells"].numpy()
    compiled = tf.function(built, autograph=False)(noise[1:2], {"geometry": geometry[1:2]})["cells"]
    np.testing.assert_allclose(compiled, batch[1:2], rtol=1e-9)


def test_of_a_geometry_with_one_cell_this_has_all_energy():
    built = density(("eta1_phi1", "eta2_phi1"))
    built.quantiles.assign(np.full(1025, 0.05))
    noise = tf.constant(np.random.default_rng(9).normal(size=(4, 1 + NUMBERS)))
    conditions = {"geometry": tf.constant([0.0, 1.0, 0.0, 1.0], tf.float64)}
    sample = {**built(noise, conditions), **conditions}
    np.testing.assert_allclose(sample["cells"].numpy().sum(axis=1), 0.05)
    np.testing.assert_allclose(sample["cells"].numpy()[::2, 0], 0.05)
    np.testing.assert_array_equal(built.log_prob(sample).numpy()[::2], 0.0)


def test_over_two_cells_the_density_integrates_to_one():
    """Either cell alone, or both at all shares: three decades above the threshold."""
    built, total = density(("eta2_phi1",), scale=0.02), 0.02
    logit = np.linspace(-math.log(1999), math.log(1999), 20001)[1:-1]
    share = 1 / (1 + np.exp(-logit))
    cells = np.stack([total * share, total * (1 - share)], axis=1)
    log_p = built.log_prob({"cells": tf.constant(cells), "geometry": tf.zeros([len(cells)], tf.float64)}).numpy()
    both = trapezoid(np.exp(log_p) * total * share * (1 - share), logit)
    alone = {"cells": tf.constant([[total, 0.0], [0.0, total]], tf.float64), "geometry": tf.zeros([2], tf.float64)}
    p = np.exp(built.log_prob(alone).numpy())
    assert both + p.sum() == pytest.approx(1.0, abs=2e-4)
    assert min(both, *p) > 0.05


def test_of_one_deposit_the_probabilities_of_all_cells_sum_to_one_and_are_those_of_samples():
    """What two cells cannot share is in one of 12 cells."""
    built, total, n = density(("eta4_phi3",), scale=0.02), 1.5e-5, 4000
    cells = total * np.eye(12)
    log_p = built.log_prob({"cells": tf.constant(cells), "geometry": tf.zeros([12], tf.float64)}).numpy()
    p = np.exp(log_p)
    assert p.sum() == pytest.approx(1.0, rel=1e-9)
    assert p.min() > 1e-4
    built.quantiles.assign(np.full(1025, total))
    noise = tf.constant(np.random.default_rng(5).normal(size=(n, 1 + NUMBERS * 11)))
    sample = built(noise, {"geometry": tf.zeros([n], tf.float64)})["cells"].numpy()
    shares = (sample > 0).mean(axis=0)
    assert np.all(np.abs(shares - p) < 4.5 * np.sqrt(p * (1 - p) / n))


def test_a_geometry_has_the_same_probabilities_whatever_others_the_model_has():
    """So a geometry that comes later is asked for as one that was there from the beginning."""
    texts = GEOMETRIES[1:2]
    alone, among = density(texts), density(GEOMETRIES)
    sample = showers(texts)
    for variable, value in zip(among.weights, alone.weights, strict=True):
        variable.assign(value)
    for built in (alone, among):
        built.layers[0].prior.assign(np.zeros(built.layers[0].prior.shape))
    others = {
        "cells": tf.pad(sample["cells"], [[0, 0], [0, 576 - sample["cells"].shape[1]]]),
        "geometry": tf.ones_like(sample["geometry"]),
    }
    np.testing.assert_allclose(among.log_prob(others), alone.log_prob(sample), rtol=1e-10)


def test_constants_are_those_of_the_training_showers():
    built, sample = density(scale=0.0), showers(GEOMETRIES, each=40)
    sample = {name: values[:120] for name, values in sample.items()}
    sample["geometry"] %= 3.0  # none in the last geometry, whose smallest boxes are smaller than all others
    cells = np.where(np.arange(576) < 24, sample["cells"].numpy(), 0.0)
    cells[sample["geometry"].numpy() == 2, 8:] = 0.0
    sample["cells"] = tf.constant(cells)
    built.calibrate([{name: values[i : i + 50] for name, values in sample.items()} for i in (0, 50, 100)])
    totals = cells.sum(axis=1)
    assert built.quantiles.numpy()[[0, 512, -1]] == pytest.approx([totals.min(), np.median(totals), totals.max()])
    layer, of_layer = built.layers[0], built._showers(0, sample, ())
    some, first, second = layer.split(of_layer)
    views = layer._views(layer._known(of_layer, some, first, second), some, of_layer)
    x = layer.features(views, some, first + second, layer._total(of_layer), of_layer).numpy()
    np.testing.assert_allclose(layer.mean.numpy(), x.mean(axis=0), atol=1e-9)
    np.testing.assert_allclose(1 / layer.scale.numpy() - 0.05, x.std(axis=0), atol=1e-6)
    np.testing.assert_allclose(np.exp(layer.prior.numpy())[:, :3].sum(axis=1), 1.0)
    np.testing.assert_allclose(np.exp(layer.prior.numpy())[:, 3:].sum(axis=1), 1.0)
    kinds = layer.tables.kinds
    of_training = np.unique(layer.tables.kind.numpy()[some.number.numpy()])
    unseen = [k for k in range(len(kinds)) if k not in of_training]
    assert len(unseen) > 3
    for kind in unseen:  # has what the nearest has
        near = of_training[np.abs(kinds[of_training] - kinds[kind]).sum(axis=1).argmin()]
        np.testing.assert_array_equal(layer.prior.numpy()[kind], layer.prior.numpy()[near])


def test_the_encoding_is_in_gev_and_comes_back():
    problem = ArmProblem(model())
    sample = {"cells": np.array([[1.5, 0.0, 2000.0]], np.float32), "geometry": np.zeros(1, np.float32)}
    encoded = problem.encode(sample)
    np.testing.assert_allclose(encoded["cells"], [[0.0015, 0.0, 2.0]])
    np.testing.assert_allclose(problem.decode(encoded)["cells"], sample["cells"])
    assert problem.noise_dim == 1 + 2 * 575


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": "boxes"}, "model.architecture=boxes needs model.hidden_units"),
        ({"architecture": "boxes", "hidden_units": 8, "kernel": 5}, "model.kernel is of model.architecture=spiral"),
        ({"hidden_units": 8}, "model.hidden_units is of model.architecture=boxes, here it is spiral"),
    ],
)
def test_options_of_the_other_architecture_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ArmModel.model_validate({"layer": LAYER, **settings})


def test_the_energy_of_the_layer_and_its_shares_depend_on_the_particles_energy():
    built = Boxwise(model(("eta4_phi3",), sees_energy=True), 1, "float64")
    rng = np.random.default_rng(6)
    for variable in built.weights:
        variable.assign_add(0.02 * rng.normal(size=variable.shape))
    n = 400
    energies = rng.uniform(1.0, 100.0, n)
    cells = energies[:, None] * rng.dirichlet(np.ones(12), n) * 0.1
    sample = {
        "cells": tf.constant(cells),
        "geometry": tf.zeros([n], tf.float64),
        "incident_energy": tf.constant(energies),
    }
    built.calibrate([sample])
    noise = tf.constant(rng.normal(size=(n, 1 + NUMBERS * 11)))
    conditions = {name: sample[name] for name in ("geometry", "incident_energy")}
    showers_of_energies = built(noise, conditions)["cells"].numpy()
    np.testing.assert_allclose(showers_of_energies.sum(axis=1), 0.1 * energies, rtol=1e-6)
    other = {**sample, "incident_energy": 2.0 * sample["incident_energy"]}
    assert np.all(built.log_prob(sample).numpy() != built.log_prob(other).numpy())


# --- the whole calorimeter -----------------------------------------------------------------------------------------

WHOLES = ("eta48_phi4/eta6_phi6/eta4_phi4", "eta6_phi12/eta6_phi6/eta2+6_phi3")


def whole_density(seed=1, scale=0.02):
    built = Boxwise(whole_model(), seed, "float64")
    rng = np.random.default_rng(seed)
    for variable in built.weights:
        variable.assign_add(scale * rng.normal(size=variable.shape))
    for layer in built.layers:
        layer.out_bias.assign_add([0.0, 0.0, 3.0] + [0.0] * 128)
    return built


def test_each_layer_sees_the_layers_before_it_where_a_box_is():
    """Windows in the images of other layers, against images painted on the finest cells of all."""
    built, rng = whole_density(), np.random.default_rng(7)
    geometries = [parse(text, "whole") for text in WHOLES]
    cells = np.zeros((2, built.of_layers[0].gather.numpy().max()))
    fine = []
    for row, geometry in enumerate(geometries):
        painted = []
        for layer, of_layer, which in parts(geometry, "whole"):
            cells[row, which] = (
                1e-5 * np.exp(rng.uniform(0.1, 9.0, of_layer.n_cells)) * (rng.random(of_layer.n_cells) < 0.5)
            )
            painted.append(spread(cells[row, which], of_layer, FINEST[layer]))
        fine.append(painted)
    sample = {"cells": tf.constant(cells), "geometry": tf.constant([0.0, 1.0], tf.float64)}
    outer = built.layers[2]
    showers = built._showers(2, sample, built._before(2, sample))
    some, first, second = outer.split(showers)
    views = outer._views(outer._known(showers, some, first, second), some, showers)
    for before, view in enumerate(views[1:]):
        windows = outer.tables.windows(view, some).numpy()
        grid = FINEST[("inner", "middle")[before]]
        for row in range(len(windows)):
            shower, number = int(some.shower[row]), int(some.number[row]) % outer.tables.boxes
            of_layer = built.of_layers[2].geometries[int(built.of_layers[2].number[shower])]
            boxes = boxes_of(of_layer, FINE)
            # As images of 24 x 24: whole sums of the finer cells.
            coarse = fine[shower][before].reshape(24, grid.n_phi // 24, 24, grid.n_eta // 24).sum(axis=(1, 3))
            np.testing.assert_allclose(windows[row], by_hand(boxes, number, coarse), rtol=1e-9, atol=1e-12)


def spread(cells, geometry, grid):
    """Energies of the finest cells, even within each cell."""
    rows, columns = (
        np.searchsorted(np.array(edges), centres) - 1
        for edges, centres in ((geometry.phi_edges, grid.phi_centres), (geometry.eta_edges, grid.eta_centres))
    )
    share = (480.0**2 / grid.n_cells / geometry.sizes.prod(axis=1) * cells).reshape(geometry.shape)
    return share[rows[:, None], columns[None]]


def test_drawing_whole_showers_sees_what_the_likelihood_sees(monkeypatch):
    built, seen = whole_density(), []
    for i, layer in enumerate(built.layers):
        answers = layer.answers

        def noted(x, boxes, whole, i=i, answers=answers):
            seen.append((i, x, boxes))
            return answers(x, boxes, whole)

        monkeypatch.setattr(layer, "answers", noted)
    built.quantiles.assign(np.full(1025, 0.05))
    n = 6
    conditions = {"geometry": tf.constant(np.arange(n) % 2, tf.float64)}
    noise = tf.constant(np.random.default_rng(4).normal(size=(n, ArmProblem(whole_model()).noise_dim)))
    sample = {**built(noise, conditions), **conditions}
    np.testing.assert_allclose(sample["cells"].numpy().sum(axis=1), 0.05, rtol=1e-9)
    drawn = {}
    for i, x, some in seen:
        for row, shower, number in zip(x.numpy(), some.shower.numpy(), some.number.numpy(), strict=True):
            drawn[i, shower, number] = row
    seen.clear()
    log_p = built.log_prob(sample)
    assert np.all(np.isfinite(log_p))
    again = {}
    for i, x, some in seen:
        for row, shower, number in zip(x.numpy(), some.shower.numpy(), some.number.numpy(), strict=True):
            again[i, shower, number] = row
    assert sorted(again) == sorted(drawn)
    for layer in (0, 1, 2):
        keys = [key for key in again if key[0] == layer]
        assert len(keys) > 20
        np.testing.assert_allclose([again[key] for key in keys], [drawn[key] for key in keys], rtol=1e-6, atol=1e-6)


def whole_model():
    return ArmModel(layer="whole", geometries=WHOLES, architecture="boxes", hidden_units=8)


def test_a_spiral_is_of_one_layer():
    with pytest.raises(ValueError, match=r"model.layer=whole needs model.architecture=boxes"):
        ArmModel(layer="whole")
    with pytest.raises(ValueError, match="give one of each layer \\(inner, middle, outer\\)"):
        ArmModel(layer="whole", geometries=("eta2_phi2",), architecture="boxes", hidden_units=8)
