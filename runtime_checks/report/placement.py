"""Where the nodes of each artifact run, how long they take, and how large the file is for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from export.types import Artifact, ArtifactProfile, BundleContent, NodeTime

PORTABLE, LOOPED = "portable kernels", "in loops, once a turn"
SHAPES = "of these, shapes and control flow"


@dataclass(frozen=True)
class PlacementView:
    """One artifact. `places` are operator counts by where they run; `profile` is None where none
    was made."""

    artifact: Artifact
    anchor: str
    places: tuple[tuple[str, dict[str, int]], ...]
    profile: ArtifactProfile | None

    @property
    def size_ratio(self) -> float | None:
        """Bytes of the file by bytes of its weights; None without weights."""
        weights = self.artifact.graph_stats.weight_bytes
        return self.artifact.size_bytes / weights if weights else None

    @property
    def allowed(self) -> list[str]:
        """Fallbacks that the recipe allows by name."""
        names = self.artifact.recipe.options.get("allow", [])
        return [str(name) for name in names] if isinstance(names, list) else []

    @property
    def times(self) -> list[tuple[NodeTime, float]]:
        """Parts with their share of the time, slowest first."""
        nodes = self.profile.nodes if self.profile else ()
        total_ms = sum(max(node.ms, 0.0) for node in nodes)
        shares = [(node, max(node.ms, 0.0) / total_ms if total_ms else 0.0) for node in nodes]
        return sorted(shares, key=lambda each: -each[1])


def placement_views(
    bundle: BundleContent, profiles: Sequence[ArtifactProfile]
) -> list[PlacementView]:
    """One view an artifact, in the bundle's order."""
    by_path = {profile.artifact_path: profile for profile in profiles}
    views = []
    for index, artifact in enumerate(bundle.artifacts):
        stats = artifact.graph_stats
        portable = SHAPES if artifact.recipe.backend == "onnx_ort" else PORTABLE
        others = ((portable, stats.portable), (LOOPED, stats.looped))
        delegated = sorted(stats.delegated.items(), key=lambda each: _natural(each[0]))
        views.append(
            PlacementView(
                artifact=artifact,
                anchor=f"placement-{index}",
                places=(*delegated, *((name, counts) for name, counts in others if counts)),
                profile=by_path.get(artifact.path),
            )
        )
    return views


def _natural(name: str) -> tuple[str, int]:
    """`XnnpackBackend 10` after `XnnpackBackend 2`."""
    text, _, number = name.rpartition(" ")
    return (text, int(number)) if number.isdigit() else (name, 0)
