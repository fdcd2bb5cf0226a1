"""Binnings of the CaloChallenge: the published ones, files of their form, and files that are none."""

import math
from pathlib import Path

import numpy as np
import pytest
from binnings import xml
from hypothesis import given
from hypothesis import strategies as st

from hpcgan.calochallenge.geometry import PUBLISHED, Layer, of_segmentation, published, read_binning
from hpcgan.errors import InputError
from hpcgan.physics.calorimeter import Grid, Segmentation


@pytest.fixture
def binning(tmp_path):
    def write(text):
        path = tmp_path / "binning.xml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.mark.parametrize(
    ("voxels", "layers", "with_centres"),
    [(368, [0, 1, 2, 3, 12], 2), (533, [0, 1, 2, 3, 12, 13, 14], 4), (6480, range(45), 45), (40500, range(45), 45)],
)
def test_published_binnings_are_what_their_files_say(binning, voxels, layers, with_centres):
    """Voxels and layers are those of arXiv:2410.21611: 45 x 16 x 9 and 45 x 50 x 18 for data sets 2 and 3."""
    built_in = published(voxels)
    assert [layer.number for layer in built_in.layers] == list(layers)
    assert built_in.n_voxels == voxels
    assert sum(layer.centred for layer in built_in.layers) == with_centres
    read = read_binning(binning(xml(PUBLISHED[voxels][1])), voxels)
    for one, other in zip(read.layers, built_in.layers, strict=True):
        assert (one.number, one.centred) == (other.number, other.centred)
        assert np.allclose(one.eta, other.eta)
        assert np.allclose(one.phi, other.phi)
    assert (read.least_mev, read.window_mm, read.energies) == (
        built_in.least_mev,
        built_in.window_mm,
        built_in.energies,
    )
    assert published(voxels + 1) is None


def test_voxels_by_hand(binning):
    """Two rings of four angles, in the middle at -135, -45, 45 and 135 degrees: at an angle ring follows ring."""
    geometry = read_binning(binning(xml([(0, [0, 10], 1), (2, [0, 2, 6], 4)])), 9)
    alone, ring = geometry.layers
    assert (alone.number, alone.centred, alone.eta.tolist()) == (0, False, [-5.0 * -1])  # the middle of -pi ... pi
    half = math.sqrt(0.5)
    assert ring.eta == pytest.approx([-half, -4 * half, half, 4 * half, half, 4 * half, -half, -4 * half])
    assert ring.phi == pytest.approx([-half, -4 * half, -half, -4 * half, half, 4 * half, half, 4 * half])
    assert geometry.slices == [slice(0, 1), slice(1, 9)]
    assert (geometry.least_mev, geometry.window_mm, geometry.energies, geometry.wide) == (10.0, 100.0, (), ())


def test_cells_of_calogan():
    """Rows are phi: eta runs first."""
    geometry = of_segmentation(Segmentation((Grid(2, 3), Grid(1, 1), Grid(1, 2))))
    assert geometry.layers[0].eta.tolist() == [-160, 0, 160, -160, 0, 160]
    assert geometry.layers[0].phi.tolist() == [-120, -120, -120, 120, 120, 120]
    assert [layer.centred for layer in geometry.layers] == [True, False, True]


def test_the_particle_is_that_of_the_voxels(binning):
    both = xml([(0, [0, 1, 2], 2)], "pion").replace("</Bins>", xml([(0, [0, 1], 3)])[len("<Bins>") :])
    path = binning(both)
    assert read_binning(path, 3).title == "binning.xml, photon"
    assert read_binning(path, 4).title == "binning.xml, pion"
    with pytest.raises(
        InputError, match=r"is a binning of 4 voxels \('pion'\), 3 voxels \('photon'\), the showers have 5"
    ):
        read_binning(path, 5)


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE b [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9))
    + "]><Bins><Bin>&j;</Bin></Bins>"
)
EXTERNAL = '<!DOCTYPE b [<!ENTITY a SYSTEM "file:///etc/passwd">]><Bins><Bin name="p">&a;</Bin></Bins>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "no binning file: it has a document type"),
        (EXTERNAL, "no binning file: it has a document type"),
        ("", "no binning file: no element found"),
        ("<Bins><Bin></Bins>", "no binning file: mismatched tag"),
        (b"\x89HDF\r\n\x1a\n", "no binning file"),
        ("<Bins/>", "has no <Bin> with layers"),
        (b" " * (1 << 20) + b" ", "is larger than 1 MiB"),
        (xml([(0, [0, 1], 1)]).replace('id="0"', 'id="x"'), "layer 'x': id is 'x', needed is a whole number"),
        (xml([(0, [0, 1], 1)]).replace('alpha="1"', 'alpha="1.5"'), "layer '0': n_bin_alpha is '1.5'"),
        (xml([(0, [0, 1], 1)]).replace('"0,1"', '"0;1"'), "layer '0': r_edges is '0;1', needed are numbers"),
        (xml([(0, [0, 2, 1], 1)]), "layer '0': r_edges must rise"),
        (
            xml([(0, [0, 1], 1)]).replace('"0,1"', '"0,inf"'),
            "layer '0': r_edges must rise from 0 or more, and be finite",
        ),
        (xml([(0, [0, 1], 0)]), "layer '0': 1 x 0 voxels"),
        (xml([(0, [0, 1], 999_999)]), "layer '0': 1 x 999999 voxels"),
        (xml([(0, [0, 1], 1), (1, [0, 1], 1)]).replace('id="1"', 'id="0"'), "two layers of 'photon' have one id"),
    ],
)
def test_files_that_are_none(binning, text, message):
    with pytest.raises(InputError, match=message) as error:
        read_binning(binning(text), 3)
    assert "\n" not in str(error.value)


def test_no_such_file(tmp_path):
    with pytest.raises(InputError, match=r"binning.xml: cannot be read: No such file"):
        read_binning(tmp_path / "binning.xml", 3)


@given(st.data())
def test_damaged_files_are_refused_or_read(tmp_path_factory, data):
    """Whatever becomes of a few bytes: a geometry of as many voxels, or one line."""
    good = bytearray(xml([(0, [0, 1], 1), (2, [0, 2, 6], 4)]).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(good) - 1))
        good[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    path = Path(tmp_path_factory.mktemp("damaged") / "binning.xml")
    path.write_bytes(good)
    geometry, message = None, ""
    try:
        geometry = read_binning(path, 9)
    except InputError as error:
        message = str(error)
    assert "\n" not in message
    if geometry is not None:
        assert geometry.n_voxels == 9
        assert all(np.isfinite(layer.eta).all() for layer in geometry.layers)


def test_a_layer_of_one_angle_has_no_centre():
    assert not Layer.of_cylinder(3, [0, 50, 100], 1).centred
    assert Layer.of_cylinder(3, [0, 50, 100], 1).eta == pytest.approx([25, 75])
