"""A clean room: this machine's files, copied on write, in namespaces of its own. Needs root.

What happens in a room stays there: files go to memory and are gone with it, and ports are nobody else's.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

# The room's keeper holds the namespaces. It says when the room is there, and ends when its input does.
_KEEPER = """
set -e
mount -t tmpfs -o mode=755 tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount --rbind /dev "$1/root/dev"
# An overlay shows one file system; what is mounted from other disks is shown beside it.
awk '$2 != "/" && $3 ~ /^(ext[234]|xfs|btrfs|zfs|overlay|9p|virtiofs|fuse.*)$/ { print $2 }' /proc/1/mounts |
while read -r disk; do
  if [ -d "$disk" ]; then mkdir -p "$1/root$disk" && mount --bind "$disk" "$1/root$disk"; fi
done
mount -t proc proc "$1/root/proc"
echo ready
read -r _ || true
"""
_TRIAL = """
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
"""
_LOOPBACK_UP = (
    "import fcntl, socket, struct; s = socket.socket(); "
    "fcntl.ioctl(s, 0x8914, struct.pack('16sh', b'lo', 0x1 | 0x40))"  # SIOCSIFFLAGS: up and running
)


def why_not() -> str | None:
    """Why there can be no room here; None if there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a clean room needs Linux and root"
    missing = [tool for tool in ("unshare", "nsenter", "setpriv") if shutil.which(tool) is None]
    if missing:
        return f"a clean room needs {', '.join(missing)}"
    tried = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--net", "sh", "-ec", _TRIAL],
        capture_output=True,
        text=True,
    )
    return None if tried.returncode == 0 else f"a clean room needs namespaces: {tried.stderr.strip()}"


class Room:
    """Where commands run. ``folder`` is an empty one to mount the room at."""

    def __init__(self, folder: Path, *, own_network: bool) -> None:
        self._folder = folder
        self._network = ["--net"] if own_network else []
        self._keeper: subprocess.Popen[str] | None = None

    def __enter__(self) -> "Room":
        self._keeper = subprocess.Popen(
            [
                *("unshare", "--mount", "--propagation", "private", *self._network),
                *("sh", "-c", _KEEPER, "keeper", str(self._folder)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._keeper.stdout is not None
        assert self._keeper.stdout.readline() == "ready\n"
        if self._network:
            self.run([sys.executable, "-c", _LOOPBACK_UP])
        return self

    def __exit__(self, *_: object) -> None:
        assert self._keeper is not None
        self._keeper.communicate()

    @property
    def files(self) -> Path:
        """The room's root, seen from outside."""
        assert self._keeper is not None
        return Path(f"/proc/{self._keeper.pid}/root{self._folder}/root")

    def open_to_all(self, *programs: Path) -> None:
        """Let any user of the room reach these programs."""
        for program in programs:
            for folder in program.parents:
                inside = self.files / folder.relative_to("/")
                inside.chmod(inside.stat().st_mode | 0o011)

    def freeze(self) -> None:
        """From now on nothing can be written."""
        self._enter(["mount", "-o", "remount,ro", f"{self._folder}/root"])

    def run(
        self, command: Sequence[str], *, variables: Mapping[str, str] | None = None, cwd: str = "/"
    ) -> str:
        """Run a command as root, with this environment (default: ours); gives what it printed."""
        given = [] if variables is None else ["-i", *(f"{name}={value}" for name, value in variables.items())]
        return self._enter(["chroot", f"{self._folder}/root", "env", "-C", cwd, *given, *command])

    @contextlib.contextmanager
    def first_process(
        self, command: Sequence[str], *, user: int, variables: Mapping[str, str], log: Path
    ) -> Iterator["FirstProcess"]:
        """Run a command as process 1 of its own, without any privilege, as a container engine would."""
        assert self._keeper is not None
        lowered = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        lowered += ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *(*self.nsenter(), "unshare", "--pid", "--fork", "--kill-child"),
                    *("chroot", f"{self._folder}/root", *lowered),
                    *("env", "-i", *(f"{name}={value}" for name, value in variables.items()), *command),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            yield FirstProcess(process)
        finally:
            process.kill()
            process.wait()

    def _enter(self, command: Sequence[str]) -> str:
        done = subprocess.run(
            [*self.nsenter(), *command], cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done.stdout

    def nsenter(self) -> list[str]:
        """What to put before a command that shall run in the room's namespaces, with this machine's files."""
        assert self._keeper is not None
        return ["nsenter", "--target", str(self._keeper.pid), "--mount", *self._network]


class FirstProcess:
    """A process 1, seen from outside its namespace."""

    def __init__(self, around: subprocess.Popen[bytes]) -> None:
        self._around = around

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def wait(self, timeout_seconds: float) -> int:
        """Its exit status."""
        return self._around.wait(timeout_seconds)

    @property
    def pid(self) -> int:
        """Its number outside."""
        around = self._around.pid
        return int(Path(f"/proc/{around}/task/{around}/children").read_text().split()[0])
