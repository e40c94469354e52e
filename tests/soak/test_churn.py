"""The picture of the churn in the README."""

import xml.etree.ElementTree as ElementTree

from mcp_session_proxy.demo.churn import SessionCounts
from soak.churn import draw


def test_it_shows_what_was_counted() -> None:
    """Two lines with a point for each sample, and the sums at their ends."""
    samples = [
        (float(second), SessionCounts(begun=500 * second, ended=500 * second, opened=2, closed=1))
        for second in range(4)
    ]
    root = ElementTree.fromstring(draw(samples))
    lines = [each.get("points", "").split() for each in root.iter() if each.tag.endswith("polyline")]
    assert [len(points) for points in lines] == [4, 4]
    texts = [each.text for each in root.iter() if each.tag.endswith("text")]
    assert {"3,000", "3"} <= set(texts)
