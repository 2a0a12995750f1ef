"""What is written: RTTM that reads back, JSON lines, strips of text and pictures."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from export.types import PipelineParameters
from runtime_checks.diarize.online import OnlineDiarizer
from runtime_checks.diarize.output import decision_line, rttm_line, turn_line
from runtime_checks.diarize.picture import timeline_svg
from runtime_checks.diarize.stages import Stages
from runtime_checks.diarize.strip import speaking_s, strips
from runtime_checks.results import Turn
from runtime_checks.rttm import read_rttm

from .conftest import audio

TURNS = [Turn(0.0, 2.5, "speaker1"), Turn(2.0, 4.0, "speaker2"), Turn(6.0, 8.0, "speaker1")]


def test_rttm_reads_back(tmp_path: Path) -> None:
    file = tmp_path / "out.rttm"
    file.write_text("".join(rttm_line(turn, uri="my call") for turn in TURNS))
    assert read_rttm(file) == {"my_call": TURNS}


def test_a_turn_is_a_line_of_json() -> None:
    assert json.loads(turn_line(TURNS[1])) == {"speaker": "speaker2", "start_s": 2.0, "end_s": 4.0}


def test_a_decision_is_a_line_that_tells_its_latency(
    stages: Stages, parameters: PipelineParameters
) -> None:
    diarizer = OnlineDiarizer(stages, parameters)
    samples = audio((0, 0.0, 4.0), duration_s=4.0)
    lines = [json.loads(decision_line(each)) for each in diarizer.push(samples)]
    last = lines[-1]
    assert (last["hop"], last["heard_s"], last["from_s"], last["until_s"]) == (7, 4.0, 2.0, 2.5)
    (part,) = last["speaking"]["speaker1"]
    assert part == pytest.approx([2.0, 2.5], abs=0.03)
    assert last["slots"] == [0, -1, -1]
    assert last["embedding_ms"] >= 0


def test_a_strip_shows_shares_and_any_speech_at_all() -> None:
    turns = [Turn(0.0, 1.0, "a"), Turn(2.5, 3.0, "a"), Turn(3.999, 4.0, "b")]
    assert strips(turns, begin_s=0.0, end_s=4.0, columns=4) == {"a": "█ ▄ ", "b": "   ▁"}
    assert speaking_s(turns) == pytest.approx({"a": 1.5, "b": 0.001})


def test_a_picture_has_every_turn_in_its_place() -> None:
    svg = timeline_svg([("mine & yours", TURNS)], duration_s=8.0)
    root = ElementTree.fromstring(svg)
    boxes = [each for each in root.iter() if each.tag.endswith("rect")][1:]
    assert len(boxes) == 3
    starts, widths = ([float(box.attrib[key]) for box in boxes] for key in ("x", "width"))
    scale = (starts[1] - starts[0]) / 6.0
    assert starts[2] - starts[0] == pytest.approx(2.0 * scale, abs=0.2)
    assert widths == pytest.approx([2.5 * scale, 2.0 * scale, 2.0 * scale], abs=0.2)
    assert "mine &amp; yours" in svg


@pytest.mark.parametrize("duration_s", [0.0, 0.3, 59.0, 3600.0, 10800.0, 360000.0])
def test_an_axis_has_a_handful_of_ticks(duration_s: float) -> None:
    assert 1 <= timeline_svg([("x", [])], duration_s=duration_s).count("<line") <= 14
