"""Authorities and certificates, made by openssl, and servers that ask for them: nginx and haproxy."""

import subprocess

from support import Haproxy, Process, free_port

CONFIG = """
[ca]
default_ca = this
[this]
new_certs_dir = {folder}
database = {folder}/index.txt
serial = {folder}/serial
certificate = {folder}/authority.pem
private_key = {folder}/authority.key
default_md = sha256
policy = any
unique_subject = no
copy_extensions = none
[any]
commonName = supplied
organizationName = optional
[server]
basicConstraints = critical,CA:FALSE
subjectAltName = {names}
[client]
basicConstraints = critical,CA:FALSE
extendedKeyUsage = clientAuth
"""

# What openssl is told to make a key of each kind and container.
KEYS = {
    "rsa-pkcs8": [["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]],
    "rsa-pkcs1": [["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], ["rsa", "-traditional"]],
    "p256-sec1": [["ecparam", "-name", "prime256v1", "-genkey", "-noout"]],
    "p256-pkcs8": [["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]],
    "p384-pkcs8": [["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]],
    "p521-sec1": [["ecparam", "-name", "secp521r1", "-genkey", "-noout"]],
    "ed25519-pkcs8": [["genpkey", "-algorithm", "ED25519"]],
}


def openssl(*args, given=None):
    done = subprocess.run(["openssl", *map(str, args)], input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"openssl {args}: {done.stderr}"
    return done.stdout


def new_key(kind="p256-pkcs8"):
    """A private key in PEM."""
    pem = None
    for args in KEYS[kind]:
        pem = openssl(*args, given=pem)
    return pem


def public_half(key):
    """The public half of a private key, in PEM."""
    return openssl("pkey", "-pubout", given=key)


class Authority:
    def __init__(self, folder, name):
        self.folder = folder / name.replace(" ", "-")
        self.folder.mkdir()
        (self.folder / "index.txt").touch()
        (self.folder / "serial").write_text("01")
        (self.folder / "authority.key").write_text(new_key())
        subject = ["-key", self.folder / "authority.key", "-subj", f"/CN={name}", "-days", 3650]
        openssl("req", "-x509", "-new", "-out", self.folder / "authority.pem", *subject)
        self.pem = (self.folder / "authority.pem").read_text()

    def issue(self, subject, *, use="client", names="DNS:localhost,IP:127.0.0.1", key=None, years=(2020, 2120)):
        """Certificate and key in PEM."""
        key = key or new_key()
        config, request = self.folder / "ca.cnf", self.folder / "request.pem"
        config.write_text(CONFIG.format(folder=self.folder, names=names))
        request.write_text(openssl("req", "-new", "-key", "/dev/stdin", "-subj", subject, given=key))
        dates = ["-startdate", f"{years[0]}0101000000Z", "-enddate", f"{years[1]}0101000000Z"]
        made = ["-batch", "-notext", "-config", config, "-extensions", use, "-in", request, *dates]
        return openssl("ca", *made), key


NGINX = """
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log info;
events {{}}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    ssl_certificate {folder}/server.pem;
    ssl_certificate_key {folder}/server.key;
    ssl_client_certificate {folder}/clients.pem;
    ssl_protocols {protocols};
    server {{
        listen 127.0.0.1:{port} ssl {http2};
        ssl_verify_client {verify};
        location / {{
            {location}
        }}
    }}
}}
"""

SHOWN = 'default_type text/plain; return 200 "$connection $ssl_protocol $ssl_client_verify $ssl_client_s_dn";'


class Nginx(Process):
    """A server that asks for certificates, and says what it was shown and on which connection."""

    def __init__(self, folder, server, clients, *, verify="on", protocols="TLSv1.2 TLSv1.3", http2="", location=SHOWN):
        folder.mkdir()
        port = free_port()
        self.url = f"https://127.0.0.1:{port}"
        for name, text in [("server.pem", server[0]), ("server.key", server[1]), ("clients.pem", clients.pem)]:
            (folder / name).write_text(text)
        settings = {"port": port, "verify": verify, "protocols": protocols, "http2": http2}
        config = NGINX.format(folder=folder, location=location, **settings)
        command = ["-p", "{folder}", "-c", "{folder}/config", "-e", "{folder}/error.log"]
        super().__init__(folder, "nginx", command, port, config)


class StrictServer(Haproxy):
    """A server that ends the handshake when it does not like what it is shown, where nginx answers over it."""

    def __init__(self, folder, server, clients, versions="ssl-min-ver TLSv1.2"):
        folder.mkdir()
        port = free_port()
        self.url = f"https://127.0.0.1:{port}"
        (folder / "server.pem").write_text("".join(server))
        (folder / "clients.pem").write_text(clients.pem)
        config = f"""
frontend api
    bind 127.0.0.1:{port} ssl crt {folder}/server.pem ca-file {folder}/clients.pem verify required {versions}
    http-request return status 200 content-type text/plain lf-string "%[ssl_c_s_dn(CN)]"
"""
        super().__init__(folder, port, config)
