"""Holds a write lease on the file that is its argument, as a Samba server or an NFS server does.

Prints a line when it has it and another when it is asked to give it back, which it does when it
reads a line (or the end of its input).
"""

import fcntl
import os
import signal
import sys

lease = os.open(sys.argv[1], os.O_RDWR)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])
fcntl.fcntl(lease, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
signal.sigwait([signal.SIGIO])
print("asked", flush=True)
sys.stdin.readline()
fcntl.fcntl(lease, fcntl.F_SETLEASE, fcntl.F_UNLCK)
