"""Registry tokens: short-lived JWTs, signed with one algorithm and the server's own signing keys.

A token names its user and repositories by ids that are never used twice (Harbor #22900). It also names the credential
that it was issued for, which every request checks. It stays below 4 kB for the highest number of scopes, because
proxies refuse long headers: nginx accepts 8 kB in a line by default. Of the JWT header, only ``kid`` is used
(distribution CVE-2025-24976); PyJWT refuses ``crit``.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from polly_dockers import db
from polly_dockers.db.keys import LEEWAY, LOOK_EVERY
from polly_dockers.db.sqlite import now
from polly_dockers.errors import Unauthorized
from polly_dockers.model import Actor, Grants
from polly_dockers.system.durations import SECOND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polly_dockers.db.keys import Key

ALGORITHM: Final = "EdDSA"
ISSUER: Final = "polly"
REMEMBERED: Final = 32 << 20
"""Bytes of verified tokens that a process remembers; their claims can't change until they expire.

Whether the signing key is still valid is not a claim: every request checks it with the rights (``db.permissions``).
"""


class UnknownKey(Unauthorized):
    """A token whose signing key this process does not know."""


def new_key() -> tuple[str, bytes]:
    """The id and the 32 bytes of a new private key."""
    return secrets.token_hex(8), Ed25519PrivateKey.generate().private_bytes_raw()


class Signer:
    """Signs and verifies registry tokens."""

    def __init__(self, known: Sequence[Key], audience: str) -> None:
        """``known`` are all signing keys, the newest last. One signs, all verify."""
        self._known: Sequence[Key] = ()
        self._private: dict[str, Ed25519PrivateKey] = {}
        self._public: dict[str, Ed25519PublicKey] = {}
        self._audience = audience
        self._reloaded = 0.0
        self._verified: OrderedDict[str, tuple[int, int, Actor]] = OrderedDict()
        self._bytes = 0
        """Memory that the remembered tokens take, about."""
        self.set_keys(known)

    def set_keys(self, known: Sequence[Key]) -> None:
        """Replace the signing keys by those in the database."""
        if known == self._known:
            return
        self._known = known
        self._private = {key.kid: Ed25519PrivateKey.from_private_bytes(key.private_key) for key in known}
        self._public = {kid: key.public_key() for kid, key in self._private.items()}

    def may_reload(self) -> bool:
        """Whether to read the signing keys again for an unknown key id. Anybody can invent one, so this is limited."""
        at = time.monotonic()
        if at - self._reloaded < LOOK_EVERY:
            return False
        self._reloaded = at
        return True

    def sign(self, actor: Actor, seconds: int) -> str:
        """A token with the actor's grants that expires after ``seconds``."""
        issued = now() // SECOND
        grants = actor.grants or Grants()
        claims = {
            "iss": ISSUER,
            "aud": self._audience,
            "sub": str(actor.user_id or ""),
            "iat": issued,
            "exp": issued + seconds,
            "jti": secrets.token_hex(8),
            "token": actor.access_token,
            "password_version": actor.password_version,
            "grants": {"ids": grants.by_id, "names": grants.by_name, "catalog": actor.catalog},
        }
        kid = db.keys.signing(self._known).kid
        return jwt.encode(claims, self._private[kid], algorithm=ALGORITHM, headers={"kid": kid})

    def read(self, token: str) -> Actor:
        """The actor that the token was issued for. Raises Unauthorized for a token that is not valid or has expired."""
        known = self._verified.get(token)
        if known is not None and known[0] <= now() // SECOND < known[1]:
            self._verified.move_to_end(token)
            return known[2]
        try:
            if not token.isascii():
                raise _invalid()
            kid = str(jwt.get_unverified_header(token).get("kid"))
            key = self._public.get(kid)
            if key is None:
                raise _invalid(UnknownKey)
            claims = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=self._audience,
                issuer=ISSUER,
                leeway=LEEWAY,
                options={"require": ["iss", "aud", "sub", "iat", "exp"]},
            )
        except jwt.PyJWTError as error:
            raise _invalid() from error
        actor = _actor(claims, kid)
        self._remember(token, (claims["iat"] - LEEWAY, claims["exp"] + LEEWAY, actor))
        return actor

    def _remember(self, token: str, verified: tuple[int, int, Actor]) -> None:
        """Keep a verified token with its first and last second and its actor; the least recently used make room."""
        if token not in self._verified:
            self._bytes += _weight(token)
        self._verified[token] = verified
        while self._bytes > REMEMBERED:
            oldest, _ = self._verified.popitem(last=False)
            self._bytes -= _weight(oldest)


def _weight(token: str) -> int:
    """Memory that a verified token takes, about: a grant of 40 characters becomes objects of 400 bytes."""
    return 512 + 12 * len(token)


def _actor(claims: dict[str, Any], kid: str) -> Actor:
    grants = claims.get("grants")
    if grants is None:  # signed by an earlier version
        raise _invalid()
    return Actor(
        user_id=int(claims["sub"]) if claims["sub"] else None,
        access_token=claims["token"],
        password_version=claims["password_version"],
        grants=Grants({int(number): bits for number, bits in grants["ids"].items()}, grants["names"]),
        catalog=grants["catalog"],
        kid=kid,
    )


def _invalid(kind: type[Unauthorized] = Unauthorized) -> Unauthorized:
    msg = (
        "This registry token is not valid or has expired. Docker requests a new one automatically; else sign in again."
    )
    return kind(msg, reason="invalid_token")
