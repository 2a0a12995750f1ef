"""Diarization error on simulated conversations, and what a hop, an hour and its memory cost.

    python benchmarks/diarize.py der FOLDER --segmentation M --embedding M --parameters FILE
    python benchmarks/diarize.py tune FOLDER --segmentation M --embedding M --out FILE
    python benchmarks/diarize.py hour FOLDER --segmentation M --embedding M --parameters FILE

FOLDER holds LibriSpeech's speakers. `der` reports on speakers and a seed that nothing was chosen
on; `tune` takes the mean embedding from other speakers and shows what the parameters give there.
The networks are run once a conversation; their outputs are kept in --cache, so that parameters can
be changed without running them again.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from benchmarks.conversations import RATE_HZ, Simulated, read_speakers, simulate_many
from export.audio import Recording
from export.checkpoint import load_model, with_window
from export.cli.diarizing import model_pipeline
from export.distil.conversations import VOICE_SPEEDS
from export.types import PipelineParameters
from runtime_checks.der import DerSettings
from runtime_checks.diarize.agglomeration import SpeakerCount
from runtime_checks.diarize.compare import pooled_der
from runtime_checks.diarize.incremental import NOBODY
from runtime_checks.diarize.online import OnlineDiarizer
from runtime_checks.diarize.stages import Stages, WindowSpeech, listen, unit
from runtime_checks.diarize.whole import assign_all, turns_of_windows
from runtime_checks.diarize.windows import RollingWindow
from runtime_checks.parity.decisions import best_permutation
from runtime_checks.results import Turn

TUNED_ON = ("1688", "1998", "2033", "2414")
REPORTED_ON = ("2609", "3005", "3331", "533")
TUNE_SEED, REPORT_SEED = 0, 1
LATENCIES_S = (1.0, 5.0)
Turns = dict[str, list[Turn]]


def hear(
    made: Simulated, stages: Stages, parameters: PipelineParameters, *, cache: Path, key: str
) -> list[WindowSpeech]:
    """What both networks say of every window; kept in `cache` by what they and the audio are."""
    digest = hashlib.sha256(key.encode() + made.samples.tobytes()).hexdigest()[:24]
    file = cache / f"{digest}.npz"
    if not file.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        scores, embeddings = [], []

        def segment(samples: NDArray[np.float32]) -> NDArray[np.float32]:
            scores.append(stages.segment(samples))
            embeddings.append(np.zeros((len(stages.spec.classes), 0), np.float32))
            return scores[-1]

        def embed(
            samples: NDArray[np.float32], weights: NDArray[np.float32]
        ) -> NDArray[np.float32]:
            embeddings[-1] = stages.embed(samples, weights)
            return embeddings[-1]

        _listen_all(made, Stages(segment, embed, stages.spec), parameters)
        width = max(each.shape[1] for each in embeddings)
        filled = [e if e.shape[1] else np.zeros((len(e), width), np.float32) for e in embeddings]
        np.savez(file, scores=np.stack(scores), embeddings=np.stack(filled))
    kept = np.load(file)
    replay = iter(zip(kept["scores"], kept["embeddings"], strict=True))
    now: list[NDArray[np.float32]] = []

    def replay_segment(_: object) -> NDArray[np.float32]:
        now[:] = next(replay)
        return now[0]

    recorded = Stages(replay_segment, lambda _samples, _weights: now[1], stages.spec)
    return _listen_all(made, recorded, parameters)


def _listen_all(
    made: Simulated, stages: Stages, parameters: PipelineParameters
) -> list[WindowSpeech]:
    rolling = RollingWindow(
        window_samples=stages.spec.geometry.window_samples,
        hop_samples=round(parameters.hop_s * RATE_HZ),
    )
    hops = [*rolling.push(made.samples), *rolling.finish()]
    return [listen(hop, stages, parameters) for hop in hops]


def online(heard: list[WindowSpeech], stages: Stages, parameters: PipelineParameters) -> list[Turn]:
    """Turns of the online pipeline."""
    diarizer = OnlineDiarizer(stages, parameters)
    decisions = [*(diarizer.take(each) for each in heard), *diarizer.finish()]
    return [turn for decision in decisions for turn in decision.ended]


class Oracle:
    """Clustering that knows the truth: each window's slots go to the speakers they agree with."""

    def __init__(self, made: Simulated, stages: Stages, tau: float) -> None:
        self._turns, self._tau = made.turns, tau
        self._names = sorted({turn.speaker for turn in made.turns})
        self._geometry = stages.spec.geometry

    def assign(self, speech: WindowSpeech) -> NDArray[np.int64]:
        """The speaker of each slot, [slots]."""
        geometry = self._geometry
        times = speech.start / RATE_HZ + np.array(
            [geometry.frame_center_s(frame) for frame in range(geometry.num_frames)]
        )
        slots = len(speech.active)
        spoken = np.zeros((geometry.num_frames, max(slots, len(self._names))), np.bool_)
        for turn in self._turns:
            inside = (times >= turn.start_s) & (times < turn.end_s)
            spoken[:, self._names.index(turn.speaker)] |= inside
        order = best_permutation(
            np.pad(speech.scores >= self._tau, ((0, 0), (0, spoken.shape[1] - slots))), spoken
        )
        found = np.full(slots, NOBODY, np.int64)
        for speaker, slot in enumerate(order):
            if slot < slots and speech.active[slot]:
                found[slot] = speaker
        return found

    label = assign


def oracle(
    made: Simulated, heard: list[WindowSpeech], stages: Stages, parameters: PipelineParameters
) -> list[Turn]:
    """Turns of the online pipeline with the oracle's clustering."""
    diarizer = OnlineDiarizer(stages, parameters)
    diarizer.clustering = Oracle(made, stages, parameters.tau_active)
    decisions = [*(diarizer.take(each) for each in heard), *diarizer.finish()]
    return [turn for decision in decisions for turn in decision.ended]


def report(
    conversations: list[Simulated],
    heard: dict[str, list[WindowSpeech]],
    stages: Stages,
    parameters: PipelineParameters,
    *,
    at_once: int,
) -> None:
    """Print the pooled DER of every mode."""
    truth = {made.uri: made.turns for made in conversations}
    recordings = [
        Recording(made.uri, Path(made.uri), made.samples, RATE_HZ, ()) for made in conversations
    ]

    def der(turns: Turns) -> float:
        score = pooled_der(truth, turns, recordings, settings=DerSettings())
        return float("nan") if score is None else score

    def whole(count: SpeakerCount) -> Turns:
        return {
            uri: turns_of_windows(
                each, assign_all(each, parameters, count=count), stages, parameters
            )
            for uri, each in heard.items()
        }

    for latency_s in LATENCIES_S:
        wanted = parameters.model_copy(update={"latency_s": latency_s})
        mine = der({uri: online(each, stages, wanted) for uri, each in heard.items()})
        best = der({m.uri: oracle(m, heard[m.uri], stages, wanted) for m in conversations})
        show(f"{at_once} speakers, latency {latency_s:g} s: {mine:.1f} %, oracle {best:.1f} %")
    show(
        f"{at_once} speakers, whole file, given: {der(whole(SpeakerCount(exactly=at_once))):.1f} %"
    )
    estimated = whole(SpeakerCount())
    counts = [len({turn.speaker for turn in turns}) for turns in estimated.values()]
    show(f"{at_once} speakers, whole file, estimated: {der(estimated):.1f} %, found {counts}")


def show(line: str) -> None:
    """Print at once."""
    print(line, flush=True)  # noqa: T201


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["der", "tune", "hour"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--segmentation")
    parser.add_argument("--embedding")
    parser.add_argument("--parameters", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--count", type=int, default=16, help="conversations of each kind")
    parser.add_argument("--longest-s", type=float, default=15.0, help="longest turn")
    parser.add_argument("--hours", type=float, default=1.0, help="of audio, for `hour`")
    parser.add_argument("--cache", type=Path, default=Path("diarize-cache"))
    return parser.parse_args()


def measure(options: argparse.Namespace) -> None:
    """DER on the speakers reported on, or tuned on."""
    pipeline = model_pipeline(
        options.segmentation, options.embedding, parameters=options.parameters, threads=1
    )
    stages, parameters = pipeline.stages, pipeline.parameters
    tuning = options.what == "tune"
    speakers = read_speakers(options.folder, TUNED_ON if tuning else REPORTED_ON)
    show(f"{pipeline.said}; speakers {', '.join(speakers)}, up to {options.longest_s:g} s a turn")
    made = {
        at_once: simulate_many(
            speakers, count=options.count, at_once=at_once,
            seed=TUNE_SEED if tuning else REPORT_SEED, longest_s=options.longest_s,
        )
        for at_once in (2, 3)
    }  # fmt: skip
    shaping = ("hop_s", "tau_active", "gamma", "beta", "min_clean_s", "min_active_s")
    key = "".join(m.sha256 for m in _models(options)) + str(
        [getattr(parameters, name) for name in shaping]
    )
    if tuning:
        mean = mean_voice(speakers, stages)
        parameters = parameters.model_copy(update={"embedding_mean": mean})
        options.out.write_text(parameters.to_json(), encoding="utf-8")
    for at_once, conversations in made.items():
        share = np.mean([each.overlap for each in conversations])
        show(f"{at_once} speakers: {len(conversations)} conversations, {100 * share:.0f} % overlap")
        heard = {
            each.uri: hear(each, stages, parameters, cache=options.cache, key=key)
            for each in conversations
        }
        report(conversations, heard, stages, parameters, at_once=at_once)


def _models(options: argparse.Namespace) -> list:  # type: ignore[type-arg]
    from export.cli.diarizing import SEGMENTATION, embedded_embedding

    first = load_model(options.segmentation or SEGMENTATION)
    second = load_model(options.embedding or embedded_embedding())
    return [first, with_window(second, first.spec.geometry.window_s)]


def mean_voice(
    speakers: dict[str, list[NDArray[np.float32]]], stages: Stages, *, a_voice: int = 4
) -> tuple[float, ...]:
    """Mean embedding over many voices: each speaker at every speed of the students' training.

    Few speakers are all of one kind (of these, three are men), and around their mean all others
    are alike. Played faster or slower a speaker is another voice. A voice is the mean of a window
    of each of its first `a_voice` utterances; a shorter one is repeated.
    """
    size = stages.spec.geometry.window_samples
    weights = np.zeros((len(stages.spec.classes), stages.spec.geometry.num_frames), np.float32)
    weights[0] = 1
    voices = []
    for utterances in speakers.values():
        for up, down in VOICE_SPEEDS:
            windows = [
                np.resize(resample_poly(each[: size * down // up], up, down), size)
                for each in utterances[:a_voice]
            ]
            raw = [stages.embed(window.astype(np.float32), weights)[:1] for window in windows]
            voices.append(unit(np.concatenate(raw).astype(np.float64), mean=()).mean(axis=0))
    return tuple(round(float(value), 6) for value in np.mean(voices, axis=0))


def hour(options: argparse.Namespace) -> None:
    """Hours online: memory, the cost of a hop over time, the real-time factor (by the clock, and in
    processor time, which other work on the machine changes less)."""
    pipeline = model_pipeline(
        options.segmentation, options.embedding, parameters=options.parameters, threads=1
    )
    speakers = read_speakers(options.folder, REPORTED_ON)
    piece = simulate_many(speakers, count=1, at_once=3, seed=REPORT_SEED)[0].samples
    diarizer = OnlineDiarizer(pipeline.stages, pipeline.parameters)
    list(diarizer.push(piece[: 10 * RATE_HZ]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    begin, processor, costs = time.perf_counter(), time.process_time(), []
    for _ in range(round(20 * options.hours)):
        costs += [
            (d.segmentation_ms, d.embedding_ms, d.clustering_ms) for d in diarizer.push(piece)
        ]
    took_s, processor_s = time.perf_counter() - begin, time.process_time() - processor
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    table = np.array(costs)
    heard_s = 3600 * options.hours
    show(f"{pipeline.said}: {options.hours:g} h in {took_s:.0f} s, {took_s / heard_s:.4f} of it")
    show(f"processor time {processor_s:.0f} s, {processor_s / heard_s:.4f} of the audio")
    show(f"memory {before:.0f} MB after ten seconds, {after:.0f} MB at most")
    for name, part in (("first", table[: len(table) // 6]), ("last", table[-len(table) // 6 :])):
        p50, p95 = np.percentile(part, [50, 95], axis=0)
        show(f"{name} ten minutes, ms a hop: p50 {np.round(p50, 2)}, p95 {np.round(p95, 2)}")


if __name__ == "__main__":
    chosen = arguments()
    (hour if chosen.what == "hour" else measure)(chosen)
