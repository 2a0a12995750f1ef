"""The report says where nodes run, how long they take, and how large a file is for its weights."""

from __future__ import annotations

import re

from export.types import ArtifactProfile, BundleContent, NodeTime
from runtime_checks.report import render_html
from runtime_checks.report.placement import placement_views


def placed(bundle: BundleContent) -> BundleContent:
    """Another placement for the second artifact, with an allowance by name."""
    first, second, third = bundle.artifacts
    stats = second.graph_stats.model_copy(
        update={
            "weight_bytes": 1_000_000,
            "delegated": {"Xnnpack 2": {"aten.mm": 3}, "Xnnpack 10": {"aten.add": 1}},
            "portable": {"aten::<erf>.out": 4},
            "looped": {"JumpFalseCall": 1},
        }
    )
    recipe = second.recipe.model_copy(update={"options": {"allow": ["aten::<erf>.out"]}})
    second = second.model_copy(
        update={"graph_stats": stats, "recipe": recipe, "runtime_options": {"threads": 1}}
    )
    return bundle.model_copy(update={"artifacts": (first, second, third)})


def profile(bundle: BundleContent, index: int, *, reason: str | None = None) -> ArtifactProfile:
    artifact = bundle.artifacts[index]
    nodes = (
        NodeTime(place="Xnnpack", kind="delegate 2", nodes=1, ms=3.0),
        NodeTime(place="portable", kind="aten::full.out", nodes=2, ms=-0.1),
        NodeTime(place="portable", kind="aten::<erf>.out", nodes=4, ms=1.0),
    )
    return ArtifactProfile(
        artifact_path=artifact.path,
        artifact_sha256=artifact.sha256,
        method="a clock",
        threads=1,
        runs=7,
        nodes=() if reason else nodes,
        reason=reason,
    )


def section(bundle: BundleContent, profiles: list[ArtifactProfile]) -> str:
    html = render_html(
        bundle=bundle, reports=(), timelines=(), latencies=(), notes=(), profiles=profiles
    )
    found = re.search(r'<section id="placement">.*?</section>', html, flags=re.DOTALL)
    assert found is not None
    return found[0]


def test_places_are_in_their_order_and_shares_are_of_what_was_measured(
    bundle: BundleContent,
) -> None:
    changed = placed(bundle)
    view = placement_views(changed, [profile(changed, 1)])[1]
    assert [place for place, _ in view.places] == [
        "Xnnpack 2",
        "Xnnpack 10",
        "portable kernels",
        "in loops, once a turn",
    ]
    assert [(node.ms, share) for node, share in view.times] == [(3.0, 0.75), (1.0, 0.25), (-0.1, 0)]
    assert view.size_ratio == 1.18
    assert view.allowed == ["aten::<erf>.out"]


def test_the_page_shows_places_times_ratio_options_and_allowances(bundle: BundleContent) -> None:
    changed = placed(bundle)
    text = section(changed, [profile(changed, 1), profile(changed, 2, reason="no Mac & no clock")])
    assert "1.180 of its weights" in text
    assert "runtime options: <code>threads</code> 1" in text
    assert "allowed by name: <code>aten::&lt;erf&gt;.out</code>" in text
    assert "<erf>" not in text
    assert "a clock, 1 thread, median of 7 windows" in text
    assert "75.0 %" in text
    assert "Not measured here: no Mac &amp; no clock." in text
    assert "Where its time goes was not measured." in text
