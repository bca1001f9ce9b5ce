"""What the machine that is visited has, and how programs that were built elsewhere run on it."""

import glob
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys

# Where pythons live that a bare PATH does not reach.
PYTHONS = ("/opt/*/.venv/bin/python3", "/opt/*/bin/python3", "/usr/local/bin/python3", "/root/.venv/bin/python3")
# Where drivers leave what the Vulkan loader looks for by itself, and where else NVIDIA's is found.
LISTED = ("/etc/vulkan/icd.d", "/usr/share/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/usr/local/etc/vulkan/icd.d")
UNLISTED = ("/usr/local/nvidia/share/vulkan/icd.d", "/run/opengl-driver/share/vulkan/icd.d", "/usr/local/nvidia")
DRIVER_FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/nvidia/lib64", "/usr/local/nvidia/lib")
NVIDIA = "libGLX_nvidia.so.0"


def glibc():
    """Of this machine, such as (2, 36); none where the C library is another."""
    name, version = platform.libc_ver()
    return tuple(map(int, version.split(".")[:2])) if name == "glibc" else None


def loads(library, folders=()):
    """Whether the dynamic linker finds a library and all that it needs. Asked in a process of its own, which drivers may crash."""
    env = dict(os.environ, LD_LIBRARY_PATH=":".join([*folders, os.environ.get("LD_LIBRARY_PATH", "")]).strip(":"))
    code = f"import ctypes; ctypes.CDLL({library!r})"
    done = subprocess.run([sys.executable, "-c", code], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return done.returncode == 0


class Machine:
    def __init__(self, stage, work, adapter, python=None):
        self.stage, self.work, self.adapter = pathlib.Path(stage).resolve(), pathlib.Path(work), adapter
        self.facts = json.loads((self.stage / "facts.json").read_text())
        self.env = dict(os.environ, XDG_CACHE_HOME=str(self.work / "cache"), WATTN_TEST_ADAPTER=adapter)
        self.env["CARGO_MANIFEST_DIR"] = str(self.stage / "files")
        self.env["CARGO_BIN_EXE_wattn"] = str(self.stage / "bin" / "wattn")
        self.env.setdefault("HOME", str(self.work))
        self.notes, self.prefix = [], []
        if sys.platform == "linux":
            # The OpenGL side of a driver lists the same card once more.
            self.env.setdefault("WGPU_BACKEND", "vulkan")
            self._libraries()
            self._driver()
            self._loader()
        self.cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        self.pythons = [python] if python else self._pythons()

    def _libraries(self):
        """Of those that were brought along, the ones that are missing here, in a folder of their own."""
        brought = sorted((self.stage / "lib").glob("*.so.*"))
        missing = [path for path in brought if not loads(path.name)]
        folder = self.work / "lib"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for path in missing:
            (folder / path.name).symlink_to(path.resolve())
        self.folders = [str(folder)] if missing else []
        if missing:
            self.notes.append("brought along: " + ", ".join(path.name for path in missing))
        self._search()

    def _search(self):
        found = [*self.folders, *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        if found:
            self.env["LD_LIBRARY_PATH"] = ":".join(found)

    def _driver(self):
        """Where the loader finds no driver by itself, NVIDIA's: its own file, or one that is written here."""
        if self.env.get("VK_DRIVER_FILES") or self.env.get("VK_ICD_FILENAMES"):
            return
        if any(glob.glob(f"{folder}/*.json") for folder in LISTED):
            return
        holder = next((f for f in DRIVER_FOLDERS if os.path.exists(f"{f}/{NVIDIA}")), None)
        if holder and not loads(NVIDIA, self.folders):
            self.folders.append(holder)
            self._search()
        files = [path for folder in UNLISTED for path in sorted(glob.glob(f"{folder}/nvidia_icd*.json"))]
        if not files and (holder or loads(NVIDIA, self.folders)):
            path = self.work / "nvidia_icd.json"
            library = f"{holder}/{NVIDIA}" if holder else NVIDIA
            # The version is the newest that the driver may be asked for.
            icd = {"library_path": library, "api_version": "1.4.303"}
            path.write_text(json.dumps({"file_format_version": "1.0.0", "ICD": icd}))
            files = [str(path)]
        if files:
            self.env["VK_DRIVER_FILES"] = files[0]
        self.notes.append(f"driver: {files[0] if files else 'none found; set VK_DRIVER_FILES'}")

    def _loader(self):
        """Programs that need a newer C library than this machine's run on the one that was brought along."""
        here, needed = glibc(), tuple(self.facts["glibc_of_programs"] or (0, 0))
        if needed > (here or (0, 0)):
            brought = self.stage / "glibc"
            paths = ":".join([str(brought), *self.folders, *DRIVER_FOLDERS])
            self.prefix = [str(brought / "ld-linux-x86-64.so.2"), "--library-path", paths]
            self.notes.append(f"programs need glibc {needed}, here is {here}: they run on the one that was brought along")

    def program(self, name):
        return [*self.prefix, str(self.stage / "bin" / name)]

    def _pythons(self):
        """Each once, by the folder of its packages."""
        found = [sys.executable, shutil.which("python3"), os.environ.get("WATTN_PYTHON")]
        found += [path for pattern in PYTHONS for path in sorted(glob.glob(pattern))]
        return list(dict.fromkeys(path for path in found if path and os.access(path, os.X_OK)))

    def python(self, *modules, imports="", path=""):
        """A python that has these modules, and can import that one with `path` before its own; or why there is none."""
        find = f"import importlib.util as u; l = [m for m in {modules!r} if not u.find_spec(m)]; assert not l, f'lacks {{l}}'"
        code = f"{find}\nimport {imports}" if imports else find
        reasons = []
        for python in self.pythons:
            try:
                env = self.env | {"PYTHONPATH": str(path)}
                done = subprocess.run([python, "-c", code], env=env, capture_output=True, text=True, timeout=60)
            except subprocess.TimeoutExpired:
                reasons.append(f"{python}: took over a minute")
                continue
            if done.returncode == 0:
                return python, None
            last = done.stderr.strip().splitlines()
            reasons.append(f"{python}: {last[-1] if last else 'no reason given'}")
        return None, "; ".join(reasons)[:400]

    def describe(self):
        """For the results: what explains numbers later."""
        smi = shutil.which("nvidia-smi") or next(iter(glob.glob("/usr/local/nvidia/bin/nvidia-smi")), None)
        gpu = None
        if smi:
            fields = "name,driver_version,memory.total,clocks.sm,clocks.mem,temperature.gpu,power.draw"
            try:
                query = [smi, f"--query-gpu={fields}", "--format=csv,noheader"]
                done = subprocess.run(query, capture_output=True, text=True, timeout=30)
                gpu = done.stdout.strip() or done.stderr.strip()
            except (OSError, subprocess.TimeoutExpired) as error:
                gpu = str(error)
        return {
            "adapter": self.adapter,
            "kernel": platform.release(),
            "glibc": glibc(),
            "cpus": self.cpus,
            "python": self.pythons,
            "nvidia_smi": gpu,
            "notes": self.notes,
        }
