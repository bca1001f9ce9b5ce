"""What is to be known of a GPU, in the order in which it is asked: one list for a visit of minutes to a bare machine (`--pack`), for a
machine with cargo and time (`bash benches/measure NAME`), and for the few cases of `--quick`, which software devices do too."""

import dataclasses
import re
import subprocess

# Dense attention beside the peers. All are cases of `wattn bench`.
PROMPTS = [f"32x{n}x{n}x128-f16" for n in (4096, 8192, 16384)]
DECODES = [f"32x1x{n}x128-f16" for n in (4096, 16384, 65536)]
DECODES += [f"32-8x1x{n}x128-f16" for n in (4096, 16384, 65536, 131072)]
SINGLE = ["32x16384x16384x128", "8x1x131072x128"]
VISIT_DENSE = [f"storage/{name}" for name in PROMPTS + DECODES] + [f"prefill/{SINGLE[0]}", f"decode/{SINGLE[1]}"]
VISIT_SPARSE = [
    "sparse-prefill/hip-2x1024x131072x128",
    "sparse-prefill/infinite-hip-2-1x1024x131072x128",
    "sparse-decode/hip-2x1x131072x128",
    "sparse-decode/hip-32x1x32768x128-f16",
    "sparse-decode/hip-32x1x131072x128-f16",
    "sparse-decode/infinite-hip-2-1x1x131072x128",
    "sparse-prefill/infinite-hip-2-1x256x1048576x128",
    "sparse-decode/infinite-hip-2-1x1x1048576x128",
]
VISIT_TUNED = ["storage/32x8192x8192x128-f16", "storage/32x1x16384x128-f16", "sparse-decode/hip-2x1x131072x128"]
# ONNX Runtime's decoding copies its cache in every node, so that long ones say nothing.
ORT = [*PROMPTS, *DECODES[:2]]

# Width 64: software devices take minutes to compile the peers' kernels of width 128.
QUICK_DENSE = ["prefill/8x1024x1024x64", "decode/8x1x4096x128"]
QUICK_SPARSE = ["sparse-prefill/hip-2x1024x4096x128", "sparse-decode/infinite-hip-2-1x1x4096x128"]
QUICK_TUNED = ["prefill/8x1024x1024x64", "decode/8x1x4096x128", "sparse-decode/hip-2x1x4096x128"]
QUICK_LLAMA = ["4x256x256x64-f16"]
QUICK_ORT = ["4x256x256x64-f16", "4x1x512x64-f16"]
# GPU tests that take seconds, or read files, and none that measures time, which says nothing where others compute too.
QUICK_TESTS = ["gpu_lm_shipped", "gpu_merge", "gpu_pipelines"]
# They take the longest: begun first, they run beside all others.
LONG_TESTS = ["gpu_matrix", "gpu_lm", "gpu_selected", "gpu_select", "gpu_tune", "gpu_matrix_bf16", "gpu_attend", "gpu_combinations"]

TIER_CASE = "storage/4x1024x1024x128-f16"
# Fields of `wattn info --json` without which an adapter lacks a tier.
TIERS = {
    "baseline": (),
    "f16": ("shader_f16",),
    "subgroup": ("subgroup_size",),
    "subgroup-f16": ("shader_f16", "subgroup_size"),
    "matrix": ("matrix_edge",),
}


@dataclasses.dataclass
class Step:
    """One thing that is asked. `argv` is what runs, `missing` why it cannot; `json` says that it leaves a report at `{json}`. A word
    `{report NAME}` is the file of another step's report, which must be there."""

    name: str
    argv: list
    limit: float
    missing: str = None
    json: bool = True
    env: dict = dataclasses.field(default_factory=dict)
    # Steps in a row of which this is true run side by side.
    beside: bool = False
    # Options that go on from a report that an earlier run began.
    resume: list = None
    # Whether the output is that of Rust's test harness.
    harness: bool = False
    # Whether each case of its report must have run and be right.
    right: bool = False


def first(machine):
    """What all others need to know."""
    return Step("info", [*machine.program("wattn"), "info", "--measure", "--adapter", machine.adapter, "--json", "{json}"], 60)


def adapter_of(info):
    """The adapter that the others take: the first that `wattn info` lists by this name."""
    return info["adapters"][0]


def all_steps(machine, info, scope):
    """`scope`: visit, quick or full. One by one, so that looking for what a step needs takes no time of those before."""
    adapter = adapter_of(info)
    yield from tiers(machine, adapter, scope)
    yield from tests(machine, adapter, scope)
    yield dense(machine, scope)
    yield from registers(machine, adapter, scope)
    yield torch(machine, scope)
    yield from llama(machine, adapter, scope)
    yield from ort(machine, scope)
    if scope != "full":  # there, these are cases of `dense`
        yield bench(machine, "sparse", QUICK_SPARSE if scope == "quick" else VISIT_SPARSE, scope, 120)
    yield from tuning(machine, scope)
    if scope == "full":
        yield from burn(machine)


def bench(machine, name, cases, scope, limit, *options):
    argv = [*machine.program("wattn"), "bench", "--backend", "gpu", "--adapter", machine.adapter, *options]
    argv += ["--cases", ",".join(cases)] if cases else []
    if "--tier" in options:  # to be checked
        argv += ["--quick", "--seconds", "0"]
    elif scope == "quick":
        argv += ["--quick", "--seconds", "0.3"]
    elif scope == "visit":
        argv += ["--seconds", "2"]
    if "--tuning" not in options:
        argv.append("--no-tune")
    return Step(name, [*argv, "--json", "{json}"], within(limit, scope), resume=["--resume", "{json}"])


def within(limit, scope):
    """A machine that is not lent for minutes has time, and a software device needs more of it."""
    return {"visit": limit, "quick": 3 * limit, "full": 6 * 3600}[scope]


def tiers(machine, adapter, scope):
    """One case on each tier, compared with the oracle."""
    for tier, fields in TIERS.items():
        lacking = [field for field in fields if not adapter[field]]
        step = bench(machine, f"tier/{tier}", [TIER_CASE], scope, 60, "--tier", tier)
        step.right = True
        step.missing = f"the adapter lacks {', '.join(lacking)}" if lacking else None
        yield step


def tests(machine, adapter, scope):
    program = machine.program("gpu_all")
    listed = subprocess.run([*program, "--list"], env=machine.env, capture_output=True, text=True)
    if listed.returncode:
        # What it says then is what the step has to say.
        yield Step("tests", [*program, "--list"], 30, json=False)
    modules = sorted(set(re.findall(r"^(\w+)::.*: test$", listed.stdout, re.MULTILINE)))
    modules.sort(key=lambda name: LONG_TESTS.index(name) if name in LONG_TESTS else len(LONG_TESTS))
    for module in modules:
        if scope == "quick" and module not in QUICK_TESTS:
            continue
        argv = [*program, f"{module}::", "--test-threads", "2"]
        if adapter["matrix_edge"]:
            # Those that need matrices are ignored elsewhere.
            argv.append("--include-ignored")
        yield Step(f"tests/{module}", argv, within(150, scope), json=False, harness=True, beside=True)


def dense(machine, scope):
    cases = {"visit": VISIT_DENSE, "quick": QUICK_DENSE, "full": None}[scope]
    return bench(machine, "dense", cases, scope, 150)


def registers(machine, adapter, scope):
    """What the driver made of the kernels of these cases: registers, spills, size."""
    if scope != "quick":
        why = "software drivers report nothing of their pipelines" if adapter["kind"] == "Cpu" else None
        argv = [*machine.program("registers"), adapter["name"], *PROMPTS[1:], *DECODES, *SINGLE, "--keep", "registers"]
        yield Step("registers", argv, within(40, scope), missing=why, json=False)


def torch(machine, scope):
    python, why = machine.python("torch", "numpy")
    argv = [python, str(machine.stage / "peers" / "torch_attention.py"), "--device", "cuda"]
    argv += ["--cases", ",".join(PROMPTS + DECODES + SINGLE), "--backends", "flash,cudnn,efficient"]
    argv += ["--flex", ",".join(PROMPTS[1:]), "--seconds", "0.3", "--json", "{json}"]
    # Goes on from a report by itself.
    return Step("torch", argv, within(120, scope), missing=why and f"no python with torch and numpy: {why}", resume=[])


def llama(machine, adapter, scope):
    python, why = machine.python("numpy")
    libraries = machine.stage / "ggml"
    why = why and f"no python with numpy: {why}"
    if not libraries.is_dir():
        why = "llama.cpp's libraries were not brought along"
    env = {"GGML_VK_VISIBLE_DEVICES": "0"} if adapter["kind"] == "Cpu" else {}
    for case in QUICK_LLAMA if scope == "quick" else PROMPTS + DECODES:
        argv = [python, str(machine.stage / "peers" / "llama.py"), "--libraries", str(libraries), "--cases", case]
        argv += ["--adapter", machine.adapter, "--seconds", "0.5" if scope == "quick" else "2", "--json", "{json}"]
        yield Step(f"llama/{case}", argv, within(50, scope), missing=why, env=env)


def ort(machine, scope):
    site, models = machine.stage / "site", machine.stage / "onnx"
    if site.is_dir():
        python, why = machine.python("numpy", imports="onnxruntime", path=site)
        why = why and f"no python {machine.facts['python']} with numpy that takes onnxruntime-webgpu: {why}"
    else:
        python, why = None, "onnxruntime-webgpu was not brought along"
    for case in QUICK_ORT if scope == "quick" else ORT:
        argv = [python, str(machine.stage / "peers" / "ort_chain.py"), "--models", str(models), "--cases", case]
        argv += ["--seconds", "0.5" if scope == "quick" else "2", "--json", "{json}"]
        yield Step(f"ort/{case}", argv, within(40, scope), missing=why, env={"PYTHONPATH": str(site)})


def tuning(machine, scope):
    """Tilings for three cases, and those cases again with them."""
    cases = {"visit": VISIT_TUNED, "quick": QUICK_TUNED, "full": None}[scope]
    tune = [*machine.program("wattn"), "tune", "--backend", "gpu", "--adapter", machine.adapter, "--export", "{json}"]
    tune += ["--cases", ",".join(cases)] if cases else []
    if scope == "quick":
        tune += ["--quick", "--most", "2"]
    elif scope == "visit":
        tune += ["--seconds", "120"]
    yield Step("tune", tune, within(150, scope))
    yield bench(machine, "tuned", cases, scope, 90, "--tuning", "{report tune}")
    if scope == "full":
        compare = [*machine.program("wattn"), "bench", "compare", "{report dense}", "{report tuned}"]
        yield Step("compare", compare, 60, json=False)


def burn(machine):
    """Attention in Burn, which only cargo can bring."""
    script = machine.facts.get("project") and f"{machine.facts['project']}/benches/peers/burn_ratio.py"
    for name, options in {"burn": [], "burn-f16": ["--dtype", "f16"]}.items():
        argv = [machine.pythons[0], script, "--adapter", machine.adapter, *options]
        missing = None if script else "needs cargo and the project"
        yield Step(name, argv, within(0, "full"), missing=missing, json=False)
