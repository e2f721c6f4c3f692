"""Processes: started, looked at in /proc, and ended by id.

Used by everything here that starts something. Only processes started through `Processes` are ever
ended, and all of them are, in whatever way the script comes to its end (SIGKILL apart).
"""

import glob
import os
import signal
import socket
import subprocess
import time

TICK = os.sysconf("SC_CLK_TCK")
PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20


class Failure(Exception):
    """Something that cannot be measured, with what to do about it."""


class Running:
    """One started process with its children."""

    def __init__(self, name, popen, log):
        self.name, self.popen, self.log = name, popen, log

    def pids(self):
        """The process and everything below it."""
        parents = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                fields = stat(int(entry))
                if fields:
                    parents.setdefault(int(fields[1]), []).append(int(entry))
        found = [self.popen.pid]
        for pid in found:
            found.extend(parents.get(pid, []))
        return found

    def cpu(self):
        """CPU time so far: (user, system) in seconds, over the process and its children."""
        rows = [fields for fields in map(stat, self.pids()) if fields]
        return tuple(sum(int(fields[at]) for fields in rows) / TICK for at in (11, 12))

    def cpu_exact(self):
        """CPU time so far in seconds, of the threads that there are, finer than in ticks."""
        total = 0
        for path in glob.glob(f"/proc/{self.popen.pid}/task/*/schedstat"):
            with open(path, encoding="ascii") as file:
                total += int(file.read().split()[0])
        return total / 1e9

    def rss(self):
        """Resident memory in MiB; pages that processes share count once for each."""
        return sum(int(fields[21]) for fields in map(stat, self.pids()) if fields) * PAGE_MIB

    def must_run(self):
        if self.popen.poll() is not None:
            raise Failure(f"{self.name} ended with {self.popen.returncode}:\n{tail(self.log)}")


class Processes:
    """Everything that was started; a context manager that ends it."""

    def __init__(self, folder):
        self.folder, self.running = folder, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # Backwards, so that what depends on something ends before it.
        for running in reversed(self.running):
            stop(running)

    def start(self, name, command, **options):
        log = os.path.join(self.folder, f"{name}.log")
        with open(log, "wb") as out:
            popen = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                # Ctrl-C reaches this script alone; it then ends the others in order.
                start_new_session=True,
                **options,
            )
        running = Running(name, popen, log)
        self.running.append(running)
        return running


def stop(running, patience=3.0):
    """Asks a process to end, then makes it; its children too."""
    pids = running.pids()
    if running.popen.poll() is None:
        running.popen.terminate()
        try:
            running.popen.wait(patience)
        except subprocess.TimeoutExpired:
            running.popen.kill()
            running.popen.wait()
    for pid in pids[1:]:
        # A child is only ended while it still belongs to the session that was opened for it.
        try:
            if os.getsid(pid) == running.popen.pid:
                os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass


def stat(pid):
    """The fields of /proc/PID/stat behind the name (state first), or None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def free_ports(count):
    """Ports of 127.0.0.1 that nobody listens on; held together so that none comes twice."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for held in sockets:
            held.bind(("127.0.0.1", 0))
        return [held.getsockname()[1] for held in sockets]
    finally:
        for held in sockets:
            held.close()


def wait_until(what, check, running, seconds=30.0):
    """Waits for `check` to return without an error."""
    deadline = time.monotonic() + seconds
    while True:
        for one in running:
            one.must_run()
        try:
            return check()
        except (OSError, ValueError) as error:
            if time.monotonic() > deadline:
                logs = "\n".join(f"--- {one.name}\n{tail(one.log)}" for one in running)
                raise Failure(f"{what}: not ready in {seconds:.0f} s ({error})\n{logs}") from error
        time.sleep(0.05)


def tail(path, lines=15):
    with open(path, encoding="utf-8", errors="replace") as file:
        return "".join(file.readlines()[-lines:])
