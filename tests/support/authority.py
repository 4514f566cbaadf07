"""A certificate authority, by openssl."""

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

# Of its commands, only `openssl ca` takes a period of validity in the past in every release.
CA_CONFIG = """
[ca]
default_ca = lab
[lab]
database = index.txt
new_certs_dir = .
rand_serial = yes
unique_subject = no
default_md = sha256
policy = any
[any]
commonName = supplied
"""


def openssl(directory: Path, *argv: str) -> None:
    subprocess.run(["openssl", *argv], cwd=directory, check=True, capture_output=True)


class Authority:
    """A certificate authority in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.directory.mkdir(exist_ok=True)
        self.certificate = self.directory / "ca.pem"
        self._key("ca")
        self._run(
            "req", "-x509", "-new", "-key", "ca.key", "-subj", f"/CN={directory.name}", "-days", "2", "-out", "ca.pem"
        )
        (self.directory / "ca.cnf").write_text(CA_CONFIG)
        (self.directory / "index.txt").touch()

    def issue(self, name: str, subject_alternatives: str = "", *, has_expired: bool = False) -> tuple[Path, Path]:
        """Return a certificate and its key: valid for a day, or for the day before."""
        self._key(name)
        self._run("req", "-new", "-key", f"{name}.key", "-subj", f"/CN={name}", "-out", f"{name}.csr")
        extensions = self.directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName={subject_alternatives}\n" if subject_alternatives else "")
        begin = datetime.now(UTC) - timedelta(days=2 if has_expired else 0)
        self._run(
            *("ca", "-batch", "-notext", "-config", "ca.cnf", "-cert", "ca.pem", "-keyfile", "ca.key"),
            *("-startdate", f"{begin:%Y%m%d%H%M%SZ}", "-enddate", f"{begin + timedelta(days=1):%Y%m%d%H%M%SZ}"),
            *("-in", f"{name}.csr", "-extfile", extensions.name, "-out", f"{name}.pem"),
        )
        return self.directory / f"{name}.pem", self.directory / f"{name}.key"

    def _key(self, name: str) -> None:
        self._run("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")

    def _run(self, *argv: str) -> None:
        openssl(self.directory, *argv)
