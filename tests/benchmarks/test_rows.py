"""Rows say which code they are of, where that can be known."""

from benchmarks.rows import commit


def test_the_commit_is_unknown_where_there_is_no_git(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit() == "unknown"
