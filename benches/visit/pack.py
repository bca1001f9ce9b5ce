#!/usr/bin/env python3
"""Puts together what measures a GPU on a machine without cargo and network: see `bash benches/measure --pack`.

  pack.py --pack DIR      DIR/run, its scripts, facts.json, and all else in one solid archive that python3 unpacks
  pack.py --stage DIR     the same unpacked, for this machine; a peer that cannot be fetched is left out

Programs are built by cargo. Peers come through npm and pip, libraries through apt-get; what was fetched is kept in target/visit.
"""

import argparse
import datetime
import hashlib
import json
import lzma
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile

import steps

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
KEPT = ROOT / "target" / "visit"
MOST_BYTES = 62 << 20
LLAMA = "@node-llama-cpp/linux-x64-vulkan@3.22.1"
ORT = "onnxruntime-webgpu==1.27.0"
# What wheels for a glibc of 2.28 or later may be called.
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
# The Vulkan loader, and what NVIDIA's driver is linked with.
PACKAGES = (
    "libvulkan1 libegl1 libglvnd0 libopengl0 libgl1 libglx0 libgles2 libx11-6 libxext6 libxcb1 libxau6 libxdmcp6 libbsd0 libmd0".split()
)
# Files that GPU tests read, below the project's folder.
TEST_FILES = ("examples/llm/model", "tests/golden/lm")
MODULES = ("visit.py", "steps.py", "machine.py")
PEERS = ("torch_attention.py", "ort_chain.py", "llama.py", "shapes.py", "ours.py")


class Failed(Exception):
    pass


def run(*command, **options):
    command = [str(word) for word in command]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, **options)
    if done.returncode:
        raise Failed(f"{' '.join(command)}: exit code {done.returncode}")
    return done.stdout


def needs(program, why):
    if not shutil.which(program):
        raise Failed(f"no {program}, {why}")


def once(name, make):
    """A folder of target/visit that is made unless it is there."""
    folder, new = KEPT / name, KEPT / f"{name}.new"
    if not folder.is_dir():
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        make(new)
        new.rename(folder)
    return folder


def build():
    """The program, the GPU tests, and what reads registers. Which commit they are of, the facts say."""
    run("cargo", "build", "--release", cwd=ROOT)
    test = ["cargo", "test", "--release", "--test", "gpu_all", "--no-run", "--message-format", "json"]
    found = [json.loads(line) for line in run(*test, cwd=ROOT).splitlines() if line.startswith("{")]
    programs = {line["target"]["name"]: line["executable"] for line in found if line.get("executable")}
    target = pathlib.Path(programs["gpu_all"]).parent.parent
    manifest = ROOT / "benches" / "registers" / "Cargo.toml"
    run("cargo", "build", "--release", "--manifest-path", manifest, env=os.environ | {"CARGO_TARGET_DIR": str(target.parent)})
    return {"wattn": target / "wattn", "gpu_all": programs["gpu_all"], "registers": target / "registers"}


def glibc_of(files):
    """The C library that these need, such as [2, 35]."""
    found = [version for file in files for version in re.findall(r"GLIBC_(\d+)\.(\d+)", run("objdump", "-T", file))]
    return list(max(tuple(map(int, version)) for version in found))


def loaded(program):
    """The shared libraries that a program is linked with, the dynamic linker, and the parts of the same C library that drivers want."""
    found = {pathlib.Path(path) for path in re.findall(r"(/\S+\.so\S*) \(0x", run("ldd", program))}
    beside = next(path.parent for path in found if path.name == "libc.so.6")
    return found | {beside / name for name in ("libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1", "libresolv.so.2")}


def libraries(folder):
    needs("apt-get", "which fetches the Vulkan loader")
    run("apt-get", "download", "-qq", *PACKAGES, cwd=folder, stderr=subprocess.DEVNULL)
    for package in folder.glob("*.deb"):
        run("dpkg", "-x", package, folder / "x")
    (folder / "lib").mkdir()
    # By the names that programs ask for, which are links in the packages.
    for path in (folder / "x").rglob("*.so.*"):
        soname = re.search(r"SONAME\s+(\S+)", run("objdump", "-p", path))
        if soname and not path.is_symlink():
            shutil.copy(path, folder / "lib" / soname[1])


def llama(folder):
    if sys.platform != "linux":
        raise Failed("its libraries are Linux's")
    needs("npm", "which fetches llama.cpp's libraries")
    run("npm", "pack", "--silent", LLAMA, cwd=folder)
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as files:
        for name in ("libggml-base.so", "libggml-vulkan.so"):
            member = files.extractfile(f"package/bins/linux-x64-vulkan/{name}")
            (folder / name).write_bytes(member.read())
    archive.unlink()


def onnxruntime(folder, python):
    where = [word for platform in PLATFORMS for word in ("--platform", platform)]
    tag = ["--python-version", python, "--implementation", "cp", "--only-binary", ":all:"]
    run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", *tag, *where, "-d", folder, ORT)
    (wheel,) = folder.glob("*.whl")
    shutil.unpack_archive(wheel, folder, "zip")
    wheel.unlink()
    for rest in ("transformers", "quantization", "tools"):
        shutil.rmtree(folder / "onnxruntime" / rest, ignore_errors=True)
    # The module for python is linked with a copy of its own.
    for copy in (folder / "onnxruntime" / "capi").glob("libonnxruntime.so*"):
        copy.unlink()


def onnx_models(folder):
    site = once("onnx-writer", lambda to: run(sys.executable, "-m", "pip", "install", "-q", "--target", to, "onnx", "numpy"))
    cases = ",".join(steps.ORT + steps.QUICK_ORT)
    script = ROOT / "benches" / "peers" / "ort_chain.py"
    env = os.environ | {"PYTHONPATH": str(site)}
    run(sys.executable, script, "--cases", cases, "--write", folder, env=env)


def copy(source, folder):
    shutil.copytree(source, folder, dirs_exist_ok=True, symlinks=True)


def peers(folder, python, optional):
    """Other people's operators. Returns those that could not be fetched, with the reason."""

    def with_models():
        copy(once(f"onnxruntime-{python}", lambda to: onnxruntime(to, python)), folder / "site")
        onnx_models(folder / "onnx")

    without = {}
    for name, add in (("llama.cpp", lambda: copy(once("llama", llama), folder / "ggml")), ("ONNX Runtime", with_models)):
        try:
            add()
        except Failed as failed:
            if not optional:
                raise
            without[name] = str(failed)
            print(f"left out: {name}: {failed}")
    return without


def stage(folder, arguments, elsewhere):
    """Everything, unpacked. For this machine programs and libraries are as they are, and peers that cannot be fetched are left out."""
    shutil.rmtree(folder, ignore_errors=True)
    commit = run("git", "rev-parse", "--short", "HEAD", cwd=ROOT).strip()
    dirty = bool(run("git", "status", "--porcelain", cwd=ROOT).strip())
    (folder / "bin").mkdir(parents=True)
    programs = []
    for name, program in build().items():
        programs.append(folder / "bin" / name)
        shutil.copy(program, programs[-1])
        if elsewhere:
            run("strip", programs[-1])
    (folder / "peers").mkdir()
    for name in PEERS:
        shutil.copy(ROOT / "benches" / "peers" / name, folder / "peers")
    for name in TEST_FILES:
        copy(ROOT / name, folder / "files" / name)
    if elsewhere:
        (folder / "glibc").mkdir()
        for path in {path for program in programs for path in loaded(program)}:
            shutil.copy(path, folder / "glibc" / path.name)
        copy(once("libraries", libraries) / "lib", folder / "lib")
    without = {} if arguments.without_peers else peers(folder, arguments.python, optional=not elsewhere)
    facts = {
        "commit": commit,
        "dirty": dirty,
        "programs": hashlib.sha256(b"".join(path.read_bytes() for path in programs)).hexdigest(),
        "rustc": run("rustc", "--version", cwd=ROOT).strip(),
        "built": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "glibc_of_programs": glibc_of(programs) if elsewhere else None,
        "glibc_brought": os.confstr("CS_GNU_LIBC_VERSION") if elsewhere else None,
        "python": arguments.python,
        "peers": None if arguments.without_peers else {"llama": LLAMA, "onnxruntime": ORT, "without": without},
        "project": None if elsewhere else str(ROOT),
    }
    (folder / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")
    return facts


def archive(folder, path):
    """One stream, so that what programs and files have in common is stored once; large files that are alike lie side by side."""
    filters = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 64 << 20}]
    order = ["facts.json", "bin", "files", "glibc", "lib", "peers", "onnx", "ggml", "site"]
    names = sorted(os.listdir(folder), key=order.index)
    with lzma.open(path, "wb", filters=filters) as out, tarfile.open(fileobj=out, mode="w") as files:
        for name in names:
            files.add(folder / name, name, filter=lambda entry: None if "__pycache__" in entry.name else entry)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pack(folder, arguments):
    if folder.exists() and any(folder.iterdir()) and not (folder / "kit.tar.xz").exists():
        raise Failed(f"{folder} is not empty, and no kit")
    facts = stage(KEPT / "stage", arguments, elsewhere=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(HERE / "run", folder)
    for name in MODULES:
        shutil.copy(HERE / name, folder)
    facts["archive"] = archive(KEPT / "stage", folder / "kit.tar.xz")
    (folder / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {size / 2**20:.1f} MiB; commit {facts['commit']}{' with changes' if facts['dirty'] else ''}; programs need")
    print(f"glibc {'.'.join(map(str, facts['glibc_of_programs']))}, and bring {facts['glibc_brought']} for an older machine")
    if size > MOST_BYTES:
        raise Failed(f"{size / 2**20:.1f} MiB, more than the {MOST_BYTES >> 20} that fit; see --without-peers")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--pack", type=pathlib.Path)
    what.add_argument("--stage", type=pathlib.Path)
    parser.add_argument("--without-peers", action="store_true", help="without the libraries of llama.cpp and ONNX Runtime")
    parser.add_argument("--python", help="version of the python that takes onnxruntime there [default: 3.12, with --stage this one's]")
    arguments = parser.parse_args()
    arguments.python = arguments.python or ("3.12" if arguments.pack else "{}.{}".format(*sys.version_info[:2]))
    if not re.fullmatch(r"3\.\d+", arguments.python):
        parser.error(f"--python {arguments.python}: a version is such as 3.12")
    try:
        for program in ("cargo", "git"):
            needs(program, "which builds the programs and knows their commit")
        if arguments.pack:
            for program in ("strip", "objdump", "ldd"):
                needs(program, "which the kit is made with")
            pack(arguments.pack.resolve(), arguments)
        else:
            stage(arguments.stage.resolve(), arguments, elsewhere=False)
    except Failed as failed:
        sys.exit(f"error: {failed}")


if __name__ == "__main__":
    main()
