"""A stand-in for a CA, for what Debian's pebble does not know: renewal information (RFC 9773), profiles, rate limits with
Retry-After, a closed account. Names are believed without a look, signatures not verified. What it is to do next is in the
file `knobs.json` beside it; what it was asked is added to `orders.json`, an order a line."""

import base64
import http.server
import json
import pathlib
import ssl
import subprocess
import sys

address, port, here = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
base = f"https://{address}:{port}"
orders = []


def knobs():
    return json.loads((here / "knobs.json").read_text())


def decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def run(*command):
    return subprocess.run(command, check=True, cwd=here, capture_output=True).stdout


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=None, kind="application/json", **headers):
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Replay-Nonce", "abc")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, status, kind, detail, **headers):
        problem = {"type": f"urn:ietf:params:acme:error:{kind}", "detail": detail, "status": status}
        self.answer(status, problem, "application/problem+json", **headers)

    def do_HEAD(self):
        self.answer(200)

    def do_GET(self):
        if self.path == "/dir":
            urls = {name: f"{base}/{name}" for name in ["newNonce", "newAccount", "newOrder", "renewalInfo"]}
            self.answer(200, urls | {"meta": {"profiles": {"short": "six days"}}})
        elif self.path.startswith("/renewalInfo/"):
            (here / "asked").write_text(self.path)
            window = knobs()["window"]
            self.answer(200, {"suggestedWindow": {"start": window[0], "end": window[1]}}, Retry_After="60")
        else:
            self.answer(404)

    def do_POST(self):
        jws = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        payload = json.loads(decode(jws["payload"]) or b"null")
        knob = knobs()
        if self.path == "/newAccount":
            return self.answer(201, {"status": "valid"}, Location=f"{base}/account/1")
        if "refuse" in knob:
            status, kind, detail, after = knob["refuse"]
            return self.refuse(status, kind, detail, **({"Retry_After": str(after)} if after else {}))
        if self.path == "/newOrder":
            with open(here / "orders.json", "a") as log:
                log.write(json.dumps(payload) + "\n")
            if payload.get("profile") not in (None, "short"):
                return self.refuse(400, "invalidProfile", f"profile {payload['profile']} is not one of ours")
            orders.append(payload)
            number = len(orders) - 1
            return self.answer(201, self.order(number, "ready"), Location=f"{base}/order/{number}")
        kind, number = self.path.strip("/").split("/")
        number = int(number)
        if kind == "authz":
            name = orders[number]["identifiers"][0]
            return self.answer(200, {"identifier": name, "status": "valid", "challenges": []})
        if kind == "finalize":
            (here / f"{number}.csr").write_bytes(decode(payload["csr"]))
            names = ",".join("DNS:" + one["value"] for one in orders[number]["identifiers"])
            (here / f"{number}.ext").write_text(f"subjectAltName={names}\nauthorityKeyIdentifier=keyid\n")
            run("openssl", "x509", "-req", "-inform", "der", "-in", f"{number}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                "-CAcreateserial", "-days", "90", "-extfile", f"{number}.ext", "-out", f"{number}.pem")
            return self.answer(200, self.order(number, "valid"))
        if kind == "cert":
            return self.answer(200, (here / f"{number}.pem").read_bytes(), "application/pem-certificate-chain")
        status = "valid" if (here / f"{number}.pem").exists() else "ready"
        return self.answer(200, self.order(number, status))

    @staticmethod
    def order(number, status):
        own = {key: orders[number][key] for key in ("identifiers", "replaces", "profile") if key in orders[number]}
        own |= {"status": status, "authorizations": [f"{base}/authz/{number}"], "finalize": f"{base}/finalize/{number}"}
        return own | ({"certificate": f"{base}/cert/{number}"} if status == "valid" else {})


server = http.server.ThreadingHTTPServer((address, port), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(here / "server.pem", here / "server.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
