"""A typed client of ``/api/v1``: every request of the commands, and messages for every failure."""

from __future__ import annotations

import http.client
import os
import re
import socket
import ssl
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar
from urllib.parse import quote, urlencode

import msgspec
import urllib3

from polly_dockers import __version__, api_types
from polly_dockers.cli import proxies, server_url
from polly_dockers.cli.errors import AmbiguousError, CommandError, RequestError, UnreachableError, UsageError
from polly_dockers.cli.terminal import clean, patience
from polly_dockers.formatting import duration

T = TypeVar("T")
P = TypeVar(
    "P",
    api_types.Repositories,
    api_types.Commits,
    api_types.Tags,
    api_types.Tokens,
    api_types.Members,
    api_types.Invitations,
    api_types.Trash,
    api_types.Audit,
    api_types.Policies,
)
PRODUCT = "polly-docker-repository"
PAGE = 1_000
_TIMEOUT = urllib3.Timeout(connect=10, read=60)
_LONGEST = 32 << 20
"""The most bytes of a response; the longest page of a list has less."""
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")
_UNAUTHORIZED = 401
_NOT_FOUND = 404
_TOO_MANY = 429
_PROXY_SIGN_IN = 407
_PROXY_ASKS = (
    "The proxy asks for a name and a password, or refuses those that it got. They are part of its address: "
    "HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT"
)
_WRONG_VALUE = 400
_NO_TLS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL"}
"""OpenSSL's reasons for a response that is not TLS."""
_REDIRECTS = range(300, 400)
_REFUSALS = range(400, 500)
_FAILURES = range(400, 600)
_WRONG_TIME = {9, 10}
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""


class Client:
    """A client of one server: anonymous, with an access token, or with an email and its password."""

    def __init__(
        self,
        server: str,
        *,
        token: str = "",
        email: str = "",
        password: str = "",
        ca_file: str = "",
        variable: bool = False,
    ) -> None:
        """Take an address (as ``server_url.normal`` returns it) and optionally a token, or email and password.

        ``ca_file`` has the certificates that the profile trusts; POLLY_CA_FILE overrides it. ``variable`` says that the
        token comes from POLLY_TOKEN. Raises UsageError for an invalid token.
        """
        if token and not _TOKEN.fullmatch(token):
            which = "The access token in POLLY_TOKEN" if variable else "The access token"
            msg = f"{which} has invalid characters. Copy it again, from polly_ to its end."
            raise UsageError(msg)
        self._variable = variable
        self.server = server
        self.ca_file = ca_file
        self._email = email
        self._date = ""
        self._headers = {"accept": "application/json", "user-agent": f"polly/{__version__}"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"
        elif email:
            self._headers |= urllib3.make_headers(basic_auth=f"{email}:{password}".encode().decode("latin-1"))
        self._pool = _pool(server, ca_file)

    def info(self) -> api_types.ServerInfo:
        """Return information about the server. Raises CommandError if it is not a Polly Docker Repository."""
        no_polly = CommandError(
            f"{self.server} answers, but it is not a Polly Docker Repository. Check the address, or ask your "
            "administrator for it."
        )
        try:
            info = self._ask("GET", "", api_types.ServerInfo)
        except RequestError as error:
            if error.status != _NOT_FOUND and (error.codes or error.status not in _REFUSALS):
                raise
            raise no_polly from error
        except _UnexpectedError as error:
            raise no_polly from error
        if info.product != PRODUCT or not server_url.is_registry(info.registry):
            raise no_polly
        return info

    def now(self) -> datetime:
        """Return the time by the server's clock, to the second, in the time zone of this machine.

        If the server sends no date, it is the time of this machine.
        """
        if not self._date:
            self.info()
        try:
            return parsedate_to_datetime(self._date).astimezone()
        except (ValueError, TypeError, OverflowError):
            return datetime.now().astimezone()

    def me(self) -> api_types.Me:
        """Return the user of this client."""
        return self._ask("GET", "/me", api_types.Me)

    def create_token(
        self, scope: api_types.TokenScope, expires_in: int, label: str, replaces: str | None = None
    ) -> api_types.TokenCreated:
        """Create an access token that expires in at most ``expires_in`` seconds; ``replaces`` is revoked."""
        body = api_types.TokenRequest(scope=scope, expires_in=expires_in, label=label, replaces=replaces)
        created = self._ask("POST", "/tokens", api_types.TokenCreated, body=body)
        if not _TOKEN.fullmatch(created.token):
            raise _UnexpectedError(self.server, "/tokens")
        return created

    def tokens(self) -> list[api_types.TokenItem]:
        """Return all access tokens of the user, newest first."""
        return self._collected("/tokens", api_types.Tokens, None).items

    def revoke_token(self, token_id: str) -> None:
        """Revoke an access token (``current``: that of this client). It is not an error if it has already ended."""
        try:
            self._send("DELETE", f"/tokens/{quote(token_id, safe='')}")
        except RequestError as error:
            if "TOKEN_UNKNOWN" not in error.codes:
                raise

    def change_password(self, password: str) -> None:
        """Set a new password for the user of this client."""
        self._send("PUT", "/me/password", body=api_types.PasswordChange(password))

    def create_repository(self, organisation: str, body: api_types.RepositoryCreate) -> api_types.RepositoryItem:
        """Create a docker repository, and return it."""
        return self._ask("POST", f"{_path(organisation)}/repositories", api_types.RepositoryItem, body=body)

    def repository(self, organisation: str, name: str) -> api_types.RepositoryItem:
        """Return a docker repository."""
        return self._ask("GET", f"{_path(organisation)}/repository", api_types.RepositoryItem, {"name": name})

    def update_repository(
        self, organisation: str, name: str, body: api_types.RepositoryUpdate
    ) -> api_types.RepositoryItem:
        """Change what the body names, and return the docker repository."""
        path = f"{_path(organisation)}/repository"
        return self._ask("PATCH", path, api_types.RepositoryItem, {"name": name}, body)

    def repositories(self, organisation: str, count: int | None, **query: str) -> api_types.Repositories:
        """Return ``count`` docker repositories (None: all) as one page; ``query`` as in docs/api.md."""
        return self._collected(f"{_path(organisation)}/repositories", api_types.Repositories, count, query)

    def commits(self, organisation: str, repository: str, count: int | None, **query: str) -> api_types.Commits:
        """Return ``count`` commits (None: all) as one page; ``query`` as in docs/api.md."""
        query["repository"] = repository
        return self._collected(f"{_path(organisation)}/commits", api_types.Commits, count, query)

    def tags(self, organisation: str, repository: str, count: int | None, **query: str) -> api_types.Tags:
        """Return ``count`` tags (None: all) as one page; ``query`` as in docs/api.md."""
        query["repository"] = repository
        return self._collected(f"{_path(organisation)}/tags", api_types.Tags, count, query)

    def delete(self, organisation: str, name: str, *, preview: bool, **what: str) -> api_types.TrashItem:
        """Move a docker repository, or its ``tag`` or ``commit``, to the trash; or return what would be deleted."""
        query = {"name": name, "preview": "true" if preview else "false"} | what
        return self._ask("DELETE", f"{_path(organisation)}/repository", api_types.TrashItem, query)

    def restore(self, organisation: str, body: api_types.Restore) -> api_types.TrashItem:
        """Restore something from the trash."""
        return self._ask("POST", f"{_path(organisation)}/trash", api_types.TrashItem, body=body)

    def trash(self, organisation: str, count: int | None) -> api_types.Trash:
        """Return ``count`` items of the trash (None: all) as one page, newest first."""
        return self._collected(f"{_path(organisation)}/trash", api_types.Trash, count)

    def policies(self, organisation: str) -> api_types.Policies:
        """Return the policy of the organisation, and of all docker repositories with their own, as one page."""
        return self._collected(f"{_path(organisation)}/policy", api_types.Policies, None)

    def set_policy(
        self, organisation: str, name: str | None, body: api_types.PolicyUpdate, *, preview: bool, **query: str
    ) -> api_types.PolicyChange:
        """Set the policy of the organisation or of a docker repository, or return what it would delete."""
        query |= {"preview": "true" if preview else "false"} | ({"name": name} if name is not None else {})
        return self._ask("PUT", f"{_path(organisation)}/policy", api_types.PolicyChange, query, body)

    def policy_preview(self, organisation: str, name: str | None, **query: str) -> api_types.PolicyChange:
        """Return what the current policies delete, in the organisation or in a docker repository."""
        query |= {"name": name} if name is not None else {}
        return self._ask("GET", f"{_path(organisation)}/policy-preview", api_types.PolicyChange, query)

    def audit(self, organisation: str, count: int | None, **query: str) -> api_types.Audit:
        """Return ``count`` entries of the audit log (None: all) as one page; ``query`` as in docs/api.md."""
        return self._collected(f"{_path(organisation)}/audit", api_types.Audit, count, query)

    def members(self, organisation: str) -> api_types.Members:
        """Return all members as one page."""
        return self._collected(f"{_path(organisation)}/members", api_types.Members, None)

    def invite(self, organisation: str, body: api_types.InvitationCreate) -> api_types.InvitationCreated:
        """Create an invitation, and return it with its code."""
        return self._ask("POST", f"{_path(organisation)}/invitations", api_types.InvitationCreated, body=body)

    def invitations(self, organisation: str) -> api_types.Invitations:
        """Return all invitations that are not redeemed, as one page."""
        return self._collected(f"{_path(organisation)}/invitations", api_types.Invitations, None)

    def revoke_invitation(self, organisation: str, email: str) -> None:
        """Revoke an invitation. Raises RequestError with INVITATION_UNKNOWN if there is none."""
        self._send("DELETE", f"{_path(organisation)}/invitations", {"email": email})

    def accept_invitation(self, body: api_types.InvitationAccept) -> api_types.InvitationAccepted:
        """Redeem the code of an invitation, with email and password if nobody is signed in."""
        return self._ask("POST", "/invitation", api_types.InvitationAccepted, body=body)

    def set_role(self, organisation: str, email: str, role: api_types.Role) -> api_types.MemberItem:
        """Change the role of a member, and return the member."""
        body = api_types.MemberUpdate(role)
        return self._ask("PATCH", f"{_path(organisation)}/members", api_types.MemberItem, {"email": email}, body)

    def remove_member(self, organisation: str, email: str) -> None:
        """Remove the member from the organisation."""
        self._send("DELETE", f"{_path(organisation)}/members", {"email": email})

    def _collected(self, path: str, answer: type[P], count: int | None, query: dict[str, str] | None = None) -> P:
        """Return one page with the items of all pages, up to ``count`` items.

        An empty page may have a next one, as in the audit log. Raises CommandError if a page is returned twice.
        """
        query = query or {}
        seen = {""}
        with patience("all pages of the list"):
            page = first = self._ask("GET", path, answer, query | {"limit": str(min(count or PAGE, PAGE))})
            while page.next and (count is None or len(first.items) < count):
                if page.next in seen:
                    raise _UnexpectedError(self.server, path)
                seen.add(page.next)
                limit = PAGE if count is None else min(count - len(first.items), PAGE)
                page = self._ask("GET", path, answer, query | {"limit": str(limit), "cursor": page.next})
                first.items.extend(page.items)
        first.next = page.next
        return first

    def _ask(
        self,
        method: str,
        path: str,
        answer: type[T],
        query: dict[str, str] | None = None,
        body: msgspec.Struct | None = None,
    ) -> T:
        try:
            return msgspec.json.decode(self._send(method, path, query, body), type=answer)
        except (msgspec.MsgspecError, RecursionError) as error:  # nested too deeply
            raise _UnexpectedError(self.server, path) from error

    def _send(
        self, method: str, path: str, query: dict[str, str] | None = None, body: msgspec.Struct | None = None
    ) -> bytes:
        url = f"{self.server}/api/v1{path}{'?' + urlencode(query) if query else ''}"
        content = None if body is None else msgspec.json.encode(body)
        headers = self._headers | ({"content-type": "application/json"} if content else {})
        try:
            with patience(self.server):
                response = self._pool.request(
                    method,
                    url,
                    body=content,
                    headers=headers,
                    redirect=False,
                    retries=False,
                    timeout=_TIMEOUT,
                    preload_content=False,
                )
                data = _data(response)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._unreachable(error) from error
        self._date = response.headers.get("date", "")
        if response.status in _REDIRECTS:
            target = clean(response.headers.get("location", "another address"))
            msg = f"{self.server} redirects to {target}. Use that address: polly login --server URL"
            raise RequestError(msg,
                               response.status)  # fmt: skip
        if response.status == _PROXY_SIGN_IN:
            raise UnreachableError(_PROXY_ASKS)
        if response.status in _FAILURES:
            raise self._refusal(response, data or b"")
        if data is None:
            raise _UnexpectedError(self.server, path)
        return data

    def _unreachable(self, error: Exception) -> UnreachableError:
        chain = _chain(error)
        by_proxy = any(isinstance(each, urllib3.exceptions.ProxyError) for each in chain)
        for reason in chain:
            if by_proxy and f"{_PROXY_SIGN_IN} " in str(reason):
                return UnreachableError(_PROXY_ASKS)
            if isinstance(reason, ssl.SSLCertVerificationError):
                if reason.verify_code in _WRONG_TIME:
                    return UnreachableError(
                        f"The certificate of {self.server} can't be trusted: {reason.verify_message}. The "
                        f"clock of this machine says {datetime.now(UTC):%Y-%m-%d}; if that is wrong, set it."
                    )
                return UnreachableError(
                    f"The certificate of {self.server} can't be trusted: {reason.verify_message}. If your organisation "
                    "has a certificate authority of its own, name its file, which is kept with the profile: "
                    f"polly login --server {self.server} --ca-file /path/to/ca.pem (polly members accept takes it "
                    "too; or set POLLY_CA_FILE)."
                )
            if isinstance(reason, ssl.SSLError) and not by_proxy:
                return UnreachableError(_no_tls(self.server, reason))
            if isinstance(reason, http.client.RemoteDisconnected) and self.server.startswith("http://"):
                return UnreachableError(
                    f"{self.server} closed the connection without an answer. It may speak TLS; if so, "
                    f"run: polly login --server https://{server_url.host(self.server)}"
                )
        return UnreachableError(
            f"{self.server} does not answer ({_cause(error)}). Check the address (polly login --server URL), "
            "the network and the proxy; or try again later."
        )

    def _refusal(self, response: urllib3.BaseHTTPResponse, data: bytes) -> RequestError:
        try:
            errors = msgspec.json.decode(data, type=api_types.Errors).errors
        except (msgspec.MsgspecError, RecursionError):
            errors = []
        message = " ".join(filter(None, (clean(each.message) for each in errors)))
        codes = tuple(each.code for each in errors)
        request = clean(response.headers.get("x-request-id", ""))
        if not message:
            message = (
                f"{self.server} answered {response.status}. Try again later. If that does not help, tell your "
                "administrator."
            )
        if response.status not in _REFUSALS and request:
            message += f" (request {request})"
        if response.status == _UNAUTHORIZED and codes and self._variable:
            message = (
                f"{self.server} does not accept the access token in the variable POLLY_TOKEN. {message} Set another "
                f"one, or unset POLLY_TOKEN and run: polly login --server {self.server}"
            )
        elif response.status == _UNAUTHORIZED and codes and "authorization" in self._headers and not self._email:
            message += f" To sign in again, run: polly login --server {self.server}"
        wait = response.headers.get("retry-after", "")
        if response.status == _TOO_MANY and re.fullmatch("[0-9]{1,6}", wait) and duration(int(wait)) not in message:
            message += f" Try again in {duration(int(wait))}."
        if "DIGEST_AMBIGUOUS" in codes:
            return AmbiguousError(_candidates(message, errors), response.status, codes)
        error = RequestError(message, response.status, codes)
        if response.status == _WRONG_VALUE:
            error.code = UsageError.code
        return error


def _data(response: urllib3.BaseHTTPResponse) -> bytes | None:
    """Return the body, which is never compressed; None if it is longer than any valid response."""
    data = bytearray()
    for piece in response.stream(1 << 16, decode_content=False):
        data += piece
        if len(data) > _LONGEST:
            response.close()
            return None
    response.release_conn()
    return bytes(data)


def _no_tls(server: str, error: ssl.SSLError) -> str:
    """Return why there is no encrypted connection."""
    if error.reason not in _NO_TLS:
        words = (error.reason or "the handshake failed").replace("_", " ").lower()
        return f"No encrypted connection to {server} could be made: {words}."
    return f"{server} does not use TLS. If that is intended, run: polly login --server http://{server_url.host(server)}"


def _candidates(message: str, errors: list[api_types.ErrorItem]) -> str:
    """Return the message with each matching digest on its own line."""
    found = [str(each) for error in errors for each in (error.detail or {}).get("candidates", ())]
    lines = [f"  {clean(each)}" for each in found]
    return "\n".join([message.replace(f": {', '.join(found)}", "") if found else message, *lines])


class _UnexpectedError(CommandError):
    """The response has a form that this version does not know."""

    def __init__(self, server: str, path: str) -> None:
        super().__init__(
            f"{server} answered /api/v1{path} in a form that polly {__version__} does not know. "
            "Install the version of polly that the server has: polly whoami says which server it is."
        )


def _path(organisation: str) -> str:
    return f"/organisations/{quote(organisation, safe='')}"


def _pool(server: str, ca_file: str) -> urllib3.PoolManager:
    proxy = proxies.choose(server, os.environ)
    encrypted = server.startswith("https://") or (proxy is not None and proxy.url.startswith("https://"))
    context = ssl.create_default_context() if encrypted else None
    authority = os.environ.get("POLLY_CA_FILE") or ca_file
    if context and authority:
        try:
            context.load_verify_locations(authority)
        except OSError as error:
            problem = "is not a file of certificates in PEM form: it has no certificate"
            if not isinstance(error, ssl.SSLError):
                problem = f"can't be read: {(error.strerror or 'it failed').lower()}"
            name = f"POLLY_CA_FILE={authority}" if os.environ.get("POLLY_CA_FILE") else authority
            msg = f"{name} {problem}. Name another file: polly login --server {server} --ca-file /path/to/ca.pem"
            raise CommandError(msg) from error
    if proxy:
        headers = {"proxy-authorization": proxy.authorization} if proxy.authorization else None
        return urllib3.ProxyManager(proxy.url, proxy_headers=headers, ssl_context=context, proxy_ssl_context=context)
    return urllib3.PoolManager(ssl_context=context)


def _cause(error: Exception) -> str:
    """Return in a few words why there was no response."""
    chain = _chain(error)
    proxy = "the proxy: " if any(isinstance(each, urllib3.exceptions.ProxyError) for each in chain) else ""
    for each in chain:
        if isinstance(each, socket.gaierror) and each.errno == socket.EAI_NONAME:
            return f"{proxy}no such host"
        if isinstance(each, OSError) and each.strerror:
            return f"{proxy}{each.strerror.lower()}"
        if isinstance(each, TimeoutError):
            return f"{proxy}it took too long"
    if any(isinstance(each, http.client.RemoteDisconnected) for each in chain):
        return f"{proxy}it closed the connection without an answer"
    if any(isinstance(each, urllib3.exceptions.ProtocolError | http.client.HTTPException) for each in chain):
        return f"{proxy}its answer was cut off, or is not HTTP"
    return f"{proxy}the connection failed"


def _chain(error: BaseException | None) -> list[BaseException]:
    """Return the error and its causes, the first cause first."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.insert(0, error)
        error = error.__cause__ or error.__context__
    return chain
