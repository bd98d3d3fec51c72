"""A real API server with both programs of Postrider, for as long as a picture needs it.

Everything is in one temporary directory and ends with the `with` block, however that ends.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
TARGET = REPOSITORY / os.environ.get("CARGO_TARGET_DIR", "target") / "debug"
START_SECONDS_MAX = 90
END_SECONDS_MAX = 10


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def await_port(port, what):
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"{what} did not listen on port {port} in {START_SECONDS_MAX} s")


def run(*command, **options):
    """Runs a program to its end; its output matters only if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}:\n{done.stdout}{done.stderr}")
    return done.stdout


def build():
    """All that any picture needs, for another choice would be built anew."""
    programs = "--bin", "postrider", "--bin", "kubectl-postrider", "--example", "receiver"
    run("cargo", "build", "--quiet", *programs, cwd=REPOSITORY)


class Scene:
    def __enter__(self):
        # SIGTERM ends the block as an exception does.
        signal.signal(signal.SIGTERM, lambda *_: exit(143))
        self.directory = Path(tempfile.mkdtemp(prefix="postrider-pictures."))
        self.processes = []
        try:
            self.start_control_plane()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.terminate()
            try:
                process.wait(END_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start_control_plane(self):
        cluster = self.directory / "cluster"
        control_plane = self.start(
            "control-plane",
            REPOSITORY / "tests/cluster/control-plane", "--crds", REPOSITORY / "crds", cluster,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        if not control_plane.stdout.readline().startswith(b"ready"):
            raise SystemExit((self.directory / "control-plane.log").read_text())
        self.environment = os.environ | {
            "KUBECONFIG": str(cluster / "admin.kubeconfig"),
            "KUBECACHEDIR": str(self.directory / "kubectl-cache"),
            "PATH": f"{cluster}:{TARGET}:{os.environ['PATH']}",
            "POSTRIDER_EGRESS_ALLOW": "127.0.0.1",  # the receivers are on this machine, which is refused by default
        }

    def start(self, name, *command, stdout=None, **options):
        """A program in the background, with its log in NAME.log."""
        with open(self.directory / f"{name}.log", "wb") as log:
            process = subprocess.Popen(command, stdout=stdout or log, stderr=log, **options)
        self.processes.append(process)
        return process

    def start_programs(self, *options, ingest):
        """Controller and dispatcher, which takes events on that port; returns the ports of their metrics."""
        controller, dispatcher = free_port(), free_port()
        postrider = TARGET / "postrider"
        self.start(
            "controller",
            postrider, "controller", "--metrics-listen", f"127.0.0.1:{controller}", *options,
            env=self.environment,
        )  # fmt: skip
        self.start(
            "dispatcher",
            postrider, "dispatcher", "--metrics-listen", f"127.0.0.1:{dispatcher}",
            "--queue", self.directory / "queue", "--listen", f"127.0.0.1:{ingest}", *options,
            env=self.environment,
        )  # fmt: skip
        for port, what in (controller, "the controller"), (dispatcher, "the dispatcher"), (ingest, "ingest"):
            await_port(port, what)
        return controller, dispatcher

    def kubectl(self, *arguments, stdin=None):
        return run("kubectl", *arguments, input=stdin, env=self.environment, cwd=self.directory)

    def namespace(self, name):
        self.kubectl("create", "namespace", name)
        self.kubectl("label", "namespace", name, "postrider.dev/mtls=enabled")
