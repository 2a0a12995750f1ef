"""Documents name commands, options and files that exist; CI runs the README's test command."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from export.cli.app import app

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
COMMANDS: dict[str, Any] = vars(typer.main.get_command(app))["commands"]


def shown_commands(text: str) -> list[str]:
    """Every `diarport …` of a document, from code spans and code blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`(diarport [^`\n]*)`", text)
    return [m[1] for line in lines if (m := re.search(r"\b(diarport .*)", line)) is not None]


def check_command(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    if not words or words[0].startswith("-"):
        return
    name = words[0].rstrip(",.;")
    assert name in COMMANDS, f"{line!r}: no such command"
    known = {o for p in COMMANDS[name].params for o in p.opts} | {"--help"}
    used = {word.partition("=")[0] for word in words[1:] if word.startswith("-") and word != "-"}
    assert used <= known, f"{line!r}: {used - known} not an option of {name}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_commands_in_documents_exist(document: Path) -> None:
    for line in shown_commands(document.read_text()):
        check_command(line)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_links_in_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name}: {target}"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_has_examples_that_parse(name: str) -> None:
    help_text = COMMANDS[name].help or ""
    examples = shown_commands(help_text)
    assert examples, f"{name} --help shows no example"
    for line in examples:
        check_command(line)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_readme_names_every_command(name: str) -> None:
    assert f"`diarport {name}" in (ROOT / "README.md").read_text()


def test_ci_runs_the_readmes_test_command() -> None:
    readme = (ROOT / "README.md").read_text()
    commands = re.search(r"## Run the tests\n```sh\n(.*?)\n```", readme, flags=re.DOTALL)
    assert commands is not None
    assert commands[1] in (ROOT / ".ci" / "run").read_text()
