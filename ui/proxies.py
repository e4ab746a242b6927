"""What a reverse proxy says of a request is believed where the proxy is a trusted one only."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from clipsearch.errors import UsageError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_SAID_BY_PROXIES = (
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-gradio-server",
    "x-real-ip",
)
_HOST = re.compile(r"[A-Za-z0-9._-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")
_ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")


@dataclass(frozen=True)
class Behind:
    """Where the server is seen from outside. ``root_path`` is "" or /such/as/this."""

    proxies: tuple[Network, ...] = ()
    hosts: tuple[str, ...] = ()  # names it answers to beside those of this machine
    root_path: str = ""


def read_behind(proxies: Sequence[str], hosts: Sequence[str], root_path: str) -> Behind:
    """Checks what was asked for; UsageError names what cannot be."""
    networks = []
    for text in proxies:
        try:
            networks.append(ipaddress.ip_network(text, strict=False))
        except ValueError:
            raise UsageError(
                reason=f"--trusted-proxy must be an address or a network such as 127.0.0.1 or "
                f"10.0.0.0/8, not {text!r}"
            ) from None
    for host in hosts:
        if not _HOST.fullmatch(host) or ":" in host.rpartition("]")[2]:
            raise UsageError(
                reason=f"--allowed-host must be a name such as photos.example, not {host!r}"
            )
    root = root_path.rstrip("/")
    if root and not (_ROOT_PATH.fullmatch(root) and ".." not in root.split("/")):
        raise UsageError(reason=f"--root-path must be like /photos, not {root_path!r}")
    return Behind(tuple(networks), tuple(host.lower() for host in hosts), root)


class FromProxies:
    """ASGI middleware: client, scheme, host and path of a request as its visitor knows them.

    From a trusted proxy they are what X-Forwarded-For, -Proto and -Host say; all such headers are
    then taken away, and from anybody else they are ignored. The root path is taken off where the
    proxy has left it on.
    """

    def __init__(self, app: ASGIApp, behind: Behind) -> None:
        self._app = app
        self._behind = behind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = {**scope, "headers": list(scope["headers"])}
        if self._is_trusted((scope.get("client") or ("", 0))[0]):
            self._believe(scope)
        headers = MutableHeaders(scope=scope)
        for name in _SAID_BY_PROXIES:
            del headers[name]
        root = self._behind.root_path
        if root and scope["path"] == root:
            query = scope["query_string"].decode("latin-1")  # the token may be in it
            place = f"{root}/?{query}" if query else f"{root}/"
            await RedirectResponse(place, status_code=307)(scope, receive, send)
            return
        if root and scope["path"].startswith(f"{root}/"):
            scope["path"] = scope["path"].removeprefix(root)
            scope["raw_path"] = scope["path"].encode("utf-8", "surrogateescape")
        await self._app(scope, receive, send)

    def _believe(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        # A proxy may add a line of its own below that of its visitor.
        chain = ",".join(headers.getlist("x-forwarded-for"))
        client = self._client([one.strip() for one in chain.split(",")])
        if client:
            scope["client"] = (client, 0)
        protocol = headers.get("x-forwarded-proto", "").split(",")[0].strip().lower()
        if protocol in ("http", "https"):
            scope["scheme"] = protocol
        host = headers.get("x-forwarded-host", "").split(",")[0].strip()
        if _HOST.fullmatch(host):
            MutableHeaders(scope=scope)["host"] = host

    def _client(self, chain: list[str]) -> str:
        """The last address of the chain that is no proxy of ours: the others anyone may write."""
        for one in reversed(chain):
            try:
                address = str(ipaddress.ip_address(_without_port(one)))
            except ValueError:
                return ""
            if not self._is_trusted(address):
                return address
        return ""

    def _is_trusted(self, address: str) -> bool:
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        mapped = getattr(found, "ipv4_mapped", None)
        return any((mapped or found) in network for network in self._behind.proxies)


def _without_port(address: str) -> str:
    """Some proxies name the port of their visitor, too."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address
