from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hpcgan import config
from hpcgan.errors import InputError
from hpcgan.sweep import study

BASE = {"problem": "rpv", "data": {"path": "data/rpv"}}


WGAN = ("training.loss=wgan_gp", "model.discriminator_normalisation=none")
NOISE = ("training.instance_noise.sigma=0.1", "model.architecture=detector")


def load(changes=None, overrides=()):
    return config.load({**BASE, **(changes or {})}, overrides)


def test_defaults_are_filled_in_and_survive_a_round_trip():
    first = load()
    again = config.load(yaml.safe_load(first.to_yaml()))
    assert again == first
    assert first.training.discriminator.learning_rate == 1.0e-4
    assert first.model.latent_dim == 64


def test_overrides_have_the_names_of_the_file():
    loaded = load(overrides=["training.epochs=3", "model.filters=8", "data.augment=[eta_reflection]", "seed=5"])
    assert (loaded.training.epochs, loaded.model.filters, loaded.seed) == (3, 8, 5)
    assert loaded.data.augment == ("eta_reflection",)


def test_scientific_notation_that_yaml_reads_as_text():
    assert load(overrides=["training.generator.learning_rate=2e-4"]).training.generator.learning_rate == 2e-4


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainig.epochs=3"], "unknown key 'trainig'; did you mean 'training'"),
        (["training.epoch=3"], "unknown key 'training.epoch'; did you mean 'epochs'"),
        (["training.generator.learning_rat=1"], "did you mean 'learning_rate'"),
        (["model.filter=8"], "unknown key 'model.filter'; did you mean 'filters'"),
        (["training.epochs=0"], "training.epochs: input should be greater than or equal to 1, got 0"),
        (["training.epochs=many"], "training.epochs: .*integer.*got 'many'"),
        (["training.label_flip=1.5"], "training.label_flip: .*less than or equal to 1, got 1.5"),
        (["training.generator.learning_rate=.nan"], "training.generator.learning_rate: .*finite"),
        (["training.generator.beta1=1.0"], "training.generator.beta1: .*less than 1"),
        (["training.loss=wgan"], "training.loss: input should be 'bce', 'wgan_gp', 'hinge' or 'least_squares'"),
        (
            ["training.gradient_penalty.weight=5"],
            "weight is of training.loss=wgan_gp, not bce: set it to null",
        ),
        ([*WGAN, "training.gradient_penalty.weight=0"], "gradient_penalty.weight: .*greater than 0"),
        ([*WGAN, "training.label_flip=0.1"], "training.label_flip would drive the critic .*: set it to 0"),
        (
            [*WGAN, "training.label_smoothing=0.1"],
            "moves a target, which training.loss=wgan_gp has not",
        ),
        (
            ["training.loss=hinge", "training.label_smoothing=0.1"],
            "loss=hinge has not: set it to 0, or take bce",
        ),
        (["training.label_smoothing=1"], "training.label_smoothing: .*less than 1"),
        (["training.loss=wgan_gp"], "model.normalisation=batch lets .* set model.discriminator_normalisation=layer"),
        (
            ["training.loss=wgan_gp", "model.discriminator_normalisation=batch"],
            "but model.discriminator_normalisation=batch lets .* set model.discriminator_normalisation=layer",
        ),
        (
            ["training.loss=wgan_gp", "model.architecture=detector", "model.minibatch_stddev=true"],
            "wgan_gp penalises .* but model.minibatch_stddev=true lets .* set model.minibatch_stddev=false",
        ),
        (
            ["problem=cosmo", "training.loss=wgan_gp"],
            "model.discriminator_normalisation=batch lets .* set model.discriminator_normalisation=layer",
        ),
        (
            ["model.architecture=detector", "model.discriminator_normalisation=layer"],
            "model.discriminator_normalisation=layer needs model.architecture=dcgan; .* takes none or spectral",
        ),
        (["model.discriminator_normalisation=group"], "model.discriminator_normalisation: input should be 'batch'"),
        ([*NOISE, "model.pooled_pt=true"], "for which model.pooled_pt=true is undefined: set model.pooled_pt=false"),
        (
            [*NOISE, "model.hidden_units=3"],
            "hidden_units=3 is undefined: set model.hidden_units=0, or sigma to 0",
        ),
        (
            [*NOISE, "model.exponent=0.4"],
            "exponent=0.4 is undefined: set model.exponent to 1 over a whole number",
        ),
        (["training.instance_noise.sigma=-1"], "training.instance_noise.sigma: .*greater than or equal to 0"),
        (["training.instance_noise.epochs=0"], "training.instance_noise.epochs: .*greater than 0"),
        (["training.critic_steps=0"], "training.critic_steps: .*greater than or equal to 1"),
        (["training.rollback.diversity_below=1"], "training.rollback.diversity_below: .*less than 1"),
        (["model.latent_dim=-1"], "model.latent_dim: .*greater than or equal to 1"),
        (["problem=rvp"], "problem 'rvp' does not exist; choose one of: .*cosmo, .*rpv"),
        (["data.augment=[mirror]"], "data.augment: 'mirror' is not a symmetry of 'rpv'; choices: eta_reflection"),
        (["scoring.weights=average"], "needs training.average_half_life"),
        (["seed=-1"], "seed: .*greater than or equal to 0"),
        (["name=../evil"], "name: .*pattern"),
        (["training.generator=5"], "training.generator: "),
        (["training=5"], "'training' must be a section"),
        (["data.path.x=5"], "'path' is a value, not a section"),
        (["training.epochs"], "write it as key=value"),
        (["=3"], "write it as key=value"),
        (["training.epochs=[1"], "'\\[1' is not a YAML value"),
    ],
)
def test_bad_values_name_the_key_and_the_remedy(overrides, message):
    with pytest.raises(InputError, match=message) as error:
        load(overrides=overrides)
    assert "\n" not in str(error.value)


def test_the_penalty_of_wgan_gp_is_there_without_being_asked_for():
    assert load(overrides=WGAN).training.penalty_weight == 10.0
    assert load(overrides=[*WGAN, "training.gradient_penalty.weight=2"]).training.penalty_weight == 2.0
    assert load().training.penalty_weight is None


def test_a_search_over_losses_can_take_the_penalty_of_one_of_them(tmp_path):
    path = tmp_path / "search.yaml"
    searched = {
        "training.loss": {"choice": ["hinge", "wgan_gp"]},
        "training.gradient_penalty.weight": {"log_uniform": [1.0, 20.0], "when": {"training.loss": "wgan_gp"}},
        "model.discriminator_normalisation": {"choice": ["layer", "spectral"]},
    }
    path.write_text(yaml.safe_dump({**BASE, "search": searched}))
    _, space = study.load(path)
    assert {d.key for d in space.dimensions} == set(searched)


def test_what_goes_with_a_critic_and_with_noise_is_taken():
    load(overrides=["training.loss=wgan_gp", "model.normalisation=none"])
    load(overrides=["training.loss=wgan_gp", "model.discriminator_normalisation=spectral", "training.r1.weight=0.1"])
    load(overrides=["training.loss=wgan_gp", "model.architecture=detector", "model.pooled_pt=true"])
    load(overrides=["problem=cosmo", "training.loss=wgan_gp", "model.discriminator_normalisation=layer"])
    load(overrides=[*NOISE, "model.exponent=0.3333333333333333"])
    load(overrides=["training.instance_noise.sigma=0.1", "training.loss=least_squares", "training.label_smoothing=0.1"])


def test_missing_keys_are_named():
    with pytest.raises(InputError, match=r"'problem' is missing; choose one of: .*cosmo, .*rpv"):
        config.load({"data": {"path": "x"}})
    with pytest.raises(InputError, match="'data' is missing"):
        config.load({"problem": "rpv"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("problem: rpv\n  x: [", "line 2: not valid YAML"),
        ("- a\n- b\n", "must be a mapping"),
        ("problem: rpv\nproblem: rpv\n", "key 'problem' is given twice"),
        ("!!python/object/apply:os.system ['true']\n", "not valid YAML"),
        ("", "must be a mapping"),
    ],
)
def test_broken_files_are_one_line_with_the_file(tmp_path, text, message):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        config.load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"absent.yaml: cannot read the configuration: No such file"):
        config.load(tmp_path / "absent.yaml")


@given(st.text(max_size=60))
def test_any_text_is_a_configuration_or_an_input_error(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("config") / "c.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(InputError) as error:
        config.load(path)
    assert "\n" not in str(error.value)


def test_identity_ignores_lengths_cadences_and_communication():
    base = load()
    same = load(
        overrides=[
            "training.epochs=7",
            "comm.backend=serial",
            "checkpoint.keep=5",
            "scoring.every_epochs=3",
            "data.cache_mb=1",
            "data.stage=$TMPDIR",
            "data.stage_keep=false",
        ]
    )
    assert same.identity_hash() == base.identity_hash()
    assert load(overrides=["data.path=elsewhere"]).identity() == base.identity()  # data are known by their content
    for other in ("seed=2", "training.batch_size=32", "model.filters=8"):
        assert load(overrides=[other]).identity_hash() != base.identity_hash()


def test_the_name_defaults_to_the_file(tmp_path):
    path = tmp_path / "my_study.yaml"
    path.write_text(yaml.safe_dump(BASE))
    assert config.load(path).name == "my_study"


SHIPPED = sorted(Path("configs").glob("*.yaml"))


@pytest.mark.parametrize("path", [p for p in SHIPPED if not p.stem.endswith("_sweep")], ids=lambda p: p.name)
def test_shipped_configurations_are_valid(path):
    assert config.load(path).problem.split("_")[0] == path.stem.split("_")[0]


@pytest.mark.parametrize("path", [p for p in SHIPPED if p.stem.endswith("_sweep")], ids=lambda p: p.name)
def test_shipped_searches_are_valid_and_are_no_trainings(path):
    base, space = study.load(path)
    assert len(space.dimensions) >= 5
    assert base.problem == path.stem.split("_")[0]
    with pytest.raises(InputError, match="'search' is for 'hpcgan sweep'"):
        config.load(path)


def test_json_schema_knows_the_model_of_the_problem():
    whole = config.schema("rpv")
    assert "latent_dim" in whole["properties"]["model"]["properties"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.batch_size=true", "training.batch_size: input should be a number, not true or false, got True"),
        ("training.generator.learning_rate=true", "learning_rate: input should be a number, not true"),
        ("seed=false", "seed: input should be a number, not true"),
        ("data.augment=eta_reflection", r"data.augment: input should be a list, as \[A, B\], got 'eta_reflection'"),
        ("data.augment=[eta_reflection, eta_reflection]", "data.augment: name each only once"),
        ("scoring.quantities=jet_pt", r"scoring.quantities: input should be a list, as \[A, B\], got 'jet_pt'"),
        ("training.generator=2e-4", "training.generator: input should be a section of keys, got 0.0002"),
        ("data.select=[y, 1]", "data.select: input should be a section of keys"),
        ("data.path=[a]", r"data.path: input should be a path, got \['a'\]"),
        ("data.path=''", "data.path: input should be a path"),
        ('data.path="a\\0b"', "data.path: input should be a path, without control characters"),
        ("data.path=~no-such-user/rpv", "data.path: ~no-such-user/rpv: there is no such user"),
        ("training.start_from=~no-such-user/run", "training.start_from: ~no-such-user/run: there is no such user"),
    ],
)
def test_values_of_another_kind_are_refused_in_the_users_words(override, message):
    with pytest.raises(InputError, match=message):
        load(overrides=[override])


def test_a_list_that_is_too_short_says_so():
    jets = {"problem": "jets", "data": {"path": "data/jets"}}
    with pytest.raises(InputError, match=r"model.class_flip: the list is too short, it has 1 value$"):
        config.load(jets, ["model.class_flip=[0.05]"])


def test_truth_stays_where_it_is_asked_for():
    assert load(overrides=["data.stage_keep=false"]).data.stage_keep is False
    assert load(overrides=["name=true"]).name == "True"


def test_paths_to_read_may_begin_with_the_users_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    loaded = load(overrides=["data.path=~/rpv", "training.start_from=~/runs/a"])
    assert loaded.data.path == tmp_path / "rpv"
    assert loaded.training.start_from == tmp_path / "runs/a"
    assert load(overrides=["training.start_from=pretrained:rpv"]).training.start_from == Path("pretrained:rpv")


def test_paths_to_read_may_have_variables(monkeypatch, tmp_path):
    """No shell replaces them in a file."""
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    monkeypatch.setenv("EMPTY", "")
    assert load(overrides=["data.path=$SCRATCH/rpv"]).data.path == tmp_path / "rpv"
    assert load(overrides=["data.path=${SCRATCH}rpv"]).data.path == Path(f"{tmp_path}rpv")
    for path, message in (
        ("$NOWHERE_AT_ALL/rpv", r"data\.path: .*\$NOWHERE_AT_ALL is not set; set it, or write the path in full"),
        ("$EMPTY/rpv", r"data\.path: .*\$EMPTY is not set"),
        ("a/$/b", r"data\.path: 'a/\$/b': there is no such path, and \$ begins no variable"),
    ):
        with pytest.raises(InputError, match=message):
            load(overrides=[f"data.path={path}"])
    (tmp_path / "$NOWHERE_AT_ALL").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load(overrides=["data.path=$NOWHERE_AT_ALL"]).data.path == Path("$NOWHERE_AT_ALL")


def test_a_name_without_a_value_is_the_files(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("problem: rpv\nname:\ndata: {path: data}\n")
    assert config.load(file).name == "mine"
