"""The reward model of steps that real_7b.py's arms are rewarded by. NOT YET RUN.

    python -m grpo_jax label deepseek-ai/deepseek-math-7b-instruct --data math \\
        --instruction steps --wrapping paper --solutions 15 --max-new 1024 \\
        --dtype bfloat16 --rows 512 --out runs/deepseekmath/labels-7b
    python -m grpo_jax train experiments/deepseekmath/judge_7b.py \\
        --workdir runs/deepseekmath/judge-7b

`reproduce` makes both where they are missing. As the paper has it (2.2), and
Math-Shepherd: from DeepSeekMath-Base 7B at 2e-5, of the policy's own solutions, 15 to
each question of MATH, whose steps are labelled by eight completions each. A policy is
told of an outcome by its score of the last line.
"""

import pathlib

from grpo_jax import experiment

real = experiment.load(str(pathlib.Path(__file__).with_name("real_7b.py")))
get_config = real.judge
