"""`diarport check`: does a bundle still compute what PyTorch computes?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import BackendUnavailableError, BundleError, RecipeError
from .common import (
    AudioOption,
    BackendOption,
    CollarOption,
    HopOption,
    JsonOption,
    LimitOption,
    QuietOption,
    RecipeOption,
    RttmOption,
    SkipOverlapOption,
    UemOption,
    print_json,
    progress_bar,
)

if TYPE_CHECKING:
    from ..checkpoint import LoadedModel
    from ..types import Artifact, Bundle


def command(
    bundle: Annotated[Path, typer.Argument(help="A bundle directory.")],
    model: Annotated[
        str | None,
        typer.Option(help="The model it was built from. Default: the zoo model it names."),
    ] = None,
    audio: AudioOption = None,
    rttm: RttmOption = None,
    uem: UemOption = None,
    backend: BackendOption = None,
    recipe: RecipeOption = None,
    hop_s: HopOption = None,
    limit: LimitOption = None,
    collar_s: CollarOption = 0.0,
    skip_overlap: SkipOverlapOption = False,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write GitHub-flavoured Markdown.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write an HTML report.")] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Verify a bundle and run the parity ladder on it again, on any audio.

    Every artifact is compared with the model the bundle was built from. Exits with 1 when one
    fails; artifacts that cannot run here are NOT_RUN, or exit 3 when their backend was asked for
    by name.

    Examples:

    - `diarport check bundles/sinc-1bi`

    - `diarport check bundles/mine --model pytorch_model.bin --audio new/ --junit parity.xml`
    """
    from runtime_checks.check import check
    from runtime_checks.der import DerSettings
    from runtime_checks.report import junit as junit_xml
    from runtime_checks.report import markdown as markdown_text
    from runtime_checks.report import write_html

    from ..bundle import verify_bundle
    from ..pipeline import Exporter
    from .building import parity_record
    from .inputs import load_audio
    from .presenting import artifact_rows, exit_code, parse_limits, show_result

    read = verify_bundle(bundle)
    artifacts = _chosen(bundle, read, backends=backend or [], recipes=recipe or [])
    loaded = _model_of(bundle, read, model)
    recordings, rttm = load_audio(
        audio, rttm=rttm, sample_rate_hz=loaded.spec.geometry.sample_rate_hz
    )
    with progress_bar(quiet=quiet or json) as progress:
        checked = check(
            [(artifact, bundle / artifact.path) for artifact in artifacts],
            spec=read.content.spec,
            reference=loaded.module,
            compressed=Exporter(loaded).compressed,
            recordings=recordings,
            rttm=rttm,
            uem=uem,
            hop_s=hop_s,
            der_settings=DerSettings(collar_s=collar_s, skip_overlap=skip_overlap),
            limits=parse_limits(limit),
            progress=progress,
        )
    record = parity_record(checked)
    if junit:
        junit.write_text(junit_xml(checked.reports), encoding="utf-8")
    if markdown:
        markdown.write_text(markdown_text(checked.reports, ()), encoding="utf-8")
    if html:
        write_html(
            html,
            bundle=read.content,
            reports=checked.reports,
            timelines=checked.timelines,
            latencies=(),
            notes=record.notes,
        )
    if json:
        rows = artifact_rows(artifacts, checked, ())
        parity = record.model_dump(mode="json")
        print_json({"verdict": checked.verdict.value, "artifacts": rows, "parity": parity})
    else:
        show_result(artifacts, checked, quiet=quiet)
    raise typer.Exit(exit_code(checked.verdict))


def _chosen(
    path: Path, bundle: Bundle, *, backends: list[str], recipes: list[str]
) -> list[Artifact]:
    """The artifacts asked for; raises when there is none, or when a named backend cannot run."""
    from runtime_checks.runners.base import RUNNERS

    for backend in backends:
        if reason := RUNNERS[backend].unavailable():
            raise BackendUnavailableError(backend, found=reason)
    there = bundle.content.artifacts
    chosen = [
        artifact
        for artifact in there
        if (not backends or artifact.recipe.backend in backends)
        and (not recipes or artifact.recipe.name in recipes)
    ]
    if not chosen:
        raise RecipeError(
            path,
            found=f"no artifact of {', '.join([*backends, *recipes])}",
            expected=", ".join(f"{a.recipe.backend}/{a.recipe.name}" for a in there),
        )
    return chosen


def _model_of(path: Path, bundle: Bundle, model: str | None) -> LoadedModel:
    from ..checkpoint import load_model, with_window, zoo_names

    content = bundle.content
    if model is None and content.model_source not in zoo_names():
        raise BundleError(
            path,
            found=f"built from {content.model_source}, which does not ship",
            todo="Give the model it was built from: --model.",
        )
    loaded = load_model(model or content.model_source)
    if loaded.sha256 != content.checkpoint_sha256:
        raise BundleError(
            path,
            found=f"built from a checkpoint of hash {content.checkpoint_sha256[:12]}",
            expected=f"that of {loaded.source}, {loaded.sha256[:12]}",
            todo="Give the model it was built from, or build it again.",
        )
    return with_window(loaded, content.spec.geometry.window_s)
