"""The parity ladder: one artifact, run once on every window, compared with one reference.

Nothing stops at the first failure: every rung that can be looked at is. The features rung looks
into the file and the DER rung needs a reference of who speaks when, so that either may not run
without holding back the verdict; all others must have run for a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from export.audio import Window
from export.progress import Progress, silent
from export.types import (
    RUNGS,
    DerComparison,
    Metric,
    ModelSpec,
    Role,
    Rung,
    RungName,
    TensorSpec,
    Verdict,
    VerificationScore,
)

from ..der import DerScorer, how_sure
from ..inputs import window_inputs
from ..runners.base import Judging, NotRunnableError, Runner
from ..verification import Segments
from . import rungs
from .contract import contract, declaration_problems, expected_frames, value_problems
from .decisions import Bools, decide
from .embeddings import artifact_trials, embeddings
from .limits import Limits
from .reference import ReferenceScores
from .rungs import Compared, Scores, judge, metric, not_run

OPTIONAL_RUNGS = (RungName.FEATURES, RungName.DER)
# Where the model turns rounding into another answer, no float32 implementation can be judged.
ILL_CONDITIONED = 1e-2
NO_SCORES = "its output cannot be compared (see the contract rung)"
NO_REFERENCE = "no reference (RTTM) was given, or it covers none of this audio"


@dataclass(frozen=True)
class Execution:
    """What an artifact gave: scores [frames, classes] of every window, or None when what came out
    has no comparable shape; everything that breaks its contract, with the window; and an embedding
    model's error rates, where there are trials."""

    scores: tuple[Scores, ...] | None
    problems: tuple[tuple[str | None, str], ...]
    trials: VerificationScore | None = None


@dataclass(frozen=True)
class Climbed:
    """The rungs of one artifact against one reference."""

    rungs: tuple[Rung, ...]
    der: DerComparison | None

    @property
    def verdict(self) -> Verdict:
        """FAIL when any rung failed; PASS when all that are not optional passed."""
        return Verdict.worst(
            [
                rung.verdict
                for rung in self.rungs
                if rung.name not in OPTIONAL_RUNGS or rung.verdict is not Verdict.NOT_RUN
            ]
        )

    @property
    def reason(self) -> str | None:
        """Why it is no pass, in one line."""
        failed = [rung for rung in self.rungs if rung.verdict is Verdict.FAIL]
        if not failed:
            return None
        return "; ".join(_why(rung) for rung in failed)


def execute(
    runner: Runner,
    windows: Sequence[Window],
    *,
    spec: ModelSpec,
    dynamic_length: bool = False,
    trials: Segments | None = None,
    stage: str = "artifact",
    progress: Progress = silent,
) -> Execution:
    """Run an artifact on every window and note all that breaks its contract.

    An exception of the runtime is a broken contract, after which no further window is run; only
    `NotRunnableError`, which is this machine's doing, passes. With `dynamic_length` half a window
    must give the frames that the geometry asks for. What a runner that sees inside finds at fault
    (an operation that overflows float16) breaks the contract too, whatever comes out in the end.
    """
    problems: list[tuple[str | None, str]] = [
        (None, text)
        for text in (
            *declaration_problems("input", runner.inputs, spec.inputs),
            *declaration_problems("output", runner.outputs, spec.outputs),
        )
    ]
    collected: list[Scores] = []
    for done, window in enumerate(windows, start=1):
        output, found = _run(runner, window.samples, spec=spec)
        problems += [(window.name, text) for text in found]
        if output is None:
            break
        collected.append(output)
        progress(stage, done, len(windows))
    if isinstance(runner, Judging):
        problems += [(None, text) for text in runner.faults()]
    complete = len(collected) == len(windows)
    if dynamic_length and complete:
        half = windows[0].samples[: spec.geometry.window_samples // 2]
        shorter = spec.model_copy(
            update={"outputs": (_with_frames(spec, expected_frames(spec.geometry, len(half))),)}
        )
        _, found = _run(runner, half, spec=shorter)
        problems += [(f"half of {windows[0].name}", text) for text in found]
    score = artifact_trials(runner, trials, spec=spec) if trials and complete else None
    return Execution(tuple(collected) if complete else None, tuple(problems), score)


def _with_frames(spec: ModelSpec, frames: int) -> TensorSpec:
    output = spec.outputs[0]
    return output.model_copy(update={"shape": (1, frames, output.shape[2])})


def _run(runner: Runner, samples: Scores, *, spec: ModelSpec) -> tuple[Scores | None, list[str]]:
    """One window's comparable output (or None) and what is wrong with it."""
    declared = runner.inputs or spec.inputs
    try:
        outputs = runner.run(window_inputs(declared, samples))
    except NotRunnableError:
        raise
    except Exception as error:
        # Runtimes raise bare exceptions of many classes, and other artifacts must go on.
        text = str(error).strip() or "no message"
        return None, [f"{type(error).__name__}: {text.splitlines()[0][:200]}"]
    wanted = spec.outputs[0]
    if wanted.name not in outputs and len(outputs) != 1:
        return None, [f"outputs are {', '.join(outputs)}, expected {wanted.name}"]
    output = outputs.get(wanted.name, next(iter(outputs.values())))
    problems = value_problems(output, spec)
    usable = output.shape == wanted.shape and bool(np.isfinite(output).all())
    return (output[0] if usable else None), problems


def climb(
    execution: Execution,
    reference: ReferenceScores,
    *,
    windows: Sequence[Window],
    spec: ModelSpec,
    limits: Limits,
    features: Callable[[], Rung],
    der: DerScorer | None,
    trials: VerificationScore | None = None,
) -> Climbed:
    """All rungs of the model's role. `features` computes the second, which looks into the file;
    `trials` are the reference's error rates."""
    first = contract(execution.problems, num_windows=len(windows))
    if execution.scores is None:
        others = [name for name in RUNGS[spec.role] if name is not RungName.CONTRACT]
        return Climbed((first, *(not_run(name, NO_SCORES) for name in others)), None)
    kept = [i for i, floor in enumerate(reference.noise_floors) if floor <= ILL_CONDITIONED]
    if spec.role is Role.EMBEDDING:
        pair = (execution.trials, trials) if execution.trials and trials else None
        rung = embeddings(
            windows,
            artifact=execution.scores,
            exact=reference.float64,
            noise_floors=reference.noise_floors,
            limits=limits,
            trials=pair,
        )
        return Climbed((first, features(), rung), None)
    compared = Compared(
        windows=[windows[i] for i in kept],
        artifact=[execution.scores[i] for i in kept],
        exact=[reference.float64[i] for i in kept],
        noise_floors=[reference.noise_floors[i] for i in kept],
        spec=spec,
        limits=limits,
    )
    last, comparison = _der(
        der,
        artifact=[decide(each, spec) for each in execution.scores],
        reference=[decide(each, spec) for each in reference.float64],
        windows=windows,
        limits=limits,
    )
    middle = _compare(compared, left_out=[w.name for i, w in enumerate(windows) if i not in kept])
    return Climbed((first, features(), *middle, last), comparison)


def _compare(compared: Compared, *, left_out: Sequence[str]) -> tuple[Rung, Rung, Rung]:
    """Rungs 3 to 5 on the windows where float32 means something."""
    if len(compared.windows) <= len(left_out):
        reason = f"PyTorch's own float32 is off by more than {ILL_CONDITIONED} on most windows"
        return (
            not_run(RungName.SCORES, reason),
            not_run(RungName.DECISIONS, reason),
            not_run(RungName.BOUNDARIES, reason),
        )
    decided = rungs.compare_all_decisions(compared)
    return (
        rungs.scores(compared, left_out=left_out),
        rungs.decisions(compared, decided),
        rungs.boundaries(compared, decided),
    )


def _der(
    scorer: DerScorer | None,
    *,
    artifact: Sequence[Bools],
    reference: Sequence[Bools],
    windows: Sequence[Window],
    limits: Limits,
) -> tuple[Rung, DerComparison | None]:
    compared = scorer.compare(artifact, reference) if scorer else None
    if scorer is None or compared is None:
        return not_run(RungName.DER, NO_REFERENCE), None
    mine, theirs, interval = compared.artifact, compared.reference, compared.interval
    parts = {"delta_der": (compared.delta, limits.delta_der)}
    if interval:
        parts |= {"delta_der_low": (interval.low, None), "delta_der_high": (interval.high, None)}
    parts |= {
        "delta_window_der": (mine.window_mean - theirs.window_mean, limits.delta_der),
        "delta_false_alarm": (mine.false_alarm - theirs.false_alarm, None),
        "delta_missed_detection": (mine.missed_detection - theirs.missed_detection, None),
        "delta_confusion": (mine.confusion - theirs.confusion, None),
        "der": (mine.pooled, None),
        "reference_der": (theirs.pooled, None),
    }
    metrics = [
        metric(name, value, unit="points" if "delta" in name else "%", limit=limit)
        for name, (value, limit) in parts.items()
    ]
    worst = max(
        scorer.covered,
        key=lambda i: scorer.error_s(i, artifact[i]) - scorer.error_s(i, reference[i]),
    )
    reason = f"{scorer.settings}; {how_sure(interval, limit=limits.delta_der)}"
    return judge(RungName.DER, metrics, worst=windows[worst].name, reason=reason), compared


def _why(rung: Rung) -> str:
    over: list[Metric] = [each for each in rung.metrics if not each.passed]
    shown = ", ".join(f"{each.name} {each.value:.3g} (limit {each.limit:.3g})" for each in over)
    where = f" on {rung.worst_window}" if rung.worst_window else ""
    detail = f": {rung.reason}" if rung.reason and rung.name is RungName.CONTRACT else ""
    return f"{rung.name}: {shown}{where}{detail}"
