"""The types of all JSON documents between client and server: errors, the token endpoint, and ``/api/v1``.

The server encodes these types, and the commands decode them. Decoding ignores unknown fields, so an older client
understands a newer server. Times are RFC 3339 in UTC with the suffix ``Z``. Sizes are bytes. A ``path`` is an image
reference that ``docker pull`` accepts.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Role = Literal["reader", "writer", "admin"]
Access = Literal["private", "public"]
Status = Literal["active", "inactive"]
TokenScope = Literal["full", "registry"]


class ErrorItem(msgspec.Struct, omit_defaults=True):
    """An error (distribution-spec, "Error Codes")."""

    code: str
    message: str
    detail: dict[str, Any] | None = None


class Errors(msgspec.Struct):
    """``{"errors": [...]}``: the body of every response with status 4xx or 5xx, under /v2 and under /api/v1."""

    errors: list[ErrorItem]


class ServerInfo(msgspec.Struct):
    """``GET /api/v1``: what this server is. Anyone may read it without signing in."""

    product: str
    version: str
    registry: str
    """The host at the beginning of every image path: ``HOST`` or ``HOST:PORT``."""
    url: str
    """The address of the server: ``https://HOST[:PORT]``."""
    public_repositories: Literal["allow", "deny"] = "allow"
    """Whether an admin may make a docker repository public."""


class TokenRequest(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /api/v1/tokens``: ask for an access token."""

    scope: TokenScope = "registry"
    expires_in: int = 43_200
    """Seconds, 60 to 31,536,000 (a year)."""
    label: str = ""
    """The name of the token in lists, at most 200 characters."""
    replaces: str | None = None
    """The secret of an access token of the same user, which the new one replaces: it is revoked, and the tokens that
    were made with it belong to the new one. A token that is not valid, or another user's, is ignored."""


class TokenCreated(msgspec.Struct):
    """A new access token. ``token`` is its secret, shown only once and stored as a hash."""

    id: str
    token: str
    scope: TokenScope
    expires_at: str
    email: str
    expires_in: int = 0
    """Seconds until ``expires_at``, for clients with a wrong clock."""


class TokenItem(msgspec.Struct):
    """An access token, without its secret."""

    id: str
    label: str
    scope: TokenScope
    created_at: str
    expires_at: str
    last_used_at: str | None
    current: bool
    """Whether this is the token that the request was made with."""
    parent: str | None = None
    """ID of the token that this one was made with, and expires with. None if it was made with a password."""


class Tokens(msgspec.Struct):
    """A page of the user's valid access tokens, newest first."""

    items: list[TokenItem]
    next: str | None = None


class MembershipItem(msgspec.Struct):
    """An organisation of the user, and the role there."""

    organisation: str
    role: Role
    joined_at: str = ""


class Me(msgspec.Struct):
    """``GET /api/v1/me``: the signed-in user."""

    email: str
    organisations: list[MembershipItem]
    token: TokenItem


class PasswordChange(msgspec.Struct, forbid_unknown_fields=True):
    """``PUT /api/v1/me/password``: the new password. The request signs in with email and current password."""

    password: str


class RepositoryCreate(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /api/v1/organisations/{org}/repositories``: a new docker repository."""

    name: str
    description: str
    access: Access = "private"


class RepositoryUpdate(msgspec.Struct, forbid_unknown_fields=True):
    """``PATCH /api/v1/organisations/{org}/repository?name=``: fields that are left out do not change."""

    description: str | None = None
    access: Access | None = None
    sparse_indexes: Literal["allow", "deny"] | None = None


class RepositoryItem(msgspec.Struct):
    """A docker repository."""

    name: str
    path: str
    description: str
    access: Access
    sparse_indexes: Literal["allow", "deny"]
    tags: int
    commits: int
    size: int
    created_by: str
    created_at: str
    pushed_at: str | None


class Repositories(msgspec.Struct):
    """A page of repositories. ``next`` is the ``cursor`` of the next page, or None on the last one."""

    items: list[RepositoryItem]
    total: int | None
    """None for a search in an organisation with so many repositories that it takes several pages."""
    next: str | None = None


class CommitItem(msgspec.Struct):
    """A commit: one push of a tag."""

    tag: str
    commit: str
    """The full digest of its manifest."""
    status: Status
    size: int
    """Bytes of the manifest and of everything that it refers to, each digest once."""
    platforms: list[str]
    """``linux/amd64``, ``linux/arm64/v8`` …; empty if the image has no platform."""
    media_type: str
    pushed_at: str
    pushed_by: str
    path: str
    """``HOST/org/name@sha256:…`` for ``docker pull``, also for inactive commits."""


class Commits(msgspec.Struct):
    """A page of commits. ``repository`` is their path without a tag; ``next`` as in Repositories."""

    repository: str
    items: list[CommitItem]
    total: int
    next: str | None = None


class TagItem(msgspec.Struct):
    """A tag, with its active commit."""

    tag: str
    commit: str
    """The full digest of its manifest."""
    size: int
    """As in CommitItem."""
    platforms: list[str]
    media_type: str
    pushed_at: str
    """When the tag was set to this commit."""
    pushed_by: str
    path: str
    """``HOST/org/name:tag`` for ``docker pull``."""


class Tags(msgspec.Struct):
    """A page of tags by the time they were set. ``repository`` and ``next`` as in Commits."""

    repository: str
    items: list[TagItem]
    total: int
    next: str | None = None


class TrashItem(msgspec.Struct):
    """An item in the trash, or one that a preview would move there."""

    repository: str
    """``HOST/org/name`` before it was deleted."""
    kind: Literal["tag", "commit", "repository"]
    name: str
    """The tag, the digest of the commit, or the name of the repository."""
    tags: list[str]
    """Active tags that were deleted with it."""
    commits: int
    size: int
    deleted_by: str | None
    """Email of the user; None for the operator of the server and for a policy."""
    deleted_at: str
    restorable_until: str
    by_policy: bool = False
    """Whether a policy deleted it."""


class Trash(msgspec.Struct):
    """A page of an organisation's trash, newest first. ``next`` as in Repositories."""

    items: list[TrashItem]
    total: int
    next: str | None = None


class Restore(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /api/v1/organisations/{org}/trash``: restore a tag or a commit; without both, the repository."""

    repository: str
    tag: str | None = None
    commit: str | None = None
    new_name: str | None = None
    """A new name for a repository that is restored."""


class Policy(msgspec.Struct):
    """What is kept: everything, or whatever at least one of the rules keeps."""

    keep: Literal["everything", "rules"]
    younger: int | None = None
    """Keep what was pushed within this many seconds."""
    newest: int | None = None
    """Keep this many of the newest commits of each tag."""
    pulled: int | None = None
    """Keep what was pulled within this many seconds."""


class RepositoryPolicy(msgspec.Struct):
    """The policy of a docker repository that has its own."""

    repository: str
    """``HOST/org/name``."""
    policy: Policy


class Policies(msgspec.Struct):
    """``GET /api/v1/organisations/{org}/policy``: all policies. ``next`` as in Repositories."""

    organisation: Policy
    """The policy of all docker repositories that do not have their own."""
    items: list[RepositoryPolicy]
    next: str | None = None


class PolicyUpdate(msgspec.Struct, forbid_unknown_fields=True):
    """``PUT /api/v1/organisations/{org}/policy[?name=][&preview=true]``: a policy. ``inherit`` needs a name."""

    keep: Literal["everything", "rules", "inherit"]
    younger: int | None = None
    newest: int | None = None
    pulled: int | None = None


class PolicyPreviewItem(msgspec.Struct):
    """A manifest that a policy would delete."""

    path: str
    """``HOST/org/name@sha256:…``."""
    tags: list[str]
    """Tags that it has had."""
    pushed_at: str
    size: int
    """As in CommitItem."""


class PolicyPreview(msgspec.Struct):
    """What a policy would delete."""

    manifests: int
    commits: int
    size: int
    """Bytes that nothing else in their docker repositories uses."""
    complete: bool
    """False if the time was too short to check everything. Then this is what was found so far."""
    items: list[PolicyPreviewItem]
    """The newest 1,000 of the manifests, newest first."""
    as_of: str = ""
    """The time of the preview: the requested one, or now."""


class PolicyChange(msgspec.Struct):
    """The policy that was set, or would be set by a preview, and what it deletes."""

    policy: Policy
    preview: PolicyPreview


class AuditItem(msgspec.Struct):
    """An entry of the audit log."""

    at: str
    event: str
    """What was done: push, delete, sign-in …; docs/commands.md lists all of them."""
    by: str
    """Email of the user who did it; polly-server for the operator; empty if nobody was signed in."""
    address: str
    """Network address of the client."""
    subject: str
    """What was affected: an image path without the host, an email, or the ID of an access token."""
    detail: str


class Audit(msgspec.Struct):
    """A page of an organisation's audit log. ``next`` as in Repositories."""

    items: list[AuditItem]
    next: str | None = None


class MemberItem(msgspec.Struct):
    """A member of an organisation."""

    email: str
    role: Role
    joined_at: str


class Members(msgspec.Struct):
    """A page of members, sorted by email. ``next`` as in Repositories."""

    items: list[MemberItem]
    total: int
    next: str | None = None


class InvitationCreate(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /api/v1/organisations/{org}/invitations``: an email to invite, with or without an account."""

    email: str
    role: Role


class InvitationCreated(msgspec.Struct):
    """A new invitation, alike for emails with and without an account. ``code`` is shown once and stored as a hash."""

    email: str
    role: Role
    code: str
    expires_at: str


class InvitationItem(msgspec.Struct):
    """An invitation that has not been accepted yet."""

    email: str
    role: Role
    created_at: str
    expires_at: str


class Invitations(msgspec.Struct):
    """A page of invitations, sorted by email. ``next`` as in Repositories."""

    items: list[InvitationItem]
    total: int
    next: str | None = None


class InvitationAccept(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /api/v1/invitation``: accept an invitation by its code.

    A signed-in user sends only the code. Otherwise send the invited email too, and the password of its account. If the
    email has no account, one is created with this password.
    """

    code: str
    email: str | None = None
    password: str | None = None


class InvitationAccepted(msgspec.Struct):
    """The organisation and the role of the new member."""

    organisation: str
    role: Role
    email: str


class MemberUpdate(msgspec.Struct, forbid_unknown_fields=True):
    """``PATCH /api/v1/organisations/{org}/members?email=``: the new role of a member."""

    role: Role


class RegistryToken(msgspec.Struct, omit_defaults=True):
    """The response of the token endpoint (distribution: docs/spec/auth/token.md and oauth.md)."""

    token: str
    access_token: str
    expires_in: int
    issued_at: str
    scope: str | None = None


encode = msgspec.json.Encoder(enc_hook=str).encode
"""Encode any of these as JSON. Subclasses of text in the domain, such as a digest, are written as text."""
