"""What follows from what the others say, for a member that does not reach the store."""

import pytest

from mcp_session_proxy.cluster.lease import LeaseAnswer, owner_by

ALONE = LeaseAnswer(store=False)


@pytest.mark.parametrize(
    ("answers", "owner"),
    [
        ([], None),
        ([("b", ALONE)], None),
        ([("b", ALONE), ("c", LeaseAnswer(store=False, owns=True, fence=3))], "c"),
        ([("b", LeaseAnswer(store=True, owner="d")), ("c", ALONE)], "d"),
        ([("b", LeaseAnswer(store=True, owner="a"))], None),
        ([("b", LeaseAnswer(store=True, owner="d")), ("c", LeaseAnswer(store=False, owns=True))], "c"),
        (
            [
                ("b", LeaseAnswer(store=False, owns=True, fence=3)),
                ("c", LeaseAnswer(store=False, owns=True, fence=4)),
            ],
            "c",
        ),
    ],
    ids=["nobody", "unknown", "served", "stored", "asker", "served-before-stored", "higher-fence"],
)
def test_the_owner_by_the_others(answers: list[tuple[str, LeaseAnswer]], owner: str | None) -> None:
    """Whoever serves a caller counts first, then whom the store names; the one who asks knows of itself."""
    assert owner_by(answers, "a") == owner
