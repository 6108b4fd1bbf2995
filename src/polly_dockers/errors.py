"""All errors that the server reports, each with its code and HTTP status.

A use case raises one of these, and ``web.errors`` makes the response. ``code`` and ``status`` of the class decide what
the client receives. The codes under /v2 are those of distribution-spec 1.1.1, "Error Codes"; docs/api.md lists the
others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class PollyError(Exception):
    """An error that a client receives. ``message`` says what is wrong and what to do, in a few sentences."""

    code: ClassVar[str] = "UNKNOWN"
    status: ClassVar[int] = 500

    def __init__(self, message: str, *, detail: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = dict(detail or {})


class ClientGone(Exception):
    """The client closed the connection in the middle of a body, so nobody receives a response."""


# --- 400: the request is wrong -----------------------------------------------------------------------------------


class BadRequest(PollyError):
    """A parameter or body of /api/v1 or of the token endpoint is not valid."""

    code, status = "BAD_REQUEST", 400


class DigestInvalid(PollyError):
    """A digest is malformed, has an unsupported algorithm, or does not match the content."""

    code, status = "DIGEST_INVALID", 400


class DigestAmbiguous(PollyError):
    """Several commits have digests that begin so; ``detail`` lists them."""

    code, status = "DIGEST_AMBIGUOUS", 400


class SizeInvalid(PollyError):
    """The body does not have the announced length."""

    code, status = "SIZE_INVALID", 400


class NameInvalid(PollyError):
    """The name of a repository or organisation is not valid."""

    code, status = "NAME_INVALID", 400


class TagInvalid(PollyError):
    """A tag is not valid."""

    code, status = "TAG_INVALID", 400


class ManifestInvalid(PollyError):
    """The body is not a valid manifest, or is of another type than announced."""

    code, status = "MANIFEST_INVALID", 400


class ManifestBlobUnknown(PollyError):
    """A manifest names content that its repository does not have."""

    code, status = "MANIFEST_BLOB_UNKNOWN", 400


class PaginationNumberInvalid(PollyError):
    """``n`` is not a whole number of 0 or more."""

    code, status = "PAGINATION_NUMBER_INVALID", 400


# --- 401, 403, 405, 408, 409, 413, 416, 429: the request is not allowed ------------------------------------------


class Unauthorized(PollyError):
    """The caller is not signed in, or may not do this. ``scope`` is the scope of a registry token that would allow it.

    What is forbidden and what does not exist get the same response, so that outsiders cannot learn which it is.
    """

    code, status = "UNAUTHORIZED", 401

    def __init__(
        self, message: str, *, scope: str | None = None, reason: str | None = None, known: bool = False
    ) -> None:
        super().__init__(message)
        self.known = known
        """Whether the message says all: how to sign in to this server would not help."""
        self.scope = scope
        self.reason = reason
        """The ``error`` of the challenge (RFC 6750, section 3.1): ``invalid_token`` or ``insufficient_scope``."""


class Denied(PollyError):
    """The member's role is too low, or a setting or another object forbids it."""

    code, status = "DENIED", 403


class Unsupported(PollyError):
    """The address does not support the method, or the method is switched off."""

    code, status = "UNSUPPORTED", 405

    def __init__(self, message: str, allow: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.allow = tuple(allow)
        """The methods that the address supports."""


class NameExists(PollyError):
    """There is already a repository of that name."""

    code, status = "NAME_EXISTS", 409


class TagExists(PollyError):
    """The tag to restore exists again."""

    code, status = "TAG_EXISTS", 409


class MemberExists(PollyError):
    """The user is already a member."""

    code, status = "MEMBER_EXISTS", 409


class LastAdmin(PollyError):
    """An organisation would be left without an admin."""

    code, status = "LAST_ADMIN", 409


class TokenLimit(PollyError):
    """The user has the highest number of access tokens already."""

    code, status = "TOKEN_LIMIT", 409


class AccountExists(PollyError):
    """The email already has an account, which somebody else may have made."""

    code, status = "ACCOUNT_EXISTS", 409


class OrganisationExists(PollyError):
    """There is already an organisation of that slug."""

    code, status = "ORGANISATION_EXISTS", 409


class TooLarge(PollyError):
    """The body is larger than its limit."""

    code, status = "SIZE_INVALID", 413


class RequestTimeout(PollyError):
    """The body arrived too slowly, or not at all."""

    code, status = "REQUEST_TIMEOUT", 408


class RangeInvalid(PollyError):
    """The range does not start at the upload's end, or is outside of the blob."""

    code, status = "RANGE_INVALID", 416

    def __init__(self, message: str, *, upload: tuple[str, str, int] | None = None, total: int | None = None) -> None:
        super().__init__(message)
        self.upload = upload
        """Repository name, id and size of the upload, so that the client can continue it."""
        self.total = total
        """Size of the blob, in bytes."""


class TooManyRequests(PollyError):
    """The client should wait for ``retry_after`` seconds."""

    code, status = "TOOMANYREQUESTS", 429

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Busy(TooManyRequests):
    """Too many requests wait for the same, so nothing was checked."""


# --- 404: not found ----------------------------------------------------------------------------------------------


class NotFound(PollyError):
    """There is no such address."""

    code, status = "NOT_FOUND", 404


class BlobUnknown(PollyError):
    """The repository has no blob of that digest."""

    code, status = "BLOB_UNKNOWN", 404


class BlobUploadUnknown(PollyError):
    """The user has no such upload in the repository, or it has ended."""

    code, status = "BLOB_UPLOAD_UNKNOWN", 404


class ManifestUnknown(PollyError):
    """The repository has no manifest with that tag or digest."""

    code, status = "MANIFEST_UNKNOWN", 404


class NameUnknown(PollyError):
    """The organisation has no such repository; only its members are told."""

    code, status = "NAME_UNKNOWN", 404


class OrganisationUnknown(PollyError):
    """There is no such organisation, or the caller is not a member of it."""

    code, status = "ORGANISATION_UNKNOWN", 404


class MemberUnknown(PollyError):
    """The organisation has no such member."""

    code, status = "MEMBER_UNKNOWN", 404


class InvitationUnknown(PollyError):
    """There is no invitation with that code, or for that email."""

    code, status = "INVITATION_UNKNOWN", 404


class TokenUnknown(PollyError):
    """The user has no such access token."""

    code, status = "TOKEN_UNKNOWN", 404


class NotInTrash(PollyError):
    """What should be restored is not in the trash."""

    code, status = "NOT_IN_TRASH", 404


class TagUnknown(PollyError):
    """The tag never had a commit."""

    code, status = "TAG_UNKNOWN", 404


# --- 5xx: the server's own errors --------------------------------------------------------------------------------


class InternalError(PollyError):
    """An internal error; the server's log has it under the request ID."""

    code, status = "UNKNOWN", 500


class Unavailable(PollyError):
    """The database or the storage does not respond."""

    code, status = "UNAVAILABLE", 503


class StorageFull(PollyError):
    """The disk is full. Nothing was changed, and reading goes on."""

    code, status = "STORAGE_FULL", 507
