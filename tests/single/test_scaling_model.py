"""The extrapolation of scaling studies: formulas with known answers, the fit, a whole model of a made-up study."""

from __future__ import annotations

import json

import numpy as np
import pytest
from studies import SETTING, rank, result, study_in

from hpcgan.commands import cli
from hpcgan.errors import InputError
from hpcgan.scaling import model
from hpcgan.scaling.measure import SWEEP_SIZES

ALPHA, BETA = 2e-5, 1e-9


def test_ring_and_tree_by_hand():
    # 4 ranks, 1000 bytes: the ring sends 6 messages, halving and doubling 4; both move 1.5 times the buffer.
    assert model.allreduce_s("ring", 4, 1000.0, 1e-6, 1e-9) == pytest.approx(6e-6 + 1.5e-6)
    assert model.allreduce_s("tree", 4, 1000.0, 1e-6, 1e-9) == pytest.approx(4e-6 + 1.5e-6)
    assert model.allreduce_s("tree", 5, 0.0, 1e-6, 1e-9) == pytest.approx(6e-6)  # three rounds each way
    for algorithm in model.ALGORITHMS:
        assert model.allreduce_s(algorithm, 1, 1000.0, 1e-6, 1e-9) == 0.0
        assert model.allreduce_s(algorithm, 2, 1000.0, 1e-6, 1e-9) == pytest.approx(2e-6 + 1e-6)
    assert model.allreduce_s("ring", 8192, 1e6, 0.0, 1e-9) == pytest.approx(2e-3, rel=2e-4)


@pytest.mark.parametrize("algorithm", model.ALGORITHMS)
@pytest.mark.parametrize("p", [2, 4, 7])
def test_the_fit_finds_latency_and_bandwidth(algorithm, p):
    exact = [float(model.allreduce_s(algorithm, p, n, ALPHA, BETA)) for n in SWEEP_SIZES]
    assert model.fit(p, SWEEP_SIZES, exact, algorithm) == pytest.approx((ALPHA, BETA), rel=1e-6)
    noise = 1 + 0.05 * np.random.default_rng(1).standard_normal(len(exact))
    assert model.fit(p, SWEEP_SIZES, noise * exact, algorithm) == pytest.approx((ALPHA, BETA), rel=0.1)


def test_the_fit_keeps_both_above_zero():
    alpha, beta = model.fit(2, SWEEP_SIZES, [1e-9 * n for n in SWEEP_SIZES])
    assert (alpha, beta) == (pytest.approx(0.0, abs=1e-9), pytest.approx(1e-9))


def test_the_largest_of_normal_numbers():
    exact = [0.0, np.pi**-0.5, 1.5 * np.pi**-0.5, 1.029375]  # David and Nagaraja, table of normal order statistics
    np.testing.assert_allclose(model.expected_maximum(np.array([1, 2, 3, 4])), exact, atol=2e-6)
    draws = np.random.default_rng(1).standard_normal((4000, 1000)).max(axis=1)
    assert model.expected_maximum(1000) == pytest.approx(draws.mean(), abs=4 * draws.std() / 4000**0.5)


def test_nodes():
    assert model.parse_nodes("1..8") == [1, 2, 4, 8]
    assert model.parse_nodes("3..9") == [3, 4, 8, 9]
    assert model.parse_nodes("16,2,2") == [2, 16]
    for text in ("0..4", "8..1", "a", "1..", "0"):
        with pytest.raises(InputError, match="--nodes"):
            model.parse_nodes(text)


def test_networks_have_sources_and_others_can_be_given():
    for name, network in model.NETWORKS.items():
        assert network.source, name
        assert 1e-7 < network.latency_s < 1e-4
        assert model.network(name) is network
    assert model.NETWORKS["InfiniBand-HDR"].bytes_per_second == 200e9 / 8
    given = model.network("1.5,12")
    assert (given.latency_s, given.bytes_per_second) == (pytest.approx(1.5e-6), 12e9)
    for name in ("token-ring", "1.5,0", "1.5"):
        with pytest.raises(InputError, match="choose one of measured, 10GbE"):
            model.network(name)


def made_study(folder, *, spread=0.0, mode="weak", sweep=True, **said):
    """Local steps of 10 ms (strong: 6 and 1 for each sample), 1 ms of input, allreduces as ALPHA and BETA."""
    setting = SETTING.model_copy(update={"mode": mode})
    study = study_in(folder, setting=setting)
    random = np.random.default_rng(1)
    for ranks in (1, 2):
        batch = 4 if mode == "weak" else 4 // ranks
        step = 0.010 if mode == "weak" else 0.006 + 0.001 * batch
        for repeat in (0, 1):
            local = [(step + spread * random.standard_normal((20, 10))).tolist() for _ in range(ranks)]
            measured = [{**rank(r, [[step + 0.002] * 10] * 20, local[r], batch=batch), **said} for r in range(ranks)]
            entry = result(ranks, repeat=repeat, measured=measured)
            (study.points / f"horovod-{ranks}-{repeat}.json").write_text(json.dumps(entry))
    if sweep:
        write_sweep(study, 2, ALPHA)
    return study


def write_sweep(study, ranks, alpha):
    """Allreduces on so many ranks of one node, of this latency."""
    times = {str(n): [float(model.allreduce_s("ring", ranks, n, alpha, BETA))] * 5 for n in SWEEP_SIZES}
    entry = {"ranks": ranks, "comm": "horovod", "nodes": 1, "ranks_measured": [{"times_s": times}] * ranks}
    (study.sweeps / f"horovod-{ranks}.json").write_text(json.dumps(entry))


def test_a_model_of_known_numbers(tmp_path):
    """Without spread: 11 ms of compute and input, then two collectives of 1000 and 2000 bytes."""
    made = model.extrapolate(made_study(tmp_path / "study"), [1, 1024], 2, "Aries")
    assert [p["ranks"] for p in made["curves"]["ring"]] == [2, 2048]
    fixed = 2 * ALPHA  # what an empty allreduce took on two ranks here
    assert made["parameters"]["fixed_s"] == pytest.approx(fixed)
    aries = model.NETWORKS["Aries"]
    for algorithm, messages in (("ring", 2 * 2047), ("tree", 2 * 11)):
        point = made["curves"][algorithm][1]
        wire = 2 * 2047 / 2048 * 3000 / aries.bytes_per_second
        expected = 2 * (fixed + messages * aries.latency_s) + wire
        assert point["communication_s"] == pytest.approx(expected)
        assert point["step_s"] == pytest.approx(0.011 + expected)
        assert point["efficiency"]["value"] == pytest.approx(0.011 / (0.011 + expected))
        assert point["rate"] == pytest.approx(2048 * 4 / (0.011 + expected))
        assert point["imbalance_s"] == pytest.approx(0.0, abs=1e-9)
    assert made["warning"] == "A model, not a measurement."
    assert {entry["name"]: entry["efficiency"] for entry in made["published"]} == {"CosmoFlow": 0.77, "PI-GAN": 0.931}


def test_the_measured_network_is_the_fitted_one(tmp_path):
    made = model.extrapolate(made_study(tmp_path / "study"), [2], 1, "measured")
    assert made["curves"]["ring"][0]["communication_s"] == pytest.approx(2 * 2 * ALPHA + 3000 * BETA)
    with pytest.raises(InputError, match="no measured allreduce of horovod"):
        model.extrapolate(made_study(tmp_path / "other", sweep=False), [2], 1, "measured")


def test_collectives_of_ranks_that_share_cores_are_not_taken_for_the_network(tmp_path):
    """Two cores, one thread a rank: four ranks wait for each other's turn."""
    study = made_study(tmp_path / "study")
    alone = model.extrapolate(study, [2], 1, "measured")
    write_sweep(study, 4, 100 * ALPHA)
    assert model.extrapolate(study, [2], 1, "measured") == alone
    (study.sweeps / "horovod-2.json").unlink()  # better than nothing, and said
    made = model.extrapolate(study, [2], 1, "measured")
    assert made["parameters"]["fixed_s"] == pytest.approx(6 * 100 * ALPHA)
    assert any("measurement on 4 ranks" in note for note in made["notes"])


def test_the_generators_collective_is_in_every_nth_step_only(tmp_path):
    """Of critic steps: 1000 bytes in every fifth step, 2000 in each."""
    made = model.extrapolate(made_study(tmp_path / "study", critic_steps=5), [2], 1, "measured")
    assert made["curves"]["ring"][0]["communication_s"] == pytest.approx(1.2 * 2 * ALPHA + 2200 * BETA)
    assert made["parameters"]["payload_bytes"] == [1000, 2000]


def test_the_spread_is_about_the_median_of_each_kind_of_step():
    """Turns of 2 and R1 in every fourth step, from step 2 on: three kinds, none of which varies."""
    seconds = {(False, False): 0.010, (False, True): 0.014, (True, False): 0.020}
    local = [[seconds[n % 4 == 0, n % 2 == 1] for n in range(2 + 8 * block, 10 + 8 * block)] for block in range(3)]
    measured = [{**rank(0, local, local, every=4), "critic_steps": 2}]
    found = model.observe([result(1, measured=measured)])
    assert found.residuals_s.size == 24
    np.testing.assert_allclose(found.residuals_s, 0.0, atol=1e-15)


def test_imbalance_grows_as_the_largest_of_normal_numbers(tmp_path):
    made = model.extrapolate(made_study(tmp_path / "study", spread=0.0005), [1, 2, 1024], 1, "1,10")
    curve = made["curves"]["tree"]
    assert made["parameters"]["sigma_s"] == pytest.approx(0.0005, rel=0.1)
    ratio = curve[2]["imbalance_s"] / curve[1]["imbalance_s"]
    assert ratio == pytest.approx(float(model.expected_maximum(1024) / model.expected_maximum(2)))
    assert curve[0]["imbalance_s"] == pytest.approx(0.0, abs=1e-9)
    for point in curve[1:]:
        assert point["efficiency"]["low"] < point["efficiency"]["value"] < point["efficiency"]["high"]


def test_the_bootstrap_follows_from_its_seed(tmp_path):
    study = made_study(tmp_path / "study", spread=0.0005)
    a, b, other = (model.extrapolate(study, [64], 1, "Aries", seed=seed)["curves"] for seed in (1, 1, 2))
    assert a == b
    assert a["ring"][0]["efficiency"]["value"] == other["ring"][0]["efficiency"]["value"]
    assert a["ring"][0]["efficiency"]["low"] != other["ring"][0]["efficiency"]["low"]


def test_a_strong_study_ends_at_one_sample_a_rank(tmp_path):
    study = made_study(tmp_path / "study", mode="strong")
    made = model.extrapolate(study, [1, 4, 8], 1, "1,10")
    assert [p["ranks"] for p in made["curves"]["ring"]] == [1, 4]
    one, four = made["curves"]["tree"]
    assert one["compute_s"] == pytest.approx(0.010)  # 6 ms + 4 samples
    assert four["compute_s"] == pytest.approx(0.007)
    assert one["efficiency"]["value"] == pytest.approx(1.0)
    with pytest.raises(InputError, match="a strong study ends at 4 ranks"):
        model.extrapolate(study, [8], 1, "1,10")


def test_the_command_prints_and_writes(tmp_path, capsys):
    made_study(tmp_path / "study", spread=0.0002)
    command = ["scaling", "model", str(tmp_path / "study"), "--nodes", "1..8192", "--interconnect", "InfiniBand-EDR"]
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert said.startswith("A model, not a measurement.")
    assert len([line for line in said.splitlines() if line.split()[:2] == ["8192", "8192"]]) == 2
    assert "CosmoFlow" in said
    stem = tmp_path / "study" / "model-InfiniBand-EDR"
    assert json.loads(stem.with_suffix(".json").read_text())["kind"] == "model"
    assert stem.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--interconnect", "Aries"], "name one study"),
        (["absent", "--interconnect", "Aries"], "not a scaling study"),
        (["study"], "--interconnect is missing: one of measured, 10GbE"),
        (["study", "--interconnect", "Aries", "--nodes", "0"], "--nodes 0"),
        (["study", "--interconnect", "Aries", "--comm", "mpi"], "--comm mpi: the study has no point of it"),
        (["empty", "--interconnect", "Aries"], "no point was measured"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, args, message):
    monkeypatch.chdir(tmp_path)
    made_study(tmp_path / "study")
    study_in(tmp_path / "empty", setting=SETTING)
    assert cli.main(["scaling", "model", *args]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1


def test_the_list_of_networks(capsys):
    assert cli.main(["scaling", "model", "--interconnect", "list"]) == 0
    assert set(model.NETWORKS) <= {line.split()[0] for line in capsys.readouterr().out.splitlines()}
