"""Memory cgroups (v1) for tests that run something in little memory."""
import os
import time
from pathlib import Path


class MemoryGroup:
    """A group that exists between `with` and its end. OSError: there can be none here."""

    def __init__(self, name, limit=None):
        self.path = Path("/sys/fs/cgroup/memory") / f"ttx-{name}-{os.getpid()}"
        self.limit = limit

    def __enter__(self):
        self.path.mkdir()
        if self.limit is not None:
            self.write("memory.limit_in_bytes", self.limit)
        return self

    def __exit__(self, *_):
        for _ in range(50):  # while the last of its processes goes, and its page cache
            try:
                (self.path / "memory.force_empty").write_text("0")
                self.path.rmdir()
                return
            except OSError:
                time.sleep(0.1)
        self.path.rmdir()

    def read(self, name):
        return int((self.path / name).read_text())

    def write(self, name, value):
        (self.path / name).write_text(str(value))

    def peak(self):
        """The most bytes that it ever held, page cache included."""
        return self.read("memory.max_usage_in_bytes")

    def enter(self):
        """For subprocess's preexec_fn: the new process is in the group."""
        self.write("cgroup.procs", os.getpid())


def can_be_made():
    try:
        with MemoryGroup("try"):
            return True
    except OSError as e:
        print(f"no memory cgroup v1: {e}")
        return False
