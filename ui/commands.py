"""The page's command: serve."""

from __future__ import annotations

import webbrowser
from argparse import ArgumentParser, Namespace
from pathlib import Path
from urllib.parse import urlencode

from clipsearch import errors
from clipsearch.command import Command, add_library_argument, say
from clipsearch.config import resolve
from clipsearch.user_paths import expand_user

_LARGEST_PORT = 65_535
_LEAST_TOKEN = 12  # characters
_LONGEST_TOKEN = 1_000


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
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="the token is the first line of FILE, which lists of processes do not show",
    )
    parser.add_argument(
        "--trusted-proxy",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="believe what this reverse proxy says of its visitors: an address or a network",
    )
    parser.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="without a token: a name that visitors reach this server by",
    )
    parser.add_argument(
        "--root-path",
        default="",
        metavar="PATH",
        help="the path that a reverse proxy serves the page under, such as /photos",
    )
    parser.add_argument("--open", action="store_true", help="open the page in your browser")


def _run(arguments: Namespace) -> int:
    from clipsearch.library import Library
    from ui import server
    from ui.proxies import read_behind
    from ui.service import Service

    behind = read_behind(arguments.trusted_proxy, arguments.allowed_host, arguments.root_path)
    if arguments.token_file is not None:
        if arguments.token is not None:
            raise errors.UsageError(reason="Give --token or --token-file, not both")
        arguments.token = _token_in(arguments.token_file)
    with Library.open(resolve(vars(arguments)).library) as library:
        settings = resolve(vars(arguments), library.settings())
        length = len(settings.token.strip())
        if settings.token and length < _LEAST_TOKEN:
            raise errors.UsageError(
                reason=f"The token has {length} characters; one that cannot be "
                f"guessed has at least {_LEAST_TOKEN}. This makes one: openssl rand -hex 16"
            )
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
            server.serve(service, address, token=settings.token, ready=ready, behind=behind)
        except KeyboardInterrupt:
            say("Stopped.")
            return errors.INTERRUPTED
    return errors.DONE


def _token_in(file: Path) -> str:
    try:
        with expand_user(file).open(encoding="utf-8") as opened:
            token = opened.readline(_LONGEST_TOKEN).strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise errors.UsageError(reason=f"--token-file {file} cannot be read: {reason}") from error
    if not token:
        raise errors.UsageError(reason=f"The first line of {file} is empty; the token goes there")
    return token


serve = Command(_configure, _run)
