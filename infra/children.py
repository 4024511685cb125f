"""Child processes that leave nothing behind, however their parent ends.

The kernel signals a child when the *thread* that started it ends (PR_SET_PDEATHSIG). So one thread of its own starts
every child here and lives as long as the `Launcher`: when the program ends, even by `kill -9`, so do its children.
util-linux's `setpriv` asks for that signal after it has changed the user, because the kernel forgets it at that change.
"""

import os
import select
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from core.errors import InputError

# An unprivileged user cannot reach a virtual environment below a folder closed to others, such as /root. One
# capability in the ambient set lets it through, and no folder has to be opened for everybody. NO_SETUID_FIXUP makes
# access(2), with which PostgreSQL looks at its own binary, count the capability too.
THROUGH_CLOSED_FOLDERS: Final = (
    "--clear-groups",
    "--inh-caps=+dac_override",
    "--ambient-caps=+dac_override",
    "--securebits=+no_setuid_fixup",
)


class User(NamedTuple):
    """Whom a child runs as."""

    uid: int
    gid: int


class Child:
    """A running server process and its log."""

    def __init__(
        self, process: subprocess.Popen[bytes], log: Path, log_start: int, stop_signal: signal.Signals
    ) -> None:
        self._process = process
        self._log = log
        self._log_start = log_start
        self._stop_signal = stop_signal

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the signal's number if a signal ended it."""
        return self._process.poll()

    def last_words(self) -> str:
        """The end of what it wrote to its log, on one line; what earlier processes wrote there is left out."""
        lines = self._log.read_bytes()[self._log_start :].decode("utf-8", errors="replace").splitlines()
        return " | ".join(line.strip() for line in lines[-4:]) or "its log is empty"

    def stop(self, grace_s: float) -> None:
        """It has ended: cleanly within `grace_s` seconds, else by SIGKILL."""
        self._process.send_signal(self._stop_signal)
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """It and the processes it started have ended by SIGKILL: nothing was flushed, nobody was told."""
        offspring = self._offspring()
        self._process.kill()
        self._process.wait()
        for pid in offspring:
            _kill_and_wait(pid)

    def _offspring(self) -> list[int]:
        try:
            return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        except FileNotFoundError:
            return []


class Launcher:
    """Starts children from one thread that outlives them all; `close()` after the last of them has ended."""

    def __init__(self, user: User | None, keep_fd: int) -> None:
        """Run children as `user` (None: as ourselves), each holding `keep_fd` open for as long as it lives."""
        if shutil.which("setpriv") is None:
            raise InputError("found no setpriv on PATH, expected util-linux's; run: apt-get install util-linux")
        self._user = user
        self._keep_fd = keep_fd
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="launcher")

    def start(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        log: Path,
        env: Mapping[str, str],
        stop_signal: signal.Signals,
        death_signal: signal.Signals,
    ) -> Child:
        """Start `command` in `folder`, its output appended to `log`; `death_signal` reaches it when we end."""

        def spawn() -> Child:
            with log.open("ab") as out:
                log_start = out.tell()
                process = subprocess.Popen(
                    self._wrapped(command, death_signal),
                    cwd=folder,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C reaches us alone, and we stop the servers in order
                    pass_fds=(self._keep_fd,),
                )
                return Child(process, log, log_start, stop_signal)

        return self._thread.submit(spawn).result()

    def run(
        self, command: Sequence[str], *, folder: Path, env: Mapping[str, str], timeout_s: float, text: str = ""
    ) -> str | None:
        """Run `command` to its end with `text` as its input. None if all went well, else its last words."""

        def call() -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                self._wrapped(command, signal.SIGKILL),
                cwd=folder,
                env=env,
                input=text,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                timeout=timeout_s,
                start_new_session=True,
                pass_fds=(self._keep_fd,),
            )

        try:
            done = self._thread.submit(call).result()
        except subprocess.TimeoutExpired:
            return f"no end after {timeout_s:.0f} s"
        return " | ".join(done.stdout.split("\n")[-6:]).strip(" |") if done.returncode else None

    def close(self) -> None:
        self._thread.shutdown()

    def _wrapped(self, command: Sequence[str], death_signal: signal.Signals) -> list[str]:
        change = []
        if self._user:
            change = [f"--reuid={self._user.uid}", f"--regid={self._user.gid}", *THROUGH_CLOSED_FOLDERS]
        return ["setpriv", *change, f"--pdeathsig={death_signal.name.removeprefix('SIG')}", "--", *command]


def _kill_and_wait(pid: int) -> None:
    """Process `pid`, a grandchild, has ended; it is not ours to wait for, so a process handle tells."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        select.select([handle], [], [], 5)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)
