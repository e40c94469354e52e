from pathlib import Path

from mcp_session_proxy import reference

PAGE = Path(__file__).parent.parent / "docs" / "configuration.md"


def test_documentation_is_up_to_date():
    """docs/configuration.md says what the settings model says; `make docs` writes it."""
    assert PAGE.read_text() == reference.render()


def test_options_know_their_kind():
    """Switches, lists and choices are told apart, so that each gets the right kind of flag."""
    options = {option.field: option for option in reference.options()}
    assert options["credential_query"].is_switch
    assert options["allowed_origin"].is_list
    assert options["sharing"].metavar == "{handover,isolated,shared,fresh}"
    assert options["idle_timeout"].default == "30m"
    assert options["upstream"].default is None
