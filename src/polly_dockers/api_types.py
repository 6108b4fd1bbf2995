"""Every JSON shape on a socket: the error envelope, the token endpoint, OCI documents and ``/api/v1``.

Both sides use these types: the server encodes them, the commands decode them. Unknown fields are ignored when
decoding, so that an older client understands a newer server. Times are RFC 3339 in UTC with the suffix ``Z``;
sizes are bytes; a ``path`` is what ``docker pull`` takes.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Role = Literal["admin", "writer", "reader"]
Access = Literal["private", "public"]
Status = Literal["active", "inactive"]
TokenScope = Literal["full", "registry"]


class ErrorItem(msgspec.Struct, omit_defaults=True):
    """One error of the envelope (distribution-spec, "Error Codes")."""

    code: str
    message: str
    detail: dict[str, Any] | None = None


class Errors(msgspec.Struct):
    """``{"errors": [...]}``: the body of every answer of 4xx and 5xx, under /v2 and under /api/v1 alike."""

    errors: list[ErrorItem]


class ServerInfo(msgspec.Struct):
    """``GET /api/v1``: what this server is; the only thing that anyone may read without signing in."""

    product: str
    version: str
    registry: str
    """The host that stands before every image path, ``HOST`` or ``HOST:PORT``."""
    url: str
    """Where the server is reached, ``https://HOST[:PORT]``."""
    public_repositories: Literal["allow", "deny"] = "allow"
    """Whether an admin may make a docker repository public."""


class TokenRequest(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /api/v1/tokens``: ask for an access token."""

    scope: TokenScope = "registry"
    expires_in: int = 43_200
    """Seconds, 60 to 31,536,000 (a year)."""
    label: str = ""
    """What the owner sees in the list of tokens, at most 200 characters."""
    replaces: str | None = None
    """An access token of the same user, its secret: it ends as the new one begins, and the tokens that were made with
    it belong to the new one. One that has ended, or is somebody else's, is passed over."""


class TokenCreated(msgspec.Struct):
    """A new access token; ``token`` is shown this once and stored hashed."""

    id: str
    token: str
    scope: TokenScope
    expires_at: str
    email: str
    expires_in: int = 0
    """Seconds from now to ``expires_at``, for clients whose clock is wrong."""


class TokenItem(msgspec.Struct):
    """An access token as its owner sees it in ``GET /api/v1/tokens``."""

    id: str
    label: str
    scope: TokenScope
    created_at: str
    expires_at: str
    last_used_at: str | None
    current: bool
    """Whether this is the token that the request was made with."""
    parent: str | None = None
    """The id of the token that this one was made with and ends with; None for one that was made with a password."""


class Tokens(msgspec.Struct):
    """A page of ``GET /api/v1/tokens``: the caller's access tokens that are good now, newest first."""

    items: list[TokenItem]
    next: str | None = None


class MembershipItem(msgspec.Struct):
    """An organisation of the caller, and the role there."""

    organisation: str
    role: Role
    joined_at: str = ""


class Me(msgspec.Struct):
    """``GET /api/v1/me``: who is asking."""

    email: str
    organisations: list[MembershipItem]
    token: TokenItem


class PasswordChange(msgspec.Struct, forbid_unknown_fields=True):
    """``PUT /api/v1/me/password``: the request is made with Basic (email, current password)."""

    password: str


class RepositoryCreate(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /api/v1/organisations/{org}/repositories``."""

    name: str
    description: str
    access: Access = "private"


class RepositoryUpdate(msgspec.Struct, forbid_unknown_fields=True):
    """``PATCH /api/v1/organisations/{org}/repository?name=``: what is left out stays as it is."""

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
    """A page of repositories; ``next`` is the ``cursor`` of the next page, None at the end."""

    items: list[RepositoryItem]
    total: int
    next: str | None = None


class CommitItem(msgspec.Struct):
    """A commit: one push of a tag."""

    tag: str
    commit: str
    """The digest of its manifest, whole."""
    status: Status
    size: int
    """Bytes of all that the manifest names, each digest once: config, layers, children and manifests."""
    platforms: list[str]
    """``linux/amd64``, ``linux/arm64/v8`` …; empty where the image tells none."""
    media_type: str
    pushed_at: str
    pushed_by: str
    path: str
    """``HOST/org/name@sha256:…``, good for ``docker pull`` whether the commit is active or not."""


class Commits(msgspec.Struct):
    """A page of commits; ``repository`` is the full path without tag."""

    repository: str
    items: list[CommitItem]
    total: int
    next: str | None = None


class TagItem(msgspec.Struct):
    """A tag, with its active commit."""

    tag: str
    commit: str
    """The digest of its manifest, whole."""
    size: int
    """As that of a commit."""
    platforms: list[str]
    media_type: str
    pushed_at: str
    """When the tag was set to this commit."""
    pushed_by: str
    path: str
    """``HOST/org/name:tag``, good for ``docker pull``."""


class Tags(msgspec.Struct):
    """A page of tags, by when they were set; ``repository`` is the full path without tag."""

    repository: str
    items: list[TagItem]
    total: int
    next: str | None = None


class TrashItem(msgspec.Struct):
    """Something that was deleted, or would be."""

    repository: str
    """``HOST/org/name`` as it was."""
    kind: Literal["tag", "commit", "repository"]
    name: str
    """The tag, the digest of the commit, or the name of the repository."""
    tags: list[str]
    """Active tags that went with it."""
    commits: int
    size: int
    deleted_by: str | None
    """None: the operator of the server, or a policy."""
    deleted_at: str
    restorable_until: str
    by_policy: bool = False
    """Whether a policy put it there."""


class Trash(msgspec.Struct):
    """A page of an organisation's trash, newest first; ``next`` as in Repositories."""

    items: list[TrashItem]
    total: int
    next: str | None = None


class Restore(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /api/v1/organisations/{org}/trash``: bring back a tag, a commit, or with neither the repository."""

    repository: str
    tag: str | None = None
    commit: str | None = None
    new_name: str | None = None
    """For a repository: another name than it had."""


class Policy(msgspec.Struct):
    """What is kept. Under rules, what any of them keeps is kept."""

    keep: Literal["everything", "rules"]
    younger: int | None = None
    """Keep what was pushed within so many seconds."""
    newest: int | None = None
    """Keep so many of the newest commits of each tag."""
    pulled: int | None = None
    """Keep what was pulled within so many seconds."""


class RepositoryPolicy(msgspec.Struct):
    """The policy of a docker repository that has its own."""

    repository: str
    """``HOST/org/name``."""
    policy: Policy


class Policies(msgspec.Struct):
    """``GET /api/v1/organisations/{org}/policy``; ``next`` as in Repositories."""

    organisation: Policy
    """That of all docker repositories that have none of their own."""
    items: list[RepositoryPolicy]
    next: str | None = None


class PolicyUpdate(msgspec.Struct, forbid_unknown_fields=True):
    """``PUT /api/v1/organisations/{org}/policy[?name=][&preview=true]``; ``inherit`` takes a name."""

    keep: Literal["everything", "rules", "inherit"]
    younger: int | None = None
    newest: int | None = None
    pulled: int | None = None


class PolicyPreviewItem(msgspec.Struct):
    """A manifest that would go."""

    path: str
    """``HOST/org/name@sha256:…``."""
    tags: list[str]
    """Tags that it had."""
    pushed_at: str
    size: int
    """As that of a commit: bytes of all that it names."""


class PolicyPreview(msgspec.Struct):
    """What would go."""

    manifests: int
    commits: int
    size: int
    """Bytes that nothing else in their docker repositories needs."""
    complete: bool
    """False where there was more to look at than there is time for: then it is what was found so far."""
    items: list[PolicyPreviewItem]
    """The 1,000 newest of the manifests, newest first."""
    as_of: str = ""
    """The moment that was asked for; now without one."""


class PolicyChange(msgspec.Struct):
    """The policy that was set, or with preview would be, and what goes by it."""

    policy: Policy
    preview: PolicyPreview


class AuditItem(msgspec.Struct):
    """An entry of the audit log."""

    at: str
    event: str
    """What was done: push, delete, sign-in …; docs/commands.md has all of them."""
    by: str
    """The email of who did it; polly-server for the operator, empty where nobody was signed in."""
    address: str
    """Where the request came from."""
    subject: str
    """What it was done to: an image path without the host, an email, the id of an access token."""
    detail: str


class Audit(msgspec.Struct):
    """A page of an organisation's audit log; ``next`` as in Repositories."""

    items: list[AuditItem]
    next: str | None = None


class MemberItem(msgspec.Struct):
    """A member of an organisation."""

    email: str
    role: Role
    joined_at: str


class Members(msgspec.Struct):
    """A page of members by email; ``next`` as in Repositories."""

    items: list[MemberItem]
    total: int
    next: str | None = None


class InvitationCreate(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /api/v1/organisations/{org}/invitations``: invite an email, whether it has an account or not."""

    email: str
    role: Role


class InvitationCreated(msgspec.Struct):
    """An invitation; ``code`` is shown this once and stored hashed. The answer is of one form for every email."""

    email: str
    role: Role
    code: str
    expires_at: str


class InvitationItem(msgspec.Struct):
    """Somebody who was invited and has not joined yet."""

    email: str
    role: Role
    created_at: str
    expires_at: str


class Invitations(msgspec.Struct):
    """A page of invitations by email; ``next`` as in Repositories."""

    items: list[InvitationItem]
    total: int
    next: str | None = None


class InvitationAccept(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /api/v1/invitation``: redeem a code.

    By who is signed in, with the code alone; else with the email that was invited, and the password of its account, or
    that of a new account where it has none.
    """

    code: str
    email: str | None = None
    password: str | None = None


class InvitationAccepted(msgspec.Struct):
    """What the code was for."""

    organisation: str
    role: Role
    email: str


class MemberUpdate(msgspec.Struct, forbid_unknown_fields=True):
    """``PATCH /api/v1/organisations/{org}/members?email=``."""

    role: Role


class RegistryToken(msgspec.Struct, omit_defaults=True):
    """The answer of the token endpoint (distribution: docs/spec/auth/token and oauth)."""

    token: str
    access_token: str
    expires_in: int
    issued_at: str
    scope: str | None = None


encode = msgspec.json.Encoder(enc_hook=str).encode
"""JSON bytes of any of these; the domain's own kinds of text (a digest, a name) are written as text."""
