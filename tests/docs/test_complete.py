"""Every command, option, key, argument, parameter and variable is explained somewhere."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click
import pytest
import typer.main

from influxdb_backup.cli.main import app
from influxdb_backup.config import model
from tests.docs.pages import DOCS, ROOT, pages, read

EVERYTHING = "\n".join(page.text for page in pages())
COMMANDS = read(DOCS / "reference" / "cli.md").text
KEYS = read(DOCS / "reference" / "yaml.md").text


def _commands(group: click.Command, name: str = "influxdb-backup") -> Iterator[tuple[str, click.Command]]:
    children = getattr(group, "commands", None)
    if children is None:
        yield name, group
        return
    for child_name, child in children.items():
        yield from _commands(child, f"{name} {child_name}")


ALL_COMMANDS = dict(_commands(typer.main.get_command(app)))


@pytest.mark.parametrize("name", ALL_COMMANDS)
def test_every_command_and_option_is_in_the_reference(name: str) -> None:
    """The reference of the command line names each command and each of its options."""
    assert name in COMMANDS
    options = [
        option
        for parameter in ALL_COMMANDS[name].params
        for option in [*parameter.opts, *parameter.secondary_opts]
        if option.startswith("--") and option != "--help"
    ]
    section = re.split(r"^## ", COMMANDS.partition(f"\n## {name.removeprefix('influxdb-backup ')}\n")[2], maxsplit=1)[0]
    assert [option for option in options if not re.search(rf"[`/]{option}[` /]", section)] == []


@pytest.mark.parametrize("name", ALL_COMMANDS)
def test_every_command_is_used_in_an_example(name: str) -> None:
    """Each command stands in a page for people, not only in the reference."""
    written = "\n".join(page.text for page in pages() if page.path.parent != DOCS / "reference")
    assert re.search(rf"\b{name}\b", written)


def test_pages_name_no_command_that_does_not_exist() -> None:
    """A command that was renamed does not stay in the pages."""
    known = {name.split()[1] for name in ALL_COMMANDS}
    for page in pages():
        for word in re.findall(r"(?:^\$ |`)influxdb-backup (?:--\w+ [^\s`]+ )?([a-z][a-z-]*)", page.text, re.MULTILINE):
            assert word in known, (page.name, word)


def test_pages_name_no_option_that_does_not_exist() -> None:
    """Every option in a line that calls the program is one of its own."""
    known = {"--help"} | {
        option
        for command in (typer.main.get_command(app), *ALL_COMMANDS.values())
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    for page in pages():
        for line in re.findall(r"influxdb-backup [^\n`]*", page.text):
            for option in re.findall(r" (--[a-z][a-z-]+)", line.partition(" || ")[0]):
                assert option in known, (page.name, line)


@pytest.mark.parametrize(
    "section",
    [model.RepositoryConfig, model.Plan, model.DrillConfig, model.Check, model.AirflowConfig],
    ids=lambda section: section.__name__,
)
def test_every_key_of_the_yaml_file_is_explained(section: type[model.ConfigValue]) -> None:
    """Each key that the file may have is in the reference, with what it means."""
    keys = set(section.model_fields) - ({"name"} if section is model.Plan else set())
    assert [key for key in sorted(keys) if f"| `{key}` |" not in KEYS] == []


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("operators.export", "ExportWindowOperator"),
        ("operators.verify", "VerifyBackupOperator"),
        ("operators.restore", "RestoreOperator"),
        ("operators.drill", "RestoreDrillOperator"),
        ("sensors.settled", "WindowSettledSensor"),
        ("sensors.fresh", "BackupFreshSensor"),
    ],
)
def test_every_argument_of_operators_and_sensors_is_explained(module: str, name: str) -> None:
    """Each argument that a DAG's author may give stands in the reference of operators."""
    imported = __import__(f"influxdb_backup.{module}", fromlist=[name])
    text = read(DOCS / "reference" / "operators.md").text
    assert name in text
    parameters = inspect.signature(getattr(imported, name).__init__).parameters.values()
    own = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    assert [argument for argument in own if f"`{argument}`" not in text] == []


def test_every_environment_variable_is_explained() -> None:
    """Variables that the program or its tests read are in the pages."""
    found: set[str] = set()
    for path in [*(ROOT / "provider").rglob("*.py"), *(ROOT / "tests").glob("*.py")]:
        found |= set(re.findall(r"[\"'](INFLUXDB(?:_BACKUP|2)?_[A-Z_]+[A-Z])[\"'_]", path.read_text(encoding="utf-8")))
    assert len(found) >= 5
    assert sorted(name for name in found if name not in EVERYTHING) == []
