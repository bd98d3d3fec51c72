"""Servers of partners: they take events over mutual TLS, may be away, change whom they trust, be slow, refuse events."""

import random
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        partner = self.server.partner
        self.rfile.read(int(self.headers["content-length"]))
        time.sleep(partner.seconds * random.lognormvariate(0, 0.6))
        self.send_response(422 if random.random() < partner.refuses else 204)
        self.end_headers()

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, partner, port):
        self.partner = partner
        self.open = set()
        super().__init__(("127.0.0.1", port), Handler)

    def finish_request(self, connection, address):
        try:
            with self.partner.context.wrap_socket(connection, server_side=True) as connection:
                self.open.add(connection)
                super().finish_request(connection, address)
        except OSError:
            pass  # refused, or gone
        finally:
            self.open.discard(connection)

    def hang_up(self):
        for connection in list(self.open):
            try:
                connection.shutdown(2)
            except OSError:
                pass


class Partner:
    """`seconds` is the usual time of an answer, `refuses` the part of the events that it does not take."""

    def __init__(self, directory, trusted, seconds=0.02, refuses=0.0):
        self.directory, self.seconds, self.refuses = directory, seconds, refuses
        self.port = 0
        self.server = None
        self.trust(*trusted)
        self.come()

    def trust(self, *authorities):
        """Whose clients are let in from now on, and nobody else."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.directory / "server.crt", self.directory / "server.key")
        context.verify_mode = ssl.CERT_REQUIRED
        for authority in authorities:
            context.load_verify_locations(self.directory / f"{authority}.crt")
        self.context = context
        if self.server:
            self.server.hang_up()

    def come(self):
        self.server = Server(self, self.port)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def go(self):
        self.server.shutdown()
        self.server.server_close()
        self.server.hang_up()
        self.server = None
