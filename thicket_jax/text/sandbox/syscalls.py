"""A seccomp filter: no network, no other threads or processes, none of the kernel's controls.

What is left to a process is to compute, to allocate memory within its limit, to read, and, where
Landlock bounds where, to change files. The lists name what is denied in groups: the network; new
processes; other processes; the kernel; what outlives the process; the attributes of files.
"""

import ctypes
import errno
import platform

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column, AUDIT_ARCH
_NEWEST = 451  # what the lists below know of; later ones do not exist for the process

# Name, number on x86_64, number on aarch64 (- where there is none).
_DENIED = """
socket 41 198, socketpair 53 199, connect 42 203, bind 49 200, listen 50 201, accept 43 202,
accept4 288 242, sendto 44 206, sendmsg 46 211, sendmmsg 307 269, recvfrom 45 207, recvmsg 47 212,
recvmmsg 299 243,

fork 57 -, vfork 58 -, clone 56 220, execve 59 221, execveat 322 281, setsid 112 157,
setpgid 109 154,

kill 62 129, tkill 200 130, tgkill 234 131, rt_sigqueueinfo 129 138, rt_tgsigqueueinfo 297 240,
pidfd_open 434 434, pidfd_send_signal 424 424, pidfd_getfd 438 438, ptrace 101 117,
process_vm_readv 310 270, process_vm_writev 311 271, process_madvise 440 440,
process_mrelease 448 448, kcmp 312 272, move_pages 279 239, migrate_pages 256 238,
setrlimit 160 164, prctl 157 167, sched_setparam 142 118, sched_setscheduler 144 119,
sched_setattr 314 274, sched_setaffinity 203 122, setpriority 141 140, ioprio_set 251 30,

mount 165 40, umount2 166 39, pivot_root 155 41, chroot 161 51, move_mount 429 429,
open_tree 428 428, fsopen 430 430, fsconfig 431 431, fsmount 432 432, fspick 433 433,
mount_setattr 442 442, unshare 272 97, setns 308 268, bpf 321 280, perf_event_open 298 241,
keyctl 250 219, add_key 248 217, request_key 249 218, io_uring_setup 425 425,
io_uring_enter 426 426, io_uring_register 427 427, userfaultfd 323 282, reboot 169 142,
kexec_load 246 104, kexec_file_load 320 294, init_module 175 105, finit_module 313 273,
delete_module 176 106, swapon 167 224, swapoff 168 225, acct 163 89, sethostname 170 161,
setdomainname 171 162, settimeofday 164 170, clock_settime 227 112, clock_adjtime 305 266,
adjtimex 159 171, iopl 172 -, ioperm 173 -, quotactl 179 60, quotactl_fd 443 443, syslog 103 116,
vhangup 153 58, personality 135 92, modify_ldt 154 -, name_to_handle_at 303 264,
open_by_handle_at 304 265, fanotify_init 300 262, sync 162 81, syncfs 306 267,
lookup_dcookie 212 18,

memfd_create 319 279, memfd_secret 447 447, shmget 29 194, shmat 30 196, shmctl 31 195,
semget 64 190, semop 65 193, semctl 66 191, semtimedop 220 192, msgget 68 186, msgsnd 69 189,
msgrcv 70 188, msgctl 71 187, mq_open 240 180, mq_unlink 241 181,

chmod 90 -, fchmod 91 52, fchmodat 268 53, chown 92 -, fchown 93 55, lchown 94 -, fchownat 260 54,
utime 132 -, utimes 235 -, futimesat 261 -, utimensat 280 88, setxattr 188 5, lsetxattr 189 6,
fsetxattr 190 7, removexattr 197 14, lremovexattr 198 15, fremovexattr 199 16
"""
_CHANGES_FILES = """
creat 85 -, truncate 76 45, mkdir 83 -, mkdirat 258 34, rmdir 84 -, rename 82 -, renameat 264 38,
renameat2 316 276, link 86 -, linkat 265 37, symlink 88 -, symlinkat 266 36, unlink 87 -,
unlinkat 263 35, mknod 133 -, mknodat 259 33
"""
# The C library has another way where the kernel does not know these.
_UNKNOWN = "clone3 435 435"
_OPENAT2 = "openat2 437 437"
_OPEN, _OPENAT = "open 2 -", "openat 257 56"
_FCNTL, _IOCTL, _PRLIMIT = "fcntl 72 25", "ioctl 16 29", "prlimit64 302 261"

_WRITE_FLAGS = 0o1 | 0o2 | 0o100 | 0o1000 | 0o20000000  # WRONLY, RDWR, CREAT, TRUNC, TMPFILE
_SIGNAL_OWNER = (8, 10, 15)  # F_SETOWN, F_SETSIG, F_SETOWN_EX: signals to others by way of a pipe
_TERMINAL_QUERIES = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # isatty, size, FIONREAD, FIO*

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("jump_true", ctypes.c_ubyte),
        ("jump_false", ctypes.c_ubyte),
        ("value", ctypes.c_uint32),
    )


class Program(ctypes.Structure):
    """A classic BPF program as the kernel takes it (struct sock_fprog)."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


def filter_program(writes: bool) -> Program | None:
    """Builds the filter for this machine.

    Args:
      writes: whether to let system calls through that change files, since Landlock bounds where.

    Returns:
      The program to install, or None where this machine's system calls are not known.
    """
    if platform.machine() not in _MACHINES:
        return None
    column, architecture = _MACHINES[platform.machine()]

    def numbers(text):
        rows = [row.split() for row in text.replace("\n", " ").split(",")]
        return [int(row[1 + column]) for row in rows if row and row[1 + column] != "-"]

    denied = _ERROR | errno.EPERM
    code = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL)]
    code += [
        (_LOAD, 0, 0, 0),
        (_AT_LEAST, 0, 1, _NEWEST + 1),
        (_RETURN, 0, 0, _ERROR | errno.ENOSYS),
    ]
    for number in numbers(_UNKNOWN if writes else _UNKNOWN + "," + _OPENAT2):
        code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERROR | errno.ENOSYS)]
    for number in numbers(_DENIED if writes else _DENIED + "," + _CHANGES_FILES):
        code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, denied)]
    conditions = [
        (_FCNTL, 1, _EQUAL, _SIGNAL_OWNER, denied, _ALLOW),
        (_IOCTL, 1, _EQUAL, _TERMINAL_QUERIES, _ALLOW, denied),
        (_PRLIMIT, 0, _EQUAL, (0,), _ALLOW, denied),  # its own limits, never another process's
    ]
    if not writes:
        conditions += [
            (_OPEN, 1, _ANY_BIT, (_WRITE_FLAGS,), denied, _ALLOW),
            (_OPENAT, 2, _ANY_BIT, (_WRITE_FLAGS,), denied, _ALLOW),
        ]
    for call, argument, test, values, matched, otherwise in conditions:
        for number in numbers(call):
            # The low 32 bits: the kernel reads these arguments as 32-bit integers.
            body = [(_LOAD, 0, 0, 16 + 8 * argument)]
            for value in values:
                body += [(test, 0, 1, value), (_RETURN, 0, 0, matched)]
            body += [(_RETURN, 0, 0, otherwise)]
            code += [(_EQUAL, 0, len(body), number), *body]
    code += [(_RETURN, 0, 0, _ALLOW)]
    return Program(len(code), (_Instruction * len(code))(*(_Instruction(*row) for row in code)))
