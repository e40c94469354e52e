"""What hosts are called, as far as anybody has to judge it."""

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Whether a host is this machine for sure. A name other than ``localhost`` may mean anything."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
