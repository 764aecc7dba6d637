"""A node: containerd in a place apart, its containers, and every way to break them.

    with Node(tmp_path) as node:
        web = node.run("web")
        node.crash(web)

All its processes are in its mount namespace or below its one cgroup, so that :meth:`Node.close`
finds them by pid, whatever state a failed test left them in.
"""

import contextlib
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.e2e import image
from tests.e2e.apart import Apart, Word
from tests.e2e.containerd import TASKS, Containerd
from tests.e2e.processes import PATIENCE, Process, kill_all, until
from tests.e2e.task import Task, run_words
from tests.e2e.unified import CGROUPS, mounted, without_shares

BINARIES: Final = "RECONCILER_E2E_CONTAINERD"
"""Names a directory with another containerd than the one in PATH."""

_AT_A_TIME: Final = 4
"""Clients that run containers at once."""


class Node:
    """Owns a containerd and everything that ever came of it.

    Args:
        directory: For its files on disk.
        cri: Whether its containerd serves Kubernetes too.
        unified: Whether it has cgroup version 2 alone, whatever the machine has.
        state: containerd's state directory, seen from the inside, if it is to be a certain one.
        patience: How long its containerd waits for a shim to tell a task's state.
        namespace: Its own namespace, if it is to have a certain name.
    """

    def __init__(
        self,
        directory: Path,
        *,
        cri: bool = False,
        unified: bool = False,
        state: str | None = None,
        patience: str = "500ms",
        namespace: str | None = None,
    ) -> None:
        self.namespace = namespace or f"e2e-{uuid.uuid4().hex[:8]}"
        self._unified = unified or mounted() == CGROUPS
        named = os.environ.get(BINARIES)
        self._directory = directory / self.namespace
        self._directory.mkdir()
        first = [Path(named)] if named else []
        if self._unified:
            first = without_shares(self._directory / "bin", first)
        state = state or f"/run/{self.namespace}/containerd"
        self._cri = cri
        self._patience = patience
        self.apart = self._place()
        self.containerd = self._service(state, first)
        self._archive = self._directory / "image.tar"
        self._helpers: list[subprocess.Popen[str]] = []
        image.write(self._archive)

    def __enter__(self) -> Self:
        try:
            self.containerd.start()
            self.import_image(self.namespace)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -------------------------------------------------------------------------------- places

    def _place(self) -> Apart:
        return Apart(self.namespace, unified=self._unified)

    def _service(self, state: str, first: list[Path]) -> Containerd:
        return Containerd(self.apart, self._directory, state, first, self._cri, self._patience)

    @property
    def state(self) -> str:
        """containerd's state directory, seen from the inside."""
        return self.containerd.state

    @property
    def root(self) -> Path:
        """containerd's root directory."""
        return self.containerd.root

    @property
    def address(self) -> str:
        """containerd's socket, seen from the inside."""
        return self.containerd.address

    def inside(self, name: str, namespace: str | None = None) -> str:
        """Where the bundle of a task lies, seen from the inside."""
        return f"{self.state}/{TASKS}/{namespace or self.namespace}/{name}"

    def bundle(self, name: str, namespace: str | None = None) -> Path:
        """Where the bundle of a task lies, seen from the outside."""
        return self.apart.path(self.inside(name, namespace))

    def cgroups(self) -> list[Path]:
        """List the directories its containers have theirs in, one in each hierarchy."""
        tops = self.apart.belongings.cgroups()
        return [top / self.namespace for top in tops] if self._unified else tops

    def processes(self) -> list[Process]:
        """List every living process of this node but the one that holds its mount namespace."""
        return self.apart.belongings.processes()

    # ----------------------------------------------------------------------------- containers

    def import_image(self, namespace: str, archive: Path | None = None) -> None:
        """Give a namespace the image, or another one."""
        self.ctr("images", "import", archive or self._archive, namespace=namespace)

    def run(
        self, name: str, *options: Word, command: Sequence[str] = image.FOR_EVER, pod: str = ""
    ) -> Task:
        """Run a container, in a pod if one is named: then its members share a shim."""
        self.ctr(*run_words(name, options, command, pod))
        return self.task(name)

    def run_all(self, names: Iterable[str]) -> list[Task]:
        """Run containers, some at a time: most of a run is waiting for others."""
        with ThreadPoolExecutor(_AT_A_TIME) as clients:
            return list(clients.map(self.run, names))

    def stopped(self, name: str, *, pod: str = "") -> Task:
        """Make a task whose init is dead while its shim lives on."""
        task = self.run(name, pod=pod)
        self.stop(task)
        return task

    def stop(self, task: Task) -> None:
        """Kill a task's init and wait until containerd knows."""
        task.init.kill()
        until(lambda: self.status(task.id) == "STOPPED", f"{task.name} is stopped")

    def orphan(self, name: str) -> Task:
        """Make a task whose shim is dead while its init lives on. containerd is down afterwards.

        A containerd that runs would see the shim go and end the init itself.
        """
        task = self.run(name)
        self.containerd.kill()
        task.shim.kill()
        assert task.init.alive
        return task

    def task(self, name: str, namespace: str | None = None) -> Task:
        """Learn who belongs to a running task."""
        namespace = namespace or self.namespace
        init = self.apart.process(int((self.bundle(name, namespace) / "init.pid").read_text()))
        return Task(namespace, name, init, init.parent)

    def status(self, name: str, namespace: str | None = None) -> str:
        """Ask containerd for the status of a task; empty if it knows none."""
        rows = self.ctr("tasks", "ls", namespace=namespace).splitlines()
        return next((row.split()[2] for row in rows if row.split()[0] == name), "")

    def ctr(self, *words: Word, namespace: str | None = None) -> str:
        """Run `ctr` and give what it prints."""
        return self.apart.run(*self._ctr(namespace, words), env=self.containerd.environment).stdout

    @contextlib.contextmanager
    def creating(self, name: str) -> Iterator[Process]:
        """Hold the creation of a task half way: its bundle is there, its shim runs, its init not.

        Gives the shim. At the end the creation goes on and must succeed. Where containerd was
        killed meanwhile it stays a torso with a living shim.
        """
        pid = self.containerd.pid
        wrapper, gate = self._directory / f"{name}-runc", self._directory / f"{name}-gate"
        reached = self._directory / f"{name}-reached"
        os.mkfifo(gate)
        runc = shutil.which("runc", path=self.containerd.environment["PATH"])
        wait = f'case " $* " in *" create "*) : >{reached}; read -r _ <{gate};; esac'
        wrapper.write_text(f'#!/bin/sh\n{wait}\nexec {runc} "$@"\n')
        wrapper.chmod(0o755)
        words = run_words(name, ["--runc-binary", wrapper], image.FOR_EVER, "")
        client = self._popen(self._ctr(None, words))
        until(reached.exists, f"runc is to create {name}")
        yield self.shim(name)
        if not self.containerd.running or self.containerd.pid != pid:
            return  # the shim gave the creation up when its caller was gone
        with gate.open("w") as opened:  # somebody reads it, or this would wait for ever
            opened.write("go\n")
        failed = client.wait(PATIENCE)
        assert not failed, f"the creation of {name} failed: {client.communicate()}"

    def shim(self, name: str) -> Process:
        """Find the shim that was started for a task, by its command line."""
        words = ["-namespace", self.namespace, "-id", name]
        found = [one for one in self.processes() if one.cmdline[1:5] == words]
        assert len(found) == 1, f"shims of {name}: {found}"
        return found[0]

    # --------------------------------------------------------------------------------- damage

    def crash(self, *tasks: Task) -> None:
        """Kill containerd, and the shims and inits of these tasks, all at once."""
        self.containerd.kill()
        kill_all({one for task in tasks for one in (task.shim, task.init)})

    def restart(self, *before: str, unseen: Iterable[Task] = ()) -> None:
        """Start containerd again; some bundles are out of its sight meanwhile, and so stay.

        Versions differ in what they clean when they start. This way any of them leaves anything.
        ``before`` are words of a command that is to start it.
        """
        aside = self.apart.path(f"{self.state}-aside")
        aside.mkdir(exist_ok=True)
        moved = [(self.bundle(task.id, task.namespace), aside / task.id) for task in unseen]
        for bundle, place in moved:
            bundle.rename(place)
        self.containerd.start(*before)
        for bundle, place in moved:
            bundle.parent.mkdir(exist_ok=True)
            place.rename(bundle)

    def lose(self, task: Task, *files: str) -> None:
        """Remove files of a bundle, those that are there."""
        for file in files:
            (self.bundle(task.id, task.namespace) / file).unlink(missing_ok=True)

    def occupy(self, task: Task) -> subprocess.Popen[str]:
        """Start a process that keeps a rootfs busy; it ends with its standard input."""
        rootfs = f"{self.inside(task.id, task.namespace)}/rootfs"
        words = ["sh", "-c", 'cd "$0" && echo here && exec cat', rootfs]
        holder = self._popen(words)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "here\n"
        return holder

    # -------------------------------------------------------------------------------- the end

    def close(self) -> None:
        """End and remove all there ever was, by pid and by path, and check that it is gone."""
        self.containerd.kill()
        self.apart.belongings.end()
        for helper in self._helpers:
            helper.communicate()
        self.apart.close()
        self.apart.belongings.disband()
        shutil.rmtree(self._directory)

    def _ctr(self, namespace: str | None, words: Sequence[Word]) -> list[Word]:
        where = ["--address", self.address, "--namespace", namespace or self.namespace]
        return ["ctr", *where, *words]

    def _popen(self, command: Sequence[Word]) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        helper = subprocess.Popen(
            self.apart.command(command),
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
            env=self.containerd.environment,
        )
        self._helpers.append(helper)
        return helper
