"""Connections that never finish a request, or never begin one, end; new ones find a place."""

from __future__ import annotations

import asyncio
import time
from typing import cast

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 15.0  # for the head of a request
MAX_CONNECTIONS = 512


class PatientProtocol(H11Protocol):
    """uvicorn's, with a limit of time for heads, and one of number.

    Of too many connections the oldest ends of those without a request, else of those whose request
    is still on its way, else of those that do not take their answer.
    """

    _head_timer: asyncio.TimerHandle | None = None
    _made_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        self._made_at = time.monotonic()
        self._await_head()
        if len(self.connections) > MAX_CONNECTIONS:
            others = [
                one
                for one in self.connections
                if isinstance(one, PatientProtocol) and one is not self and one._awaited()
            ]
            ended = min(others, key=lambda one: (one._awaited(), one._made_at), default=self)
            self.connections.discard(ended)  # its end is told a turn of the loop later
            ended.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_idle():
            self._await_head()
        else:
            self._stop_waiting()

    def _awaited(self) -> int:
        """What its visitor has yet to do: 1 ask, 2 finish asking, 3 take the answer; 0 nothing."""
        if self._is_idle():
            return 1
        if self.cycle.more_body:
            return 2
        return 3 if self.flow.write_paused else 0

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_S, self._end_if_idle)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _end_if_idle(self) -> None:
        self._head_timer = None
        if self._is_idle():
            self.transport.abort()
