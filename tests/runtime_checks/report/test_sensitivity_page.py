"""The page of layers: places of bars and intervals, escaping, what is not scored; a browser."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from export.types import DerInterval, Precision
from runtime_checks.emulation import Method
from runtime_checks.report.sensitivity_page import DER, FLIPS, chart_of, render_sensitivity_html
from runtime_checks.sensitivity import LayerLoss, Loss, SensitivityRecord, gains


def loss(flips: float, der: float | None = None, reach: float = 0.5) -> Loss:
    interval = None
    if der is not None:
        interval = DerInterval(low=der - reach, high=der + reach, confidence=0.95, stretches=30)
    return Loss(
        max_abs=flips / 10,
        mean_abs=flips / 100,
        decision_flips=flips,
        speaker_swaps=0,
        delta_der=der,
        delta_der_interval=interval,
    )


def layer(name: str, found: Loss, *, kept: bool = False, weights: int = 100) -> LayerLoss:
    return LayerLoss(layer=name, kind="Linear", weights=weights, kept=kept, loss=found)


def record(**changes: Any) -> SensitivityRecord:
    values: dict[str, Any] = {
        "model": "<b>model</b>",
        "method": Method.DYNAMIC,
        "weights": Precision.INT8,
        "recipe": "onnx_ort/int8-dynamic",
        "window_s": 2.0,
        "hop_s": 1.0,
        "recordings": ("meeting",),
        "audio_s": 60.0,
        "calibrated_on": (),
        "der": "collar 0 s, overlapped speech scored",
        "layers": (
            layer("frontend.conv1d.0", loss(4.0, 2.0), kept=True, weights=300),
            layer("linear.0", loss(1.0, -0.1)),
        ),
        "together": loss(4.5, 2.1),
        "recipe_loss": loss(1.0, -0.1),
        "notes": ("meeting: resampled",),
    }
    return SensitivityRecord(**(values | changes))


def test_bars_are_as_long_as_their_flips_and_intervals_lie_about_their_value() -> None:
    chart = chart_of(record())
    first, second, together, as_recipe = chart.bars
    assert first.flips / second.flips == pytest.approx(4, rel=1e-3)
    assert together.flips == pytest.approx(FLIPS[1] - FLIPS[0], rel=0.01)
    assert (together.together, as_recipe.together, first.together) == (True, True, False)
    assert as_recipe.flips == second.flips
    assert first.der is not None and first.ends is not None and chart.zero is not None
    assert first.ends[0] < first.der < first.ends[1] <= DER[1]
    assert first.der - first.ends[0] == pytest.approx(first.ends[1] - first.der, abs=0.02)
    assert second.der is not None and DER[0] < second.der < chart.zero < first.der
    assert (chart.zero, "0") in chart.der_ticks
    assert [bar.y for bar in chart.bars] == sorted(bar.y for bar in chart.bars)


def test_without_a_reference_there_is_no_second_scale() -> None:
    unscored = record(
        der=None, layers=(layer("a", loss(0.0)),), together=loss(0.0), recipe_loss=None
    )
    chart = chart_of(unscored)
    assert chart.zero is None and chart.der_ticks == () and chart.bars[0].flips == 0
    page = render_sensitivity_html(unscored)
    assert "no reference was given" in page and "delta DER, points" not in page


def test_what_is_kept_and_gained_is_said_and_everything_is_escaped() -> None:
    page = render_sensitivity_html(record())
    assert "keeps frontend.conv1d.0 in float: 1.00 % of decisions flip instead of 4.50 %" in page
    assert "75.0 % of the weights stay large" in page
    assert page.count('class="bar kept') == 1
    assert "<b>model</b>" not in page and "&lt;b&gt;model&lt;/b&gt;" in page


def test_without_a_recipe_the_worst_layer_is_named() -> None:
    said = gains(record(recipe=None, recipe_loss=None))
    assert said.startswith("frontend.conv1d.0 alone flips 4.00 % of decisions, all layers together")
    assert "--skip frontend.conv1d.0" in said
    assert gains(record(recipe_loss=None)).endswith("keeps no layer in float.")


@pytest.mark.browser
def test_the_page_in_a_browser(tmp_path: Path) -> None:
    path = tmp_path / "sensitivity.html"
    path.write_text(render_sensitivity_html(record()))
    helpers = _browser()
    page = helpers.open_browser(tmp_path / "profile")
    try:
        page.get(path.as_uri())
        bars = page.find_elements("css selector", ".bar rect")
        widths = [bar.rect["width"] for bar in bars]
        assert len(widths) == 4 and widths[0] > 3 * widths[1]
        titles = [each.rect for each in page.find_elements("css selector", "text.title")]
        ticks = [each.rect for each in page.find_elements("css selector", "text.tick")]
        assert max(t["y"] + t["height"] for t in titles) <= min(t["y"] for t in ticks) + 1
        assert not [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"]
    finally:
        page.quit()


def _browser() -> Any:
    """The browser of the report's tests."""
    found = importlib.util.spec_from_file_location(
        "report_browser", Path(__file__).with_name("test_report_browser.py")
    )
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module
