"""`diarport models`: what ships, and checkpoints out of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .common import JsonOption, print_json, print_table, say


def command(
    name: Annotated[
        str | None, typer.Argument(help="A model (zoo name, path or hub id) to show whole.")
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(help="Write the model as a pyannote checkpoint (pytorch_model.bin)."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """List the models that ship, show one, or save one as a pyannote checkpoint.

    Examples:

    - `diarport models`

    - `diarport models sinc-1bi --json`

    - `diarport models sinc-1bi --save pytorch_model.bin`
    """
    from ..checkpoint import zoo_names

    if name is None:
        if save is not None:
            raise typer.BadParameter("name the model to save", param_hint="NAME")
        rows = [_describe_zoo(zoo_name) for zoo_name in zoo_names()]
        if json:
            print_json(rows)
        else:
            shown = ("name", "architecture", "values", "size_bytes", "licence")
            print_table("Models that ship", [{key: row[key] for key in shown} for row in rows])
        return
    _show(name, save=save, as_json=json)


def _show(name: str, *, save: Path | None, as_json: bool) -> None:
    from ..checkpoint import load_model, save_pyannote

    model = load_model(name)
    parameters = sum(p.numel() for p in model.module.parameters())
    described = {
        "checkpoint_sha256": model.sha256,
        "parameters": parameters,
        "spec": model.spec.model_dump(mode="json"),
    }
    if save is not None:
        save_pyannote(save, model.module)
        say(f"wrote {save}, which pyannote.audio's Model.from_pretrained loads")
    if as_json:
        print_json(described)
    else:
        typer.echo(model.card or f"{model.spec.name}: no model card")
        typer.echo(f"\n{parameters:,} parameters, sha256 {model.sha256}")


def _describe_zoo(name: str) -> dict[str, Any]:
    import json

    from safetensors import safe_open

    from ..checkpoint import CONFIG_FILE, WEIGHTS_FILE, zoo_dir

    folder = zoo_dir() / name
    config = json.loads((folder / CONFIG_FILE).read_text())
    weights = folder / WEIGHTS_FILE
    with safe_open(weights, framework="numpy") as tensors:
        sizes = [_count(tensors.get_slice(key).get_shape()) for key in tensors.keys()]  # noqa: SIM118
    return {
        "name": name,
        "architecture": config["architecture"],
        "values": sum(sizes),
        "size_bytes": weights.stat().st_size,
        "licence": config["licence"],
        "trained_on": config["trained_on"],
    }


def _count(shape: list[int]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product
