"""The first instructions of every child process: take an ordinary user's identity, die with the parent, become the
program.

Run as a file by `python -I -S`, so it imports four small modules and nothing of ours. It is a program and not a
`preexec_fn`, because Python code between fork and exec may deadlock in a parent that has threads (gRPC has).

    child_exec.py PARENT_PID DEATH_SIGNAL UID:GID|- PROGRAM [ARGUMENT…]
"""

import ctypes
import os
import resource
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h
OPEN_FILES_MAX = 65_536  # The usual soft limit, 1,024, is one socket a phone too few; a hard one may be a milliard.
EXIT_ORPHANED = 125  # Seen by nobody: the parent that would read it is gone.


def main(arguments: list[str]) -> None:
    """Never returns: becomes PROGRAM, or exits."""
    parent, death_signal, identity, *program = arguments
    if identity != "-":
        uid, gid = (int(part) for part in identity.split(":"))
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    # After setuid(), which clears the death signal (credentials(7), prctl(2)); exec keeps it unless the program is
    # setuid.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != int(parent):  # It died before prctl() could watch it.
        sys.exit(EXIT_ORPHANED)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_MAX)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    os.umask(0o077)
    os.execv(program[0], program)  # noqa: S606  The program is chosen by our launcher, never by input.


if __name__ == "__main__":
    main(sys.argv[1:])
