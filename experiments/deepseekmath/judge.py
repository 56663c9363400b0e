"""The reward model of steps that figures 5 and 6 begin with: see miniature.py.

    python -m grpo_jax label experiments/deepseekmath/start --data series-3-4 \\
        --max-new 72 --solutions 4 --questions 4000 --out runs/deepseekmath/labels
    python -m grpo_jax train experiments/deepseekmath/judge.py \\
        --workdir runs/deepseekmath/judge

Four solutions of the start to each of 4,000 questions, none of them held out by the
policies; eight completions behind each line say whether it can still come right. The
model of steps that learns from that is told of outcomes by its score of the last line.

NOT YET RUN so. A pilot with 800 questions (2026-11-30, six minutes on one CPU core): of
8,343 lines 80.6% of the labels are the truth (95%: 78.9-82.2); on held-out questions
the model's ROC AUC is 0.705 (0.667-0.740) after 600 updates, and was 0.726 after 200:
so few lines are learned by heart. Policies that it rewarded exploited it: after 90
steps 16% of the likeliest answers were right where 43% had been (figure5.py).
"""

import pathlib

from grpo_jax import experiment

miniature = experiment.load(str(pathlib.Path(__file__).with_name("miniature.py")))
get_config = miniature.judge
