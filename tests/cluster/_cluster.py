# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Start, use, hurt and stop a cluster of clients on this machine. Linux only; needs root or sudo without password."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time
import typing as t

MACHINE = pathlib.Path(__file__).with_name("_machine.py")
INSIDE = pathlib.Path(__file__).with_name("_inside.py")
SYSTEM_PYTHON = "/usr/bin/python3"
#: A path longer than this leaves no room for ssh's own part of a socket's name (108 bytes in all).
LONGEST_SOCKET_DIRECTORY = 70
PORTS = range(2222, 2322)


class ClusterError(Exception):
    """The test bed cannot do what was asked."""


@dataclasses.dataclass(frozen=True)
class ClientSpec:
    """What one client is to be like. The order of clients is their rank."""

    name: str
    login: str = "pbclient"
    maxjobs: int = 1
    backend: str = "auto"
    #: Bytes of a tmpfs to hold the scratch directory, for tests of a full disk; 0: on disk, without a limit of its own.
    scratch_size: int = 0


THREE_CLIENTS = (
    ClientSpec("client1", login="root", maxjobs=1, backend="auto"),
    ClientSpec("client2", login="pbclient", maxjobs=2, backend="tmpfs"),
    ClientSpec("client3", login="pbclient", maxjobs=3, backend="directory"),
)


class Process(t.NamedTuple):
    """A process of a client, as the client sees it."""

    pid: int
    parent: int
    user: str
    state: str
    argv: list[str]


class Mount(t.NamedTuple):
    """A mount that some process of a client sees. Builds have mount namespaces of their own."""

    namespace: str
    point: str
    kind: str
    source: str


def as_root(argv: t.Sequence[str]) -> list[str]:
    """Return the command that runs this one as root."""
    return list(argv) if os.geteuid() == 0 else ["sudo", "-n", "--", *argv]


def run(argv: t.Sequence[str], **options: t.Any) -> subprocess.CompletedProcess[str]:
    """Run a command of the test bed itself, with its output captured; fail with what it said."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(argv)} ended with {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done


class Client:
    """One build machine of a cluster."""

    def __init__(self, cluster: Cluster, spec: ClientSpec, address: str) -> None:
        self.cluster = cluster
        self.spec = spec
        self.name = spec.name
        self.address = address
        self.directory = cluster.directory / "clients" / spec.name
        #: The scratch directory as the client sees it.
        self.scratch = "/srv/portbuild"
        #: The same directory as the host's root sees it (not for a client with a scratch_size).
        self.scratch_on_host = self.directory / "srv" / "portbuild"

    def __repr__(self) -> str:
        return f"<Client {self.name} {self.address}>"

    def _machine(self, command: str) -> None:
        run(as_root([SYSTEM_PYTHON, "-I", str(MACHINE), command, str(self.directory / "machine.json")]))

    def pid(self) -> int:
        """Return the host's pid of the client's first process; 0 when the client is down."""
        try:
            state = json.loads((self.directory / "state.json").read_text(encoding="utf-8"))
            fields = pathlib.Path(f"/proc/{state['pid']}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        except (OSError, ValueError):
            return 0
        return state["pid"] if fields[0] != "Z" and fields[19] == state["start"] else 0

    def boot(self) -> None:
        """Switch the client on; nothing happens if it is on. It comes up with a new boot id and an empty /tmp."""
        self._machine("boot")

    def kill(self) -> None:
        """Cut the client's power: every process is gone at once, its files stay.

        Its connections are closed by the kernel, which a real machine's would not be: freeze() is the silent one.
        """
        self._machine("kill")

    def enter(self, argv: t.Sequence[str], *, user: str = "root") -> list[str]:
        """Return the command that runs this one inside the client, for callers with a Popen of their own."""
        pid = self.pid()
        if not pid:
            raise ClusterError(f"{self.name} is down.")
        inside = ["nsenter", f"--target={pid}", "--mount", "--uts", "--ipc", "--pid", "--cgroup", "--wd=/", "--"]
        home = "/root" if user == "root" else f"/home/{user}"
        clean = ["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", f"HOME={home}"]
        change = [] if user == "root" else ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--"]
        return as_root([*inside, *clean, f"USER={user}", "LC_ALL=C.UTF-8", *change, *argv])

    def run(
        self, argv: t.Sequence[str], *, user: str = "root", check: bool = True, stdin: str = "", timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside the client, past ssh; output is captured."""
        done = subprocess.run(
            self.enter(argv, user=user), input=stdin, capture_output=True, text=True, check=False, timeout=timeout
        )
        if check and done.returncode != 0:
            raise ClusterError(
                f"{self.name}: {' '.join(argv)} ended with {done.returncode}: {(done.stderr or done.stdout).strip()}"
            )
        return done

    def spawn(self, argv: t.Sequence[str], *, user: str = "root") -> None:
        """Start a command inside the client and leave it running."""
        self.run(["setsid", "--fork", "sh", "-c", 'exec "$@" </dev/null >/dev/null 2>&1', "sh", *argv], user=user)

    def _inside(self, what: str) -> t.Any:
        source = INSIDE.read_text(encoding="utf-8")
        return json.loads(self.run([SYSTEM_PYTHON, "-I", "-", what], stdin=source).stdout)

    def processes(self) -> list[Process]:
        """Return the client's processes but its process 1 (which is the test bed's); none when it is down."""
        return [Process(*entry) for entry in self._inside("processes")] if self.pid() else []

    def mounts(self, below: str = "/") -> list[Mount]:
        """Return the mounts below the directory that any process of the client sees, itself left out."""
        entries = [Mount(*entry) for entry in self._inside("mounts")] if self.pid() else []
        return [entry for entry in entries if entry.point.startswith(below.rstrip("/") + "/")]

    def kill_sshd(self) -> None:
        """Kill sshd and all its connections. What they had started goes on."""
        self._inside("kill_sshd")

    def start_sshd(self) -> None:
        """Start sshd again."""
        self.run(["/usr/sbin/sshd", "-f", "/etc/portbuild-test/sshd_config", "-E", "/var/log/sshd.log"])

    def freeze(self) -> None:
        """Stop every process of the client, so that connections to it hang.

        Its process 1 stays awake: it ends the client if the test run is killed meanwhile.
        """
        self._inside("freeze")

    def thaw(self) -> None:
        """Undo freeze."""
        self._inside("thaw")

    def ssh(self, *argv: str) -> list[str]:
        """Return the ssh command line that runs this command as the controller would."""
        options = ["-F", "/dev/null", "-i", str(self.cluster.private_key), "-p", str(self.cluster.port)]
        options += ["-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"]
        options += ["-o", f"UserKnownHostsFile={self.cluster.known_hosts}", "-o", "GlobalKnownHostsFile=/dev/null"]
        return ["ssh", *options, f"{self.spec.login}@{self.address}", *argv]


class Cluster:
    """Clients, their keys, an inventory and an ansible.cfg in one directory.

    Every command that hurts a client acts on its namespaces only.
    """

    def __init__(self, directory: pathlib.Path, clients: t.Sequence[ClientSpec], subnet: str, port: int) -> None:
        self.directory = directory
        self.subnet = subnet
        self.port = port
        self.clients = [Client(self, spec, f"{subnet}.{11 + index}") for index, spec in enumerate(clients)]
        self.inventory = directory / "inventory.yml"
        self.ansible_cfg = directory / "ansible.cfg"
        self.private_key = directory / "id_ed25519"
        self.known_hosts = directory / "known_hosts"
        sockets = directory / "cp"
        if len(os.fsencode(sockets)) > LONGEST_SOCKET_DIRECTORY:
            sockets = pathlib.Path("/tmp", f"portbuild-test-{os.getuid()}-{self.id}")
        self.control_path_dir = sockets
        self._lock: int = -1

    @property
    def id(self) -> str:
        """Return a short name that no cluster in another directory has."""
        return hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:8]

    def __getitem__(self, name: str) -> Client:
        for client in self.clients:
            if client.name == name:
                return client
        raise KeyError(name)

    def __enter__(self) -> t.Self:
        return self

    def __exit__(self, *_details: object) -> None:
        self.stop()

    # -- start -----------------------------------------------------------------------------------------------------

    @classmethod
    def start(
        cls,
        directory: str | os.PathLike[str],
        clients: t.Sequence[ClientSpec] = THREE_CLIENTS,
        *,
        subnet: str = "",
        port: int = 0,
        lasting: bool = False,
        variables: t.Mapping[str, t.Any] | None = None,
    ) -> Cluster:
        """Start a cluster in the directory, after cleaning up what a killed one left there.

        Without C(subnet) its addresses are derived from the directory; without C(port) the first free one is taken.
        A C(lasting) cluster lives until somebody calls stop; any other ends with this process, however it ends.
        """
        path = pathlib.Path(directory).resolve()
        path.mkdir(parents=True, exist_ok=True, mode=0o755)
        lock = take_lock(path)
        existing = cls.load(path)
        if existing:
            existing._remove_everything()
        subnet = subnet or subnet_for(path)
        addresses = [f"{subnet}.{11 + index}" for index in range(len(clients))]
        cluster = cls(path, clients, subnet, port or free_port(addresses))
        cluster._lock = lock
        try:
            cluster._write_files(lasting, variables or {})
            for client in cluster.clients:
                client.boot()
        except BaseException:
            cluster.stop()
            raise
        if lasting:
            cluster._let_go()
        return cluster

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Cluster | None:
        """Return the cluster that was started in the directory, running or not."""
        path = pathlib.Path(directory).resolve()
        try:
            data = json.loads((path / "cluster.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return cls(path, [ClientSpec(**spec) for spec in data["clients"]], data["subnet"], data["port"])

    def running(self) -> bool:
        """Say whether all clients are up."""
        return all(client.pid() for client in self.clients)

    def _write_files(self, lasting: bool, variables: t.Mapping[str, t.Any]) -> None:
        description = {
            "subnet": self.subnet,
            "port": self.port,
            "clients": [dataclasses.asdict(client.spec) for client in self.clients],
        }
        # First of all, so that whatever is made from here on is found by the next start.
        write(self.directory / "cluster.json", json.dumps(description, indent=1) + "\n")
        self.control_path_dir.mkdir(mode=0o700, exist_ok=True)
        make_key(self.private_key, "controller")
        known_hosts = []
        for client in self.clients:
            client.directory.mkdir(parents=True)
            make_key(client.directory / "host_key", client.name)
            host_key = (client.directory / "host_key.pub").read_text(encoding="ascii").split()
            known_hosts.append(f"[{client.address}]:{self.port} {host_key[0]} {host_key[1]}\n")
            machine = {
                "id": self.id,
                "name": client.name,
                "login": client.spec.login,
                "address": client.address,
                "port": self.port,
                "public_key": self.private_key.with_suffix(".pub").read_text(encoding="ascii").strip(),
                "scratch_size": client.spec.scratch_size,
                "lasting": lasting,
            }
            write(client.directory / "machine.json", json.dumps(machine, indent=1) + "\n")
        write(self.known_hosts, "".join(known_hosts))
        write(self.inventory, "---\n" + to_yaml(self._inventory(variables)))
        write(self.ansible_cfg, ANSIBLE_CFG.format(cluster=self))

    def _inventory(self, variables: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        hosts = {}
        for client in self.clients:
            become = client.spec.login != "root"
            hosts[client.name] = {
                "ansible_host": client.address,
                "ansible_user": client.spec.login,
                "ansible_become": become,
                **({"ansible_become_method": "sudo"} if become else {}),
                "portbuild_maxjobs": client.spec.maxjobs,
                "portbuild_chroot_backend": client.spec.backend,
            }
        group = {
            "ansible_port": self.port,
            "ansible_python_interpreter": SYSTEM_PYTHON,
            "ansible_ssh_private_key_file": str(self.private_key),
            "ansible_ssh_common_args": " ".join(
                (
                    "-F /dev/null -o IdentitiesOnly=yes -o GlobalKnownHostsFile=/dev/null",
                    f"-o UserKnownHostsFile={self.known_hosts}",
                )
            ),
            "ansible_control_path_dir": str(self.control_path_dir),
            "portbuild_scratchdir": self.clients[0].scratch,
        }
        everything: dict[str, t.Any] = {"children": {"build_machines": {"hosts": hosts, "vars": group}}}
        if variables:
            everything["vars"] = dict(variables)  # of group all, because plays on localhost see no other group's
        return {"all": everything}

    def environment(self) -> dict[str, str]:
        """Return what to add to the environment of ansible commands that are to use this cluster."""
        return {"ANSIBLE_CONFIG": str(self.ansible_cfg), "ANSIBLE_HOME": str(self.directory / "ansible")}

    # -- stop ------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End all clients and remove the directory. Does no harm to a cluster that is not running."""
        self._remove_everything()
        for name in ("ansible.cfg", "inventory.yml", "known_hosts", "id_ed25519", "id_ed25519.pub", "lock"):
            (self.directory / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the caller's own files may be in it
            self.directory.rmdir()
        self._let_go()

    def stop_if_abandoned(self) -> None:
        """Stop a cluster whose test run is dead. Raises ClusterError if it lives."""
        self._lock = take_lock(self.directory)
        self.stop()

    def _let_go(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _remove_everything(self) -> None:
        for client in self.clients:
            if (client.directory / "machine.json").exists():
                client._machine("remove")
            elif client.directory.exists():  # a start that was killed before it got that far
                shutil.rmtree(client.directory)
        self._end_connections()
        for path in (self.directory / "clients", self.control_path_dir, self.directory / "ansible"):
            shutil.rmtree(path, ignore_errors=True)
        (self.directory / "cluster.json").unlink(missing_ok=True)

    def _end_connections(self) -> None:
        """End the ssh masters that ansible left behind. Most have ended with their client."""
        mark = os.fsencode(self.control_path_dir)
        deadline = time.monotonic() + 5.0
        while (masters := processes_naming(mark, b"ssh")) and time.monotonic() < deadline:
            for pid in masters:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            time.sleep(0.05)


ANSIBLE_CFG = """\
[defaults]
inventory = {cluster.inventory}
host_key_checking = True
home = {cluster.directory}/ansible
local_tmp = {cluster.directory}/ansible/tmp
internal_poll_interval = 0.05

[ssh_connection]
control_path_dir = {cluster.control_path_dir}
"""


def take_lock(directory: pathlib.Path) -> int:
    """Take the lock that the owner of the cluster holds while it lives."""
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise ClusterError(f"A running process holds the cluster in {directory}.") from None
    return lock


def write(path: pathlib.Path, text: str) -> None:
    """Write a small file, whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def make_key(path: pathlib.Path, comment: str) -> None:
    """Make an ssh key pair without passphrase."""
    path.unlink(missing_ok=True)
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)])


def subnet_for(directory: pathlib.Path) -> str:
    """Return a loopback network for the directory, other than the one that people use by hand."""
    return f"127.0.{1 + hashlib.sha256(os.fsencode(directory)).digest()[0] % 254}"


def free_port(addresses: t.Sequence[str]) -> int:
    """Return the first port that is free on all the addresses."""
    for port in PORTS:
        with contextlib.ExitStack() as stack:
            try:
                for address in addresses:
                    probe = stack.enter_context(socket.socket())
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind((address, port))
            except OSError:
                continue
            return port
    raise ClusterError(f"No port from {PORTS[0]} to {PORTS[-1]} is free on {', '.join(addresses)}.")


def processes_naming(mark: bytes, name: bytes) -> list[int]:
    """Return the processes of this name with the mark in their command line."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                argv = (entry / "cmdline").read_bytes()
                if mark in argv and os.path.basename(argv.split(b"\0")[0].split(b":")[0]) == name:
                    found.append(int(entry.name))
    return found


def to_yaml(value: t.Mapping[str, t.Any], indent: str = "") -> str:
    """Return nested mappings of plain values as YAML, without needing a YAML library."""
    lines = []
    for key, item in value.items():
        if isinstance(item, t.Mapping) and item:
            lines.append(f"{indent}{key}:\n{to_yaml(item, indent + '  ')}")
        else:
            lines.append(f"{indent}{key}: {json.dumps(item)}\n")
    return "".join(lines)
