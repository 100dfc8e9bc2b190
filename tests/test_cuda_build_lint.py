"""The build log lint on lines that ptxas 13.0 printed for kernels made to be bad."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parent.parent / "tools" / "cuda_build_lint.py"
_spec = importlib.util.spec_from_file_location("cuda_build_lint", TOOL)
lint = importlib.util.module_from_spec(_spec)
sys.modules["cuda_build_lint"] = lint
_spec.loader.exec_module(lint)

GOOD = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN10sparsecore4sm9013matmul_kernelINS_8BFloat16ELi128EEEvPKT_Pf' for 'sm_90a'
ptxas info    : Function properties for _ZN10sparsecore4sm9013matmul_kernelINS_8BFloat16ELi128EEEvPKT_Pf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 90 registers, used 1 barriers
ptxas info    : Compile time = 52.076 ms
"""
SPILLS = """\
ptxas info    : Compiling entry function '_Z8spillingPfPKf' for 'sm_90a'
ptxas info    : Function properties for _Z8spillingPfPKf
    2416 bytes stack frame, 11840 bytes spill stores, 11864 bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers, 2416 bytes cumulative stack size
"""
STATIC_SHARED = """\
ptxas info    : Compiling entry function '_Z13static_sharedPf' for 'sm_80'
ptxas info    : Function properties for _Z13static_sharedPf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 10 registers, used 1 barriers, 4096 bytes smem, 360 bytes cmem[0]
"""
CALLED = """\
ptxas info    : Function properties for _Z4stepRA64_fm
    0 bytes stack frame, 16 bytes spill stores, 16 bytes spill loads
"""
ADVISORIES = {
    "C7508": "ptxas info    : (C7508) Potential Performance Loss: 'setmaxnreg' ignored; unable to determine "
    "register count at entry.",
    "C7510": "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due "
    "to wgmma pipeline crossing function boundary at a function call in the function '_Z6calledPfi'",
    "C7511": "ptxas info    : (C7511) Potential Performance Loss: wgmma.mma_async instructions are serialized due "
    "to insufficient register resources for the wgmma pipeline in the function '_Z7crowdedPfi'",
    "C7517": "ptxas info    : (C7517) warpgroup.wait is injected in around line 299 by compiler to allow use of "
    "registers defined by GMMA in function '_Z10serialisedPfi'",
    "C7519": "ptxas info    : (C7519) warpgroup.arrive is injected in around line 283 by compiler to allow use of "
    "registers in GMMA in function '_Z10serialisedPfi'",
}
BUDGETS = {
    "matmul_kernel": lint.Budget(96),
    "spilling": lint.Budget(64, stack_bytes=4096),
    "static_shared": lint.Budget(16),
}


def wrong(log: str, budgets: dict | None = BUDGETS) -> list[str]:
    return lint.check(*lint.read_log(log), budgets)


def test_good_log_passes():
    assert wrong(GOOD) == []
    (kernel,) = lint.read_log(GOOD)[0]
    assert (kernel.name, kernel.architecture, kernel.registers) == ("sm90::matmul_kernel", "sm_90a", 90)


@pytest.mark.parametrize("code", ADVISORIES)
def test_advisories_fail(code: str):
    (sentence,) = wrong(GOOD + ADVISORIES[code])
    assert sentence.startswith(code)


def test_spills_fail_unless_declared_for_the_architecture():
    declared = lint.read_budgets(
        "// Budget of spilling on sm_90a: 64 registers, 4096 bytes of stack, 23704 bytes of spills."
    )
    assert wrong(SPILLS, declared) == []
    assert len(wrong(SPILLS.replace("11840 bytes", "11844 bytes"), declared)) == 1
    assert "no budget" in wrong(SPILLS.replace("sm_90a", "sm_80"), declared)[0]


def test_spills_fail():
    assert wrong(SPILLS) == ["spilling on sm_90a: spills 23704 bytes"]
    assert any("spills" in sentence for sentence in wrong(SPILLS, None))


def test_stack_without_a_budget_fails():
    budgets = BUDGETS | {"spilling": lint.Budget(64)}
    assert "spilling on sm_90a: 2416 bytes of stack, and its budget is 0" in wrong(SPILLS, budgets)


def test_spills_of_called_functions_fail_and_are_not_the_kernels():
    assert wrong(GOOD + CALLED) == ["step, a function that is called: spills 32 bytes"]


def test_registers_over_budget_fail():
    assert wrong(GOOD, {"matmul_kernel": lint.Budget(88)}) == [
        "sm90::matmul_kernel on sm_90a: 90 registers, and its budget is 88"
    ]


def test_a_namespace_has_its_own_budget():
    assert wrong(GOOD, {"matmul_kernel": lint.Budget(88), "sm90::matmul_kernel": lint.Budget(90)}) == []
    assert len(wrong(GOOD, {"matmul_kernel": lint.Budget(90), "sm90::matmul_kernel": lint.Budget(88)})) == 1


def test_kernels_need_a_budget():
    (sentence,) = wrong(GOOD, {})
    assert "no budget" in sentence and "// Budget of sm90::matmul_kernel: 90 registers." in sentence
    assert wrong(GOOD, None) == []


def test_static_shared_memory_over_budget_fails():
    assert wrong(STATIC_SHARED) == [
        "static_shared on sm_80: 4096 bytes of static shared memory, and its budget is 0"
    ]
    assert wrong(STATIC_SHARED, {"static_shared": lint.Budget(16, 4096)}) == []


def test_warnings_fail():
    assert wrong(GOOD + "ptxas warning : Value of threads per SM is out of range\n") == [
        "warning: Value of threads per SM is out of range"
    ]


def test_a_log_cut_short_fails():
    assert wrong(GOOD[: GOOD.index("ptxas info    : Used")]) == [
        "sm90::matmul_kernel on sm_90a: the log does not say how many registers it uses"
    ]


def test_names():
    assert lint.function_name("_Z8spillingPfPKf") == "spilling"
    assert (
        lint.function_name("_ZN10sparsecore11conformance10mma_kernelIaEEvPKT_") == "conformance::mma_kernel"
    )
    assert lint.function_name("_ZN10sparsecore12_GLOBAL__N_13fooEv") == "sparsecore::foo"
    assert lint.function_name("_ZL5localv") == "local"


def test_budgets_are_read_from_comments():
    text = (
        "// Budget of a_kernel: 128 registers.\n"
        "// Budget of b: 32 registers, 1024 bytes of shared memory, 8 bytes of stack.\n"
    )
    assert lint.read_budgets(text) == {"a_kernel": lint.Budget(128), "b": lint.Budget(32, 1024, 8)}


@pytest.mark.parametrize(
    ("log", "budget", "code"), [(GOOD, 90, 0), (GOOD, 89, 1), (GOOD + ADVISORIES["C7510"], 90, 1)]
)
def test_command(tmp_path: Path, log: str, budget: int, code: int):
    (tmp_path / "matmul.cu.o.ptxas.txt").write_text(log)
    (tmp_path / "matmul.cuh").write_text(f"// Budget of matmul_kernel: {budget} registers.\n")
    run = subprocess.run(
        [sys.executable, TOOL, "check", tmp_path, "--sources", tmp_path], capture_output=True, text=True
    )
    assert run.returncode == code, run.stdout
    assert ("matmul.cu: " in run.stdout) == bool(code)


def test_command_without_logs_fails(tmp_path: Path):
    run = subprocess.run([sys.executable, TOOL, "check", tmp_path], capture_output=True, text=True)
    assert run.returncode == 1 and "Build first" in run.stdout


def test_record_keeps_the_log_and_the_exit_code(tmp_path: Path):
    compiler = tmp_path / "compiler.py"
    compiler.write_text(
        "import sys; print('ptxas info    : 0 bytes gmem', file=sys.stderr); sys.exit('bad' in sys.argv)"
    )
    command = [sys.executable, TOOL, "record", sys.executable, compiler, "-o", tmp_path / "kernel.o"]
    assert subprocess.run(command).returncode == 0
    assert "0 bytes gmem" in (tmp_path / "kernel.o.ptxas.txt").read_text()
    failing = subprocess.run([*command, "bad"], capture_output=True, text=True)
    assert failing.returncode == 1 and "0 bytes gmem" in failing.stderr
