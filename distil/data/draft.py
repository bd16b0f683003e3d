"""A build in progress: one folder, one process at a time, kept when interrupted, published when whole."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any, Self

from distil.data.store import refusing
from distil.data.store_meta import SUFFIXES
from distil.errors import DataError
from distil.folder import sync

JOURNAL = "journal.json"
LOCK = "lock"


class Draft:
    """The folder PREFIX.building, in which the files of one or more stores grow until they are published.

    ``outputs`` maps the name of each store within the folder to its prefix. As a context manager it holds the folder's
    lock; if the block fails, the folder stays if there is a journal in it, for another try to go on with. Raises
    DataError where another process holds the lock, where an output exists already (unless ``overwrite``), and where
    the place cannot be written.
    """

    def __init__(self, outputs: dict[str, str], overwrite: bool = False) -> None:
        self._outputs, self._overwrite = outputs, overwrite
        self.folder = Path(f"{next(iter(outputs.values()))}.building")
        self._published = False

    def __enter__(self) -> Self:
        self._refuse_taken()  # before anything is made
        with refusing(self.folder, "write", "choose another --out, or mend its permissions"):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.folder / LOCK, "a+")  # noqa: SIM115 - held as long as the build lasts
        try:
            self._take_lock()
            self._refuse_taken()  # the one who had the lock may have published
        except BaseException:
            if self._held and self.read_journal() is None:
                shutil.rmtree(self.folder, ignore_errors=True)
            self._lock.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._published and not (self.folder / JOURNAL).exists():
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()

    def path(self, name: str) -> Path:
        """Where the files of an output grow, without their extension."""
        return self.folder / name

    @property
    def sealed(self) -> bool:
        """Whether all files are whole, so that nothing is left to do but to publish them."""
        return bool((self.read_journal() or {}).get("sealed"))

    def sealed_for(self, identity: dict[str, Any]) -> bool:
        """Whether an earlier try of the very same build sealed it."""
        return self.sealed and self.read_journal().get("identity") == identity

    def read_journal(self) -> dict[str, Any] | None:
        """What an earlier try left, or None."""
        try:
            found = json.loads((self.folder / JOURNAL).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise DataError(f"{self.folder / JOURNAL}: cannot be read ({error.strerror}); check --out") from error
        except ValueError as error:
            raise DataError(f"{self.folder / JOURNAL}: cannot be read ({error}); remove {self.folder}") from error
        if not isinstance(found, dict):
            raise DataError(f"{self.folder / JOURNAL}: no journal of ours; remove {self.folder}")
        return found

    def write_journal(self, journal: dict[str, Any]) -> None:
        """Replace the journal at once, after the files of which it speaks have been synced."""
        new = self.folder / f"{JOURNAL}.new"
        with self.writing():
            write_synced(new, json.dumps(journal).encode())
            os.replace(new, self.folder / JOURNAL)
            sync(Path(new).parent)

    def writing(self) -> Any:
        """Context in which a refusal to write becomes a DataError that says that the work is kept."""
        goes_on = f": it goes on from {self.folder}" if (self.folder / JOURNAL).exists() else ""
        remedy = f"free some space and run the same command again{goes_on}"
        return refusing(self.folder, "write", remedy)

    def begin_anew(self, overwrite: bool) -> None:
        """Discard what an earlier try left. Raises DataError where that is work, unless ``overwrite``."""
        if self.read_journal() is not None and not overwrite:
            raise DataError(
                f"{self.folder}: holds an unfinished build; repeat its command to go on, or pass --overwrite to drop it"
            )
        self.discard()

    def discard(self) -> None:
        """Remove all that an earlier try left."""
        (self.folder / JOURNAL).unlink(missing_ok=True)  # first, as it speaks of the others
        for path in self.folder.iterdir():
            if path.name != LOCK:
                path.unlink()

    def publish(self, identity: dict[str, Any] | None = None) -> None:
        """Put every file in its place, each sidecar last, and remove the folder; when killed, it can be done again.

        ``identity`` tells a build that keeps no journal of its own from others.
        """
        if not self.sealed:
            self.write_journal({"sealed": True, "identity": identity})
        with self.writing():
            for name, prefix in self._outputs.items():
                if self.path(name + ".json").exists():
                    # No sidecar may vouch for files about to be replaced one by one, nor for what another held out.
                    Path(prefix + ".json").unlink(missing_ok=True)
                    sync(Path(prefix).parent)
            for name, prefix in reversed(self._outputs.items()):
                for suffix in SUFFIXES:
                    if self.path(name + suffix).exists():
                        os.replace(self.path(name + suffix), prefix + suffix)
                sync(Path(prefix).parent)
            self._published = True
            shutil.rmtree(self.folder, ignore_errors=True)  # another process may look in just now

    def _take_lock(self) -> None:
        self._held = False
        remedy = f"wait for it, or stop it; if it is dead on another machine, remove {self.folder}"
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.seek(0)
            raise DataError(f"{self.folder}: {self._lock.read() or 'a process'} is building here; {remedy}") from None
        except OSError as error:  # not every network file system has locks
            raise DataError(f"{self.folder}: cannot be locked ({error.strerror}); build on another disk") from error
        try:
            mine = os.path.samestat(os.fstat(self._lock.fileno()), os.stat(self.folder / LOCK))
        except FileNotFoundError:
            mine = False
        if not mine:  # the holder published and removed the folder after we had opened its lock
            raise DataError(f"{self.folder}: another process has just finished a build here; see what it made")
        self._held = True
        with self.writing():
            self._lock.truncate(0)
            self._lock.write(f"process {os.getpid()} on {socket.gethostname()}")
            self._lock.flush()

    def _refuse_taken(self) -> None:
        if self._overwrite or self.sealed:
            return
        for prefix in self._outputs.values():
            for suffix in SUFFIXES:
                if os.path.exists(prefix + suffix):
                    remedy = "choose another --out, or pass --overwrite to replace the store"
                    raise DataError(f"{prefix + suffix}: exists already; {remedy}")


def refuse_heldout(prefix: str) -> None:
    """Raise DataError where a held-out store of another build would belong to a new store ``prefix``."""
    if os.path.exists(f"{prefix}-heldout.json"):
        raise DataError(
            f"{prefix}-heldout: a held-out store of another build, whose texts {prefix} would now train on; "
            "remove it, hold out again, or choose another --out"
        )


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
