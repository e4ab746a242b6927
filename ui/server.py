"""The web server: where it listens, how it starts and stops, and what it is made of."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from clipsearch.errors import PortInUseError, ServerError, TokenRequiredError
from ui.connections import PatientProtocol
from ui.guard import BY_ITSELF, Guard, is_loopback
from ui.limits import Limits
from ui.problems import InOneShape
from ui.proxies import Behind, FromProxies
from ui.rest import rest_routes
from ui.routes import picture_routes
from ui.service import Service
from ui.uploads import MAX_UPLOAD_BYTES, Uploads, uploads_folder

_OPEN_FILES = 4_096
_PATIENCE_S = 2  # how long open connections may finish after Ctrl-C


@dataclass(frozen=True)
class Address:
    """Where the server listens, already bound: no one else can take the port any more."""

    listener: socket.socket
    host: str
    port: int

    @property
    def url(self) -> str:
        """What to type into a browser; for every address at once, this machine's name."""
        name = socket.gethostname() if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104
        return f"http://{f'[{name}]' if ':' in name else name}:{self.port}"


def listen(host: str, port: int, token: str) -> Address:
    """Binds the port (0: any free one).

    TokenRequiredError where others could connect and there is no token, PortInUseError with a free
    port as suggestion, ServerError for anything else that keeps it from listening.
    """
    if not is_loopback(host) and not token:
        raise TokenRequiredError(host=host)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _cannot_listen(host, port, error) from error
    try:
        if os.name == "posix":  # elsewhere the option would let two servers share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno != errno.EADDRINUSE:
            raise _cannot_listen(host, port, error) from error
        suggestion = _free_port(family, address)
        raise PortInUseError(port=port, host=host, suggestion=suggestion) from error
    return Address(listener, host, listener.getsockname()[1])


def _cannot_listen(host: str, port: int, error: OSError) -> ServerError:
    reason = error.strerror or str(error)
    return ServerError(reason=f"Cannot listen on {host}, port {port}: {reason}")


def _free_port(family: int, address: tuple[object, ...]) -> int:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((address[0], 0, *address[2:]))
        return int(probe.getsockname()[1])


class _Server(uvicorn.Server):
    """Says when it is ready, which uvicorn itself keeps to its log."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()


def serve(
    service: Service,
    address: Address,
    *,
    token: str,
    ready: Callable[[], None],
    behind: Behind = BY_ITSELF,
) -> None:
    """Serves until Ctrl-C or SIGTERM, then raises KeyboardInterrupt; uploads are deleted.

    ``ready`` is called once the page can be asked for. Must run in the main thread.
    """
    try:
        with uploads_folder() as uploads:
            service.warm_up_in_background()
            config = uvicorn.Config(
                build_app(service, address, token=token, uploads=uploads, behind=behind),
                http=PatientProtocol,
                proxy_headers=False,  # FromProxies decides whom to believe
                access_log=False,  # addresses may hold the token
                log_level="warning",
                lifespan="on",
                server_header=False,
                timeout_graceful_shutdown=_PATIENCE_S,
            )
            _allow_many_files()
            # uvicorn passes a signal on after it has stopped; SIGTERM, too, must clean up.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            _Server(config, ready).run(sockets=[address.listener])
    finally:
        address.listener.close()


def _allow_many_files() -> None:
    """Connections and originals are open files: as many as MAX_CONNECTIONS need, where allowed."""
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _OPEN_FILES:
        wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def build_app(
    service: Service,
    address: Address,
    *,
    token: str,
    uploads: Uploads,
    behind: Behind = BY_ITSELF,
) -> ASGIApp:
    """The whole server, guarded; uploaded pictures live in ``uploads`` for a while."""
    _keep_gradio_at_home(uploads.folder)
    import gradio

    from ui.app import STYLE, build_page, theme

    app = FastAPI(title="clipsearch", docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(picture_routes(service))
    app.include_router(rest_routes(service, uploads.folder, behind.root_path))
    gradio.mount_gradio_app(
        app,
        build_page(service, uploads),
        path="/",
        server_name=address.host,
        server_port=address.port,
        root_path=behind.root_path or None,
        footer_links=[],
        show_error=False,
        max_file_size=MAX_UPLOAD_BYTES,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme(),
        head="<link rel='icon' type='image/svg+xml' href='favicon.ico'>",
        css=STYLE.read_text(encoding="utf-8"),
    )
    return guarded(app, port=address.port, token=token, uploads=uploads, behind=behind)


def guarded(
    app: ASGIApp, *, port: int, token: str, uploads: Uploads, behind: Behind = BY_ITSELF
) -> ASGIApp:
    """All that stands before every request, the outermost last."""
    limited = Limits(InOneShape(app), uploads)
    guard = Guard(limited, port=port, token=token, uploads=uploads, behind=behind)
    return FromProxies(guard, behind)


def _keep_gradio_at_home(uploads: Path) -> None:
    """No recorded runs, no shared folders: gradio reads these when it is imported."""
    os.environ.update(GRADIO_RUN_HISTORY="False", GRADIO_TEMP_DIR=str(uploads))
    for name in ("ALLOWED_PATHS", "ROOT_PATH", "SHARE", "MCP_SERVER", "VIBE_MODE"):
        os.environ.pop(f"GRADIO_{name}", None)
