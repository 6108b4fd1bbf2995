"""All clients with one interface: build an image, sign in, push, pull, and look into an image."""

from __future__ import annotations

import json
import secrets
import tarfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from .images import FILE, Layout, build, content_of, context, unpacked

if TYPE_CHECKING:
    from .people import Done, Person

INSECURE = "--tls-verify=false"

WINDOW_MISSED = "ctr: failed to copy: rpc error: code = Internal desc = unexpected EOF"
"""How ctr ends if it refuses bytes of its own containerd (containerd issue 5734), which no registry can help.

It reads a layer over gRPC. Its gRPC of Debian (1.33.3, before pull request 5494 of grpc-go) raises the window of its
streams as it learns how fast they are, and misses a stream that is opened in that moment. That stream then gets more
than the old 64 KiB, and ctr resets it with FLOW_CONTROL_ERROR. A pull reads only small manifests that way.
"""
PUSHES = 5
"""How often ctr pushes at most, if it always ends that way."""


class Client(ABC):
    """A client at a person's machine."""

    reads_docker_config: ClassVar[bool] = True
    """Whether it finds the sign-in, or the credential helper, in Docker's config.json."""

    def __init__(self, person: Person) -> None:
        self.person = person

    def login(self) -> None:
        """Sign the client in with an access token for the registry."""
        person = self.person
        command = [*self.sign_in, "--username", "POLLY", "--password-stdin", person.server.registry]
        assert "Login Succeeded" in person.ok(*command, stdin=person.token())

    @property
    @abstractmethod
    def sign_in(self) -> list[str]:
        """The command that signs in."""

    @abstractmethod
    def make(self, content: bytes) -> str:
        """Make an image; its name at this machine."""

    @abstractmethod
    def push(self, image: str, reference: str) -> Done:
        """Push an image."""

    @abstractmethod
    def pull(self, reference: str) -> Done:
        """Pull an image."""

    @abstractmethod
    def content(self, reference: str) -> bytes:
        """What an image holds that was pulled."""


class Docker(Client):
    """Docker's engine and its command."""

    sign_in: ClassVar = ["docker", "login"]

    def make(self, content: bytes) -> str:
        """Build an image with the classic builder."""
        return build(self.person, content, f"made:{secrets.token_hex(4)}")

    def push(self, image: str, reference: str) -> Done:
        """Push an image."""
        self.person.ok("docker", "tag", image, reference)
        return self.person.run("docker", "push", reference)

    def pull(self, reference: str) -> Done:
        """Pull an image."""
        return self.person.run("docker", "pull", reference)

    def content(self, reference: str) -> bytes:
        """What an image holds that was pulled."""
        return content_of(self.person, reference)


class Skopeo(Client):
    """skopeo, with images in OCI layouts."""

    sign_in: ClassVar = ["skopeo", "login", INSECURE]

    def make(self, content: bytes) -> str:
        """Write an OCI layout."""
        folder = self.person.home / f"layout-{secrets.token_hex(4)}"
        layout = Layout(folder)
        layout.publish(layout.image(content))
        return f"oci:{folder}:image"

    def push(self, image: str, reference: str) -> Done:
        """Copy a layout to the server."""
        return self.person.run("skopeo", "copy", "--dest-tls-verify=false", image, f"docker://{reference}")

    def pull(self, reference: str) -> Done:
        """Copy from the server to a folder that is named after the reference."""
        return self.person.run("skopeo", "copy", "--src-tls-verify=false", f"docker://{reference}", self._to(reference))

    def content(self, reference: str) -> bytes:
        """What the image in the folder holds."""
        folder = Path(self._to(reference).removeprefix("dir:"))
        manifest = json.loads((folder / "manifest.json").read_text())
        [layer] = manifest["layers"]
        return unpacked((folder / layer["digest"].removeprefix("sha256:")).read_bytes())

    def _to(self, reference: str) -> str:
        return f"dir:{self.person.home}/pulled-{reference.replace('/', '_').replace(':', '_')}"


class Podman(Client):
    """podman, as root, with a storage of its own."""

    program: ClassVar = "podman"

    @property
    def sign_in(self) -> list[str]:
        """The command that signs in."""
        return [self.program, "login", INSECURE]

    def make(self, content: bytes) -> str:
        """Build an image."""
        name = f"localhost/made-{secrets.token_hex(4)}"
        self.person.ok(self.program, "build", "--tag", name, str(context(self.person, content)))
        return name

    def push(self, image: str, reference: str) -> Done:
        """Push an image."""
        return self.person.run(self.program, "push", INSECURE, image, f"docker://{reference}")

    def pull(self, reference: str) -> Done:
        """Pull an image."""
        return self.person.run(self.program, "pull", INSECURE, reference)

    def content(self, reference: str) -> bytes:
        """What an image holds that was pulled."""
        place = Path(self.person.ok("podman", "image", "mount", reference).strip())
        content = (place / FILE).read_bytes()
        self.person.ok("podman", "image", "unmount", reference)
        return content


class Buildah(Podman):
    """buildah, as root, with a storage of its own."""

    program: ClassVar = "buildah"

    def content(self, reference: str) -> bytes:
        """What an image holds that was pulled."""
        container = self.person.ok("buildah", "from", "--pull-never", reference).strip()
        content = (Path(self.person.ok("buildah", "mount", container).strip()) / FILE).read_bytes()
        self.person.ok("buildah", "rm", container)
        return content


class Containerd(Client):
    """``ctr``, containerd's own client: it pushes and pulls as today's Docker, Kubernetes and BuildKit do."""

    reads_docker_config = False
    sign_in: ClassVar = ["ctr"]

    def __init__(self, person: Person) -> None:
        super().__init__(person)
        self.user: list[str] = []

    def login(self) -> None:
        """Keep a token: ctr has no login, and gets the token with each command."""
        self.user = ["--user", f"POLLY:{self.person.token()}"]

    def make(self, content: bytes) -> str:
        """Import an OCI layout."""
        folder = self.person.home / f"layout-{secrets.token_hex(4)}"
        layout = Layout(folder)
        layout.publish(layout.image(content), f"made.example/{folder.name}:image")
        return self.load(folder)

    def load(self, folder: Path) -> str:
        """Import an OCI layout for all platforms; the name of its image."""
        with tarfile.open(folder.with_suffix(".tar"), "w") as tar:
            for path in sorted(folder.iterdir()):
                tar.add(path, path.name)
        name = f"made.example/{folder.name}:image"
        self.person.ok("ctr", "images", "import", "--all-platforms", "--no-unpack", str(folder.with_suffix(".tar")))
        return name

    def push(self, image: str, reference: str) -> Done:
        """Push an image; again only if ctr ended by WINDOW_MISSED."""
        for _ in range(PUSHES):
            done = self.person.run("ctr", "images", "push", "--plain-http", *self.user, reference, image)
            if done.code == 0 or WINDOW_MISSED not in done.said:
                break
        return done

    def pull(self, reference: str) -> Done:
        """Pull an image."""
        return self.person.run("ctr", "images", "pull", "--plain-http", *self.user, reference)

    def content(self, reference: str) -> bytes:
        """What an image holds that was pulled."""
        place = self.person.home / f"mount-{secrets.token_hex(4)}"
        place.mkdir()
        self.person.ok("ctr", "images", "mount", reference, str(place))
        try:
            return (place / FILE).read_bytes()
        finally:
            self.person.ok("ctr", "images", "unmount", str(place))


CLIENTS: dict[str, type[Client]] = {
    "docker": Docker,
    "skopeo": Skopeo,
    "podman": Podman,
    "buildah": Buildah,
    "ctr": Containerd,
}
