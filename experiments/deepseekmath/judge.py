"""The reward model of steps that figures 5 and 6 begin with: see miniature.py.

    python -m grpo_jax label experiments/deepseekmath/start --data series-3-4 \\
        --max-new 72 --solutions 4 --questions 4000 --out runs/deepseekmath/labels
    python -m grpo_jax train experiments/deepseekmath/judge.py \\
        --workdir runs/deepseekmath/judge

Four solutions of the start to each of 4,000 questions, none of them held out by the
policies; eight completions behind each line say whether it can still come right. The
model of steps that learns from that is told of outcomes by its score of the last line.

Measured (2026-11-30, 20 minutes at low priority on two CPU cores that other work had):
of 41,189 lines 81.5% of the labels are the truth (95%: 80.7-82.2); on held-out
questions the model's ROC AUC is 0.779 (0.754-0.802) after 600 updates, its calibration
error 0.03; after 200 it was 0.749, so more updates might do more. Taught by 800
questions it came to 0.705 and had its lines by heart, and policies exploited it: after
90 steps 16% of the likeliest answers were right where 43% had been (figure5.py).
"""

import pathlib

from grpo_jax import experiment

miniature = experiment.load(str(pathlib.Path(__file__).with_name("miniature.py")))
get_config = miniature.judge
