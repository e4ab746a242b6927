"""The page's command: serve."""

from __future__ import annotations

import webbrowser
from argparse import ArgumentParser, Namespace
from urllib.parse import urlencode

from clipsearch import errors
from clipsearch.command import Command, add_library_argument, say
from clipsearch.config import resolve

_LARGEST_PORT = 65_535


def _configure(parser: ArgumentParser) -> None:
    add_library_argument(parser)
    parser.add_argument(
        "--host", metavar="HOST", help="where to listen (default 127.0.0.1: this machine only)"
    )
    parser.add_argument("--port", type=int, metavar="PORT", help="default 7860; 0 takes a free one")
    parser.add_argument(
        "--token",
        metavar="SECRET",
        help="ask every visitor for it; needed beyond this machine (or: $CLIPSEARCH_TOKEN)",
    )
    parser.add_argument("--open", action="store_true", help="open the page in your browser")


def _run(arguments: Namespace) -> int:
    from clipsearch.library import Library
    from ui import server
    from ui.service import Service

    with Library.open(resolve(vars(arguments)).library) as library:
        settings = resolve(vars(arguments), library.settings())
        if settings.port > _LARGEST_PORT:
            raise errors.UsageError(
                reason=f"--port must be at most {_LARGEST_PORT}, not {settings.port}"
            )
        address = server.listen(settings.host, settings.port, settings.token)
        service = Service(library, settings=settings, notify=say)

        def ready() -> None:
            say(f"Serving {library.path} at {address.url} (Ctrl-C stops it)")
            if settings.token:
                say("Visitors open it once with ?token=... and are remembered after that.")
            if arguments.open:
                secret = f"/?{urlencode({'token': settings.token})}" if settings.token else ""
                webbrowser.open(address.url + secret)

        say("Starting the page ...")
        try:
            server.serve(service, address, token=settings.token, ready=ready)
        except KeyboardInterrupt:
            say("Stopped.")
            return errors.INTERRUPTED
    return errors.DONE


serve = Command(_configure, _run)
