"""A machine on which somebody follows our pages: what they type is run as it stands there."""

import json
import os
import signal
import subprocess

from support import REPOSITORY, Program, answers, binary, clean_environment, free_port


class Machine(Program):
    """A folder in which the commands find what they name: the example, and the binary where `make` puts it."""

    def __init__(self, folder):
        (folder / "target" / "release").mkdir(parents=True)
        (folder / "target" / "release" / "linkspan").symlink_to(binary())
        (folder / "examples").symlink_to(REPOSITORY / "examples")
        public, self.operator = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.folder = folder
        # Ports other than the README's, which may be taken, and a disk that may be nearly full; everything else is as
        # there.
        settings = {
            "LINKSPAN_BIN": "target/release/linkspan",
            "LINKSPAN_DISK_MIN_FREE": "1MiB",
            "LINKSPAN_PUBLIC": public,
            "LINKSPAN_OPERATOR": self.operator,
            "LINKSPAN_URL": f"http://{self.operator}",
        }
        self.env = clean_environment(**settings)
        self.begin([folder / "examples" / "first-hour" / "start"], folder / "start.log", folder=folder, **settings)

    def is_up(self):
        return answers(f"http://{self.operator}", "/readyz") == 200

    def sh(self, script, timeout=120):
        done = subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", script],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}\n{self.log.read_text()[-3000:]}"
        return done.stdout

    def cli(self, command):
        return json.loads(self.sh(f"target/release/linkspan {command} --output json"))["data"]

    def interrupt(self):
        """Ctrl-C: the terminal sends it to all of the group, the script and the server."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(45)

    def stop(self):
        """Asks the script to end, which passes it on and waits for the server."""
        return super().stop(45)
