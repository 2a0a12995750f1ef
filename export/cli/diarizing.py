"""Which pipeline `diarport diarize` runs: a bundle's, or that of the models that ship."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from ..errors import BundleError, CheckpointError, RecipeError
from ..types import Bundle, PipelineParameters, Recipe, Role

if TYPE_CHECKING:
    from runtime_checks.diarize.networks import Found
    from runtime_checks.diarize.stages import Stages
    from runtime_checks.diarize.stateful import StatefulSegmentation

    from ..checkpoint import LoadedModel

EMBEDDING = "embedding"
PARAMETERS = "pipeline.json"
SEGMENTATION = "sinc-2bi"
BACKEND = "onnx_ort"
STAND_IN = "fp32"


@dataclass(frozen=True)
class Pipeline:
    """Stages that are open, their parameters, a sentence that says what they are, and the stateful
    segmentation that goes on from hop to hop, if there is one."""

    stages: Stages
    parameters: PipelineParameters
    said: str
    stateful: StatefulSegmentation | None = None

    def from_hop_to_hop(self, found: Found, *, threads: int) -> Pipeline:
        """The same with a stateful segmentation, whose hop the pipeline takes."""
        from runtime_checks.diarize.networks import stateful_segmentation

        stateful = stateful_segmentation(found, threads=threads)
        parameters = self.parameters.model_copy(update={"hop_s": stateful.hop_s})
        said = f"{self.said}; segmentation from hop to hop ({found.artifact.path})"
        return replace(self, parameters=parameters, stateful=stateful, said=said)


def bundle_pipeline(
    path: Path, *, backend: str | None, recipe: str | None, threads: int, stateful: bool = False
) -> Pipeline:
    """The pipeline of a bundle that carries one (`diarport build … --embedding NAME`).

    With `stateful` its segmentation goes on from hop to hop, if the bundle has such an artifact of
    the backend and recipe that are taken.
    """
    from runtime_checks.diarize.networks import artifact_stages
    from runtime_checks.runners.base import why_untimed

    from ..bundle import read_bundle

    segmentation, embedding, parameters = pipeline_parts(path, backend=backend, recipe=recipe)
    stages = artifact_stages(segmentation, embedding, threads=threads)
    said = f"{pair_name(segmentation, embedding)} of {path}"
    if reason := why_untimed(segmentation.runner or segmentation.artifact.recipe.backend):
        said = f"{said} ({reason})"
    made = Pipeline(stages, parameters, said)
    taken = segmentation.artifact.recipe
    for each in read_bundle(path).content.artifacts if stateful else ():
        same = (each.recipe.backend, each.recipe.name) == (taken.backend, taken.name)
        if same and each.stream is not None:
            found = replace(segmentation, artifact=each, path=path / each.path)
            return made.from_hop_to_hop(found, threads=threads)
    return made


def pair_name(segmentation: Found, embedding: Found) -> str:
    """`onnx_ort/fp32`; both names where the networks' artifacts are of different kinds."""
    return " + ".join(dict.fromkeys([segmentation.name, embedding.name]))


def pipeline_parts(
    path: Path, *, backend: str | None, recipe: str | None
) -> tuple[Found, Found, PipelineParameters]:
    """The artifacts of both networks, by default the first of the segmentation, and parameters.

    Where the embedding refused a recipe, its fp32 stands in.
    """
    from ..bundle import verify_bundle

    read = verify_bundle(path)
    pipeline = read.content.pipeline
    if pipeline is None:
        raise BundleError(
            path,
            found="a bundle without an embedding model",
            expected="one that carries a pipeline",
            todo="Build it with --embedding NAME.",
        )
    segmentation = _choose(path, read, backend=backend, recipe=recipe)
    inner = path / pipeline.embedding_path
    found = verify_bundle(inner)
    target = segmentation.artifact.recipe
    made = {(a.recipe.backend, a.recipe.name) for a in found.content.artifacts}
    same = (target.backend, target.name) in made
    embedding = _choose(
        inner, found, backend=backend or target.backend, recipe=target.name if same else STAND_IN
    )
    return segmentation, embedding, pipeline.parameters


def _choose(path: Path, read: Bundle, *, backend: str | None, recipe: str | None) -> Found:
    from runtime_checks.diarize.networks import Found
    from runtime_checks.runners.base import RUNNERS, backend_of

    artifacts = read.content.artifacts
    wanted = [
        each
        for each in artifacts
        if each.stream is None
        and (recipe is None or each.recipe.name == recipe)
        and (each.recipe.backend == backend_of(backend) if backend else _runs(each.recipe.backend))
    ]
    if not wanted:
        asked = "/".join(each for each in (backend, recipe) if each) or "a backend that runs here"
        raise RecipeError(
            path,
            found=f"no artifact of {asked}",
            expected=", ".join(f"{a.recipe.backend}/{a.recipe.name}" for a in artifacts),
        )
    chosen = min(wanted, key=lambda each: each.recipe.backend != BACKEND)
    runner = backend if backend in RUNNERS else None
    return Found(chosen, path / chosen.path, read.content.spec, runner)


def _runs(backend: str) -> bool:
    from runtime_checks.runners.base import RUNNERS

    return RUNNERS[backend].unavailable() is None


def model_pipeline(
    segmentation: str | None,
    embedding: str | None,
    *,
    parameters: Path | None,
    threads: int,
    stateful: bool = False,
) -> Pipeline:
    """The pipeline of two models, exported to ONNX once and kept in the user's cache.

    With `stateful` a segmentation that can goes on from hop to hop.
    """
    from runtime_checks.diarize.networks import artifact_stages

    from ..checkpoint import load_model, with_window
    from ..models.base import MODELS
    from ..models.running import why_not_streaming

    first = load_model(segmentation or SEGMENTATION)
    second = load_model(embedding or embedded_embedding())
    for model, role in ((first, Role.SEGMENTATION), (second, Role.EMBEDDING)):
        if model.spec.role is not role:
            raise CheckpointError(
                model.source, found=f"a model for {model.spec.role}", expected=f"one for {role}"
            )
    second = with_window(second, first.spec.geometry.window_s)
    stages = artifact_stages(_exported(first), _exported(second), threads=threads)
    said = f"{first.spec.name} and {second.spec.name}, exported to ONNX"
    made = Pipeline(stages, parameters_of(second, parameters), said)
    canonical = MODELS[first.spec.architecture].canonical(first.module) if stateful else None
    if canonical is not None and why_not_streaming(canonical) is None:
        hop_s = made.parameters.hop_s
        return made.from_hop_to_hop(_exported(first, hop_s=hop_s), threads=threads)
    return made


def embedded_embedding() -> str:
    """The embedding model that ships with parameters for a pipeline."""
    from ..checkpoint import zoo_dir, zoo_names

    for name in zoo_names():
        if (zoo_dir() / name / PARAMETERS).is_file():
            return name
    raise CheckpointError(
        "embedding model",
        found="none ships with this version",
        expected="a bundle with a pipeline, or an embedding model",
        todo="Give --bundle, or --embedding.",
    )


def parameters_of(embedding: LoadedModel, path: Path | None) -> PipelineParameters:
    """Parameters from a file: the one named, or the one beside the model; else the defaults."""
    from ..checkpoint import zoo_dir, zoo_names

    source = embedding.source
    folder = zoo_dir() / source if source in zoo_names() else Path(source)
    folder = folder if folder.is_dir() else folder.parent
    file = path or folder / PARAMETERS
    if not file.is_file():
        if path is not None:
            raise BundleError(path, found="no such file", expected="parameters of a pipeline")
        return PipelineParameters()
    try:
        return PipelineParameters.model_validate_json(file.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        first = str(error).splitlines()
        raise BundleError(
            file, found=" ".join(first[1:3]) or str(error), expected="parameters of a pipeline"
        ) from error


def _exported(model: LoadedModel, *, hop_s: float | None = None) -> Found:
    """The fp32 artifact of a model, for windows or, with a hop, the stateful one."""
    from runtime_checks.diarize.networks import Found

    from ..backends.base import select_recipes
    from ..bundle import hash_path
    from ..models.running import STREAMING
    from ..pipeline import Exporter

    recipe: Recipe = select_recipes([BACKEND], ["fp32"])[0]
    if hop_s is not None:
        recipe = recipe.model_copy(update={"options": recipe.options | {STREAMING: hop_s}})
    made_of = "".join(
        (model.sha256, model.spec.to_json(), recipe.to_json(), version("diarport"),
         version("torch"), version("onnxruntime"))
    )  # fmt: skip
    key = hashlib.sha256(made_of.encode()).hexdigest()[:24]
    kept = cache_dir() / key
    file = kept / "artifact.json"
    from ..types import Artifact

    if file.is_file():
        artifact = Artifact.model_validate_json(file.read_text(encoding="utf-8"))
        path = kept / artifact.path
        if path.is_file() and hash_path(path) == artifact.sha256:
            return Found(artifact, path, model.spec)
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept) as folder:
        artifact = Exporter(model).export(recipe, Path(folder))
        (Path(folder) / artifact.path).replace(kept / artifact.path)
    file.write_text(artifact.to_json(), encoding="utf-8")
    return Found(artifact, kept / artifact.path, model.spec)


def cache_dir() -> Path:
    """Where exported models are kept: $XDG_CACHE_HOME/diarport, or ~/.cache/diarport."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diarport"
