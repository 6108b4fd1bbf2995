"""Every failure the product can report, with the code of the specification, the HTTP status and a way out.

A use case raises one of these; ``web.failures`` writes the envelope. The class is the table: ``code`` and
``status`` are read off it and nothing else decides them. Codes under /v2 are those of distribution-spec 1.1.1,
"Error Codes"; the others belong to /api/v1 and are listed in docs/api.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class PollyError(Exception):
    """A failure that a client is told about. ``message`` is one or two sentences for a person."""

    code: ClassVar[str] = "UNKNOWN"
    status: ClassVar[int] = 500

    def __init__(self, message: str, *, detail: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = dict(detail or {})


class ClientGone(Exception):
    """The client went away in the middle of a body: nobody is left to be told."""


# --- 400: what was sent is wrong -------------------------------------------------------------------------------


class BadRequest(PollyError):
    """A parameter or a body of /api/v1 or of the token endpoint is not of the documented form."""

    code, status = "BAD_REQUEST", 400


class DigestInvalid(PollyError):
    """A digest is malformed, of an algorithm that is not supported, or not that of the content."""

    code, status = "DIGEST_INVALID", 400


class DigestAmbiguous(PollyError):
    """The beginning of a digest that several commits have; ``detail`` names them."""

    code, status = "DIGEST_AMBIGUOUS", 400


class SizeInvalid(PollyError):
    """The length that was announced is not the length that came."""

    code, status = "SIZE_INVALID", 400


class NameInvalid(PollyError):
    """A repository name that the grammar does not allow."""

    code, status = "NAME_INVALID", 400


class TagInvalid(PollyError):
    """A tag that the grammar does not allow."""

    code, status = "TAG_INVALID", 400


class ManifestInvalid(PollyError):
    """A manifest that is no manifest, or of another type than was said."""

    code, status = "MANIFEST_INVALID", 400


class ManifestBlobUnknown(PollyError):
    """A manifest that names content which its repository does not have."""

    code, status = "MANIFEST_BLOB_UNKNOWN", 400


class PaginationNumberInvalid(PollyError):
    """``n`` is not a whole number from 0."""

    code, status = "PAGINATION_NUMBER_INVALID", 400


# --- 401, 403, 405, 409, 413, 416, 429: what may not be done ------------------------------------------------------


class Unauthorized(PollyError):
    """Nobody is signed in, or the token does not reach this far; ``scope`` is what a token would need.

    The same answer for what is forbidden and what does not exist, so that nobody outside learns which is which.
    """

    code, status = "UNAUTHORIZED", 401

    def __init__(
        self, message: str, *, scope: str | None = None, reason: str | None = None, known: bool = False
    ) -> None:
        super().__init__(message)
        self.known = known
        """Whether it is clear who asks, so that signing in again would not help."""
        self.scope = scope
        self.reason = reason
        """The ``error`` of the challenge (RFC 6750, section 3.1): ``invalid_token`` or ``insufficient_scope``."""


class Denied(PollyError):
    """A member whose role does not suffice, or a policy that forbids it."""

    code, status = "DENIED", 403


class Unsupported(PollyError):
    """The method is not for this address, or switched off."""

    code, status = "UNSUPPORTED", 405

    def __init__(self, message: str, allow: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.allow = tuple(allow)
        """The methods that the address takes."""


class NameExists(PollyError):
    """A repository of that name is there already."""

    code, status = "NAME_EXISTS", 409


class TagExists(PollyError):
    """A tag that should be restored is there again."""

    code, status = "TAG_EXISTS", 409


class MemberExists(PollyError):
    """The user is a member already."""

    code, status = "MEMBER_EXISTS", 409


class LastAdmin(PollyError):
    """An organisation would be left without an admin."""

    code, status = "LAST_ADMIN", 409


class TokenLimit(PollyError):
    """A user has as many access tokens as one may have."""

    code, status = "TOKEN_LIMIT", 409


class OrganisationExists(PollyError):
    """An organisation of that slug is there already."""

    code, status = "ORGANISATION_EXISTS", 409


class TooLarge(PollyError):
    """A body over its limit."""

    code, status = "SIZE_INVALID", 413


class RequestTimeout(PollyError):
    """A body that came too slowly, or not at all."""

    code, status = "REQUEST_TIMEOUT", 408


class RangeInvalid(PollyError):
    """A range that does not continue the upload, or lies outside the blob."""

    code, status = "RANGE_INVALID", 416

    def __init__(self, message: str, *, upload: tuple[str, str, int] | None = None, total: int | None = None) -> None:
        super().__init__(message)
        self.upload = upload
        """Repository name, id and size of the upload as it stands: the answer says where to go on."""
        self.total = total
        """Size of the blob that the range lies outside of."""


class TooManyRequests(PollyError):
    """Wait ``retry_after`` seconds."""

    code, status = "TOOMANYREQUESTS", 429

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Busy(TooManyRequests):
    """So many wait for the same already that nothing was looked at; come again."""


# --- 404: what is not there -----------------------------------------------------------------------------------


class NotFound(PollyError):
    """No such address."""

    code, status = "NOT_FOUND", 404


class BlobUnknown(PollyError):
    """The repository has no blob of that digest."""

    code, status = "BLOB_UNKNOWN", 404


class BlobUploadUnknown(PollyError):
    """No such upload for this user in this repository, or it is over."""

    code, status = "BLOB_UPLOAD_UNKNOWN", 404


class ManifestUnknown(PollyError):
    """The repository has no manifest of that tag or digest."""

    code, status = "MANIFEST_UNKNOWN", 404


class NameUnknown(PollyError):
    """A member asks for a repository that the organisation does not have."""

    code, status = "NAME_UNKNOWN", 404


class OrganisationUnknown(PollyError):
    """No such organisation, or not for the caller."""

    code, status = "ORGANISATION_UNKNOWN", 404


class MemberUnknown(PollyError):
    """The organisation has no such member."""

    code, status = "MEMBER_UNKNOWN", 404


class InvitationUnknown(PollyError):
    """No invitation with that code or of that email."""

    code, status = "INVITATION_UNKNOWN", 404


class TokenUnknown(PollyError):
    """The user has no such access token."""

    code, status = "TOKEN_UNKNOWN", 404


class NotInTrash(PollyError):
    """The trash does not hold what should be restored."""

    code, status = "NOT_IN_TRASH", 404


class TagUnknown(PollyError):
    """No commit was ever pushed to that tag."""

    code, status = "TAG_UNKNOWN", 404


# --- 5xx: the server's own ------------------------------------------------------------------------------------


class InternalError(PollyError):
    """A fault of the server; what happened stands in its log under the request id."""

    code, status = "UNKNOWN", 500


class Unavailable(PollyError):
    """The database or the storage does not answer now."""

    code, status = "UNAVAILABLE", 503


class StorageFull(PollyError):
    """The disk has no room left; nothing was changed and reads go on."""

    code, status = "STORAGE_FULL", 507
