"""What a request costs the writer, which all organisations share: it does not grow with what was pushed before."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select, update

from polly_dockers import db
from polly_dockers.db import schema, total_sizes
from polly_dockers.errors import Denied
from polly_dockers.registry import deletion, repositories, uploads
from support.use_cases import (
    ADMIN,
    NAME,
    ORG,
    READER,
    collect,
    commits,
    create,
    delete,
    pull_manifest,
    push_blob,
    push_image,
    push_manifest,
    restore,
)
from support.wire_client import CONFIG, OCI_INDEX, descriptor, dumps, image, sha256

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sqlalchemy import Connection

    from polly_dockers.context import Context
    from support.use_cases import Clock

pytestmark = pytest.mark.usefixtures("repository")

PART = 100
"""Instructions of SQLite's machine that are counted as one."""


class Work:
    """How many instructions SQLite executed for the writer in the block, in units."""

    parts = 0


@contextlib.asynccontextmanager
async def statements(context: Context) -> AsyncIterator[list[str]]:
    """The statements of the writer in the block."""
    found: list[str] = []

    def watch(connection: Connection, handler: Any) -> None:  # noqa: ANN401 - a function or None
        driver: Any = connection.connection.driver_connection
        driver.set_trace_callback(handler)

    await context.database.write(watch, found.append)
    yield found
    await context.database.write(watch, None)


@contextlib.asynccontextmanager
async def work(context: Context) -> AsyncIterator[Work]:
    """Count the writer's work in the block."""
    found = Work()

    def count() -> int:
        found.parts += 1
        return 0

    def watch(connection: Connection, handler: Any) -> None:  # noqa: ANN401 - a function or None
        driver: Any = connection.connection.driver_connection
        driver.set_progress_handler(handler, PART)

    await context.database.write(watch, count)
    yield found
    await context.database.write(watch, None)


def index(*bodies: bytes, note: object = "") -> bytes:
    """The bytes of an index of indexes, different for each note."""
    items = [descriptor(body, OCI_INDEX) for body in bodies]
    made = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": items, "annotations": {"note": str(note)}}
    return dumps(made)


async def push_index(context: Context, *bodies: bytes, note: object = "", tags: Sequence[str] = ()) -> bytes:
    """Push an index of indexes; its bytes."""
    made = index(*bodies, note=note)
    await push_manifest(context, made, *tags, media_type=OCI_INDEX)
    return made


async def allow_sparse(context: Context, name: str = NAME.name) -> None:
    """Let the indexes of the repository name what it does not have."""
    await repositories.update(context, ADMIN, ORG, name, description=None, wanted_access=None, sparse_indexes="allow")


async def size_of(context: Context, tag: str) -> int:
    """The total size of the image of a tag."""
    [commit] = await commits(context, tag)
    return commit.size


def all_sizes(connection: Connection) -> list[int]:
    """The total sizes of all manifests."""
    return list(connection.execute(select(schema.manifests.c.total_size)).scalars())


async def test_everything_in_a_nest_counts_once(context: Context) -> None:
    """The size of an index includes everything that it leads to, each thing once."""
    shared, other = image(), image()
    for made in (shared, other):
        await push_image(context, made)
    inner = [await push_index(context, note=number) for number in range(2)]
    outer = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [
            *(descriptor(each, OCI_INDEX) for each in inner),
            descriptor(shared.manifest, shared.media_type),
            descriptor(other.manifest, other.media_type),
        ],
    }
    await push_manifest(context, dumps(outer), "middle", media_type=OCI_INDEX)
    top = await push_index(context, dumps(outer), *inner, tags=["top"])
    parts = {top, dumps(outer), *inner, shared.manifest, other.manifest, *shared.blobs, *other.blobs}
    assert await size_of(context, "top") == sum(map(len, parts))


async def test_a_sparse_index_grows_by_all_of_what_arrives(context: Context) -> None:
    """If a missing image arrives, the indexes that named it grow by the image and its layers."""
    await allow_sparse(context)
    made = image()
    top = dumps({"schemaVersion": 2, "manifests": [descriptor(made.manifest, made.media_type)]})
    await push_manifest(context, top, "top", media_type=OCI_INDEX)
    await push_image(context, made)
    assert await size_of(context, "top") == sum(map(len, (top, made.manifest, *made.blobs)))


async def test_a_layer_that_arrives_counts(context: Context) -> None:
    """If a missing layer arrives, each image that named it grows by it."""
    await allow_sparse(context)
    made = image()
    await push_blob(context, made.blobs[0])
    await push_manifest(context, made.manifest, "v1", media_type=made.media_type)
    assert await size_of(context, "v1") == len(made.manifest) + len(made.blobs[0])
    await push_blob(context, made.blobs[1])
    assert await size_of(context, "v1") == sum(map(len, (made.manifest, *made.blobs)))


@pytest.fixture
def small_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit what one transaction may measure."""
    monkeypatch.setattr(total_sizes._Budget, "__init__", _small)


def _small(budget: Any) -> None:  # noqa: ANN401 - the class is private
    budget.nested, budget.manifests, budget.blobs = 4, 30, 30


async def nest(context: Context, wide: int, deep: int) -> list[bytes]:
    """Push ``wide`` empty indexes, and ``deep`` that each hold them all; the latter."""
    leaves = [await push_index(context, note=number) for number in range(wide)]
    return [await push_index(context, *leaves, note=f"deep {number}") for number in range(deep)]


@pytest.mark.usefixtures("small_budget")
async def test_measuring_is_bounded(context: Context) -> None:
    """Measuring an index over a large nest costs about as much as over a smaller one; its size is a lower bound."""
    small = await nest(context, 30, 4)
    async with work(context) as first:
        await push_index(context, *small, note="a")
    large = await nest(context, 90, 4)
    async with work(context) as second:
        top = await push_index(context, *large, note="b", tags=["top"])
    assert second.parts < first.parts * 1.5
    assert len(top) + len(large[0]) < await size_of(context, "top") < sum(map(len, large)) + 90 * len(top)


@pytest.mark.usefixtures("small_budget")
async def test_an_arrival_is_bounded(context: Context) -> None:
    """If an image arrives that many indexes over a large nest wait for, it costs little more than if one waits."""
    await allow_sparse(context)
    deep = await nest(context, 60, 4)
    rare, common = index(note="rare"), index(note="common")
    await push_index(context, *deep, rare, note="one")
    for number in range(40):
        await push_index(context, *deep, common, note=number)
    async with work(context) as first:
        await push_manifest(context, rare, media_type=OCI_INDEX)
    async with work(context) as second:
        await push_manifest(context, common, media_type=OCI_INDEX)
    assert second.parts < first.parts + 40 * 3
    async with work(context) as third:
        await delete(context, commit=(await push_manifest(context, common, "v1", media_type=OCI_INDEX)))
        await restore(context, tag="v1")
    assert third.parts < first.parts + 40 * 12


async def test_any_number_of_manifests_waits_for_one_digest(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many indexes wait for the same missing image. When it arrives, each of several transactions links a few."""
    monkeypatch.setattr(db.sparse, "AT_ONCE", 30)
    await allow_sparse(context)
    missing = index(note="missing")
    waiting = [await push_index(context, missing, note=number) for number in range(101)]
    await delete(context, commit=sha256(waiting[0]))
    waiting.append(await push_index(context, missing, note="more"))
    async with statements(context) as found:
        digest = await push_manifest(context, missing, media_type=OCI_INDEX)
    assert links(found) == [30, 30, 30, 12]
    await restore(context, commit=sha256(waiting[0]))
    whole = {len(each) + len(missing) for each in waiting}
    assert {len(missing), *whole} == set(await context.database.read(all_sizes))
    with pytest.raises(Denied, match="more than 100 indexes"):
        await delete(context, commit=digest)


def links(found: list[str]) -> list[int]:
    """How many links from indexes to their images each transaction made, except for those without any."""
    transactions = "\n".join(found).split("BEGIN IMMEDIATE")
    counts = [each.count("INSERT INTO manifest_children") for each in transactions]
    return [each for each in counts if each]


async def test_a_push_goes_on_where_the_server_was_stopped(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexes that were not linked when their image arrived are linked when it is pushed again."""
    monkeypatch.setattr(db.sparse, "AT_ONCE", 2)
    await allow_sparse(context)
    missing = index(note="missing")
    waiting = [await push_index(context, missing, note=number) for number in range(5)]
    with monkeypatch.context() as stopped:
        stopped.setattr(db.manifests, "link_more", lambda *_: False)
        await push_manifest(context, missing, media_type=OCI_INDEX)
    async with statements(context) as found:
        await push_manifest(context, missing, media_type=OCI_INDEX)
    assert links(found) == [2, 1]
    sizes = await context.database.read(all_sizes)
    assert sizes[:-1] == [len(each) + len(missing) for each in waiting]


async def test_a_restore_links_all_that_waits(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restored image is linked to the indexes that were pushed meanwhile, a few in each transaction."""
    monkeypatch.setattr(db.sparse, "AT_ONCE", 2)
    await allow_sparse(context)
    part = index(note="part")
    whole = await push_index(context, part)
    await push_manifest(context, part, "v1", media_type=OCI_INDEX)
    await delete(context, commit=sha256(whole))
    await delete(context, commit=sha256(part))
    for number in range(5):
        await push_index(context, part, whole, note=number)
    async with statements(context) as found:
        await restore(context, commit=sha256(whole))
    assert sum(links(found)) == 10
    assert max(links(found)) <= 4


async def test_a_layer_from_elsewhere_may_be_missing_everywhere(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any number of images may name it, as those of Windows do. If it is pushed or mounted, all of them are linked."""
    monkeypatch.setattr(db.sparse, "AT_ONCE", 2)
    layer, config = b"of Windows", b"{}"
    other = await create(context, "other")
    foreign = descriptor(layer, "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip")
    for name in (NAME, other):
        await push_blob(context, config, name=name)
        for number in range(5):
            annotations = {"n": f"{name.name} {number}"}
            body = image(config=descriptor(config, CONFIG), layers=[foreign], annotations=annotations).manifest
            await push_manifest(context, body, f"v{number}", name=name)
    await push_blob(context, layer)
    mounted = await uploads.mount(context, ADMIN, other, sha256(layer), str(NAME))
    assert mounted == sha256(layer)
    lacking = await context.database.read(lambda connection: connection.execute(select(schema.manifest_missing)).all())
    assert lacking == []
    named = await context.database.read(lambda connection: connection.execute(select(schema.manifest_blobs)).all())
    assert len(named) == 20


async def test_an_index_takes_no_more_statements_for_many_missing(context: Context) -> None:
    """What an index lacks is found and recorded by a few statements, however much it is."""
    await allow_sparse(context)
    counts = []
    for number in (1, 200):
        missing = [index(note=f"missing {each}") for each in range(number)]
        async with statements(context) as found:
            await push_index(context, *missing, note=number)
        counts.append(len(found))
    assert counts[0] == counts[1]


async def test_a_push_does_not_look_at_other_blobs(context: Context) -> None:
    """What an image or an index names is found by its digests, however much the repository has."""
    await allow_sparse(context)
    costs = []
    for number in range(2):
        layers = [f"{number} {each}".encode() for each in range(2)]
        made = image(layers=[descriptor(each) for each in layers])
        for blob in (*layers, *made.blobs):
            await push_blob(context, blob)
        async with work(context) as found:
            await push_manifest(context, made.manifest, media_type=made.media_type)
            await push_index(context, made.manifest, layers[0], b"missing", note=number)
        costs.append(found.parts)
        for each in range(400):
            await push_layer(context, each)
    assert costs[1] < costs[0] + 10


TAGS = 40


async def test_a_deletion_takes_no_more_statements_for_many_tags(context: Context) -> None:
    """An image with many tags is deleted by no more statements than one with a single tag, and totals are right."""
    few, many = await push_index(context, note="few", tags=["only"]), await push_index(context, note="many")
    names = [f"t{number}" for number in range(TAGS)]
    await push_manifest(context, many, *names, media_type=OCI_INDEX)
    await push_manifest(context, few, names[0], media_type=OCI_INDEX)
    await push_manifest(context, many, names[0], media_type=OCI_INDEX)
    digests = [await push_manifest(context, each, media_type=OCI_INDEX) for each in (few, many)]
    async with statements(context) as first:
        await delete(context, commit=digests[0])
    async with statements(context) as second:
        item = await delete(context, commit=digests[1])
    assert len(second) <= len(first)
    assert (item.commits, set(item.tags)) == (TAGS + 1, set(names))
    assert [await total(context, tag) for tag in ("only", names[0], names[1])] == [0, 0, 0]
    async with statements(context) as third:
        await restore(context, commit=digests[1])
    assert len(third) < len(second) + TAGS + 10
    assert [await total(context, tag) for tag in ("only", names[0], names[1])] == [0, 2, 1]
    assert {each.tag for each in await commits(context) if each.active} == set(names)


async def total(context: Context, tag: str) -> int:
    """The number of commits of a tag."""

    def query(connection: Connection) -> int:
        [number] = connection.execute(select(schema.repositories.c.id)).scalars()
        return db.commits.count(connection, number, tag)

    return await context.database.read(query)


async def test_an_image_has_a_limited_number_of_tags(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """One tag more is refused; those that it has can be pushed again."""
    monkeypatch.setattr(db.tags, "MAX_TAGS", 2)
    made = await push_index(context, tags=["a", "b"])
    with pytest.raises(Denied, match="at most 2 tags"):
        await push_manifest(context, made, "c", media_type=OCI_INDEX)
    await push_manifest(context, made, "b", media_type=OCI_INDEX)
    assert {each.tag for each in await commits(context)} == {"a", "b"}


PARTS = 7


@pytest.mark.parametrize("by", ["tag", "commit"])
async def test_a_large_restore_takes_several_transactions(
    context: Context, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """An index is restored with its images and their tags, a few in each transaction, with other writes between."""
    monkeypatch.setattr(db.restore, "PORTION", 3)
    await allow_sparse(context)
    leaves = [await push_index(context, note=number, tags=[f"t{number}"]) for number in range(PARTS)]
    inner = await push_index(context, *leaves[:5], note="inner")
    top = await push_index(context, inner, *leaves, note="top", tags=["top"])
    await push_manifest(context, leaves[0], "v1", media_type=OCI_INDEX)
    await delete(context, commit=sha256(top))
    for each in (inner, *leaves):
        await delete(context, commit=sha256(each))
    async with statements(context) as found:
        if by == "tag":
            await restore(context, tag="top")
        else:
            await restore(context, commit=sha256(top))
    transactions = "\n".join(found).split("BEGIN IMMEDIATE")
    restored = [len({line for line in each.splitlines() if "DELETE FROM trash WHERE" in line}) for each in transactions]
    assert [each for each in restored if each] == [3, 3, 3]
    items, _, _ = await deletion.page(context, READER, ORG, limit=10, after=None)
    assert items == []
    for each in (top, inner, *leaves):
        assert await pull_manifest(context, sha256(each)) == each
    active = {each.tag for each in await commits(context) if each.active}
    assert active == {"top", "v1", *(f"t{number}" for number in range(PARTS))}


async def test_a_group_that_names_itself_is_restored(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """A referrer that also contains its subject, and was deleted by a policy, is restored with it, once."""
    monkeypatch.setattr(db.restore, "PORTION", 1)
    await allow_sparse(context)
    subject = await push_index(context, note="subject")
    both = dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [descriptor(subject, OCI_INDEX)],
            "subject": descriptor(subject, OCI_INDEX),
        }
    )
    await push_manifest(context, both, media_type=OCI_INDEX)
    for each in (both, subject):
        await delete(context, commit=sha256(each))

    def taken(connection: Connection) -> None:
        connection.execute(update(schema.trash).values(by_policy=1))

    await context.database.write(taken)
    await restore(context, commit=sha256(subject))
    for each in (subject, both):
        assert await pull_manifest(context, sha256(each)) == each


async def test_a_repository_is_purged_in_small_steps(
    context: Context, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No transaction of its purge deletes many rows, neither of links nor of the trash."""
    monkeypatch.setattr(db.garbage, "AT_ONCE", 5)
    await allow_sparse(context)
    missing = [index(note=f"missing {number}") for number in range(20)]
    leaves = [await push_index(context, note=number, tags=[f"t{number}"]) for number in range(20)]
    await push_index(context, *leaves, *missing)
    layers = [await push_layer(context, number) for number in range(20)]
    made = image(layers=[descriptor(each) for each in layers])
    await push_image(context, made)
    for number in range(20):
        await delete(context, tag=f"t{number}")
    await delete(context)
    clock.advance(days=31)
    changes: list[int] = []

    def watch(connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        before = [driver.total_changes]

        def count(statement: str) -> None:
            if statement == "COMMIT":
                changes.append(driver.total_changes - before[0])
                before[0] = driver.total_changes

        driver.set_trace_callback(count)

    await context.database.write(watch)
    await collect(context)
    assert len(await context.database.read(all_sizes)) == 0
    assert max(changes) < 30


async def push_layer(context: Context, number: int) -> bytes:
    """Push a small layer; its bytes."""
    layer = f"layer {number}".encode()
    await push_blob(context, layer)
    return layer
