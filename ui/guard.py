"""Who may ask this server for what: the checks that every request passes before any route."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import math
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ui.attempts import Attempts
from ui.limits import client_of, in_time
from ui.problems import problem
from ui.proxies import Behind
from ui.uploads import Uploads

# What the page is made of, and of gradio's programming interface what the page needs. The rest,
# such as fetching addresses on a visitor's behalf or recording runs, has no business here.
_SERVED = frozenset(
    ("api", "thumb", "view", "original", "favicon.ico", "robots.txt", "manifest.json")
).union(("assets", "static", "config", "theme.css"))
_GRADIO_SERVED = frozenset(
    ("queue", "upload", "upload_progress", "heartbeat", "startup-events", "app_id")
).union(("theme.css", "info", "cancel", "reset"))
_GRADIO = "/gradio_api/"
_GRADIO_FILE = "/gradio_api/file="
_GRADIO_UPLOAD = "/gradio_api/upload"
_API_UPLOAD = "/api/search"
_OURS = frozenset(("api", "thumb", "view", "original"))  # gradio does not see what is sent there
_MAX_QUESTION_BYTES = 200_000
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_HEADERS = {
    # gradio compiles the page's scripts at run time, so 'unsafe-eval'; nothing from elsewhere.
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' "
    "'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self' data:; media-src 'self' blob:; worker-src 'self' blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_BODY_S = 15.0  # for the whole of a question
BY_ITSELF = Behind()
_YEAR_S = 365 * 24 * 3600


def is_loopback(host: str) -> bool:
    """True for names and addresses that only this machine can reach."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware around everything that is served.

    Without a token the Host header must name this machine: a foreign page whose name was pointed
    at 127.0.0.1 (DNS rebinding) is refused with 421. With a ``token``, requests need it: as
    ``Authorization: Bearer``, as the cookie, or once as ``?token=``, which sets the cookie; else
    401. Refused with 403: what another site's page asks, the parts of gradio that the page does
    not use, and questions about a file that was not uploaded.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        port: int,
        token: str,
        uploads: Uploads,
        behind: Behind = BY_ITSELF,
    ) -> None:
        self._app = app
        self._token = token
        self._uploads = uploads
        self._behind = behind
        self._attempts = Attempts()
        self._cookie = f"clipsearch-{port}"  # cookies are shared by all ports of a machine
        self._cookie_value = hmac.new(
            token.encode(), b"clipsearch cookie", hashlib.sha256
        ).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # the page opens no websocket; none goes unchecked
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        answer = self._refusal(scope)
        if answer is not None and answer.status_code == 401 and _gave_token(scope):
            wait_s = await self._attempts.failed(client_of(scope))
            if wait_s:
                headers = {"retry-after": str(math.ceil(wait_s))}
                answer = problem(429, "Too many wrong tokens; wait before the next.", headers)
        if answer is None and _is_question(scope):
            body = await _whole_body(receive)
            answer = self._question_refusal(body)
            receive = _replayed(body, receive)
        if answer is not None and answer.status_code >= 400 and _is_for_people(scope):
            answer = _in_words(answer)
        await (answer or self._app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        """The answer that keeps a request from the page, or None where it may pass."""
        headers = Headers(scope=scope)
        # A foreign name's page never has the cookie, so a token lets a reverse proxy keep its name.
        name = _host_name(headers.get("host", ""))
        if not self._token and not is_loopback(name) and name not in self._behind.hosts:
            return problem(
                421,
                "This server answers to its own name only, such as 127.0.0.1, and to those of "
                "--allowed-host.",
            )
        if self._token and not self._knows_token(headers):
            return self._admission(scope)
        if not _from_own_page(scope["method"], headers):
            return problem(
                403,
                "Requests from other sites are refused. Behind a reverse proxy, name it: "
                "clipsearch serve --trusted-proxy ADDRESS (docs/ui.md).",
            )
        if not self._is_served(scope["path"]):
            return problem(403, "This is not served.")
        return None

    def _question_refusal(self, body: bytes | None) -> Response | None:
        """Keeps gradio from opening files: mounted, it would copy any path and fetch any address.

        It looks for them in every input, wherever an object has a ``path``.
        """
        if body is None:
            return problem(413, "That is too long for a question.")
        named: list[object] = []

        def note(pairs: list[tuple[str, object]]) -> None:
            named.extend(value for name, value in pairs if name == "path")

        try:
            json.loads(body or b"null", object_pairs_hook=note)
        except (ValueError, RecursionError):
            return problem(400, "Questions are JSON.")
        if all(isinstance(path, str) and self._uploads.holds(path) for path in named):
            return None
        return problem(403, "Only an uploaded picture can be asked about.")

    def _knows_token(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _same(_text_of(given.strip()), self._token):
            return True
        cookies = cookie_parser(headers.get("cookie", ""))
        return _same(cookies.get(self._cookie, ""), self._cookie_value)

    def _admission(self, scope: Scope) -> Response:
        """Takes ``?token=`` once: sets the cookie and leads to the address without the secret."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = dict(query).get("token", "")
        if scope["method"] not in _SAFE_METHODS or not _same(given, self._token):
            return problem(
                401,
                "This library needs its token: open the page with ?token=...",
                {"www-authenticate": 'Bearer realm="clipsearch"'},
            )
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        # "//host/..." would lead elsewhere, so the path starts with exactly one slash
        path = f"{self._behind.root_path}/" + scope["path"].lstrip("/\\")
        answer = RedirectResponse(path + (f"?{rest}" if rest else ""), status_code=303)
        answer.set_cookie(
            self._cookie,
            self._cookie_value,
            max_age=_YEAR_S,
            path=f"{self._behind.root_path}/",
            httponly=True,
            samesite="strict",
            secure=scope["scheme"] == "https",
        )
        answer.headers["cache-control"] = "no-store"
        return answer

    def _is_served(self, path: str) -> bool:
        if path.startswith(_GRADIO_FILE):
            return self._uploads.holds(path.removeprefix(_GRADIO_FILE))
        if path.startswith(_GRADIO):
            return path.removeprefix(_GRADIO).split("/")[0] in _GRADIO_SERVED
        return path == "/" or path.removeprefix("/").split("/")[0] in _SERVED


def _is_question(scope: Scope) -> bool:
    """Whether a body is to be looked at; uploads are the other kind of body."""
    path: str = scope["path"].rstrip("/")
    if scope["method"] in _SAFE_METHODS or path in (_GRADIO_UPLOAD, _API_UPLOAD):
        return False
    return path.removeprefix("/").split("/")[0] not in _OURS


async def _whole_body(receive: Receive) -> bytes | None:
    """What the request holds; None where that is too much, or where its sender has left."""
    body = bytearray()
    timely = in_time(receive, 0, within_s=_BODY_S)
    while len(body) <= _MAX_QUESTION_BYTES:
        message = await timely()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body) if len(body) <= _MAX_QUESTION_BYTES else None
    return None


def _replayed(body: bytes | None, rest: Receive) -> Receive:
    """A body that was read already, for the next reader; then what the connection says."""
    messages: list[Message] = [{"type": "http.request", "body": body or b"", "more_body": False}]

    async def receive() -> Message:
        return messages.pop() if messages else await rest()

    return receive


def _gave_token(scope: Scope) -> bool:
    """Whether a request guesses: a cookie is no guess, it may be of an earlier token."""
    headers = Headers(scope=scope)
    scheme, _, given = headers.get("authorization", "").partition(" ")
    query = parse_qsl(scope["query_string"].decode("latin-1"))
    return (scheme.lower() == "bearer" and bool(given.strip())) or "token" in dict(query)


def _is_for_people(scope: Scope) -> bool:
    """Whether a browser shows the answer as a page."""
    return "text/html" in Headers(scope=scope).get("accept", "")


def _in_words(answer: Response) -> Response:
    """An error as plain text."""
    message = json.loads(bytes(answer.body))["error"]["message"]
    kept = {n: v for n, v in answer.headers.items() if n not in ("content-length", "content-type")}
    return PlainTextResponse(message, answer.status_code, kept)


def _same(given: str, expected: str) -> bool:
    """Compares in constant time, so that a secret cannot be guessed letter by letter."""
    return hmac.compare_digest(given.encode(), expected.encode())


def _text_of(header: str) -> str:
    """A header's value, which is read as latin-1, in UTF-8 where it is that."""
    try:
        return header.encode("latin-1").decode()
    except ValueError:
        return header


def _host_name(host_header: str) -> str:
    try:
        return urlsplit(f"//{host_header}").hostname or ""
    except ValueError:
        return ""


def _place_of(origin: str) -> str | None:
    """Host and port; None for what is no address, such as ``null``."""
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None


def _from_own_page(method: str, headers: Headers) -> bool:
    """False for what a page of another site (or of another port) makes the browser send.

    Following a link to this page from elsewhere is fine; anything else from elsewhere is not.
    Programs that are no browsers send neither header and pass.
    """
    origin = headers.get("origin")
    if origin is not None and _place_of(origin) == headers.get("host"):
        return True
    follows_link = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return follows_link and headers.get("sec-fetch-dest") == "document"
    return origin is None or method in _SAFE_METHODS
