"""What `diarport build --embedding` adds to a bundle: a whole pipeline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..bundle import file_entry
from ..errors import CheckpointError
from ..progress import Progress
from ..types import FileEntry, PipelineContent, Role, Verdict

if TYPE_CHECKING:
    from ..audio import Recording
    from ..checkpoint import LoadedModel
    from .building import BuildRequest

EMBEDDING, GOLDENS = "embedding", "pipeline"


class PipelinePart:
    """The embedding's own bundle and the pipeline's goldens, inside the segmentation's bundle.

    The embedding's bundle holds measurements, so the manifest hashes it as evidence, and its
    content by `embedding_content_sha256`.
    """

    def __init__(self, content: PipelineContent, files: tuple[FileEntry, ...], *, failed: bool):
        self.content, self.files, self.failed = content, files, failed


def add_pipeline(
    request: BuildRequest,
    folder: Path,
    segmentation: LoadedModel,
    recordings: list[Recording],
    progress: Progress,
) -> PipelinePart | None:
    """Build the embedding into the bundle directory, and write goldens from PyTorch.

    None where no embedding was asked for. Raises `CheckpointError` when the models are not one of
    each kind, before anything takes time.
    """
    if request.embedding is None:
        return None
    from runtime_checks.diarize.goldens import write_pipeline_goldens
    from runtime_checks.diarize.networks import torch_stages

    from ..checkpoint import load_model, with_window
    from .building import run_build
    from .diarizing import parameters_of

    window_s = segmentation.spec.geometry.window_s
    embedding = with_window(load_model(request.embedding), window_s)
    for model, role in ((segmentation, Role.SEGMENTATION), (embedding, Role.EMBEDDING)):
        if model.spec.role is not role:
            raise CheckpointError(
                model.source, found=f"a model for {model.spec.role}", expected=f"one for {role}"
            )
    parameters = parameters_of(embedding, request.parameters)
    request = replace(request, recipes=_recipes(request, embedding), implied=True)
    assert request.embedding is not None  # noqa: S101 - told above
    stages = torch_stages(segmentation, embedding)
    built = run_build(
        replace(
            request, model=request.embedding, embedding=None, streaming_hop_s=None,
            out=folder / EMBEDDING, window_s=window_s, rttm=None, uem=None,
            audio=[each.path for each in recordings],
        ),
        progress,
    )  # fmt: skip
    failed = built.measured.verdict is Verdict.FAIL
    if failed:
        built.folder.rename(folder / EMBEDDING)
    progress("pipeline goldens", 0, 1)
    write_pipeline_goldens(folder / GOLDENS, recordings[0].samples, stages, parameters=parameters)
    progress("pipeline goldens", 1, 1)
    names = sorted(path.name for path in (folder / GOLDENS).iterdir())
    return PipelinePart(
        PipelineContent(
            embedding_path=EMBEDDING,
            embedding_content_sha256=built.bundle.content_sha256,
            goldens_path=GOLDENS,
            parameters=parameters,
        ),
        tuple(file_entry(folder, f"{GOLDENS}/{name}") for name in names),
        failed=failed,
    )


def _recipes(request: BuildRequest, embedding: LoadedModel) -> list[str]:
    """Those asked for; and fp32, which stands in on backends where the embedding refuses one."""
    from ..backends.base import BACKENDS, select_recipes, why_refused
    from .diarizing import STAND_IN

    names = request.recipes or [STAND_IN]
    refused = [
        recipe
        for recipe in select_recipes(request.backends, request.recipes)
        if why_refused(BACKENDS[recipe.backend], embedding.spec, recipe)
    ]
    return list(dict.fromkeys([*names, STAND_IN])) if refused else names
