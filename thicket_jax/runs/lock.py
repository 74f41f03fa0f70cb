"""One process at a time writes a run directory."""

import fcntl
import os
import pathlib
import socket
import time

from thicket_jax.errors import RunError

NAME = "lock"
_MOMENT = 0.2  # seconds


class Lock:
    """Holds a run directory until it is released, or the process ends in whatever way."""

    def __init__(self, run_dir: pathlib.Path) -> None:
        """Takes it.

        Raises:
          RunError: somebody else has it; the text says who.
        """
        self.path = run_dir / NAME
        self._file: int | None = None
        while self._file is None:
            try:
                file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            except OSError as error:
                raise RunError(f"{run_dir} cannot be written: {error.strerror}") from None
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(file, 200).decode(errors="replace").strip() or "another process"
                os.close(file)
                raise RunError(f"{run_dir} is in use by {holder}; wait until it ends") from None
            except OSError:  # a file system without locks
                os.close(file)
                return
            # Who had it may have removed the file between the two calls.
            if self._is_there(file):
                self._file = file
            else:
                os.close(file)
        os.ftruncate(self._file, 0)
        os.write(self._file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())

    @classmethod
    def check(cls, run_dir: pathlib.Path) -> None:
        """Raises `RunError` if somebody has the run, or it cannot be written.

        It is asked twice: who only asks has it for a moment, as other processes of a run do.
        """
        try:
            cls(run_dir).release()
        except RunError:
            time.sleep(_MOMENT)
            cls(run_dir).release()

    def _is_there(self, file: int) -> bool:
        try:
            return os.stat(self.path).st_ino == os.fstat(file).st_ino
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Lets others have it; again is no error."""
        if self._file is not None:
            self.path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = None

    def __del__(self) -> None:
        """A lock that nobody holds any more is released."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
