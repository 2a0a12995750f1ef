"""What `diarport bench` does: find what is timed, time it, put it on record."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BundleError, RecipeError
from ..progress import Progress
from ..types import BenchRecord, LatencyReport
from .inputs import audio_notes, load_audio
from .subjects import Subject, find_subjects

if TYPE_CHECKING:
    from runtime_checks.timing.protocol import Candidate


@dataclass(frozen=True)
class BenchRequest:
    """The command's options; see its help."""

    sources: list[str]
    model: str | None
    windows_s: list[float]
    audio: list[Path]
    backends: list[str]
    recipes: list[str]
    peers: list[str]
    peer_limit_s: float
    threads: list[int]
    runs: int
    repeats: int
    warmup: int
    hop_s: float
    seed: int


def run_bench(request: BenchRequest, progress: Progress) -> BenchRecord:
    """Export what has to be, then time all candidates together for each number of threads."""
    from runtime_checks.timing.contenders import windows_of
    from runtime_checks.timing.processes import measure_apart

    with tempfile.TemporaryDirectory(prefix="diarport-bench-") as name:
        workspace = Path(name)
        subjects = find_subjects(
            request.sources,
            model=request.model,
            windows_s=request.windows_s,
            backends=request.backends,
            recipes=request.recipes,
            workspace=workspace,
            progress=progress,
        )
        longest = max((s.spec for s in subjects), key=lambda spec: spec.geometry.window_samples)
        rate_hz = longest.geometry.sample_rate_hz
        recordings, _ = load_audio(request.audio, rttm=None, sample_rate_hz=rate_hz)
        candidates, not_run = find_candidates(
            subjects,
            peers=request.peers,
            limit_s=request.peer_limit_s,
            workspace=workspace,
            progress=progress,
        )
        windows = windows_of(recordings, spec=longest, seed=request.seed)
        reports: list[LatencyReport] = []
        for threads in request.threads:
            reports += measure_apart(
                candidates,
                windows,
                threads=threads,
                hop_s=request.hop_s,
                seed=request.seed,
                warmup_runs=request.warmup,
                timed_runs=request.runs,
                repeats=request.repeats,
                progress=progress,
            )
    notes = [*audio_notes(recordings), *(note for s in subjects for note in s.notes)]
    return BenchRecord(
        seed=request.seed,
        models={subject.spec.name: subject.sha256 for subject in subjects},
        reports=tuple(reports),
        not_run=not_run,
        notes=tuple(dict.fromkeys(notes)),
    )


def find_candidates(
    subjects: Sequence[Subject],
    *,
    peers: Sequence[str],
    limit_s: float,
    workspace: Path,
    progress: Progress,
) -> tuple[list[Candidate], dict[str, str]]:
    """All that is timed: eager, peers and artifacts of each subject; and why others are not."""
    from runtime_checks.runners.base import why_untimed
    from runtime_checks.timing.contenders import candidates
    from runtime_checks.timing.peers import find_peers, module_of

    found: list[Candidate] = []
    not_run: dict[str, str] = {}
    for subject in subjects:
        name = f"{subject.spec.name}, {subject.spec.geometry.window_s:g} s"
        made = candidates(
            subject.artifacts, spec=subject.spec, load_eager=partial(module_of, subject.load)
        )
        others, missing = find_peers(
            peers,
            load=subject.load,
            spec=subject.spec,
            folder=workspace,
            limit_s=limit_s,
            progress=progress,
        )
        found += [made[0], *others, *made[1:]]
        not_run |= {f"{name}: {peer}": reason for peer, reason in missing.items()}
        for artifact, _ in subject.artifacts:
            if reason := why_untimed(artifact.recipe.backend):
                not_run[f"{name}: {artifact.path}"] = reason
    keys = [candidate.key for candidate in found]
    if len(set(keys)) < len(keys):
        raise RecipeError(
            next(str(key[0]) for key in keys if keys.count(key) > 1),
            found="named twice with the same window",
            expected="models and bundles of different names",
        )
    return found, not_run


def read_record(path: Path) -> BenchRecord:
    """What `--out` wrote."""
    from pydantic import ValidationError

    try:
        return BenchRecord.model_validate_json(path.read_text())
    except OSError as error:
        raise BundleError(path, found=f"cannot be read ({error.strerror})") from error
    except (ValidationError, UnicodeDecodeError) as error:
        first = str(error).splitlines()
        raise BundleError(
            path,
            found=f"not a run of diarport bench ({' '.join(first[:3])[:160]})",
            expected="what --out wrote",
        ) from error
