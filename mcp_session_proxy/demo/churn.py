"""The session churn that the proxy saved, read where an operator would: from its ``/metrics``."""

from collections.abc import Iterable
from dataclasses import dataclass

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from ..ops.metrics import PREFIX
from ..protocol import revisions


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionCounts:
    """Sessions begun and ended by clients, against those opened and closed at the server."""

    begun: int
    ended: int
    opened: int
    closed: int


async def read_churn(admin_url: str) -> SessionCounts:
    """Scrape the admin listener at ``admin_url``."""
    async with aiohttp.ClientSession() as http, http.get(f"{admin_url}/metrics") as response:
        return parse_churn(await response.text())


def parse_churn(exposition: str) -> SessionCounts:
    """Add up a scrape in Prometheus' text format."""
    samples = [sample for family in text_string_to_metric_families(exposition) for sample in family.samples]
    return SessionCounts(
        begun=_total(samples, "requests_total", method=revisions.INITIALIZE),
        ended=_total(samples, "deletes_absorbed_total"),
        opened=_total(samples, "upstream_sessions_opened_total"),
        closed=_total(samples, "upstream_sessions_closed_total"),
    )


def _total(samples: Iterable[Sample], name: str, **labels: str) -> int:
    return int(
        sum(
            sample.value
            for sample in samples
            if sample.name == PREFIX + name and labels.items() <= sample.labels.items()
        )
    )
