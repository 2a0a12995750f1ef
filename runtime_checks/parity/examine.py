"""Everything about one artifact: open it, run it, climb the ladder twice, bisect what failed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from export.audio import Window
from export.models.base import MODELS
from export.progress import Progress
from export.types import (
    Artifact,
    ModelSpec,
    ParityReport,
    Recipe,
    Role,
    Rung,
    RungName,
    Verdict,
)

from ..der import DerScorer
from ..inputs import window_inputs
from ..runners.base import RUNNERS, Noting, NotRunnableError, Runner
from ..verification import Segments
from .bisect import Divergence, bisect, first_divergence, layer_reference
from .contract import features
from .decisions import Floats
from .embeddings import module_trials
from .hops import by_windows, exported_form, heard_otherwise, reference_of, stream_problems
from .ladder import NO_SCORES, Climbed, Execution, climb, execute
from .limits import Limits, limits_for
from .probe import fresh_export
from .reference import ReferenceScores, double, evaluate, layer_outputs, torch_inputs
from .rungs import Scores, not_run
from .stress import PREFIX
from .verdicts import AGAINST, Against, Examined, gather, not_run_report
from .weights import weight_problems

SPREAD_WINDOWS = 3  # looking into a file is slow, and its front-end is the same on every window
SAME_WITHIN = 1e-9  # between equal modules in float64; the smallest change of a weight makes more
FRONTENDS = ("frontend", "sincnet")  # its name in canonical models, and in pyannote's


@dataclass(frozen=True)
class Examiner:
    """Examines artifacts of one model on the same windows.

    `float_model` is the model as trained, `compressed(recipe)` the canonical module that was
    exported for a recipe; equal weights are evaluated once. `runners` names the runner of a
    backend where it is not the backend's own.
    """

    spec: ModelSpec
    windows: Sequence[Window]
    float_model: nn.Module
    float_scores: ReferenceScores
    compressed: Callable[[Recipe], nn.Module]
    der: DerScorer | None
    changes: Mapping[str, object] | None
    threads: int
    progress: Progress
    cache: dict[str, ReferenceScores]
    runners: Mapping[str, str]
    trials: Segments | None = None

    def examine(self, artifact: Artifact, path: Path) -> Examined:
        """Both reports on one artifact; whatever its runtime raises becomes a failed rung."""
        runs = self._runs(artifact)
        reason = (
            RUNNERS[runs].unavailable()
            if runs in RUNNERS
            else f"this version has no runner for {runs}"
        )
        if reason is None:
            try:
                runner, execution = self._execute(artifact, path)
            except NotRunnableError as error:
                reason = str(error)
        if reason is not None:
            return gather(
                artifact,
                [not_run_report(artifact, to, reason, role=self.spec.role) for to in AGAINST],
                None,
            )
        notes: tuple[str, ...] = runner.notes() if isinstance(runner, Noting) else ()
        inside = _Inside(self, artifact, runner, execution)
        first = inside.report("compressed", earlier=None)
        second = inside.report("float", earlier=first)
        examined = gather(artifact, [first, second], execution.scores)
        if artifact.stream is not None:
            running = self.scores_of(reference_of(artifact, self.float_model, self.spec))
            notes = (*notes, heard_otherwise(running, self.float_scores, spec=self.spec))
        return replace(examined, notes=tuple(f"{artifact.path}: {note}" for note in notes))

    def _runs(self, artifact: Artifact) -> str:
        backend = artifact.recipe.backend
        return self.runners.get(backend, backend)

    def _execute(self, artifact: Artifact, path: Path) -> tuple[Runner | None, Execution]:
        try:
            runner = RUNNERS[self._runs(artifact)].open(
                path, artifact.contract(self.spec), threads=self.threads,
                options=artifact.runtime_options,
            )  # fmt: skip
        except NotRunnableError:
            raise
        except Exception as error:
            # As in running: a file that makes its runtime raise has failed, the others go on.
            return None, Execution(None, ((None, f"it cannot be opened: {error}"),))
        module = self.compressed(artifact.recipe)
        declared = stream_problems(runner, artifact, module, self.spec)
        ran = by_windows(runner, artifact, self.spec)
        execution = execute(
            ran,
            self.windows,
            spec=self.spec,
            dynamic_length=artifact.dynamic_length,
            trials=self.trials,
            stage=artifact.path,
            progress=self.progress,
        )
        held = weight_problems(runner, artifact, exported_form(artifact, module, self.spec))
        return ran, replace(execution, problems=(*declared, *execution.problems, *held))

    def scores_of(self, module: nn.Module) -> ReferenceScores:
        """Scores of a compressed module on all windows.

        A module that gives the float model's float64 scores on some windows is that model, which
        has been evaluated; every artifact is compared with it on every window.
        """
        chosen = self.spread()
        first = evaluate(module, [self.windows[index] for index in chosen], spec=self.spec)
        pairs = zip(first.float64, (self.float_scores.float64[i] for i in chosen), strict=True)
        if all(np.abs(mine - theirs).max() <= SAME_WITHIN for mine, theirs in pairs):
            return self.float_scores
        digest = hashlib.sha256(repr(module).encode())
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        key = digest.hexdigest()
        if key not in self.cache:
            self.cache[key] = evaluate(
                module,
                self.windows,
                spec=self.spec,
                stage="PyTorch, as exported",
                progress=self.progress,
            )
        return self.cache[key]

    def spread(self) -> list[int]:
        """Indices of a few windows from all over."""
        return [int(i) for i in np.linspace(0, len(self.windows) - 1, SPREAD_WINDOWS)]


@dataclass(frozen=True)
class _Inside:
    """One artifact while it is examined."""

    job: Examiner
    artifact: Artifact
    runner: Runner | None
    execution: Execution

    def report(self, against: Against, *, earlier: ParityReport | None) -> ParityReport:
        """Climb the ladder against one reference; on a failure, look for the layer.

        What is already out of tolerance against the compressed model is the export's doing, and
        `earlier` has named it.
        """
        job, recipe = self.job, self.artifact.recipe
        # What was rounded before the export is no excuse against the model that was exported.
        exported = against == "compressed"
        precision = recipe.activation_precision if exported else recipe.tolerance
        limits, changed = limits_for(recipe, precision, changes=job.changes)
        module = job.compressed(recipe) if exported else job.float_model
        module = reference_of(self.artifact, module, job.spec)
        plain = module is job.float_model
        reference = job.float_scores if plain else job.scores_of(module)
        climbed = climb(
            self.execution,
            reference,
            windows=job.windows,
            spec=job.spec,
            limits=limits,
            features=lambda: self._features(module, reference, limits),
            der=job.der,
            trials=module_trials(module, job.trials, spec=job.spec) if job.trials else None,
        )
        found = Divergence(None, "")
        if climbed.verdict is Verdict.FAIL:
            if earlier is not None and earlier.verdict is Verdict.FAIL:
                found = Divergence(earlier.first_diverging_layer, "")
            else:
                found = self._diverges(climbed, limits=limits, exported=exported)
        reasons = [text for text in (climbed.reason, found.explanation, changed) if text]
        return ParityReport(
            artifact_path=self.artifact.path,
            artifact_sha256=self.artifact.sha256,
            against=against,
            tolerance=precision,
            rungs=climbed.rungs,
            der=climbed.der,
            verdict=climbed.verdict,
            reason="; ".join(reasons) or None,
            first_diverging_layer=found.layer,
        )

    def _features(self, module: nn.Module, reference: ReferenceScores, limits: Limits) -> Rung:
        runner, scores = self.runner, self.execution.scores
        name = next((n for n in FRONTENDS if n in dict(module.named_modules())), None)
        if runner is None or scores is None or name is None:
            return not_run(RungName.FEATURES, NO_SCORES if name else "the model has no front-end")
        exact = double(module)

        def inside(window: Window) -> Floats | None:
            taps = runner.taps(self._inputs(window), [FRONTENDS[0]])
            return None if not taps else np.asarray(taps[FRONTENDS[0]], np.float64)

        def outside(of: nn.Module, window: Window) -> Floats:
            given = torch_inputs(self.job.spec, window)
            if of is exact:
                given = tuple(tensor.double() for tensor in given)
            return layer_outputs(of, *given, names=[name])[name]

        distances = [
            float(np.abs(mine - theirs).max())
            for mine, theirs in zip(scores, reference.float64, strict=True)
        ]
        chosen = dict.fromkeys([int(np.argmax(distances)), *self.job.spread()])
        try:
            return features(
                [self.job.windows[index] for index in chosen],
                artifact=inside,
                exact=lambda window: outside(exact, window),
                rounded=lambda window: outside(module, window),
                limits=limits,
            )
        except Exception as error:
            # The runtime may refuse the altered graph; that says nothing about the artifact.
            return not_run(RungName.FEATURES, f"its layers cannot be read ({error})")

    def _inputs(self, window: Window) -> dict[str, Scores]:
        declared = (self.runner.inputs if self.runner else None) or self.job.spec.inputs
        return window_inputs(declared, window.samples)

    def _diverges(self, climbed: Climbed, *, limits: Limits, exported: bool) -> Divergence:
        job, recipe = self.job, self.artifact.recipe
        if self.runner is None or job.spec.role is Role.EMBEDDING:
            return Divergence(None, "")
        if self.artifact.stream is not None:
            return Divergence(None, "no layer is named of what goes on from hop to hop")
        named = [rung.worst_window for rung in climbed.rungs if rung.name is RungName.SCORES]
        window = next((w for w in job.windows if w.name in named), job.windows[0])
        audio = [each for each in job.windows if not each.uri.startswith(PREFIX)]
        speech = max(audio, key=lambda each: float(np.square(each.samples).sum()))
        try:
            if exported:
                return bisect(
                    self.runner,
                    window,
                    speech=speech,
                    canonical=job.compressed(recipe),
                    rewrites=self.artifact.rewrites,
                    spec=job.spec,
                    limits=limits,
                    probe=fresh_export(job.spec, recipe),
                )
            original = MODELS[job.spec.architecture].canonical(job.float_model)
            smaller = layer_reference(job.compressed(recipe), window, speech=speech)
            reference = layer_reference(original, window, speech=speech)
            found = first_divergence(smaller.exact, reference, limits=limits)
            return Divergence(found.layer, f"compression: {found.explanation}")
        except Exception as error:
            # The verdict stands; only the layer's name is missing, and the report says why.
            return Divergence(None, f"no layer can be named ({type(error).__name__}: {error})")
