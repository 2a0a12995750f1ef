"""The section beside fp32: what is broken fails the page by name, what is allowed does not."""

from __future__ import annotations

from typing import Any

from export.types import FloatComparison, Promises, TimeRatio
from runtime_checks.report import render_html


def comparison(**changes: Any) -> FloatComparison:
    values: dict[str, Any] = {
        "artifact_path": "segmentation.int8-dynamic.onnx",
        "size_bytes": 310_000,
        "float_size_bytes": 1_000_000,
        "time": TimeRatio(value=1.21, low=1.18, high=1.25),
        "untimed": None,
        "promises": Promises(size=0.4, time=1.0),
        "findings": {"slower": "1.21 (1.18-1.25) of fp32's <median> time; promised is 1"},
        "allowed": (),
        "broken": ("slower",),
    }
    return FloatComparison(**(values | changes))


def page(contents: dict[str, Any], *comparisons: FloatComparison) -> str:
    return render_html(**(contents | {"comparisons": comparisons}))


def test_a_broken_promise_fails_the_page_by_name(contents: dict[str, Any]) -> None:
    shown = page(contents, comparison())
    assert "1 breaks a promise" in shown and 'href="#guard-rails"' in shown
    assert "is slower than promised: 1.21 (1.18-1.25) of fp32&#39;s &lt;median&gt; time" in shown
    assert '<td class="num strong">0.310</td>' in shown and "≤ 0.4" in shown


def test_what_is_allowed_or_not_promised_is_told_and_fails_nothing(
    contents: dict[str, Any],
) -> None:
    shown = page(contents, comparison(allowed=("slower",), broken=()))
    assert "slower (allowed)" in shown and "breaks a promise" not in shown
    free = comparison(promises=Promises(), broken=())
    assert "slower (not promised)" in page(contents, free)


def test_what_was_not_timed_says_why(contents: dict[str, Any]) -> None:
    untimed = comparison(time=None, untimed="evaluated, not run", findings={}, broken=())
    assert "<small>evaluated, not run</small>" in page(contents, untimed)


def test_a_build_without_anything_smaller_has_no_such_section(contents: dict[str, Any]) -> None:
    assert "guard-rails" not in page(contents)
