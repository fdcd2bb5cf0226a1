"""What all pages of reports are made with."""

import jinja2
import pytest

from hpcgan.report.page import EmbeddedFigure, Numbers, environment, label, render


def figure(width, height, name="mean_image"):
    """The head of a PNG, as far as a page looks into it."""
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return EmbeddedFigure(name, "A < B", b"\x89PNG\r\n\x1a\n" + bytes(8) + size, "study")


def test_figures_are_as_large_as_their_pixels_and_wide_ones_have_a_row_of_their_own():
    assert (figure(830, 300).width, figure(830, 300).height, figure(830, 300).max_width) == (830, 300, 664)
    assert [figure(w, 100).is_wide for w in (100, 180, 181)] == [False, False, True]
    gallery = environment().get_template("parts.html.j2").module.gallery
    shown = gallery([figure(830, 300)])
    assert '<figure id="mean_image" class="wide" style="max-width: 664px">' in shown
    assert 'alt="Mean image" src="data:image/png;base64,iVBOR' in shown
    assert "A &lt; B" in shown
    assert gallery([]).strip() == ""


def test_numbers_carry_their_value_and_their_path():
    numbers = Numbers({"rows": [{"mean": 1.23456, "std": None}, {"mean": 2.0, "std": 0.25}], "none": None})
    assert numbers.number("rows.0.mean", ".2f") == '<data value="1.23456" data-key="rows.0.mean">1.23</data>'
    assert numbers.number("none") == "–"
    assert "±" not in numbers.spread("rows.0")
    assert numbers.spread("rows.1").endswith('± <data value="0.25" data-key="rows.1.std">0.25</data>')


def test_names_may_have_dots():
    numbers = Numbers({"parts": {"pt": {"mean": 1}, "pt.0.5": {"mean": 2}}, "rows": [{"a.b": 3}]})
    assert [numbers.get(key) for key in ("parts.pt.mean", "parts.pt.0.5.mean", "rows.0.a.b")] == [1, 2, 3]
    with pytest.raises(KeyError):
        numbers.get("parts.eta.mean")


def test_a_name_that_a_template_spells_wrongly_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="no attribute 'mu'"):
        render("overlay.html.j2", {"created": "2026-01-01T00:00:00"}, [], [])
    with pytest.raises(jinja2.TemplateNotFound):
        render("none.html.j2", {}, [], [])


def test_identifiers_as_words():
    assert (label("jet_pt"), label("")) == ("Jet pt", "")
