"""Where runs are saved when --output_dir is not given, and how they are called."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def short(value: float) -> str:
    """2e-05 as `2e-5`, 0.0001 as `0.0001`: the spelling of the published run names."""
    mantissa, e, exponent = f"{value:g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if e else mantissa


def _rate(value: float) -> str:
    """As `short`, but 0.0001 as `1e-4`: so the published names write learning rates, and only these."""
    if value >= 1e-3:
        return short(value)
    mantissa, _, exponent = f"{value:e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def run_id(
    prefix: str,
    *,
    epochs: int,
    learning_rate: float,
    weight_decay: float,
    alpha: float | None = None,
    beta: float | None = None,
) -> str:
    """`PREFIX_epoch-3_lr-2e-5_wd-0.0001[_kd_alpha-0.2][_kd_beta-10]`."""
    name = f"{prefix}_epoch-{epochs}_lr-{_rate(learning_rate)}_wd-{short(weight_decay)}"
    name += f"_kd_alpha-{short(alpha)}" if alpha is not None else ""
    return name + (f"_kd_beta-{short(beta)}" if beta is not None else "")


def teacher_dir(task: str, model_id: str) -> Path:
    """Default folder of a fine-tuned teacher."""
    return ROOT / "models" / "teacher_model" / task / model_id


def student_dir(method: str, task: str, model_id: str) -> Path:
    """Default folder of a student."""
    return ROOT / "models" / "student_model" / method / task / model_id
