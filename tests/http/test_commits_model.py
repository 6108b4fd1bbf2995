"""A repository compared with a model of it, after pushes, overwrites, rollbacks and deletions in any order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from support.wire_client import OCI_INDEX, Image, Person, Repo, admin, descriptor, dumps, image

if TYPE_CHECKING:
    from support.server import Server

TAGS = st.sampled_from(["latest", "v1", "v1.0", "A", "_x"])


@dataclass
class Push:
    """A commit of the model, in the order of pushes."""

    tag: str
    digest: str


class Model(RuleBasedStateMachine):
    """Rules send requests and change the model alike; the invariant compares the two."""

    ann: Person
    images = Bundle("images")

    @initialize()
    def begin(self) -> None:
        """A new repository."""
        self.name = self.ann.create()
        self.repo: Repo = self.ann.repo(self.name)
        self.manifests: dict[str, Image] = {}
        self.children: dict[str, set[str]] = {}
        self.tags: dict[str, str] = {}
        self.commits: list[Push] = []

    def committed(self, made: Image, tag: str) -> None:
        """Update the model for a push of a tag; nothing changes if the tag has the digest already."""
        self.manifests[made.digest] = made
        if self.tags.get(tag) != made.digest:
            self.commits.append(Push(tag, made.digest))
            self.tags[tag] = made.digest

    @rule(target=images, content=st.text("abc", min_size=1, max_size=2), tag=TAGS)
    def push(self, content: str, tag: str) -> Image:
        """Push a new or an earlier image to a tag."""
        made = image(content)
        self.repo.push(made, tag)
        self.committed(made, tag)
        return made

    @rule(target=images, content=st.text("de", min_size=1, max_size=2))
    def push_by_digest(self, content: str) -> Image:
        """Push an image without a tag: it can be pulled, and there is no commit."""
        made = image(content)
        self.repo.push(made)
        self.manifests[made.digest] = made
        return made

    @rule(made=images, tag=TAGS)
    def roll_back(self, made: Image, tag: str) -> None:
        """Set a tag back to an earlier image: a commit, if the image still exists and the tag does not have it."""
        self.repo.push(made, tag)
        self.committed(made, tag)

    @rule(made=images, tags=st.lists(TAGS, min_size=2, max_size=4))
    def push_many_tags(self, made: Image, tags: list[str]) -> None:
        """One PUT to a digest sets each of its tags."""
        for blob in made.blobs:
            self.repo.push_blob(blob)
        path = self.repo.path(f"manifests/{made.digest}?" + "&".join(f"tag={tag}" for tag in tags))
        answer = self.repo.send("PUT", path, made.manifest, {"Content-Type": made.media_type})
        known = self.children.get(made.digest, set()) <= set(self.manifests)
        assert answer.status == (201 if known else 400)
        if known:
            self.manifests[made.digest] = made
            for tag in tags:
                self.committed(made, tag)

    @rule(target=images, children=st.lists(images, min_size=1, max_size=3), tag=TAGS)
    def push_index(self, children: list[Image], tag: str) -> object:
        """Push an index of images or indexes: one commit, or refused if a child no longer exists."""
        entries = [descriptor(child.manifest, child.media_type) for child in children]
        body = dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
        made = Image(body, OCI_INDEX, ())
        answer = self.repo.put(tag, body, OCI_INDEX)
        known = made.digest in self.manifests or all(child.digest in self.manifests for child in children)
        assert answer.status == (201 if known else 400)
        if not known:
            return multiple()
        self.children[made.digest] = {child.digest for child in children}
        self.committed(made, tag)
        return multiple()

    @rule(tag=TAGS)
    def delete_tag(self, tag: str) -> None:
        """A deleted tag leaves its commits, inactive."""
        status = self.repo.delete(f"manifests/{tag}").status
        assert status == (202 if self.tags.pop(tag, None) else 404)

    @rule(made=images)
    def delete_manifest(self, made: Image) -> None:
        """Delete a manifest with its tags and commits; refused while an index contains it."""
        status = self.repo.delete(f"manifests/{made.digest}").status
        held = any(made.digest in self.children[index] for index in self.manifests if index in self.children)
        if made.digest not in self.manifests:
            assert status == 404
        elif held:
            assert status == 403
        else:
            assert status == 202
            self.forget(made.digest)

    @rule(data=st.data())
    def delete_index(self, data: st.DataObject) -> None:
        """Delete an index, as an image is deleted; its children stay."""
        indexes = sorted(index for index in self.children if index in self.manifests)
        if indexes:
            digest = data.draw(st.sampled_from(indexes))
            assert self.repo.delete(f"manifests/{digest}").status == 202
            self.forget(digest)

    def forget(self, digest: str) -> None:
        """Remove a manifest from the model."""
        del self.manifests[digest]
        self.children.pop(digest, None)
        self.tags = {tag: held for tag, held in self.tags.items() if held != digest}
        self.commits = [push for push in self.commits if push.digest != digest]

    @rule(tag=TAGS)
    def pull_by_tag(self, tag: str) -> None:
        """A tag gives its active commit, byte for byte."""
        answer = self.repo.manifest(tag)
        if tag in self.tags:
            made = self.manifests[self.tags[tag]]
            assert (answer.status, answer.body) == (200, made.manifest)
            assert answer.header("Content-Type") == made.media_type
        else:
            assert answer.status == 404

    @rule(made=images)
    def pull_by_digest(self, made: Image) -> None:
        """The promise: every commit stays pullable by its digest, whole, until it is deleted."""
        answer = self.repo.manifest(made.digest)
        if made.digest not in self.manifests:
            assert answer.status == 404
            return
        assert (answer.status, answer.body) == (200, made.manifest)
        for blob in made.blobs:
            assert self.repo.blob(descriptor(blob)["digest"]).body == blob

    @invariant()
    def agree(self) -> None:
        """Tags, commits with their statuses, and totals are those of the model."""
        if not hasattr(self, "repo"):
            return
        assert self.repo.get(self.repo.path("tags/list")).json()["tags"] == sorted(self.tags, key=str.encode)
        newest = {push.tag: number for number, push in enumerate(self.commits)}
        wanted = [
            (push.tag, push.digest, "active" if self.active(push, number, newest) else "inactive")
            for number, push in enumerate(self.commits)
        ]
        found = self.ann.commits(self.name, limit=1000)
        assert [(item["tag"], item["commit"], item["status"]) for item in found["items"]] == wanted[::-1]
        assert found["total"] == len(wanted)
        shown = self.ann.repository(self.name)
        assert (shown["tags"], shown["commits"]) == (len(self.tags), len(self.commits))

    def active(self, push: Push, number: int, newest: dict[str, int]) -> bool:
        """Return whether a commit is the newest of a tag that exists."""
        return self.tags.get(push.tag) == push.digest and newest[push.tag] == number


def test_commits_are_those_of_the_model(server: Server) -> None:
    """Thirty runs of up to 25 steps against the real server."""
    bounds = settings(
        max_examples=30,
        stateful_step_count=25,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    run_state_machine_as_test(type("Machine", (Model,), {"ann": admin(server)}), settings=bounds)
