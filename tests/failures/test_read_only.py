"""A server that can write only to its data folder, without HOME, a known user, stdin or a time zone."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from support.server import BIN, Server, ending, free_port
from support.wire_client import Person, image

USER = 54_321
"""A user id without a name in the system."""

SCRIPT = """
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
mount -o remount,bind,ro /
for place in /dev/shm /tmp /run /var/tmp; do
    if mountpoint -q $place; then mount -o remount,bind,ro $place; fi
done
cd "$1/.."
exec env -i TZ=Nowhere/At_All setpriv --reuid={user} --regid={user} --clear-groups \
    {program} run --data data --listen "$2" <&-
"""


def test_nothing_but_the_data_folder_can_be_written() -> None:
    """It starts with a relative path, accepts a push, shows metrics and ends, and leaves nothing else behind."""
    place = Path(tempfile.mkdtemp(dir="/var/tmp"))
    place.chmod(0o755)
    server = Server(place / "data", free_port())
    server.data.mkdir()
    shutil.chown(server.data, USER, USER)
    server.init()
    script = SCRIPT.format(user=USER, program=BIN / "polly-server")
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(server.data), server.registry]
    with server.log.open("w") as log:
        server.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    with ending(server.process):
        assert server.process.stdout is not None
        line = server.process.stdout.readline()
        assert line.startswith("Polly Docker Repository"), server.log.read_text()
        ann = Person(server.port, server.org, *server.admin)
        ann.new_repo().push(image(), "v1")
        assert ann.by_password.get("/metrics").status == 200
        assert ann.by_password.get("/readyz").status == 200
        server.stop()
    left = {found.name.partition("-")[0] for found in server.data.iterdir()}
    assert "metrics" not in left
    shutil.rmtree(place)
