from pathlib import Path

from tools import configuration

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_documentation_is_up_to_date():
    """docs/configuration.md says what the settings model says; `make docs` writes it."""
    assert PAGE.read_text() == configuration.render()
