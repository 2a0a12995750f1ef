"""A hand-made check for the reports: one artifact passes, one fails, one did not run.

Names and notes hold what breaks HTML, XML and Markdown.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from export.audio import load_recording
from export.pyannote_import import sample_recording
from export.types import (
    RUNGS,
    Artifact,
    BundleContent,
    DerComparison,
    DerScore,
    FrameGeometry,
    Golden,
    GraphStats,
    LatencyReport,
    Metric,
    ModelSpec,
    ParityReport,
    ParitySummary,
    Precision,
    Recipe,
    Role,
    Rung,
    RungName,
    TensorSpec,
    Verdict,
)
from runtime_checks.results import Timeline, TimelineRow, Turn
from runtime_checks.timing.protocol import EAGER_BASELINE

ONNX, PTE, COREML = "segmentation.fp32.onnx", "segmentation.fp32.pte", "segmentation.fp16.mlpackage"
NASTY = "</script><script>document.title='broken'</script> a|b & 'c' `d`"
NO_MAC = "Core ML runs on a Mac only; this is Linux"
FRAME_S, FIRST_FRAME_S = 270 / 16000, 721 / 32000


def _artifact(path: str, backend: str, size_bytes: int, *, precision: Precision) -> Artifact:
    return Artifact(
        path=path,
        sha256=f"{size_bytes:064x}",
        size_bytes=size_bytes,
        recipe=Recipe(
            name=precision.value,
            backend=backend,
            weight_precision=precision,
            activation_precision=precision,
        ),
        rewrites=("sincnet_filterbank",),
        dynamic_length=False,
        tool_versions={"torch": "2.13.0", backend: "1.4.1"},
        graph_stats=GraphStats(
            operators={"Conv": 3, "LSTM": 1, "Gemm": 2}, delegates=1, weight_bytes=size_bytes - 4000
        ),
    )


@pytest.fixture(scope="session")
def bundle() -> BundleContent:
    geometry = FrameGeometry(
        sample_rate_hz=16000,
        window_samples=80000,
        num_frames=293,
        frame_step_samples=270,
        receptive_field_samples=991,
    )
    spec = ModelSpec(
        name="sinc-1bi",
        architecture="PyanNet",
        geometry=geometry,
        classes=("speaker#1", "speaker#2", "speaker#3"),
        powerset_max_classes=None,
        permutation_invariant=True,
        inputs=(TensorSpec(name="waveform", dtype="float32", shape=(1, 1, 80000)),),
        outputs=(TensorSpec(name="scores", dtype="float32", shape=(1, 293, 3)),),
        licence="MIT",
        trained_on="AMI train excerpts and simulated LibriSpeech conversations",
    )
    golden = Golden(
        name="sample@0.00s",
        input_path="goldens/00.input.f32",
        input_sha256="1" * 64,
        input_shape=(1, 1, 80000),
        output_path="goldens/00.output.f32",
        output_sha256="2" * 64,
        output_shape=(1, 293, 3),
        noise_floor=3.2e-6,
    )
    return BundleContent(
        spec=spec,
        model_source="sinc-1bi",
        checkpoint_sha256="ab" * 32,
        artifacts=(
            _artifact(ONNX, "onnx_ort", 1_100_000, precision=Precision.FP32),
            _artifact(PTE, "executorch_xnnpack", 1_180_000, precision=Precision.FP32),
            _artifact(COREML, "coreml_mlprogram", 560_000, precision=Precision.FP16),
        ),
        goldens=(golden,),
        files=(),
        parity=(ParitySummary(artifact_path=ONNX, verdict=Verdict.PASS, reason=None),),
        created_by={"diarport": "0.1.0", "python": "3.11"},
    )


def _rung(name: RungName, metric: str, value: float, limit: float | None, unit: str) -> Rung:
    found = Metric(name=metric, value=value, limit=limit, unit=unit, higher_is_better=False)
    reported = Metric(
        name=f"{metric}_mean", value=value / 3, limit=None, unit=unit, higher_is_better=False
    )
    return Rung(
        name=name,
        verdict=Verdict.PASS if found.passed else Verdict.FAIL,
        metrics=(found, reported),
        worst_window="sample@10.00s",
        reason=None,
    )


def _score(pooled: float) -> DerScore:
    return DerScore(
        pooled=pooled,
        window_mean=pooled + 1.5,
        false_alarm=4.0,
        missed_detection=pooled - 9.0,
        confusion=5.0,
        reference_speech_s=24.5,
        num_windows=11,
        collar_s=0.25,
        skip_overlap=False,
    )


def _report(path: str, against: str, error: float, flips: float, der: float) -> ParityReport:
    rungs = (
        _rung(RungName.CONTRACT, "broken_terms", 0.0, 0.0, ""),
        Rung(
            name=RungName.FEATURES,
            verdict=Verdict.NOT_RUN,
            metrics=(),
            worst_window=None,
            reason="the graph does not show its features",
        ),
        _rung(RungName.SCORES, "max_abs", error, 1e-4, "probability"),
        _rung(RungName.DECISIONS, "decision_flips", flips, 0.0, "% of frames"),
        _rung(RungName.BOUNDARIES, "shift_p95", flips * 10, 0.0, "ms"),
        _rung(RungName.DER, "delta_der", der - 17.25, 0.01, "points"),
    )
    failed = any(rung.verdict is Verdict.FAIL for rung in rungs)
    return ParityReport.model_validate(
        {
            "artifact_path": path,
            "artifact_sha256": "c" * 64,
            "against": against,
            "tolerance": Precision.FP32,
            "rungs": rungs,
            "der": DerComparison(artifact=_score(der), reference=_score(17.25)),
            "verdict": Verdict.FAIL if failed else Verdict.PASS,
            "reason": f"scores differ: {NASTY}" if failed else None,
            "first_diverging_layer": "recurrent.0" if failed else None,
        }
    )


@pytest.fixture(scope="session")
def reports() -> list[ParityReport]:
    not_run = [
        ParityReport.model_validate(
            {
                "artifact_path": COREML,
                "artifact_sha256": "d" * 64,
                "against": against,
                "tolerance": Precision.FP16,
                "rungs": [
                    {
                        "name": name,
                        "verdict": Verdict.NOT_RUN,
                        "metrics": (),
                        "worst_window": None,
                        "reason": NO_MAC,
                    }
                    for name in RUNGS[Role.SEGMENTATION]
                ],
                "der": None,
                "verdict": Verdict.NOT_RUN,
                "reason": NO_MAC,
            }
        )
        for against in ("compressed", "float")
    ]
    return [
        _report(ONNX, "compressed", 1.25e-7, 0.0, 17.25),
        _report(ONNX, "float", 2.5e-7, 0.0, 17.25),
        _report(PTE, "compressed", 0.31, 2.75, 19.75),
        _report(PTE, "float", 0.32, 3.25, 19.75),
        *not_run,
    ]


def _sample_turns() -> list[Turn]:
    fields = [line.split() for line in sample_recording()[1].read_text().splitlines() if line]
    return [Turn(float(f[3]), float(f[3]) + float(f[4]), f[7]) for f in fields]


def _difference(scale: float, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    times = (np.arange(1776) * FRAME_S + FIRST_FRAME_S).astype(np.float32)
    slow = np.interp(times, np.linspace(0, 30, 40), rng.normal(0, 1.2, 40))
    values = scale * 10 ** (slow + rng.normal(0, 0.25, len(times)) - 1)
    return times, np.minimum(values, 1.0).astype(np.float32)


@pytest.fixture(scope="session")
def timelines() -> list[Timeline]:
    """The sample with all rows, and a second, unreferenced recording with a hostile name."""
    recording = load_recording(sample_recording()[0], sample_rate_hz=16000)
    reference = _sample_turns()
    # PyTorch names speakers otherwise and is 0.1 s late; the failing artifact loses 2 s.
    names = {name: str(1 - i) for i, name in enumerate(sorted({t.speaker for t in reference}))}
    pytorch = [Turn(t.start_s + 0.1, t.end_s, names[t.speaker]) for t in reference]
    longest = max(range(len(pytorch)), key=lambda i: pytorch[i].end_s - pytorch[i].start_s)
    broken = list(pytorch)
    kept = broken[longest]
    broken[longest] = Turn(kept.start_s, kept.end_s - 2.0, kept.speaker)
    rows = [
        TimelineRow("reference", tuple(reference), None, None),
        TimelineRow("pytorch", tuple(pytorch), *_difference(1e-9, seed=0)),
        TimelineRow(ONNX, tuple(pytorch), *_difference(2e-9, seed=1)),
        TimelineRow(PTE, tuple(broken), *_difference(2e-2, seed=2)),
    ]
    edges = np.linspace(0, 4, 9)
    other = [
        Turn(float(a), float(b), f"s{i % 3}") for i, (a, b) in enumerate(pairwise(edges)) if i % 4
    ]
    short = Timeline(
        uri=f"<b>{NASTY}</b>",
        samples=recording.samples[:64000],
        sample_rate_hz=16000,
        has_reference=False,
        rows=(TimelineRow("pytorch", tuple(other), None, None),),
    )
    return [Timeline("sample", recording.samples, 16000, True, tuple(rows)), short]


@pytest.fixture(scope="session")
def latencies() -> list[LatencyReport]:
    """Eager takes 10 ms in the middle, ONNX 7; the broken one fails; ExecuTorch has outliers."""
    rng = np.random.default_rng(7)
    samples = {
        EAGER_BASELINE: np.sort(10 + rng.gamma(2, 0.2, 101) - 0.3),
        ONNX: 7 + rng.gamma(2, 0.15, 101),
        PTE: np.concatenate([8.8 + rng.gamma(2, 0.2, 96), [12, 13, 14, 60, 75]]),
        COREML: np.array([]),
    }
    samples[EAGER_BASELINE][50] = 10.0
    return [
        LatencyReport(
            candidate=name,
            artifact_sha256=None if name == EAGER_BASELINE else "c" * 64,
            device="Example CPU, 2 cores, Linux x86_64",
            threads=threads,
            warmup_runs=10,
            hop_s=0.5,
            samples_ms=tuple(float(v) for v in values / threads),
            load_ms=41.5,
            first_ms=12.25,
            peak_rss_bytes=182_000_000,
            thermal="unknown",
            failures=() if len(values) else (f"load: OSError: {NASTY}",),
        )
        for threads in (1, 2)
        for name, values in samples.items()
    ]


@pytest.fixture(scope="session")
def contents(
    bundle: BundleContent,
    reports: list[ParityReport],
    timelines: list[Timeline],
    latencies: list[LatencyReport],
) -> dict[str, Any]:
    """All that an HTML report shows, as its arguments."""
    return {
        "bundle": bundle,
        "reports": reports,
        "timelines": timelines,
        "latencies": latencies,
        "notes": ["stereo.wav: mixed down from 2 channels", NASTY],
    }
