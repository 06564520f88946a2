from __future__ import annotations

from pathlib import Path

import pytest

from chainops.knowledge.files import identify, match


@pytest.fixture
def folder(tmp_path):
    for name in ("b.md", "a.md", "notes.txt", "deep/c.md", "deep/er/d.md", ".git/e.md", "deep/.hidden.md", "[x].md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text")
    return tmp_path


def names(found, base):
    return [identify(path, base) for path in found.paths]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.md", ["[x].md", "a.md", "b.md"]),
        ("**/*.md", ["[x].md", "a.md", "b.md", "deep/c.md", "deep/er/d.md"]),
        ("deep/**/*.md", ["deep/c.md", "deep/er/d.md"]),
        ("**", ["[x].md", "a.md", "b.md", "deep/c.md", "deep/er/d.md", "notes.txt"]),
        ("[ab].md", ["a.md", "b.md"]),
        ("[!a].md", ["b.md"]),
        ("[x].md", ["[x].md"]),
        ("?.md", ["a.md", "b.md"]),
        ("*/*.md", ["deep/c.md"]),
        (".git/*.md", [".git/e.md"]),
        ("deep/.*.md", ["deep/.hidden.md"]),
        ("notes.txt", ["notes.txt"]),
    ],
)
def test_a_pattern_means_these_files_in_this_order(folder, pattern, expected):
    assert names(match(pattern, folder), folder) == expected


def test_an_absolute_pattern_outside_the_base_names_files_relative_to_it(folder):
    base = folder / "deep"
    assert names(match(f"{folder}/*.txt", base), base) == ["../notes.txt"]


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("none/*.md", "there is no folder"),
        ("*.pdf", "matches no file below"),
        ("none.md", "there is no such file"),
        ("deep", "write which files in it, such as deep/**/*.md"),
        ("[z-a].md", "is no pattern"),
    ],
)
def test_a_pattern_that_means_nothing_is_a_problem_that_says_why(folder, pattern, problem):
    found = match(pattern, folder)
    assert found.paths == []
    assert [one.path for one in found.problems] == [pattern]
    assert problem in found.problems[0].problem


def test_a_link_loop_is_reported_and_ends(folder):
    (folder / "deep" / "loop").symlink_to(folder)
    found = match("**/*.md", folder)
    assert names(found, folder) == ["[x].md", "a.md", "b.md", "deep/c.md", "deep/er/d.md"]
    assert [Path(one.path).name for one in found.problems] == ["loop"]
    assert "link back" in found.problems[0].problem


def test_a_linked_folder_is_read_under_the_name_of_the_link(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "far.md").write_text("far")
    (folder / "linked").symlink_to(elsewhere)
    assert "linked/far.md" in names(match("**/*.md", folder), folder)


def test_a_link_that_points_at_itself_is_a_problem(folder):
    (folder / "self.md").symlink_to(folder / "self.md")
    assert "link that leads nowhere" in match("self.md", folder).problems[0].problem
