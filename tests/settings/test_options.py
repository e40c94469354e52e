from mcp_session_proxy.settings.options import options


def test_options_know_their_kind():
    """Switches, lists and choices are told apart, so that each gets the right kind of flag."""
    found = {option.field: option for option in options()}
    assert found["credential_query"].is_switch
    assert found["allowed_origin"].is_list
    assert found["sharing"].metavar == "{handover,isolated,shared,fresh}"
    assert found["idle_timeout"].default == "30m"
    assert found["upstream"].default is None
