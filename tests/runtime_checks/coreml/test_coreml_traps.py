"""What is easily got wrong in ML Programs, each on a tiny program of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813 - its usual name
from coremltools.converters.mil.mil import types
from numpy.typing import NDArray
from torch import nn

from export.quiet import quiet_tools
from runtime_checks.coreml_mil.evaluator import Evaluator
from runtime_checks.coreml_mil.numerics import Mode
from runtime_checks.coreml_mil.package import from_mil, load_program

Arrays = dict[str, NDArray[Any]]
STEPS, BATCH, INPUTS, HIDDEN = 5, 2, 3, 4


def program(
    body: Callable[..., Any], shapes: Sequence[tuple[int, ...]], *, target: Any = None
) -> Any:
    """A program of inputs a, b, … (fp32) whose body is built by coremltools' builder."""
    names = "abcd"[: len(shapes)]
    specs = [mb.TensorSpec(shape=shape, dtype=types.fp32) for shape in shapes]
    scope: dict[str, Any] = {"body": body}
    # The builder reads the inputs' names from the function's signature.
    exec(f"def main({', '.join(names)}):\n    return body({', '.join(names)})", scope)
    return mb.program(input_specs=specs, opset_version=target or ct.target.iOS17)(scope["main"])


def evaluate(
    body: Callable[..., Any],
    *inputs: NDArray[Any],
    target: Any = None,
    mode: Mode = Mode.DECLARED,
) -> list[NDArray[Any]]:
    """Outputs in order, for inputs a, b, …"""
    built = program(body, [each.shape for each in inputs], target=target)
    evaluator = Evaluator(from_mil(built, target=8), mode=mode)
    return list(evaluator.run(dict(zip("abcd", inputs, strict=False))).values())


def package(built: Any, folder: Path, **options: Any) -> Path:
    """A program as coremltools converts and writes it."""
    path = folder / "tiny.mlpackage"
    with quiet_tools():
        target = ct.target.iOS17
        model = ct.convert(
            built,
            convert_to="mlprogram",
            minimum_deployment_target=target,
            skip_model_load=True,
            **options,
        )
        model.save(str(path))
    return path


def random(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def torch_lstm(*, bidirectional: bool) -> nn.LSTM:
    torch.manual_seed(0)
    return nn.LSTM(INPUTS, HIDDEN, bidirectional=bidirectional).double()


def gates(layer: nn.LSTM, suffix: str, *, order: str = "ifoz") -> list[NDArray[np.float32]]:
    """weight_ih, weight_hh and the sum of both biases, with gates in an order."""
    rows = np.concatenate([np.arange(HIDDEN) + "ifzo".index(gate) * HIDDEN for gate in order])
    named = {name: value.detach().numpy() for name, value in layer.named_parameters()}
    bias = named[f"bias_ih_l0{suffix}"] + named[f"bias_hh_l0{suffix}"]
    matrices = (named[f"weight_ih_l0{suffix}"], named[f"weight_hh_l0{suffix}"], bias)
    return [each[rows].astype(np.float32) for each in matrices]


def mil_lstm(layer: nn.LSTM, *, direction: str, order: str = "ifoz") -> Callable[..., Any]:
    def body(x: Any, h: Any, c: Any) -> Any:
        named = dict(
            zip(("weight_ih", "weight_hh", "bias"), gates(layer, "", order=order), strict=True)
        )
        if direction == "bidirectional":
            back = ("weight_ih_back", "weight_hh_back", "bias_back")
            named |= dict(zip(back, gates(layer, "_reverse", order=order), strict=True))
        return mb.lstm(
            x=x, initial_h=h, initial_c=c, direction=direction, output_sequence=True, **named
        )

    return body


def expected_lstm(
    layer: nn.LSTM, x: NDArray[Any], h: NDArray[Any], c: NDArray[Any]
) -> list[NDArray[Any]]:
    """PyTorch's, with states [batch, directions * hidden] as Core ML lays them out."""
    directions = 2 if layer.bidirectional else 1
    parts = [
        torch.from_numpy(each).double().reshape(BATCH, directions, HIDDEN).transpose(0, 1)
        for each in (h, c)
    ]
    with torch.no_grad():
        out, last = layer(
            torch.from_numpy(x).double(), (parts[0].contiguous(), parts[1].contiguous())
        )
    return [out.numpy(), *(each.transpose(0, 1).reshape(BATCH, -1).numpy() for each in last)]


def lstm_inputs(directions: int) -> list[NDArray[np.float32]]:
    return [
        random(STEPS, BATCH, INPUTS),
        random(BATCH, directions * HIDDEN, seed=1),
        random(BATCH, directions * HIDDEN, seed=2),
    ]


@pytest.mark.parametrize("mode", [Mode.DECLARED, Mode.EXACT])
def test_lstm_gates_are_input_forget_output_cell_with_one_bias(mode: Mode) -> None:
    layer, inputs = torch_lstm(bidirectional=False), lstm_inputs(1)
    found = evaluate(mil_lstm(layer, direction="forward"), *inputs, mode=mode)
    for mine, theirs in zip(found, expected_lstm(layer, *inputs), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=2e-7)
    swapped = evaluate(mil_lstm(layer, direction="forward", order="ifzo"), *inputs, mode=mode)
    assert np.abs(swapped[0] - found[0]).max() > 0.05


def test_lstm_states_are_forward_then_backward_and_outputs_stand_at_their_step() -> None:
    layer, inputs = torch_lstm(bidirectional=True), lstm_inputs(2)
    found = evaluate(mil_lstm(layer, direction="bidirectional"), *inputs)
    for mine, theirs in zip(found, expected_lstm(layer, *inputs), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=2e-7)


def test_a_reverse_lstm_keeps_the_order_in_which_it_computed() -> None:
    layer, inputs = torch_lstm(bidirectional=False), lstm_inputs(1)
    found = evaluate(mil_lstm(layer, direction="reverse"), *inputs)
    backwards = expected_lstm(layer, inputs[0][::-1].copy(), *inputs[1:])
    np.testing.assert_allclose(found[0], backwards[0], rtol=0, atol=2e-7)
    np.testing.assert_allclose(found[0][-1], found[1], rtol=0, atol=0)


@pytest.mark.parametrize("stepwise", [False, True])
def test_the_stepped_lstm_is_the_fused_one(stepwise: bool) -> None:
    """A clip that nothing reaches, and fp16's rounding, take the other way through the code."""
    layer, inputs = torch_lstm(bidirectional=False), lstm_inputs(1)
    weights = dict(zip(("weight_ih", "weight_hh", "bias"), gates(layer, ""), strict=True))

    def body(x: Any, h: Any, c: Any) -> Any:
        if stepwise:
            halves = {name: each.astype(np.float16) for name, each in weights.items()}
            x, h, c = (mb.cast(x=each, dtype="fp16") for each in (x, h, c))
            return mb.lstm(x=x, initial_h=h, initial_c=c, output_sequence=True, **halves)
        return mb.lstm(
            x=x, initial_h=h, initial_c=c, output_sequence=True, clip=np.float32(50), **weights
        )

    mode = Mode.SEQUENTIAL if stepwise else Mode.DECLARED
    found = evaluate(body, *inputs, mode=mode)
    limit = 5e-3 if stepwise else 2e-7
    for mine, theirs in zip(found, expected_lstm(layer, *inputs), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=limit)
        assert not stepwise or np.abs(mine - theirs).max() > 1e-5


def test_a_scalar_comes_out_as_an_array_of_one() -> None:
    (total,) = evaluate(lambda a: mb.reduce_sum(x=a, keep_dims=False), random(2, 3))
    assert total.shape == (1,)
    np.testing.assert_allclose(total[0], random(2, 3).sum(), rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "default", "value"),
    [
        ("log", np.log(np.float32(1e-45)), np.log(0.5)),
        ("rsqrt", 1e6, 0.5**-0.5),
        ("inverse", 1e4, 2.0),
    ],
)
def test_log_rsqrt_and_inverse_add_an_epsilon(kind: str, default: float, value: float) -> None:
    zero = np.zeros((1,), np.float32)
    (by_default,) = evaluate(lambda a: getattr(mb, kind)(x=a), zero)
    np.testing.assert_allclose(by_default, [default], rtol=1e-6)
    (given,) = evaluate(lambda a: getattr(mb, kind)(x=a, epsilon=np.float32(0.5)), zero)
    np.testing.assert_allclose(given, [value], rtol=1e-6)


def test_scatter_adds_unless_told_otherwise() -> None:
    data = np.ones((3, 2), np.float32)
    updates = np.full((2, 2), 5, np.float32)
    index = np.array([0, 0], np.int32)
    (added,) = evaluate(lambda a, b: mb.scatter(data=a, indices=index, updates=b), data, updates)
    assert added.tolist() == [[11, 11], [1, 1], [1, 1]]
    (set_,) = evaluate(
        lambda a, b: mb.scatter(data=a, indices=index, updates=b, mode="update"), data, updates
    )
    assert set_.tolist() == [[5, 5], [1, 1], [1, 1]]


@pytest.mark.parametrize("axis", [-1, 1, -2, 0])
def test_the_axis_of_palette_vectors_counts_from_either_end(axis: int) -> None:
    lut = np.array([[1, 2], [3, 4]], np.float16).reshape(1, 1, 2, 2)
    indices = np.array([[0, 1], [1, 0]]).astype(types.np_uint1_dtype)

    def body(a: Any) -> Any:
        weight = mb.constexpr_lut_to_dense(indices=indices, lut=lut, vector_axis=np.int32(axis))
        return mb.add(x=mb.cast(x=weight, dtype="fp32"), y=a)

    (found,) = evaluate(body, np.zeros((1, 1), np.float32), target=ct.target.iOS18)
    along_rows = [[1, 2, 3, 4], [3, 4, 1, 2]]
    along_columns = [[1, 3], [2, 4], [3, 1], [4, 2]]
    assert found.tolist() == (along_rows if axis in (-1, 1) else along_columns)


def test_a_constant_too_small_for_fp16_is_clamped_and_evaluated_as_it_is_stored(
    tmp_path: Path,
) -> None:
    built = program(lambda a: mb.add(x=a, y=np.float32(1e-12), name="sum"), [(1,)])
    precision = ct.precision.FLOAT16
    loaded = load_program(package(built, tmp_path, compute_precision=precision))
    (added,) = (op for op in loaded.functions["main"].operations if op.kind == "add")
    stored: Any = added.inputs["y"]
    assert stored.dtype == "fp16" and np.float16(1e-12) == 0 < stored.constant < 1e-4
    value: Any = Evaluator(loaded).run({"a": np.zeros((1,), np.float32)})["sum"]
    assert value[0] == stored.constant


@pytest.mark.parametrize("declared", [None, np.float32])
def test_inputs_and_outputs_are_fp16_from_ios_16_on_unless_declared(
    declared: type | None, tmp_path: Path
) -> None:
    class Triple(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 3

    loaded = load_program(
        package(
            torch.jit.trace(Triple(), torch.zeros(4)),  # type: ignore[no-untyped-call]
            tmp_path,
            inputs=[ct.TensorType(name="a", shape=(4,), dtype=declared)],
            outputs=[ct.TensorType(name="out", dtype=declared)],
        )
    )
    given = np.array([1e-8, 1, 0.1, 1e4], np.float32)
    evaluator = Evaluator(loaded)
    out: Any = evaluator.run({"a": given})["out"]
    assert loaded.functions["main"].inputs[0].dtype == ("fp32" if declared else "fp16")
    assert out.dtype == (np.float32 if declared else np.float16)
    halves = given.astype(np.float16).astype(np.float64) * 3
    np.testing.assert_array_equal(out, halves.astype(np.float16).astype(out.dtype))


@pytest.mark.parametrize("width", [2, 3, 4, 5])
def test_same_padding_puts_the_odd_sample_behind_as_pytorch_does(width: int) -> None:
    x, weight = random(1, 2, 9), random(3, 2, width, seed=1)
    (found,) = evaluate(lambda a: mb.conv(x=a, weight=weight, pad_type="same"), x)
    theirs = nn.functional.conv1d(torch.from_numpy(x), torch.from_numpy(weight), padding="same")
    np.testing.assert_allclose(found, theirs.numpy(), rtol=0, atol=1e-5)


def test_each_result_is_rounded_to_what_the_program_declares() -> None:
    def body(a: Any) -> Any:
        half = mb.mul(x=mb.cast(x=a, dtype="fp16"), y=np.float16(1 / 3))
        return mb.cast(x=mb.add(x=half, y=half), dtype="fp32")

    given = np.array([0.1, 10, 1000], np.float32)
    (declared,) = evaluate(body, given)
    third = given.astype(np.float16).astype(np.float64) * np.float64(np.float16(1 / 3))
    product = third.astype(np.float16)
    np.testing.assert_array_equal(declared, (product + product).astype(np.float32))
    (exact,) = evaluate(body, given, mode=Mode.EXACT)
    np.testing.assert_allclose(exact, given * 2 * np.float64(np.float16(1 / 3)), rtol=1e-12)


def test_adding_up_in_fp16_one_by_one_is_as_bad_as_it_gets() -> None:
    """4,096 ones: at 2,048 fp16 has no next odd number, so that one more changes nothing."""
    ones = np.ones((1, 4096), np.float32)

    def body(a: Any) -> Any:
        return mb.linear(x=mb.cast(x=a, dtype="fp16"), weight=np.ones((1, 4096), np.float16))

    assert [float(evaluate(body, ones, mode=mode)[0][0, 0]) for mode in Mode] == [4096, 2048, 4096]
