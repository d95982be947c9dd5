"""README and docs: no command that does not exist, no option without an example, no link that leads nowhere."""

import re
import shlex
from pathlib import Path

import click
import pytest

import fastcutpaste
from fastcutpaste.cli import COMMANDS, app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands_shown(page):
    """Give the arguments of each line in a page's blocks of code that calls the command line."""
    for block in re.findall(r"^```\w*\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            called = re.match(r"(?:.*&& |torchrun .* -m )?fastcutpaste (?:--most-pixels \d+ )?(\w.*)", line)
            if called:
                yield shlex.split(called[1], comments=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_those_that_the_command_line_takes(page):
    for name, *arguments in commands_shown(page):
        command = app.get_command(click.Context(app), name)
        assert command is not None, name
        command.make_context(name, arguments)  # which checks all values, and runs nothing


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_an_example(name):
    command = app.get_command(click.Context(app), name)
    shown = {word for line in commands_shown(ROOT / "docs" / "commands.md") if line[0] == name for word in line}
    options = [each for each in command.params if isinstance(each, click.Option)]
    assert [each.opts for each in options if not shown & {*each.opts, *each.secondary_opts}] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    text = page.read_text(encoding="utf-8")
    targets = [each.partition("#")[0] for each in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in each]
    assert [each for each in targets if each and not (page.parent / each).exists()] == []


def test_every_public_name_is_in_the_reference():
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    told = {each.rpartition(".")[2] for each in re.findall(r"^::: (\S+)", text, re.MULTILINE)}
    assert set(fastcutpaste.__all__) - told == {"__version__"}


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 160
