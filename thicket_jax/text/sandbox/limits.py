"""What a process gives up before it runs a program of unknown origin.

Each layer stands on its own: resource limits (any POSIX system), and on Linux capabilities,
Landlock (which files; Linux 6.2 and later) and seccomp (which system calls). A process cannot take
any of them back.
"""

import ctypes
import os
import resource
import signal
import struct
import sys
import sysconfig
from collections.abc import Sequence

_SET_DEATH_SIGNAL, _SET_SECCOMP, _NO_NEW_PRIVILEGES, _FILTER = 1, 22, 38, 2
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_CAPABILITIES_VERSION = 0x20080522

_WRITE_FILE, _READ_FILE, _READ_FOLDER = 1 << 1, 1 << 2, 1 << 3
_REMOVE, _MAKE_FOLDER, _MAKE_FILE, _MAKE_LINK = 1 << 4 | 1 << 5, 1 << 7, 1 << 8, 1 << 12
_REFER, _TRUNCATE, _DEVICE_CONTROL = 1 << 13, 1 << 14, 1 << 15
_EVERY_RIGHT = (1 << 15) - 1  # of Landlock 3, the first that can forbid to truncate
_READ = _READ_FILE | _READ_FOLDER
_OWN = _READ | _WRITE_FILE | _REMOVE | _MAKE_FOLDER | _MAKE_FILE | _MAKE_LINK | _REFER | _TRUNCATE

_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo")
_DEVICES = ("/dev/zero", "/dev/urandom", "/dev/random")

_libc = ctypes.CDLL(None, use_errno=True)


def readable_paths(site: str | None) -> list[str]:
    """What a program may read besides its own folder: Python, shared libraries, some devices.

    Args:
      site: folder that numpy is installed in, of which only numpy is read; or None.
    """
    packages = [os.path.join(site, name) for name in ("numpy", "numpy.libs")] if site else []
    python = [
        os.path.join(sys.base_prefix, "lib"),
        *map(sysconfig.get_path, ("stdlib", "platstdlib")),
    ]
    return [path for path in (*python, *packages, *_LIBRARIES, *_DEVICES) if os.path.exists(path)]


def landlock_version() -> int:
    """The kernel's version of Landlock; 0 where it has none or one that cannot bound writing."""
    if sys.platform != "linux":
        return 0
    version = _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    return version if version >= 3 else 0


def limit_resources(memory_bytes: int, output_bytes: int, cpu_seconds: int) -> None:
    """Bounds the address space, processor time, size and number of files, and processes."""
    limits = {
        "RLIMIT_CORE": 0,
        "RLIMIT_CPU": cpu_seconds,
        "RLIMIT_FSIZE": output_bytes,
        "RLIMIT_MEMLOCK": 0,
        "RLIMIT_MSGQUEUE": 0,
        "RLIMIT_NOFILE": 64,
        "RLIMIT_NPROC": 0,
    }
    if sys.platform == "linux":  # elsewhere the address space of Python alone may exceed any limit
        limits["RLIMIT_AS"] = memory_bytes
    for name, value in limits.items():
        if hasattr(resource, name):
            kind = getattr(resource, name)
            hard = resource.getrlimit(kind)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (value, value))


def die_with(parent: int) -> None:
    """Has the kernel kill this process when its parent ends.

    Raises:
      OSError: the parent has ended already, or the kernel does not do it.
    """
    if sys.platform == "linux":
        _check(_libc.prctl(_SET_DEATH_SIGNAL, int(signal.SIGKILL), 0, 0, 0), "PR_SET_PDEATHSIG")
    if os.getppid() != parent:
        raise OSError("the parent process has ended")


def drop_capabilities() -> None:
    """Gives up what the superuser may do beyond its own files; other users have nothing to lose."""
    header = struct.pack("Ii", _CAPABILITIES_VERSION, 0)
    _check(_libc.capset(header, bytes(24)), "capset")


def forbid_new_privileges() -> None:
    """No set-user-id program gives anything back; Landlock and seccomp ask for this first."""
    _check(_libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")


def limit_files(folder: str, readable: Sequence[str], version: int) -> None:
    """Landlock: reading below `readable`, anything but devices and sockets below `folder`, no TCP.

    Args:
      folder: the program's own directory.
      readable: what `readable_paths` found.
      version: what `landlock_version` said.

    Raises:
      OSError: the kernel refuses.
    """
    handled = _EVERY_RIGHT | (_DEVICE_CONTROL if version >= 5 else 0)
    network = 0b11 if version >= 4 else 0  # bind and connect
    scopes = 0b11 if version >= 6 else 0  # abstract sockets and signals of others
    attributes = struct.pack("QQQ", handled, network, scopes)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    rules = _syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0)
    try:
        writable = [(folder, _OWN), ("/dev/null", _READ_FILE | _WRITE_FILE)]
        for path, rights in [(path, _READ) for path in readable] + writable:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                if not os.path.isdir(path):
                    rights &= _READ_FILE | _WRITE_FILE
                _syscall(_ADD_RULE, rules, 1, struct.pack("=Qi", rights, place), 0)
            finally:
                os.close(place)
        _syscall(_RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)


def limit_system_calls(program: ctypes.Structure) -> None:
    """Installs a seccomp filter, for good.

    Args:
      program: a `struct sock_fprog`.

    Raises:
      OSError: the kernel refuses.
    """
    _check(_libc.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0), "PR_SET_SECCOMP")


def can_use_network() -> bool:
    """Whether this process can make a socket: how a sandbox proves itself."""
    opened = _libc.socket(2, 1, 0)
    if opened >= 0:
        os.close(opened)
    return opened >= 0


def _syscall(number, *arguments):
    return _check(_libc.syscall(number, *arguments), f"system call {number}")


def _check(result, what):
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result
