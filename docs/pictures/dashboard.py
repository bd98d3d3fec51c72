#!/usr/bin/env python3
"""Makes dashboard.svg: what Grafana's dashboard of the chart shows of a quarter of an hour with real troubles.

A real API server, both programs, partners that demand client certificates, and a Prometheus that scrapes the programs.
The panels are drawn by grafana.py, with the answers of that Prometheus to their own queries.

    docs/pictures/dashboard.py            takes 16 minutes
    docs/pictures/dashboard.py --keep     stays up until Ctrl-C, to draw it again
"""

import http.client
import json
import math
import random
import signal
import sys
import threading
import time

import grafana
from partners import Partner
from scene import REPOSITORY, Scene, await_port, build, free_port, run

SCRAPE_SECONDS = 5
SECONDS = 900

# Namespace and name of each webhook, the days that its certificate is valid yet, and events a second.
WEBHOOKS = [
    ("shop", "orders", 301, 7),
    ("shop", "invoices", 24, 3),
    ("shop", "refunds", 301, 0),
    ("billing", "ledger", 12, 2),
    ("billing", "payouts", 88, 2),
    ("logistics", "tracking", 203, 5),
    ("logistics", "customs", 5, 0.6),
    ("crm", "contacts", 143, 2),
    ("crm", "newsletter", 688, 3),
]

random.seed(9)


class Pki:
    def __init__(self, directory):
        self.directory = directory
        directory.mkdir()
        for authority in "server-ca", "client-ca", "client-ca-2":
            self.authority(authority)
        self.leaf("server", "server-ca", 365, "subjectAltName=IP:127.0.0.1")

    def openssl(self, *arguments):
        return run("openssl", *arguments, cwd=self.directory)

    def authority(self, name):
        self.openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650",
            "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.crt",
        )  # fmt: skip

    def leaf(self, name, authority, days, extension):
        (self.directory / f"{name}.ext").write_text(f"basicConstraints=critical,CA:false\n{extension}\n")
        self.openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
            "-keyout", f"{name}.key", "-out", f"{name}.csr",
        )  # fmt: skip
        self.openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.crt", "-CAkey", f"{authority}.key",
            "-CAcreateserial", "-days", str(days), "-extfile", f"{name}.ext", "-out", f"{name}.crt",
        )  # fmt: skip

    def keystore(self, name, authority, days):
        self.leaf(name, authority, days, "extendedKeyUsage=clientAuth")
        self.openssl(
            "pkcs12", "-export", "-inkey", f"{name}.key", "-in", f"{name}.crt", "-passout", "pass:changeit",
            "-out", f"{name}.p12",
        )  # fmt: skip
        return self.directory / f"{name}.p12"


class Troubles:
    """The webhooks, their partners, their senders, and what happens to them."""

    def __init__(self, scene, ingest):
        self.scene, self.ingest = scene, ingest
        self.pki = Pki(scene.directory / "pki")
        trusted = ["client-ca"]
        self.partners = {
            "shop": Partner(self.pki.directory, trusted, seconds=0.018),
            "billing": Partner(self.pki.directory, trusted, seconds=0.035),
            "payouts": Partner(self.pki.directory, trusted, seconds=0.035),
            "logistics": Partner(self.pki.directory, trusted, seconds=0.012),
            "customs": Partner(self.pki.directory, trusted, seconds=0.06),
            "crm": Partner(self.pki.directory, trusted, seconds=0.025),
            "contacts": Partner(self.pki.directory, trusted, seconds=0.025, refuses=0.015),
        }
        for namespace in dict.fromkeys(namespace for namespace, *_ in WEBHOOKS):
            scene.namespace(namespace)
            scene.kubectl(
                "-n", namespace, "create", "configmap", "partner-ca",
                f"--from-file=ca.crt={self.pki.directory / 'server-ca.crt'}",
            )  # fmt: skip
        for namespace, name, days, _ in WEBHOOKS:
            password = "a wrong one" if name == "refunds" else "changeit"
            self.secret(namespace, name, self.pki.keystore(name, "client-ca", days), password)
            self.webhook(namespace, name)

    def secret(self, namespace, name, keystore, password="changeit"):
        self.scene.kubectl(
            "-n", namespace, "create", "secret", "generic", f"{name}-keystore",
            f"--from-file=keystore.p12={keystore}", f"--from-literal=password={password}",
        )  # fmt: skip

    def webhook(self, namespace, name, new=None):
        def certificate(of):
            secret = f"{of}-keystore"
            key = {"name": secret, "key": "password"}
            return {"secretRef": {"name": secret}, "format": "PKCS12", "passwordSecretRef": key}

        partner = self.partners.get(name) or self.partners[namespace]
        spec = {
            "endpoint": {
                "url": f"https://127.0.0.1:{partner.port}/{name}",
                "trust": {"caBundleRef": {"name": "partner-ca"}},
            },
            "mtls": {"active": certificate(name)} | ({"new": certificate(new)} if new else {}),
            "delivery": {"retry": {"nonRetryableStatusCodes": [422]}},
        }
        webhook = {
            "apiVersion": "postrider.dev/v1alpha1",
            "kind": "OutboundWebhook",
            "metadata": {"namespace": namespace, "name": name},
            "spec": spec,
        }
        self.scene.kubectl("apply", "-f", "-", stdin=json.dumps(webhook))

    def send(self, namespace, name, rate, end):
        """Events at a rate that swells and ebbs, as an independent crowd sends them."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ingest)
        start = time.monotonic()
        chance = random.Random(name)
        phase = chance.random() * 2 * math.pi
        while (now := time.monotonic()) < end:
            swell = 1 + 0.35 * math.sin(phase + (now - start) / 70)
            time.sleep(chance.expovariate(rate * swell))
            connection.request(
                "POST",
                f"/v1/namespaces/{namespace}/outboundwebhooks/{name}/events",
                json.dumps({"name": name, "number": chance.randrange(10**6)}),
                {"content-type": "application/json", "postrider-event-type": f"{name}.changed"},
            )
            connection.getresponse().read()

    def invoices_rotates(self):
        """To a certificate of another authority, which the partner trusts only a minute later."""
        self.secret("shop", "invoices-2028", self.pki.keystore("invoices-2028", "client-ca-2", 365))
        self.webhook("shop", "invoices", new="invoices-2028")

    def happen(self):
        of = self.partners
        both = "client-ca", "client-ca-2"
        happenings = [
            (120, "tracking is away", of["logistics"].go),
            (210, "invoices rotates", self.invoices_rotates),
            (250, "its partner trusts the New", lambda: of["shop"].trust(*both)),
            (300, "tracking is back", of["logistics"].come),
            (420, "the shop's partner forgets the New", lambda: of["shop"].trust("client-ca")),
            (480, "payouts' partner trusts nobody of ours", lambda: of["payouts"].trust("client-ca-2")),
            (540, "the shop's partner knows the New again", lambda: of["shop"].trust(*both)),
            (620, "payouts' partner trusts us again", lambda: of["payouts"].trust("client-ca")),
            (690, "newsletter is slow", lambda: setattr(of["crm"], "seconds", 0.7)),
            (770, "newsletter is as before", lambda: setattr(of["crm"], "seconds", 0.025)),
            (760, "customs is away, and stays so", of["customs"].go),
        ]
        start = time.monotonic()
        for namespace, name, _, rate in WEBHOOKS:
            if rate:
                arguments = (namespace, name, rate, start + SECONDS)
                threading.Thread(target=self.send, args=arguments, daemon=True).start()
        for second, what, act in sorted(happenings, key=lambda happening: happening[0]):
            time.sleep(max(0, start + second - time.monotonic()))
            print(f"  {second:4} s  {what}", flush=True)
            act()
        time.sleep(max(0, start + SECONDS - time.monotonic()))


def start_prometheus(scene, targets):
    prometheus = run(REPOSITORY / "tests/debian", "prometheus").strip()
    port = free_port()
    # The `namespace` of a metric is the webhook's, as with the chart's ServiceMonitor.
    configuration = {
        "global": {"scrape_interval": f"{SCRAPE_SECONDS}s"},
        "scrape_configs": [
            {
                "job_name": "postrider",
                "honor_labels": True,
                "static_configs": [{"targets": [f"127.0.0.1:{target}" for target in targets]}],
            }
        ],
    }
    file = scene.directory / "prometheus.json"
    file.write_text(json.dumps(configuration))  # YAML, too
    scene.start(
        "prometheus",
        prometheus, f"--config.file={file}", f"--storage.tsdb.path={scene.directory / 'prometheus'}",
        f"--web.listen-address=127.0.0.1:{port}",
    )  # fmt: skip
    await_port(port, "Prometheus")
    return f"http://127.0.0.1:{port}"


def main():
    keep = sys.argv[1:] == ["--keep"]
    build()
    with Scene() as scene:
        ingest = free_port()
        prometheus = start_prometheus(scene, scene.start_programs(ingest=ingest))
        troubles = Troubles(scene, ingest)
        print(f"{prometheus}, for {SECONDS} s", flush=True)
        troubles.happen()
        end = time.time()
        grafana.draw(prometheus, end, SECONDS, SCRAPE_SECONDS)
        if keep:
            print(f"docs/pictures/grafana.py {prometheus} {end:.0f} {SECONDS} {SCRAPE_SECONDS}", flush=True)
            signal.pause()


if __name__ == "__main__":
    main()
