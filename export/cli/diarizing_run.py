"""What `diarport diarize` does with audio: hear it, decide, and write what is decided at once."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ..errors import AudioError, ExportError, RecipeError
from .common import say
from .diarizing import Pipeline
from .live import LiveTimeline

if TYPE_CHECKING:
    from runtime_checks.diarize.online import Decision
    from runtime_checks.diarize.streams import Samples, Stream
    from runtime_checks.results import Turn

STDIN, STDOUT = "-", Path("-")
RECENT = 100  # turns that may show in the terminal: a hop's cost must not grow


@dataclass(frozen=True)
class Request:
    """The command's options; see its help."""

    audio: str
    microphone: bool
    online: bool
    play: bool
    speakers: int | None
    min_speakers: int
    max_speakers: int | None
    rttm: Path | None
    json: Path | None
    plot: Path | None
    quiet: bool

    def check(self) -> None:
        """Refuse, before anything takes time, what cannot be done."""
        if self.online and (self.speakers or self.min_speakers > 1):
            raise RecipeError(
                "number of speakers",
                found="a number that is given, online",
                expected="--max-speakers alone: who will still come is not known online",
            )
        if self.plot is not None and self.plot.suffix != ".svg":
            raise RecipeError(self.plot, found="another picture", expected="a name that ends .svg")
        for path in (self.rttm, self.json, self.plot):
            if path is not None and path != STDOUT and not path.absolute().parent.is_dir():
                raise RecipeError(path.parent, found="no such folder", expected="a folder")


def changed(
    pipeline: Pipeline, request: Request, *, latency_s: float | None, hop_s: float | None
) -> Pipeline:
    """The pipeline with what the command line changes of its parameters."""
    from runtime_checks.diarize.online import check_times

    changes: dict[str, float | int] = {}
    if latency_s is not None:
        changes["latency_s"] = latency_s
    if hop_s is not None:
        changes["hop_s"] = hop_s
    if request.max_speakers is not None and request.online:
        changes["max_speakers"] = request.max_speakers
    parameters = pipeline.parameters.model_copy(update=changes)
    if pipeline.stateful is not None:
        pipeline.stateful.check(parameters)
    check_times(parameters, window_s=pipeline.stages.spec.geometry.window_s)
    return replace(pipeline, parameters=parameters)


class Outputs:
    """Files that are written as things are decided: whatever ends the program, they hold that."""

    def __init__(self, request: Request, uri: str, stack: ExitStack) -> None:
        plain = request.rttm is None and request.json is None
        self._uri = uri
        self._rttm = _open(STDOUT if plain else request.rttm, stack)
        self._json = _open(request.json, stack)
        self.turns: list[Turn] = []

    def turns_ended(self, turns: tuple[Turn, ...], *, as_json: bool) -> None:
        """Write turns that are final."""
        from runtime_checks.diarize.output import rttm_line, turn_line

        self.turns += turns
        for turn in turns:
            _write(self._rttm, rttm_line(turn, uri=self._uri))
            _write(self._json if as_json else None, turn_line(turn))

    def decided(self, decision: Decision) -> None:
        """Write what a hop decided."""
        from runtime_checks.diarize.output import decision_line

        _write(self._json, decision_line(decision))
        self.turns_ended(decision.ended, as_json=False)


def run(request: Request, pipeline: Pipeline) -> None:
    """Hear all of the audio; what was decided is written even where it breaks off."""
    stream = _open_stream(request, rate_hz=pipeline.stages.spec.geometry.sample_rate_hz)
    for note in stream.notes:
        say(f"note: {stream.uri}: {note}", quiet=request.quiet)
    begin = time.perf_counter()
    with ExitStack() as stack:
        outputs = Outputs(request, stream.uri, stack)
        live = stack.enter_context(LiveTimeline(quiet=request.quiet, total_s=stream.duration_s))
        heard = Heard(stream, rate_hz=pipeline.stages.spec.geometry.sample_rate_hz, live=live)
        blocks = _played(heard.blocks(), heard.rate_hz) if request.play else heard.blocks()
        hear = _online if request.online else _whole
        hear(request, pipeline, blocks, outputs, live)
        if request.plot is not None:
            _draw(request.plot, stream.uri, outputs.turns, duration_s=heard.seconds)
    live.summary(outputs.turns, heard_s=heard.seconds, took_s=time.perf_counter() - begin)
    if heard.stopped:
        say(f"note: stopped after {heard.seconds:.1f} s", quiet=request.quiet)
    if heard.broken is not None:
        raise heard.broken
    if heard.seconds == 0:
        raise AudioError(stream.uri, found="no samples", expected="a recording")


class Heard:
    """The blocks of a stream, up to its end, an interruption or an error, which is kept."""

    def __init__(self, stream: Stream, *, rate_hz: int, live: LiveTimeline) -> None:
        self._stream, self._live, self.rate_hz = stream, live, rate_hz
        self._samples = 0
        self.stopped = False
        self.broken: ExportError | None = None

    @property
    def seconds(self) -> float:
        """How much was heard."""
        return self._samples / self.rate_hz

    def blocks(self) -> Iterator[Samples]:
        """Block after block."""
        with _terminating():
            blocks = iter(self._stream.blocks)
            while True:
                try:
                    block = next(blocks, None)
                except KeyboardInterrupt:
                    self.stopped = True
                    return
                except ExportError as error:
                    self.broken = error
                    return
                if block is None:
                    return
                self._samples += len(block)
                self._live.heard(self.seconds)
                yield block


def _online(
    request: Request,
    pipeline: Pipeline,
    blocks: Iterator[Samples],
    outputs: Outputs,
    live: LiveTimeline,
) -> None:
    from runtime_checks.diarize.online import OnlineDiarizer

    diarizer = OnlineDiarizer(pipeline.stages, pipeline.parameters, stateful=pipeline.stateful)
    try:
        for block in blocks:
            for decision in diarizer.push(block):
                outputs.decided(decision)
                recent = [*outputs.turns[-RECENT:], *diarizer.open_turns()]
                live.show(recent, until_s=decision.until_s)
    except KeyboardInterrupt:
        live.interrupted()
    for decision in diarizer.finish():
        outputs.decided(decision)


def _whole(
    request: Request,
    pipeline: Pipeline,
    blocks: Iterator[Samples],
    outputs: Outputs,
    live: LiveTimeline,
) -> None:
    from runtime_checks.diarize.agglomeration import SpeakerCount
    from runtime_checks.diarize.whole import WholeFileDiarizer

    count = SpeakerCount(request.speakers, request.min_speakers, request.max_speakers)
    diarizer = WholeFileDiarizer(pipeline.stages, pipeline.parameters)
    try:
        for block in blocks:
            diarizer.push(block)
    except KeyboardInterrupt:
        live.interrupted()
    outputs.turns_ended(tuple(diarizer.finish(count)), as_json=True)


def _open_stream(request: Request, *, rate_hz: int) -> Stream:
    from runtime_checks.diarize.streams import open_file, open_microphone, open_pipe

    if request.microphone:
        return open_microphone(sample_rate_hz=rate_hz)
    if request.audio == STDIN:
        if sys.stdin.isatty():
            raise AudioError(
                "stdin", found="a terminal", expected="a WAV", todo="Name a file, or pipe one in."
            )
        return open_pipe(sys.stdin.buffer, sample_rate_hz=rate_hz)
    return open_file(Path(request.audio), sample_rate_hz=rate_hz)


def _played(blocks: Iterator[Samples], rate_hz: int) -> Iterator[Samples]:
    try:
        import sounddevice
    except (ImportError, OSError) as error:
        raise AudioError(
            "loudspeaker",
            found=f"sounddevice cannot be used ({error})",
            todo="Install the extra: pip install 'diarport[microphone]', and PortAudio.",
        ) from error
    try:
        with sounddevice.OutputStream(rate_hz, channels=1) as speaker:
            for block in blocks:
                speaker.write(block[:, None])
                yield block
    except sounddevice.PortAudioError as error:
        raise AudioError("loudspeaker", found=str(error), expected="a device") from error


def _draw(path: Path, uri: str, turns: list[Turn], *, duration_s: float) -> None:
    from runtime_checks.diarize.picture import timeline_svg

    path.write_text(timeline_svg([(uri, turns)], duration_s=duration_s), encoding="utf-8")


def _open(path: Path | None, stack: ExitStack) -> IO[str] | None:
    if path is None:
        return None
    if path == STDOUT:
        return sys.stdout
    try:
        return stack.enter_context(path.open("w", encoding="utf-8"))
    except OSError as error:
        raise RecipeError(path, found=str(error.strerror), expected="a file to write") from error


def _write(file: IO[str] | None, line: str) -> None:
    """Write a line and see that it is out of our hands."""
    if file is not None:
        file.write(line)
        file.flush()


@contextmanager
def _terminating() -> Iterator[None]:
    """SIGTERM is Ctrl-C meanwhile."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
