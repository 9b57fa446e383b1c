"""A SLURM cluster of two nodes on loopback, with accounting, without systemd: for root on Debian or Ubuntu.

``python tests/support/slurm_cluster.py`` starts one to try things by hand, and ends it on Ctrl-C.

Every daemon is a child of this process, with its files in one folder. The one thing outside is a link,
``/etc/slurm/slurm.conf``: the job step that the executor starts within a job forgets ``SLURM_CONF``.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

PROGRAMS = ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd", "mariadb-install-db")
LINK = Path("/etc/slurm/slurm.conf")
NODES = ("n1", "n2")
#: What the nodes say they have; they share this machine.
CPUS, MEMORY_MB = 4, 12_000
#: A node that is silent for so long is down; a job is told of its end (SIGTERM) so long before it is killed.
NODE_TIMEOUT_S, KILL_WAIT_S = 15, 3


def missing() -> str:
    """Why no cluster can be started here; empty where one can."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None]
    if absent:
        return f"needs SLURM ({', '.join(absent)} not found): apt install slurm-wlm slurmdbd munge mariadb-server"
    if os.geteuid() != 0:
        return "needs root, to start the daemons of SLURM"
    if LINK.exists() and not LINK.is_symlink():
        return f"{LINK} exists: this machine has a SLURM of its own"
    return ""


class SlurmCluster:
    """A running cluster; ``with SlurmCluster() as cluster`` ends it."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or Path(tempfile.mkdtemp(prefix="slurm-"))
        self.host = socket.gethostname().split(".")[0]
        self.ports = free_ports(4 + len(NODES))
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.clients: list[subprocess.Popen[bytes]] = []
        self.environment = os.environ | {"SLURM_CONF": str(self.folder / "slurm.conf"), "USER": "root"}
        self.environment["PATH"] += ":/usr/sbin:/sbin"

    def __enter__(self) -> SlurmCluster:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for client in self.clients:
            client.kill()
            client.wait()
        if "slurmctld" in self.daemons:
            with suppress(subprocess.SubprocessError):
                self.call("scancel", "--user=root")
        for node in NODES:
            self.kill_node(node)
        for name in ("slurmctld", "slurmdbd", "mariadbd", "munged"):
            self._stop(name)
        if LINK.is_symlink() and LINK.readlink() == self.folder / "slurm.conf":
            LINK.unlink()
        shutil.rmtree(self.folder, ignore_errors=True)

    def call(self, *command: str) -> str:
        """What a command of SLURM prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise subprocess.SubprocessError(f"{command}: {done.stderr}")
        return done.stdout

    def start(self, *command: str, out: IO[bytes] | IO[str]) -> subprocess.Popen[bytes]:
        """Start a program that uses the cluster, and ends with it."""
        self.clients.append(subprocess.Popen(command, env=self.environment, stdout=out, stderr=out))
        return self.clients[-1]

    def jobs(self, states: str = "RUNNING", folder: Path | None = None) -> dict[str, str]:
        """Comment (the executor's name of the rule) by number of the jobs in some states, of one working directory."""
        lines = self.call("squeue", "-h", f"--states={states}", "--format=%A|%Z|%k").splitlines()
        rows = [line.split("|") for line in lines]
        return {number: comment for number, place, comment in rows if folder is None or place == str(folder)}

    def node_of(self, job: str) -> str:
        """Where a job runs."""
        return self.call("squeue", "-h", "-j", job, "--format=%N").strip()

    def accounted(self, *fields: str) -> list[list[str]]:
        """What the accounting knows of all jobs (their steps are left out), oldest first."""
        lines = self.call("sacct", "-X", "-n", "-P", "-S", "now-1hour", "--format", ",".join(("jobid", *fields)))
        return [line.split("|") for line in lines.splitlines()]

    def start_node(self, node: str) -> None:
        """Start a node and wait until it takes jobs."""
        (self.folder / f"spool.{node}").mkdir(exist_ok=True)
        self._daemon(f"slurmd.{node}", "slurmd", "-D", "-N", node, "-f", str(self.folder / "slurm.conf"))
        wait_for(lambda: self.call("sinfo", "-h", "-n", node, "-o", "%T").strip() in ("idle", "mixed"), f"node {node}")

    def kill_node(self, node: str) -> None:
        """Cut a node's power: its daemon, and all that it started, at once."""
        log = str(self.folder / "log" / f"slurmd.{node}.log")
        victims: list[int] = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                command = (process / "cmdline").read_bytes()
                if command.startswith(b"slurmstepd: [") and any(
                    str(file.readlink()) == log for file in (process / "fd").iterdir()
                ):
                    victims += descendants(int(process.name))
        self._stop(f"slurmd.{node}", signal.SIGKILL)
        for victim in victims:
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)

    def _start(self) -> None:
        self.folder.chmod(0o755)
        for name in ("log", "state", "munge", "mysql", "mysql_run"):
            (self.folder / name).mkdir()
        self._start_munge()
        self._start_database()
        self._write_configuration()
        LINK.parent.mkdir(exist_ok=True)
        LINK.unlink(missing_ok=True)
        LINK.symlink_to(self.folder / "slurm.conf")
        self._daemon("slurmdbd", "slurmdbd", "-D")
        wait_for(lambda: self.call("sacctmgr", "-n", "show", "cluster") is not None, "slurmdbd")
        for command in ("cluster test", "account lab Cluster=test", "user root Account=lab Cluster=test"):
            self.call("sacctmgr", "-i", "add", *command.split())
        self._daemon("slurmctld", "slurmctld", "-D", "-i", "-f", str(self.folder / "slurm.conf"))
        wait_for(lambda: "UP" in self.call("scontrol", "ping"), "slurmctld")
        for node in NODES:
            self.start_node(node)

    def _start_munge(self) -> None:
        place = self.folder / "munge"
        (place / "key").write_bytes(secrets.token_bytes(128))
        (place / "key").chmod(0o400)
        for path in (place, place / "key"):
            shutil.chown(path, "munge", "munge")
        files = [f"--{kind}-file={place / kind}" for kind in ("key", "pid", "log", "seed")]
        options = ["-F", "--force", f"--socket={place / 'socket'}", *files]
        self._daemon("munged", "runuser", "-u", "munge", "--", "munged", *options)
        wait_for(lambda: self.call("munge", "-n", "--socket", str(place / "socket")), "munge")

    def _start_database(self) -> None:
        data, run = self.folder / "mysql", self.folder / "mysql_run"
        for path in (data, run):
            shutil.chown(path, "mysql", "mysql")
        common = ("--no-defaults", "--user=mysql", f"--datadir={data}")
        self.call("mariadb-install-db", *common, "--auth-root-authentication-method=socket", "--skip-test-db")
        small = ("--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M", "--innodb-lock-wait-timeout=900")
        listen = (f"--socket={run / 'socket'}", "--bind-address=127.0.0.1", f"--port={self.ports[0]}")
        self._daemon("mariadbd", "mariadbd", *common, *listen, *small, f"--pid-file={run / 'pid'}")
        client = ("--no-defaults", f"--socket={run / 'socket'}")
        wait_for(lambda: self.call("mariadb-admin", *client, "ping"), "mariadb")
        sql = "create database slurm; create user slurm@127.0.0.1 identified by 'slurm'; "
        self.call("mariadb", *client, "-e", sql + "grant all on slurm.* to slurm@127.0.0.1;")

    def _write_configuration(self) -> None:
        folder, socket_ = self.folder, self.folder / "munge" / "socket"
        database_port, accounting_port, control_port, *node_ports = self.ports
        accounting = f"""
            AuthType=auth/munge
            AuthInfo=socket={socket_}
            DbdHost=localhost
            DbdPort={accounting_port}
            SlurmUser=root
            LogFile={folder}/log/slurmdbd.log
            PidFile={folder}/slurmdbd.pid
            StorageType=accounting_storage/mysql
            StorageHost=127.0.0.1
            StoragePort={database_port}
            StorageUser=slurm
            StoragePass=slurm
            StorageLoc=slurm
        """
        control = f"""
            ClusterName=test
            SlurmctldHost={self.host}(127.0.0.1)
            SlurmctldPort={control_port}
            SlurmUser=root
            SlurmdUser=root
            AuthType=auth/munge
            AuthInfo=socket={socket_}
            CredType=cred/munge
            MpiDefault=none
            StateSaveLocation={folder}/state
            SlurmdSpoolDir={folder}/spool.%n
            SlurmctldPidFile={folder}/slurmctld.pid
            SlurmdPidFile={folder}/slurmd.%n.pid
            SlurmctldLogFile={folder}/log/slurmctld.log
            SlurmdLogFile={folder}/log/slurmd.%n.log
            ReturnToService=2
            SlurmdTimeout={NODE_TIMEOUT_S}
            KillWait={KILL_WAIT_S}
            OverTimeLimit=0
            MinJobAge=300
            JobRequeue=1
            SchedulerType=sched/backfill
            SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=1
            SelectType=select/cons_tres
            SelectTypeParameters=CR_CPU_Memory
            TaskPlugin=task/none
            ProctrackType=proctrack/linuxproc
            JobAcctGatherType=jobacct_gather/linux
            JobAcctGatherParams=OverMemoryKill
            JobAcctGatherFrequency=task=1
            AccountingStorageType=accounting_storage/slurmdbd
            AccountingStorageHost=localhost
            AccountingStoragePort={accounting_port}
            AccountingStoragePass={socket_}
            AccountingStoreFlags=job_comment
            SlurmdParameters=config_overrides
            DefMemPerCPU=500
            PartitionName=main Nodes=ALL Default=YES MaxTime=24:00:00 DefaultTime=00:10:00 State=UP
        """
        nodes = [
            f"NodeName={node} NodeHostname={self.host} NodeAddr=127.0.0.1 Port={port} "
            f"CPUs={CPUS} RealMemory={MEMORY_MB}"
            for node, port in zip(NODES, node_ports, strict=False)
        ]
        for name, text in (("slurmdbd.conf", accounting), ("slurm.conf", control)):
            lines = [line.strip() for line in text.strip().splitlines()]
            (folder / name).write_text("\n".join([*lines, *(nodes if name == "slurm.conf" else [])]) + "\n")
            (folder / name).chmod(0o600 if name == "slurmdbd.conf" else 0o644)

    def _daemon(self, name: str, *command: str) -> None:
        with (self.folder / "log" / f"{name}.out").open("ab") as out:
            self.daemons[name] = subprocess.Popen(
                command, env=self.environment, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def _stop(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        daemon = self.daemons.pop(name, None)
        if daemon is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(daemon.pid, number)
        try:
            daemon.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()


def descendants(process: int) -> list[int]:
    """A process and all that it started, itself first."""
    found = [process]
    for name in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            for child in name.read_text().split():
                found += descendants(int(child))
    return found


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_for(ready: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Wait until ``ready`` answers with something true; what it raises means that it is not."""
    end = time.monotonic() + seconds
    while True:
        with suppress(subprocess.SubprocessError, OSError):
            if ready():
                return
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.2)


if __name__ == "__main__":
    if reason := missing():
        sys.exit(reason)
    with SlurmCluster() as cluster, suppress(KeyboardInterrupt):
        print(
            f"export SLURM_CONF={cluster.folder / 'slurm.conf'} USER=root    # Ctrl-C here ends the cluster", flush=True
        )
        signal.pause()
