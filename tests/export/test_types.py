"""Value types: what is written is read back, and nothing else is accepted."""

from __future__ import annotations

import builtins
import json
import math
import subprocess
import sys
import types as pytypes
import typing
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from export.types import (
    Artifact,
    ArtifactProfile,
    Bundle,
    FrameGeometry,
    LatencyReport,
    Metric,
    ModelSpec,
    Precision,
    Recipe,
    Rung,
    RungName,
    TensorSpec,
    Value,
    Verdict,
)

VALUES = sorted(
    (cls for cls in Value.__subclasses__() if cls.__module__.startswith("export.types.")),
    key=lambda cls: cls.__name__,
)
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(1, 2**40),
    float: st.floats(allow_nan=False, allow_infinity=False),
    str: st.text(min_size=1, max_size=8),
    bool: st.booleans(),
    type(None): st.none(),
}
BOUNDED = st.floats(0, 1, exclude_min=True, exclude_max=True)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.one_of(PLAIN[str], PLAIN[float], st.integers(), st.booleans(), st.none()),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(PLAIN[str], inner, max_size=2),
    max_leaves=4,
)


def any_of(annotation: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type, whatever type of ours it is: new types test themselves."""
    arguments = typing.get_args(annotation)
    if annotation in PLAIN:
        made = PLAIN[annotation]
    elif isinstance(annotation, type) and issubclass(annotation, Value):
        made = instances(annotation)
    elif isinstance(annotation, type) and issubclass(annotation, StrEnum):
        made = st.sampled_from(list(annotation))
    else:
        match typing.get_origin(annotation):
            case typing.Literal:
                made = st.sampled_from(arguments)
            case typing.Union | pytypes.UnionType:
                made = st.one_of([any_of(argument) for argument in arguments])
            case builtins.tuple:
                made = st.lists(any_of(arguments[0]), max_size=2).map(tuple)
            case builtins.dict:
                made = st.dictionaries(PLAIN[str], any_of(arguments[1]), max_size=2)
            case _:
                made = JSON
    return made


def has_float(annotation: Any) -> bool:
    return float in (annotation, *typing.get_args(annotation))


def instances(cls: type[Value]) -> st.SearchStrategy[Any]:
    fields = {
        # All bounded numbers may be between zero and one.
        name: BOUNDED
        if field.metadata and has_float(field.annotation)
        else any_of(field.annotation)
        for name, field in cls.model_fields.items()
    }
    if cls is Rung:
        fields["reason"] = PLAIN[str]  # needed where a rung did not run
    if cls is ArtifactProfile:
        fields["nodes"] = st.just(())  # it holds either times or a reason
        fields["reason"] = PLAIN[str]
    return st.builds(cls, **fields)


@pytest.mark.parametrize("cls", VALUES, ids=lambda cls: cls.__name__)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_what_is_written_is_read_back(cls: type[Value], data: st.DataObject) -> None:
    value = data.draw(instances(cls))
    text = value.to_json()
    assert cls.model_validate_json(text) == value
    assert text.endswith("}\n")
    assert cls.model_validate_json(text).to_json() == text
    written = json.loads(text)
    assert set(written) == set(cls.model_fields)
    assert list(written) == sorted(written)


@pytest.mark.parametrize("cls", VALUES, ids=lambda cls: cls.__name__)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_unknown_and_missing_keys_are_refused(cls: type[Value], data: st.DataObject) -> None:
    value = data.draw(instances(cls))
    written = json.loads(value.to_json())
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        cls.model_validate(written | {"surprise": 1})
    required = [name for name, field in cls.model_fields.items() if field.is_required()]
    if not required:
        return
    del written[data.draw(st.sampled_from(required))]
    with pytest.raises(ValidationError, match="Field required"):
        cls.model_validate(written)


@pytest.mark.parametrize("cls", VALUES, ids=lambda cls: cls.__name__)
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_values_are_frozen(cls: type[Value], data: st.DataObject) -> None:
    value = data.draw(instances(cls))
    name = next(iter(cls.model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(value, name, getattr(value, name))


def metric(value: float, *, limit: float | None = None, higher: bool = False) -> Metric:
    return Metric(name="x", value=value, limit=limit, unit="", higher_is_better=higher)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValidationError, match="finite number"):
        metric(value)
    with pytest.raises(ValidationError, match="finite number"):
        metric(0, limit=value)
    with pytest.raises(ValidationError):
        recipe(options={"percentile": value})
    with pytest.raises(ValueError, match="JSON"):
        metric(0).model_copy(update={"value": value}).to_json()


def test_another_schema_version_is_refused() -> None:
    for cls in (Bundle, LatencyReport):
        assert cls.model_fields["schema_version"].default == 1
        with pytest.raises(ValidationError, match="schema_version"):
            cls.model_validate({"schema_version": 2})


def test_a_metric_knows_its_direction() -> None:
    assert metric(0.5).passed
    assert metric(0.5, limit=0.5).passed and metric(0.5, limit=0.5, higher=True).passed
    assert metric(0.4, limit=0.5).passed and not metric(0.6, limit=0.5).passed
    assert metric(0.6, limit=0.5, higher=True).passed
    assert not metric(0.4, limit=0.5, higher=True).passed


def test_the_worst_verdict() -> None:
    ok, bad, absent = Verdict.PASS, Verdict.FAIL, Verdict.NOT_RUN
    assert Verdict.worst([]) is absent
    assert Verdict.worst([ok, ok]) is ok
    assert Verdict.worst([ok, absent]) is absent
    assert Verdict.worst([absent, bad, ok]) is bad


def test_a_rung_that_did_not_run_says_why() -> None:
    def rung(reason: str | None) -> Rung:
        return Rung(
            name=RungName.DER,
            verdict=Verdict.NOT_RUN,
            metrics=(),
            worst_window=None,
            reason=reason,
        )

    assert rung("no reference").reason == "no reference"
    for reason in (None, ""):
        with pytest.raises(ValidationError, match="must say why"):
            rung(reason)


def recipe(**given: Any) -> Recipe:
    precisions = {"weight_precision": "fp32", "activation_precision": "fp32"}
    return Recipe.model_validate({"name": "r", "backend": "b"} | precisions | given)


def test_tolerance_is_the_coarser_precision() -> None:
    assert recipe().tolerance is Precision.FP32
    assert recipe(weight_precision="fp16").tolerance is Precision.FP16
    assert recipe(weight_precision="int8", activation_precision="fp16").tolerance is Precision.INT8
    assert recipe(activation_precision="int8").tolerance is Precision.INT8
    with pytest.raises(ValidationError, match="fp32"):
        recipe(weight_precision="fp64")


def test_geometry_in_seconds() -> None:
    geometry = FrameGeometry(
        sample_rate_hz=16000,
        window_samples=80000,
        num_frames=293,
        frame_step_samples=270,
        receptive_field_samples=991,
    )
    assert geometry.window_s == 5.0
    assert geometry.frame_step_s == 0.016875
    assert geometry.frame_center_s(0) == pytest.approx(0.03096875)
    assert geometry.frame_center_s(292) == pytest.approx(292 * 0.016875 + 0.03096875)
    for name in FrameGeometry.model_fields:
        with pytest.raises(ValidationError, match="greater than 0"):
            FrameGeometry.model_validate(geometry.model_dump() | {name: 0})


def test_a_free_dimension_is_null() -> None:
    spec = TensorSpec(name="waveform", dtype="float32", shape=(1, 1, None))
    assert json.loads(spec.to_json())["shape"] == [1, 1, None]


def test_types_that_others_rely_on_are_covered() -> None:
    assert {Artifact, Bundle, LatencyReport, Metric, ModelSpec, Recipe, Rung} <= set(VALUES)


def test_reading_a_bundle_needs_no_torch() -> None:
    code = (
        "import sys, export.types, export.errors, export.bundle\n"
        "heavy = {'torch', 'pyannote', 'onnx', 'coremltools', 'executorch'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
