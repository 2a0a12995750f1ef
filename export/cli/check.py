"""`diarport check`: does a bundle still compute what PyTorch computes?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import (
    AudioOption,
    BackendOption,
    BundleRecipeOption,
    CollarOption,
    HopOption,
    JsonOption,
    LimitOption,
    QuietOption,
    RttmOption,
    SkipOverlapOption,
    TrialsOption,
    UemOption,
    print_json,
    progress_bar,
)

if TYPE_CHECKING:
    from ..types import ArtifactProfile, FloatComparison, LatencyReport


def command(
    bundle: Annotated[Path, typer.Argument(help="A bundle directory.")],
    model: Annotated[
        str | None,
        typer.Option(help="The model it was built from. Default: the zoo model it names."),
    ] = None,
    audio: AudioOption = None,
    rttm: RttmOption = None,
    uem: UemOption = None,
    trials: TrialsOption = None,
    pipeline: Annotated[
        bool,
        typer.Option(
            "--pipeline", help="Compare the whole pipeline with PyTorch's: DER, speakers, times."
        ),
    ] = False,
    embedding: Annotated[
        str | None,
        typer.Option(help="With --pipeline: the model its embedding was built from."),
    ] = None,
    backend: BackendOption = None,
    recipe: BundleRecipeOption = None,
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
    by name. On a Mac, `--backend coreml_native` runs Core ML packages and compares what Core ML
    says with what the evaluator, which checks them everywhere else, makes of them.

    Examples:

    - `diarport check bundles/sinc-1bi`

    - `diarport check bundles/mine --model pytorch_model.bin --audio new/ --junit parity.xml`

    - `diarport check bundles/mine --pipeline --audio calls/ --rttm calls.rttm`
    """
    if pipeline:
        _check_pipeline(
            bundle, models=(model, embedding), audio=audio, rttm=rttm, uem=uem,
            backends=backend or [], recipes=recipe or [],
            settings=(collar_s, skip_overlap), as_json=json, quiet=quiet,
        )  # fmt: skip
    from runtime_checks.check import check
    from runtime_checks.der import DerSettings
    from runtime_checks.report import junit as junit_xml
    from runtime_checks.report import markdown as markdown_text
    from runtime_checks.report import write_html
    from runtime_checks.runners.base import backend_of

    from ..bundle import verify_bundle
    from ..pipeline import Exporter
    from .bundles import chosen_artifacts, model_of_bundle
    from .evidence import parity_record
    from .inputs import load_audio, load_trials
    from .presenting import artifact_rows, exit_code, parse_limits, show_result

    read = verify_bundle(bundle)
    artifacts = chosen_artifacts(bundle, read, backends=backend or [], recipes=recipe or [])
    loaded = model_of_bundle(bundle, read, model)
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
            trials=load_trials(trials, read.content.spec),
            uem=uem,
            hop_s=hop_s,
            der_settings=DerSettings(collar_s=collar_s, skip_overlap=skip_overlap),
            limits=parse_limits(limit),
            runners={backend_of(each): each for each in backend or []},
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
            latencies=_timed_at_build(bundle),
            profiles=_profiled_at_build(bundle),
            comparisons=_compared_at_build(bundle),
            notes=record.notes,
        )
    if json:
        rows = artifact_rows(artifacts, checked, ())
        parity = record.model_dump(mode="json")
        print_json({"verdict": checked.verdict.value, "artifacts": rows, "parity": parity})
    else:
        show_result(artifacts, checked, quiet=quiet)
    raise typer.Exit(exit_code(checked.verdict))


def _timed_at_build(bundle: Path) -> tuple[LatencyReport, ...]:
    """What the bundle's evidence says of times; its hash was checked with the bundle's others."""
    from ..types import LatencyRecord
    from .evidence import LATENCY

    file = bundle / LATENCY
    return LatencyRecord.model_validate_json(file.read_text()).reports if file.is_file() else ()


def _profiled_at_build(bundle: Path) -> tuple[ArtifactProfile, ...]:
    """What the bundle's evidence says of where the time goes."""
    from ..types import ProfileRecord
    from .evidence import PROFILE

    file = bundle / PROFILE
    return ProfileRecord.model_validate_json(file.read_text()).profiles if file.is_file() else ()


def _compared_at_build(bundle: Path) -> tuple[FloatComparison, ...]:
    """What the bundle's evidence says of smaller artifacts beside fp32."""
    from ..types import GuardRecord
    from .evidence import GUARDS

    file = bundle / GUARDS
    return GuardRecord.model_validate_json(file.read_text()).comparisons if file.is_file() else ()


def _check_pipeline(
    bundle: Path,
    *,
    models: tuple[str | None, str | None],
    audio: list[Path] | None,
    rttm: Path | None,
    uem: Path | None,
    backends: list[str],
    recipes: list[str],
    settings: tuple[float, bool],
    as_json: bool,
    quiet: bool,
) -> None:
    from runtime_checks.der import DerSettings

    from .checking_pipeline import check_pipeline, show_pipeline, verdict_of
    from .presenting import exit_code

    with progress_bar(quiet=quiet or as_json) as progress:
        compared, goldens = check_pipeline(
            bundle,
            models=models,
            audio=audio,
            rttm=rttm,
            uem=uem,
            backends=backends,
            recipes=recipes,
            settings=DerSettings(collar_s=settings[0], skip_overlap=settings[1]),
            progress=progress,
        )
    show_pipeline(compared, goldens, as_json=as_json, quiet=quiet)
    raise typer.Exit(exit_code(verdict_of(compared, goldens)))
