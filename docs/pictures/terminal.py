#!/usr/bin/env python3
"""Makes terminal.cast (asciicast v2): the commands below, typed into a shell in a pseudo-terminal, and what was printed.

The shell, kubectl with the plugin, the API server, both programs and the receiver are the real ones, and nothing is
retouched. Then cast.py makes terminal.svg of it.
"""

import json
import os
import pty
import select
import struct
import time
from datetime import datetime, timedelta, timezone
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ

from scene import REPOSITORY, TARGET, Scene, await_port, build, run

COLUMNS, ROWS = 98, 19
# The port of examples/*.yaml, which are applied as they are, and the usual one of ingest.
RECEIVER, INGEST = 8443, 8087
KEY_SECONDS = 0.02
ANSWER_SECONDS_MAX = 60
CLEAR = "\x0c"  # Ctrl-L
# The title of a terminal is in no picture: it tells that the shell waits for a command.
READY = b"\x1b]0;ready\x07"

# What is typed, and for how long its answer is looked at, in seconds.
COMMANDS = [
    ("kubectl apply -f webhooks.yaml", 1.2),
    ("kubectl postrider list", 2.5),
    ("kubectl postrider test orders", 3.5),
    (CLEAR, 0.3),
    ("kubectl apply -f wrong-password.yaml", 1),
    ("kubectl postrider status refunds", 4.5),
    (CLEAR, 0.3),
    (rf"curl -w '\n' --json @order.json localhost:{INGEST}/v1/namespaces/shop/outboundwebhooks/orders/events", 1),
    ("kubectl postrider rotate orders --keystore orders-2.p12 --password-file orders-2.password", 3.5),
    (CLEAR, 0.3),
    ("kubectl postrider status orders", 6),
]


class Terminal:
    def __init__(self, directory, environment):
        self.output = bytearray()
        self.events = []
        self.start = time.monotonic()
        pid, self.master = pty.fork()
        if pid == 0:
            os.chdir(directory)
            os.execvpe("bash", ["bash", "--norc", "--noprofile"], environment)
        ioctl(self.master, TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))

    def read_for(self, seconds, until=None):
        """Keeps what is printed, with its time; returns whether `until` came."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self.master], [], [], left)[0]:
                break
            self.output += os.read(self.master, 65536)
            # Half a character waits for its other half.
            text = self.output.decode(errors="ignore")
            if text.encode() != self.output:
                continue
            self.events.append((time.monotonic() - self.start, text))
            self.output.clear()
            if until and until in text.encode():
                return True
        return until is None

    def type(self, command, look_seconds):
        for key in command:
            os.write(self.master, key.encode())
            self.read_for(KEY_SECONDS)
        if command != CLEAR:
            os.write(self.master, b"\r")
            if not self.read_for(ANSWER_SECONDS_MAX, until=READY):
                raise SystemExit(f"{command}: not over in {ANSWER_SECONDS_MAX} s")
        self.read_for(look_seconds)

    def cast(self):
        end = [round(time.monotonic() - self.start, 3), "o", ""]
        header = {"version": 2, "width": COLUMNS, "height": ROWS, "title": "kubectl postrider"}
        lines = [header, *([round(at, 3), "o", text] for at, text in self.events), end]
        return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


# For a certificate that is not new: `openssl x509` begins today.
CA = """[ca]
default_ca = demo
[demo]
database = index.txt
new_certs_dir = .
default_md = sha256
rand_serial = yes
policy = any
[any]
countryName = optional
organizationName = optional
commonName = supplied
"""
EXTENSIONS = "basicConstraints=critical,CA:false\nkeyUsage=digitalSignature\nextendedKeyUsage=clientAuth\n"


def age(directory, name, days_gone, days_left):
    """Gives the keystore of examples/pki another certificate, most of whose life is over."""
    for file, content in ("ca.cnf", CA), ("ca.ext", EXTENSIONS), ("index.txt", ""):
        (directory / file).write_text(content)
    now = datetime.now(timezone.utc)
    start, end = (f"{now + timedelta(days):%Y%m%d%H%M%SZ}" for days in (-days_gone, days_left))
    run(
        "openssl", "ca", "-batch", "-notext", "-config", "ca.cnf", "-cert", "client-ca.crt", "-keyfile", "client-ca.key",
        "-startdate", start, "-enddate", end, "-extfile", "ca.ext", "-in", f"{name}.csr", "-out", f"{name}.crt",
        cwd=directory,
    )  # fmt: skip
    run(
        "openssl", "pkcs12", "-export", "-name", name, "-inkey", f"{name}.key", "-in", f"{name}.crt", "-certfile",
        "client-ca.crt", "-passout", f"file:{name}.password", "-out", f"{name}.p12",
        cwd=directory,
    )  # fmt: skip


def set_up(scene):
    """What webhooks.yaml says has to be there; returns the directory with the files that a person would have."""
    directory = scene.directory / "shop"
    run(REPOSITORY / "examples/pki", directory)
    age(directory, "orders", days_gone=347, days_left=18.5)
    for example in REPOSITORY.glob("examples/*.yaml"):
        (directory / example.name).write_bytes(example.read_bytes())
    (directory / "order.json").write_text('{"order": 1042}')
    scene.start(
        "receiver",
        TARGET / "examples/receiver", "--listen", f"127.0.0.1:{RECEIVER}", "--certificate", directory / "server.crt",
        "--key", directory / "server.key", "--client-ca", directory / "client-ca.crt",
    )  # fmt: skip
    await_port(RECEIVER, "the receiver")
    scene.namespace("shop")
    scene.kubectl("config", "set-context", "--current", "--namespace", "shop")
    scene.kubectl("create", "configmap", "partner-ca", f"--from-file=ca.crt={directory}/server-ca.crt")
    for name, file in ("orders", "keystore.p12"), ("invoices", "keystore.jks"):
        source = directory / f"{name}{Path(file).suffix}"
        scene.kubectl("create", "secret", "generic", f"{name}-keystore", f"--from-file={file}={source}")
        password = directory / f"{name}.password"
        scene.kubectl("create", "secret", "generic", f"{name}-password", f"--from-file=password={password}")
    return directory


def main():
    build()
    with Scene() as scene:
        scene.start_programs("--namespace", "shop", ingest=INGEST)
        directory = set_up(scene)
        environment = scene.environment | {
            "TERM": "xterm-256color",
            "LANG": "C.UTF-8",
            "HOME": str(directory),
            "PS1": rf"\[{READY.decode()}\]\[\e[1;32m\]$\[\e[0m\] ",
        }
        terminal = Terminal(directory, environment)
        terminal.read_for(ANSWER_SECONDS_MAX, until=READY)
        terminal.read_for(0.8)
        for command, look_seconds in COMMANDS:
            terminal.type(command, look_seconds)
        cast = terminal.cast()
    for name in str(scene.directory), str(REPOSITORY), str(Path.home()):
        if name in cast:
            raise SystemExit(f"{name} of this machine is in the recording")
    Path(__file__).with_suffix(".cast").write_text(cast)


if __name__ == "__main__":
    main()
