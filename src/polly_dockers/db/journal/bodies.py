"""Right bytes of manifests that were damaged in the database: the journal has them too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from polly_dockers.db.journal import frames
from polly_dockers.db.journal.records import Batch, ManifestPushed
from polly_dockers.db.manifests import is_body

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


def find(folder: Path, digests: Iterable[str]) -> dict[str, bytes]:
    """The bodies of manifests by their digests, of those that the journal of a data folder or a backup has undamaged.

    It reads the whole journal, unless all are found before its end. Raises OSError.
    """
    wanted, found = set(digests), dict[str, bytes]()
    for batch in frames.read(folder) if wanted else ():
        for record in batch.records:
            if isinstance(record, ManifestPushed) and record.digest in wanted and is_body(record.digest, record.body):
                found[record.digest] = record.body
                wanted.remove(record.digest)
        if not wanted:
            break
    return found


def undamaged(batches: Iterator[Batch], folder: Path) -> Iterator[Batch]:
    """Batches of rows of the database, in which damaged bodies are replaced by those that the journal has."""
    for batch in batches:
        wrong = {
            record.digest
            for record in batch.records
            if isinstance(record, ManifestPushed) and not is_body(record.digest, record.body)
        }
        if not wrong:
            yield batch
            continue
        right = find(folder, wrong)
        records = [
            replace(record, body=right.get(record.digest, record.body))
            if isinstance(record, ManifestPushed)
            else record
            for record in batch.records
        ]
        yield replace(batch, records=records)
