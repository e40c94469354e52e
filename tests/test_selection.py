"""Which modules of tests stay closed."""

import pytest
from selection import left_out, marks_of_all


@pytest.mark.parametrize(
    ("expression", "marks"),
    [
        ("", set()),
        ("not e2e", {"e2e"}),
        ("not e2e and not slow", {"e2e", "slow"}),
        ("cluster and not slow", {"slow"}),
        ("slow", set()),
        ("not e2e or slow", set()),
        ("not (e2e or slow)", set()),
    ],
)
def test_what_a_run_leaves_out(expression: str, marks: set[str]) -> None:
    """Only what is left out whatever else a test is; in doubt, nothing."""
    assert left_out(expression) == marks


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("import pytest\n\npytestmark = pytest.mark.e2e\n\n\ndef test_it(): ...\n", {"e2e"}),
        ("pytestmark = [pytest.mark.timeout(9), pytest.mark.slow]\n", {"timeout", "slow"}),
        (
            "pytestmark = [\n    pytest.mark.e2e,\n    pytest.mark.cluster,\n]\nx = mark.y\n",
            {"e2e", "cluster"},
        ),
        ("@pytest.mark.slow\ndef test_it(): ...\n", set()),
        ("    pytestmark = pytest.mark.slow\n", set()),
    ],
)
def test_what_all_of_a_module_is(text: str, marks: set[str]) -> None:
    """What stands above one test, or in a class, is not of the module."""
    assert marks_of_all(text) == marks
