"""What is drawn: matched speakers, disagreements, waveform, audio, plots."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from export.types import LatencyReport
from runtime_checks.report.plots import MAX_POINTS, difference_plots, strip_plot
from runtime_checks.report.recording import recording_views
from runtime_checks.report.speech import audio_data_uri, draw_rows, peak_dbfs, waveform_path
from runtime_checks.results import Timeline, TimelineRow, Turn

SAMPLES = np.zeros(160000, np.float32)
TURNS = st.lists(
    st.tuples(st.integers(0, 80), st.integers(1, 20), st.sampled_from("abc")), max_size=8
)


def row(source: str, *turns: tuple[float, float, str]) -> TimelineRow:
    return TimelineRow(source, tuple(Turn(*turn) for turn in turns), None, None)


def timeline(*rows: TimelineRow) -> Timeline:
    return Timeline("uri", SAMPLES, 16000, True, rows)


def test_speakers_are_matched_by_overlap_whatever_they_are_called() -> None:
    rows = draw_rows(
        timeline(
            row("reference", (0, 4, "alice"), (4, 8, "bob")),
            row("pytorch", (0.5, 3.5, "2"), (4.5, 8, "1"), (8.5, 9, "3")),
            row("a.onnx", (0.5, 3.5, "x"), (4.5, 8, "y"), (8.5, 9, "z")),
        )
    )
    letters = [[turn.letter for turn in each.turns] for each in rows]
    assert letters == [["A", "B"], ["A", "B", "C"], ["A", "B", "C"]]
    assert [each.differs_from for each in rows] == [None, "reference", "pytorch"]
    assert rows[1].differs == ((0.0, 0.5), (3.5, 4.5), (8.5, 9.0))
    assert rows[2].differs == () and rows[2].differs_s == 0


def test_an_overlap_that_is_lost_is_a_disagreement() -> None:
    rows = draw_rows(
        timeline(
            row("pytorch", (0, 5, "a"), (3, 6, "b")),
            row("a.onnx", (0, 5, "a"), (4, 6, "b")),
            row("b.onnx", (0, 5, "b"), (3, 6, "a")),
        )
    )
    assert rows[0].differs_from is None
    assert rows[1].differs == ((3.0, 4.0),)
    # Names mean nothing: speakers that are called the other way round are the same people.
    assert rows[2].differs == ()


@given(TURNS)
def test_renamed_speakers_never_disagree(turns: list[tuple[int, int, str]]) -> None:
    given_turns = [(start / 10, (start + length) / 10, who) for start, length, who in turns]
    renamed = [(start, end, who.upper()) for start, end, who in given_turns]
    first, second = draw_rows(timeline(row("pytorch", *given_turns), row("x", *renamed)))
    assert second.differs == ()
    assert [t.identity for t in first.turns] == [t.identity for t in second.turns]


@given(TURNS)
def test_silence_disagrees_exactly_where_somebody_speaks(turns: list[tuple[int, int, str]]) -> None:
    given_turns = [(start / 10, (start + length) / 10, who) for start, length, who in turns]
    rows = draw_rows(timeline(row("pytorch", *given_turns), row("x")))
    spoken = np.zeros(100, np.bool_)
    for start, length, _ in turns:
        spoken[start : start + length] = True
    assert rows[1].differs_s == pytest.approx(spoken.sum() / 10)


def test_waveform_reaches_its_peaks() -> None:
    samples = np.zeros(1000, np.float32)
    samples[250], samples[750] = 0.5, -0.25
    path, bins = waveform_path(samples)
    points = [tuple(int(v) for v in p.split(",")) for p in path.strip("MZ").split()]
    assert bins == 1000 and len(points) == 2000
    assert (250, -100) in points and (750, 50) in points
    long_path, long_bins = waveform_path(np.ones(100000, np.float32))
    assert long_bins == 2000 and len(long_path.split()) == 4000
    assert peak_dbfs(samples) == pytest.approx(-6.02, abs=0.01)
    assert peak_dbfs(SAMPLES) is None


@pytest.mark.parametrize(("rate", "mime"), [(16000, "audio/ogg"), (11025, "audio/wav")])
def test_embedded_audio_is_the_recording(rate: int, mime: str) -> None:
    times = np.arange(rate * 2) / rate
    samples = (0.4 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)
    head, _, data = audio_data_uri(samples, sample_rate_hz=rate).partition(",")
    assert head == f"data:{mime};base64"
    decoded, decoded_rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
    assert (decoded_rate, len(decoded)) == (rate, len(samples))
    middle = slice(rate // 2, rate)
    assert np.corrcoef(decoded[middle], samples[middle])[0, 1] > 0.99


def test_audio_is_left_out_when_there_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime_checks.report.recording.MAX_AUDIO_S", 15.0)
    views = recording_views([timeline(row("pytorch"))] * 2, limits={})
    assert views[0].audio is not None and views[1].audio is None


def test_differences_share_one_scale_and_keep_their_maximum() -> None:
    times = np.linspace(0, 10, 5000, dtype=np.float32)
    values = np.full(5000, 1e-6, np.float32)
    values[1234], values[4000] = 0.02, np.nan
    rows = [
        TimelineRow("a", (), times, values),
        TimelineRow("b", (), times, np.full(5000, 1e-5, np.float32)),
        row("reference"),
    ]
    first, second = difference_plots(rows, duration_s=10.0, limits={"a": 1e-4})
    assert (first.source, second.source) == ("a", "b")
    assert len(first.points) <= MAX_POINTS
    assert first.largest == pytest.approx(0.02) and first.not_finite == 1
    assert first.largest_s == pytest.approx(float(times[1234]), abs=1e-3)
    # From 1e-6 or below at the bottom to 1e-1 at the top.
    labels = dict(first.ticks)
    assert first.ticks == second.ticks and labels[1.0] in {"1e-6", "1e-7"}
    assert first.limit_y is not None and 0 < first.limit_y < 1
    assert second.limit_y is None


def test_equal_scores_still_make_a_plot() -> None:
    times = np.linspace(0, 10, 100, dtype=np.float32)
    (plot,) = difference_plots(
        [TimelineRow("a", (), times, np.zeros(100, np.float32))], duration_s=10.0, limits={}
    )
    assert plot.largest == 0 and plot.path.startswith("M")
    (empty,) = difference_plots(
        [TimelineRow("a", (), times[:0], times[:0])], duration_s=10.0, limits={}
    )
    assert empty.largest is None and empty.path == ""


def test_strips_are_in_proportion_and_count_what_is_beyond(latencies: list[LatencyReport]) -> None:
    plot = strip_plot(latencies[:4])
    eager, onnx, pte = (plot.strips[r.candidate] for r in latencies[:3])
    assert len(plot.strips) == 3
    assert eager.median / onnx.median == pytest.approx(
        float(np.median(latencies[0].samples_ms) / np.median(latencies[1].samples_ms))
    )
    assert (pte.beyond, pte.largest_ms) == (3, 75.0)
    assert len(pte.dots) == 98 and all(0 <= x <= 100 and 0 <= y <= 1 for x, y, _ in pte.dots)
    assert eager.box[0] < eager.median < eager.box[1] < eager.p95
