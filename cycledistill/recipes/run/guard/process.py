"""Which process on which machine, so that another one can tell whether it still runs."""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcessId:
    """A process, told apart from all others, those that get its number later included.

    Attributes:
        host: The machine's name.
        pid: Its number.
        space: Where that number counts: this start of the machine and, in containers, their own count of processes.
            Empty where the system does not say; then the host's name stands for it.
        born: When it started, in the system's own count; empty where the system does not say.

    Example:
        >>> ProcessId.own().is_gone()
        False
    """

    host: str
    pid: int
    space: str = ""
    born: str = ""

    @classmethod
    def own(cls) -> ProcessId:
        """This process."""
        pid = os.getpid()
        return cls(socket.gethostname(), pid, _space(), _born(pid))

    def is_gone(self) -> bool | None:
        """Whether it ended; None where this process cannot tell: it is, or may be, on another machine."""
        if self.space != _space() or (not self.space and self.host != socket.gethostname()):
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:  # of another user, or the system has no such question
            return False if os.name == "posix" else None
        return _born(self.pid) != self.born


def _space() -> str:
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return ""


def _born(pid: int) -> str:
    with contextlib.suppress(OSError, IndexError):
        # the name, second of the fields, may hold spaces; the state is the third, the start the 22nd
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if state in "ZX" else fields[18]  # one that ended, and was not asked how, is there no more
    return ""
