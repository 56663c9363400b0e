"""The quickstart's command, with fewer steps: it goes through both stages."""

from grpo_jax import cli, workdir

FEWER = {
    "sft.steps": 2,
    "sft.batch-size": 8,
    "training.steps": 2,
    "training.batch-size": 4,
    "algorithm.group-size": 4,
    "optimizer.warmup": 0,
    "evaluation.questions": 8,
    "model.tiny.width": 16,
    "model.tiny.ffw": 16,
    "data.count": 100,
}


def test_the_command_learns_examines_and_draws(tmp_path, capsys):
    words = [word for k, x in FEWER.items() for word in (f"--{k}", str(x))]
    folder = tmp_path / "run"
    command = ["train", "experiments/quickstart.py", "--workdir", str(folder)]
    assert cli.main([*command, "--training.mesh", "1", "4", "1", *words]) == 0
    rows = list(workdir.rows(folder / "metrics.jsonl"))
    assert [row["stage"] for row in rows] == ["sft"] * 3 + ["online"] * 2
    examined = [row["step"] for row in rows if "eval/accuracy" in row]
    assert examined == [0, 2, 4]
    said = capsys.readouterr().out
    assert "data.wrong = 0.7" in said and "next: python -m grpo_jax evaluate" in said
    assert (folder / "figures" / "learning.png").is_file()
