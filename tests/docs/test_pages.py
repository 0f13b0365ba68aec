"""The pages hang together: links lead somewhere, and nothing in them belongs to one machine."""

from __future__ import annotations

import re

import pytest

from influxdb_backup.model import VerifyLevel
from tests.docs.pages import DOCS, ROOT, Page, pages, read

PAGES = pages()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_project_lead_somewhere(page: Page) -> None:
    """Every relative link names a file that is there, and every fragment a heading of it."""
    for link in page.links:
        if re.match(r"[a-z]+:", link):
            continue
        path, _, fragment = link.partition("#")
        target = (page.path.parent / path).resolve() if path else page.path
        assert target.exists(), f"{page.name}: {link}"
        if fragment and target.suffix == ".md":
            assert fragment in read(target).anchors, f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_nothing_of_the_machine_they_were_written_on(page: Page) -> None:
    """No folders, hosts or folders of users of a build machine."""
    assert not re.search(r"/(root|work|home/\w+|tmp/pytest)\b|127\.0\.0\.1:\d{5}", page.text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tests_that_pages_name_are_there(page: Page) -> None:
    """What is said to be shown by a test is not shown by one that is gone."""
    for name in re.findall(r"`(tests/[\w/.]+)`", page.text):
        assert (ROOT / name).exists(), f"{page.name}: {name}"


def test_every_page_can_be_found_from_the_index() -> None:
    """docs/index.md leads, by links, to every page below docs/."""
    seen, waiting = set(), [DOCS / "index.md"]
    while waiting:
        path = waiting.pop()
        if path in seen or path.suffix != ".md":
            continue
        seen.add(path)
        for link in read(path).links:
            if not re.match(r"[a-z]+:", link):
                waiting.append((path.parent / link.partition("#")[0]).resolve() if link[0] != "#" else path)
    assert {path.relative_to(ROOT) for path in DOCS.rglob("*.md")} <= {
        path.relative_to(ROOT) for path in seen if path.is_relative_to(ROOT)
    }


def test_the_pages_say_what_each_level_of_verification_proves() -> None:
    """All levels are explained, and that a valid archive equals what the server returned, not all that it holds."""
    completeness = " ".join(read(DOCS / "explanation" / "completeness.md").text.split())
    specification = read(DOCS / "format" / "spec-v1.md").text
    for level in VerifyLevel:
        assert f"| `{level.value}` | " in completeness
        assert f"| `{level.value}` | " in specification
    for words in (
        "`valid` proves that the archive equals what the server **returned**",
        "That it returned all it holds rests on its own counts",
        "Where [shards are read](../how-to/shards.md) the damaged block is found and named; queries cannot see it",
    ):
        assert words in completeness
    assert re.search(r"\| `valid` \|.*the archive equals what the server returned", specification)


def test_the_changelog_has_the_present_version() -> None:
    """What is released is described."""
    from influxdb_backup import __version__

    assert f"## [{__version__}]" in read(ROOT / "CHANGELOG.md").text
