"""What the benchmark's command line refuses before it measures anything."""

import sys
from pathlib import Path

import pytest

from bench import __main__ as command


@pytest.mark.parametrize(
    ("text", "why"), [(None, "No such file"), ("# No place for results\n", "the document has no")]
)
def test_a_document_without_a_place_for_results_is_refused_at_once(
    text: str | None,
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A quarter of an hour of measuring is not thrown away because of a wrong path."""
    document = tmp_path / "results.md"
    if text is not None:
        document.write_text(text)
    monkeypatch.setattr(sys, "argv", ["bench", "--write", str(document)])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    assert why in capsys.readouterr().err
