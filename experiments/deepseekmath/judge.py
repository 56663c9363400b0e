"""The reward model of steps that figures 5 and 6 begin with: see miniature.py.

    python -m grpo_jax label experiments/deepseekmath/start --data series-3-4 \\
        --max-new 72 --solutions 4 --questions 4000 --out runs/deepseekmath/labels
    python -m grpo_jax train experiments/deepseekmath/judge.py \\
        --workdir runs/deepseekmath/judge

Four solutions of the start to each of 4,000 questions, none of them held out by the
policies; eight completions behind each line say whether it can still come right. The
model of steps that learns from that is told of outcomes by its score of the last line.

Measured (2026-11-30): of 41,189 lines 81.5% of the labels are the truth (95%: 80.7 to
82.2). On held-out questions the model's ROC AUC is 0.784 (0.759-0.807) after 1,500
updates, and 0.779 after 600; 70.6% (68.4-72.8) are told rightly. Taught by 800
questions it came to 0.705. Labels take two and a half minutes of a core, the updates
ten. Policies exploit it: see figure5.py.
"""

import pathlib

from grpo_jax import experiment

miniature = experiment.load(str(pathlib.Path(__file__).with_name("miniature.py")))
get_config = miniature.judge
