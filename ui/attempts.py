"""Guesses at the token: each wrong one of a client is answered later than the one before."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import OrderedDict
from dataclasses import dataclass

_FREE = 3  # mistakes that cost nothing: somebody mistypes
_FREE_TOGETHER = 100  # in a minute, of everybody
_FIRST_S, _LONGEST_S = 0.25, 8.0
_FORGOTTEN_S = 900.0
_WAITING, _WAITING_OF_ONE = 64, 4  # answers that are held back at once
_CLIENTS = 4_096


@dataclass
class _Client:
    failures: int = 0
    last_s: float = 0.0
    waiting: int = 0


class Attempts:
    """Counts wrong tokens by client (an address, of IPv6 its /64), and over all.

    The right token is never refused and never waits, so nobody can lock its owner out. What is
    held back holds no thread and has a limit, above which the answer is "too many" at once.
    """

    def __init__(self) -> None:
        self._clients: OrderedDict[str, _Client] = OrderedDict()
        self._waiting = 0

    async def failed(self, address: str) -> float:
        """Notes a wrong token and waits; returns 0.0, or the seconds to wait where too many do."""
        client = self._client(address)
        client.failures += 1
        client.last_s = time.monotonic()
        pause_s = self._pause_s(client)
        if pause_s == 0.0:
            return 0.0
        if self._waiting >= _WAITING or client.waiting >= _WAITING_OF_ONE:
            return pause_s
        self._waiting += 1
        client.waiting += 1
        try:
            await asyncio.sleep(pause_s)
        finally:
            self._waiting -= 1
            client.waiting -= 1
        return 0.0

    def _pause_s(self, client: _Client) -> float:
        """Doubles with each failure; from the many who fail at once everybody's grows, too."""
        now = time.monotonic()
        lately = sum(one.failures for one in self._clients.values() if now - one.last_s < 60)
        over = max(client.failures - _FREE, 0)
        over = max(over, max(lately - _FREE_TOGETHER, 0).bit_length())
        return min(_FIRST_S * 2 ** min(over - 1, 16), _LONGEST_S) if over > 0 else 0.0

    def _client(self, address: str) -> _Client:
        name = _network(address)
        client = self._clients.get(name)
        if client is None or time.monotonic() - client.last_s > _FORGOTTEN_S:
            client = self._clients[name] = _Client()
        self._clients.move_to_end(name)
        if len(self._clients) > _CLIENTS:
            self._clients.popitem(last=False)
        return client


def _network(address: str) -> str:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if found.version == 6 and getattr(found, "ipv4_mapped", None) is None:
        return str(ipaddress.ip_network(f"{found}/64", strict=False))
    return str(found)
